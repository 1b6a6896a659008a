"""Checks of input and parameters; errors name parameter, value, range and remedy."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from skdmap._sklearn_compat import validate_data
from skdmap._snapshots import matrix_of
from skdmap.diffusion._neighbors.affinities import check_affinities
from skdmap.diffusion._wide.column_reader import (
    WIDE,
    WideRows,
    computed,
    is_lazy,
    reads_by_columns,
)

# Shares of the largest distance that pass for rounding of given distances. A root of a rounding
# error in single precision is 3.5e-4; |x|^2 + |y|^2 - 2xy of data off the origin loses more.
ASYMMETRY = float(np.sqrt(np.finfo(np.float32).eps))
SELF_DISTANCE = 10 * ASYMMETRY
_DTYPES = [np.float64, np.float32]
_NOT_FINITE = (
    "Drop or impute these samples, or pass metric='nan_euclidean' for missing values. Of a run "
    "that diverged, pass only the snapshots before."
)

_NO_AFFINITY = "Affinities must be finite and >= 0. Use 0 for pairs without affinity."
# Parameters that say nothing about a given kernel.
_OF_DISTANCES = (
    "bandwidth",
    "n_neighbors",
    "neighbors_algorithm",
    "metric",
    "metric_params",
    "bandwidth_exponent",
)


def named_samples(rows: NDArray[np.integer], limit: int = 10, *, noun: str = "sample") -> str:
    """Return "samples 3, 7 and 12 more"."""
    shown = ", ".join(str(int(row)) for row in rows[:limit])
    more = f" and {rows.size - limit} more" if rows.size > limit else ""
    return f"{noun}{'s' if rows.size > 1 else ''} {shown}{more}"


def check_sample_weight(sample_weight: ArrayLike | None, n_samples: int) -> NDArray[np.float64]:
    """Return the weights (n_samples,) as float64; ones for None."""
    if sample_weight is None:
        return np.ones(n_samples)
    weight = np.asarray(sample_weight, dtype=np.float64)
    if weight.shape != (n_samples,):
        raise ValueError(
            f"sample_weight has shape {weight.shape}; it must be ({n_samples},): one weight per "
            "sample of X."
        )
    bad = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
    if bad.size:
        raise ValueError(
            f"sample_weight[{bad[0]}] = {weight[bad[0]]}; it must be finite and >= 0. Use 0 to "
            "exclude a sample."
        )
    if not np.any(weight > 0):
        raise ValueError("sample_weight is all zero. At least two samples need a positive weight.")
    return weight


def checked_distances(X: Any) -> Any:
    """Check precomputed training distances (n, n): dense, or stored ones.
    Dense ones are returned exactly symmetric with a diagonal of 0; a copy where they were not.
    """
    if X.shape[0] != X.shape[1]:
        raise ValueError(
            f"X has shape {X.shape}; it must be square with metric='precomputed': distances "
            "between training samples. Pass pairwise_distances(X), or samples and another metric."
        )
    smallest = X.data.min(initial=0.0) if sp.issparse(X) else X.min()
    if smallest < 0:
        raise ValueError(
            f"X contains the distance {smallest:g}; with metric='precomputed' distances must be "
            "non-negative (Negative values in data). Pass distances, or affinities with "
            "kernel='precomputed'."
        )
    if sp.issparse(X):
        return X  # what is stored is checked where it becomes a graph
    scale = X.max()
    asymmetry = max(
        float(np.abs(X[i : i + 512] - X[:, i : i + 512].T).max()) for i in range(0, len(X), 512)
    )
    limit = ASYMMETRY * scale
    if asymmetry > limit:
        raise ValueError(
            f"X is not symmetric: |X - X.T| reaches {asymmetry:g}; it must be <= {limit:g} with "
            "metric='precomputed'. Pass 0.5 * (X + X.T) if the difference does not matter."
        )
    diagonal = np.abs(np.diagonal(X))
    if diagonal.max() > SELF_DISTANCE * scale:
        row = int(diagonal.argmax())
        raise ValueError(
            f"X[{row}, {row}] = {X[row, row]:g}; it must be 0 with metric='precomputed' (at most "
            f"{SELF_DISTANCE * scale:g}, for rounding): the distance of a sample from itself. Pass "
            "distances, or affinities with kernel='precomputed'."
        )
    if asymmetry == 0 and diagonal.max() == 0:
        return X
    X = 0.5 * (X + X.T)
    np.fill_diagonal(X, 0.0)
    return X


def check_n_components(n_components: int, n_rows: int) -> None:
    """Raise when more coordinates are asked for than there are."""
    if n_components >= n_rows:
        raise ValueError(
            f"n_components={n_components} must be below the number of distinct samples of positive "
            f"weight in the fit, {n_rows}: the range is 1 to {n_rows - 1}. Lower it, or pass more "
            "samples."
        )


def check_n_distinct(n_samples: int, n_distinct: int) -> None:
    """Raise where fewer than two samples differ."""
    if n_distinct < 2:
        raise ValueError(
            f"X has n_samples = {n_samples}, but only {n_distinct} distinct sample of positive "
            "weight. A diffusion map needs at least 2. Check that X is not constant."
        )


def check_new_pairs(X: Any, *, kernel: Any, stored: bool) -> None:
    """Check distances, or affinities, (n_rows, n_samples) of new samples and those of the fit."""
    if _is_named(kernel, "precomputed"):
        check_affinities(X, "X")
        return
    if sp.issparse(X) != stored:
        raise ValueError(
            f"X is {'sparse' if sp.issparse(X) else 'dense'}, but DiffusionMap was fitted on "
            f"{'sparse' if stored else 'dense'} distances. Pass the same kind."
        )
    smallest = X.data.min(initial=0.0) if sp.issparse(X) else X.min(initial=0.0)
    if smallest < 0:
        raise ValueError(
            f"X contains the distance {smallest:g}; it must be >= 0. Pass distances as in fit."
        )


def check_parameter_combination(estimator: Any) -> None:
    """Raise where two parameters exclude each other."""
    if estimator.n_landmarks is not None:
        _check_landmarks(estimator)
    if not is_gaussian(estimator):
        _check_no_distances(estimator)
        return
    exponent, algorithm = estimator.bandwidth_exponent, estimator.neighbors_algorithm
    if _is_named(estimator.bandwidth, "local") and exponent != 0:
        raise ValueError(
            f"bandwidth_exponent={exponent} must be 0 with bandwidth='local', which is "
            "variable already. Set bandwidth='auto' or a number for a variable bandwidth."
        )
    searches = not isinstance(algorithm, str) or algorithm == "pynndescent"
    if _is_named(estimator.metric, "precomputed") or _is_named(estimator.metric, "nan_euclidean"):
        if searches:
            raise ValueError(
                f"neighbors_algorithm={algorithm!r} must be 'auto' or 'exact' with "
                f"metric={estimator.metric!r}: there are no samples to search."
            )
        if estimator.metric_params:
            raise ValueError(
                f"metric_params={estimator.metric_params!r} must be None with "
                f"metric={estimator.metric!r}, which takes no parameters."
            )


def _check_landmarks(estimator: Any) -> None:
    """Raise where samples cannot have landmarks, or landmarks not so many coordinates."""
    m, algorithm = estimator.n_landmarks, estimator.neighbors_algorithm
    where = f"n_landmarks={m}"
    if _is_named(estimator.kernel, "precomputed"):
        raise ValueError(
            f"kernel='precomputed' must be 'gaussian' or a function with {where}: landmarks are "
            "chosen among samples, and affinities have none. Set n_landmarks=None."
        )
    if not _is_euclidean(estimator.metric, estimator.metric_params):
        params = f" with metric_params={estimator.metric_params!r}" * bool(estimator.metric_params)
        raise ValueError(
            f"metric={estimator.metric!r}{params} must be 'euclidean' with {where}: landmarks are "
            "the nearest by Euclidean distance. Set n_landmarks=None."
        )
    if not _is_euclidean(*own_metric(algorithm, "euclidean", None)):
        raise ValueError(
            f"neighbors_algorithm={algorithm!r} must have the Euclidean metric with {where}. Give "
            "it metric='euclidean', or set n_landmarks=None."
        )
    if estimator.n_components >= m:
        raise ValueError(
            f"n_components={estimator.n_components} must be below n_landmarks={m}. Raise "
            "n_landmarks, to thousands where there are as many samples, or lower n_components."
        )


def _check_no_distances(estimator: Any) -> None:
    """Raise where a parameter about distances is set beside a given kernel."""
    defaults = {
        name: parameter.default
        for name, parameter in signature(type(estimator).__init__).parameters.items()
    }
    for name in _OF_DISTANCES:
        value, default = getattr(estimator, name), defaults[name]
        if not (value is default or (type(value) is type(default) and value == default)):
            raise ValueError(
                f"{name}={value!r} must be {default!r}, the default, with "
                f"kernel={estimator.kernel!r}: it is about distances, and this kernel has none. "
                f"Leave out {name}, or use kernel='gaussian'."
            )


def is_gaussian(estimator: Any) -> bool:
    """Whether the kernel is the Gaussian of distances, and not the user's own."""
    return _is_named(estimator.kernel, "gaussian")


