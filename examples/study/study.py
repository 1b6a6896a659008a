"""
Does training live on a low-dimensional manifold? The whole study
=================================================================

Trains networks in many settings, maps their trajectories, puts Hessian spectra and null models
beside them, and writes one report, ``report.html``, which opens without a network.

Run ``python examples/study/study.py --out results``. ``--quick`` takes small settings. What is
finished is kept in ``results/cache``: a second call goes on where the first was stopped.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

TITLE = "Does training live on a low-dimensional manifold?"
NEEDED = ("matplotlib", "plotly", "mnist1d")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=TITLE)
    parser.add_argument("--out", type=Path, required=True, help="folder for report and cache")
    parser.add_argument("--seed", type=int, default=0, help="master seed (default: 0)")
    parser.add_argument("--quick", action="store_true", help="small settings, about two minutes")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)"
    )
    arguments = parser.parse_args()
    if arguments.jobs < 1:
        parser.error(f"--jobs {arguments.jobs} must be at least 1")
    if arguments.seed < 0:
        parser.error(f"--seed {arguments.seed} must be at least 0")
    missing = missing_packages(NEEDED)
    if missing:
        parser.error(
            f"{', '.join(missing)} cannot be imported; run: pip install \"skdmap[study]\""
        )  # fmt: skip
    return arguments


def missing_packages(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if importlib.util.find_spec(name) is None]


def main() -> int:
    arguments = parse_arguments()
    try:
        write_report(arguments)
    except KeyboardInterrupt:
        print(
            f"\nInterrupted. What is finished is kept in {arguments.out / 'cache'}: the same "
            "command goes on from there.",
            file=sys.stderr,
        )
        return 130
    return 0


def write_report(arguments: argparse.Namespace) -> None:
    """Compute what is missing, say it, and write it."""
    # One thread for each process: small networks gain nothing from more, and processes would
    # fight for the cores. Set before torch is loaded, here and in the processes to come.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    # Loaded here so that a missing package is named at once, not by an import that fails.
    from plan import make_plan
    from report import Table, report_html
    from sections import sections_of
    from tasks import code_version, result, run_all

    started = time.monotonic()
    folder = arguments.out / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    plan = make_plan(quick=arguments.quick, seed=arguments.seed)
    run_all(plan.trainings, folder, jobs=arguments.jobs, words="training")
    run_all(list(plan.tasks.values()), folder, jobs=arguments.jobs, words="analysing")
    loaded = {name: result(task, folder) for name, task in plan.tasks.items()}
    sections = sections_of(plan, {name: found for name, (found, _) in loaded.items()})
    for section in sections:
        for number, figure in enumerate(section.figures, start=1):
            (arguments.out / f"{section.code}-{number}.png").write_bytes(figure.png)
    made = [
        f"Command: python examples/study/study.py --out {arguments.out.name} --seed "
        f"{arguments.seed}{' --quick' if arguments.quick else ''}. Digest of the code and the "
        f"libraries of the trainings: {code_version(None)}. {plan.n_surrogates} surrogates a "
        f"test. Rows a run: {', '.join(map(str, plan.row_counts))} in R6, {plan.n_rows} in R7.",
        f"Run r of every setting draws its initial weights and batches from the seed "
        f"({arguments.seed}, r).",
    ]
    told = [(name, words) for name, (_, said) in loaded.items() for words in said]
    warned = Table("Warnings", ("result", "warning"), told or [("none", "")])
    table = settings_table([*plan.settings, *(cell for _, cell in plan.cells)], Table)
    text = report_html(TITLE, sections, [table, warned], made, arguments.seed)
    (arguments.out / "report.html").write_text(text, encoding="utf-8")
    spoken = {section.code: section.sentences for section in sections}
    (arguments.out / "findings.json").write_text(json.dumps(spoken, indent=1), encoding="utf-8")
    for code, sentences in spoken.items():
        print(f"{code}: {' '.join(sentences)}\n")
    minutes = (time.monotonic() - started) / 60
    print(f"report: {arguments.out / 'report.html'} (this call took {minutes:.1f} minutes)")


def settings_table(settings: list[Any], make: Any) -> Any:
    """Return all settings, one a row."""
    rows = [{k: v for k, v in asdict(setting).items() if k != "seed"} for setting in settings]
    header = tuple(rows[0])
    return make("Settings", header, [tuple(str(row[name]) for name in header) for row in rows])


if __name__ == "__main__":
    sys.exit(main())
