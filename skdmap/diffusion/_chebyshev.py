"""Ritz pairs in, what a Chebyshev polynomial of the operator adds to their vectors out.

The polynomial is small on the unwanted part of the spectrum (Zhou, Saad, Tiago & Chelikowsky 2006,
doi:10.1016/j.jcp.2006.03.017). It works on residuals: with p(S) v = p(lambda) (v + z) it finds z,
from S v - lambda v alone. So single precision limits how much a pass gains, never where it ends.
"""

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from skdmap.diffusion._products import RowBlocks

__all__ = ["chebyshev_change", "chebyshev_degree", "lower_bound"]

_BOUND_STEPS = 7
# Single precision ends near 3e38: what grows more than this beside a column may overflow it.
_MOST_GROWTH = 1e20


def chebyshev_change(
    matrix: RowBlocks,
    values: NDArray[np.float64],
    errors: NDArray[np.floating],
    *,
    lower: float,
    upper: float,
    degree: int,
) -> NDArray[np.float32]:
    """Return z = p(S) v / p(lambda) - v, p the Chebyshev polynomial on [lower, upper].

    With t = (lambda - centre) / radius, s = (S - centre) / radius and z_j that of T_j::

        z_1 = r / t,   z_(j+1) = c_(j+1) (2 s z_j + 2 r - c_j z_(j-1)),   c_j = T_(j-1)(t) / T_j(t),

    r = (S v - lambda v) / radius; z_0 = 0.

    Parameters
    ----------
    matrix : RowBlocks
        S, in single precision.
    values : ndarray of shape (b,)
        lambda; one below ``upper`` is treated as if it were there.
    errors : ndarray of shape (n, b)
        S v - lambda v.
    lower, upper : float
        Where the polynomial is small.
    degree : int
        At least 1; products with S, but for one. Cut where the leading eigenvector, whose
        eigenvalue is at most 1, would outgrow single precision in a column near ``upper``.

    Returns
    -------
    ndarray of shape (n, b)
        Not finite in columns that outgrew single precision.
    """
    centre, radius = 0.5 * (upper + lower), 0.5 * (upper - lower)
    growth = np.arccosh(max((max(1.0, float(values.max())) - centre) / radius, 1.0 + 1e-12))
    degree = max(1, min(degree, int(np.arccosh(_MOST_GROWTH) / growth)))
    place = np.maximum((values - centre) / radius, 1.0)
    forcing = np.multiply(errors, 2.0 / radius, dtype=np.float32, casting="same_kind")
    ratio = 1.0 / place
    now = forcing * (0.5 * ratio).astype(np.float32)
    before = np.zeros_like(now)
    for _ in range(1, degree):
        following = 1.0 / (2.0 * place - ratio)
        factors = (
            np.float32(centre),
            (2.0 / radius * following).astype(np.float32),
            following.astype(np.float32),
            (ratio * following).astype(np.float32),
        )
        _step(matrix, now, before, forcing, factors)
        before, now, ratio = now, before, following
    return now


def _step(
    matrix: RowBlocks,
    now: NDArray[np.float32],
    before: NDArray[np.float32],
    forcing: NDArray[np.float32],
    factors: tuple[np.float32, NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
) -> None:
    """One step of the recurrence, written over ``before``, block by block while it is in cache."""
    centre, scale, force, back = factors

    def finish(rows: slice, product: NDArray[np.floating]) -> None:
        # Beyond a lower bound that was none a column may overflow: the caller looks.
        with np.errstate(over="ignore", invalid="ignore"):
            product -= centre * now[rows]
            product *= scale
            product += force * forcing[rows]
            product -= back * before[rows]
            before[rows] = product

    matrix.each(now, finish)


def chebyshev_degree(
    values: NDArray[np.float64], gain: NDArray[np.float64], *, lower: float, upper: float
) -> int:
    """Return the degree at which each pair gains as much: T_m(t) = cosh(m arcosh t).

    Parameters
    ----------
    values : ndarray of shape (k,)
        Ritz values above ``upper``.
    gain : ndarray of shape (k,)
        By how much the rest is to shrink beside each.
    lower, upper : float
        Where the polynomial is small.

    Returns
    -------
    int
        At least 1.
    """
    place = (2.0 * values - upper - lower) / (upper - lower)
    growth = np.arccosh(np.maximum(place, 1.0 + 1e-12))
    degrees = np.arccosh(np.maximum(gain, 1.0)) / growth
    return max(1, int(np.ceil(np.minimum(degrees.max(), 1e6))))


def lower_bound(matrix: RowBlocks, rng: np.random.Generator) -> float:
    """Return a number below the spectrum, from a few steps of Lanczos.

    The bound of Zhou & Li 2011, doi:10.1016/j.laa.2010.06.034: the least Ritz value less the last
    residual.

    Parameters
    ----------
    matrix : RowBlocks
        Symmetric.
    rng : Generator
        Of the start vector.

    Returns
    -------
    float
    """
    vector = rng.standard_normal((matrix.n_rows, 1))
    vector /= np.linalg.norm(vector)
    before = np.zeros_like(vector)
    alphas: list[float] = []
    betas: list[float] = []
    for _ in range(min(_BOUND_STEPS, matrix.n_rows)):
        product = matrix @ vector
        alphas.append(float(np.vdot(vector, product)))
        product -= alphas[-1] * vector + (betas[-1] if betas else 0.0) * before
        betas.append(float(np.linalg.norm(product)))
        if betas[-1] < 1e-12:
            break
        before, vector = vector, product / betas[-1]
    ritz, parts = scipy.linalg.eigh_tridiagonal(np.array(alphas), np.array(betas[:-1]))
    return float(ritz[0] - betas[-1] * abs(parts[-1, 0])) - 1e-3
