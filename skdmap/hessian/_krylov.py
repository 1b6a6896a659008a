"""The working state of a Lanczos iteration: a basis and the operator projected on it."""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Krylov", "quotas_of", "select"]

Vector = NDArray[np.float64]
Indices = NDArray[np.intp]
Quotas = list[tuple[str, int]]

# A start vector may hold so little of an eigenvector that others converge before it shows. On three
# spectra that provoke this 2 to 11 of 40 starts missed one, with ten products more none;
# of a network's 20 largest after one epoch, 11 of 30 and none, at worst 1 of 40.
_TRIAL = 10

_KEYS: dict[str, Callable[[Vector], Vector]] = {"+": np.positive, "-": np.negative, "abs": np.abs}


class Krylov:
    """Locked exact pairs, then an orthonormal basis of the present block; changed by every step.

    ``basis[:n_locked]`` are eigenvectors. ``basis[n_locked:n_used]`` spans the block, on which the
    operator A is ``projected``, up to ``beta`` times the next basis vector in the last direction.

    Parameters
    ----------
    size : int
        Dimension n of the space.
    cap : int
        Most vectors in the basis.
    quotas : list of (str, int)
        From :func:`quotas_of`.
    tol : float
        Residuals up to ``tol * scale`` are good enough.
    precision : float
        Relative rounding error of a product.
    rng : numpy.random.Generator
        Draws start vectors.

    Attributes
    ----------
    n_matvecs : int
        Products so far.
    scale : float
        A lower bound of the largest absolute eigenvalue, from all that was seen.
    """

    def __init__(
        self,
        size: int,
        cap: int,
        quotas: Quotas,
        tol: float,
        precision: float,
        rng: np.random.Generator,
    ) -> None:
        self.size, self.cap, self.quotas = size, cap, quotas
        self.tol, self.precision, self.rng = tol, precision, rng
        self.basis = np.empty((cap + 1, size))
        self.projected = np.zeros((cap, cap))
        self.locked_values, self.locked_residuals = np.empty(0), np.empty(0)
        self.values, self.rotation = np.empty(0), np.empty((0, 0))
        self.n_block, self.n_matvecs, self.scale, self.beta = 0, 0, 0.0, 0.0
        self._on_trial: tuple[int, Vector] | None = None  # since which product, which values
        self._start_block()

    @property
    def n_locked(self) -> int:
        """Number of locked pairs."""
        return len(self.locked_values)

    @property
    def n_used(self) -> int:
        """Number of basis vectors that have been multiplied."""
        return self.n_locked + self.n_block

    @property
    def full(self) -> bool:
        """Whether the basis has reached its cap."""
        return self.n_used == self.cap

    @property
    def due(self) -> bool:
        """Whether to look at the Ritz pairs; not after every product in large blocks."""
        return self.n_block % max(1, self.n_block // 32) == 0

    @property
    def closed(self) -> bool:
        """Whether the block is an invariant subspace, for all that tol asks."""
        # What leads out of it then moves eigenvalues by a thousandth of what tol allows at most.
        smallest = max(100 * self.precision, 1e-3 * self.tol) * self.scale
        return self.beta <= smallest or self.n_used == self.size

    def extend(self, operator: Callable[[Vector], Vector]) -> None:
        """Make one product; the block grows by one vector.

        Parameters
        ----------
        operator : callable
            Maps a float64 array of shape (size,) to A times it.

        Raises
        ------
        ValueError
            If the product is not finite.
        """
        last, block = self.n_used, self.n_block
        product = np.array(operator(self.basis[last]), dtype=np.float64)
        self.n_matvecs += 1
        norm = float(np.linalg.norm(product))
        if not np.isfinite(norm):
            raise ValueError(
                f"operator gave NaN or infinity at product {self.n_matvecs}. Check the loss and "
                "the point."
            )
        self.scale = max(self.scale, norm)
        self.projected[block, block] = _orthogonalise(product, self.basis[: last + 1])[last]
        self.beta = float(np.linalg.norm(product))
        self.n_block += 1
        if not self.closed:
            self.basis[last + 1] = product / self.beta
            if self.n_block < self.cap:
                coupling = slice(block, block + 2)
                self.projected[coupling, coupling][[0, 1], [1, 0]] = self.beta

    def solve(self) -> tuple[Vector, Vector]:
        """Return all Ritz values and their residuals, locked ones first."""
        block = self.projected[: self.n_block, : self.n_block]
        self.values, self.rotation = np.linalg.eigh(block)
        self.scale = max(self.scale, float(np.abs(self.values).max()))
        residuals = self.beta * np.abs(self.rotation[-1])
        return (
            np.concatenate([self.locked_values, self.values]),
            np.concatenate([self.locked_residuals, residuals]),
        )

    def done(self, values: Vector, residuals: Vector) -> bool:
        """Return whether all wanted pairs are there and stay.

        Parameters
        ----------
        values, residuals : ndarray of shape (n_used,)
            From :meth:`solve`.

        Returns
        -------
        bool
            Whether they have been good enough, and moved by no more than ``tol * scale``, for ten
            products; nothing can show up any more once the basis spans all of the space or a block
            behind locked pairs has closed.
        """
        if self.n_used == self.size:
            return True
        if not self._good_enough(values, residuals):
            self._on_trial = None
            return False
        if self.closed:
            return True
        wanted = np.sort(values[select(values, self.quotas)])
        if self._on_trial is not None:
            since, first = self._on_trial
            if np.abs(wanted - first).max() <= self.tol * self.scale:
                return self.n_matvecs - since >= _TRIAL
        self._on_trial = self.n_matvecs, wanted
        return False

    def _good_enough(self, values: Vector, residuals: Vector) -> bool:
        """Whether the wanted pairs have converged and no closed block is the last one seen."""
        limit = self.tol * self.scale
        if len(values) < sum(count for _, count in self.quotas):
            return False
        if np.any(residuals[select(values, self.quotas)] > limit):
            return False
        if self.n_locked == 0:
            return not self.closed
        return all(self._nothing_left(key, count, limit) for key, count in self.quotas)

    def _nothing_left(self, key: str, count: int, limit: float) -> bool:
        """Whether the block's foremost pair has converged, and behind the locked ones."""
        if self.n_locked < count:
            return False
        order = _KEYS[key]
        foremost = int(np.argmax(order(self.values)))
        residual = self.beta * abs(self.rotation[-1, foremost])
        last_wanted = np.sort(order(self.locked_values))[-count]
        return bool(residual <= limit and order(self.values)[foremost] <= last_wanted + limit)

    def lock_block(self, values: Vector, residuals: Vector) -> None:
        """Turn the closed block into eigenvectors and start another in the complement.

        Parameters
        ----------
        values, residuals : ndarray of shape (n_used,)
            From :meth:`solve`.
        """
        self._rotate(self.rotation.T)
        self.locked_values, self.locked_residuals = values, residuals
        if self.n_locked > self.cap // 2:
            self._keep_locked(np.sort(select(values, self.quotas)))
        self._start_block()

    def thick_restart(self, values: Vector) -> None:
        """Keep the best pairs and the direction in which the block would grow.

        Parameters
        ----------
        values : ndarray of shape (n_used,)
            From :meth:`solve`.
        """
        n_locked, next_vector = self.n_locked, self.n_used
        wanted = select(values, self.quotas)
        block = np.unique(select(self.values, self._block_quotas(wanted)))
        rotation = self.rotation[:, block]
        self._rotate(rotation.T)
        self._keep_locked(np.sort(wanted[wanted < n_locked]))
        self.n_block = len(block)
        self._move([*range(n_locked, n_locked + len(block)), next_vector], self.n_locked)
        self.projected[:] = 0.0
        inner = np.arange(len(block))
        self.projected[inner, inner] = self.values[block]
        coupling = self.beta * rotation[-1]
        self.projected[inner, len(block)] = self.projected[len(block), inner] = coupling

    def vectors(self, wanted: Indices) -> Vector:
        """Return Ritz vectors as rows.

        Parameters
        ----------
        wanted : ndarray of int
            Indices into what :meth:`solve` gave last.

        Returns
        -------
        ndarray of shape (len(wanted), size)
            Orthonormal.
        """
        rows = np.empty((len(wanted), self.size))
        locked = wanted < self.n_locked
        rows[locked] = self.basis[wanted[locked]]
        rotation = self.rotation[:, wanted[~locked] - self.n_locked]
        rows[~locked] = rotation.T @ self.basis[self.n_locked : self.n_used]
        return rows

    def _block_quotas(self, wanted: Indices) -> Quotas:
        """What a restart keeps of the block: the wanted, and as many more as half of the room."""
        n_ends = len(self.quotas)
        extra = (self.cap - len(wanted)) // 2 // n_ends
        ends = np.split(wanted, [self.quotas[0][1]])[:n_ends]
        return [
            (key, int((end >= self.n_locked).sum()) + extra)
            for (key, _), end in zip(self.quotas, ends, strict=True)
        ]

    def _keep_locked(self, kept: Indices) -> None:
        self._move(kept, 0)
        self.locked_values = self.locked_values[kept]
        self.locked_residuals = self.locked_residuals[kept]

    def _move(self, rows: Iterable[int], start: int) -> None:
        """Move ascending rows of the basis down to ``start``, one by one: no copy of all."""
        for target, row in enumerate(rows, start):
            if target != row:
                self.basis[target] = self.basis[row]

    def _rotate(self, rotation: Vector) -> None:
        """Replace the block's basis by ``rotation`` times it, in place, some columns at a time."""
        block = self.basis[self.n_locked : self.n_used]
        for left in range(0, self.size, 4096):
            columns = slice(left, left + 4096)
            block[: len(rotation), columns] = rotation @ block[:, columns]

    def _start_block(self) -> None:
        start = self.rng.standard_normal(self.size)
        _orthogonalise(start, self.basis[: self.n_locked])
        self.basis[self.n_locked] = start / np.linalg.norm(start)
        self.projected[:] = 0.0
        self.n_block = 0


def _orthogonalise(vector: Vector, basis: Vector) -> Vector:
    """Take the span of ``basis`` out of ``vector`` in place; return the coefficients."""
    total = np.zeros(len(basis))
    for _ in range(2):  # twice is enough (Giraud et al. 2005, doi:10.1007/s00211-005-0615-4)
        coefficients = basis @ vector
        vector -= coefficients @ basis
        total += coefficients
    return total


def quotas_of(which: str, n_pairs: int) -> Quotas:
    """Return what ``which`` asks for, as (order, count) for each end of the spectrum."""
    if which == "both" and n_pairs > 1:
        return [("+", n_pairs - n_pairs // 2), ("-", n_pairs // 2)]
    return [({"smallest": "-", "magnitude": "abs"}.get(which, "+"), n_pairs)]


def select(values: Vector, quotas: Quotas) -> Indices:
    """Indices of the wanted values, most wanted first; from the two ends, descending."""
    # One order for both ends: among equal values, two would pick the same ones.
    key, count = quotas[0]
    order = np.argsort(-_KEYS[key](values), kind="stable")
    if len(quotas) == 1:
        return order[:count]
    return np.concatenate([order[:count], order[max(0, len(order) - quotas[1][1]) :]])
