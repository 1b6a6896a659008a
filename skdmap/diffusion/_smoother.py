"""An operator in, what smooths errors on it out: a Chebyshev polynomial of the hastened chain.

A polynomial of S alone leaves all that is slow because the chain stays at a row, row by row. So
rows that are seldom left are left every second step: H = 1 - D^(-1/2) (1 - S) D^(-1/2).
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap.diffusion._chebyshev import chebyshev_change, chebyshev_degree
from skdmap.diffusion._coarse import Level
from skdmap.diffusion._products import RowBlocks, row_slices

__all__ = ["Smoother", "smoother_of"]

# Rows that the chain stays at longer than this are left at this rate, which the polynomial damps;
# but not by more than single precision bears.
_LEAVING, _LEAST_PACE = 0.5, 1e-5
# Where rows differ much in D an eigenvalue of S has no one place in the spectrum of H: it is not
# put below this.
_LEAST_PLACE = 0.5
_LEAST_DEGREE, _MOST_DEGREE = 4, 200


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
