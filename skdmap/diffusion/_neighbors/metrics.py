"""Metrics: their names and parameters, and distances right to the last digits.

Any metric of scikit-learn works through ``_general``. A metric that is computed here is a function
of two blocks of samples with an entry in ``_COMPUTED_HERE``; if it is a Minkowski distance, its
order in ``MINKOWSKI_ORDERS`` lets k-d trees search it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.metrics import DistanceMetric, pairwise_distances
from sklearn.metrics.pairwise import PAIRWISE_BOOLEAN_FUNCTIONS
from sklearn.neighbors import VALID_METRICS_SPARSE

from skdmap.diffusion._validation import ASYMMETRY, SELF_DISTANCE
from skdmap.diffusion._wide.column_reader import WideRows
from skdmap.diffusion._wide.distances import cross_distances
from skdmap.diffusion._wide.row_hashing import row_hashes

Metric = str | Callable[..., float]
# Below this many columns differences are as fast as a matrix product, and exact.
_FEW_COLUMNS = 16
# A pair closer than this share of its squared norms is computed again from differences:
# |x|^2 + |y|^2 - 2xy has lost five digits there.
_CANCELLATION = 1e-5
_BLOCK = 2**22
# Known to scikit-learn's trees, but not to its pairwise_distances.
_ONLY_TREES = {"pyfunc", "sokalmichener"} - set(PAIRWISE_BOOLEAN_FUNCTIONS)
_SPARSE_METRICS = set(VALID_METRICS_SPARSE["brute"]) - {"precomputed"}
_ALIASES = {"l2": "euclidean", "l1": "manhattan", "cityblock": "manhattan", "p": "minkowski"}
# So many times farther than the training samples spread, only the direction of a sample counts:
# squares of distances lose the differences between training samples, and overflow in the end.
_BEYOND = 2.0**26
# In the taxicab metric differences never get small beside each other; they lose digits slower.
_BEYOND_TAXICAB = 2.0**20
MINKOWSKI_ORDERS = {"euclidean": 2.0, "manhattan": 1.0, "chebyshev": np.inf}


def canonical_metric(
    metric: Metric, params: Mapping[str, Any] | None, X: Any, weight: NDArray[np.float64]
) -> tuple[Metric, dict[str, Any]]:
    """One name per metric, and its parameters, variances from the training samples included.
    The weights (n_samples,) sum to 1; "seuclidean" would else estimate anew from each batch.
    """
    kept = dict(params or {})
    if callable(metric):
        _check_callable(metric, kept, X)
        return metric, kept
    name = "chebyshev" if metric == "infinity" else _ALIASES.get(metric, metric)
    if name == "pyfunc" and "func" not in kept:
        raise ValueError(
            f"metric='pyfunc' needs a function, but metric_params={params}. Pass "
            "metric_params={'func': f}, or pass the function as metric."
        )
    if sp.issparse(X) and name not in _SPARSE_METRICS | {"minkowski"}:
        raise ValueError(
            f"metric={metric!r} does not accept sparse X. Pass X.toarray(), or use one of "
            f"{sorted(_SPARSE_METRICS)}."
        )
    _check_params(name, kept, X)
    if name == "minkowski" and kept.get("w") is None:
        order = kept.get("p", 2)
        simple = {1: "manhattan", 2: "euclidean", np.inf: "chebyshev"}.get(order)
        if simple in {"manhattan", "euclidean"} or (simple and not sp.issparse(X)):
            return simple, {}
    if name == "minkowski" and sp.issparse(X):
        raise ValueError(
            f"metric='minkowski' with metric_params={kept} does not accept sparse X, for which p "
            "must be 1 or 2. Pass X.toarray()."
        )
    if name == "seuclidean" and "V" not in kept:
        kept["V"] = _covariance(X, weight, diagonal=True)
    if name == "mahalanobis" and not {"V", "VI"} & set(kept):
        kept["VI"] = np.linalg.pinv(np.atleast_2d(_covariance(X, weight, diagonal=False)))
    elif name == "mahalanobis" and "VI" not in kept:
        kept["VI"] = np.linalg.inv(kept.pop("V"))
    return name, kept


def _check_params(metric: Metric, params: Mapping[str, Any], X: Any) -> None:
    """Raise ValueError where a metric does not take its keyword arguments, tried on two samples."""
    known = {"minkowski": {"p", "w"}, "euclidean": set()}.get(str(metric))
    unknown = set(params) - known if known is not None else set()
    message = f"unknown {', '.join(map(repr, sorted(unknown)))}" if unknown else ""
    if params and not message and not sp.issparse(X):
        try:
            pairwise(X[:2], X[:2], metric, params)
        except TypeError as error:
            message = str(error)
    if message:
        raise ValueError(
            f"metric_params={dict(params)} is not valid for metric={metric!r}: {message}. Pass "
            "only keyword arguments of this metric."
        )


def _check_callable(
    metric: Callable[..., float], params: Mapping[str, Any], X: Any, n_rows: int = 5
) -> None:
    """Raise ValueError where a function of two samples is not a distance, tried on a few."""
    rows = X[:n_rows].toarray() if sp.issparse(X) else np.asarray(X[:n_rows], dtype=np.float64)
    try:
        values = np.array([[metric(a, b, **params) for b in rows] for a in rows], dtype=float)
    except TypeError as error:
        raise ValueError(
            f"metric={metric!r} with metric_params={dict(params)} fails: {error}. It must accept "
            "two samples and the keyword arguments, and return a number."
        ) from error
    scale = np.abs(values).max()
    wrong = ""
    if not np.isfinite(scale):
        wrong = "a value that is not finite"
    elif values.min() < 0:
        wrong = f"{values.min():g} for two samples; it must be >= 0"
    elif np.abs(np.diagonal(values)).max() > SELF_DISTANCE * scale:
        wrong = f"{np.diagonal(values).max():g} for a sample and itself; it must be 0"
    elif np.abs(values - values.T).max() > ASYMMETRY * scale:
        wrong = "different values for (x, y) and (y, x); it must be symmetric"
    if wrong:
        raise ValueError(f"metric={metric!r} gives {wrong}. Pass a distance, not a similarity.")


def _covariance(X: Any, weight: NDArray[np.float64], *, diagonal: bool) -> NDArray[np.float64]:
    rows = np.asarray(X, dtype=np.float64)
    centred = rows - weight @ rows
    return weight @ centred**2 if diagonal else (centred * weight[:, None]).T @ centred


def nan_euclidean(X: NDArray[np.floating], Y: NDArray[np.floating]) -> NDArray[np.floating]:
    """Distances (n, m) between samples with missing values (nan): scikit-learn's nan_euclidean."""
    distances = pairwise_distances(X, Y, metric="nan_euclidean")
    undefined = np.argwhere(np.isnan(distances))
    if undefined.size:
        i, j = undefined[0]
        raise ValueError(
            f"X: sample {i} and training sample {j} have no feature in which both have a value, so "
            f"their distance with metric='nan_euclidean' is undefined ({len(undefined)} such "
            "pairs). Drop such samples, or impute missing values."
        )
    return distances.astype(X.dtype, copy=False)


