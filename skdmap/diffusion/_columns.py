"""Columns of X in, what fixes a sign out: covariances with functions, and an order of the rows."""

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

__all__ = ["column_covariances", "lexicographic_order"]

_BLOCK = 2**22
_ORDER_COLUMNS = 16


def column_covariances(
    X: Any,
    kept: NDArray[np.intp],
    stationary: NDArray[np.float64],
    weighted: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return covariances of functions with the columns of X, by blocks of columns.

    Parameters
    ----------
    X : {ndarray, csr_matrix} of shape (n_train, n_features)
        Training rows.
    kept : ndarray of shape (n_kept,)
        Those that take part.
    stationary : ndarray of shape (n_kept,)
        pi.
    weighted : ndarray of shape (n_kept, k)
        pi times the functions.

    Returns
    -------
    covariance : ndarray of shape (k, n_features)
    deviation : ndarray of shape (n_features,)
        Standard deviations of the columns.
    """
    covariance = np.empty((weighted.shape[1], X.shape[1]))
    deviation = np.empty(X.shape[1])
    total = weighted.sum(axis=0)
    width = max(1, _BLOCK // kept.size)
    for start in range(0, X.shape[1], width):
        part = X[:, start : start + width]
        part = part[kept] if kept.size < X.shape[0] else part
        part = part.toarray() if sp.issparse(part) else np.asarray(part)
        block = part.astype(np.float64)
        mean = stationary @ block
        block -= mean
        covariance[:, start : start + width] = weighted.T @ block
        covariance[:, start : start + width] -= np.outer(total, stationary @ block)
        deviation[start : start + width] = np.sqrt(stationary @ block**2)
    return covariance, deviation


def lexicographic_order(X: Any, kept: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the order of some rows by their first column, ties by the second, and so on.

    Parameters
    ----------
    X : {ndarray, csr_matrix} of shape (n_train, n_features)
        Training rows.
    kept : ndarray of shape (n_kept,)
        Those to order.

    Returns
    -------
    ndarray of shape (n_kept,)
        Positions in ``kept``; it looks at 16 columns.
    """
    part = X[:, :_ORDER_COLUMNS]
    part = part.toarray() if sp.issparse(part) else np.asarray(part)
    return np.lexsort(part[kept].T[::-1])
