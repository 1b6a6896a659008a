"""Cost of a fit against the number of rows: ``python benchmarks/growth.py [--most 320000]``.

Swiss roll, 64 neighbours, 10 components; one process for each size. Prints CPU seconds, all threads
together, and what doubling the rows multiplies them by; draws both on logarithmic axes.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
from diffusion import neighbor_search, skdmap_roll

FIRST = 10_000


def one(n_samples):
    fit = skdmap_roll(n_samples)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"fit": fit["cpu"], "search": neighbor_search(n_samples)["cpu"], "megabytes": memory}


def sizes(most):
    doubled = FIRST * 2 ** np.arange(20)
    # The last step may be a little more or less than a doubling.
    found = [int(n) for n in doubled if n < 0.6 * most]
    return [*found, most]


def draw(rows, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    n = np.array([row["n"] for row in rows])
    figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
    for key, label in (("fit", "DiffusionMap.fit"), ("search", "scikit-learn's search alone")):
        ax.loglog(n, [row[key] for row in rows], "o-", label=label)
    first = rows[0]["fit"]
    steepest = first * 2.5 ** np.log2(n / n[0])
    ax.loglog(n, steepest, ":", color="0.5", label="2.5 times for each doubling")
    ax.set(xlabel="rows", ylabel="CPU seconds", title="Swiss roll, 64 neighbours, 10 components")
    ax.legend(frameon=False)
    ax.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--most", type=int, default=320_000)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments.one)))
        return
    rows = []
    print("| rows | fit, CPU s | x for a doubling | search alone, CPU s | fit / search | MB |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    for n in sizes(arguments.most):
        command = [sys.executable, "-W", "ignore", __file__, "--one", str(n)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = {"n": n, **json.loads(done.stdout.strip().splitlines()[-1])}
        factor = "-"
        if rows:
            doublings = np.log2(n / rows[-1]["n"])
            factor = f"{(row['fit'] / rows[-1]['fit']) ** (1 / doublings):.2f}"
        rows.append(row)
        print(
            f"| {n} | {row['fit']:.2f} | {factor} | {row['search']:.2f} | "
            f"{row['fit'] / row['search']:.1f} | {row['megabytes']:.0f} |",
            flush=True,
        )
    mean = (rows[-1]["fit"] / rows[0]["fit"]) ** (1 / np.log2(rows[-1]["n"] / rows[0]["n"]))
    print(f"\nDoubling the rows multiplies the time by {mean:.2f} on average.")
    if arguments.picture:
        draw(rows, arguments.picture)


if __name__ == "__main__":
    main()
