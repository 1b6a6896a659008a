"""Distances in, logarithms of the kernel out.

The kernel is a Gaussian, k = exp(-d^2 / (4 eps rho rho')), with eps = h^2 / 2 and rho = 1 unless
the bandwidth varies. Over a sparse graph the value at the cut-off R is taken off,
k = exp(-d^2 / ...) - exp(-R^2 / ...), so that k falls to 0 continuously: ties weigh nothing.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap.diffusion._distance_histogram import weighted_median
from skdmap.diffusion._eigensolvers.row_blocks import blas_threads, for_each_rows
from skdmap.diffusion._neighbors.graph import DistanceGraph, kth_listed

RHO_BOUND = 2.0
# "local": distance to this nearest row, the own counted.
LOCAL_NEIGHBOR = 9
_LEAST_SHARE = 1e-2


def log_affinity(
    graph: DistanceGraph,
    *,
    epsilon: float,
    row_scale: NDArray[np.float64] | None = None,
    column_scale: NDArray[np.float64] | None = None,
) -> Any:
    """Return log k for the pairs of a graph.

    Parameters
    ----------
    graph : DistanceGraph
        Distances d, and radii where the graph is sparse.
    epsilon : float
        h^2 / 2, in squared units of the distances.
    row_scale, column_scale : ndarray or None, default=None
        rho of the rows and of the training rows; None is 1.

    Returns
    -------
    {ndarray, csr_matrix} of shape (n_rows, n_train)
        As ``graph.distances``. A pair at the cut-off has -inf.
    """
    if not graph.is_sparse:
        exponent = np.square(graph.distances)
        exponent *= -0.25 / epsilon
        if row_scale is not None:
            exponent /= row_scale[:, None]
        if column_scale is not None:
            exponent /= column_scale[None, :]
        return exponent
    scale = _pair_scale(graph.distances, row_scale, column_scale) * (4.0 * epsilon)
    exponent = -np.square(graph.distances.data) / scale
    # log(e^a - e^b) = a + log(-expm1(b - a)), b <= a: exact also where a and b are close.
    beyond = np.minimum(-np.square(graph.cutoffs()) / scale - exponent, 0.0)
    with np.errstate(divide="ignore"):
        exponent += np.log(-np.expm1(beyond))
    # Where the cut-off itself is 0 there is nothing to fall to: such rows are one place.
    exponent[(graph.distances.data <= np.finfo(float).tiny) & (beyond == 0.0)] = 0.0
    return _with_data(graph.distances, exponent)


def _pair_scale(
    distances: sp.csr_matrix,
    row_scale: NDArray[np.float64] | None,
    column_scale: NDArray[np.float64] | None,
) -> Any:
    scale: Any = 1.0
    if row_scale is not None:
        scale = np.repeat(row_scale, np.diff(distances.indptr))
    if column_scale is not None:
        scale = scale * column_scale[distances.indices]
    return scale


def log_gaussian(
    distances: sp.csr_matrix,
    *,
    epsilon: float,
    row_scale: NDArray[np.float64] | None = None,
    column_scale: NDArray[np.float64] | None = None,
) -> sp.csr_matrix:
    """Return the log of the Gaussian for listed distances, nothing taken off.

    Parameters
    ----------
    distances : csr_matrix of shape (n_rows, n_train)
        Listed distances.
    epsilon, row_scale, column_scale : object
        As for ``log_affinity``.

    Returns
    -------
    csr_matrix of shape (n_rows, n_train)
    """
    scale = _pair_scale(distances, row_scale, column_scale) * (4.0 * epsilon)
    return _with_data(distances, -np.square(distances.data) / scale)


def pair_kernel(
    graph: DistanceGraph,
    *,
    epsilon: float,
    row_scale: NDArray[np.float64] | None = None,
    column_scale: NDArray[np.float64] | None = None,
) -> Any:
    """Return k for the pairs of a graph: ``affinity`` of ``log_affinity``, without logs.

    Parameters
    ----------
    graph : DistanceGraph
        Distances d, and radii where the graph is sparse.
    epsilon : float
        h^2 / 2, in squared units of the distances.
    row_scale, column_scale : ndarray or None, default=None
        rho of the rows and of the training rows, both or neither; None is 1.

    Returns
    -------
    {ndarray, csr_matrix} of shape (n_rows, n_train)
        As ``graph.distances``.
    """
    if not graph.is_sparse:
        return affinity(
            log_affinity(graph, epsilon=epsilon, row_scale=row_scale, column_scale=column_scale)
        )
    row_radii, column_radii = graph.row_radii, graph.column_radii
    assert row_radii is not None
    assert column_radii is not None
    distances, combine = graph.distances, np.maximum if graph.rule == "max" else np.minimum
    kernel = np.empty(distances.nnz)
    indptr = distances.indptr

    def fill(rows: slice) -> None:
        part = slice(indptr[rows.start], indptr[rows.stop])
        counts, columns = np.diff(indptr[rows.start : rows.stop + 1]), distances.indices[part]
        cutoff = combine(np.repeat(row_radii[rows], counts), column_radii[columns])
        factor: Any = -0.25 / epsilon
        if row_scale is not None and column_scale is not None:
            factor = factor / (np.repeat(row_scale[rows], counts) * column_scale[columns])
        exponent = np.square(distances.data[part])
        exponent *= factor
        beyond = np.square(cutoff, out=cutoff)
        beyond *= factor
        beyond -= exponent
        np.minimum(beyond, 0.0, out=beyond)
        # Where the cut-off itself is 0 there is nothing to fall to: such rows are one place.
        place = (distances.data[part] <= np.finfo(float).tiny) & (beyond == 0.0)
        value = np.exp(exponent, out=exponent)
        value *= np.expm1(beyond, out=beyond)
        value[place] = -1.0
        np.negative(value, out=kernel[part])

    for_each_rows(fill, graph.distances.shape[0], blas_threads())
    return _with_data(distances, kernel)


def largest_in_rows(log_k: sp.csr_matrix, counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the largest stored value of each row in the columns that count; -inf without one."""
    data = np.where(counted[log_k.indices], log_k.data, -np.inf)
    return segment_reduce(np.maximum, data, log_k.indptr, -np.inf)


