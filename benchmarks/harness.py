"""Run cases in fresh processes, in turn; print ratios of medians beside accuracy and memory.

A case is a function without arguments that returns a dict with "seconds" (its own timing, after
what is not to be timed) and "accuracy" (a number, or a word); a module lists its cases as
``CASES = {name: {contender: function}}``, the first contender being skdmap. "cpu" is optional: CPU
seconds of the same stretch, all threads together, which a busy machine changes least. Every case
runs at one thread and at default threads unless ``--threads`` says otherwise. Ratios at one thread
are those of CPU seconds; at default threads those of seconds, which need an idle machine.
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HEADER = (
    "| case | contender | threads | seconds | CPU seconds | x skdmap | memory, MB | accuracy |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)
# What holds the libraries of a process to one thread.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)


def timed(work: Callable[[], Any]) -> tuple[Any, dict]:
    """Return what ``work`` returns, and how long it took on the wall and on all CPUs."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def main(path: str, cases: dict) -> None:
    """Parse the command line of a benchmark file and run what it asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", default=[""], help="names, or how they begin: D2")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", choices=["1", "default", "both"], default="both")
    parser.add_argument("--markdown", type=Path, help="append a table to this file")
    parser.add_argument("--one", nargs=2, metavar=("CASE", "CONTENDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        case, contender = arguments.one
        result = cases[case][contender]()
        result["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(result))
        return
    chosen = [name for name in cases if name.startswith(tuple(arguments.cases))]
    if not chosen:
        parser.error(f"no case begins with {arguments.cases}; there are {list(cases)}")
    rows = []
    threads = ["1", "default"] if arguments.threads == "both" else [arguments.threads]
    print(HEADER, flush=True)
    for case in chosen:
        for row in report(path, case, list(cases[case]), arguments.repeats, threads):
            print(row, flush=True)
            rows.append(row)
    if arguments.markdown:
        with arguments.markdown.open("a", encoding="utf-8") as file:
            file.write("\n".join(["", HEADER, *rows, ""]))


def report(
    path: str, case: str, contenders: list[str], repeats: int, threads: list[str]
) -> list[str]:
    """Run the contenders of a case in turn and return one row of a table for each."""
    results: dict[tuple[str, str], list[dict]] = {
        (name, count): [] for name in contenders for count in threads
    }
    failed = []
    for _ in range(repeats):
        for name, count in list(results):
            command = [sys.executable, "-W", "ignore", path, "--one", case, name]
            environment = {**os.environ, **(ONE_THREAD if count == "1" else {})}
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env=environment
            )
            if done.returncode:
                reason = done.stderr.strip().splitlines()[-1:] or ["no message"]
                failed.append(f"| {case} | {name} | {count} | failed: {reason[0]} | | | | |")
                results.pop((name, count))
                continue
            results[name, count].append(json.loads(done.stdout.strip().splitlines()[-1]))
    rows = []
    for count in threads:
        runs_of = {name: runs for (name, held), runs in results.items() if held == count}
        own = next(iter(runs_of.values()), [])
        rows += [row_of(case, name, count, runs, own) for name, runs in runs_of.items()]
    return rows + failed


def row_of(case: str, name: str, threads: str, runs: list[dict], own: list[dict]) -> str:
    """One row: medians, and the median of the ratios of pairs that ran in turn."""

    def median(key: str) -> str:
        known = [run[key] for run in runs if key in run]
        return f"{statistics.median(known):.2f}" if known else "-"

    # Other work on the machine lengthens the seconds of either.
    key = "cpu" if threads == "1" and all("cpu" in run for run in [*runs, *own]) else "seconds"
    ratio = statistics.median(a[key] / b[key] for a, b in zip(runs, own, strict=True))
    memory = max(run["megabytes"] for run in runs)
    return (
        f"| {case} | {name} | {threads} | {median('seconds')} | {median('cpu')} | {ratio:.2f} | "
        f"{memory:.0f} | {runs[-1]['accuracy']} |"
    )


def is_installed(package: str) -> bool:
    """Whether a peer can be imported."""
    return importlib.util.find_spec(package) is not None
