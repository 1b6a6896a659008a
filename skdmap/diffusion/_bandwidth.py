"""Distances in, bandwidth out: what "auto" and "median" mean.

"auto" lies on the first plateau of the slope of log S against log h (after Coifman et al. 2008,
doi:10.1109/TIP.2008.2002305, and Berry & Harlim 2016, doi:10.1016/j.acha.2015.01.001), near its
lower end, and no lower than every row that is no outlier needs to have neighbours.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import minimum_spanning_tree

from skdmap._warning import warn
from skdmap.diffusion._distance_histogram import (
    CUTOFF,
    MOST_AUTO,
    BandwidthCurve,
    PairProfile,
    auto_n_neighbors,
    bandwidth_curve,
    neighbors_within,
    row_profile,
    sample_rows,
    sample_size,
    weighted_median,
)
from skdmap.diffusion._kernel import LOCAL_NEIGHBOR
from skdmap.diffusion._neighbors.factory import (
    ALL_PAIRS_ROWS,
    MOST_ALL_PAIRS,
    SearchSettings,
    make_index,
)
from skdmap.diffusion._neighbors.graph import (
    TINY,
    DistanceGraph,
    NeighborIndex,
    kth_listed,
    union,
    within,
)
from skdmap.exceptions import BandwidthWarning

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
# So many rows with the farthest neighbours are asked what bandwidth they need.
_FAR_ROWS = 256


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


def listed_dimension(lists: sp.csr_matrix) -> float:
    """Return the dimension from how distances grow along each list.

    Parameters
    ----------
    lists : csr_matrix of shape (n_train, n_train)
        Listed distances; zeros and 5e-324 are rows at the same place.

    Returns
    -------
    float
        1 / mean of log(r_i / d_ij) over listed pairs nearer than r_i, the farthest of the list:
        the estimate of Levina & Bickel 2004 ("Maximum likelihood estimation of intrinsic
        dimension"), averaged over its inverse. 0 where no list has two distances.
    """
    radii = lists.max(axis=1).toarray().reshape(-1)
    far = np.repeat(radii, np.diff(lists.indptr))
    inner = (lists.data > np.finfo(float).tiny) & (lists.data < far)
    if not inner.any():
        return 0.0
    return float(inner.sum() / np.log(far[inner] / lists.data[inner]).sum())


@dataclass(frozen=True)
class MeasuredGraph:
    """Distances, and the bandwidth read from them.

    Attributes
    ----------
    search : NeighborIndex
        Makes the graphs of new rows.
    graph : DistanceGraph
        Of the training rows.
    curve : BandwidthCurve
        Kernel sum against bandwidth.
    bandwidth : float or "local"
        A length.
    dimension : float
        Largest slope of the curve; from the listed distances where no others are known.
    spread : float
        Root mean square distance of a row from the mean, as distances tell it.
    profile : PairProfile or None
        Of a sample of rows that depends on the rows alone; None where bandwidth or lists chose it.
    """

    search: NeighborIndex
    graph: DistanceGraph
    curve: BandwidthCurve
    bandwidth: float | Literal["local"]
    dimension: float
    spread: float
    profile: PairProfile | None


def measured_graph(
    X: Any,
    weight: NDArray[np.float64],
    settings: SearchSettings,
    *,
    n_neighbors: int | Literal["auto"] | None,
    bandwidth: float | str,
) -> MeasuredGraph:
    """Find neighbours and bandwidth; "auto" weighs each against the other.

    Parameters
    ----------
    X : {ndarray, csr_matrix} of shape (n_train, n_features) or (n_train, n_train)
        Distinct training rows, or their distances.
    weight : ndarray of shape (n_train,)
        Sums to 1.
    settings : SearchSettings
        How to measure and to search.
    n_neighbors : int, "auto" or None
        None is all pairs.
    bandwidth : float, "auto", "median" or "local"
        h.

    Returns
    -------
    MeasuredGraph
    """
    n_train = weight.size
    given = sp.issparse(X) and settings.metric == "precomputed"
    transformed = not isinstance(settings.algorithm, str)
    if n_neighbors == "auto" and n_train <= ALL_PAIRS_ROWS:
        n_neighbors = None
    whole = given or (n_neighbors is None and not transformed)
    if whole:
        search = make_index(X, None, settings)
        graph = search.build(X)
        everybody = given or bandwidth == "auto"
        size = n_train if everybody else sample_size(n_train)
        rows = sample_rows(X, weight, settings, size)
        profile = row_profile(rows, X, weight, settings, graph)
    else:
        rows = sample_rows(X, weight, settings, sample_size(n_train))
        profile = row_profile(rows, X, weight, settings)
        wanted = _wanted_neighbors(profile, n_neighbors, bandwidth)
        search = make_index(X, min(wanted, n_train - 1), settings)
        graph = search.build(X)
    curve = bandwidth_curve(profile)
    length: float | Literal["local"]
    if bandwidth == "local":
        length = "local"
    elif bandwidth == "median":
        length = median_bandwidth(graph, weight)
    elif bandwidth == "auto":
        plateau = find_plateau(profile)
        hanging = np.zeros(n_train)
        hanging[rows] = hanging_bandwidths(profile)
        if rows.size < n_train and graph.row_radii is not None:
            far = np.argsort(-graph.row_radii, kind="stable")[: min(_FAR_ROWS, rows.size)]
            hanging[far] = hanging_bandwidths(row_profile(far, X, weight, settings))
        length = auto_bandwidth(graph, plateau, hanging)
        if n_neighbors == "auto" and settings.algorithm in ("auto", "exact") and not whole:
            # Rows far out may ask for more than the plateau, and with it for more neighbours.
            needed = neighbors_within(profile, CUTOFF * length)
            if needed > wanted and needed <= MOST_AUTO:
                return measured_graph(X, weight, settings, n_neighbors=needed, bandwidth="auto")
            if needed > wanted and n_train <= MOST_ALL_PAIRS:
                return measured_graph(X, weight, settings, n_neighbors=None, bandwidth="auto")
    else:
        length = float(bandwidth)
    share = profile.weight / profile.weight.sum()
    return MeasuredGraph(
        search=search,
        graph=graph,
        curve=curve,
        bandwidth=length,
        dimension=float(curve.slope.max())
        if graph.listed is None
        else listed_dimension(graph.listed),
        spread=float(np.sqrt(0.5 * (share @ profile.counts @ profile.squares) / n_train)),
        profile=None if whole else profile,
    )


def _wanted_neighbors(
    profile: PairProfile, n_neighbors: int | str | None, bandwidth: float | str
) -> int:
    if n_neighbors is not None and n_neighbors != "auto":
        wanted = int(n_neighbors)
        if wanted >= profile.n_train:
            warn(
                f"n_neighbors={wanted} must be below the number of distinct rows of positive "
                f"weight, {profile.n_train}; {profile.n_train - 1} is used. Set n_neighbors=None "
                "for all pairs.",
                BandwidthWarning,
            )
        elif bandwidth == "local" and wanted < LOCAL_NEIGHBOR - 1:
            warn(
                f"n_neighbors={wanted} must be >= {LOCAL_NEIGHBOR - 1} with bandwidth='local', the "
                f"distance to the {LOCAL_NEIGHBOR}th nearest row, its own counted; "
                f"{LOCAL_NEIGHBOR - 1} is used.",
                BandwidthWarning,
            )
            return LOCAL_NEIGHBOR - 1
        return wanted
    dimension = float(bandwidth_curve(profile).slope.max())
    if bandwidth == "local":
        return auto_n_neighbors(profile, None, dimension)
    length = find_plateau(profile).bandwidth if isinstance(bandwidth, str) else float(bandwidth)
    return auto_n_neighbors(profile, length, dimension)
