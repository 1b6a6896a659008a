"""Wide rows beside the product that bounds them: ``python benchmarks/wide.py [CASE ...]``.

Case D5 is 2,000 float32 rows in a memory map, of 100,000 columns, or as many as
``SKDMAP_WIDE_COLUMNS`` says (1,000,000 take 8 GB of disk). The rows are a random walk of step 1e-4
in each column, as in late training: far from the origin, and close to each other. The products
are timed without reading and copying; accuracy is the largest relative error of the squared
distance of neighbours and of random pairs. Seconds are CPU seconds of all threads; megabytes are
those of the process, libraries (about 150) included.

Case D4 is 50,000 rows of 784 columns on a six-dimensional manifold: a fit beside the searches for
neighbours, compilation included. Case D8 is a search over ten bandwidths on the same rows, or as
many of them as ``SKDMAP_SEARCHED_ROWS`` says, with and without a cache; accuracy tells the
bandwidth chosen, and the CPU seconds of its parts.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from harness import main

N_ROWS = 2000
N_COLUMNS = int(os.environ.get("SKDMAP_WIDE_COLUMNS", "100000"))
N_SEARCHED = int(os.environ.get("SKDMAP_SEARCHED_ROWS", "50000"))
STEP = 1e-4
FOLDER = "SKDMAP_BENCHMARK_FOLDER"


def walk_file():
    """Return the memory map, written by the first process that asks."""
    path = Path(os.environ.get(FOLDER, tempfile.gettempdir())) / f"walk_{N_ROWS}_{N_COLUMNS}.npy"
    if not path.exists():
        rng = np.random.default_rng(0)
        unfinished = path.with_suffix(".part")
        header = {"descr": "<f4", "fortran_order": False, "shape": (N_ROWS, N_COLUMNS)}
        row = 0.05 * rng.standard_normal(N_COLUMNS, dtype=np.float32)
        with unfinished.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for _ in range(N_ROWS):
                file.write(row.tobytes())
                row = row + np.float32(STEP) * rng.standard_normal(N_COLUMNS, dtype=np.float32)
        unfinished.rename(path)
    return np.load(path, mmap_mode="r")


def squared_error(X, distances):
    from skdmap.diffusion._wide.column_reader import WideRows

    rng = np.random.default_rng(1)
    near = np.arange(0, N_ROWS - 1, 13)
    pairs = np.concatenate([np.column_stack([near, near + 1]), rng.integers(0, N_ROWS, (100, 2))])
    worst = 0.0
    for i, j in pairs[pairs[:, 0] != pairs[:, 1]]:
        one, other = WideRows(X)[np.array([i, j])][:, slice(0, N_COLUMNS)].astype(np.float64)
        exact = np.square(one - other).sum()
        worst = max(worst, abs(distances[i, j] ** 2 / exact - 1.0))
    return f"{worst:.0e}"


def skdmap_distances():
    from skdmap.diffusion._wide.column_reader import WideRows
    from skdmap.diffusion._wide.distances import own_distances

    X = walk_file()
    start = time.process_time()
    _, distances = own_distances(WideRows(X))
    seconds = time.process_time() - start
    return {"seconds": seconds, "accuracy": squared_error(X, distances)}


def skdmap_fit():
    from skdmap import DiffusionMap

    DiffusionMap().fit(np.random.default_rng(0).standard_normal((300, 3)))
    X = walk_file()
    start = time.process_time()
    fitted = DiffusionMap(10, bandwidth="median").fit(X)
    seconds = time.process_time() - start
    return {"seconds": seconds, "accuracy": f"residual {fitted.residuals_.max():.0e}"}


def product(*, triangle):
    """Time the products alone: what is read and copied for them is not counted."""
    from skdmap.diffusion._wide.column_reader import WideRows, column_blocks

    X = walk_file()
    rows = WideRows(X)
    total = np.zeros((N_ROWS, N_ROWS), np.float32)
    seconds = 0.0
    for columns in column_blocks(rows):
        block = rows.read(columns)
        other = block if triangle else block.copy()
        begin = time.process_time()
        total += block @ other.T
        seconds += time.process_time() - begin
    square = np.diagonal(total).astype(np.float64)
    squared = square[:, None] + square[None, :] - 2.0 * total
    return {"seconds": seconds, "accuracy": squared_error(X, np.sqrt(np.maximum(squared, 0)))}


def manifold(n_rows=50_000, n_columns=784):
    """Return rows on a curved six-dimensional torus-like manifold in many columns."""
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 2 * np.pi, (n_rows, 3))
    box = rng.uniform(-1, 1, (n_rows, 3))
    factors = np.column_stack([np.cos(angles), np.sin(angles), box, box[:, :1] * box[:, 1:]])
    mixed = factors @ rng.standard_normal((factors.shape[1], n_columns))
    return np.tanh(mixed / 4).astype(np.float32)


def skdmap_manifold():
    from skdmap import DiffusionMap

    X = manifold()
    start = time.process_time()
    fitted = DiffusionMap(10, bandwidth="auto", n_neighbors=64, random_state=0).fit(X)
    seconds = time.process_time() - start
    return {"seconds": seconds, "accuracy": f"residual {fitted.residuals_.max():.0e}"}


def exact_search():
    from sklearn.neighbors import NearestNeighbors

    X = manifold()
    start = time.process_time()
    NearestNeighbors(n_neighbors=65, algorithm="brute").fit(X).kneighbors(X)
    return {"seconds": time.process_time() - start, "accuracy": "exact"}


def approximate_search():
    import pynndescent

    X = manifold()
    start = time.process_time()
    index = pynndescent.NNDescent(X, n_neighbors=65, random_state=0)
    index.neighbor_graph  # noqa: B018 - made on first access
    return {"seconds": time.process_time() - start, "accuracy": "approximate"}


def parts_of_a_search():
    """Let the parts of a search over bandwidths add up their CPU seconds; return the sums."""
    from sklearn.neighbors import KNeighborsTransformer

    from skdmap import DiffusionMap
    from skdmap.diffusion import _diffusion_map

    sums = dict.fromkeys(("search", "eigenproblem", "score"), 0.0)

    def counted(owner, name, part):
        work = getattr(owner, name)

        def timed_work(*arguments, **options):
            start, inner = time.process_time(), sums["search"]
            result = work(*arguments, **options)
            # A search within another part is counted once, as a search.
            within = 0.0 if part == "search" else sums["search"] - inner
            sums[part] += time.process_time() - start - within
            return result

        setattr(owner, name, timed_work)

    counted(KNeighborsTransformer, "fit", "search")
    counted(KNeighborsTransformer, "transform", "search")
    counted(_diffusion_map, "neighbor_graph", "search")
    counted(_diffusion_map, "leading_eigenpairs", "eigenproblem")
    counted(DiffusionMap, "score", "score")
    return sums


def bandwidth_search(way):
    """Ten bandwidths: lists made once for all folds, once for each fold, or in each fit."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.neighbors import KNeighborsTransformer
    from sklearn.pipeline import make_pipeline

    from skdmap import DiffusionMap

    X = manifold(N_SEARCHED)
    sums = parts_of_a_search()
    grid = np.geomspace(1.0, 6.0, 10)
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        if way == "once":
            # Two thirds of each list are left in a fold of three.
            X = KNeighborsTransformer(n_neighbors=96, mode="distance").fit_transform(X)
            model, prefix = DiffusionMap(metric="precomputed"), ""
        elif way == "folds":
            neighbors = KNeighborsTransformer(n_neighbors=64, mode="distance")
            model = make_pipeline(neighbors, DiffusionMap(metric="precomputed"), memory=folder)
            prefix = "diffusionmap__"
        else:
            model, prefix = DiffusionMap(n_neighbors=64), ""
        search = GridSearchCV(model, {f"{prefix}bandwidth": grid}, cv=3).fit(X)
    seconds = time.process_time() - start
    apart = ", ".join(f"{part} {value:.1f} s" for part, value in sums.items())
    return {
        "seconds": seconds,
        "accuracy": f"h = {next(iter(search.best_params_.values())):.2f}; {apart}",
    }


