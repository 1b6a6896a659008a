"""Nyström extension: coordinates of new samples.

With transition probabilities p_j = k(y, x_j) w_j / g_j, normalised (q(y)^alpha has cancelled),

    psi(y) = sum_j p_j psi_j / lambda,   or  / (1 - eps mu rho(y)^2)  where the bandwidth varies,

so that the coordinates lambda^t psi(y) of a training sample are those of the fit. See Bengio et al.
2004, doi:10.1162/0899766041732396, and Coifman & Lafon 2006, doi:10.1016/j.acha.2005.07.005.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap._threads import one_thread
from skdmap.diffusion._eigenfunctions import Eigenfunctions, extension_factors, near_pole
from skdmap.diffusion._kernel import (
    GaussianKernel,
    bandwidth_scales,
    gaussian_affinity,
    largest_in_rows,
    log_affinity,
    log_gaussian,
    segment_reduce,
)
from skdmap.diffusion._markov import MarkovFit
from skdmap.diffusion._neighbors.graph import DistanceGraph, NeighborIndex, kth_listed

_BLOCK = 2**22
# Rows of sparse graphs at once: their pairs stay small enough for memory to be used again.
_SPARSE_ROWS = 2**13
# Log of the largest kernel value of a new sample that counts as far from the training samples.
FAR = float(np.log(1e-14))
# Sums of a kernel below this are taken by logarithms.
_SMALLEST = 1e-200


@dataclass(frozen=True)
class NystromExtension:
    """What the extension needs of a fit."""

    index: NeighborIndex
    kernel: GaussianKernel
    # (n_train,) log(w_j / g_j); -inf for samples not included.
    log_column_weight: NDArray[np.float64]
    # (n_train, k) psi.
    eigenfunctions: NDArray[np.floating]
    # (k,) Eigenvalues of the symmetric form.
    theta: NDArray[np.float64]
    # (k,) lambda^t.
    powers: NDArray[np.float64]


@dataclass(frozen=True)
class Extended:
    """What the extension gives for new samples."""

    # (n_rows, k) lambda^t psi.
    coordinates: NDArray[np.float64]
    # (n_rows,) Whether every kernel value over the training samples included is below 1e-14, of
    # a given kernel of its largest; not where that has none, and coordinates are nan.
    is_far: NDArray[np.bool_]
    # (n_rows,) Whether a coordinate is divided by almost 0.
    near_pole: NDArray[np.bool_]


def nystrom_extension(
    index: NeighborIndex,
    kernel: GaussianKernel,
    markov: MarkovFit,
    functions: Eigenfunctions,
    powers: NDArray[np.float64],
) -> NystromExtension:
    """Collect what new samples need; training samples of negligible mass weigh nothing."""
    psi = np.zeros((markov.labels.size, functions.theta.size))
    psi[markov.kept] = functions.psi
    column_weight = markov.log_column_weight.copy()
    column_weight[markov.kept[functions.negligible]] = -np.inf
    return NystromExtension(index, kernel, column_weight, psi, functions.theta, powers)


def extend(extension: NystromExtension, Z: Any) -> Extended:
    """Extend the coordinates to new samples Z, or to their distances to the training samples."""
    n_train = extension.log_column_weight.size
    index = extension.index
    step = max(1, _BLOCK // n_train) if index.n_neighbors is None else _SPARSE_ROWS
    blocks = [Z[start : start + step] for start in range(0, Z.shape[0], step)]
    parts = _each(partial(_extend_block, extension), blocks, index.n_threads)
    return Extended(
        coordinates=np.concatenate([part.coordinates for part in parts]),
        is_far=np.concatenate([part.is_far for part in parts]),
        near_pole=np.concatenate([part.near_pole for part in parts]),
    )


def _each(work: Callable[[Any], Extended], blocks: list[Any], n_threads: int) -> list[Extended]:
    """Apply ``work`` to each block, on several threads; BLAS starts none of its own then."""
    if n_threads == 1 or len(blocks) == 1:
        return [work(block) for block in blocks]
    with (
        one_thread(),
        ThreadPoolExecutor(min(n_threads, len(blocks))) as pool,
    ):
        return list(pool.map(work, blocks))


def _extend_block(extension: NystromExtension, Z: Any) -> Extended:
    graph = extension.index.query(Z)
    rho = bandwidth_scales(extension.kernel, graph)
    if graph.is_sparse:
        mean, nearest = _sparse_mean(extension, Z, graph, rho)
    else:
        mean, log_k = _mean_by_logarithms(extension, graph, rho)
        counted = np.isfinite(extension.log_column_weight)
        if sp.issparse(log_k):
            nearest = largest_in_rows(log_k, counted)
        else:
            nearest = log_k.max(axis=1, initial=-np.inf, where=counted[None, :])
        nearest = nearest - extension.kernel.log_largest
    pole = np.zeros(len(mean), dtype=bool)
    scale = rho if extension.kernel.is_generator else None
    if scale is not None:
        pole = np.any(near_pole(extension.theta, scale), axis=1)
    factors = extension_factors(extension.theta, scale, extension.powers)
    far = nearest < FAR
    if extension.kernel.kind == "given":
        far &= np.isfinite(nearest)
    return Extended(mean * factors, far, pole)


def _mean_by_logarithms(
    extension: NystromExtension, graph: DistanceGraph, rho: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], Any]:
    """sum_j p_j psi_j, however small the kernel is, and its logarithms."""
    log_k = log_affinity(
        graph,
        epsilon=extension.kernel.epsilon,
        row_scale=rho,
        column_scale=extension.kernel.train_scale,
    )
    logits = _with_column_weight(log_k, extension.log_column_weight)
    return _softmax_mean(logits, extension.eigenfunctions), log_k


def _sparse_mean(
    extension: NystromExtension,
    Z: Any,
    graph: DistanceGraph,
    rho: NDArray[np.float64] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """sum_j p_j psi_j, and the log of the largest Gaussian of each row."""
    log_weight = extension.log_column_weight
    kernel = gaussian_affinity(
        graph,
        epsilon=extension.kernel.epsilon,
        row_scale=rho,
        column_scale=extension.kernel.train_scale,
    )
    weight = np.exp(log_weight - log_weight.max())
    kernel.data *= weight[kernel.indices]
    total = kernel @ np.ones(weight.size)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (kernel @ extension.eigenfunctions) / total[:, None]
    nearest = _largest_gaussian(extension, graph, rho)
    small = np.flatnonzero(total < _SMALLEST)
    far = np.flatnonzero(nearest < FAR)
    if extension.kernel.kind == "local" and far.size:
        assert rho is not None
        # A training sample that is not included is near itself.
        own = _largest_gaussian(extension, graph.some_rows(far), rho[far], included=False)
        far = far[own < FAR]
        mean[far] = _mean_of_nearest(extension, graph.some_rows(far), rho[far])
        small = np.setdiff1d(small, far[np.isfinite(mean[far, 0])])
    if small.size:
        inner = rho if rho is None else rho[small]
        mean[small] = _mean_by_logarithms(extension, graph.some_rows(small), inner)[0]
        # Every pair is at the cut-off, or with a sample that is not included in the fit.
        lost = small[np.isnan(mean[small, 0])]
        bare = _bare_logits(extension, graph, rho) if lost.size else None
        block = max(1, _BLOCK // weight.size)
        for start in range(0, lost.size, block):
            rows = lost[start : start + block]
            mean[rows] = _mean_without_cutoff(extension, Z[rows], rho, rows, bare)
    return mean, nearest


def _mean_of_nearest(
    extension: NystromExtension, graph: DistanceGraph, rho: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The mean over the n_neighbors + 1 nearest of far samples; nan where none is included.
    Seen from afar all are equally far, and the longest of all local bandwidths would decide.
    """
    stored, n_neighbors = _stored(graph), extension.index.n_neighbors
    assert n_neighbors is not None
    radii = np.repeat(kth_listed(stored, n_neighbors + 1), np.diff(stored.indptr))
    scales = {"row_scale": rho, "column_scale": extension.kernel.train_scale}
    cut = log_affinity(graph, epsilon=extension.kernel.epsilon, **scales)
    mean = np.full((rho.size, extension.theta.size), np.nan)
    # Where every pair is at the cut-off, nothing is subtracted.
    for log_k in (cut, _bare_logits(extension, graph, rho)):
        open_ = np.isnan(mean[:, 0])
        log_k.data[stored.data > radii] = -np.inf
        logits = _with_column_weight(log_k, extension.log_column_weight)
        mean[open_] = _softmax_mean(logits, extension.eigenfunctions)[open_]
    return mean


