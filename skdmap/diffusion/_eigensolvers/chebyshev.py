"""The Chebyshev smoother: corrections to Ritz vectors by a polynomial of the operator.

The polynomial is small on the unwanted part of the spectrum (Zhou, Saad, Tiago & Chelikowsky 2006,
doi:10.1016/j.jcp.2006.03.017). It works on residuals: with p(S) v = p(lambda) (v + z) it finds z
from S v - lambda v alone. So single precision limits how much a pass gains, never where it ends.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap.diffusion._eigensolvers.aggregation import MarkovLevel
from skdmap.diffusion._eigensolvers.row_blocks import BLOCK_ROWS, RowBlocks, row_slices
from skdmap.diffusion._eigensolvers.symmetric_eigh import largest_eigh

_BOUND_STEPS = 7
# Single precision ends near 3e38: what grows more than this relative to a column may overflow it.
_MOST_GROWTH = 1e20
# Jacobi scaling: rows with a large self-loop probability get this probability of leaving, which the
# polynomial damps; but the diagonal is no smaller than single precision bears.
_LEAVING, _LEAST_DIAGONAL = 0.5, 1e-5
# Where the diagonal D varies much, an eigenvalue of S has no one counterpart in the spectrum of the
# scaled operator: it is not put below this.
_LEAST_SCALED = 0.5
_LEAST_DEGREE, _MOST_DEGREE = 4, 200


def chebyshev_correction(
    matrix: RowBlocks,
    values: NDArray[np.float64],
    residuals: NDArray[np.floating],
    *,
    lower: float,
    upper: float,
    degree: int,
) -> NDArray[np.float32]:
    """Z = p(S) v / p(lambda) - v (n, b), p the Chebyshev polynomial on [lower, upper]."""
    # With t = (lambda - centre) / radius, s = (S - centre) / radius, r = (S v - lambda v) / radius
    # and z_j that of T_j, y_j = T_j(t) z_j:
    #   y_0 = 0, y_1 = r, y_(j+1) = 2 s y_j - y_(j-1) + 2 T_j(t) r.
    # Values below ``upper`` are treated as if they were there. The degree is cut where the leading
    # eigenvector, whose eigenvalue is at most 1, would outgrow single precision in a column near
    # ``upper``; columns that do all the same are not finite.
    centre, radius = 0.5 * (upper + lower), 0.5 * (upper - lower)
    growth = np.arccosh(max((max(1.0, float(values.max())) - centre) / radius, 1.0 + 1e-12))
    degree = max(1, min(degree, int(np.arccosh(_MOST_GROWTH) / growth)))
    place = np.arccosh(np.maximum((values - centre) / radius, 1.0))
    now = np.multiply(residuals, 1.0 / radius, dtype=np.float32, casting="same_kind")
    if degree > 1:
        forcing, before = now.copy(), np.zeros_like(now)
        # One row of factors for each row of a block: numpy is slow where it repeats 16 numbers.
        forces = np.empty((min(BLOCK_ROWS, len(now)), now.shape[1]), dtype=np.float32)
    for step in range(1, degree):
        forces[:] = 2.0 * np.cosh(step * place)
        _step(matrix, now, before, forcing, forces, (np.float32(centre), np.float32(2.0 / radius)))
        before, now = now, before
    now *= (1.0 / np.cosh(degree * place)).astype(np.float32)
    return now


def _step(
    matrix: RowBlocks,
    now: NDArray[np.float32],
    before: NDArray[np.float32],
    forcing: NDArray[np.float32],
    forces: NDArray[np.float32],
    interval: tuple[np.float32, np.float32],
) -> None:
    """One step of the recurrence, written over ``before``, block by block while it is in cache."""
    centre, scale = interval

    def finish(rows: slice, product: NDArray[np.floating]) -> None:
        # Where the lower bound is wrong a column may overflow: the caller looks.
        with np.errstate(over="ignore", invalid="ignore"):
            part = np.multiply(now[rows], centre)
            product -= part
            product *= scale
            product += np.multiply(forcing[rows], forces[: len(part)], out=part)
            np.subtract(product, before[rows], out=before[rows])

    matrix.each(now, finish)


def chebyshev_degree(
    values: NDArray[np.float64], gain: NDArray[np.float64], *, lower: float, upper: float
) -> int:
    """The degree at which values (k,) above ``upper`` grow ``gain`` times more than the rest."""
    # T_m(t) = cosh(m arcosh t).
    place = (2.0 * values - upper - lower) / (upper - lower)
    growth = np.arccosh(np.maximum(place, 1.0 + 1e-12))
    degrees = np.arccosh(np.maximum(gain, 1.0)) / growth
    return max(1, int(np.ceil(np.minimum(degrees.max(), 1e6))))


def lower_bound(matrix: RowBlocks, rng: np.random.Generator) -> float:
    """A number below the spectrum of a symmetric matrix, from a few steps of Lanczos."""
    # The least Ritz value less the last residual: Zhou & Li 2011, doi:10.1016/j.laa.2010.06.034.
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
    off = np.diag(betas[:-1], 1)
    ritz, parts = largest_eigh(np.diag(alphas) + off + off.T)
    return float(ritz[0] - betas[-1] * abs(parts[-1, 0])) - 1e-3


@dataclass(frozen=True)
class Smoother:
    """The Jacobi-scaled operator H = 1 - D^(-1/2) (1 - S) D^(-1/2), in single precision."""

    # D = 2 (1 - S_ii) where the self-loop probability S_ii is above 1/2, else 1.
    scaled: RowBlocks  # H
    root_diagonal: NDArray[np.float32]  # (n, 1), D^(1/2)
    lower: float  # below the spectrum of H

    def correction(
        self,
        values: NDArray[np.float64],
        residuals: NDArray[np.floating],
        *,
        degree: int,
        unwanted: float,
        upper: float = 1.0,
    ) -> NDArray[np.float32]:
        """What (lambda - S)^-1 makes of residuals (n, b), but for modes that are slow in H too."""
        # D^(-1/2) (lambda' - H)^-1 D^(-1/2), lambda' where rows of the median D put lambda. Damped
        # is what lies below ``unwanted`` in the spectrum of S and below ``upper`` in that of H.
        found = chebyshev_correction(
            self.scaled,
            self._scaled_values(values),
            np.divide(residuals, self.root_diagonal, dtype=np.float32, casting="same_kind"),
            lower=self.lower,
            upper=min(upper, float(self._scaled_values(unwanted))),
            degree=degree,
        )
        found /= self.root_diagonal
        return found

    def full_degree(
        self, values: NDArray[np.float64], gain: NDArray[np.float64], unwanted: float
    ) -> int:
        """Degree at which each pair gains as much, without help from coarser levels."""
        upper = float(self._scaled_values(unwanted))
        degree = chebyshev_degree(self._scaled_values(values), gain, lower=self.lower, upper=upper)
        return int(np.clip(degree, _LEAST_DEGREE, _MOST_DEGREE))

    def residuals_after(
        self,
        correction: NDArray[np.float32],
        values: NDArray[np.float64],
        residuals: NDArray[np.floating],
    ) -> NDArray[np.float32]:
        """Residuals of vectors plus a correction: (S - lambda) of it, computed by H, more."""
        moved = self.root_diagonal * correction
        rest: NDArray[np.float32] = self.scaled @ moved
        rest -= moved
        rest *= self.root_diagonal
        rest += (1.0 - values).astype(np.float32) * correction
        rest += residuals
        return rest

    def _scaled_values(self, values: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """What eigenvalues of S would be for H if all rows had the median of D."""
        placed = 1.0 - (1.0 - np.asarray(values)) / float(np.median(self.root_diagonal)) ** 2
        return np.maximum(placed, np.minimum(values, _LEAST_SCALED))


def smoother_of(level: MarkovLevel, lower: float, n_threads: int) -> Smoother:
    """The smoother of a level; ``lower`` is below the spectrum of S."""
    leaving = 1.0 - level.matrix.diagonal()
    diagonal = np.clip(leaving / _LEAVING, _LEAST_DIAGONAL, 1.0)
    return Smoother(
        scaled=RowBlocks(_jacobi_scaled(level.matrix, leaving, diagonal), n_threads),
        root_diagonal=np.sqrt(diagonal)[:, None].astype(np.float32),
        lower=_scaled_lower_bound(level, diagonal < 1.0, lower),
    )


def _jacobi_scaled(
    matrix: sp.csr_matrix, leaving: NDArray[np.float64], diagonal: NDArray[np.float64]
) -> sp.csr_matrix:
    """H, with the same indices in memory."""
    inverse = 1.0 / np.sqrt(diagonal)
    data = np.empty(matrix.data.size, dtype=np.float32)
    for rows in row_slices(matrix.shape[0]):
        ends = matrix.indptr[rows.start : rows.stop + 1]
        pairs = slice(int(ends[0]), int(ends[-1]))
        here = np.repeat(np.arange(rows.start, rows.stop), np.diff(ends))
        columns = matrix.indices[pairs]
        part = matrix.data[pairs] * inverse[here]
        part *= inverse[columns]
        own = np.flatnonzero(columns == here)
        part[own] = 1.0 - leaving[here[own]] / diagonal[here[own]]
        data[pairs] = part
    return sp.csr_matrix((data, matrix.indices, matrix.indptr), shape=matrix.shape)


def _scaled_lower_bound(level: MarkovLevel, below_one: NDArray[np.bool_], lower: float) -> float:
    """A number below the spectrum of H, given one below that of S; rows (n,) with D below 1."""
    # The rows a of D = 1 alone have no eigenvalue below ``lower``, the others, b, none below 0. The
    # part C of H between them has |C|^2 <= g / 2, g the largest probability of a step from an a to
    # the b: C root_a <= root_b D_b^(1/2) / 2 and C^T (D_b^(1/2) root_b) <= g root_a, row by row.
    if not below_one.any():
        return lower
    steps = level.matrix @ np.where(below_one, level.root, 0.0) / level.root
    share = float(steps[~below_one].max(initial=0.0))
    return min(lower, -1e-3) - float(np.sqrt(_LEAVING * share))
