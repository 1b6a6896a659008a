"""Every case of every leg: ``python -m benchmarks [LEG [CASE ...]] [--repeats 5]``.

Each file of this folder that lists ``CASES`` is a leg (diffusion, wide, ...) and is run as a script
of its own, with the arguments given. Without a leg all are run. A case is named by how it begins.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def legs() -> list[Path]:
    """The files that list cases."""
    return [file for file in sorted(HERE.glob("*.py")) if "\nCASES" in file.read_text("utf-8")]


if __name__ == "__main__":
    failed, files, arguments = 0, legs(), sys.argv[1:]
    if arguments and arguments[0] in [file.stem for file in files]:
        files = [HERE / f"{arguments.pop(0)}.py"]
    for file in files:
        print(f"\n## {file.stem}\n", flush=True)
        failed += subprocess.run([sys.executable, str(file), *arguments], check=False).returncode
    sys.exit(1 if failed else 0)
