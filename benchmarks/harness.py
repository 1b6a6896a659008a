"""Run cases in fresh processes, in turn; print ratios of medians beside accuracy and memory.

A case is a function without arguments that returns a dict with "seconds" (its own timing, after
what is not to be timed) and "accuracy" (a number, or a word); a module lists its cases as
``CASES = {name: {contender: function}}``, the first contender being skdmap.
"""

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys


def main(path: str, cases: dict) -> None:
    """Parse the command line of a benchmark file and run what it asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", default=list(cases))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", nargs=2, metavar=("CASE", "CONTENDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        case, contender = arguments.one
        result = cases[case][contender]()
        result["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(result))
        return
    for case in arguments.cases:
        report(path, case, list(cases[case]), arguments.repeats)


def report(path: str, case: str, contenders: list[str], repeats: int) -> None:
    """Run the contenders of a case in turn and print one line for each."""
    results: dict[str, list[dict]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name in contenders:
            command = [sys.executable, "-W", "ignore", path, "--one", case, name]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                reason = done.stderr.strip().splitlines()[-1:] or ["no message"]
                print(f"{case:28s} {name:22s} failed: {reason[0]}")
                results.pop(name)
                contenders = [other for other in contenders if other != name]
                continue
            results[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
    if not results:
        return
    own = next(iter(results))
    for name, runs in results.items():
        pairs = zip(runs, results[own], strict=True)
        ratio = statistics.median(run["seconds"] / base["seconds"] for run, base in pairs)
        memory = max(run["megabytes"] for run in runs)
        print(
            f"{case:28s} {name:22s} {ratio:6.2f} x {own}  {memory:7.0f} MB  "
            f"accuracy {runs[-1]['accuracy']}"
        )


def is_installed(package: str) -> bool:
    """Whether a peer can be imported."""
    return importlib.util.find_spec(package) is not None
