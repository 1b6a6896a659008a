"""Lanczos runs in the complement of what is known: has an eigenvalue been missed?

A run from a random vector finds what the search has missed, and bounds what it does not find. Let V
be the resolved Ritz vectors of the search, P the projector on their complement, of dimension d, u
an eigenvector of P A P with eigenvalue t, and g the start vector. After j steps with Ritz values
x_i and off-diagonal entries b_i,

    |u'g| sqrt(p_0(t)^2 + ... + p_j(t)^2) <= 1,

with the orthonormal polynomials of the run, p_0 = 1 to p_j(t) = prod(t - x_i) / prod(b_i): p_m(t)
times u'g is the part along u of the m-th vector of the run, and u has norm 1. |u'g| is smaller than
c with a probability of at most c sqrt(2 (d - 1) / pi). So but for that probability no t lies beyond
the point where the root of the sum reaches 1 / c. With p_j alone this is the bound by Lanczos
polynomials of J. van Dorsselaer, M. Hochstenbach and H. van der Vorst, Computing probabilistic
bounds for extreme eigenvalues of symmetric matrices with the Lanczos method, 1999,
https://ir.cwi.nl/pub/4505. What holds before the run, for any spectrum: the relative error exceeds
eps with a probability of at most 1.648 sqrt(d) exp(-(2 j - 1) sqrt(eps)), J. Kuczynski and
H. Wozniakowski, SIAM J. Matrix Anal. Appl. 13, 1094-1122, 1992, doi:10.1137/0613066.

With P A P <= upper, T = V' A V, and C the coupling of V to the pending vectors, the i-th eigenvalue
of A is at most the i-th of [[T, C], [C', upper I]] and of copies of upper, in descending order. V
holds more than the wanted vectors: fewer steps then lead to a smaller upper. But vectors that are
strongly coupled to the complement would raise the eigenvalues of that matrix.
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
    """Lanczos run from one vector in the complement of a basis, whose Ritz pairs are solved for.
    The rows of the run follow the pending vectors of the basis.
    """

    def __init__(self, space: KrylovBasis, start: Vector) -> None:
        self._space, self._known = space, space.basis[: space.n_used]
        self._pending = space.basis[space.n_used : space.n_used + space.n_pending]
        self._first = space.n_used + space.n_pending
        self.dimension = space.size - space.n_used
        self.max_steps = min(len(space.basis) - 1 - self._first, self.dimension)
        row = space.basis[self._first]
        row[:] = start / np.linalg.norm(start)
        orthogonalise(row, self._known)
        row /= np.linalg.norm(row)
        self.n_steps, self.beta = 0, np.inf
        self._crossing = np.zeros((space.n_used, self.max_steps))
        self._tridiagonal = np.zeros((self.max_steps, self.max_steps))
        self._log_betas = 0.0
        self._upper = [np.inf] * len(self._directions())
        # Ritz pairs of the run alone, and Ritz values of basis and run together.
        self.values, self._rotation = np.empty(0), np.empty((0, 0))
        self._joint, self._joint_last = space.values, np.zeros(space.n_used)

    @property
    def closed(self) -> bool:
        """Whether the run spans an invariant subspace."""
        return self.beta <= self._space.negligible

    @property
    def full(self) -> bool:
        """Whether there is no room for another step."""
        return self.n_steps == self.max_steps

    def step(self, operator: Operator) -> None:
        """Make one product and compute the Ritz values."""
        space, m, row = self._space, self.n_steps, self._first + self.n_steps
        product = space.multiply(operator, row, row + 1)
        # What is known beforehand is subtracted first: one pass is then enough.
        crossing = space.coupling[: space.n_used] @ (self._pending @ space.basis[row])
        product -= crossing @ self._known
        self._crossing[:, m] = crossing
        if m:
            product -= self.beta * space.basis[row - 1]
        diagonal = float(space.basis[row] @ product)
        product -= diagonal * space.basis[row]
        self._take(product, diagonal, n_passes=1)
        n, m = space.n_used, self.n_steps
        joint = np.empty((n + m, n + m))
        joint[:n, :n] = space.projected[:n, :n]
        joint[:n, n:], joint[n:, :n] = self._crossing[:, :m], self._crossing[:, :m].T
        joint[n:, n:] = self._tridiagonal[:m, :m]
        self._joint, rotation = np.linalg.eigh(joint)
        self._joint_last = rotation[-1]

    def step_with(self, surrogate: Operator) -> None:
        """Make one product with an operator close to that of the basis; it is not counted."""
        row = self._first + self.n_steps
        product = self._space.basis[row + 1]
        product[:] = surrogate(self._space.basis[row])
        self._take(product, 0.0, n_passes=2)

    def _take(self, product: Vector, diagonal: float, n_passes: int) -> None:
        """Extend the run by a product, whose part along the last vector was ``diagonal``."""
        m, n = self.n_steps, self._space.n_used
        rows = self._space.basis[self._first : self._first + m + 1]
        coefficients = orthogonalise(product, self._known, rows, n_passes=n_passes)
        self._crossing[:, m] += coefficients[:n]
        self._tridiagonal[m, m] = diagonal + coefficients[-1]
        if m:
            self._tridiagonal[m, m - 1] = self._tridiagonal[m - 1, m] = self.beta
        self.n_steps = m + 1
        self.beta = float(np.linalg.norm(product)) if self.n_steps < self.dimension else 0.0
        if not self.closed:
            product /= self.beta
        self.values, self._rotation = np.linalg.eigh(self._tridiagonal[: m + 1, : m + 1])
        with np.errstate(divide="ignore"):
            self._log_betas += float(np.log(self.beta))

    def has_found(self) -> bool:
        """Return whether with the run a Ritz value is more wanted than the same one without."""
        found = self._keys(self._joint[self._selected()]) - self._keys(self._wanted_values())
        return bool(np.any(found > self._space.limit))

    def has_converged(self) -> bool:
        """Return whether the remainder of the run adds little to the residuals of wanted pairs."""
        last = self._joint_last[self._selected()]
        return bool(np.all(self.beta * np.abs(last) <= self._space.limit / 2))

    def update_bound(self, failure_probability: float) -> None:
        """Bound the eigenvalues of the complement from above, in each direction that counts."""
        # A bound holds after each step on the same event, so the smallest one counts.
        share = failure_probability / len(self._upper)
        least_part = min(1.0, share * np.sqrt(np.pi / (2 * max(1, self.dimension - 1))))
        for i, sign in enumerate(self._directions()):
            height = self._log_betas - np.log(least_part)
            root = _outer_root(sign * self.values, height, self.beta * self._rotation[-1])
            self._upper[i] = max(min(self._upper[i], root), float((sign * self.values).max()))

    def excess(self) -> float:
        """Return by how much a wanted eigenvalue may exceed its Ritz value at most."""
        bounds = [
            self._bounds(sign, upper)
            for sign, upper in zip(self._directions(), self._upper, strict=True)
        ]
        if self._ends() == ["abs"]:
            bounds = [np.concatenate(bounds)]
        highest = np.concatenate(
            [
                np.sort(bound)[::-1][:count]
                for bound, (_, count) in zip(bounds, self._space.numbers, strict=True)
            ]
        )
        return float((highest - self._keys(self._wanted_values())).max())

    def missed_eigenvalue_bound(self) -> float:
        """Return the largest error that a wanted eigenvalue may have, relative to the scale."""
        space = self._space
        if space.scale == 0.0:
            return 0.0
        return max(0.0, self.excess()) / space.scale + ROUNDING_UNITS * space.precision

    def absorb(self) -> None:
        """Hand the run over to the basis; it is used up by that."""
        m = self.n_steps
        self._space.absorb(self._crossing[:, :m], self._tridiagonal[:m, :m], self.beta)

    def most_wanted_vector(self) -> Vector:
        """Return the most wanted Ritz vector; of two ends the sum of one from each."""
        best = [np.argmax(KEYS[end](self.values)) for end in self._ends()]
        rotation = self._rotation[:, best].sum(axis=1)
        return rotation @ self._space.basis[self._first : self._first + self.n_steps]

    def _bounds(self, sign: float, upper: float) -> Vector:
        """Return upper bounds of the largest eigenvalues of A times ``sign``."""
        n_wanted = len(self._space.wanted())
        if not np.isfinite(upper):
            return np.full(n_wanted, np.inf)
        projected, coupling = self._space.arrow()
        n, n_outside = coupling.shape
        arrow = np.zeros((n + n_outside, n + n_outside))
        arrow[:n, :n] = sign * projected
        arrow[:n, n:], arrow[n:, :n] = coupling, coupling.T
        arrow[n:, n:] = upper * np.eye(n_outside)
        copies = np.full(min(self.dimension, n_wanted), upper)
        return np.concatenate([np.linalg.eigvalsh(arrow), copies])

    def _selected(self) -> Indices:
        return select(self._joint, self._space.numbers)

    def _wanted_values(self) -> Vector:
        return self._space.values[self._space.wanted()]

    def _keys(self, values: Vector) -> Vector:
        """Return sort keys of values in the order of ``select``, descending for each end."""
        keys, first = [], 0
        for end, count in self._space.numbers:
            keys.append(np.sort(KEYS[end](values[first : first + count]))[::-1])
            first += count
        return np.concatenate(keys)

    def _ends(self) -> list[str]:
        return [end for end, _ in self._space.numbers]

    def _directions(self) -> list[float]:
        signs = {"+": [1.0], "-": [-1.0], "abs": [1.0, -1.0]}
        return [sign for end in self._ends() for sign in signs[end]]


def _outer_root(values: Vector, log_height: float, last: Vector) -> float:
    """Return the largest t where the product of t - values, times the root of
    1 + sum((last / (t - values))^2), has the logarithm ``log_height``.
    """
    # With ``last``, b_j times the last entries of the eigenvectors, that is p_0^2 + ... + p_j^2:
    # (p_0, ..., p_{j - 1}) solves the tridiagonal system whose right-hand side is b_j p_j e_j.
    top = float(values.max())
    if log_height == -np.inf:
        return top
    distances = top - values
    # Each factor is at least t - top, so the root is no farther off than this.
    low, high = 0.0, float(np.exp(log_height / len(values)))
    for _ in range(60):
        middle = (low + high) / 2
        factors = middle + distances
        more = np.log1p(np.square(last / factors).sum()) / 2
        if np.log(factors).sum() + more < log_height:
            low = middle
        else:
            high = middle
    return top + high