def _with_column_weight(log_k: Any, log_weight: NDArray[np.float64]) -> Any:
    if not sp.issparse(log_k):
        return log_k + log_weight[None, :]
    data = log_k.data + log_weight[log_k.indices]
    return sp.csr_matrix((data, log_k.indices, log_k.indptr), shape=log_k.shape)


def _largest_gaussian(
    extension: NystromExtension,
    graph: DistanceGraph,
    rho: NDArray[np.float64] | None,
    *,
    included: bool = True,
) -> NDArray[np.float64]:
    """Log of the largest Gaussian of each row, over the training samples included, or over all."""
    counted = np.isfinite(extension.log_column_weight) | (not included)
    if rho is not None or not counted.all():
        return largest_in_rows(_bare_logits(extension, graph, rho), counted)
    stored = _stored(graph)
    least = segment_reduce(np.minimum, stored.data, stored.indptr, np.inf)
    return np.asarray(log_gaussian(least, epsilon=extension.kernel.epsilon))


def _bare_logits(
    extension: NystromExtension, graph: DistanceGraph, rho: NDArray[np.float64] | None
) -> sp.csr_matrix:
    """Log of the Gaussian of all stored distances, nothing subtracted at the cut-off."""
    return log_gaussian(
        _stored(graph),
        epsilon=extension.kernel.epsilon,
        row_scale=rho,
        column_scale=extension.kernel.train_scale,
    )


