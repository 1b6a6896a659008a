"""Rules for bandwidth, n_neighbors and intrinsic dimension: what "auto" and "median" mean.

"auto" lies on the first plateau of the slope of log S against log h (after Coifman et al. 2008,
doi:10.1109/TIP.2008.2002305, and Berry & Harlim 2016, doi:10.1016/j.acha.2015.01.001), near its
lower end, and leaves no sample weakly connected unless it is an outlier.
"""

from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import minimum_spanning_tree

from skdmap._warning import warn
from skdmap.diffusion._distance_histogram import (
    BandwidthCurve,
    DistanceHistogram,
    bandwidth_curve,
    check_scale,
    representative_sample,
    sample_histogram,
    sample_size,
    samples_within,
)
from skdmap.diffusion._kernel import weighted_median
from skdmap.diffusion._neighbors.graph import (
    TINY,
    DistanceGraph,
    NeighborIndex,
    kth_listed,
    union,
    within,
)
from skdmap.diffusion._neighbors.search import (
    ALL_PAIRS_ROWS,
    MOST_ALL_PAIRS,
    make_index,
)
from skdmap.diffusion._training_set import TrainingSet
from skdmap.exceptions import BandwidthWarning

# Samples are connected when k >= eps: h sqrt(2 log(1 / eps)) is how far that reaches.
REACH = float(np.sqrt(-2.0 * np.log(np.finfo(float).eps)))
# The Gaussian has fallen to 1e-2 of its value at this multiple of h.
CUTOFF = float(np.sqrt(2.0 * np.log(1e2)))
_LEAST_AUTO, _MOST_AUTO = 32, 256
# "local": twice as many as decide h, so that the kernel has fallen where it is cut off.
LOCAL_NEIGHBORS = 15
# "auto": effective neighbours that a typical sample should have, and that every sample must have.
_TYPICAL_NEIGHBORS = 10.0
_LEAST_NEIGHBORS = 3.0
_PLATEAU_TOLERANCE = 0.10
_PLATEAU_END = 0.75
_PLATEAU_WEIGHT = 0.2
# Samples of less weight than this share of the mean do not raise the bandwidth.
_NEGLIGIBLE_WEIGHT = 1e-2
_BLOCK = 2**22
# So many samples with the farthest neighbours are asked what bandwidth they need.
_FAR_ROWS = 256


@dataclass(frozen=True)
class NeighborGraph:
    """Distances among the training samples, and the index that answers for new ones."""

    index: NeighborIndex
    distances: DistanceGraph
    # Distances from ``sample`` (n_sampled,), numbers of training samples, to all or all stored;
    # None for a local bandwidth, whose rule needs none.
    histogram: DistanceHistogram | None
    sample: NDArray[np.intp] | None
    # Neighbours of a sample, itself not counted; None for all pairs.
    n_neighbors: int | None


@dataclass(frozen=True)
class Bandwidth:
    """What ``bandwidth`` became."""

    # In units of the distances; "local": one for each sample; nan for a given kernel.
    length: float | Literal["local"]
    # With as many neighbours as a kernel of this length needs.
    graph: NeighborGraph
    intrinsic_dimension: float
    # None for a local bandwidth.
    curve: BandwidthCurve | None

    @property
    def dimension(self) -> int:
        """The intrinsic dimension as an integer, >= 1."""
        known = not np.isnan(self.intrinsic_dimension)
        return max(1, round(self.intrinsic_dimension)) if known else 1


@dataclass(frozen=True)
class Plateau:
    """Bandwidths between which the slope of log S is that of one manifold."""

    # A typical sample has ten effective neighbours.
    typical: float
    # The largest bandwidth with about the same slope.
    last: float
    # Where the slope has fallen for good: samples that need more are outliers.
    end: float
    # Between ``typical`` and ``last``.
    bandwidth: float