CASES = {
    f"D5, {N_ROWS} x {N_COLUMNS}": {
        "skdmap distances": skdmap_distances,
        "skdmap whole fit": skdmap_fit,
        "float32 GEMM": lambda: product(triangle=False),
        "float32 GEMM, a triangle": lambda: product(triangle=True),
    },
    "D4, 50,000 x 784": {
        "skdmap": skdmap_manifold,
        "exact search alone": exact_search,
        "pynndescent alone": approximate_search,
    },
    f"D8, ten bandwidths, {N_SEARCHED} x 784": {
        "neighbours cached once": lambda: bandwidth_search("once"),
        "neighbours cached for each fold": lambda: bandwidth_search("folds"),
        "not cached": lambda: bandwidth_search("never"),
    },
}

if __name__ == "__main__":
    if "--one" in sys.argv:
        main(__file__, CASES)
    else:
        with tempfile.TemporaryDirectory() as shared:
            os.environ[FOLDER] = shared
            if not sys.argv[1:] or any(word.startswith("D5") for word in sys.argv):
                # In a process of its own: memory is counted from the largest that a parent had.
                command = (
                    "import sys; sys.path.insert(0, sys.argv[1]); import wide; wide.walk_file()"
                )
                folder = str(Path(__file__).parent)
                subprocess.run([sys.executable, "-c", command, folder], check=True)
            main(__file__, CASES)