def in_form_of(Z: Any, X: Any) -> Any:
    """New samples, sparse or dense as the training samples are."""
    if sp.issparse(X):
        return Z if sp.issparse(Z) else sp.csr_matrix(Z)
    if not sp.issparse(Z):
        return Z
    return WideRows(Z.tocsc()) if isinstance(X, WideRows) else Z.toarray()


def pairwise(
    X: Any, Y: Any, metric: Metric, params: Mapping[str, Any], *, n_jobs: int | None = None
) -> NDArray[np.float64]:
    """Distances (n, m) between samples; ``Y is X`` gives an exactly symmetric matrix."""
    if isinstance(Y, WideRows):
        if Y is X and Y.distances is not None:
            return Y.distances
        return cross_distances(X if isinstance(X, WideRows) else WideRows(X), Y)
    function = _COMPUTED_HERE.get(metric) if isinstance(metric, str) and not params else None
    sparse = sp.issparse(X) or sp.issparse(Y)
    if function is not None and not (sparse and metric != "euclidean"):
        distances = function(X, Y)
    else:
        convert = _as_bool if metric in PAIRWISE_BOOLEAN_FUNCTIONS else _as_float64
        left = convert(X)
        right = left if Y is X else convert(Y)
        distances = _general(left, right, metric, params, n_jobs)
    if Y is X:
        # A callable may differ in the last digit between (x, y) and (y, x).
        distances = 0.5 * (distances + distances.T) if callable(metric) else distances
        np.fill_diagonal(distances, 0.0)
    return distances


def _general(
    X: Any, Y: Any, metric: Metric, params: Mapping[str, Any], n_jobs: int | None
) -> NDArray[np.float64]:
    """Distances by scikit-learn; 0 between equal samples, whatever the metric says of them."""
    if metric in _ONLY_TREES:
        measure = DistanceMetric.get_metric(metric, **params)
        distances = measure.pairwise(_as_float64(X), _as_float64(Y))
    else:
        distances = pairwise_distances(X, Y, metric=metric, n_jobs=n_jobs, **params)
    distances = np.maximum(np.asarray(distances, dtype=np.float64), 0.0)
    # Russell-Rao and cosine put a sample away from itself, Bray-Curtis says 0 / 0; and a new sample
    # that equals a training sample must be where that one is.
    keys, others = row_hashes(X), row_hashes(Y)
    for row in np.flatnonzero(np.isin(keys, others)):
        distances[row, others == keys[row]] = 0.0
    bad = (~np.isfinite(distances)).sum(axis=1)
    if bad.any():
        raise ValueError(
            f"metric={metric!r} gives distances that are not finite, most of them ({bad.max()}) "
            f"for row {bad.argmax()} of X. Drop samples for which this metric is undefined "
            "(constant ones for 'correlation'), or use another metric."
        )
    return distances


