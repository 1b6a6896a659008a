"""Lanczos runs in the complement of the wanted Ritz vectors: has an eigenvalue been missed?

A run from a random vector finds what the search has missed, and bounds what it does not find. Let u
be an eigenvector of the operator in the complement, of dimension d, with eigenvalue t, and g the
start vector. After j steps with Ritz values x_i and off-diagonal entries b_i,

    |prod(t - x_i)| |u'g| <= prod(b_i),

and |u'g| is smaller than c with a probability of at most c sqrt(2 (d - 1) / pi). So but for that
probability no t lies beyond the largest root of prod(t - x_i) = prod(b_i) / c. This is the bound by
Lanczos polynomials of J. van Dorsselaer, M. Hochstenbach and H. van der Vorst, Computing
probabilistic bounds for extreme eigenvalues of symmetric matrices with the Lanczos method, 1999,
https://ir.cwi.nl/pub/4505. What holds before the run, for any spectrum: the relative error exceeds
eps with a probability of at most 1.648 sqrt(d) exp(-(2 j - 1) sqrt(eps)), J. Kuczynski and
H. Wozniakowski, SIAM J. Matrix Anal. Appl. 13, 1094-1122, 1992, doi:10.1137/0613066.
"""

import numpy as np

from skdmap.hessian._krylov.basis import (
    KEYS,
    Indices,
    KrylovBasis,
    Operator,
    Vector,
    orthogonalise,
    select,
)

FAILURE_PROBABILITY = 0.01
# A product in floating point is off by so many units of its relative precision: 0.4 to 3 were seen
# in float32 on ten networks with standardised input.
ROUNDING_UNITS = 32


