"""Coordinates of snapshots along eigenvectors, and back."""

import numpy as np


def orient_rows(vectors: np.ndarray) -> np.ndarray:
    """Return a copy with signs such that the largest entry of each row (k, n) is positive."""
    largest = np.abs(vectors).argmax(axis=1)
    return vectors * np.sign(vectors[np.arange(len(vectors)), largest])[:, None]


def orient_like(vectors: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return a copy with signs such that no row has a negative product with its row before."""
    return vectors * np.where(np.sum(vectors * before, axis=1) < 0, -1.0, 1.0)[:, None]


def squared_share(vector: np.ndarray, directions: np.ndarray) -> float:
    """Return the share of |vector|^2 in the span of orthonormal rows (k, n); nan for a zero."""
    largest = np.abs(vector).max(initial=0.0)
    if largest == 0:
        return float("nan")
    scaled = vector / largest  # no square underflows
    return float(np.sum((directions @ scaled) ** 2) / np.sum(scaled**2))


def project(X: np.ndarray, directions: np.ndarray, origin: np.ndarray | None) -> np.ndarray:
    """Return coordinates (n, k) of rows (n, p) along directions (k, p), in the dtype of X."""
    # In float64: differences of snapshots are small against their entries.
    rows = X.astype(np.float64, copy=False) if origin is None else X - origin
    return (rows @ directions.T).astype(X.dtype, copy=False)


def lift(Z: np.ndarray, directions: np.ndarray, origin: np.ndarray | None) -> np.ndarray:
    """Return the rows (n, p) of the span that have these coordinates (n, k), in their dtype."""
    rows = Z.astype(np.float64, copy=False) @ directions
    return (rows if origin is None else rows + origin).astype(Z.dtype, copy=False)