def uses_pairs(estimator: Any) -> bool:
    """Whether a matrix of distances or affinities takes the place of the samples in the fit."""
    pairs = _is_named(estimator.metric, "precomputed") or _is_named(estimator.kernel, "precomputed")
    return pairs or _is_named(estimator.metric, "nan_euclidean")


def has_samples(estimator: Any) -> bool:
    """Raise AttributeError where the fit knows pairs of samples only."""
    if not uses_pairs(estimator):
        return True
    source, pairs = f"metric={estimator.metric!r}", "distances"
    if not is_gaussian(estimator):
        source, pairs = f"kernel={estimator.kernel!r}", "affinities"
    raise AttributeError(
        f"inverse_transform needs samples without gaps, but {source} gives {pairs} only."
    )


def has_density(estimator: Any) -> bool:
    """Raise AttributeError where the kernel is no density of samples."""
    if is_gaussian(estimator):
        return True
    raise AttributeError(
        f"score is the likelihood of a Gaussian density, but kernel={estimator.kernel!r} is not "
        "'gaussian'. Choose parameters by the score of a later step of a pipeline."
    )


def validated_samples(
    estimator: Any, X: Any, *, metric: Any, metric_params: Any, algorithm: Any, reset: bool
) -> Any:
    """Check X as scikit-learn does, or wrap wide samples, which are not read yet."""
    X = computed(matrix_of(X))
    own = isinstance(algorithm, str) and algorithm != "pynndescent" and is_gaussian(estimator)
    by_columns = own and _is_euclidean(metric, metric_params)
    if by_columns and reads_by_columns(X):
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        return WideRows(X)
    in_blocks = reset and estimator.n_landmarks is not None
    if in_blocks and is_lazy(X):
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        _check_shape(X)
        return X
    takes_nan = _is_named(metric, "nan_euclidean")
    X = validate_data(
        estimator,
        np.asarray(X) if is_lazy(X) else X,
        accept_sparse=False if takes_nan else "csr",
        # Samples with landmarks are converted, and NaN is found, where blocks of rows are read.
        dtype="numeric" if in_blocks else _DTYPES,
        reset=reset,
        ensure_min_samples=2 if reset else 1,
        ensure_all_finite=not in_blocks and ("allow-nan" if takes_nan else True),
        remedy=_NO_AFFINITY if _is_named(estimator.kernel, "precomputed") else _NOT_FINITE,
    )
    if _is_named(metric, "haversine"):
        _check_radians(X)
    wide = by_columns and not sp.issparse(X) and X.shape[1] >= WIDE
    return WideRows(X) if wide else X