def _as_float64(X: Any) -> Any:
    return X.astype(np.float64) if sp.issparse(X) else np.asarray(X, dtype=np.float64)


def _as_bool(X: Any) -> Any:
    return X.astype(bool)


def _manhattan(X: Any, Y: Any) -> NDArray[np.float64]:
    return cdist(_as_float64(X), _as_float64(Y), "cityblock")


def _euclidean(X: Any, Y: Any) -> NDArray[np.float64]:
    """By |x|^2 + |y|^2 - 2xy about the mean of Y; by differences in few columns and where close."""
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
    step = max(1, _BLOCK // y2.size)
    for start in range(0, x2.size, step):
        # The norms first: the sum does not depend on which row is which.
        squared[start : start + step] += x2[start : start + step, None] + y2[None, :]
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


# Metrics without parameters that are computed here; "manhattan" for dense samples only.
_COMPUTED_HERE: dict[str, Callable[[Any, Any], NDArray[np.float64]]] = {
    "euclidean": _euclidean,
    "manhattan": _manhattan,
}


def paired_distances(X: Any, Y: Any) -> NDArray[np.float64]:
    """Euclidean distance between row i of ``X`` and row i of ``Y``, from differences."""
    difference = _as_float64(X) - _as_float64(Y)
    if sp.issparse(difference):
        return np.sqrt(np.asarray(difference.multiply(difference).sum(axis=1)).reshape(-1))
    return np.sqrt(np.einsum("ij,ij->i", difference, difference))


def listed_distances(
    Z: NDArray[np.floating], X: NDArray[np.floating], indices: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Euclidean distances from row i of ``Z`` to the rows ``indices[i]`` of ``X``."""
    distances = np.empty(indices.shape)
    step = max(1, _BLOCK // (indices.shape[1] * X.shape[1]))
    for start in range(0, indices.shape[0], step):
        part = indices[start : start + step]
        left = np.repeat(Z[start : start + step], part.shape[1], axis=0)
        distances[start : start + step] = paired_distances(left, X[part.reshape(-1)]).reshape(
            part.shape
        )
    return distances


def stored_pair_distances(
    Z: Any, X: Any, pairs: sp.csr_matrix, metric: Metric, params: Mapping[str, Any]
) -> NDArray[np.float64]:
    """Distances of the pairs that a sparse pattern (n_rows, n_train) stores, in their order."""
    distances = np.empty(pairs.nnz)
    if params or metric not in tuple(MINKOWSKI_ORDERS):
        for i in range(pairs.shape[0]):
            part = slice(pairs.indptr[i], pairs.indptr[i + 1])
            if part.stop > part.start:
                columns = pairs.indices[part]
                distances[part] = pairwise(Z[i : i + 1], X[columns], metric, params)[0]
        return distances
    rows = np.repeat(np.arange(pairs.shape[0]), np.diff(pairs.indptr))
    step = max(1, _BLOCK // X.shape[1])
    for start in range(0, pairs.nnz, step):
        part = slice(start, start + step)
        left, right = _as_float64(Z[rows[part]]), _as_float64(X[pairs.indices[part]])
        if metric == "euclidean":
            distances[part] = paired_distances(left, right)
        else:
            difference = left - right
            difference = np.abs(difference.toarray() if sp.issparse(difference) else difference)
            combine = np.sum if metric == "manhattan" else np.max
            distances[part] = combine(difference, axis=1)
    return distances


class FarSamples:
    """Draws samples nearer that are too far away for distances to differ, by Minkowski order p."""

    def __init__(self, X: NDArray[np.floating], order: float) -> None:
        self.centre = np.mean(X, axis=0, dtype=np.float64)
        reach = np.maximum(np.max(X, axis=0) - self.centre, self.centre - np.min(X, axis=0))
        factor = _BEYOND_TAXICAB if order == 1 else _BEYOND
        self._limit, self._order = factor * float(np.max(reach)), order

    def drawn_near(self, Z: Any) -> Any:
        """The samples, those beyond the limit at the limit; the same object where none is."""
        size = np.abs(Z - self.centre).max(axis=1, keepdims=True)
        if not np.any(size > self._limit):
            return Z
        new = np.asarray(Z, dtype=np.float64) - self.centre
        if self._order == 1:
            # Column by column: what is beyond adds the same to all distances.
            near = np.clip(new, -self._limit, self._limit)
        else:
            near = new / np.maximum(size, self._limit) * self._limit
        return np.where(size > self._limit, near + self.centre, Z)


def far_samples(X: Any, metric: Metric, params: Mapping[str, Any]) -> FarSamples | None:
    """What draws new samples nearer, for dense samples and the metrics in MINKOWSKI_ORDERS."""
    known = isinstance(X, np.ndarray) and not params and metric in tuple(MINKOWSKI_ORDERS)
    return FarSamples(X, MINKOWSKI_ORDERS[str(metric)]) if known else None
