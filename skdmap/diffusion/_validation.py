from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from skdmap._sklearn_compat import validate_data
from skdmap.diffusion._wide.column_reader import WIDE, WideRows, is_lazy, reads_by_columns

# Searches by |x|^2 + |y|^2 - 2xy put a row of single precision so far away from itself.
_SELF = 1e-4
_DTYPES = [np.float64, np.float32]


def named_rows(rows: NDArray[np.integer], limit: int = 10) -> str:
    """Return "rows 3, 7 and 12 more"."""
    shown = ", ".join(str(int(row)) for row in rows[:limit])
    more = f" and {rows.size - limit} more" if rows.size > limit else ""
    return f"row{'s' if rows.size > 1 else ''} {shown}{more}"


def check_sample_weight(sample_weight: ArrayLike | None, n_samples: int) -> NDArray[np.float64]:
    """Return the weights as float64; ones for None.

    Parameters
    ----------
    sample_weight : array-like of shape (n_samples,) or None
        Non-negative.
    n_samples : int
        Rows of X.

    Returns
    -------
    ndarray of shape (n_samples,)

    Raises
    ------
    ValueError
        On another shape, a value that is negative or not finite, or all zero.
    """
    if sample_weight is None:
        return np.ones(n_samples)
    weight = np.asarray(sample_weight, dtype=np.float64)
    if weight.shape != (n_samples,):
        raise ValueError(
            f"sample_weight has shape {weight.shape}, must be ({n_samples},): one weight per row "
            "of X."
        )
    bad = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
    if bad.size:
        raise ValueError(
            f"sample_weight[{bad[0]}] = {weight[bad[0]]}, must be finite and >= 0. Give rows that "
            "should not count the weight 0."
        )
    if not np.any(weight > 0):
        raise ValueError("sample_weight is all zero. At least two rows need a positive weight.")
    return weight


def check_distances(X: Any) -> None:
    """Check a matrix of precomputed training distances.

    Parameters
    ----------
    X : {ndarray, csr_matrix} of shape (n, n)
        Dense distances are square, symmetric, and zero on the diagonal; listed ones are square.

    Raises
    ------
    ValueError
        If they are not, or if one is negative.
    """
    if X.shape[0] != X.shape[1]:
        raise ValueError(
            f"X has shape {X.shape}, must be square with metric='precomputed': distances among the "
            "training rows. Pass pairwise_distances(X), or the rows with another metric."
        )
    smallest = X.data.min(initial=0.0) if sp.issparse(X) else X.min()
    if smallest < 0:
        raise ValueError(
            f"X holds the distance {smallest:g}; with metric='precomputed' distances must be "
            "non-negative (Negative values in data). Pass distances, not similarities."
        )
    if sp.issparse(X):
        diagonal = X.diagonal()
        if diagonal.max(initial=0.0) > _SELF * X.data.max(initial=0.0):
            row = int(diagonal.argmax())
            raise ValueError(
                f"X[{row}, {row}] = {diagonal[row]:g}, must be 0 or not listed with "
                "metric='precomputed': the distance of a row from itself. Use "
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
            f"X is not symmetric: |X - X.T| reaches {asymmetry:g}, must be <= {limit:g} with "
            "metric='precomputed'. Pass 0.5 * (X + X.T) if the difference is rounding."
        )
    diagonal = np.abs(np.diagonal(X))
    if diagonal.max() > limit:
        row = int(diagonal.argmax())
        raise ValueError(
            f"X[{row}, {row}] = {X[row, row]:g}, must be 0 with metric='precomputed': the distance "
            "of a row from itself. Pass distances, not similarities."
        )


def check_n_components(n_components: int, n_rows: int) -> None:
    """Raise when more coordinates are asked for than there are.

    Parameters
    ----------
    n_components : int
        The parameter.
    n_rows : int
        Distinct rows that take part.

    Raises
    ------
    ValueError
        Names both.
    """
    if n_components >= n_rows:
        raise ValueError(
            f"n_components={n_components} must be below the number of distinct rows of positive "
            f"weight that take part, {n_rows}: the range is 1 to {n_rows - 1}. Lower it, or pass "
            "more rows."
        )


def check_new_distances(X: Any, *, listed: bool) -> None:
    """Check distances from new rows to training rows.

    Parameters
    ----------
    X : {ndarray, csr_matrix} of shape (n_rows, n_samples)
        Dense or listed.
    listed : bool
        What the fit saw.

    Raises
    ------
    ValueError
        On the other kind, or a negative distance.
    """
    if sp.issparse(X) != listed:
        raise ValueError(
            f"X is {'sparse' if sp.issparse(X) else 'dense'}, but the fit saw "
            f"{'listed (sparse)' if listed else 'dense'} distances; pass the same kind."
        )
    smallest = X.data.min(initial=0.0) if sp.issparse(X) else X.min(initial=0.0)
    if smallest < 0:
        raise ValueError(
            f"X holds the distance {smallest:g}, must be >= 0. Pass distances, not similarities."
        )


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


def validated_rows(
    estimator: Any, X: Any, *, metric: Any, metric_params: Any, algorithm: Any, reset: bool
) -> Any:
    """Check X as scikit-learn does; leave wide rows where they are, unread.

    Parameters
    ----------
    estimator : estimator
        Learns the number and names of columns where ``reset``, else knows them.
    X : array-like, sparse matrix, or object of shape (n_samples, n_features)
        With ``shape``, ``dtype`` and two-dimensional slices, such as a memory map.
    metric, metric_params, algorithm : object
        As in ``DiffusionMap``: Euclidean distances without an index can be had by columns.
    reset : bool
        Whether this is a fit.

    Returns
    -------
    {ndarray, csr_matrix, WideRows} of shape (n_samples, n_features)
        Finite but for wide rows, whose first pass finds out.
    """
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
