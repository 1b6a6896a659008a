"""Ritz pairs in, what a Chebyshev polynomial of the operator adds to their vectors out.

The polynomial is small on the unwanted part of the spectrum (Zhou, Saad, Tiago & Chelikowsky 2006,
doi:10.1016/j.jcp.2006.03.017). It works on residuals: with p(S) v = p(lambda) (v + z) it finds z,
from S v - lambda v alone. So single precision limits how much a pass gains, never where it ends.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap.diffusion._eigensolvers.aggregation import Level
from skdmap.diffusion._eigensolvers.row_blocks import RowBlocks, row_slices

_BOUND_STEPS = 7
# Single precision ends near 3e38: what grows more than this beside a column may overflow it.
_MOST_GROWTH = 1e20
# Rows that the chain stays at longer than this are left at this rate, which the polynomial damps;
# but not by more than single precision bears.
_LEAVING, _LEAST_PACE = 0.5, 1e-5
# Where rows differ much in D an eigenvalue of S has no one place in the spectrum of H: it is not
# put below this.
_LEAST_PLACE = 0.5
_LEAST_DEGREE, _MOST_DEGREE = 4, 200


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


@dataclass(frozen=True)
class Smoother:
    """The hastened chain of an operator.

    Attributes
    ----------
    chain : RowBlocks
        H in single precision; D = 2 (1 - S_ii) where that is below 1, else 1.
    pace : ndarray of shape (n, 1)
        D^(1/2), in single precision.
    lower : float
        Below the spectrum of H.
    """

    chain: RowBlocks
    pace: NDArray[np.float32]
    lower: float

    def change(
        self,
        values: NDArray[np.float64],
        errors: NDArray[np.floating],
        *,
        degree: int,
        unwanted: float,
        upper: float = 1.0,
    ) -> NDArray[np.float32]:
        """What (lambda - S)^-1 makes of errors, but for what is slow in the hastened chain too.

        D^(-1/2) (lambda' - H)^-1 D^(-1/2), lambda' where rows of the median D put lambda.

        Parameters
        ----------
        values : ndarray of shape (b,)
            lambda.
        errors : ndarray of shape (n, b)
            S v - lambda v.
        degree : int
            Of the polynomial.
        unwanted : float
            The largest eigenvalue of S that is to be damped.
        upper : float, default=1.0
            Nor is anything damped that lies above this in the spectrum of H.

        Returns
        -------
        ndarray of shape (n, b)
            Not finite in columns that outgrew single precision.
        """
        found = chebyshev_change(
            self.chain,
            self._placed(values),
            np.divide(errors, self.pace, dtype=np.float32, casting="same_kind"),
            lower=self.lower,
            upper=min(upper, float(self._placed(unwanted))),
            degree=degree,
        )
        found /= self.pace
        return found

    def full_degree(
        self, values: NDArray[np.float64], gain: NDArray[np.float64], unwanted: float
    ) -> int:
        """Degree at which each pair gains as much, without help from coarser levels."""
        upper = float(self._placed(unwanted))
        degree = chebyshev_degree(self._placed(values), gain, lower=self.lower, upper=upper)
        return int(np.clip(degree, _LEAST_DEGREE, _MOST_DEGREE))

    def errors_after(
        self,
        change: NDArray[np.float32],
        values: NDArray[np.float64],
        errors: NDArray[np.floating],
    ) -> NDArray[np.float32]:
        """Errors of vectors to which a change is added: (S - lambda) of it, by way of H, more."""
        moved = self.pace * change
        rest: NDArray[np.float32] = self.chain @ moved
        rest -= moved
        rest *= self.pace
        rest += (1.0 - values).astype(np.float32) * change
        rest += errors
        return rest

    def _placed(self, values: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """What eigenvalues of S would be for H if all rows had the median of D."""
        placed = 1.0 - (1.0 - np.asarray(values)) / float(np.median(self.pace)) ** 2
        return np.maximum(placed, np.minimum(values, _LEAST_PLACE))


def smoother_of(level: Level, lower: float, n_threads: int) -> Smoother:
    """Return the smoother of a level.

    Parameters
    ----------
    level : Level
        S and sqrt(pi).
    lower : float
        Below the spectrum of S.
    n_threads : int
        At least 1.

    Returns
    -------
    Smoother
    """
    leaving = 1.0 - level.matrix.diagonal()
    squared_pace = np.clip(leaving / _LEAVING, _LEAST_PACE, 1.0)
    return Smoother(
        chain=RowBlocks(_hastened(level.matrix, leaving, squared_pace), n_threads),
        pace=np.sqrt(squared_pace)[:, None].astype(np.float32),
        lower=_hastened_lower(level, squared_pace < 1.0, lower),
    )


def _hastened(
    matrix: sp.csr_matrix, leaving: NDArray[np.float64], squared_pace: NDArray[np.float64]
) -> sp.csr_matrix:
    """H, with the same indices in memory."""
    inverse = 1.0 / np.sqrt(squared_pace)
    data = np.empty(matrix.data.size, dtype=np.float32)
    for rows in row_slices(matrix.shape[0]):
        ends = matrix.indptr[rows.start : rows.stop + 1]
        pairs = slice(int(ends[0]), int(ends[-1]))
        here = np.repeat(np.arange(rows.start, rows.stop), np.diff(ends))
        columns = matrix.indices[pairs]
        part = matrix.data[pairs] * inverse[here]
        part *= inverse[columns]
        own = np.flatnonzero(columns == here)
        part[own] = 1.0 - leaving[here[own]] / squared_pace[here[own]]
        data[pairs] = part
    return sp.csr_matrix((data, matrix.indices, matrix.indptr), shape=matrix.shape)


def _hastened_lower(level: Level, hastened: NDArray[np.bool_], lower: float) -> float:
    """Below the spectrum of H, if ``lower`` is below that of S.

    The rows a of D = 1 alone have no eigenvalue below ``lower``, the others, b, none below 0. The
    part C of H between them has |C|^2 <= g / 2, g the largest probability of a step from an a to
    the b: C root_a <= root_b D_b^(1/2) / 2 and C^T (D_b^(1/2) root_b) <= g root_a, row by row.
    """
    if not hastened.any():
        return lower
    steps = level.matrix @ np.where(hastened, level.root, 0.0) / level.root
    share = float(steps[~hastened].max(initial=0.0))
    return min(lower, -1e-3) - float(np.sqrt(_LEAVING * share))
