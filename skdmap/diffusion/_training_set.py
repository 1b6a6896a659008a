"""Training samples: checked, equal ones merged, with their weights and their metric."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from skdmap.diffusion._neighbors.affinities import (
    looks_like_affinities,
    looks_like_distances,
    symmetric_affinities,
    warn_affinities,
    warn_distances,
)
from skdmap.diffusion._neighbors.metrics import Metric, canonical_metric
from skdmap.diffusion._neighbors.search import SearchSettings
from skdmap.diffusion._unique_rows import (
    UniqueRows,
    in_local_order,
    merge_zero_distances,
    separate_rows,
    some_unique_rows,
    unique_distances,
    unique_rows,
)
from skdmap.diffusion._validation import (
    check_n_components,
    check_n_distinct,
    check_sample_weight,
    checked_distances,
    own_metric,
)
from skdmap.diffusion._wide.column_reader import WideRows
from skdmap.diffusion._wide.distances import own_distances, with_pivots

# Up to so many wide samples the matrix of all distances (2 GB) is held while neighbours are found;
# above, some rows of it at a time, each time with a pass over X.
_GRAM_ROWS = 2**14
# From this size on, the order of samples in memory decides what their graph costs; a tree of at
# most so many columns takes a hundredth of it.
_ORDERED_ROWS, _ORDERED_COLUMNS = 5000, 15


@dataclass(frozen=True)
class Landmarks:
    """Samples that stand for all others in a fit."""

    # (m, n_features) In single or double precision, as X.
    samples: Any
    # (m,) Number of samples nearest to each landmark, or the sum of their weights.
    weight: NDArray[np.float64]
    # (n_samples, n_features) All samples, not read yet where X is not in memory.
    represented: Any

    @property
    def array(self) -> Any:
        """The landmarks as an array, or as a sparse matrix."""
        return self.samples.source if isinstance(self.samples, WideRows) else self.samples


@dataclass(frozen=True)
class TrainingSet:
    """Samples of a fit."""

    # Unique samples of positive weight.
    rows: UniqueRows
    # All samples (n_samples, n_features), or their distances from or affinities to ``X``.
    all_samples: Any
    # Unique samples (n_train, n_features), or their distances or affinities (n_train, n_train).
    X: Any
    # How distances are measured and neighbours found.
    settings: SearchSettings
    # Unique samples that count as samples of weight 0.
    n_dropped: int = 0
    # None: the samples stand for themselves alone.
    landmarks: Landmarks | None = None

    @property
    def samples(self) -> Any:
        """Unique samples; None where only their distances are known."""
        return None if self.settings.metric == "precomputed" else self.X

    @property
    def noun(self) -> str:
        """What messages call the samples, whose numbers are those of landmarks then."""
        return "sample" if self.landmarks is None else "landmark"

    @property
    def has_stored_distances(self) -> bool:
        """Whether ``X`` is a sparse matrix of precomputed distances."""
        precomputed = self.settings.metric == "precomputed" and not self.settings.is_given
        return precomputed and sp.issparse(self.X)

    @property
    def weight(self) -> NDArray[np.float64]:
        """Weights of the unique samples (n_train,); they sum to 1."""
        return self.rows.weight

    def without(self, dropped: NDArray[np.intp]) -> "TrainingSet":
        """The same samples, some of the unique ones as samples of weight 0."""
        kept = np.setdiff1d(np.arange(self.weight.size), dropped)
        X, samples = self.X, self.all_samples
        if self.settings.metric == "precomputed":
            X, samples = X[kept][:, kept], samples[:, kept]
        else:
            known = getattr(X, "distances", None)
            X = X[kept]
            if known is not None:
                X = X.with_distances(known[np.ix_(kept, kept)])
        return replace(
            self,
            rows=some_unique_rows(self.rows, kept),
            all_samples=samples,
            X=X,
            n_dropped=self.n_dropped + dropped.size,
        )


def training_set(
    X: Any,
    sample_weight: ArrayLike | None,
    *,
    n_components: int,
    metric: Metric,
    metric_params: Mapping[str, Any] | None,
    algorithm: Any,
    n_jobs: int | None,
    seed: int,
    kernel: Any = "gaussian",
    landmarks: Landmarks | None = None,
) -> TrainingSet:
    """Check the samples of a fit and merge equal ones; wide samples are read here."""
    if landmarks is not None:
        X, sample_weight = landmarks.samples, landmarks.weight
    weight = check_sample_weight(sample_weight, X.shape[0])
    precomputed = isinstance(metric, str) and metric == "precomputed"
    distances = None
    if isinstance(X, WideRows):
        check_n_components(n_components, X.shape[0])
        X, distances, rows = _read_wide(X, weight)
    elif not precomputed:
        rows = unique_rows(X, weight)
        if _is_worth_ordering(X, rows.index.size):
            rows = in_local_order(rows, X)
    elif kernel == "precomputed":
        X, rows = symmetric_affinities(X, "X"), separate_rows(weight)
        if looks_like_distances(X):
            warn_distances()
    else:
        X = checked_distances(X)
        if looks_like_affinities(X):
            warn_affinities()
        # Samples are one where their distances to all others are: distance 0 is not transitive.
        rows = separate_rows(weight) if sp.issparse(X) else unique_distances(X, weight)
    check_n_distinct(X.shape[0], rows.index.size)
    check_n_components(n_components, rows.index.size)
    train = _unique_samples(X, rows, distances)
    params: dict[str, Any] = {}
    if precomputed:
        train = columns_of(train, rows)
    elif kernel == "gaussian":
        metric, metric_params = own_metric(algorithm, metric, metric_params)
        metric, params = canonical_metric(metric, metric_params, train, rows.weight)
    return TrainingSet(
        rows=rows,
        all_samples=columns_of(X, rows) if precomputed else X,
        X=train,
        settings=SearchSettings(metric, params, algorithm, n_jobs, seed, kernel),
        landmarks=landmarks,
    )


def columns_of(distances: Any, rows: UniqueRows) -> Any:
    """Return the columns, of all samples of the fit, that belong to unique ones."""
    return distances if rows.index.size == distances.shape[1] else distances[:, rows.index]


def _is_worth_ordering(X: Any, n_rows: int) -> bool:
    few = isinstance(X, np.ndarray) and X.shape[1] <= _ORDERED_COLUMNS
    return few and n_rows > _ORDERED_ROWS


def _unique_samples(X: Any, rows: UniqueRows, distances: NDArray[np.float64] | None) -> Any:
    """Return the unique samples, X itself where there are no others."""
    whole = rows.index.size == X.shape[0]
    ordered = whole and not np.any(np.diff(rows.index) < 0)
    train = X if ordered else X[rows.index]
    if distances is None:
        return train
    chosen = distances if whole else distances[np.ix_(rows.index, rows.index)]
    return train.with_distances(chosen)


def _read_wide(
    X: WideRows, weight: NDArray[np.float64]
) -> tuple[WideRows, NDArray[np.float64] | None, UniqueRows]:
    """Read wide samples once: their pivots, their distances where they fit, and equal ones."""
    if len(X) <= _GRAM_ROWS:
        X, distances = own_distances(X)
        return X, distances, merge_zero_distances(distances, weight)
    X, _ = with_pivots(X, gram=False)
    return X, None, unique_rows(X, weight)
