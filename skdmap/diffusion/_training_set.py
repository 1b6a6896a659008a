"""What the user passes in, distinct training rows and how to measure them out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from skdmap.diffusion._neighbors.factory import SearchSettings
from skdmap.diffusion._neighbors.metrics import Metric, canonical_metric
from skdmap.diffusion._unique_rows import (
    DistinctRows,
    distinct_rows,
    in_local_order,
    merge_zero_distances,
    separate_rows,
)
from skdmap.diffusion._validation import check_distances, check_n_components, check_sample_weight
from skdmap.diffusion._wide.column_reader import WideRows
from skdmap.diffusion._wide.distances import own_distances, with_pivots

# Of so many wide rows the matrix of all distances (2 GB) is held while neighbours are found; of
# more, some rows of it at a time, each time with a pass over X.
_GRAM_ROWS = 2**14
# From here on the order of rows in memory decides what their graph costs; a tree of so many columns
# takes a hundredth of it.
_ORDERED_ROWS, _ORDERED_COLUMNS = 5000, 15


@dataclass(frozen=True)
class TrainingInput:
    """Rows of a fit.

    Attributes
    ----------
    rows : DistinctRows
        Which rows stand for all.
    everything : {ndarray, csr_matrix, WideRows} of shape (n_samples, n_columns)
        All rows, or their distances to the training rows.
    train : {ndarray, csr_matrix, WideRows} of shape (n_train, n_features) or (n_train, n_train)
        Distinct rows of positive weight, or their distances.
    settings : SearchSettings
        How distances are measured.
    """

    rows: DistinctRows
    everything: Any
    train: Any
    settings: SearchSettings


def training_input(
    X: Any,
    sample_weight: ArrayLike | None,
    *,
    n_components: int,
    metric: Metric,
    metric_params: Mapping[str, Any] | None,
    algorithm: Any,
    n_jobs: int | None,
    seed: int,
) -> TrainingInput:
    """Check the rows of a fit and merge equal ones.

    Parameters
    ----------
    X : {ndarray, csr_matrix, WideRows} of shape (n_samples, n_features) or (n_samples, n_samples)
        Finite; wide rows are read here.
    sample_weight : array-like of shape (n_samples,) or None
        Non-negative.
    n_components : int
        Must be below the number of distinct rows.
    metric, metric_params, algorithm, n_jobs : object
        As in ``DiffusionMap``.
    seed : int
        Of an approximate index.

    Returns
    -------
    TrainingInput

    Raises
    ------
    ValueError
        If weights, distances or the number of distinct rows are out of range.
    """
    weight = check_sample_weight(sample_weight, X.shape[0])
    precomputed = isinstance(metric, str) and metric == "precomputed"
    distances = None
    if isinstance(X, WideRows):
        check_n_components(n_components, X.shape[0])
        X, distances, rows = _read_wide(X, weight)
    elif not precomputed:
        rows = distinct_rows(X, weight)
        if _is_worth_ordering(X, rows.index.size):
            rows = in_local_order(rows, X)
    else:
        check_distances(X)
        rows = separate_rows(weight) if sp.issparse(X) else merge_zero_distances(X, weight)
    if rows.index.size < 2:
        raise ValueError(
            f"X has n_samples = {X.shape[0]}, but {rows.index.size} distinct row of positive "
            "weight; a diffusion map needs at least 2. Is X constant?"
        )
    check_n_components(n_components, rows.index.size)
    whole = rows.index.size == X.shape[0]
    ordered = whole and not np.any(np.diff(rows.index) < 0)
    train = X if ordered else X[rows.index]
    if distances is not None:
        chosen = distances if whole else distances[np.ix_(rows.index, rows.index)]
        train = train.with_distances(chosen)
    params: dict[str, Any] = {}
    if precomputed:
        train = columns_of(train, rows)
    else:
        metric, metric_params = _own_metric(algorithm, metric, metric_params)
        metric, params = canonical_metric(metric, metric_params, train, rows.weight)
    everything = columns_of(X, rows) if precomputed else X
    settings = SearchSettings(metric, params, algorithm, n_jobs, seed)
    return TrainingInput(rows, everything, train, settings)


def _is_worth_ordering(X: Any, n_rows: int) -> bool:
    few = isinstance(X, np.ndarray) and X.shape[1] <= _ORDERED_COLUMNS
    return few and n_rows > _ORDERED_ROWS


def _read_wide(
    X: WideRows, weight: NDArray[np.float64]
) -> tuple[WideRows, NDArray[np.float64] | None, DistinctRows]:
    """Read wide rows once: their frame, their distances if they fit, and which are equal."""
    if len(X) <= _GRAM_ROWS:
        X, distances = own_distances(X)
        return X, distances, merge_zero_distances(distances, weight)
    X, _ = with_pivots(X, gram=False)
    return X, None, distinct_rows(X, weight)


def _own_metric(
    algorithm: Any, metric: Metric, params: Mapping[str, Any] | None
) -> tuple[Metric, Mapping[str, Any] | None]:
    """Return the metric of a transformer that has one, else the one given."""
    own = None if isinstance(algorithm, str) else getattr(algorithm, "metric", None)
    if own is None:
        return metric, params
    kept = dict(getattr(algorithm, "metric_params", None) or {})
    if isinstance(own, str) and own == "minkowski":
        kept.setdefault("p", getattr(algorithm, "p", 2))
    return own, kept


def columns_of(distances: Any, rows: DistinctRows) -> Any:
    """Return the distances to the training rows, of those to all rows of the fit."""
    return distances if rows.index.size == distances.shape[1] else distances[:, rows.index]
