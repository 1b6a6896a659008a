"""Distances in, bandwidth out: what "auto" and "median" mean.

"auto" lies on the first plateau of the slope of log S against log h (after Coifman et al. 2008,
doi:10.1109/TIP.2008.2002305, and Berry & Harlim 2016, doi:10.1016/j.acha.2015.01.001), near its
lower end, and no lower than every row that is no outlier needs to have neighbours.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import minimum_spanning_tree

from skdmap.diffusion._graph import TINY, DistanceGraph, union, within
from skdmap.diffusion._profile import PairProfile

__all__ = [
    "Plateau",
    "auto_bandwidth",
    "find_plateau",
    "hanging_bandwidths",
    "kth_listed",
    "median_bandwidth",
    "neighbor_scales",
    "weighted_median",
]

# Two rows are connected when k >= eps: h * sqrt(2 log(1/eps)) is how far that reaches.
REACH = float(np.sqrt(-2.0 * np.log(np.finfo(float).eps)))
# "auto": neighbours that a typical row should have, and that every row must have.
_TYPICAL_NEIGHBORS = 10.0
_LEAST_NEIGHBORS = 3.0
_PLATEAU_TOLERANCE = 0.10
_PLATEAU_END = 0.75
_PLATEAU_WEIGHT = 0.2
# Rows of less weight than this share of the mean are no reason to raise the bandwidth.
_NEGLIGIBLE_WEIGHT = 1e-2


@dataclass(frozen=True)
class Plateau:
    """What the slope says about scales, in units of the distances.

    Attributes
    ----------
    typical : float
        The bandwidth at which a typical row has ten effective neighbours.
    last : float
        The largest bandwidth on the same plateau of the slope.
    end : float
        Where the slope has fallen for good: a row that needs more is an outlier.
    bandwidth : float
        Between ``typical`` and ``last``.
    """

    typical: float
    last: float
    end: float
    bandwidth: float


def auto_bandwidth(graph: DistanceGraph, plateau: Plateau, hanging: NDArray[np.float64]) -> float:
    """Return the bandwidth that "auto" stands for.

    Parameters
    ----------
    graph : DistanceGraph
        Of the training rows.
    plateau : Plateau
        Of the rows, or of a sample.
    hanging : ndarray of shape (n_train,)
        What each row needs, as ``hanging_bandwidths`` gives it; 0 where it is known to be small.

    Returns
    -------
    float
        In units of the distances.
    """
    outliers = hanging > plateau.end
    needed = hanging[~outliers].max(initial=0.0)
    connecting = connecting_bandwidth(graph.distances, outliers)
    return float(max(plateau.bandwidth, needed, connecting))


def median_bandwidth(graph: DistanceGraph, weight: NDArray[np.float64]) -> float:
    """Return the median distance of all pairs, or a third of the median radius."""
    if graph.row_radii is not None:
        return weighted_median(graph.row_radii / 3.0, weight)
    upper = np.triu_indices(weight.size, 1)
    return weighted_median(graph.distances[upper], weight[upper[0]] * weight[upper[1]])


def find_plateau(profile: PairProfile) -> Plateau:
    """Find the scales between which the data look like one manifold.

    Parameters
    ----------
    profile : PairProfile
        Of a sample of rows, or of all.

    Returns
    -------
    Plateau
    """
    grid = profile.grid()
    typical = weighted_median(_bandwidth_at(profile, _TYPICAL_NEIGHBORS, 0.5), profile.weight)
    share = profile.weight / profile.weight.sum()
    mean_counts = share @ profile.counts
    kernel = np.exp(-profile.squares[:, None] / (2.0 * grid**2))
    # Without own pairs: a plateau is a power law of the others. Far below the data's scales
    # nothing is left of the sum.
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = (mean_counts @ (kernel * profile.squares[:, None])) / (
            grid**2 * (mean_counts @ kernel)
        )
    log_grid = np.log(grid)
    level = float(np.interp(np.log(typical), log_grid, slope))
    above = grid > typical
    grid_above = np.concatenate([[typical], grid[above]])
    ratio = np.concatenate([[1.0], slope[above] / level])
    off = np.abs(ratio - 1.0) - _PLATEAU_TOLERANCE
    last = _first_crossing(grid_above, off)
    end = _last_crossing(grid_above, _PLATEAU_END - ratio)
    return Plateau(
        typical=typical,
        last=last,
        end=max(end, last),
        bandwidth=typical ** (1.0 - _PLATEAU_WEIGHT) * last**_PLATEAU_WEIGHT,
    )


def _bandwidth_at(profile: PairProfile, wanted: float, share: float) -> NDArray[np.float64]:
    """The h at which each row has ``wanted`` effective neighbours, or a share of all others."""
    grid = profile.grid()
    sums = profile.kernel_sums(grid)
    # A list, or a row of much weight, may leave fewer than wanted to meet.
    count = np.minimum(wanted, share * profile.counts.sum(axis=1))
    log_sums = np.log(np.maximum(sums, np.finfo(float).tiny))
    position = np.clip((sums < count[:, None]).sum(axis=1), 1, grid.size - 1)
    rows = np.arange(sums.shape[0])
    lower, upper = log_sums[rows, position - 1], log_sums[rows, position]
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.clip((np.log(count) - lower) / (upper - lower), 0.0, 1.0)
    found = np.exp(np.log(grid[position - 1]) + part * np.diff(np.log(grid))[position - 1])
    return np.where(count > 0, found, np.inf)


def hanging_bandwidths(profile: PairProfile) -> NDArray[np.float64]:
    """The h at which each row has three effective neighbours; 0 for rows of little weight."""
    scales = _bandwidth_at(profile, _LEAST_NEIGHBORS, 0.25)
    return np.where(profile.weight < _NEGLIGIBLE_WEIGHT, 0.0, scales)


def _first_crossing(grid: NDArray[np.float64], excess: NDArray[np.float64]) -> float:
    above = np.flatnonzero(excess > 0)
    return float(grid[-1]) if above.size == 0 else _crossing(grid, excess, int(above[0]))


def _last_crossing(grid: NDArray[np.float64], excess: NDArray[np.float64]) -> float:
    below = np.flatnonzero(excess <= 0)
    last = int(below[-1])
    return float(grid[-1]) if last == grid.size - 1 else _crossing(grid, excess, last + 1)


def _crossing(grid: NDArray[np.float64], excess: NDArray[np.float64], position: int) -> float:
    """The place between ``position - 1`` and ``position`` where the excess is 0."""
    lower, upper = excess[position - 1], excess[position]
    part = 0.0 if upper == lower else np.clip(-lower / (upper - lower), 0.0, 1.0)
    return float(grid[position - 1] * (grid[position] / grid[position - 1]) ** part)


def connecting_bandwidth(
    distances: Any, outliers: NDArray[np.bool_], n_neighbors: int = 10
) -> float:
    """The least h that connects what the graph of the 10 nearest neighbours connects.

    Parameters
    ----------
    distances : {ndarray, csr_matrix} of shape (n_train, n_train)
        Dense or listed distances.
    outliers : ndarray of shape (n_train,)
        Rows that need not be reached.
    n_neighbors : int, default=10
        Neighbours of the graph.

    Returns
    -------
    float
        In units of the distances.
    """
    kept = np.flatnonzero(~outliers)
    if kept.size < 2:
        return 0.0
    if sp.issparse(distances):
        inner = distances[kept][:, kept].tocsr()
        edges = within(inner, kth_listed(inner, n_neighbors + 1))
    else:
        inner = distances if kept.size == outliers.size else distances[np.ix_(kept, kept)]
        k = min(n_neighbors + 1, kept.size)
        columns = np.argpartition(inner, k - 1, axis=1)[:, :k]
        edges = sp.csr_matrix(
            (
                np.maximum(np.take_along_axis(inner, columns, axis=1), TINY).reshape(-1),
                columns.reshape(-1),
                np.arange(0, kept.size * k + 1, k),
            ),
            shape=(kept.size, kept.size),
        )
    tree = minimum_spanning_tree(union(edges, edges.T.tocsr()))
    longest = tree.data.max(initial=0.0)
    return float(longest / REACH * (1.0 + 1e-9))


def kth_listed(matrix: sp.csr_matrix, k: int) -> NDArray[np.float64]:
    """The k-th smallest stored value of each row; the largest where fewer are stored."""
    counts = np.diff(matrix.indptr)
    rows = np.repeat(np.arange(matrix.shape[0]), counts)
    order = np.lexsort((matrix.data, rows))
    values = np.zeros(matrix.shape[0])
    filled = counts > 0
    position = matrix.indptr[:-1] + np.minimum(k, counts) - 1
    values[filled] = matrix.data[order][position[filled]]
    return values


def neighbor_scales(distances: Any, k: int) -> NDArray[np.float64]:
    """Distance from each row to the k-th nearest training row, its own counted.

    Parameters
    ----------
    distances : {ndarray, csr_matrix} of shape (n_rows, n_train)
        Dense or listed distances.
    k : int
        Cut to the number of training rows.

    Returns
    -------
    ndarray of shape (n_rows,)
    """
    if sp.issparse(distances):
        return kth_listed(distances, k)
    position = min(k, distances.shape[1]) - 1
    return np.partition(distances, position, axis=1)[:, position]


def weighted_median(values: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    """The median of values that count ``weight`` times; ``numpy.median`` for equal weights."""
    if np.all(weight == weight[0]):
        return float(np.median(values))
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weight[order])
    half = 0.5 * total[-1]
    lower = int(np.searchsorted(total, half * (1.0 - 1e-12)))
    upper = int(np.searchsorted(total, half * (1.0 + 1e-12)))
    upper = min(upper, values.size - 1)
    return float(0.5 * (values[order[lower]] + values[order[upper]]))
