"""Snapshots -> coordinates along eigenvectors, and back."""

import numpy as np

__all__ = ["lift", "orient_like", "orient_rows", "project"]


def orient_rows(vectors: np.ndarray) -> np.ndarray:
    """Return the rows with signs such that each one's entry of largest magnitude is positive.

    Parameters
    ----------
    vectors : ndarray of shape (k, n)
        No row is zero.

    Returns
    -------
    ndarray of shape (k, n)
        A copy.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.hessian._projection import orient_rows
    >>> orient_rows(np.array([[0.6, -0.8]]))
    array([[-0.6,  0.8]])
    """
    largest = np.abs(vectors).argmax(axis=1)
    return vectors * np.sign(vectors[np.arange(len(vectors)), largest])[:, None]


def orient_like(vectors: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return the rows with signs such that each one's product with its row before is not negative.

    Parameters
    ----------
    vectors, before : ndarray of shape (k, n)
        Rows in the same order.

    Returns
    -------
    ndarray of shape (k, n)
        A copy.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.hessian._projection import orient_like
    >>> orient_like(np.array([[0.6, -0.8]]), np.array([[0.0, 1.0]]))
    array([[-0.6,  0.8]])
    """
    return vectors * np.where(np.sum(vectors * before, axis=1) < 0, -1.0, 1.0)[:, None]


def project(X: np.ndarray, directions: np.ndarray, origin: np.ndarray | None) -> np.ndarray:
    """Return the coordinates of rows along directions.

    Parameters
    ----------
    X : ndarray of shape (n, n_parameters)
        Rows.
    directions : ndarray of shape (k, n_parameters)
        Orthonormal rows.
    origin : ndarray of shape (n_parameters,) or None
        Subtracted first; None for nothing.

    Returns
    -------
    ndarray of shape (n, k)
        In the dtype of X. Computed in float64: differences of snapshots are small against their
        entries.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.hessian._projection import project
    >>> project(np.array([[3.0, 5.0]]), np.array([[0.0, 1.0]]), np.array([1.0, 1.0]))
    array([[4.]])
    """
    rows = X.astype(np.float64, copy=False) if origin is None else X - origin
    return (rows @ directions.T).astype(X.dtype, copy=False)


def lift(Z: np.ndarray, directions: np.ndarray, origin: np.ndarray | None) -> np.ndarray:
    """Return the rows in the span of the directions that have these coordinates.

    Parameters
    ----------
    Z : ndarray of shape (n, k)
        Coordinates.
    directions : ndarray of shape (k, n_parameters)
        Orthonormal rows.
    origin : ndarray of shape (n_parameters,) or None
        Added at the end; None for nothing.

    Returns
    -------
    ndarray of shape (n, n_parameters)
        In the dtype of Z.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.hessian._projection import lift
    >>> lift(np.array([[4.0]]), np.array([[0.0, 1.0]]), np.array([1.0, 1.0]))
    array([[1., 5.]])
    """
    rows = Z.astype(np.float64, copy=False) @ directions
    return (rows if origin is None else rows + origin).astype(Z.dtype, copy=False)
