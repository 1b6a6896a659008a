"""The diffusion leg beside its peers: ``python benchmarks/diffusion.py [CASE ...] [--repeats 5]``.

D0 has the defaults of everybody, D1 and D2 15 and 64 neighbours on both sides. Accuracy: for maps
of the swiss roll, |correlation| of the first coordinate with cos(pi s), s the arc length, and the
largest residual; for new rows, the largest difference from the fit on the rows of training. Peers
run as their documentation says, one process for each run. The limit is the search for neighbours
alone and one pass over the pairs found. "eigenpairs" are those of one Markov operator, by our
solver, by LOBPCG with smoothed aggregation of pyamg, and by ARPACK.
"""

import sys
import time
from functools import partial

import numpy as np
from harness import is_installed, main, timed

EPSILON_RATIO = 0.5  # pydiffmap's eps = h^2 / 2


def swiss_roll(n_samples):
    from skdmap.datasets import make_swiss_roll

    data = make_swiss_roll(n_samples, random_state=0)
    return data.X, data.arc_length


def correlation(coordinate, arc_length):
    return round(float(abs(np.corrcoef(coordinate, np.cos(np.pi * arc_length))[0, 1])), 5)


def manifolds(n_samples):
    """A mixture of manifolds of 1, 2, 3, 4 and 6 dimensions in 50 columns."""
    rng, parts = np.random.default_rng(0), []
    for dimension in (1, 2, 3, 4, 6):
        inner = rng.random((n_samples // 5, dimension))
        frequencies = 2.0 * rng.standard_normal((dimension, 50))
        parts.append(np.sin(inner @ frequencies) + 1.5 * rng.standard_normal(50))
    X = np.concatenate(parts)
    return rng.permutation(X + 0.01 * rng.standard_normal(X.shape))


def warm():
    """Imports and threads are not part of the case."""
    from skdmap import DiffusionMap

    DiffusionMap(bandwidth="auto").fit(np.random.default_rng(0).standard_normal((200, 3)))
    X, _ = swiss_roll(6000)
    DiffusionMap(bandwidth="auto", n_neighbors=16).fit(X)


def skdmap_map(X, arc_length=None, **settings):
    from skdmap import DiffusionMap

    warm()
    model = DiffusionMap(10, random_state=0, **settings)
    fitted, times = timed(lambda: model.fit(X))
    relative = (fitted.residuals_ / (1 - fitted.eigenvalues_)).max()
    accuracy = f"residual {fitted.residuals_.max():.0e}, over 1 - lambda {relative:.0e}"
    if arc_length is not None:
        accuracy = f"{correlation(fitted.embedding_[:, 0], arc_length)}, {accuracy}"
    return {**times, "accuracy": accuracy}


def skdmap_roll(n_samples, n_neighbors=64):
    """64 neighbours with a bandwidth of 1, 15 with the local one, or the defaults (None)."""
    settings = {None: {}, 15: {"n_neighbors": 15}, 64: {"n_neighbors": 64, "bandwidth": 1.0}}
    return skdmap_map(*swiss_roll(n_samples), **settings[n_neighbors])


def peer_map(work, arc_length):
    embedding, times = timed(work)
    return {**times, "accuracy": correlation(embedding[:, 0], arc_length)}


def spectral_roll(n_samples, n_neighbors=64):
    from sklearn.manifold import SpectralEmbedding

    X, arc_length = swiss_roll(n_samples)
    model = SpectralEmbedding(10, n_neighbors=n_neighbors, random_state=0)
    return peer_map(lambda: model.fit_transform(X), arc_length)


def pydiffmap_roll(n_samples, n_neighbors=64):
    from pydiffmap import diffusion_map

    X, arc_length = swiss_roll(n_samples)
    given = {"k": n_neighbors, "epsilon": EPSILON_RATIO if n_neighbors == 64 else "bgh"}
    options = {} if n_neighbors is None else given
    model = diffusion_map.DiffusionMap.from_sklearn(n_evecs=10, alpha=1.0, **options)
    return peer_map(lambda: model.fit_transform(X), arc_length)


def scanpy_map(X, n_neighbors):
    import anndata
    import scanpy

    data = anndata.AnnData(X.astype(np.float32))
    options = {} if n_neighbors is None else {"n_neighbors": n_neighbors}
    scanpy.pp.neighbors(data, use_rep="X", **options)
    scanpy.tl.diffmap(data, n_comps=11)
    return data.obsm["X_diffmap"][:, 1:]


def scanpy_roll(n_samples, n_neighbors=64):
    X, arc_length = swiss_roll(n_samples)
    scanpy_map(X[:1000], n_neighbors)  # compiles
    return peer_map(lambda: scanpy_map(X, n_neighbors), arc_length)


def markov_operator_of(n_samples, n_neighbors):
    """S of the self-tuning kernel of a swiss roll, and sqrt(pi)."""
    from skdmap.diffusion._bandwidth import neighbor_graph
    from skdmap.diffusion._diffusion_map import DiffusionMap
    from skdmap.diffusion._kernel import gaussian_kernel
    from skdmap.diffusion._markov import markov_operator

    model = DiffusionMap(10, n_neighbors=n_neighbors, random_state=0)
    training, _ = model._validate_training(swiss_roll(n_samples)[0], None)
    graph = neighbor_graph(training, n_neighbors, "local")
    kernel = gaussian_kernel(
        graph.distances, training.weight, bandwidth="local", n_neighbors=n_neighbors
    )
    markov = markov_operator(
        graph.distances, kernel, training.weight, alpha=1.0, dimension=2, largest_only=True
    )
    root = np.sqrt(markov.stationary)
    return markov.operator, root / np.linalg.norm(root)


def own_solver(operator, root):
    from skdmap.diffusion._eigensolvers.choice import leading_eigenpairs

    found = leading_eigenpairs(
        operator, 10, locked=root[:, None], tol=1e-6, rng=np.random.default_rng(0)
    )
    return found.values, found.vectors


def pyamg_solver(operator, root):
    """The documented way: smoothed aggregation of 1 - S as preconditioner of LOBPCG."""
    import pyamg
    import scipy.sparse as sp
    from scipy.sparse.linalg import lobpcg

    laplacian = (sp.identity(root.size) - operator.kernel).tocsr()
    shifted = (laplacian + 1e-9 * sp.identity(root.size)).tocsr()
    solver = pyamg.smoothed_aggregation_solver(shifted, B=root[:, None], symmetry="symmetric")
    start = np.random.default_rng(0).standard_normal((root.size, 14))
    values, vectors = lobpcg(
        laplacian,
        start,
        M=solver.aspreconditioner(),
        Y=root[:, None],
        tol=1e-7,
        maxiter=200,
        largest=False,
    )
    best = np.argsort(values)[:10]
    return 1.0 - values[best], vectors[:, best]


def arpack_solver(operator, root):
    from scipy.sparse.linalg import eigsh

    values, vectors = eigsh(operator.kernel, 11, which="LA", tol=1e-7, ncv=40, maxiter=100_000)
    best = np.argsort(-values)[1:11]
    return values[best], vectors[:, best]


def eigenpairs(n_samples, n_neighbors, solver):
    operator, root = markov_operator_of(n_samples, n_neighbors)
    (values, vectors), times = timed(lambda: solver(operator, root))
    norms = np.linalg.norm(operator.matmat(vectors) - vectors * values, axis=0)
    return {**times, "accuracy": f"residual {norms.max():.0e}, lambda_10 {values.min():.8f}"}


def neighbor_search(n_samples, n_neighbors=64):
    """scikit-learn's exact search alone."""
    from sklearn.neighbors import NearestNeighbors

    X, _ = swiss_roll(n_samples)
    _, times = timed(lambda: NearestNeighbors(n_neighbors=n_neighbors + 1).fit(X).kneighbors(X))
    return {**times, "accuracy": "-"}


def floor(n_samples, n_neighbors=64):
    """What no map of these rows can do without: exact neighbours, and the kernel of each pair."""
    from sklearn.neighbors import NearestNeighbors

    X, _ = swiss_roll(n_samples)

    def work():
        distances, _ = NearestNeighbors(n_neighbors=n_neighbors + 1).fit(X).kneighbors(X)
        return np.exp(-0.5 * distances**2)

    kernel, times = timed(work)
    return {**times, "accuracy": f"{kernel.size} entries, no map"}


def skdmap_first_fit():
    wall, cpu = time.perf_counter(), time.process_time()
    from skdmap import DiffusionMap

    X = np.random.default_rng(0).standard_normal((2000, 10))
    DiffusionMap(random_state=0).fit(X)
    compiled = "numba" in sys.modules
    return {
        "seconds": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "accuracy": f"compiles: {compiled}",
    }


def spectral_first_fit():
    wall, cpu = time.perf_counter(), time.process_time()
    from sklearn.manifold import SpectralEmbedding

    X = np.random.default_rng(0).standard_normal((2000, 10))
    SpectralEmbedding(random_state=0).fit(X)
    return {
        "seconds": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "accuracy": "-",
    }


def skdmap_new_rows():
    from skdmap import DiffusionMap

    X, _ = swiss_roll(10_000)
    fitted = DiffusionMap(10, n_neighbors=64, bandwidth=1.0, random_state=0).fit(X)
    new, _ = swiss_roll(100_000)
    _, times = timed(lambda: fitted.transform(new))
    error = np.abs(fitted.transform(X) - fitted.embedding_).max()
    return {**times, "accuracy": f"{error:.0e}"}


def pydiffmap_new_rows():
    from pydiffmap import diffusion_map

    X, _ = swiss_roll(10_000)
    fitted = diffusion_map.DiffusionMap.from_sklearn(
        n_evecs=10, k=64, epsilon=EPSILON_RATIO, alpha=1.0
    )
    embedding = fitted.fit_transform(X)
    new, _ = swiss_roll(100_000)
    _, times = timed(lambda: fitted.transform(new))
    error = np.abs(fitted.transform(X) - embedding).max() / np.abs(embedding).max()
    return {**times, "accuracy": f"{error:.0e}"}


def peers_of(n_samples, n_neighbors):
    """Contenders on the swiss roll; None stands for the default of each."""
    peers = {
        "skdmap": lambda: skdmap_roll(n_samples, n_neighbors),
        "SpectralEmbedding": lambda: spectral_roll(n_samples, n_neighbors),
    }
    if is_installed("pydiffmap"):
        peers["pydiffmap"] = lambda: pydiffmap_roll(n_samples, n_neighbors)
    if is_installed("scanpy"):
        peers["scanpy"] = lambda: scanpy_roll(n_samples, n_neighbors)
    return {**peers, "limit: search and one pass": lambda: floor(n_samples, n_neighbors or 15)}


def solvers_of(n_samples, n_neighbors):
    """Contenders for the eigenpairs of one operator."""
    solvers = {"skdmap": own_solver, "pyamg and LOBPCG": pyamg_solver, "ARPACK": arpack_solver}
    if not is_installed("pyamg"):
        solvers.pop("pyamg and LOBPCG")
    return {
        name: partial(eigenpairs, n_samples, n_neighbors, solver)
        for name, solver in solvers.items()
    }


CASES = {
    "D0 defaults, 10,000 x 3": peers_of(10_000, None),
    "D0 defaults, 50,000 x 3": peers_of(50_000, None),
    "D0 defaults, 100,000 x 3": {
        "skdmap": lambda: skdmap_roll(100_000, None),
        "search alone": lambda: neighbor_search(100_000, 15),
    },
    "D0 defaults, 1,000,000 x 3": {
        "skdmap": lambda: skdmap_roll(1_000_000, None),
        "search alone": lambda: neighbor_search(1_000_000, 15),
    },
    "D0 defaults, 100,000 x 50": {"skdmap": lambda: skdmap_map(manifolds(100_000))},
    "D1 swiss roll, 10,000 rows, 15 neighbours": peers_of(10_000, 15),
    "D1 swiss roll, 10,000 rows, 64 neighbours": peers_of(10_000, 64),
    "D2 swiss roll, 50,000 rows, 15 neighbours": peers_of(50_000, 15),
    "D2 swiss roll, 50,000 rows, 64 neighbours": peers_of(50_000, 64),
    "D3 swiss roll, 1,000,000 rows, 64 neighbours": {
        "skdmap": lambda: skdmap_roll(1_000_000),
        "search alone": lambda: neighbor_search(1_000_000),
    },
    "D6 first fit, 2,000 x 10": {
        "skdmap": skdmap_first_fit,
        "SpectralEmbedding": spectral_first_fit,
    },
    "D7 100,000 new rows": {"skdmap": skdmap_new_rows, "pydiffmap": pydiffmap_new_rows},
    "eigenpairs, 50,000 rows, 15 neighbours": solvers_of(50_000, 15),
    "eigenpairs, 50,000 rows, 64 neighbours": solvers_of(50_000, 64),
}
if not is_installed("pydiffmap"):
    CASES["D7 100,000 new rows"].pop("pydiffmap")

if __name__ == "__main__":
    main(__file__, CASES)