def neighbor_graph(
    training: TrainingSet, n_neighbors: int | Literal["auto"] | None, bandwidth: float | str
) -> NeighborGraph:
    """Measure the training samples: all pairs (None), or neighbours as many as h needs ("auto")."""
    X, weight, settings = training.X, training.weight, training.settings
    if settings.is_given:
        index = make_index(X, None, settings)
        return NeighborGraph(index, index.build(X), None, None, None)
    n_train, local = weight.size, bandwidth == "local"
    stored = training.has_stored_distances
    if local:
        check_scale(X, settings)
    if n_neighbors == "auto" and local:
        n_neighbors = min(LOCAL_NEIGHBORS, n_train - 1)
    elif n_neighbors == "auto" and n_train <= ALL_PAIRS_ROWS and training.landmarks is None:
        n_neighbors = None
    searched = not stored and isinstance(settings.algorithm, str)
    count: int | None = None
    if searched and isinstance(n_neighbors, Integral) and n_neighbors >= n_train - 1:
        # All pairs: nothing is cut off.
        count = _clipped(int(n_neighbors), n_train - 1, training.n_dropped)
        n_neighbors = None
    histogram, sample = None, None
    if stored or (n_neighbors is None and searched):
        index = make_index(X, None, settings)
        graph = index.build(X)
        count = index.n_neighbors if count is None else count
        if not local:
            size = n_train if stored or bandwidth == "auto" else sample_size(n_train)
            sample = representative_sample(X, weight, settings, size)
            histogram = sample_histogram(sample, X, weight, settings, graph)
    else:
        if not local:
            sample = representative_sample(X, weight, settings, sample_size(n_train))
            histogram = sample_histogram(sample, X, weight, settings)
            n_neighbors = resolve_n_neighbors(n_neighbors, histogram, bandwidth)
        assert n_neighbors != "auto"
        index = make_index(X, n_neighbors, settings)
        graph = index.build(X)
        count = index.n_neighbors
    return NeighborGraph(index, graph, histogram, sample, count)


def resolve_bandwidth(
    training: TrainingSet,
    graph: NeighborGraph,
    n_neighbors: int | Literal["auto"] | None,
    bandwidth: float | str,
) -> Bandwidth:
    """Return the length that ``bandwidth`` stands for, and a graph of the neighbours it needs."""
    distances = graph.distances
    if distances.is_given:
        return Bandwidth(np.nan, graph, np.nan, None)
    if bandwidth == "local":
        dimension = local_dimension(distances, graph.n_neighbors, training.weight)
        return Bandwidth("local", graph, dimension, None)
    assert graph.histogram is not None
    if bandwidth == "median":
        length = median_bandwidth(distances, training.weight)
    elif bandwidth == "auto":
        length = auto_bandwidth(
            distances, find_plateau(graph.histogram), _needed_bandwidths(graph, training)
        )
        if n_neighbors == "auto" and training.settings.algorithm in ("auto", "exact"):
            needed = _neighbors_for(length, graph, training)
            if needed != graph.n_neighbors:
                more = neighbor_graph(training, needed, bandwidth)
                return resolve_bandwidth(training, more, needed, bandwidth)
    else:
        length = float(bandwidth)
    curve = bandwidth_curve(graph.histogram)
    stored = distances.listed
    dimension = float(curve.slope.max()) if stored is None else stored_dimension(stored)
    return Bandwidth(length, graph, dimension, curve)


def resolve_n_neighbors(
    n_neighbors: int | Literal["auto"] | None,
    histogram: DistanceHistogram,
    bandwidth: float | str,
) -> int:
    """Return the number of neighbours of a sparse kernel, below the number of samples."""
    most = histogram.n_train - 1
    if n_neighbors is None or n_neighbors == "auto":
        auto = isinstance(bandwidth, str)
        length = find_plateau(histogram).bandwidth if auto else float(bandwidth)
        return min(auto_n_neighbors(histogram, length), most)
    return _clipped(int(n_neighbors), most)


def _clipped(n_neighbors: int, most: int, n_dropped: int = 0) -> int:
    """Return a number of neighbours that there are."""
    if n_neighbors > most + n_dropped:
        warn(
            f"n_neighbors={n_neighbors} must be below the number of distinct samples of positive "
            f"weight, {most + 1}; {most} is used. Set n_neighbors=None for all pairs.",
            BandwidthWarning,
        )
    return min(n_neighbors, most)


