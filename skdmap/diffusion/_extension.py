"""New rows in, coordinates out: the Nystroem extension.

With transition probabilities p_j = k(y, x_j) w_j / g_j, normalised (q(y)^alpha has cancelled),

    psi(y) = sum_j p_j psi_j / lambda,   or  / (1 - eps mu rho(y)^2)  where the bandwidth varies,

so that the coordinates lambda^t psi(y) of a training row are those of the fit. See Bengio et al.
2004, doi:10.1162/0899766041732396, and Coifman & Lafon 2006, doi:10.1016/j.acha.2005.07.005.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap.diffusion._graph import DistanceGraph, NeighborSearch
from skdmap.diffusion._kernel import log_affinity, nearest_log_gaussian, segment_reduce
from skdmap.diffusion._scale import LocalScale, scale_of_rows

__all__ = ["NystromExtension", "extend", "extension_denominators"]

_BLOCK = 2**22


@dataclass(frozen=True)
class NystromExtension:
    """What the extension needs of a fit.

    Attributes
    ----------
    search : NeighborSearch
        From new rows to distances.
    scale : LocalScale
        From distances to rho; holds eps.
    train_scale : ndarray of shape (n_train,) or None
        rho of the training rows.
    log_column_weight : ndarray of shape (n_train,)
        log(w_j / g_j); -inf for rows that take no part.
    eigenfunctions : ndarray of shape (n_train, k)
        psi.
    theta : ndarray of shape (k,)
        Eigenvalues of the symmetric form.
    factors : ndarray of shape (k,)
        lambda^t.
    """

    search: NeighborSearch
    scale: LocalScale
    train_scale: NDArray[np.float64] | None
    log_column_weight: NDArray[np.float64]
    eigenfunctions: NDArray[np.floating]
    theta: NDArray[np.float64]
    factors: NDArray[np.float64]


def extension_denominators(
    theta: NDArray[np.float64], scale: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """What divides P psi: lambda, or 1 - eps mu rho^2 = 1 - (1 - theta) rho^2 per row."""
    if scale is None:
        return theta
    return 1.0 - (1.0 - theta)[None, :] * scale[:, None] ** 2


def extend(extension: NystromExtension, Z: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Extend the coordinates to new rows.

    Parameters
    ----------
    extension : NystromExtension
        Of a fit.
    Z : {ndarray, csr_matrix} of shape (n_rows, n_features) or (n_rows, n_train)
        New rows, or their distances to the training rows.

    Returns
    -------
    coordinates : ndarray of shape (n_rows, k)
        lambda^t psi.
    log_kernel : ndarray of shape (n_rows,)
        Largest log of the Gaussian of each row over the training rows that take part: how near the
        nearest is.
    """
    n_train = extension.log_column_weight.size
    step = max(1, _BLOCK // n_train) if extension.search.n_neighbors is None else 2**14
    parts = [_extend_block(extension, Z[i : i + step]) for i in range(0, Z.shape[0], step)]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _extend_block(
    extension: NystromExtension, Z: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    graph = extension.search.graph(Z)
    rho = scale_of_rows(extension.scale, graph)
    log_k = log_affinity(
        graph,
        epsilon=extension.scale.epsilon,
        row_scale=rho,
        column_scale=extension.train_scale,
    )
    counted = np.isfinite(extension.log_column_weight)
    nearest = (
        nearest_log_gaussian(
            graph,
            counted,
            epsilon=extension.scale.epsilon,
            row_scale=rho,
            column_scale=extension.train_scale,
        )
        if graph.is_sparse
        else log_k.max(axis=1, initial=-np.inf, where=counted[None, :])
    )
    mean, lost = _weighted_mean(graph, log_k, extension)
    # All listed rows are ties at the cut-off, or take no part in the fit.
    block = max(1, _BLOCK // extension.log_column_weight.size)
    for start in range(0, lost.size, block):
        rows = lost[start : start + block]
        own = None if rho is None else rho[rows]
        mean[rows] = _mean_without_cutoff(extension, Z[rows], own, mean[rows])
    with np.errstate(divide="ignore", invalid="ignore"):
        psi_factor = extension.factors / extension_denominators(extension.theta, rho)
    return mean * np.nan_to_num(psi_factor, posinf=0.0, neginf=0.0), nearest


def _weighted_mean(
    graph: DistanceGraph, log_k: Any, extension: NystromExtension
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """sum_j p_j psi_j; the largest exponent is taken off first, so no row loses all its weight.

    Rows without a listed row that weighs anything are returned too.
    """
    psi = extension.eigenfunctions
    if not sp.issparse(log_k):
        logits = log_k + extension.log_column_weight[None, :]
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        return (logits @ psi) / logits.sum(axis=1)[:, None], np.empty(0, dtype=np.intp)
    logits = log_k.data + extension.log_column_weight[log_k.indices]
    top = segment_reduce(np.maximum, logits, log_k.indptr, -np.inf)
    lost = np.flatnonzero(~np.isfinite(top))
    for row in lost:
        part = slice(log_k.indptr[row], log_k.indptr[row + 1])
        squares = graph.distances.data[part] ** 2
        counted = np.isfinite(extension.log_column_weight[log_k.indices[part]])
        nearest = squares.min(initial=np.inf, where=counted)
        logits[part][counted] = (nearest - squares[counted]) / (4.0 * extension.scale.epsilon)
        top[row] = 0.0
    logits = np.exp(logits - np.repeat(top, np.diff(log_k.indptr)))
    total = segment_reduce(np.add, logits, log_k.indptr, 1.0)
    weights = sp.csr_matrix((logits, log_k.indices, log_k.indptr), shape=log_k.shape)
    return (weights @ psi) / np.where(total > 0, total, 1.0)[:, None], lost


def _mean_without_cutoff(
    extension: NystromExtension,
    Z: Any,
    rho: NDArray[np.float64] | None,
    listed: NDArray[np.float64],
) -> NDArray[np.float64]:
    """sum_j p_j psi_j by the Gaussian over all rows; ``listed`` where only lists are known."""
    distances = extension.search.all_distances(Z)
    if distances is None:
        return listed
    graph = DistanceGraph(distances)
    log_k = log_affinity(
        graph,
        epsilon=extension.scale.epsilon,
        row_scale=rho,
        column_scale=extension.train_scale,
    )
    return _weighted_mean(graph, log_k, extension)[0]