class VerificationRun:
    """Lanczos run from one vector in the complement of the wanted Ritz vectors of a basis. The
    basis holds the wanted pairs only; the rows of the run follow its pending vectors.
    """

    def __init__(self, space: KrylovBasis, start: Vector) -> None:
        self._space, self._known = space, space.basis[: space.n_used]
        self._first = space.n_used + space.n_pending
        self.dimension = space.size - space.n_used
        self.max_steps = min(len(space.basis) - 1 - self._first, self.dimension)
        row = space.basis[self._first]
        row[:] = start / np.linalg.norm(start)
        orthogonalise(row, self._known)
        row /= np.linalg.norm(row)
        self.n_steps, self.values, self.beta = 0, np.empty(0), np.inf
        self._rotation = np.empty((0, 0))
        self._crossing = np.zeros((space.n_used, self.max_steps))
        self._tridiagonal = np.zeros((self.max_steps, self.max_steps))
        self._log_betas = 0.0
        self._upper = [np.inf] * len(self._directions())

    @property
    def closed(self) -> bool:
        """Whether the run spans an invariant subspace."""
        return self.beta <= self._space.negligible

    @property
    def full(self) -> bool:
        """Whether there is no room for another step."""
        return self.n_steps == self.max_steps

    def step(self, operator: Operator, *, counted: bool = True) -> None:
        """Make one product and compute the Ritz values."""
        space, m, row = self._space, self.n_steps, self._first + self.n_steps
        if counted:
            product = space.multiply(operator, row, row + 1)
        else:
            product = space.basis[row + 1]
            product[:] = operator(space.basis[row])
        coefficients = orthogonalise(product, self._known, space.basis[self._first : row + 1])
        self._crossing[:, m] = coefficients[: len(self._known)]
        self._tridiagonal[m, m] = coefficients[-1]
        if m:
            self._tridiagonal[m, m - 1] = self._tridiagonal[m - 1, m] = self.beta
        self.n_steps = m + 1
        self.beta = float(np.linalg.norm(product)) if self.n_steps < self.dimension else 0.0
        if not self.closed:
            product /= self.beta
        self.values, self._rotation = np.linalg.eigh(self._tridiagonal[: m + 1, : m + 1])
        with np.errstate(divide="ignore"):
            self._log_betas += float(np.log(self.beta))

    def better(self) -> Indices:
        """Return the indices of Ritz values that are more wanted than a pair of the basis."""
        limit = self._space.limit
        found = [
            np.flatnonzero(KEYS[end](self.values) > least + limit)
            for end, least in zip(self._ends(), self._least(), strict=True)
        ]
        return np.unique(np.concatenate(found))

    def has_converged(self) -> bool:
        """Return whether the Ritz pairs that are better have small residuals."""
        found = self.better()
        found = found[select(self.values[found], self._space.numbers)]
        return bool(np.all(self.beta * np.abs(self._rotation[-1, found]) <= self._space.limit / 2))

    def update_bound(self, failure_probability: float) -> None:
        """Bound the eigenvalues of the complement from above, in each direction that counts."""
        # A bound holds after each step on the same event, so the smallest one counts.
        share = failure_probability / len(self._upper)
        least_part = min(1.0, share * np.sqrt(np.pi / (2 * max(1, self.dimension - 1))))
        for i, sign in enumerate(self._directions()):
            root = _outer_root(sign * self.values, self._log_betas - np.log(least_part))
            self._upper[i] = max(min(self._upper[i], root), float((sign * self.values).max()))

    def excess(self) -> float:
        """Return by how much an eigenvalue of the complement may exceed the least wanted one."""
        return max(upper - least for upper, least in self._uppers())

    def missed_eigenvalue_bound(self) -> float:
        """Return the largest error that a wanted eigenvalue may have, relative to the scale."""
        space = self._space
        if space.scale == 0.0:
            return 0.0
        residual = space.residual_norm()
        # Of [[Theta, R'], [R, B]] with B <= upper, the eigenvalues exceed those of Theta by no more
        # than those of [[least, r], [r, upper]] exceed least, with r = |R|.
        errors = []
        for upper, least in self._uppers():
            gap = least - upper
            root = np.hypot(gap / 2, residual)
            errors.append(residual**2 / (gap / 2 + root) if gap > 0 else root - gap / 2)
        return float(max(errors)) / space.scale + ROUNDING_UNITS * space.precision

    def absorb(self) -> None:
        """Hand the run over to the basis; it is used up by that."""
        m = self.n_steps
        self._space.absorb(self._crossing[:, :m], self._tridiagonal[:m, :m], self.beta)

    def most_wanted_vector(self) -> Vector:
        """Return the most wanted Ritz vector; of two ends the sum of one from each."""
        rotation = sum(self._rotation[:, np.argmax(KEYS[end](self.values))] for end in self._ends())
        return rotation @ self._space.basis[self._first : self._first + self.n_steps]

    def _ends(self) -> list[str]:
        return [end for end, _ in self._space.numbers]

    def _directions(self) -> list[float]:
        signs = {"+": [1.0], "-": [-1.0], "abs": [1.0, -1.0]}
        return [sign for end in self._ends() for sign in signs[end]]

    def _least(self) -> list[float]:
        """Return the sort key of the least wanted pair at each end."""
        values = self._space.values[self._space.wanted()]
        least, first = [], 0
        for end, count in self._space.numbers:
            least.append(float(KEYS[end](values[first : first + count]).min()))
            first += count
        return least

    def _uppers(self) -> list[tuple[float, float]]:
        """Return, for each direction, the bound of the complement and the least wanted key."""
        least = self._least()
        if self._ends() == ["abs"]:
            least = least * 2
        return list(zip(self._upper, least, strict=True))


def _outer_root(values: Vector, log_height: float) -> float:
    """Return the largest t with sum(log(t - values)) = log_height."""
    top = float(values.max())
    if log_height == -np.inf:
        return top
    distances = top - values
    # Each factor is at least t - top, so the root is no farther off than this.
    low, high = 0.0, float(np.exp(log_height / len(values)))
    for _ in range(60):
        middle = (low + high) / 2
        if np.log(middle + distances).sum() < log_height:
            low = middle
        else:
            high = middle
    return top + high