def affinity(log_k: Any) -> Any:
    """Return exp of ``log_k``, in its own memory where it is dense."""
    if sp.issparse(log_k):
        return _with_data(log_k, np.exp(log_k.data))
    return np.exp(log_k, out=log_k)


def row_log_sums(log_k: Any, log_weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log sum_j k_ij w_j for each row, without underflow.

    Parameters
    ----------
    log_k : {ndarray, csr_matrix} of shape (n_rows, n_train)
        Logarithms of the kernel.
    log_weight : ndarray of shape (n_train,)
        Logarithms of the weights; -inf leaves a training row out.

    Returns
    -------
    ndarray of shape (n_rows,)
        -inf for a row without weight.
    """
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


def segment_reduce(
    ufunc: np.ufunc, values: NDArray[np.float64], indptr: NDArray[np.integer], empty: float
) -> NDArray[np.float64]:
    """Reduce each row of a CSR data array; ``empty`` where nothing is stored."""
    result = np.full(indptr.size - 1, empty)
    filled = np.flatnonzero(np.diff(indptr))
    if filled.size:
        result[filled] = ufunc.reduceat(values, indptr[filled])
    return result


def _with_data(matrix: sp.csr_matrix, data: NDArray[np.float64]) -> sp.csr_matrix:
    return sp.csr_matrix((data, matrix.indices, matrix.indptr), shape=matrix.shape)


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


@dataclass(frozen=True)
class LocalScale:
    """A rule that gives rho for training rows and new rows alike.

    Attributes
    ----------
    kind : {"fixed", "neighbor", "density"}
        rho = 1, distance to the 9th nearest row, or a power of the density.
    epsilon : float
        h^2 / 2 of the kernel, in squared units of the distances.
    exponent : float
        The power of the density.
    log_mean : float
        Logarithm of the geometric mean that is divided out.
    log_weight : ndarray of shape (n_train,) or None
        Of the density.
    floor : float
        The least distance that counts as a scale, so that equal rows do not pull the mean to 0.
    """

    kind: Literal["fixed", "neighbor", "density"]
    epsilon: float
    exponent: float = 0.0
    log_mean: float = 0.0
    log_weight: NDArray[np.float64] | None = None
    floor: float = 0.0

    @property
    def bandwidth(self) -> float:
        """h, in units of the distances."""
        return float(np.sqrt(2.0 * self.epsilon))


def fit_scale(
    graph: DistanceGraph,
    weight: NDArray[np.float64],
    *,
    bandwidth: float | Literal["local"],
    exponent: float = 0.0,
) -> LocalScale:
    """Fix eps and the geometric mean on the training rows.

    Parameters
    ----------
    graph : DistanceGraph
        Of the training rows.
    weight : ndarray of shape (n_train,)
        Sums to 1.
    bandwidth : float or "local"
        h, or one length per row.
    exponent : float, default=0
        beta of Berry & Harlim: rho is the density to this power.

    Returns
    -------
    LocalScale
    """
    if bandwidth == "local":
        typical = weighted_median(_neighbor_scales(graph), weight)
        _check_length(typical, "local")
        scale = LocalScale("neighbor", epsilon=np.nan, floor=_LEAST_SHARE * typical)
        log_mean = float(weight @ _log_scales(scale, graph))
        return replace(scale, epsilon=0.5 * float(np.exp(2.0 * log_mean)), log_mean=log_mean)
    _check_length(float(bandwidth), bandwidth)
    epsilon = 0.5 * float(bandwidth) ** 2
    if exponent == 0.0:
        return LocalScale("fixed", epsilon=epsilon)
    scale = LocalScale("density", epsilon, exponent, log_weight=np.log(weight))
    return replace(scale, log_mean=float(weight @ _log_scales(scale, graph)))


def _check_length(length: float, bandwidth: object) -> None:
    with np.errstate(over="ignore", under="ignore"):
        square = np.square(length)
    if not np.finfo(float).tiny <= square < np.inf:
        raise ValueError(
            f"bandwidth={bandwidth!r} is the length {length:g}, whose square must be a normal "
            "number in double precision. If X holds such lengths, rescale it; if most distances "
            "are 0, pass a number or another metric."
        )


def scale_of_rows(scale: LocalScale, graph: DistanceGraph) -> NDArray[np.float64] | None:
    """Return rho of the rows of a graph, in [1/2, 2]; None where it is 1.

    Parameters
    ----------
    scale : LocalScale
        As fitted.
    graph : DistanceGraph
        From any rows to the training rows.

    Returns
    -------
    ndarray of shape (n_rows,) or None
    """
    if scale.kind == "fixed":
        return None
    relative = _log_scales(scale, graph) - scale.log_mean
    bound = np.log(RHO_BOUND)
    return np.exp(np.clip(relative, -bound, bound))


def _log_scales(scale: LocalScale, graph: DistanceGraph) -> NDArray[np.float64]:
    if scale.kind == "neighbor":
        return np.log(np.maximum(_neighbor_scales(graph), scale.floor))
    assert scale.log_weight is not None
    log_k = log_affinity(graph, epsilon=scale.epsilon)
    density = row_log_sums(log_k, scale.log_weight)
    # Where nothing is near the density is 0; the bound takes care of it.
    return scale.exponent * np.maximum(density, -700.0)


def _neighbor_scales(graph: DistanceGraph) -> NDArray[np.float64]:
    distances = graph.distances if graph.listed is None else graph.listed
    return neighbor_scales(distances, LOCAL_NEIGHBOR)
