"""Squared distances of a few hundred rows -> diffusion eigenpairs and dimension, densely.

The null models need hundreds of small maps, always with all pairs, alpha 1 and one bandwidth rule,
so that surrogates and recorded rows are treated alike.
"""

import numpy as np
from scipy.linalg import eigh

__all__ = ["diffusion_pairs", "slope_dimension", "squared_distances"]

# Bandwidths h as multiples of the root mean square distance; beyond these ends the slope of the
# kernel sum tends to 0.
_GRID = np.geomspace(1e-3, 10.0, 60)


def squared_distances(rows: np.ndarray) -> np.ndarray:
    """Return the squared distances (n, n) of some rows, the diagonal exactly 0."""
    centred = rows - rows.mean(axis=0)
    products = centred @ centred.T
    squared = np.diag(products)
    distances = squared[:, None] + squared - 2 * products
    np.fill_diagonal(distances, 0.0)
    return np.maximum(distances, 0.0)


def diffusion_pairs(
    distances: np.ndarray, n_pairs: int, *, vectors: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return leading diffusion eigenvalues and eigenfunctions, the trivial pair left out.

    The kernel is exp(-d^2 / m), m the median squared distance over pairs (h^2 = m / 2), normalised
    with alpha 1.

    Parameters
    ----------
    distances : ndarray of shape (n, n)
        Squared distances.
    n_pairs : int
        At most n - 1.
    vectors : bool, default=True
        False returns no eigenfunctions, and is faster.

    Returns
    -------
    tuple of ndarray of shape (n_pairs,) and (n, n_pairs)
        Eigenvalues, descending; eigenfunctions of mean square 1 under the stationary distribution.
    """
    n = len(distances)
    median = np.median(distances[np.triu_indices(n, 1)])
    if median == 0:  # more than half of the pairs coincide
        median = distances[distances > 0].min(initial=np.inf)
    kernel = np.exp(-distances / median)
    density = kernel.sum(axis=1)
    kernel /= np.outer(density, density)
    degree = kernel.sum(axis=1)
    symmetric = kernel / np.sqrt(np.outer(degree, degree))
    ends = [n - 1 - n_pairs, n - 2]
    if not vectors:
        values = eigh(symmetric, subset_by_index=ends, eigvals_only=True)
        return values[::-1], np.empty((n, 0))
    values, found = eigh(symmetric, subset_by_index=ends)
    stationary = degree / degree.sum()
    return values[::-1], found[:, ::-1] / np.sqrt(stationary)[:, None]


def slope_dimension(distances: np.ndarray, excluded: np.ndarray | None = None) -> float:
    """Return the largest slope of log S against log h, S = sum of exp(-d^2 / (2 h^2)) over pairs.

    Parameters
    ----------
    distances : ndarray of shape (n, n)
        Squared distances.
    excluded : ndarray of bool of shape (n, n), default=None
        Pairs of different rows that are left out of the sum.

    Returns
    -------
    float
        About d for rows that fill d dimensions evenly. Each row's pair with itself is counted, so
        that the slope tends to 0 at both ends; nan where all distances are 0.
    """
    n = len(distances)
    kept = np.triu(np.ones((n, n), dtype=bool), 1)
    if excluded is not None:
        kept &= ~excluded
    squared = distances[kept]
    total = squared.sum()
    if total == 0:
        return float("nan")
    exponents = np.outer(1 / (2 * _GRID**2), squared / (total / len(squared)))
    kernel = np.exp(-exponents)
    sums = n + 2 * kernel.sum(axis=1)
    # d log S / d log h = sum of k d^2 / h^2 over S.
    return float(np.max(4 * np.einsum("ij,ij->i", kernel, exponents) / sums))
