"""Snapshots -> the one vector at which the Hessian is taken."""

from numbers import Integral
from typing import Any

import numpy as np

__all__ = ["resolve_point"]


def resolve_point(point: Any, X: np.ndarray) -> np.ndarray:
    """Return the vector that ``point`` stands for.

    Parameters
    ----------
    point : {"last", "first", "mean"}, int or array of shape (n_parameters,)
        As for :class:`HessianSpectrum`.
    X : ndarray of shape (n_snapshots, n_parameters)
        Snapshots.

    Returns
    -------
    ndarray of shape (n_parameters,)
        In float64, a copy.

    Raises
    ------
    ValueError
        If the row does not exist, or the array has another shape or holds NaN or infinity.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.hessian._point import resolve_point
    >>> resolve_point("mean", np.array([[0.0, 1.0], [2.0, 1.0]]))
    array([1., 1.])
    """
    if isinstance(point, str):
        row = {"last": X[-1], "first": X[0]}.get(point)
        return X.mean(axis=0, dtype=np.float64) if row is None else row.astype(np.float64)
    if isinstance(point, Integral):
        row_number = int(point)
        if not -len(X) <= row_number < len(X):
            raise ValueError(
                f"point={point} must be a row of X, in [{-len(X)}, {len(X) - 1}]. Use 'last' for "
                "the last row."
            )
        return X[row_number].astype(np.float64)
    vector = np.array(point, dtype=np.float64)
    if vector.shape != (X.shape[1],) or not np.isfinite(vector).all():
        raise ValueError(
            f"point of shape {vector.shape} must be a finite vector of shape ({X.shape[1]},), one "
            "entry for each column of X."
        )
    return vector
