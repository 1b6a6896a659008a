"""Dense diffusion maps of a few hundred snapshots, from their squared distances.

Null models need hundreds of these maps. All use all pairs, alpha 1 and the same bandwidth rule, so
that surrogates and recorded snapshots are treated alike.
"""

import numpy as np
from scipy.linalg import eigh

# Bandwidths h as multiples of the root mean square distance; outside this range the slope of the
# kernel sum tends to 0.
_GRID = np.geomspace(1e-3, 10.0, 60)


def squared_distances(rows: np.ndarray) -> np.ndarray:
    """Return the squared distances (n, n) of some rows, with an exact 0 on the diagonal."""
    centred = rows - rows.mean(axis=0)
    return distances_from_products(centred @ centred.T)


def distances_from_steps(gram: np.ndarray, kept: np.ndarray | None = None) -> np.ndarray:
    """Return squared distances of the points of a path, from the Gram matrix of its steps.
    ``kept`` selects some of the n_steps + 1 points; None is all.
    """
    points = np.tri(len(gram) + 1, len(gram), -1)
    if kept is not None:
        points = points[kept]
    return distances_from_products(points @ gram @ points.T)


def distances_from_products(products: np.ndarray) -> np.ndarray:
    """Return squared distances (n, n) from scalar products (n, n)."""
    squared = np.diag(products)
    distances = squared[:, None] + squared - 2 * products
    np.fill_diagonal(distances, 0.0)
    return np.maximum(distances, 0.0)


def diffusion_pairs(
    distances: np.ndarray, n_pairs: int, *, vectors: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return leading nontrivial eigenvalues (k,) and eigenfunctions (n, k) of mean square 1.
    The kernel is exp(-d^2 / m), m the median squared distance over pairs (h^2 = m / 2), alpha 1.
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


def principal_components(distances: np.ndarray, n_components: int) -> np.ndarray:
    """Return the leading principal components (n, k) of points with these squared distances."""
    n = len(distances)
    row = distances.mean(axis=1)
    products = -(distances - row[:, None] - row + row.mean()) / 2
    values, vectors = eigh(products, subset_by_index=[n - n_components, n - 1])
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))[:, ::-1]


def slope_dimension(distances: np.ndarray, excluded: np.ndarray | None = None) -> float:
    """Return the largest slope of log S against log h, S = sum of exp(-d^2 / (2 h^2)) over pairs.
    ``excluded`` (n, n) marks pairs to leave out. The result is nan if all distances are 0.
    """
    # Each row's pair with itself is counted, so that the slope tends to 0 at both ends.
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
