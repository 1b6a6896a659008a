"""Orthonormal basis of a band Lanczos iteration, and the operator projected on it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Indices = NDArray[np.intp]
Operator = Callable[[Vector], Vector]
WHICH = ("largest", "smallest", "magnitude", "both")
NumberPerEnd = list[tuple[str, int]]
# Of 0.1, 0.07, 0.05, 0.03 and 0.02, with the fewest products for 5 to 20 pairs of five MLPs: 0.97
# of those with 0.1.
_RESOLVED = 0.03
KEYS: dict[str, Callable[[Vector], Vector]] = {"+": np.positive, "-": np.negative, "abs": np.abs}


@dataclass(frozen=True)
class Quadrature:
    """Gauss quadrature of the spectral density that a start vector v of norm 1 sees: the sum of
    weights * p(nodes) is v' p(A) v for all polynomials p of degree <= 2 n_exact - 1.
    """

    start: Vector
    nodes: Vector
    weights: Vector
    rayleigh: float  # v' A v
    square: float  # |A v|^2
    n_exact: int  # products from v alone


class KrylovBasis:
    """Basis vectors V = ``basis[:n_used]`` and pending block vectors W, the ``n_pending`` rows
    behind them, with A V' = V' ``projected`` + W' ``coupling``'.
    """

    # With one pending vector it is the Lanczos iteration, with several band Lanczos: A. Ruhe,
    # Math. Comp. 33, 680-687, 1979, doi:10.1090/S0025-5718-1979-0521282-9

    def __init__(
        self,
        size: int,
        max_rows: int,
        numbers: NumberPerEnd,
        tol: float,
        precision: float,
        starts: Vector,
    ) -> None:
        self.size, self.max_rows, self.numbers = size, max_rows, numbers
        self.tol, self.precision = tol, precision
        self.basis = np.empty((max_rows + 1, size))
        self.projected = np.zeros((max_rows, max_rows))
        self.coupling = np.zeros((max_rows, 0))
        self._lost = np.zeros(max_rows)  # norms of remainders too small to become basis vectors
        self.values = self.residuals = np.empty(0)  # of the Ritz pairs, values ascending
        self._rotation = np.empty((0, 0))
        self.n_used, self.n_matvecs = 0, 0
        self.scale = 0.0  # a lower bound of the largest absolute eigenvalue
        self._moments = (0.0, 0.0)
        self._n_exact: int | None = None if len(starts) == 1 else 0
        self._quadrature: Quadrature | None = None
        for start in starts:
            self.append(start)
        self._start = self.basis[0].copy()

    @property
    def n_pending(self) -> int:
        """Number of basis vectors that have not been multiplied."""
        return self.coupling.shape[1]

    @property
    def full(self) -> bool:
        """Whether the basis has no room for another vector."""
        return self.n_used + self.n_pending == self.max_rows + 1 or self.n_used == self.max_rows

    @property
    def closed(self) -> bool:
        """Whether the basis spans an invariant subspace."""
        return self.n_pending == 0

    @property
    def limit(self) -> float:
        """Largest residual norm of a converged pair."""
        return self.tol * self.scale

    @property
    def negligible(self) -> float:
        """Remainders up to this norm are dropped: they change eigenvalues by 1e-3 of the limit."""
        return max(100 * self.precision, 1e-3 * self.tol) * self.scale

    def multiply(self, operator: Operator, row: int, target: int) -> Vector:
        """Write the product with one row into another one, and return it."""
        product = self.basis[target]
        product[:] = operator(self.basis[row])
        self.n_matvecs += 1
        norm = float(np.linalg.norm(product))
        if not np.isfinite(norm):
            raise ValueError(
                f"operator returned NaN or infinity at product {self.n_matvecs}. Check the loss "
                "and the point."
            )
        self.scale = max(self.scale, norm)
        return product

    def extend(self, operator: Operator) -> None:
        """Make one product, with the vector that has been pending longest."""
        last, n_rows = self.n_used, self.n_used + self.n_pending
        product = self.multiply(operator, last, n_rows)
        norm = float(np.linalg.norm(product))
        known = self.coupling[:last, 0]
        # The known part of the product first: one pass over the whole basis is then enough.
        for row in np.flatnonzero(known):
            product -= known[row] * self.basis[row]
        diagonal = float(self.basis[last] @ product)
        product -= diagonal * self.basis[last]
        coefficients = orthogonalise(product, self.basis[:n_rows], n_passes=1)
        diagonal += coefficients[last]
        if self.n_matvecs == 1:
            self._moments = diagonal, norm**2
        self.projected[:last, last] = self.projected[last, :last] = known
        self.projected[last, last] = diagonal
        self.coupling = np.delete(self.coupling, 0, axis=1)
        self.coupling[last] = coefficients[last + 1 :]
        self.n_used += 1
        column = np.zeros(self.max_rows)
        column[last] = 1.0
        self._add_pending(n_rows, column)

    def solve(self) -> None:
        """Compute the Ritz pairs and their residual norms."""
        n = self.n_used
        self.values, self._rotation = np.linalg.eigh(self.projected[:n, :n])
        self.scale = max(self.scale, float(np.abs(self.values).max()))
        outward = np.linalg.norm(self.coupling[:n].T @ self._rotation, axis=0)
        self.residuals = outward + self._lost[:n] @ np.abs(self._rotation)

    def wanted(self) -> Indices:
        """Return the indices of the wanted Ritz values, most wanted first."""
        return select(self.values, self.numbers)

    def has_converged(self) -> bool:
        """Return whether all wanted pairs are there and have small residuals."""
        if self.n_used < number_of_pairs(self.numbers):
            return False
        return bool(np.all(self.residuals[self.wanted()] <= self.limit))

    def residual_norm(self) -> float:
        """Return the spectral norm of the residual matrix of the wanted pairs."""
        rotation = self._rotation[:, self.wanted()]
        outward = self.coupling[: self.n_used].T @ rotation
        lost = float(np.linalg.norm(self._lost[: self.n_used] @ np.abs(rotation)))
        return float(np.linalg.norm(outward, 2)) + lost if outward.size else lost

    def arrow(self) -> tuple[Vector, Vector]:
        """Return T = V A V' and a matrix D with D D' >= R R' where A V' = V' T + R."""
        n = self.n_used
        coupling, lost = self.coupling[:n], float(np.linalg.norm(self._lost[:n]))
        if lost > 0.0:
            # R R' <= (1 + e) C C' + (1 + 1 / e) lost^2, with the e that balances the two.
            size = float(np.linalg.norm(coupling))
            more = np.sqrt(lost**2 + lost * size) * np.eye(n)
            coupling = np.hstack([coupling * np.sqrt(1 + lost / max(size, lost)), more])
        return self.projected[:n, :n], coupling

    def vectors(self, wanted: Indices) -> Vector:
        """Return Ritz vectors as orthonormal rows (len(wanted), size)."""
        return self._rotation[:, wanted].T @ self.basis[: self.n_used]

    def quadrature(self) -> Quadrature:
        """Return the quadrature of the products up to the first restart."""
        if self._quadrature is not None:
            return self._quadrature
        rayleigh, square = self._moments
        return Quadrature(
            start=self._start,
            nodes=self.values,
            weights=self._rotation[0] ** 2,
            rayleigh=rayleigh,
            square=square,
            n_exact=self.n_used if self._n_exact is None else self._n_exact,
        )

    def append(self, vector: Vector) -> None:
        """Add a pending vector that no basis vector is coupled to: its part outside the space."""
        n_rows = self.n_used + self.n_pending
        if n_rows == self.size:
            return
        if self.n_used and self._n_exact is None:
            self._n_exact = self.n_used
        vector = vector / np.linalg.norm(vector)
        orthogonalise(vector, self.basis[:n_rows])
        self.basis[n_rows] = vector / np.linalg.norm(vector)
        self.coupling = np.pad(self.coupling, ((0, 0), (0, 1)))

    def resolved(self) -> Indices:
        """Return the indices of the wanted Ritz pairs and of all whose residuals are small beside
        the wanted values.
        """
        wanted = self.wanted()
        small = _RESOLVED * np.abs(self.values[wanted]).min()
        return np.union1d(wanted, np.flatnonzero(self.residuals <= small))

    def restart(self, kept: Indices | None = None) -> None:
        """Thick restart: keep these Ritz pairs (or the wanted, and more) and what is pending."""
        # Wu and Simon 2000, doi:10.1137/S0895479898334605
        if self._quadrature is None:
            self._quadrature = self.quadrature()
        n, n_pending = self.n_used, self.n_pending
        if kept is None:  # half of the room that is left
            room = self.max_rows - 1 - n_pending - number_of_pairs(self.numbers)
            more = max(0, room // 2) // len(self.numbers)
            kept = select(self.values, [(end, count + more) for end, count in self.numbers])
        kept = np.unique(kept)
        rotation, n_kept = self._rotation[:, kept], len(kept)
        rotate(self.basis[:n], rotation.T)
        self.basis[n_kept : n_kept + n_pending] = self.basis[n : n + n_pending]
        coupling = np.zeros((self.max_rows, n_pending))
        coupling[:n_kept] = rotation.T @ self.coupling[:n]
        lost = np.abs(rotation).T @ self._lost[:n]
        self.coupling, self.n_used = coupling, n_kept
        self.projected[:] = 0.0
        self.projected[np.arange(n_kept), np.arange(n_kept)] = self.values[kept]
        self._lost[:] = 0.0
        self._lost[:n_kept] = lost
        self.solve()

    def drop_pending(self, n_left: int) -> None:
        """Drop the pending vectors with the smallest coupling, so that at most n_left are left."""
        sizes = np.linalg.norm(self.coupling, axis=0)
        kept = np.sort(np.argsort(-sizes, kind="stable")[:n_left])
        dropped = np.setdiff1d(np.arange(self.n_pending), kept)
        self._lost += np.linalg.norm(self.coupling[:, dropped], axis=1)
        start = self.n_used
        for target, row in enumerate(kept):
            self.basis[start + target] = self.basis[start + row]
        self.coupling = self.coupling[:, kept]

    def absorb(self, crossing: Vector, tridiagonal: Vector, beta: float) -> None:
        """Take over a Lanczos run in the complement of V: m rows Q behind the pending ones, then
        the last remainder, of norm ``beta``. V A Q' is ``crossing``, Q A Q' ``tridiagonal``.
        """
        if self._quadrature is None:
            self._quadrature = self.quadrature()
        n, n_pending, m = self.n_used, self.n_pending, len(tridiagonal)
        pending, coupling = self.basis[n : n + n_pending].copy(), self.coupling
        n_moved = m + (beta > self.negligible)
        # One by one, downwards: no copy of all rows.
        for row in range(n, n + n_moved):
            self.basis[row] = self.basis[row + n_pending]
        inside = slice(n, n + m)
        self.projected[:n, inside], self.projected[inside, :n] = crossing, crossing.T
        self.projected[inside, inside] = tridiagonal
        self.n_used = n + m
        self.coupling = np.zeros((self.max_rows, n_moved - m))
        if n_moved > m:
            self.coupling[n + m - 1, 0] = beta
        else:
            self._lost[n + m - 1] += beta
        for vector, column in zip(pending, coupling.T, strict=True):
            n_rows = self.n_used + self.n_pending
            if n_rows > self.max_rows:
                self._lost += np.abs(column)
                continue
            # What the run shows of the old pending vector is in ``crossing`` already.
            self.basis[n_rows] = vector
            seen = orthogonalise(self.basis[n_rows], self.basis[:n_rows])
            self.coupling += np.outer(column, seen[self.n_used :])
            self._add_pending(n_rows, column)

    def _add_pending(self, row: int, column: Vector) -> None:
        """Make a remainder pending, coupled by ``column`` times its norm; drop a negligible one."""
        beta = float(np.linalg.norm(self.basis[row]))
        if beta * np.abs(column).max() <= self.negligible or row == self.size:
            self._lost += beta * np.abs(column)
            return
        self.basis[row] /= beta
        self.coupling = np.column_stack([self.coupling, beta * column])


def orthogonalise(
    vector: Vector, *blocks: Vector, n_passes: int = 2, most_passes: int = 3
) -> Vector:
    """Subtract the projection on orthonormal rows in place; return the coefficients.
    At least ``n_passes`` are made, and one more while a pass removes half of the length.
    """
    # Twice is enough: Giraud et al. 2005, doi:10.1007/s00211-005-0615-4
    total = np.zeros(sum(len(block) for block in blocks))
    for number in range(1, most_passes + 1):
        coefficients = np.empty(0)
        for block in blocks:
            inside = block @ vector
            vector -= inside @ block
            coefficients = np.concatenate([coefficients, inside])
        total += coefficients
        removed, left = coefficients @ coefficients, vector @ vector
        if number >= n_passes and removed <= left:
            break
    return total


def rotate(rows: Vector, rotation: Vector) -> None:
    """Replace the first k rows (m, n) by ``rotation`` (k, m) times all, some columns at a time."""
    for left in range(0, rows.shape[1], 4096):
        columns = slice(left, left + 4096)
        rows[: len(rotation), columns] = rotation @ rows[:, columns]


def number_per_end(which: str, n_pairs: int) -> NumberPerEnd:
    """Return what ``which`` asks for, as (sort key, count) for each end of the spectrum."""
    if which == "both" and n_pairs > 1:
        return [("+", n_pairs - n_pairs // 2), ("-", n_pairs // 2)]
    return [({"smallest": "-", "magnitude": "abs"}.get(which, "+"), n_pairs)]


def number_of_pairs(numbers: NumberPerEnd) -> int:
    """Return the number of pairs of all ends."""
    return sum(count for _, count in numbers)


def select(values: Vector, numbers: NumberPerEnd) -> Indices:
    """Return the indices of the wanted values, most wanted first; of two ends, descending."""
    # One order for both ends: among equal values, two would select the same ones.
    end, count = numbers[0]
    order = np.argsort(-KEYS[end](values), kind="stable")
    if len(numbers) == 1:
        return order[:count]
    return np.concatenate([order[:count], order[max(count, len(order) - numbers[1][1]) :]])
