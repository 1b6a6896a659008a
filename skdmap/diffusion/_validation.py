"""Checks of input and parameters; errors name parameter, value, range and remedy."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from skdmap._sklearn_compat import validate_data
from skdmap.diffusion._wide.column_reader import WIDE, WideRows, is_lazy, reads_by_columns

# Searches by |x|^2 + |y|^2 - 2xy in single precision put a sample so far away from itself.
_SELF = 1e-4
_DTYPES = [np.float64, np.float32]


def named_samples(rows: NDArray[np.integer], limit: int = 10) -> str:
    """Return "samples 3, 7 and 12 more"."""
    shown = ", ".join(str(int(row)) for row in rows[:limit])
    more = f" and {rows.size - limit} more" if rows.size > limit else ""
    return f"sample{'s' if rows.size > 1 else ''} {shown}{more}"


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


def check_distances(X: Any) -> None:
    """Check precomputed training distances (n, n): dense, or stored ones."""
    if X.shape[0] != X.shape[1]:
        raise ValueError(
            f"X has shape {X.shape}; it must be square with metric='precomputed': distances "
            "between training samples. Pass pairwise_distances(X), or samples and another metric."
        )
    smallest = X.data.min(initial=0.0) if sp.issparse(X) else X.min()
    if smallest < 0:
        raise ValueError(
            f"X contains the distance {smallest:g}; with metric='precomputed' distances must be "
            "non-negative (Negative values in data). Pass distances, not similarities."
        )
    if sp.issparse(X):
        diagonal = X.diagonal()
        if diagonal.max(initial=0.0) > _SELF * X.data.max(initial=0.0):
            row = int(diagonal.argmax())
            raise ValueError(
                f"X[{row}, {row}] = {diagonal[row]:g}; it must be 0 or not stored with "
                "metric='precomputed': the distance of a sample from itself. Use "
                "KNeighborsTransformer(mode='distance'), not 'connectivity'."
            )
        return
    scale = X.max()
    asymmetry = max(
        float(np.abs(X[i : i + 512] - X[:, i : i + 512].T).max()) for i in range(0, len(X), 512)
    )
    limit = 1e3 * np.finfo(X.dtype).eps * scale
    if asymmetry > limit:
        raise ValueError(
            f"X is not symmetric: |X - X.T| reaches {asymmetry:g}; it must be <= {limit:g} with "
            "metric='precomputed'. Pass 0.5 * (X + X.T) if the difference is a rounding error."
        )
    diagonal = np.abs(np.diagonal(X))
    if diagonal.max() > limit:
        row = int(diagonal.argmax())
        raise ValueError(
            f"X[{row}, {row}] = {X[row, row]:g}; it must be 0 with metric='precomputed': the "
            "distance of a sample from itself. Pass distances, not similarities."
        )


def check_n_components(n_components: int, n_rows: int) -> None:
    """Raise when more coordinates are asked for than there are."""
    if n_components >= n_rows:
        raise ValueError(
            f"n_components={n_components} must be below the number of distinct samples of positive "
            f"weight in the fit, {n_rows}: the range is 1 to {n_rows - 1}. Lower it, or pass more "
            "samples."
        )


def check_new_distances(X: Any, *, stored: bool) -> None:
    """Check distances (n_rows, n_samples) from new samples to those of the fit."""
    if sp.issparse(X) != stored:
        raise ValueError(
            f"X is {'sparse' if sp.issparse(X) else 'dense'}, but DiffusionMap was fitted on "
            f"{'sparse' if stored else 'dense'} distances. Pass the same kind."
        )
    smallest = X.data.min(initial=0.0) if sp.issparse(X) else X.min(initial=0.0)
    if smallest < 0:
        raise ValueError(
            f"X contains the distance {smallest:g}; it must be >= 0. Pass distances, not "
            "similarities."
        )


def check_parameter_combination(estimator: Any) -> None:
    """Raise where two parameters exclude each other."""
    exponent, algorithm = estimator.bandwidth_exponent, estimator.neighbors_algorithm
    if _is_named(estimator.bandwidth, "local") and exponent != 0:
        raise ValueError(
            f"bandwidth_exponent={exponent} must be 0 with bandwidth='local', which is "
            "variable already. Use a number or 'auto' as bandwidth with an exponent."
        )
    searches = not isinstance(algorithm, str) or algorithm == "pynndescent"
    if _is_named(estimator.metric, "precomputed") and searches:
        raise ValueError(
            f"neighbors_algorithm={algorithm!r} must be 'auto' or 'exact' with "
            "metric='precomputed': there are no samples to search."
        )


def validated_samples(
    estimator: Any, X: Any, *, metric: Any, metric_params: Any, algorithm: Any, reset: bool
) -> Any:
    """Check X as scikit-learn does, or wrap wide samples, which are not read yet."""
    own = isinstance(algorithm, str) and algorithm != "pynndescent"
    by_columns = own and _is_euclidean(metric, metric_params)
    if by_columns and reads_by_columns(X):
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        return WideRows(X)
    X = validate_data(
        estimator,
        np.asarray(X) if is_lazy(X) else X,
        accept_sparse="csr",
        dtype=_DTYPES,
        reset=reset,
        ensure_min_samples=2 if reset else 1,
    )
    wide = by_columns and not sp.issparse(X) and X.shape[1] >= WIDE
    return WideRows(X) if wide else X


def _is_euclidean(metric: Any, params: Mapping[str, Any] | None) -> bool:
    if isinstance(metric, str) and metric in {"minkowski", "p"}:
        return set(params or {}) <= {"p"} and (params or {}).get("p", 2) == 2
    return isinstance(metric, str) and metric in {"euclidean", "l2"} and not params


def _is_named(value: Any, name: str) -> bool:
    """Whether a parameter is this string; arrays and callables are not."""
    return isinstance(value, str) and value == name
