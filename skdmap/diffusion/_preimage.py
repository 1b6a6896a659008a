"""Inverse transform: from coordinates to convex combinations of training samples.

Weights u on the nearest training coordinates z_j minimise the relative entropy to a Gaussian g plus
|sum u_j z_j - z|^2 / (2 r), a relaxed local maximum-entropy approximation (Arroyo & Ortiz 2006,
doi:10.1002/nme.1534). To first order in z - sum g_j z_j this is local linear regression with the
ridge r; but weights stay positive, so no answer leaves the range of the samples, however far z is.
"""

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from skdmap.diffusion._wide.column_reader import WideRows, column_blocks
from skdmap.diffusion._wide.distances import check_unchanged

_BLOCK = 2**21
# Nearest training samples that set the width of the Gaussian, or this many for each coordinate.
_NEIGHBORS, _NEIGHBORS_PER_COORDINATE = 30, 3
# Those that may have a weight: they must surround z, which 30 in ten dimensions do not. On eleven
# held-out sets 200 had the least error of 30, 60, 100 and 200 with 2, 5, 10 and 20 coordinates.
_CANDIDATES = 200
# Of the mean variance of a coordinate.
_RIDGE = 1e-3
# Newton's method stops at this squared decrement, relative to |z|^2 / r.
_DECREMENT, _STEPS, _HALVINGS = 1e-20, 100, 40
# Coordinates are off the embedding when those of the nearest sample differ by more than this share
# of the range, and it has so many neighbours nearer: of 76 maps no held-out sample.
_OFF, _OFF_NEIGHBORS = 0.4, 10
_FARTHEST = 1e6


