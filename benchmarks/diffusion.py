"""The diffusion leg beside its peers: ``python benchmarks/diffusion.py [CASE ...] [--repeats 5]``.

Accuracy: for maps of the swiss roll, |correlation| of the first coordinate with cos(pi s), s the
arc length, and the largest residual; for new rows, the largest difference from the fit on the rows
of training. Peers run as their documentation says, one process for each run. The limit in D1 and
D2 is the search for neighbours alone and one pass over the pairs found.
"""

import sys
import time

import numpy as np
from harness import is_installed, main, timed

EPSILON_RATIO = 0.5  # pydiffmap's eps = h^2 / 2


def swiss_roll(n_samples):
    from skdmap.datasets import make_swiss_roll

    data = make_swiss_roll(n_samples, random_state=0)
    return data.X, data.arc_length


def correlation(coordinate, arc_length):
    return round(float(abs(np.corrcoef(coordinate, np.cos(np.pi * arc_length))[0, 1])), 5)


def warm():
    """Imports and threads are not part of the case."""
    from skdmap import DiffusionMap

    DiffusionMap(bandwidth="auto").fit(np.random.default_rng(0).standard_normal((200, 3)))
    X, _ = swiss_roll(6000)
    DiffusionMap(bandwidth="auto", n_neighbors=16).fit(X)


def skdmap_roll(n_samples):
    from skdmap import DiffusionMap

    X, arc_length = swiss_roll(n_samples)
    warm()
    model = DiffusionMap(10, n_neighbors=64, bandwidth=1.0, random_state=0)
    fitted, times = timed(lambda: model.fit(X))
    accuracy = correlation(fitted.embedding_[:, 0], arc_length)
    relative = (fitted.residuals_ / (1 - fitted.eigenvalues_)).max()
    residual = f"residual {fitted.residuals_.max():.0e}, over 1 - lambda {relative:.0e}"
    return {**times, "accuracy": f"{accuracy}, {residual}"}


def spectral_roll(n_samples):
    from sklearn.manifold import SpectralEmbedding

    X, arc_length = swiss_roll(n_samples)
    model = SpectralEmbedding(10, n_neighbors=64, random_state=0)
    embedding, times = timed(lambda: model.fit_transform(X))
    return {**times, "accuracy": correlation(embedding[:, 0], arc_length)}


def pydiffmap_roll(n_samples):
    from pydiffmap import diffusion_map

    X, arc_length = swiss_roll(n_samples)

    def work():
        fitted = diffusion_map.DiffusionMap.from_sklearn(
            n_evecs=10, k=64, epsilon=EPSILON_RATIO, alpha=1.0
        )
        return fitted.fit_transform(X)

    embedding, times = timed(work)
    return {**times, "accuracy": correlation(embedding[:, 0], arc_length)}


def neighbor_search(n_samples):
    """scikit-learn's exact search alone."""
    from sklearn.neighbors import NearestNeighbors

    X, _ = swiss_roll(n_samples)
    _, times = timed(lambda: NearestNeighbors(n_neighbors=65).fit(X).kneighbors(X))
    return {**times, "accuracy": "-"}


def floor(n_samples):
    """What no map of these rows can do without: exact neighbours, and the kernel of each pair."""
    from sklearn.neighbors import NearestNeighbors

    X, _ = swiss_roll(n_samples)

    def work():
        distances, _ = NearestNeighbors(n_neighbors=65).fit(X).kneighbors(X)
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


CASES = {
    "D1 swiss roll, 10,000 rows": {
        "skdmap": lambda: skdmap_roll(10_000),
        "SpectralEmbedding": lambda: spectral_roll(10_000),
        "pydiffmap": lambda: pydiffmap_roll(10_000),
        "limit: search and one pass": lambda: floor(10_000),
    },
    "D2 swiss roll, 50,000 rows": {
        "skdmap": lambda: skdmap_roll(50_000),
        "SpectralEmbedding": lambda: spectral_roll(50_000),
        "pydiffmap": lambda: pydiffmap_roll(50_000),
        "limit: search and one pass": lambda: floor(50_000),
    },
    "D3 swiss roll, 1,000,000 rows": {
        "skdmap": lambda: skdmap_roll(1_000_000),
        "search alone": lambda: neighbor_search(1_000_000),
    },
    "D6 first fit, 2,000 x 10": {
        "skdmap": skdmap_first_fit,
        "SpectralEmbedding": spectral_first_fit,
    },
    "D7 100,000 new rows": {"skdmap": skdmap_new_rows, "pydiffmap": pydiffmap_new_rows},
}
if not is_installed("pydiffmap"):
    for contenders in CASES.values():
        contenders.pop("pydiffmap", None)

if __name__ == "__main__":
    main(__file__, CASES)
