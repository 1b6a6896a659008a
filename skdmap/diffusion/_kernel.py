"""The kernel: Gaussian, fixed, variable or truncated, or given; its values and its logarithms.

k = exp(-d^2 / (4 eps rho rho')), eps = h^2 / 2, with rho = 1 for a fixed bandwidth. A sparse
graph cuts it off at R, and its value there is subtracted, so that k falls to 0 continuously.
"local" is the self-tuning kernel exp(-d^2 / (2 h h')) of Zelnik-Manor & Perona 2004, "Self-tuning
spectral clustering": h rho is the distance to a near sample.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap._threads import blas_threads
from skdmap.diffusion._eigensolvers.row_blocks import for_each_rows
from skdmap.diffusion._neighbors.affinities import log_affinities, scaled_affinities
from skdmap.diffusion._neighbors.graph import LOCAL_NEIGHBOR, TINY, DistanceGraph, kth_listed

# rho lies in [1 / RHO_BOUND, RHO_BOUND]: unbounded, 1 - eps mu rho^2 changes sign in tails.
RHO_BOUND = 2.0
# "local": h is kept within this factor of its median: equal samples and outliers do not decide.
_LOCAL_BOUND = 20.0
# Distances of one pair computed in two ways agree to this share: a pair so near R is at R, and
# weighs exactly nothing.
_AT_CUTOFF = 1e-10
_BLOCK = 2**22
# Where nothing is near, the logarithm of the density counts as this; the bounds of rho do the rest.
_LEAST_LOG_DENSITY = -700.0


@dataclass(frozen=True)
class GaussianKernel:
    """The kernel of a fit; gives rho for training and new samples alike."""

    # rho = 1, distance to a near sample, or a power of the density; "given": the user's affinities.
    kind: Literal["fixed", "local", "density", "given"]
    # h^2 / 2, in squared units of the distances; nan of a given kernel.
    epsilon: float
    # Power of the density.
    exponent: float = 0.0
    # Logarithm of the geometric mean that rho is divided by.
    log_mean: float = 0.0
    # (n_train,) Logarithms of the weights in the density.
    log_weight: NDArray[np.float64] | None = None
    # "local": the nearest sample of this number, the own one counted, and bounds of h.
    neighbor: int = 0
    bounds: tuple[float, float] = (0.0, np.inf)
    # Whether 1 + (P - 1) / rho^2 is solved, which estimates the generator, and not P itself.
    is_generator: bool = False
    # (n_train,) rho of the training samples; None is 1.
    train_scale: NDArray[np.float64] | None = None
    # Logarithm of the largest value among training samples.
    log_largest: float = 0.0

    @property
    def bandwidth(self) -> float:
        """h, in units of the distances; "local": the root mean square."""
        return float(np.sqrt(2.0 * self.epsilon))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open kernels of version 0.1, where "local" and its bounds were others."""
        if "is_generator" not in state:
            h = np.sqrt(2.0 * state["epsilon"])
            bounds = (h / RHO_BOUND, h * RHO_BOUND)
            state = {"neighbor": 9, "bounds": bounds, "is_generator": True, **state}
        vars(self).update(state)


def gaussian_kernel(
    graph: DistanceGraph,
    weight: NDArray[np.float64],
    *,
    bandwidth: float | Literal["local"],
    exponent: float = 0.0,
    n_neighbors: int | None = None,
) -> GaussianKernel:
    """Fix eps and rho on the training samples; ``exponent`` is beta of a variable bandwidth."""
    if graph.is_given:
        values = graph.distances.data if sp.issparse(graph.distances) else graph.distances
        return GaussianKernel("given", epsilon=np.nan, log_largest=float(np.log(values.max())))
    if bandwidth == "local":
        return _local_kernel(graph, weight, n_neighbors)
    _check_length(float(bandwidth), bandwidth)
    epsilon = 0.5 * float(bandwidth) ** 2
    if exponent == 0.0:
        return GaussianKernel("fixed", epsilon=epsilon)
    kernel = GaussianKernel(
        "density", epsilon, exponent, log_weight=np.log(weight), is_generator=True
    )
    kernel = replace(kernel, log_mean=float(weight @ _log_density_scales(kernel, graph)))
    return replace(kernel, train_scale=bandwidth_scales(kernel, graph))


def _local_kernel(
    graph: DistanceGraph, weight: NDArray[np.float64], n_neighbors: int | None
) -> GaussianKernel:
    """The self-tuning kernel: h of the training samples within bounds, rho = h / sqrt(2 eps)."""
    neighbor = min(LOCAL_NEIGHBOR, LOCAL_NEIGHBOR if n_neighbors is None else n_neighbors) + 1
    h = _near_distances(graph, neighbor)
    typical = _lower_median(h[h > TINY], weight[h > TINY])
    _check_length(typical, "local")
    bounds = (typical / _LOCAL_BOUND, typical * _LOCAL_BOUND)
    h = np.clip(h, *bounds)
    epsilon = 0.5 * float(weight @ np.square(h))
    kernel = GaussianKernel("local", epsilon, neighbor=neighbor, bounds=bounds)
    return replace(kernel, train_scale=h / kernel.bandwidth)


