"""Held-out rows in, log-likelihood of the kernel's density out: what ``score`` returns."""

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap.diffusion._extension import NystromExtension
from skdmap.diffusion._kernel import log_affinity, row_log_sums

__all__ = ["held_out_log_density"]

# Where a density is 0 in double precision; finite, so that a mean over rows stays finite.
_FLOOR = -1e200
_BLOCK = 2**22


def held_out_log_density(
    Z: Any,
    extension: NystromExtension,
    weight: NDArray[np.float64],
    *,
    dimension: float,
    spread: float,
) -> NDArray[np.float64]:
    """Return the log density of the kernel at new rows.

    Parameters
    ----------
    Z : {ndarray, csr_matrix} of shape (n_rows, n_features) or (n_rows, n_train)
        New rows, or their distances to the training rows.
    extension : NystromExtension
        Of a fit. Where the bandwidth varies, each training row has a length of its own and the new
        row none: the sample-point estimate.
    weight : ndarray of shape (n_train,)
        Sums to 1.
    dimension : float
        d of the normalisation h^-d (2 pi)^(-d/2).
    spread : float
        Unit of length.

    Returns
    -------
    ndarray of shape (n_rows,)
        log sum_j w_j k_j(z) / (h_j / spread)^d - (d / 2) log(2 pi); finite.
    """
    scale, rho = extension.scale, extension.train_scale
    log_h = 0.5 * np.log(2.0 * scale.epsilon) - np.log(spread)
    log_weight = np.log(weight)
    if rho is not None:
        log_weight = log_weight - dimension * np.log(rho)
    step = max(1, _BLOCK // weight.size) if extension.search.n_neighbors is None else 2**14
    parts = []
    for start in range(0, Z.shape[0], step):
        graph = extension.search.graph(Z[start : start + step])
        with np.errstate(over="ignore"):
            log_k = log_affinity(
                graph, epsilon=scale.epsilon, column_scale=None if rho is None else rho**2
            )
        parts.append(np.maximum(row_log_sums(_floored(log_k), log_weight), _FLOOR))
    return np.concatenate(parts) - dimension * (log_h + 0.5 * np.log(2.0 * np.pi))


def _floored(log_k: Any) -> Any:
    if sp.issparse(log_k):
        return sp.csr_matrix(
            (np.maximum(log_k.data, _FLOOR), log_k.indices, log_k.indptr), shape=log_k.shape
        )
    return np.maximum(log_k, _FLOOR, out=log_k)