def preimage(
    Z: NDArray[np.floating],
    embedding: NDArray[np.floating],
    X: Any,
    rows: NDArray[np.intp],
    weight: NDArray[np.float64],
) -> tuple[NDArray[np.floating], NDArray[np.intp]]:
    """Samples for coordinates Z (n_rows, k), and which rows of Z are off the embedding."""
    coordinates = np.asarray(embedding, dtype=np.float64)
    low, spread = coordinates.min(axis=0), np.ptp(coordinates, axis=0)
    # So far out that only the direction counts, and so near that squares are finite.
    reach = _FARTHEST * max(spread.max(), np.finfo(float).tiny)
    new = np.clip(np.asarray(Z, dtype=np.float64), low - reach, low + spread + reach)
    n_kept, k = coordinates.shape
    n_width = min(max(_NEIGHBORS, _NEIGHBORS_PER_COORDINATE * k), n_kept)
    n_nearest = min(max(_CANDIDATES, n_width), n_kept)
    tree = cKDTree(coordinates)
    parts, off = [sp.csr_matrix((0, X.shape[0]))], [np.zeros(0, dtype=np.intp)]
    step = max(1, _BLOCK // (n_nearest * (k + 1)))
    for start in range(0, new.shape[0], step):
        block = new[start : start + step]
        distances, nearest = tree.query(block, k=n_nearest)
        distances = distances.reshape(block.shape[0], n_nearest)
        nearest = nearest.reshape(block.shape[0], n_nearest)
        log_prior = np.log(weight[nearest]) + _log_gaussian(distances, n_width)
        share = _convex_weights(block, coordinates[nearest], log_prior)
        off.append(start + _off_embedding(block, nearest[:, 0], distances[:, 0], tree))
        effects = sp.csr_matrix(
            (
                share.reshape(-1),
                rows[nearest].reshape(-1),
                np.arange(0, share.size + 1, n_nearest),
            ),
            shape=(block.shape[0], X.shape[0]),
        )
        effects.eliminate_zeros()
        parts.append(effects)
    return _weighted_rows(sp.vstack(parts, format="csr"), X), np.concatenate(off)


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


def _off_embedding(
    z: NDArray[np.float64],
    nearest: NDArray[np.intp],
    distance: NDArray[np.float64],
    tree: cKDTree,
) -> NDArray[np.intp]:
    """Rows of z (b, k) between groups of training coordinates or beyond them."""
    spread = np.ptp(tree.data, axis=0)
    spread = np.maximum(spread, max(1e-9 * spread.max(), np.finfo(float).tiny))
    off = np.flatnonzero((np.abs(z - tree.data[nearest]) > _OFF * spread).any(axis=1))
    around, _ = tree.query(tree.data[nearest[off]], k=[min(_OFF_NEIGHBORS + 1, tree.n)])
    return off[distance[off] > around[:, 0]]


def _log_gaussian(distances: NDArray[np.float64], n_width: int) -> NDArray[np.float64]:
    """Logarithms (b, m) of a Gaussian of half the n_width-th distance; the nearest has 0."""
    width = 0.5 * distances[:, n_width - 1 : n_width]
    width = np.where(width > 0, width, 1.0)
    return -(distances**2 - distances[:, :1] ** 2) / (2.0 * width**2)


def _convex_weights(
    z: NDArray[np.float64], neighbors: NDArray[np.float64], log_prior: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weights (b, m) >= 0, summing to 1: prior times exp(tilt . neighbors), r tilt = z - mean."""
    prior = np.exp(log_prior - log_prior.max(axis=1, keepdims=True))
    prior /= prior.sum(axis=1, keepdims=True)
    centre = np.einsum("bm,bmk->bk", prior, neighbors)
    points = neighbors - centre[:, None, :]
    scale = np.sqrt(np.einsum("bm,bmk->b", prior, points**2) / z.shape[1])
    # Below this the neighbours are one point and its rounding.
    flat = scale <= 1e-14 * np.abs(neighbors).max(axis=(1, 2))
    points /= np.where(flat, np.inf, scale)[:, None, None]
    target = (z - centre) / np.where(flat, np.inf, scale)[:, None]
    goal = _DECREMENT * (1.0 + np.einsum("bk,bk->b", target, target) / _RIDGE)
    tilt = np.zeros_like(target)
    value, share = _tilted(tilt, log_prior, points, target)
    active = np.arange(z.shape[0])
    for _ in range(_STEPS):
        moved, decrement = _newton_step(tilt[active], share[active], points[active], target[active])
        open_ = decrement > goal[active]
        active, moved, decrement = active[open_], moved[open_], decrement[open_]
        if not active.size:
            break
        trial = active, np.ones(active.size), moved, decrement
        for _ in range(_HALVINGS):
            rows, length, move, gain = trial
            new = tilt[rows] + length[:, None] * move
            found, weights = _tilted(new, log_prior[rows], points[rows], target[rows])
            # The last term is the rounding of the values.
            lower = found <= value[rows] - 1e-4 * length * gain + 1e-13 * np.abs(value[rows])
            tilt[rows[lower]], value[rows[lower]] = new[lower], found[lower]
            share[rows[lower]] = weights[lower]
            trial = rows[~lower], 0.5 * length[~lower], move[~lower], gain[~lower]
            if lower.all():
                break
    return share


def _tilted(
    tilt: NDArray[np.float64],
    log_prior: NDArray[np.float64],
    points: NDArray[np.float64],
    target: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The dual objective (b,), to be minimised over the tilt (b, k), and its weights (b, m)."""
    exponent = log_prior + np.matmul(points, tilt[:, :, None])[:, :, 0]
    largest = exponent.max(axis=1, keepdims=True)
    share = np.exp(exponent - largest)
    total = share.sum(axis=1, keepdims=True)
    value = largest[:, 0] + np.log(total[:, 0])
    value += np.einsum("bk,bk->b", tilt, 0.5 * _RIDGE * tilt - target)
    return value, share / total


def _newton_step(
    tilt: NDArray[np.float64],
    share: NDArray[np.float64],
    points: NDArray[np.float64],
    target: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Newton's step (b, k) of the dual objective, and its squared decrement (b,)."""
    mean = np.matmul(share[:, None, :], points)[:, 0, :]
    gradient = mean - target + _RIDGE * tilt
    centred = points - mean[:, None, :]
    hessian = np.matmul((centred * share[:, :, None]).transpose(0, 2, 1), centred)
    hessian += _RIDGE * np.eye(points.shape[2])
    step = -np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
    return step, -np.einsum("bk,bk->b", gradient, step)
