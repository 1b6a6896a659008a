"""Dense symmetric eigenproblems by LAPACK drivers in turn, the last of which does not fail."""

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

# Relatively robust representations are the fastest, but give an internal error, or fewer pairs than
# asked for, on some matrices with highly multiple eigenvalues. Then divide and conquer, then QR.
_DRIVERS = ("evr", "evd", "ev")
# All pairs are faster than a part when the part is more than this share.
_PART = 1.0 / 3.0
# Residual norms and inner products that count as rounding, in units of n eps.
_ROUNDING = 64.0


def largest_eigh(
    matrix: NDArray[np.float64], n_pairs: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The n_pairs (all) largest eigenvalues (k,), ascending, and orthonormal vectors (n, k)."""
    n = len(matrix)
    k = n if n_pairs is None else n_pairs
    for driver in _DRIVERS:
        part = (n - k, n - 1) if driver == "evr" and k <= _PART * n else None
        try:
            values, vectors = scipy.linalg.eigh(
                matrix, driver=driver, subset_by_index=part, check_finite=False
            )
        except np.linalg.LinAlgError:
            continue
        values, vectors = values[-k:], vectors[:, -k:]
        if driver != "evr" or _is_right(matrix, values, vectors, k):
            return values, vectors
    raise np.linalg.LinAlgError(
        f"LAPACK found no eigenvalues of a symmetric matrix of order {n} with any of its drivers "
        f"{', '.join(_DRIVERS)}."
    )


def _is_right(
    matrix: NDArray[np.float64], values: NDArray[np.float64], vectors: NDArray[np.float64], k: int
) -> bool:
    if values.size != k or vectors.shape[1] != k:
        return False
    limit = _ROUNDING * len(matrix) * np.finfo(float).eps
    residuals = np.abs(matrix @ vectors - vectors * values).max(initial=0.0)
    overlap = np.abs(vectors.T @ vectors - np.eye(k)).max(initial=0.0)
    return bool(residuals <= limit * np.abs(values).max(initial=0.0) + limit and overlap <= limit)
