"""Rows that span a space: out of a vector, and into each other."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["orthogonalise", "rotate"]

Vector = NDArray[np.float64]


def orthogonalise(
    vector: Vector, basis: Vector, *, n_passes: int = 2, most_passes: int = 3
) -> Vector:
    """Take the span of orthonormal rows out of a vector in place.

    Parameters
    ----------
    vector : ndarray of shape (n,)
        Changed.
    basis : ndarray of shape (m, n)
        Orthonormal rows.
    n_passes : int, default=2
        At least so many; 1 for a vector out of which most has been taken. One more follows while
        a pass takes out half of the length, since its rounding then counts. Twice is enough
        (Giraud et al. 2005, doi:10.1007/s00211-005-0615-4).
    most_passes : int, default=3
        At most so many; 1 where the last digits do not matter.

    Returns
    -------
    ndarray of shape (m,)
        The coefficients.
    """
    total = np.zeros(len(basis))
    for number in range(1, most_passes + 1):
        coefficients = basis @ vector
        vector -= coefficients @ basis
        total += coefficients
        taken, left = coefficients @ coefficients, vector @ vector
        if number >= n_passes and taken <= left:
            break
    return total


def rotate(rows: Vector, rotation: Vector) -> None:
    """Replace the first rows by ``rotation @ rows``, in place, some columns at a time.

    Parameters
    ----------
    rows : ndarray of shape (m, n)
        Changed: the first k of them.
    rotation : ndarray of shape (k, m)
        With k <= m.
    """
    for left in range(0, rows.shape[1], 4096):
        columns = slice(left, left + 4096)
        rows[: len(rotation), columns] = rotation @ rows[:, columns]
