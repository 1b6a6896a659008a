"""Every case of every leg: ``python -m benchmarks [--repeats 5] [--markdown FILE]``.

Each file of this folder that lists ``CASES`` is run as a script of its own, with the options given.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def legs() -> list[Path]:
    """The files that list cases."""
    return [file for file in sorted(HERE.glob("*.py")) if "\nCASES" in file.read_text("utf-8")]


if __name__ == "__main__":
    failed = 0
    for file in legs():
        print(f"\n## {file.stem}\n", flush=True)
        failed += subprocess.run([sys.executable, str(file), *sys.argv[1:]], check=False).returncode
    sys.exit(1 if failed else 0)
