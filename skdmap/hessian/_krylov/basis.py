"""The working state of a Lanczos iteration: a basis and the operator projected on it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
# Products with a surrogate that find a trial vector; of 4, 6 and 10.
_N_SCOUTING = 6
# Of samples of an eighth of the rows of a dozen networks, one in eight is farther off.
_DISTRUST = 0.6
Indices = NDArray[np.intp]
Quotas = list[tuple[str, int]]
KEYS: dict[str, Callable[[Vector], Vector]] = {"+": np.positive, "-": np.negative, "abs": np.abs}


@dataclass(frozen=True)
class Quadrature:
    """What the products from one start vector v, of norm 1, say about the spectrum of A.

    Attributes
    ----------
    start : ndarray of shape (n,)
        The vector v.
    nodes : ndarray of shape (m,)
        Ritz values.
    weights : ndarray of shape (m,)
        They sum to 1; the sum of weights * nodes is v' A v.
    rayleigh : float
        v' A v.
    square : float
        |A v|^2.
    n_exact : int
        Products from v alone: the sum of weights * p(nodes) is v' p(A) v for every polynomial p of
        degree at most 2 n_exact - 1.
    """

    start: Vector
    nodes: Vector
    weights: Vector
    rayleigh: float
    square: float
    n_exact: int


class Krylov:
    """An orthonormal basis and the operator projected on it; changed by every step.

    A V = V ``projected`` + W ``coupling``', with the rows of V ``basis[:n_used]`` and the rows of W
    the vectors that wait to be multiplied, ``basis[n_used:n_used + n_waiting]``. With one vector
    waiting this is the Lanczos iteration; each vector that is drawn beside it widens the band, as
    in a block Lanczos iteration whose block grows when it has to.

    Parameters
    ----------
    size : int
        Dimension n of the space.
    cap : int
        Most vectors that are multiplied before a restart.
    quotas : list of (str, int)
        From :func:`quotas_of`.
    tol : float
        Residuals up to ``tol * scale`` are good enough.
    precision : float
        Relative rounding error of a product.
    draw : callable
        Returns a random vector of shape (size,).
    starts : ndarray of shape (n_starts, size)
        What the iteration starts from.
    surrogate : callable, default=None
        An operator near to the one of the products, and much cheaper.

    Attributes
    ----------
    n_used, n_waiting : int
        Basis vectors that have been multiplied, and that wait to be.
    n_matvecs : int
        Products so far.
    scale : float
        A lower bound of the largest absolute eigenvalue, from all that was seen.
    values, residuals : ndarray of shape (n_used,)
        Ritz values, ascending, and their residuals, from :meth:`solve`.
    """

    def __init__(
        self,
        size: int,
        cap: int,
        quotas: Quotas,
        tol: float,
        precision: float,
        draw: Callable[[], Vector],
        starts: Vector,
        surrogate: Callable[[Vector], Vector] | None = None,
    ) -> None:
        self.size, self.cap, self.quotas = size, cap, quotas
        self.tol, self.precision, self._draw = tol, precision, draw
        self.basis = np.empty((cap + 1, size))
        self.projected = np.zeros((cap, cap))
        self.coupling = np.zeros((cap, 0))
        self._lost = np.zeros(cap)  # remainders too small to become a basis vector
        self.values = self.residuals = np.empty(0)
        self._rotation = np.empty((0, 0))
        self.n_used, self.n_matvecs, self.scale = 0, 0, 0.0
        self._on_trial: tuple[int, Vector] | None = None  # since which product, which values
        self._n_trials, self._n_on_trial, self._scouted, self._close = 0, 1, False, False
        self._surrogate = surrogate
        self._moments = (0.0, 0.0)
        self._n_exact: int | None = None if len(starts) == 1 else 0
        self._quadrature: Quadrature | None = None
        for start in starts:
            self._append(np.array(start, dtype=np.float64))
        self._start = self.basis[0].copy()

    @property
    def n_waiting(self) -> int:
        """Number of basis vectors that wait to be multiplied."""
        return self.coupling.shape[1]

    @property
    def full(self) -> bool:
        """Whether the basis has no room for another vector."""
        return self.n_used + self.n_waiting == self.cap + 1 or self.n_used == self.cap

    @property
    def closed(self) -> bool:
        """Whether the basis spans an invariant subspace, for all that tol asks."""
        return self.n_waiting == 0

    @property
    def due(self) -> bool:
        """Whether to look at the Ritz pairs; not after every product in a large basis."""
        return self.n_used % max(1, self.n_used // 32) == 0

    def extend(self, operator: Callable[[Vector], Vector]) -> None:
        """Make one product, with the vector that has waited longest.

        Parameters
        ----------
        operator : callable
            Maps a float64 array of shape (size,) to A times it. What it raises leaves the state
            as it was.

        Raises
        ------
        ValueError
            If the product is not finite.
        """
        last, n_rows = self.n_used, self.n_used + self.n_waiting
        product = self.basis[n_rows]  # where what it adds to the space will stand
        product[:] = operator(self.basis[last])
        self.n_matvecs += 1
        norm = float(np.linalg.norm(product))
        if not np.isfinite(norm):
            raise ValueError(
                f"operator gave NaN or infinity at product {self.n_matvecs}. Check the loss and "
                "the point."
            )
        self.scale = max(self.scale, norm)
        known = self.coupling[:last, 0]
        # What is known of the product first: one pass over the whole basis is then enough.
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
        if self._on_trial is not None and self._on_trial[0] == self.n_matvecs - 1:
            self._close = self._comes_close(diagonal)
        self.coupling = np.delete(self.coupling, 0, axis=1)
        self.coupling[last] = coefficients[last + 1 :]
        self.n_used += 1
        self._keep_remainder()

    def solve(self) -> None:
        """Find the Ritz pairs of what there is."""
        n = self.n_used
        self.values, self._rotation = np.linalg.eigh(self.projected[:n, :n])
        self.scale = max(self.scale, float(np.abs(self.values).max()))
        outward = np.linalg.norm(self.coupling[:n].T @ self._rotation, axis=0)
        self.residuals = outward + self._lost[:n] @ np.abs(self._rotation)

    def settled(self, n_trial: int, n_scouted: int) -> bool:
        """Return whether all wanted pairs are there and stay.

        Parameters
        ----------
        n_trial, n_scouted : int
            For how many products they must, where two vectors wait; and where the one on trial
            comes from the surrogate.

        Returns
        -------
        bool
            Whether they have been good enough, and moved by no more than ``tol * scale``, for so
            many products, or until a space that a drawn vector led into has closed.
        """
        if self.n_used == self.size:
            return True
        if not self._good_enough():
            self._on_trial = None
            return False
        limit, wanted = self.tol * self.scale, np.sort(self.values[self.wanted()])
        if self._on_trial is not None:
            since, first = self._on_trial
            if np.abs(wanted - first).max() <= limit:
                # Once something has shown up, copies are likely, and looked for more closely.
                again = self._n_trials > 1
                if self._scouted:
                    # Copies are likely, or the surrogate does not tell the wanted from the rest.
                    needed = n_scouted + 6 * (again or self._close) + self._n_on_trial - 1
                    return self.closed or self.n_matvecs - since >= needed
                each = n_trial + 2 * again
                # Where all before has closed, only the vector that was drawn can show anything.
                needed = each + 2 if self.n_waiting == 1 else each * self.n_waiting // 2
                return self.closed or self.n_matvecs - since >= needed
        self._on_trial = self.n_matvecs, wanted
        self._n_trials += 1
        return False

    def prepare(self) -> None:
        """Make room for the next product; draw vectors where a trial begins or none waits."""
        n_drawn = int(self.closed)
        if self._on_trial is not None and self._on_trial[0] == self.n_matvecs:
            # Each trial that shows something new draws more: an eigenvalue of ten copies needs ten.
            most = self.cap - sum(count for _, count in self.quotas) - self.n_waiting - 4
            n_drawn = max(n_drawn, min(2 ** max(0, self._n_trials - 2), most))
        surrogate = self._trusted() if n_drawn else None
        n_beside = 0 if surrogate is None else _N_SCOUTING
        if self.full or self.n_used + self.n_waiting + n_drawn + n_beside > self.cap:
            self._restart(n_drawn)
        if n_drawn == 0:
            return
        self._n_on_trial = n_drawn
        n_before = self.n_waiting
        self._scouted = surrogate is not None and self._scout(n_drawn, surrogate)
        if not self._scouted:
            for _ in range(n_drawn):
                self._append(self._draw())
        # Of copies only the new vector tells: let it wait last, and most trials end before it does.
        self._exchange(self.n_used, n_before)

    def wanted(self) -> Indices:
        """Return indices of the wanted Ritz values, most wanted first; all where few are there."""
        return select(self.values, self.quotas)

    def vectors(self, wanted: Indices) -> Vector:
        """Return Ritz vectors as rows.

        Parameters
        ----------
        wanted : ndarray of int
            Indices into ``values``.

        Returns
        -------
        ndarray of shape (len(wanted), size)
            Orthonormal.
        """
        return self._rotation[:, wanted].T @ self.basis[: self.n_used]

    def quadrature(self) -> Quadrature:
        """Return what the products up to the first restart say; see :meth:`solve`."""
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

    def _comes_close(self, quotient: float) -> bool:
        """Return whether a Rayleigh quotient is nearly that of a wanted vector."""
        if len(self.quotas) > 1:  # a sum of one vector from each end
            return True
        key, least = KEYS[self.quotas[0][0]], self.values[self.wanted()[-1:]]
        return bool(key(np.array([quotient])) >= key(least) - 0.15 * np.abs(least))

    def _good_enough(self) -> bool:
        if self.n_used < sum(count for _, count in self.quotas):
            return False
        return bool(np.all(self.residuals[self.wanted()] <= self.tol * self.scale))

    def _keep_remainder(self) -> None:
        """Let what a product adds to the space wait; forget it where that changes nothing."""
        n_rows = self.n_used + self.n_waiting
        beta = float(np.linalg.norm(self.basis[n_rows]))
        # What is forgotten moves eigenvalues by a thousandth of what tol allows at most.
        if beta <= max(100 * self.precision, 1e-3 * self.tol) * self.scale or n_rows == self.size:
            self._lost[self.n_used - 1] = beta
            return
        self.basis[n_rows] /= beta
        self.coupling = np.pad(self.coupling, ((0, 0), (0, 1)))
        self.coupling[self.n_used - 1, -1] = beta

    def _append(self, vector: Vector) -> None:
        """Let a vector wait that nothing so far leads to: its part outside of the space."""
        n_rows = self.n_used + self.n_waiting
        if n_rows == self.size:
            return
        if self.n_used and self._n_exact is None:
            self._n_exact = self.n_used
        vector = vector / np.linalg.norm(vector)
        orthogonalise(vector, self.basis[:n_rows])
        self.basis[n_rows] = vector / np.linalg.norm(vector)
        self.coupling = np.pad(self.coupling, ((0, 0), (0, 1)))

    def _trusted(self) -> Callable[[Vector], Vector] | None:
        """Return the surrogate if it knows the pairs that were found; see :meth:`solve`.

        One product, with the sum of their vectors with signs in turn, tells: where a few rows make
        an eigenvalue and are not in the sample, it does not.
        """
        wanted = self.wanted()
        if self._surrogate is None or len(wanted) == 0:
            return None
        signs = np.where(np.arange(len(wanted)) % 2, -1.0, 1.0)
        rotation, used = self._rotation[:, wanted] * signs, self.basis[: self.n_used]
        seen = rotation.T @ (used @ self._surrogate(rotation.sum(axis=1) @ used))
        values = self.values[wanted]
        apart = np.abs(seen - values) > _DISTRUST * np.abs(values) + self.tol * self.scale
        return self._surrogate if np.isfinite(seen).all() and not apart.any() else None

    def _scout(self, n_vectors: int, surrogate: Callable[[Vector], Vector]) -> bool:
        """Let the vectors wait that the surrogate holds for most wanted; whether there was room."""
        n_rows = self.n_used + self.n_waiting
        n_steps = min(_N_SCOUTING + n_vectors - 1, self.size - n_rows, len(self.basis) - n_rows - 1)
        if n_steps <= n_vectors:
            return False
        rows = self.basis[: n_rows + n_steps + 1]
        rows[n_rows] = self._draw()
        n_found = scout(surrogate, rows, n_rows, n_vectors, self.quotas, 100 * self.precision)
        for vector in rows[n_rows : n_rows + n_found]:
            self._append(vector)
        return n_found > 0

    def _exchange(self, start: int, n_first: int) -> None:
        """Let the first of the waiting vectors, ``start`` on, wait behind those after them."""
        order = np.roll(np.arange(self.n_waiting), -n_first)
        rotate(self.basis[start : start + self.n_waiting], np.eye(self.n_waiting)[order])
        self.coupling = self.coupling[:, order]

    def _restart(self, n_drawn: int) -> None:
        """Keep the best Ritz pairs and the vectors that wait, with room for those to be drawn."""
        if self._quadrature is None:
            self._quadrature = self.quadrature()
        n, n_waiting = self.n_used, self.n_waiting
        kept = np.unique(select(self.values, self._quotas_to_keep(n_drawn)))
        rotation = self._rotation[:, kept]
        rotate(self.basis[:n], rotation.T)
        n_kept = len(kept)
        self._move(range(n, n + n_waiting), n_kept)
        coupling = np.zeros((self.cap, n_waiting))
        coupling[:n_kept] = rotation.T @ self.coupling[:n]
        lost = np.abs(rotation).T @ self._lost[:n]
        self.coupling, self.n_used = coupling, n_kept
        self.projected[:] = 0.0
        self.projected[np.arange(n_kept), np.arange(n_kept)] = self.values[kept]
        self._lost[:] = 0.0
        self._lost[:n_kept] = lost

    def _quotas_to_keep(self, n_drawn: int) -> Quotas:
        """The wanted, and as many more as half of the room that is left."""
        n_wanted = sum(count for _, count in self.quotas)
        room = self.cap - 1 - self.n_waiting - n_wanted
        extra = max(0, min(room // 2, room - n_drawn)) // len(self.quotas)
        return [(key, count + extra) for key, count in self.quotas]

    def _move(self, rows: Iterable[int], start: int) -> None:
        """Move ascending rows of the basis down to ``start``, one by one: no copy of all."""
        for target, row in enumerate(rows, start):
            if target != row:
                self.basis[target] = self.basis[row]


def scout(
    surrogate: Callable[[Vector], Vector],
    rows: Vector,
    n_known: int,
    n_vectors: int,
    quotas: Quotas,
    negligible: float,
) -> int:
    """Find the most wanted Ritz vectors of an operator that is projected off a space.

    A few Lanczos steps are enough where an eigenvector has been skipped: it stands out there.

    Parameters
    ----------
    surrogate : callable
        Maps a float64 array of shape (n,) to the operator times it.
    rows : ndarray of shape (n_known + n_steps + 1, n)
        Orthonormal rows that span the space, then a random one, then room for what is found.
    n_known : int
        Dimension of the space.
    n_vectors : int
        How many vectors, in [1, n_steps].
    quotas : list of (str, int)
        From ``quotas_of``: from which end. For both, each vector is a sum of one from either.
    negligible : float
        A remainder of this part of the largest product ends the steps.

    Returns
    -------
    int
        How many vectors now stand behind the space; fewer where the steps ended, none where a
        product is not finite.
    """
    scouts, n_steps = rows[n_known:], len(rows) - n_known - 1
    orthogonalise(scouts[0], rows[:n_known])
    projected = np.zeros((n_steps, n_steps))
    largest = 0.0
    for step in range(n_steps):
        scouts[step] /= np.linalg.norm(scouts[step])
        following = scouts[step + 1]
        following[:] = surrogate(scouts[step])
        length = float(np.linalg.norm(following))
        if not np.isfinite(length):
            return 0
        largest = max(largest, length)
        before = rows[: n_known + step + 1]
        taken = orthogonalise(following, before, n_passes=1, most_passes=1)[n_known:]
        projected[step, : step + 1] = projected[: step + 1, step] = taken
        if np.linalg.norm(following) <= negligible * largest:
            n_steps = step + 1
            break
    values, rotation = np.linalg.eigh(projected[:n_steps, :n_steps])
    n_found = min(n_vectors, n_steps)
    mixed = np.zeros((n_found, n_steps))
    for key, _ in quotas:
        mixed += rotation.T[np.argsort(-KEYS[key](values), kind="stable")[:n_found]]
    rotate(scouts[:n_steps], mixed)
    return n_found


def orthogonalise(
    vector: Vector, basis: Vector, *, n_passes: int = 2, most_passes: int = 3
) -> Vector:
    """Take the span of orthonormal rows out of a vector in place.

    Parameters
    ----------
    vector : ndarray of shape (n,)
        Changed.
    basis : ndarray of shape (m, n)
        Orthonormal rows.
    n_passes : int, default=2
        At least so many; 1 for a vector out of which most has been taken. One more follows while
        a pass takes out half of the length, since its rounding then counts. Twice is enough
        (Giraud et al. 2005, doi:10.1007/s00211-005-0615-4).
    most_passes : int, default=3
        At most so many; 1 where the last digits do not matter.

    Returns
    -------
    ndarray of shape (m,)
        The coefficients.
    """
    total = np.zeros(len(basis))
    for number in range(1, most_passes + 1):
        coefficients = basis @ vector
        vector -= coefficients @ basis
        total += coefficients
        taken, left = coefficients @ coefficients, vector @ vector
        if number >= n_passes and taken <= left:
            break
    return total


def rotate(rows: Vector, rotation: Vector) -> None:
    """Replace the first rows by ``rotation @ rows``, in place, some columns at a time.

    Parameters
    ----------
    rows : ndarray of shape (m, n)
        Changed: the first k of them.
    rotation : ndarray of shape (k, m)
        With k <= m.
    """
    for left in range(0, rows.shape[1], 4096):
        columns = slice(left, left + 4096)
        rows[: len(rotation), columns] = rotation @ rows[:, columns]


def quotas_of(which: str, n_pairs: int) -> Quotas:
    """Return what ``which`` asks for, as (order, count) for each end of the spectrum."""
    if which == "both" and n_pairs > 1:
        return [("+", n_pairs - n_pairs // 2), ("-", n_pairs // 2)]
    return [({"smallest": "-", "magnitude": "abs"}.get(which, "+"), n_pairs)]


def select(values: Vector, quotas: Quotas) -> Indices:
    """Indices of the wanted values, most wanted first; from the two ends, descending."""
    # One order for both ends: among equal values, two would pick the same ones.
    key, count = quotas[0]
    order = np.argsort(-KEYS[key](values), kind="stable")
    if len(quotas) == 1:
        return order[:count]
    return np.concatenate([order[:count], order[max(count, len(order) - quotas[1][1]) :]])