def bandwidth_scales(kernel: GaussianKernel, graph: DistanceGraph) -> NDArray[np.float64] | None:
    """Return rho of the rows of a graph (n_rows,); None where it is 1."""
    if kernel.kind in ("fixed", "given"):
        return None
    if kernel.kind == "local":
        # The search gives the distances that the rule of version 0.1 does not want.
        known = replace(graph, nearby=None) if kernel.is_generator else graph
        h = _near_distances(known, kernel.neighbor)
        return np.asarray(np.clip(h, *kernel.bounds) / kernel.bandwidth)
    bound = np.log(RHO_BOUND)
    return np.exp(np.clip(_log_density_scales(kernel, graph) - kernel.log_mean, -bound, bound))


def gaussian(squares: Any, bandwidth: Any) -> Any:
    """Return exp(-d^2 / (2 h^2)) of squared distances."""
    return np.exp(-squares / (2.0 * np.square(bandwidth)))


def log_gaussian(
    distances: Any,
    *,
    epsilon: float,
    row_scale: NDArray[np.float64] | None = None,
    column_scale: NDArray[np.float64] | None = None,
) -> Any:
    """Return -d^2 / (4 eps rho rho') of distances (n_rows, n_train), dense or sparse."""
    if sp.issparse(distances):
        rows = slice(0, distances.shape[0])
        factor = _stored_factor(distances, rows, epsilon, row_scale, column_scale)
        return _with_data(distances, -factor * np.square(distances.data))
    exponent = np.square(distances)
    exponent *= -0.25 / epsilon
    if row_scale is not None:
        exponent /= row_scale[:, None]
    if column_scale is not None:
        exponent /= column_scale[None, :]
    return exponent


def log_affinity(
    graph: DistanceGraph,
    *,
    epsilon: float,
    row_scale: NDArray[np.float64] | None = None,
    column_scale: NDArray[np.float64] | None = None,
) -> Any:
    """Return log k of the pairs of a graph (n_rows, n_train); -inf for pairs at the cut-off."""
    if graph.is_given:
        return log_affinities(graph.distances)
    if not graph.is_sparse:
        return log_gaussian(
            graph.distances, epsilon=epsilon, row_scale=row_scale, column_scale=column_scale
        )
    rows = slice(0, graph.distances.shape[0])
    exponent, beyond = _exponents(graph, rows, epsilon, row_scale, column_scale)
    with np.errstate(divide="ignore"):
        exponent += np.log(-np.expm1(beyond))
    return _with_data(graph.distances, exponent)


def gaussian_affinity(
    graph: DistanceGraph,
    *,
    epsilon: float,
    row_scale: NDArray[np.float64] | None = None,
    column_scale: NDArray[np.float64] | None = None,
) -> Any:
    """Return k of the pairs of a graph (n_rows, n_train), dense or sparse as its distances."""
    if graph.is_given:
        return scaled_affinities(graph.distances)
    if not graph.is_sparse:
        log_k = log_gaussian(
            graph.distances, epsilon=epsilon, row_scale=row_scale, column_scale=column_scale
        )
        return np.exp(log_k, out=log_k)
    indptr = graph.distances.indptr
    values = np.empty(graph.distances.nnz)

    def fill(rows: slice) -> None:
        exponent, beyond = _exponents(graph, rows, epsilon, row_scale, column_scale)
        value = np.exp(exponent, out=exponent)
        value *= np.expm1(beyond, out=beyond)
        np.negative(value, out=values[indptr[rows.start] : indptr[rows.stop]])

    for_each_rows(fill, graph.distances.shape[0], blas_threads())
    return _with_data(graph.distances, values)