def auto_n_neighbors(histogram: DistanceHistogram, bandwidth: float) -> int:
    """Neighbours, 32 to 256, with which the kernel falls to 1e-2 at its cut-off."""
    wanted = samples_within(histogram, CUTOFF * bandwidth)
    return int(np.clip(wanted, _LEAST_AUTO, _MOST_AUTO))


def median_bandwidth(graph: DistanceGraph, weight: NDArray[np.float64]) -> float:
    """Return the median distance of all pairs, or a third of the median radius."""
    if graph.row_radii is not None:
        return weighted_median(graph.row_radii / 3.0, weight)
    upper = np.triu_indices(weight.size, 1)
    return weighted_median(graph.distances[upper], weight[upper[0]] * weight[upper[1]])


def auto_bandwidth(graph: DistanceGraph, plateau: Plateau, needed: NDArray[np.float64]) -> float:
    """Return the bandwidth on the plateau, raised to what samples (n_train,) need, but outliers."""
    outliers = needed > plateau.end
    largest = needed[~outliers].max(initial=0.0)
    connecting = connecting_bandwidth(graph.distances, outliers)
    return float(max(plateau.bandwidth, largest, connecting))


def find_plateau(histogram: DistanceHistogram) -> Plateau:
    """Find the bandwidths between which the data look like one manifold."""
    grid = histogram.grid()
    typical = weighted_median(_bandwidth_at(histogram, _TYPICAL_NEIGHBORS, 0.5), histogram.weight)
    mean_counts = histogram.shares() @ histogram.counts
    kernel = histogram.kernel(grid)
    # Without own pairs: a plateau is a power law of the others. Far below the data's scales
    # nothing is left of the sum.
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = (mean_counts @ (kernel * histogram.squares[:, None])) / (
            grid**2 * (mean_counts @ kernel)
        )
    level = float(np.interp(np.log(typical), np.log(grid), slope))
    above = grid > typical
    grid_above = np.concatenate([[typical], grid[above]])
    ratio = np.concatenate([[1.0], slope[above] / level])
    last = _first_crossing(grid_above, np.abs(ratio - 1.0) - _PLATEAU_TOLERANCE)
    end = _last_crossing(grid_above, _PLATEAU_END - ratio)
    return Plateau(
        typical=typical,
        last=last,
        end=max(end, last),
        bandwidth=typical ** (1.0 - _PLATEAU_WEIGHT) * last**_PLATEAU_WEIGHT,
    )


def least_bandwidths(histogram: DistanceHistogram) -> NDArray[np.float64]:
    """The h at which each sample has three effective neighbours; 0 for those of little weight."""
    found = _bandwidth_at(histogram, _LEAST_NEIGHBORS, 0.25)
    return np.where(histogram.weight < _NEGLIGIBLE_WEIGHT, 0.0, found)


def connecting_bandwidth(
    distances: Any, outliers: NDArray[np.bool_], n_neighbors: int = 10
) -> float:
    """The least h that connects what the graph of the 10 nearest neighbours connects."""
    kept = np.flatnonzero(~outliers)
    if kept.size < 2:
        return 0.0
    if sp.issparse(distances):
        inner = distances if kept.size == outliers.size else distances[kept][:, kept].tocsr()
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


def stored_dimension(lists: sp.csr_matrix) -> float:
    """Return the dimension from how distances grow along each list; 0 where none has two."""
    # 1 / mean of log(r_i / d_ij): the estimate of Levina & Bickel 2004, "Maximum likelihood
    # estimation of intrinsic dimension", averaged over its inverse.
    radii = lists.max(axis=1).toarray().reshape(-1)
    far = np.repeat(radii, np.diff(lists.indptr))
    inner = (lists.data > np.finfo(float).tiny) & (lists.data < far)
    if not inner.any():
        return 0.0
    return float(inner.sum() / np.log(far[inner] / lists.data[inner]).sum())


