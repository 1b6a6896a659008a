"""Inverse transform: weighted local linear regression from coordinates to samples.

Each answer is a weighted sum of training samples, so one set of weights serves all columns.
"""

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from skdmap.diffusion._wide.column_reader import WideRows, column_blocks
from skdmap.diffusion._wide.distances import check_unchanged

_BLOCK = 2**21
# Nearest training samples in a fit, or this many for each coordinate.
_NEIGHBORS, _NEIGHBORS_PER_COORDINATE = 30, 3
# Of the mean variance of a coordinate.
_RIDGE = 1e-3


def preimage(
    Z: NDArray[np.floating],
    embedding: NDArray[np.floating],
    X: Any,
    rows: NDArray[np.intp],
    weight: NDArray[np.float64],
) -> NDArray[np.floating]:
    """Map coordinates Z (n_rows, k) back; ``embedding`` and ``weight`` are of ``rows`` of X."""
    n_kept, k = embedding.shape
    n_nearest = min(max(_NEIGHBORS, _NEIGHBORS_PER_COORDINATE * k), n_kept)
    coordinates = np.asarray(embedding, dtype=np.float64)
    new = np.asarray(Z, dtype=np.float64)
    tree = cKDTree(coordinates)
    parts = [sp.csr_matrix((0, X.shape[0]))]
    step = max(1, _BLOCK // (n_nearest * (k + 1)))
    for start in range(0, new.shape[0], step):
        block = new[start : start + step]
        distances, nearest = tree.query(block, k=n_nearest)
        distances = distances.reshape(block.shape[0], n_nearest)
        nearest = nearest.reshape(block.shape[0], n_nearest)
        effect = _local_linear(block, coordinates[nearest], distances, weight[nearest])
        effects = sp.csr_matrix(
            (
                effect.reshape(-1),
                rows[nearest].reshape(-1),
                np.arange(0, effect.size + 1, n_nearest),
            ),
            shape=(block.shape[0], X.shape[0]),
        )
        parts.append(effects)
    return _weighted_rows(sp.vstack(parts, format="csr"), X)


def _weighted_rows(effects: sp.csr_matrix, X: Any) -> NDArray[np.floating]:
    """Weighted sums of samples (n_rows, n_features): dense; wide samples are read once."""
    if not isinstance(X, WideRows):
        product = effects @ X
        return product.toarray() if sp.issparse(product) else np.asarray(product, dtype=np.float64)
    check_unchanged(X)
    result = np.empty((effects.shape[0], X.shape[1]), dtype=X.dtype)
    for columns in column_blocks(X):
        result[:, columns] = effects @ X[:, columns]
        X.release()
    return result


def far_from_embedding(
    Z: NDArray[np.floating], embedding: NDArray[np.floating]
) -> NDArray[np.intp]:
    """Rows of Z farther from the range of the embedding than this range is wide."""
    low, high = embedding.min(axis=0), embedding.max(axis=0)
    outside = np.maximum(Z - high, low - Z)
    return np.flatnonzero((outside > np.maximum(high - low, 1e-300)).any(axis=1))


def _local_linear(
    z: NDArray[np.float64],
    neighbors: NDArray[np.float64],
    distances: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Weights (b, m), summing to 1, of the linear regression at ``z`` (b, k) on (b, m, k)."""
    width = 0.5 * distances[:, -1:]
    width = np.where(width > 0, width, 1.0)
    nearest = distances[:, :1]
    # The nearest exponent is subtracted: far from all samples the weights stay finite.
    exponent = -(distances**2 - nearest**2) / (2.0 * width**2)
    gauss = weight * np.exp(exponent)
    gauss /= gauss.sum(axis=1, keepdims=True)
    centre = np.einsum("bm,bmk->bk", gauss, neighbors)
    centred = neighbors - centre[:, None, :]
    covariance = np.einsum("bm,bmk,bml->bkl", gauss, centred, centred, optimize=True)
    k = z.shape[1]
    variance = np.trace(covariance, axis1=1, axis2=2) / k
    ridge = np.where(variance > 0, _RIDGE * variance, 1.0)
    covariance += ridge[:, None, None] * np.eye(k)
    slope = np.linalg.solve(covariance, (z - centre)[:, :, None])[:, :, 0]
    return gauss * (1.0 + np.einsum("bmk,bk->bm", centred, slope))
