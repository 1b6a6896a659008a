"""Linear processes with the recorded covariance: Gaussian noise, pulls to a centre, momentum."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import eigh, svd
from scipy.ndimage import gaussian_filter1d

# A longer memory would not forget its start within a run.
_MOST_MOMENTUM = 0.99
# Numbers held at a time, 16 MB: many surrogates of a short run are simulated in one pass.
_BATCH = 2**21


@dataclass(frozen=True)
class LinearProcess:
    """s_t = r s_(t-1) + c - a y_t + noise in principal axes, each s_t of recorded length."""

    axes: np.ndarray  # (k, n_axes), orthonormal rows: the principal axes of the positions
    momentum: float  # r
    pulls: np.ndarray  # a, (k,)
    offset: np.ndarray  # c, (k,)
    residuals: np.ndarray  # (n_residuals, k), in units of their size around each
    first: np.ndarray  # (k,), the first step, as recorded
    lengths: np.ndarray  # (n_steps,)

    def batch(self) -> int:
        """Return how many surrogates to simulate at a time."""
        return max(1, _BATCH // max(1, len(self.lengths) * len(self.pulls)))

    def simulate(self, n_surrogates: int, generator: np.random.Generator) -> np.ndarray:
        """Return steps (n_surrogates, n_steps, k) along the principal axes."""
        n, k = len(self.lengths), len(self.pulls)
        weights = generator.standard_normal((n_surrogates * n, len(self.residuals)))
        noise = (weights @ self.residuals).reshape(n_surrogates, n, k)
        noise /= np.maximum(np.linalg.norm(noise, axis=2, keepdims=True), np.finfo(float).tiny)
        steps = np.empty_like(noise)
        steps[:, 0] = before = place = np.broadcast_to(self.first, (n_surrogates, k))
        for t, length in enumerate(self.lengths[1:], start=1):
            drawn = self.offset - self.pulls * place + self.momentum * before
            # The noise is as large as the recorded length of the step requires.
            along = np.einsum("ij,ij->i", drawn, noise[:, t])
            left = along**2 + length**2 - np.einsum("ij,ij->i", drawn, drawn)
            size = np.maximum(np.sqrt(np.maximum(left, 0.0)) - along, 0.0)
            step = drawn + size[:, None] * noise[:, t]
            norm = np.linalg.norm(step, axis=1, keepdims=True)
            before = steps[:, t] = step * (length / np.maximum(norm, np.finfo(float).tiny))
            place = place + before
        return steps


def anisotropic_walk(steps: np.ndarray) -> LinearProcess:
    """Return the process without pull and drift, from recorded steps (n_steps, n_axes)."""
    axes, moved, momentum, _, driven = _along_axes(steps)
    return _process(axes, moved, momentum, np.zeros(len(axes)), np.zeros(len(axes)), driven)


def anisotropic_ou(steps: np.ndarray) -> LinearProcess:
    """Return the process with one pull for all directions."""
    axes, moved, momentum, places, driven = _along_axes(steps)
    products, squares = _centred_sums(places, driven)
    pulls = np.full(len(axes), _ratio(products.sum(), squares.sum()))
    return _with_pulls(axes, moved, momentum, pulls, places, driven)


def linear(steps: np.ndarray) -> LinearProcess:
    """Return the process with a pull of its own for each principal component."""
    axes, moved, momentum, places, driven = _along_axes(steps)
    pulls = _ratio(*_centred_sums(places, driven))
    return _with_pulls(axes, moved, momentum, pulls, places, driven)


def common_pull(gram: np.ndarray) -> float:
    """Return the pull per step of :func:`anisotropic_ou`, from the Gram matrix of the steps."""
    return float(anisotropic_ou(factor(gram)).pulls[0])


def leading_pull(gram: np.ndarray) -> float:
    """Return the pull per step of the first principal component in :func:`linear`."""
    return float(linear(factor(gram)).pulls[0])


def factor(gram: np.ndarray) -> np.ndarray:
    """Return rows (n, rank) with the given scalar products."""
    if len(gram) == 0:
        return np.zeros((0, 0))
    values, vectors = eigh(gram)
    kept = values > len(gram) * np.finfo(np.float64).eps * values[-1]
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def _along_axes(
    steps: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, float, np.ndarray, np.ndarray]:
    """Return axes, and along them: steps, momentum, places (m, k), steps without momentum (m, k).
    Places are displacements from the start; the first step has no step before it and is left out.
    """
    places = np.concatenate([np.zeros((1, steps.shape[1])), np.cumsum(steps, axis=0)])
    _, sizes, axes = svd(places - places.mean(axis=0), full_matrices=False)
    axes = axes[sizes > len(places) * np.finfo(np.float64).eps * sizes[0]]
    moved, places = steps @ axes.T, places @ axes.T
    squared = np.sum(moved**2, axis=1)
    total = (squared[1:].sum() + squared[:-1].sum()) / 2
    momentum = float(np.clip(np.sum(moved[1:] * moved[:-1]) / total, 0.0, _MOST_MOMENTUM))
    return axes, moved, momentum, places[1:-1], moved[1:] - momentum * moved[:-1]


def _centred_sums(places: np.ndarray, driven: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return -sum (y - mean) u and sum (y - mean)^2, each (k,): least squares for u = c - a y."""
    centred = places - places.mean(axis=0)
    return -np.sum(centred * driven, axis=0), np.sum(centred**2, axis=0)


def _ratio(products: Any, squares: Any) -> Any:
    """Return pulls in [0, 2]; beyond, a linear process does not return to its centre."""
    return np.clip(products / np.maximum(squares, np.finfo(np.float64).tiny), 0.0, 2.0)


def _with_pulls(
    axes: np.ndarray,
    moved: np.ndarray,
    momentum: float,
    pulls: np.ndarray,
    places: np.ndarray,
    driven: np.ndarray,
) -> LinearProcess:
    offset = driven.mean(axis=0) + pulls * places.mean(axis=0)
    return _process(axes, moved, momentum, pulls, offset, driven - offset + pulls * places)


def _process(
    axes: np.ndarray,
    moved: np.ndarray,
    momentum: float,
    pulls: np.ndarray,
    offset: np.ndarray,
    residuals: np.ndarray,
) -> LinearProcess:
    # Residuals count alike from start to end: in a run whose steps decay, the first ones would set
    # the covariance alone.
    lengths = np.linalg.norm(moved, axis=1)
    squared = np.sum(residuals**2, axis=1)
    size = np.sqrt(gaussian_filter1d(squared, max(5.0, len(squared) / 20), mode="nearest"))
    # What rounding leaves of an exact fit is no noise.
    floor = 1e-10 * lengths.max()
    scaled = np.where(size > floor, 1 / np.maximum(size, floor), 0.0)[:, None] * residuals
    return LinearProcess(axes, momentum, pulls, offset, scaled, moved[0], lengths)