def local_dimension(
    graph: DistanceGraph, n_neighbors: int | None, weight: NDArray[np.float64]
) -> float:
    """Return the dimension from how distances grow from neighbour to neighbour; 0 of one alone."""
    # (N - 2) / (N - 1) / mean of log(r_i / d_ij) over neighbours nearer than r_i: Levina & Bickel
    # 2004, "Maximum likelihood estimation of intrinsic dimension", averaged over its inverse.
    total = count = 0.0
    if graph.is_sparse:
        assert n_neighbors is not None
        assert graph.row_radii is not None
        lists = graph.distances if graph.listed is None else graph.listed
        sizes = np.diff(lists.indptr)
        far = np.repeat(graph.row_radii, sizes)
        inner = (lists.data > TINY) & (lists.data < far)
        mass = np.repeat(weight, sizes)[inner]
        total = float(mass @ np.log(far[inner] / lists.data[inner]))
        count = float(mass.sum())
    else:
        n_neighbors = min(LOCAL_NEIGHBORS, weight.size - 1)
        step = max(1, _BLOCK // weight.size)
        for start in range(0, weight.size, step):
            block = graph.distances[start : start + step]
            near = np.partition(block, n_neighbors, axis=1)[:, : n_neighbors + 1]
            far = near[:, -1:]
            inner = (near > TINY) & (near < far)
            logs = np.log(np.divide(far, near, out=np.ones_like(near), where=inner))
            total += float(weight[start : start + step] @ logs.sum(axis=1))
            count += float(weight[start : start + step] @ inner.sum(axis=1))
    if total == 0.0:
        return 0.0
    return max(n_neighbors - 2, 1) / max(n_neighbors - 1, 1) * count / total


def _needed_bandwidths(graph: NeighborGraph, training: TrainingSet) -> NDArray[np.float64]:
    """Least bandwidths (n_train,) of the sample and of those far out; 0 where not looked at."""
    assert graph.histogram is not None
    assert graph.sample is not None
    needed = np.zeros(training.weight.size)
    needed[graph.sample] = least_bandwidths(graph.histogram)
    if graph.sample.size < needed.size and graph.distances.row_radii is not None:
        order = np.argsort(-graph.distances.row_radii, kind="stable")
        far = order[: min(_FAR_ROWS, graph.sample.size)]
        histogram = sample_histogram(far, training.X, training.weight, training.settings)
        needed[far] = least_bandwidths(histogram)
    return needed


def _neighbors_for(length: float, graph: NeighborGraph, training: TrainingSet) -> int | None:
    """Neighbours that a kernel of this length needs, where outlying samples have raised it."""
    have = graph.n_neighbors
    if have is None or graph.distances.listed is not None or not graph.distances.is_sparse:
        return have
    assert graph.histogram is not None
    wanted = samples_within(graph.histogram, CUTOFF * length)
    if have < wanted <= _MOST_AUTO:
        return wanted
    # All pairs of landmarks would cost more for each sample than the map is worth.
    few = training.landmarks is None and training.weight.size <= MOST_ALL_PAIRS
    return None if wanted > have and few else have


def _bandwidth_at(histogram: DistanceHistogram, wanted: float, share: float) -> NDArray[np.float64]:
    """The h (n_rows,) with ``wanted`` effective neighbours, or a share of all others if fewer."""
    grid = histogram.grid()
    sums = histogram.kernel_sums(grid)
    count = np.minimum(wanted, share * histogram.counts.sum(axis=1))
    log_sums = np.log(np.maximum(sums, np.finfo(float).tiny))
    position = np.clip((sums < count[:, None]).sum(axis=1), 1, grid.size - 1)
    rows = np.arange(sums.shape[0])
    lower, upper = log_sums[rows, position - 1], log_sums[rows, position]
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.clip((np.log(count) - lower) / (upper - lower), 0.0, 1.0)
    found = np.exp(np.log(grid[position - 1]) + part * np.diff(np.log(grid))[position - 1])
    return np.where(count > 0, found, np.inf)


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