def _stored(graph: DistanceGraph) -> sp.csr_matrix:
    return graph.distances if graph.listed is None else graph.listed


def _softmax_mean(logits: Any, psi: NDArray[np.floating]) -> NDArray[np.float64]:
    """sum_j p_j psi_j (n_rows, k), p the softmax of the logits; nan where none is finite."""
    with np.errstate(invalid="ignore", divide="ignore"):
        if not sp.issparse(logits):
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            return (weights @ psi) / weights.sum(axis=1)[:, None]
        top = segment_reduce(np.maximum, logits.data, logits.indptr, -np.inf)
        top[~np.isfinite(top)] = 0.0
        data = np.exp(logits.data - np.repeat(top, np.diff(logits.indptr)))
        total = segment_reduce(np.add, data, logits.indptr, 0.0)
        weights = sp.csr_matrix((data, logits.indices, logits.indptr), shape=logits.shape)
        return np.asarray((weights @ psi) / total[:, None])


def _mean_without_cutoff(
    extension: NystromExtension,
    Z: Any,
    rho: NDArray[np.float64] | None,
    rows: NDArray[np.intp],
    bare: sp.csr_matrix,
) -> NDArray[np.float64]:
    """The same by the bare Gaussian over all training samples, or over all stored distances."""
    distances = extension.index.all_distances(Z)
    if distances is None:
        log_k: Any = bare[rows]
    else:
        log_k = log_affinity(
            DistanceGraph(distances),
            epsilon=extension.kernel.epsilon,
            row_scale=None if rho is None else rho[rows],
            column_scale=extension.kernel.train_scale,
        )
    logits = _with_column_weight(log_k, extension.log_column_weight)
    # 0, the mean of every coordinate, where none of these samples is included in the fit.
    return np.nan_to_num(_softmax_mean(logits, extension.eigenfunctions))
