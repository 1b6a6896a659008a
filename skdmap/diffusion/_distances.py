"""Pairs of rows in, distances out, right to the last digits even for close rows far from 0."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.metrics import pairwise_distances
from sklearn.metrics.pairwise import PAIRWISE_BOOLEAN_FUNCTIONS

__all__ = ["canonical_metric", "paired_distances", "pairwise"]

Metric = str | Callable[..., float]

# Below this many columns differences are as fast as a matrix product, and exact.
_FEW_COLUMNS = 16
# A pair closer than this share of its squared norms is computed again from differences:
# |x|^2 + |y|^2 - 2xy has lost five digits there.
_CANCELLATION = 1e-5
_BLOCK = 2**22

_ALIASES = {"l2": "euclidean", "l1": "manhattan", "cityblock": "manhattan", "p": "minkowski"}


def canonical_metric(
    metric: Metric, params: Mapping[str, Any] | None, X: Any, weight: NDArray[np.float64]
) -> tuple[Metric, dict[str, Any]]:
    """Return one name per metric, with what it would otherwise estimate anew from each batch.

    Parameters
    ----------
    metric : str or callable
        A name of scikit-learn's neighbours.
    params : mapping or None
        Its keyword arguments.
    X : {ndarray, csr_matrix} of shape (n_samples, n_features)
        Training rows: "seuclidean" and "mahalanobis" take their (weighted) variances from them.
    weight : ndarray of shape (n_samples,)
        Sums to 1.

    Returns
    -------
    metric : str or callable
    params : dict
    """
    kept = dict(params or {})
    if callable(metric):
        return metric, kept
    name = "chebyshev" if metric == "infinity" else _ALIASES.get(metric, metric)
    if name == "minkowski" and kept.get("w") is None:
        order = kept.get("p", 2)
        simple = {1: "manhattan", 2: "euclidean", np.inf: "chebyshev"}.get(order)
        if simple is not None:
            return simple, {}
    if name == "seuclidean" and "V" not in kept:
        kept["V"] = _covariance(X, weight, diagonal=True)
    if name == "mahalanobis" and not {"V", "VI"} & set(kept):
        kept["VI"] = np.linalg.pinv(np.atleast_2d(_covariance(X, weight, diagonal=False)))
    elif name == "mahalanobis" and "VI" not in kept:
        kept["VI"] = np.linalg.inv(kept.pop("V"))
    return name, kept


def _covariance(X: Any, weight: NDArray[np.float64], *, diagonal: bool) -> NDArray[np.float64]:
    rows = np.asarray(X, dtype=np.float64)
    centred = rows - weight @ rows
    return weight @ centred**2 if diagonal else (centred * weight[:, None]).T @ centred


def pairwise(
    X: Any, Y: Any, metric: Metric, params: Mapping[str, Any], *, n_jobs: int | None = None
) -> NDArray[np.float64]:
    """Distances between the rows of ``X`` and of ``Y``.

    Parameters
    ----------
    X : {ndarray, csr_matrix} of shape (n, n_features)
        Rows.
    Y : {ndarray, csr_matrix} of shape (m, n_features)
        Rows; for "euclidean" the matrix product is taken about their mean. ``Y is X`` gives an
        exactly symmetric matrix with zeros on the diagonal.
    metric : str or callable
        As ``canonical_metric`` returns it.
    params : mapping
        Its keyword arguments.
    n_jobs : int or None, default=None
        For metrics that scikit-learn computes.

    Returns
    -------
    ndarray of shape (n, m), float64
    """
    if metric == "euclidean" and not params:
        distances = _euclidean(X, Y)
    elif metric == "manhattan" and not params and not sp.issparse(X) and not sp.issparse(Y):
        distances = cdist(_as_float64(X), _as_float64(Y), "cityblock")
    else:
        convert = _as_bool if metric in PAIRWISE_BOOLEAN_FUNCTIONS else _as_float64
        distances = pairwise_distances(
            convert(X), convert(Y), metric=metric, n_jobs=n_jobs, **params
        )
        distances = np.maximum(np.asarray(distances, dtype=np.float64), 0.0)
    if Y is X:
        # A callable may differ in the last digit between (x, y) and (y, x).
        distances = 0.5 * (distances + distances.T) if callable(metric) else distances
        np.fill_diagonal(distances, 0.0)
    return distances


def _as_float64(X: Any) -> Any:
    return X.astype(np.float64) if sp.issparse(X) else np.asarray(X, dtype=np.float64)


def _as_bool(X: Any) -> Any:
    return X.astype(bool)


def _euclidean(X: Any, Y: Any) -> NDArray[np.float64]:
    if X.shape[1] <= _FEW_COLUMNS and not sp.issparse(X) and not sp.issparse(Y):
        return cdist(_as_float64(X), _as_float64(Y))
    if sp.issparse(X) or sp.issparse(Y):
        left, right = sp.csr_matrix(X, dtype=np.float64), sp.csr_matrix(Y, dtype=np.float64)
        product = (left @ right.T).toarray()
        x2 = np.asarray(left.multiply(left).sum(axis=1)).reshape(-1)
        y2 = np.asarray(right.multiply(right).sum(axis=1)).reshape(-1)
    else:
        product, x2, y2 = _gram(X, Y)
    squared = product
    squared *= -2.0
    squared += x2[:, None]
    squared += y2[None, :]
    rows, columns = _cancelled(squared, x2, y2)
    np.maximum(squared, 0.0, out=squared)
    distances = np.sqrt(squared, out=squared)
    step = max(1, _BLOCK // X.shape[1])
    for start in range(0, rows.size, step):
        part = slice(start, start + step)
        distances[rows[part], columns[part]] = paired_distances(X[rows[part]], Y[columns[part]])
    return distances


def _cancelled(
    squared: NDArray[np.float64], x2: NDArray[np.float64], y2: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    rows, columns = [], []
    step = max(1, _BLOCK // y2.size)
    for start in range(0, x2.size, step):
        part = slice(start, start + step)
        close = squared[part] < _CANCELLATION * (x2[part, None] + y2[None, :])
        i, j = np.nonzero(close)
        rows.append(i + start)
        columns.append(j)
    return np.concatenate(rows), np.concatenate(columns)


def _gram(
    X: NDArray[np.floating], Y: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Product and squared norms about the mean of ``Y``, in float64, by blocks of columns."""
    n, m = X.shape[0], Y.shape[0]
    product = np.zeros((n, m))
    x2, y2 = np.zeros(n), np.zeros(m)
    width = max(1, _BLOCK // max(n, m))
    for start in range(0, X.shape[1], width):
        right = np.array(Y[:, start : start + width], dtype=np.float64)
        centre = right.mean(axis=0)
        right -= centre
        if Y is X:
            left = right
        else:
            left = np.array(X[:, start : start + width], dtype=np.float64)
            left -= centre
        product += left @ right.T
        x2 += np.einsum("ij,ij->i", left, left)
        y2 += np.einsum("ij,ij->i", right, right)
    return product, x2, y2


def paired_distances(X: Any, Y: Any) -> NDArray[np.float64]:
    """Euclidean distance between row i of ``X`` and row i of ``Y``, from differences."""
    difference = _as_float64(X) - _as_float64(Y)
    if sp.issparse(difference):
        return np.sqrt(np.asarray(difference.multiply(difference).sum(axis=1)).reshape(-1))
    return np.sqrt(np.einsum("ij,ij->i", difference, difference))
