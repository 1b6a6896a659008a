"""The diffusion leg beside its peers: ``python benchmarks/diffusion.py [CASE ...] [--repeats 5]``.

Accuracy: for maps of the swiss roll, |correlation| of the first coordinate with cos(pi s), s the
arc length; for new rows, the largest difference from the fit on the rows of training.
"""

import sys
import time

import numpy as np
from harness import is_installed, main

EPSILON_RATIO = 0.5  # pydiffmap's eps = h^2 / 2


def swiss_roll(n_samples):
    from skdmap.datasets import make_swiss_roll

    data = make_swiss_roll(n_samples, random_state=0)
    return data.X, data.arc_length


def correlation(coordinate, arc_length):
    return round(float(abs(np.corrcoef(coordinate, np.cos(np.pi * arc_length))[0, 1])), 5)


def warm():
    from skdmap import DiffusionMap

    DiffusionMap().fit(np.random.default_rng(0).standard_normal((200, 3)))


def skdmap_roll(n_samples):
    from skdmap import DiffusionMap

    X, arc_length = swiss_roll(n_samples)
    warm()
    start = time.perf_counter()
    fitted = DiffusionMap(10, n_neighbors=64, bandwidth=1.0, random_state=0).fit(X)
    seconds = time.perf_counter() - start
    accuracy = correlation(fitted.embedding_[:, 0], arc_length)
    return {"seconds": seconds, "accuracy": f"{accuracy}, residual {fitted.residuals_.max():.0e}"}


def spectral_roll(n_samples):
    from sklearn.manifold import SpectralEmbedding

    X, arc_length = swiss_roll(n_samples)
    start = time.perf_counter()
    embedding = SpectralEmbedding(10, n_neighbors=64, random_state=0).fit_transform(X)
    return {
        "seconds": time.perf_counter() - start,
        "accuracy": correlation(embedding[:, 0], arc_length),
    }


def pydiffmap_roll(n_samples):
    from pydiffmap import diffusion_map

    X, arc_length = swiss_roll(n_samples)
    start = time.perf_counter()
    fitted = diffusion_map.DiffusionMap.from_sklearn(
        n_evecs=10, k=64, epsilon=EPSILON_RATIO, alpha=1.0
    )
    embedding = fitted.fit_transform(X)
    return {
        "seconds": time.perf_counter() - start,
        "accuracy": correlation(embedding[:, 0], arc_length),
    }


def skdmap_first_fit():
    start = time.perf_counter()
    from skdmap import DiffusionMap

    X = np.random.default_rng(0).standard_normal((2000, 10))
    DiffusionMap(random_state=0).fit(X)
    compiled = "numba" in sys.modules
    return {"seconds": time.perf_counter() - start, "accuracy": f"compiles: {compiled}"}


def spectral_first_fit():
    start = time.perf_counter()
    from sklearn.manifold import SpectralEmbedding

    X = np.random.default_rng(0).standard_normal((2000, 10))
    SpectralEmbedding(random_state=0).fit(X)
    return {"seconds": time.perf_counter() - start, "accuracy": "-"}


def skdmap_new_rows():
    from skdmap import DiffusionMap

    X, _ = swiss_roll(10_000)
    fitted = DiffusionMap(10, n_neighbors=64, bandwidth=1.0, random_state=0).fit(X)
    new, _ = swiss_roll(100_000)
    start = time.perf_counter()
    fitted.transform(new)
    seconds = time.perf_counter() - start
    error = np.abs(fitted.transform(X) - fitted.embedding_).max()
    return {"seconds": seconds, "accuracy": f"{error:.0e}"}


def pydiffmap_new_rows():
    from pydiffmap import diffusion_map

    X, _ = swiss_roll(10_000)
    fitted = diffusion_map.DiffusionMap.from_sklearn(
        n_evecs=10, k=64, epsilon=EPSILON_RATIO, alpha=1.0
    )
    embedding = fitted.fit_transform(X)
    new, _ = swiss_roll(100_000)
    start = time.perf_counter()
    fitted.transform(new)
    seconds = time.perf_counter() - start
    error = np.abs(fitted.transform(X) - embedding).max() / np.abs(embedding).max()
    return {"seconds": seconds, "accuracy": f"{error:.0e}"}


CASES = {
    "swiss roll, 10,000 rows": {
        "skdmap": lambda: skdmap_roll(10_000),
        "SpectralEmbedding": lambda: spectral_roll(10_000),
        "pydiffmap": lambda: pydiffmap_roll(10_000),
    },
    "swiss roll, 50,000 rows": {
        "skdmap": lambda: skdmap_roll(50_000),
        "SpectralEmbedding": lambda: spectral_roll(50_000),
        "pydiffmap": lambda: pydiffmap_roll(50_000),
    },
    "first fit, 2,000 x 10": {
        "skdmap": skdmap_first_fit,
        "SpectralEmbedding": spectral_first_fit,
    },
    "100,000 new rows": {"skdmap": skdmap_new_rows, "pydiffmap": pydiffmap_new_rows},
}
if not is_installed("pydiffmap"):
    for contenders in CASES.values():
        contenders.pop("pydiffmap", None)

if __name__ == "__main__":
    main(__file__, CASES)
