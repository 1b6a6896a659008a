"""What the user passes in, distinct training rows and how to measure them out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import scipy.sparse as sp
from numpy.typing import ArrayLike

from skdmap.diffusion._checks import (
    check_distances,
    check_n_components,
    check_sample_weight,
)
from skdmap.diffusion._distances import Metric, canonical_metric
from skdmap.diffusion._rows import (
    DistinctRows,
    distinct_rows,
    merge_zero_distances,
    separate_rows,
)
from skdmap.diffusion._search import SearchSettings

__all__ = ["TrainingInput", "check_together", "columns_of", "training_input"]


@dataclass(frozen=True)
class TrainingInput:
    """Rows of a fit.

    Attributes
    ----------
    rows : DistinctRows
        Which rows stand for all.
    train : {ndarray, csr_matrix} of shape (n_train, n_features) or (n_train, n_train)
        Distinct rows of positive weight, or their distances.
    settings : SearchSettings
        How distances are measured.
    """

    rows: DistinctRows
    train: Any
    settings: SearchSettings


def check_together(
    *, bandwidth: Any, bandwidth_exponent: float, metric: Any, neighbors_algorithm: Any
) -> None:
    """Raise where two parameters exclude each other.

    Parameters
    ----------
    bandwidth, bandwidth_exponent, metric, neighbors_algorithm : object
        As in ``DiffusionMap``.

    Raises
    ------
    ValueError
        Names both.
    """
    if isinstance(bandwidth, str) and bandwidth == "local" and bandwidth_exponent != 0:
        raise ValueError(
            f"bandwidth_exponent={bandwidth_exponent} must be 0 with bandwidth='local', which "
            "varies by itself. Use a number or 'auto' with an exponent."
        )
    searches = not isinstance(neighbors_algorithm, str) or neighbors_algorithm == "pynndescent"
    if isinstance(metric, str) and metric == "precomputed" and searches:
        raise ValueError(
            f"neighbors_algorithm={neighbors_algorithm!r} must be 'auto' or 'exact' with "
            "metric='precomputed': there are no rows to search."
        )


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
    X : {ndarray, csr_matrix} of shape (n_samples, n_features) or (n_samples, n_samples)
        Finite.
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
    if not precomputed:
        rows = distinct_rows(X, weight)
    else:
        check_distances(X)
        rows = separate_rows(weight) if sp.issparse(X) else merge_zero_distances(X, weight)
    if rows.index.size < 2:
        raise ValueError(
            f"X has n_samples = {X.shape[0]}, but {rows.index.size} distinct row of positive "
            "weight; a diffusion map needs at least 2. Is X constant?"
        )
    check_n_components(n_components, rows.index.size)
    train = X if rows.index.size == X.shape[0] else X[rows.index]
    params: dict[str, Any] = {}
    if precomputed:
        train = columns_of(train, rows)
    else:
        metric, metric_params = _own_metric(algorithm, metric, metric_params)
        metric, params = canonical_metric(metric, metric_params, train, rows.weight)
    return TrainingInput(rows, train, SearchSettings(metric, params, algorithm, n_jobs, seed))


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
