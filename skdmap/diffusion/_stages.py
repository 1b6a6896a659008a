"""Two steps of a fit, each of several stages: rows -> measured graph -> Markov operator."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap._warning import warn
from skdmap.diffusion._bandwidth import (
    auto_bandwidth,
    find_plateau,
    hanging_bandwidths,
    median_bandwidth,
)
from skdmap.diffusion._components import (
    connected_labels,
    cut_between,
    order_by_mass,
)
from skdmap.diffusion._dimension import listed_dimension
from skdmap.diffusion._embedding import NEGLIGIBLE
from skdmap.diffusion._graph import DistanceGraph, NeighborSearch
from skdmap.diffusion._kernel import pair_kernel
from skdmap.diffusion._normalization import MarkovOperator, normalize, stationary_distribution
from skdmap.diffusion._profile import BandwidthCurve, PairProfile, bandwidth_curve
from skdmap.diffusion._scale import LOCAL_NEIGHBOR, LocalScale, scale_of_rows
from skdmap.diffusion._search import (
    ALL_PAIRS_ROWS,
    CUTOFF,
    MOST_ALL_PAIRS,
    MOST_AUTO,
    SearchSettings,
    auto_n_neighbors,
    make_search,
    neighbors_within,
    row_profile,
    sample_rows,
    sample_size,
)
from skdmap.exceptions import BandwidthWarning

__all__ = [
    "MarkovFit",
    "MeasuredGraph",
    "markov_operator",
    "measured_graph",
]

# Fewer rows than this are no component: they are treated as rows of weight 0.
_SMALL_COMPONENT = 10
# So many rows with the farthest neighbours are asked what bandwidth they need.
_FAR_ROWS = 256


@dataclass(frozen=True)
class MeasuredGraph:
    """Distances, and the bandwidth read from them.

    Attributes
    ----------
    search : NeighborSearch
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

    search: NeighborSearch
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
        search = make_search(X, None, settings)
        graph = search.training_graph()
        everybody = given or bandwidth == "auto"
        size = n_train if everybody else sample_size(n_train)
        rows = sample_rows(X, weight, settings, size)
        profile = row_profile(rows, X, weight, settings, graph)
    else:
        rows = sample_rows(X, weight, settings, sample_size(n_train))
        profile = row_profile(rows, X, weight, settings)
        wanted = _wanted_neighbors(profile, n_neighbors, bandwidth)
        search = make_search(X, min(wanted, n_train - 1), settings)
        graph = search.training_graph()
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


@dataclass(frozen=True)
class MarkovFit:
    """The operator on the rows that take part.

    Attributes
    ----------
    operator : MarkovOperator
        On the rows of ``kept``.
    kept : ndarray of shape (n_kept,)
        Training rows that take part, ascending.
    labels : ndarray of shape (n_train,)
        Component of each training row, 0 the one of the largest weight; -1 where it is too small,
        -2 for a row whose own mass is negligible.
    scale : ndarray of shape (n_train,) or None
        rho.
    log_column_weight : ndarray of shape (n_train,)
        log(w_j / g_j); -inf for rows that take no part.
    second_moment : float
        s = sum k d^2 / (h^2 sum k), for a sparse kernel of fixed bandwidth; else nan.
    """

    operator: MarkovOperator
    kept: NDArray[np.intp]
    labels: NDArray[np.intp]
    scale: NDArray[np.float64] | None
    log_column_weight: NDArray[np.float64]
    second_moment: float


def markov_operator(
    graph: DistanceGraph,
    scale: LocalScale,
    weight: NDArray[np.float64],
    *,
    alpha: float,
    dimension: int,
    largest_only: bool,
    drop_negligible: bool = False,
) -> MarkovFit:
    """Weigh the graph, find its components, normalise.

    Parameters
    ----------
    graph : DistanceGraph
        Of the training rows.
    scale : LocalScale
        Bandwidth.
    weight : ndarray of shape (n_train,)
        Sums to 1.
    alpha : float
        Normalisation.
    dimension : int
        Intrinsic, for a variable bandwidth.
    largest_only : bool
        Keep one component.
    drop_negligible : bool, default=False
        Treat rows whose stationary probability is at most 1e-14 as rows of weight 0.

    Returns
    -------
    MarkovFit
    """
    rho = scale_of_rows(scale, graph)
    kernel = whole = pair_kernel(graph, epsilon=scale.epsilon, row_scale=rho, column_scale=rho)
    own = None if rho is None else rho
    heavy = np.arange(weight.size)
    if drop_negligible:
        pi = stationary_distribution(kernel, weight, alpha=alpha, scale=own, dimension=dimension)
        heavy = np.flatnonzero(pi > NEGLIGIBLE)
        inner = kernel[heavy]
        kernel = inner[:, heavy].tocsr() if graph.is_sparse else inner[:, heavy]
        own = None if rho is None else rho[heavy]
    found = connected_labels(kernel)
    if found.any():
        kernel = cut_between(kernel, found)
    operator = normalize(kernel, weight[heavy], alpha=alpha, scale=own, dimension=dimension)
    labels = np.full(weight.size, -2, dtype=np.intp)
    labels[heavy] = _counted_labels(found, weight[heavy])
    inner = np.flatnonzero(labels[heavy] == 0 if largest_only else labels[heavy] >= 0)
    kept = heavy[inner]
    column_weight = np.full(weight.size, -np.inf)
    column_weight[kept] = operator.log_column_weight[inner]
    moment = np.nan
    if graph.is_sparse and rho is None:
        moment = _second_moment(whole, graph, kept, weight[kept], scale.epsilon)
    return MarkovFit(
        operator=operator.restricted(inner),
        kept=kept,
        labels=labels,
        scale=rho,
        log_column_weight=column_weight,
        second_moment=moment,
    )


def _counted_labels(labels: NDArray[np.intp], mass: NDArray[np.float64]) -> NDArray[np.intp]:
    """Number the components by weight; -1 for those too small to count, unless all are."""
    counted = np.bincount(labels) >= _SMALL_COMPONENT
    if not counted.any():
        counted[:] = True
    inside = counted[labels]
    numbered = np.full(labels.size, -1, dtype=np.intp)
    compact = np.unique(labels[inside], return_inverse=True)[1]
    numbered[inside] = order_by_mass(compact, mass[inside])
    return numbered


def _second_moment(
    kernel: sp.csr_matrix,
    graph: DistanceGraph,
    kept: NDArray[np.intp],
    weight: NDArray[np.float64],
    epsilon: float,
) -> float:
    """Sum k d^2 / (h^2 sum k) over the rows that take part."""
    data = np.square(graph.distances.data)
    data *= kernel.data
    squares = sp.csr_matrix((data, kernel.indices, kernel.indptr), shape=kernel.shape)
    everybody = np.zeros(kernel.shape[0])
    everybody[kept] = weight
    total = everybody @ (kernel @ everybody)
    mean_square = float(everybody @ (squares @ everybody) / (2.0 * epsilon * total))
    return mean_square if mean_square > 0 else np.nan
