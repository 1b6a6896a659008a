"""Statistics of a path's squared distances that detect a low dimension."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.spatial.distance import pdist, squareform

from skdmap.diagnostics._dense_diffusion_map import (
    diffusion_pairs,
    principal_components,
    slope_dimension,
)
from skdmap.diagnostics._effective_dimension import concentration
from skdmap.diagnostics._harmonics import harmonic_residuals

_N_LEADING = 10  # nontrivial eigenvalues among which the largest gap is taken
_N_COORDINATES = 5  # coordinates tested for harmonics
# Rows at most this share of the run apart are near because little time went by (Theiler 1986).
_WINDOW = 1 / 20


@dataclass(frozen=True)
class Statistic:
    """A statistic of a path, and on which side of the null distribution a low dimension lies."""

    # From squared distances (n, n) and elapsed variation (n,) to the value.
    compute: Callable[[np.ndarray, np.ndarray], float]
    sign: int  # 1 if large values speak against the null model, -1 if small values do
    words: str  # the subject of a sentence
    bounds: tuple[float, float]
    misses: str  # structure that leaves it as it is for walks


def elapsed_variation(norms: np.ndarray) -> np.ndarray:
    """Return the quadratic variation (n_steps + 1,) up to each snapshot."""
    return np.concatenate([[0.0], np.cumsum(norms**2)])


def unexplained_by_time(distances: np.ndarray, elapsed: np.ndarray) -> float:
    """Return the share of the variance of log d^2 that no monotone function of time explains.
    Time is the quadratic variation between two snapshots; ``elapsed`` (n,) is ascending.
    """
    # In a walk d^2 grows with time, also with correlations, decaying steps or a drift; less so on a
    # path that returns, or whose share of drift in a step changes.
    upper = np.triu_indices(len(distances), 1)
    squared = distances[upper]
    floor = np.finfo(np.float64).eps * squared.max(initial=0.0)
    logs = np.log(np.maximum(squared, floor if floor > 0 else 1.0))
    times = elapsed[upper[1]] - elapsed[upper[0]]
    # Pairs equally far apart in time are ties: they are fitted by their mean.
    ticks = np.round(times / elapsed[-1] * 1e9)
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


def _recurrence(distances: np.ndarray, elapsed: np.ndarray) -> float:
    """Return how near, in the two leading principal components, a path comes to earlier places.
    It is the median over rows of log(median distance / distance to the nearest row of other times).
    """
    n = len(distances)
    places = principal_components(distances, min(2, n - 1))
    apart = squareform(pdist(places))
    typical = np.median(apart[np.triu_indices(n, 1)])
    index = np.arange(n)
    apart[np.abs(np.subtract.outer(index, index)) <= n * _WINDOW] = np.inf
    # Rows that coincide are as near as rounding tells.
    nearest = np.maximum(apart.min(axis=1), np.finfo(np.float32).eps * typical)
    return float(np.median(np.log(typical / nearest))) if typical > 0 else 0.0


def _effective_dimension(distances: np.ndarray, elapsed: np.ndarray) -> float:
    products = distances[1:, :-1] + distances[:-1, 1:] - distances[1:, 1:] - distances[:-1, :-1]
    share = concentration(products / 2)
    return 1 / share if share > 0 else np.inf


STATISTICS = {
    "isotonic": Statistic(
        unexplained_by_time,
        1,
        "the share of the variance of log squared distances that elapsed quadratic variation does "
        "not explain",
        (0.0, 1.0),
        "open paths whose distances grow with time, such as a line or an arc",
    ),
    "effective_dimension": Statistic(
        _effective_dimension,
        -1,
        "the effective dimension of steps",
        (0.0, np.inf),
        "the order of the steps, so the shape of a path under noise",
    ),
    "recurrence": Statistic(
        _recurrence,
        1,
        "the recurrence in the two leading principal components",
        (-np.inf, np.inf),
        "paths that do not come back, and what happens outside two principal components",
    ),
    "gap": Statistic(
        _gap,
        1,
        "the largest drop among the ten leading diffusion eigenvalues",
        (0.0, 2.0),
        "structure without a gap, such as a surface or a closed curve",
    ),
    "participation": Statistic(
        _participation,
        -1,
        "the participation number of the diffusion eigenvalues",
        (0.0, np.inf),
        "structure smaller than the bandwidth",
    ),
    "slope": Statistic(
        _slope,
        -1,
        "the slope dimension of the kernel sum",
        (0.0, np.inf),
        "the difference between a walk, in many dimensions of slope dimension 2, and a surface",
    ),
    "non_harmonic": Statistic(
        _non_harmonic,
        1,
        "the number of non-harmonic coordinates among the first five",
        (0.0, float(_N_COORDINATES)),
        "open curves, of which all coordinates are harmonics, as of a walk",
    ),
}