def _check_shape(X: Any) -> None:
    """Raise where X (n_samples, n_features), not in memory, has too few samples or features."""
    if X.shape[0] < 2 or X.shape[1] < 1:
        raise ValueError(
            f"X has n_samples = {X.shape[0]} and n_features = {X.shape[1]}; at least 2 samples of "
            "1 feature are needed. Pass more."
        )


def _check_radians(X: Any) -> None:
    """Raise where latitudes and longitudes (n, 2) cannot be in radians."""
    largest = np.abs(X).max(axis=0)
    if X.shape[1] == 2 and (largest > np.array([0.5, 2.0]) * np.pi * (1 + 1e-6)).any():
        raise ValueError(
            f"X has |latitude| up to {largest[0]:g} and |longitude| up to {largest[1]:g}; with "
            "metric='haversine' they must be radians, at most pi / 2 and 2 pi. Pass "
            "numpy.radians(X) if they are degrees; column 0 is the latitude."
        )


def _is_euclidean(metric: Any, params: Mapping[str, Any] | None) -> bool:
    if isinstance(metric, str) and metric in {"minkowski", "p"}:
        return set(params or {}) <= {"p"} and (params or {}).get("p", 2) == 2
    return isinstance(metric, str) and metric in {"euclidean", "l2"} and not params


def _is_named(value: Any, name: str) -> bool:
    """Whether a parameter is this string; arrays and callables are not."""
    return isinstance(value, str) and value == name


def own_metric(
    algorithm: Any, metric: Any, params: Mapping[str, Any] | None
) -> tuple[Any, Mapping[str, Any] | None]:
    """Return the metric of a transformer that has one, else the one given."""
    own = None if isinstance(algorithm, str) else getattr(algorithm, "metric", None)
    if own is None:
        return metric, params
    kept = dict(getattr(algorithm, "metric_params", None) or {})
    if isinstance(own, str) and own == "minkowski":
        kept.setdefault("p", getattr(algorithm, "p", 2))
    return own, kept
