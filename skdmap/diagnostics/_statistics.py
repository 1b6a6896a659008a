"""Squared distances along a run -> one number that a low-dimensional path changes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from skdmap.diagnostics._harmonics import harmonic_residuals
from skdmap.diagnostics._small_map import diffusion_pairs, slope_dimension

__all__ = ["STATISTICS", "Statistic", "elapsed_variation", "unexplained_by_time"]

# How many nontrivial eigenvalues the gap is looked for among.
_N_LEADING = 10
# Coordinates that are tried for harmonics.
_N_COORDINATES = 5


@dataclass(frozen=True)
class Statistic:
    """A statistic of a path, and which side of the null speaks for a low dimension.

    Attributes
    ----------
    compute : callable
        From squared distances (n, n) and elapsed variation (n,) to a float.
    sign : int
        1 where large values speak against the null, -1 where small ones do.
    words : str
        What it is, as the subject of a sentence.
    bounds : tuple of float and float
        Between what it lies.
    """

    compute: Callable[[np.ndarray, np.ndarray], float]
    sign: int
    words: str
    bounds: tuple[float, float]


def elapsed_variation(norms: np.ndarray) -> np.ndarray:
    """Return the quadratic variation (n_steps + 1,) that has gone by at each row."""
    return np.concatenate([[0.0], np.cumsum(norms**2)])


def unexplained_by_time(distances: np.ndarray, elapsed: np.ndarray) -> float:
    """Return the share of the variance of log d^2 that no monotone function of time explains.

    Time is the quadratic variation elapsed between two rows. In a walk d^2 grows with it, with
    correlations, decaying steps or a drift as well. It does so less on a path that comes back, and
    on one whose share of drift in a step changes along the way.

    Parameters
    ----------
    distances : ndarray of shape (n, n)
        Squared distances.
    elapsed : ndarray of shape (n,)
        Quadratic variation at each row, ascending.

    Returns
    -------
    float
        In [0, 1]; 0 where all distances are equal.
    """
    upper = np.triu_indices(len(distances), 1)
    squared = distances[upper]
    floor = np.finfo(np.float64).eps * squared.max(initial=0.0)
    logs = np.log(np.maximum(squared, floor if floor > 0 else 1.0))
    gone_by = elapsed[upper[1]] - elapsed[upper[0]]
    # Pairs that are equally far apart in time get equal values: they are fitted by their mean.
    ticks = np.round(gone_by / elapsed[-1] * 1e9)
    _, group, counts = np.unique(ticks, return_inverse=True, return_counts=True)
    means = np.bincount(group, weights=logs) / counts
    fitted = isotonic_regression(means, weights=counts.astype(np.float64)).x
    total = np.sum((logs - logs.mean()) ** 2)
    return float(np.sum((logs - fitted[group]) ** 2) / total) if total > 0 else 0.0


def _gap(distances: np.ndarray, elapsed: np.ndarray) -> float:
    n_pairs = min(_N_LEADING, len(distances) - 1)
    values, _ = diffusion_pairs(distances, n_pairs, vectors=False)
    return float(np.max(-np.diff(values)))


def _participation(distances: np.ndarray, elapsed: np.ndarray) -> float:
    values, _ = diffusion_pairs(distances, len(distances) - 1, vectors=False)
    return float(np.sum(values) ** 2 / np.sum(values**2))


def _slope(distances: np.ndarray, elapsed: np.ndarray) -> float:
    return slope_dimension(distances)


def _non_harmonic(distances: np.ndarray, elapsed: np.ndarray) -> float:
    _, functions = diffusion_pairs(distances, min(_N_COORDINATES, len(distances) - 1))
    return float(np.sum(harmonic_residuals(functions).residuals))


STATISTICS = {
    "isotonic": Statistic(
        unexplained_by_time,
        1,
        "the share of the variance of log squared distances that the quadratic variation elapsed "
        "does not explain",
        (0.0, 1.0),
    ),
    "gap": Statistic(
        _gap, 1, "the largest drop among the ten leading diffusion eigenvalues", (0.0, 2.0)
    ),
    "participation": Statistic(
        _participation, -1, "the participation number of the diffusion eigenvalues", (0.0, np.inf)
    ),
    "slope": Statistic(_slope, -1, "the slope dimension of the kernel sum", (0.0, np.inf)),
    "non_harmonic": Statistic(
        _non_harmonic,
        1,
        "the number of non-harmonic coordinates among the first five",
        (0.0, float(_N_COORDINATES)),
    ),
}