def _exponents(
    graph: DistanceGraph,
    rows: slice,
    epsilon: float,
    row_scale: NDArray[np.float64] | None,
    column_scale: NDArray[np.float64] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exponents of stored pairs, and by how much lower, <= 0, they are at the cut-off R."""
    # k = e^a - e^(a + b) = -e^a expm1(b), b = -(R - d)(R + d) / (4 eps rho rho'): exact for R ~ d.
    part = slice(graph.distances.indptr[rows.start], graph.distances.indptr[rows.stop])
    factor = _stored_factor(graph.distances, rows, epsilon, row_scale, column_scale)
    distances, cutoff = graph.distances.data[part], _cutoffs(graph, rows, part)
    beyond = cutoff - distances
    beyond[beyond < _AT_CUTOFF * cutoff] = 0.0
    beyond *= np.add(cutoff, distances, out=cutoff)
    beyond *= -factor
    np.minimum(beyond, 0.0, out=beyond)
    # Where the cut-off itself is 0, the samples are at one place, and k = 1.
    beyond[(distances <= np.finfo(float).tiny) & (beyond == 0.0)] = -np.inf
    exponent = np.square(distances)
    exponent *= -factor
    return exponent, beyond


def _cutoffs(graph: DistanceGraph, rows: slice, part: slice) -> NDArray[np.float64]:
    """R of the stored pairs of some rows, which are ``part`` of all stored pairs."""
    assert graph.row_radii is not None
    assert graph.column_radii is not None
    counts = np.diff(graph.distances.indptr[rows.start : rows.stop + 1])
    columns = graph.column_radii[graph.distances.indices[part]]
    return np.asarray(np.maximum(np.repeat(graph.row_radii[rows], counts), columns, out=columns))


def _stored_factor(
    distances: sp.csr_matrix,
    rows: slice,
    epsilon: float,
    row_scale: NDArray[np.float64] | None,
    column_scale: NDArray[np.float64] | None,
) -> Any:
    """1 / (4 eps rho rho') of the stored pairs of some rows; a number where rho is 1."""
    # The product of the two scales first: it does not depend on which sample is which.
    scale: Any = 1.0
    indptr = distances.indptr
    if row_scale is not None:
        scale = np.repeat(row_scale[rows], np.diff(indptr[rows.start : rows.stop + 1]))
    if column_scale is not None:
        columns = distances.indices[indptr[rows.start] : indptr[rows.stop]]
        scale = scale * column_scale[columns]
    return 0.25 / epsilon / scale


def row_log_sums(log_k: Any, log_weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log sum_j k_ij w_j (n_rows,) without underflow; -inf for rows without weight."""
    if sp.issparse(log_k):
        weighted = log_k.data + log_weight[log_k.indices]
        top = segment_reduce(np.maximum, weighted, log_k.indptr, -np.inf)
        shift = np.where(np.isfinite(top), top, 0.0)
        rows = np.repeat(shift, np.diff(log_k.indptr))
        total = segment_reduce(np.add, np.exp(weighted - rows), log_k.indptr, 0.0)
    else:
        weighted = log_k + log_weight[None, :]
        top = weighted.max(axis=1)
        shift = np.where(np.isfinite(top), top, 0.0)
        weighted -= shift[:, None]
        total = np.exp(weighted, out=weighted).sum(axis=1)
    with np.errstate(divide="ignore"):
        return shift + np.log(total)


def largest_in_rows(log_k: sp.csr_matrix, counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the largest stored value of each row in the columns that count; -inf without one."""
    data = np.where(counted[log_k.indices], log_k.data, -np.inf)
    return segment_reduce(np.maximum, data, log_k.indptr, -np.inf)


def segment_reduce(
    ufunc: np.ufunc, values: NDArray[np.float64], indptr: NDArray[np.integer], empty: float
) -> NDArray[np.float64]:
    """Reduce each row of a CSR data array; ``empty`` where nothing is stored."""
    result = np.full(indptr.size - 1, empty)
    filled = np.flatnonzero(np.diff(indptr))
    if filled.size:
        result[filled] = ufunc.reduceat(values, indptr[filled])
    return result


def neighbor_distances(distances: Any, k: int) -> NDArray[np.float64]:
    """Distance from each row to its k-th nearest training sample, the own one counted."""
    if sp.issparse(distances):
        return kth_listed(distances, k)
    n_rows, n_train = distances.shape
    position, result = min(k, n_train) - 1, np.empty(n_rows)
    step = max(1, _BLOCK // n_train)
    for start in range(0, n_rows, step):
        block = np.partition(distances[start : start + step], position, axis=1)
        result[start : start + step] = block[:, position]
    return result


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


def _lower_median(values: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    """The smallest value whose cumulative weight reaches one half; 0 of no values."""
    if values.size == 0:
        return 0.0
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weight[order])
    half = 0.5 * total[-1] * (1.0 - 1e-12)
    return float(values[order[np.searchsorted(total, half)]])


def _log_density_scales(kernel: GaussianKernel, graph: DistanceGraph) -> NDArray[np.float64]:
    assert kernel.log_weight is not None
    density = row_log_sums(log_affinity(graph, epsilon=kernel.epsilon), kernel.log_weight)
    return kernel.exponent * np.maximum(density, _LEAST_LOG_DENSITY)


def _near_distances(graph: DistanceGraph, k: int) -> NDArray[np.float64]:
    """Distance from each row to its k-th nearest training sample, the own one counted."""
    if graph.nearby is not None:
        return graph.nearby
    return neighbor_distances(graph.distances if graph.listed is None else graph.listed, k)


def _check_length(length: float, bandwidth: object) -> None:
    """Raise where the square of a bandwidth is not a normal number in double precision."""
    with np.errstate(over="ignore", under="ignore"):
        square = np.square(length)
    if not np.finfo(float).tiny <= square < np.inf:
        affinities = " Pass affinities with kernel='precomputed'." if length == 0.0 else ""
        raise ValueError(
            f"bandwidth={bandwidth!r} is the length {length:g}, whose square must be a normal "
            "number in double precision. Rescale X if its distances are of this size. If most "
            f"distances are 0, pass a number as bandwidth or use another metric.{affinities}"
        )


def _with_data(matrix: sp.csr_matrix, data: NDArray[np.float64]) -> sp.csr_matrix:
    return sp.csr_matrix((data, matrix.indices, matrix.indptr), shape=matrix.shape)
