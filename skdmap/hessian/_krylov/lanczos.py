"""Some eigenpairs of a symmetric operator, with residuals and a bound on what was missed.

Lanczos with full reorthogonalisation and thick restarts (K. Wu and H. Simon, Thick-restart Lanczos
method for large symmetric eigenvalue problems, SIAM J. Matrix Anal. Appl. 22, 602-616, 2000,
doi:10.1137/S0895479898334605). Small residuals do not show that no eigenvalue was missed: one start
vector holds one copy of a multiple eigenvalue, and may hold little of another. So a verification
phase follows: a Lanczos run from a random vector in the complement of the resolved vectors. The
search takes over what it finds, and ends when a run finds nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skdmap._interrupt import deferred_interrupt
from skdmap.hessian._krylov.basis import (
    WHICH,
    KrylovBasis,
    NumberPerEnd,
    Operator,
    Quadrature,
    number_per_end,
    select,
)
from skdmap.hessian._krylov.verification import (
    FAILURE_PROBABILITY,
    ROUNDING_UNITS,
    VerificationRun,
)

Vector = NDArray[np.float64]
Callback = Callable[[int, Vector, Vector], object]
# Decisions of the first process.
_EXTEND, _FINISH, _VERIFY, _ABSORB = range(4)
_N_SURROGATE_STEPS = 6  # of 4, 6 and 10


@dataclass(frozen=True)
class RitzPairs:
    """Eigenpairs and how far they can be trusted.

    Attributes
    ----------
    eigenvalues : ndarray of shape (k,)
        Most wanted first; with which="both" descending.
    vectors : ndarray of shape (k, n)
        Orthonormal rows.
    residuals : ndarray of shape (k,)
        Norm of A v - lambda v, at least the rounding error of a product. An eigenvalue of A lies
        within this distance of lambda.
    scale : float
        Largest absolute eigenvalue seen.
    n_matvecs : int
        Number of products with A.
    converged : bool
        Whether every residual is at most ``tol * scale`` and the verification was completed.
    missed_eigenvalue_bound : float
        With a probability of 99 %, the i-th most wanted eigenvalue of A is within
        ``missed_eigenvalue_bound * scale`` of ``eigenvalues[i]``, for all i. Infinity where the
        iteration ended before its verification.
    interrupted : bool
        Whether an interrupt or the callback ended the iteration. Then only pairs with small
        residuals are returned.
    orthogonality_error : float
        Largest absolute entry of ``vectors @ vectors.T - identity``.
    quadrature : Quadrature or None
        Gauss quadrature of the spectral density from the start vector; None for the explicit
        matrix.
    spectrum : ndarray of shape (n,) or None
        All eigenvalues, ascending; for the explicit matrix only.
    next_vector : ndarray of shape (n,) or None
        The most wanted Ritz vector that was left out, not converged. For the start of a search on
        an operator nearby.
    """

    eigenvalues: Vector
    vectors: Vector
    residuals: Vector
    scale: float
    n_matvecs: int
    converged: bool
    missed_eigenvalue_bound: float
    interrupted: bool
    orthogonality_error: float
    quadrature: Quadrature | None
    spectrum: Vector | None
    next_vector: Vector | None = None


def default_basis(n_pairs: int) -> int:
    """Return how many vectors are kept before a thick restart, where memory allows."""
    return max(60, 3 * n_pairs + 20)


def lanczos(
    operator: Operator,
    size: int,
    *,
    n_pairs: int,
    rng: np.random.Generator,
    which: str = "largest",
    tol: float = 1e-3,
    max_matvecs: int | None = None,
    max_basis: int | None = None,
    start: Vector | None = None,
    block_size: int = 1,
    precision: float = 2.3e-16,
    first_rank: Callable[[Vector], Vector] | None = None,
    surrogate: Operator | None = None,
    callback: Callback | None = None,
    n_verify: int | None = None,
) -> RitzPairs:
    """Return the wanted eigenpairs of a symmetric operator.

    The search ends when the residual of every wanted Ritz pair is at most ``tol`` times the largest
    absolute eigenvalue seen. The verification phase is a Lanczos run from a random vector that is
    orthogonal to the resolved Ritz vectors. Eigenvalues that it finds more wanted, such as further
    copies of a multiple eigenvalue, are taken over, and another run follows. The last run bounds
    the error of what is returned. A zero operator is a result.

    Parameters
    ----------
    operator : callable
        Maps a float64 array of shape (size,) to A times it.
    size : int
        Dimension n of the space.
    n_pairs : int
        Number of pairs, k, in [1, size].
    rng : numpy.random.Generator
        Draws the random vectors.
    which : {"largest", "smallest", "magnitude", "both"}, default="largest"
        Algebraically largest or smallest, largest in absolute value, or half from each end (the odd
        one from the top).
    tol : float, default=1e-3
        Largest residual, relative to the largest absolute eigenvalue seen.
    max_matvecs : int, default=None
        Largest number of products, >= n_pairs. None is ``100 + 30 * n_pairs``, or up to half as
        many more to end a verification run.
    max_basis : int, default=None
        Number of vectors kept, >= n_pairs + 8, 8 n bytes each; None is
        ``max(60, 3 * n_pairs + 20)``. A thick restart follows when they are used up.
    start : ndarray of shape (size,) or (n_starts, size), default=None
        Start vectors, such as the sum of the eigenvectors of an operator nearby: nonzero and
        linearly independent; at most max_basis - n_pairs - 4 are used. ``quadrature`` then says
        nothing about the trace. None draws them.
    block_size : int, default=1
        Number of start vectors drawn, in [1, max_basis - n_pairs - 4]. For eigenvalues in clusters
        of this size.
    precision : float, default=2.3e-16
        Relative precision of the floating-point numbers that products are computed in.
    first_rank : callable, default=None
        Where several processes compute the products together: maps an array to that of the first
        process. Random vectors and decisions pass through it.
    surrogate : callable, default=None
        Approximation of the operator that is much cheaper, such as the curvature of a subsample.
        Once a verification run has found an eigenvalue, a few products with the surrogate suggest
        where further ones are. They are not counted.
    callback : callable, default=None
        Called as ``callback(n_matvecs, eigenvalues, residuals)`` with the current Ritz pairs; a
        true result ends the iteration.
    n_verify : int, default=None
        Largest number of products of a verification run that finds nothing, >= 1; it ends earlier
        where the bound on missed eigenvalues is down to ``tol``. None is a third of the products
        made before, and at least 10.

    Returns
    -------
    RitzPairs
        Converged or not.

    Raises
    ------
    ValueError
        If a parameter is out of range or a product is not finite.
    KeyboardInterrupt
        If it is raised before any pair has converged.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.hessian import lanczos
    >>> d = np.r_[np.linspace(0, 1, 300), 5.0, 5.0]
    >>> pairs = lanczos(lambda v: d * v, 302, n_pairs=2, rng=np.random.default_rng(0))
    >>> pairs.converged, pairs.eigenvalues.round(4)
    (True, array([5., 5.]))
    >>> pairs.missed_eigenvalue_bound < 1e-3
    True
    """
    max_rows = min(size, default_basis(n_pairs) if max_basis is None else max_basis)
    budget = 100 + 30 * n_pairs if max_matvecs is None else max_matvecs
    reserve = budget // 2 if max_matvecs is None else 0
    _check_ranges(size, n_pairs, which, max_rows, budget, block_size, n_verify)
    agree = first_rank if first_rank is not None else np.asarray

    def draw() -> Vector:
        return agree(rng.standard_normal(size))

    if start is None:
        starts = np.stack([draw() for _ in range(min(block_size, size))])
    else:
        starts = np.atleast_2d(agree(np.asarray(start, dtype=np.float64)))
        starts = starts[: max(1, max_rows - n_pairs - 4)]
    numbers = number_per_end(which, n_pairs)
    space = KrylovBasis(size, max_rows, numbers, tol, precision, starts)
    search = _Search(space, draw, number_per_end(which, n_pairs + 1), n_verify, surrogate)
    finished, interrupted = _iterate(search, operator, budget, reserve, agree, callback)
    wanted = space.wanted()
    if interrupted:
        wanted = wanted[space.residuals[wanted] <= space.limit]
        if len(wanted) == 0:
            raise KeyboardInterrupt
    rows = space.vectors(wanted)
    return RitzPairs(
        eigenvalues=space.values[wanted],
        vectors=rows,
        residuals=np.maximum(space.residuals[wanted], ROUNDING_UNITS * precision * space.scale),
        scale=space.scale,
        n_matvecs=space.n_matvecs,
        converged=finished,
        missed_eigenvalue_bound=search.missed_eigenvalue_bound(),
        interrupted=interrupted and not finished,
        orthogonality_error=_orthogonality_error(rows),
        quadrature=space.quadrature(),
        spectrum=None,
        next_vector=search.next_vector,
    )


class _Search:
    """Search and verification phase, one product at a time."""

    def __init__(
        self,
        space: KrylovBasis,
        draw: Callable[[], Vector],
        one_more: NumberPerEnd,
        n_verify: int | None,
        surrogate: Operator | None,
    ) -> None:
        self.space, self._draw, self._one_more = space, draw, one_more
        self._n_verify, self._surrogate = n_verify, surrogate
        self.run: VerificationRun | None = None
        self.next_vector: Vector | None = None
        self._n_runs, self._n_steps, self._is_random = 0, 0, True

    def step(self, operator: Operator) -> None:
        """Make one product."""
        if self.run is None:
            self.space.extend(operator)
            return
        self.run.step(operator)
        if self._is_random:
            self.run.update_bound(_failure_probability(self._n_runs))

    @property
    def due(self) -> bool:
        """Whether to solve for the Ritz pairs: not after every product in a large basis."""
        space = self.space
        regular = space.n_used % max(1, space.n_used // 32) == 0
        return self.run is not None or regular or space.closed or space.full

    def decide(self) -> int:
        """Return what follows."""
        space, run = self.space, self.run
        if run is None:
            space.solve()
            if space.n_used == space.size:
                return _FINISH
            return _VERIFY if space.has_converged() else _EXTEND
        ended = run.closed or run.full
        if self.has_found():
            return _ABSORB if ended or run.has_converged() else _EXTEND
        if not self._is_random:
            return _VERIFY if ended or run.n_steps >= 2 else _EXTEND
        verified = run.excess() <= space.limit or run.n_steps >= self._n_steps
        return _FINISH if ended or verified else _EXTEND

    def has_found(self) -> bool:
        """Return whether the verification run has found something."""
        return self.run is not None and self.run.has_found()

    def absorb(self) -> None:
        """Take over what the verification run has found."""
        if self.run is not None:
            self.run.absorb()
            self.run = None
            self.space.solve()

    def prepare(self, decision: int) -> None:
        """Prepare the next product."""
        space = self.space
        if decision == _VERIFY:
            self._begin_run()
        elif self.run is None and space.full:
            space.restart()
        elif self.run is None and space.closed:
            space.append(self._draw())

    def missed_eigenvalue_bound(self) -> float:
        """Return the bound of the last run; infinity without one."""
        if self.run is not None and self._is_random:
            return self.run.missed_eigenvalue_bound()
        space = self.space
        if space.n_used < space.size or space.scale == 0.0:
            return np.inf
        return space.residual_norm() / space.scale + ROUNDING_UNITS * space.precision

    def _begin_run(self) -> None:
        space = self.space
        self._n_steps = max(10, space.n_matvecs // 3) if self._n_verify is None else self._n_verify
        if self.run is None:
            more = select(space.values, self._one_more)
            left_out = np.setdiff1d(more, space.wanted())
            self.next_vector = space.vectors(left_out)[0] if len(left_out) else None
            self._make_room()
        # After a run that has found something: copies are likely.
        start = self._suggested() if self._n_runs and self.run is None else None
        self._is_random = start is None
        self._n_runs += self._is_random
        self.run = VerificationRun(space, self._draw() if start is None else start)

    def _make_room(self) -> None:
        """Keep what is resolved, and make room for a run: of the length wanted, or seven steps."""
        space = self.space
        kept = space.resolved()
        if len(kept) < space.n_used:
            space.restart(kept)
        if space.max_rows - space.n_used - space.n_pending < min(self._n_steps, space.size):
            space.restart(space.wanted())
            space.drop_pending(max(1, space.max_rows - space.n_used - 8))

    def _suggested(self) -> Vector | None:
        """Return the vector that the surrogate takes for the most wanted one of the complement."""
        if self._surrogate is None:
            return None
        run = VerificationRun(self.space, self._draw())
        while run.n_steps < min(_N_SURROGATE_STEPS, run.max_steps) and not run.closed:
            run.step_with(self._surrogate)
            if not np.isfinite(run.beta):
                return None
        return run.most_wanted_vector()


def _failure_probability(number: int) -> float:
    """Return that of the first, second, ... random run; all sum to FAILURE_PROBABILITY."""
    # Few spectra need a second run.
    return FAILURE_PROBABILITY * (0.75 if number == 1 else 0.25 / (number * (number - 1)))


def _iterate(
    search: _Search,
    operator: Operator,
    budget: int,
    reserve: int,  # for a verification run that is under way when the budget ends
    agree: Callable[[Vector], Vector],
    callback: Callback | None,
) -> tuple[bool, bool]:
    """Make products until the search has finished or something ends it; return which of the two."""
    space = search.space
    with deferred_interrupt() as asked_to_stop:
        while True:
            interrupted = False
            try:
                search.step(operator)
            except KeyboardInterrupt:
                if space.n_used == 0:
                    raise
                interrupted = True
            interrupted = interrupted or asked_to_stop()
            over = space.n_matvecs >= budget + (reserve if search.run is not None else 0)
            if not (search.due or interrupted or over):
                continue
            decision = search.decide()
            if callback is not None:
                seen = space.wanted()
                interrupted |= bool(
                    callback(space.n_matvecs, space.values[seen], space.residuals[seen])
                )
            decision, found, stopped, ended = _agreed(
                agree, decision, search.has_found(), interrupted, interrupted or over
            )
            if decision == _ABSORB or (ended and found):
                search.absorb()
                (decision,) = _agreed(agree, search.decide())
            if decision == _FINISH or ended:
                return decision == _FINISH, bool(stopped)
            try:
                search.prepare(decision)
            except KeyboardInterrupt:  # in a product of the surrogate
                return False, True


def _agreed(agree: Callable[[Vector], Vector], *decisions: int) -> tuple[int, ...]:
    """Return the decisions of the first process."""
    return tuple(int(one) for one in agree(np.array(decisions, dtype=np.float64)))


def dense_eigenpairs(
    operator: Operator,
    size: int,
    *,
    n_pairs: int,
    which: str = "largest",
    precision: float = 2.3e-16,
) -> RitzPairs:
    """Return the wanted eigenpairs from the explicit matrix, which takes ``size`` products.

    Parameters
    ----------
    operator : callable
        Maps a float64 array of shape (size,) to A times it.
    size : int
        Dimension n of the space; 24 n^2 bytes are needed.
    n_pairs : int
        Number of pairs.
    which : {"largest", "smallest", "magnitude", "both"}, default="largest"
        As for :func:`lanczos`.
    precision : float, default=2.3e-16
        As for :func:`lanczos`.

    Returns
    -------
    RitzPairs
        Converged to rounding.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.hessian import dense_eigenpairs
    >>> A = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> dense_eigenpairs(A.dot, 2, n_pairs=2, which="smallest").eigenvalues.round(12)
    array([1., 3.])
    """
    _check_ranges(size, n_pairs, which, size, size, 1, None)
    matrix = np.empty((size, size))
    unit = np.zeros(size)
    for row in range(size):
        unit[row] = 1.0
        matrix[row] = operator(unit)
        unit[row] = 0.0
    matrix = (matrix + matrix.T) / 2
    values, vectors = np.linalg.eigh(matrix)
    scale = float(np.abs(values).max())
    wanted = select(values, number_per_end(which, n_pairs))
    rows = np.ascontiguousarray(vectors[:, wanted].T)
    residuals = np.linalg.norm(rows @ matrix - values[wanted, None] * rows, axis=1)
    residuals = np.maximum(residuals, ROUNDING_UNITS * precision * scale)
    return RitzPairs(
        eigenvalues=values[wanted],
        vectors=rows,
        residuals=residuals,
        scale=scale,
        n_matvecs=size,
        converged=True,
        missed_eigenvalue_bound=float(residuals.max()) / scale if scale else 0.0,
        interrupted=False,
        orthogonality_error=_orthogonality_error(rows),
        quadrature=None,
        spectrum=values,
    )


def _orthogonality_error(rows: Vector) -> float:
    return float(np.abs(rows @ rows.T - np.eye(len(rows))).max())


def _check_ranges(
    size: int,
    n_pairs: int,
    which: str,
    max_basis: int,
    budget: int,
    block_size: int,
    n_verify: int | None,
) -> None:
    if which not in WHICH:
        raise ValueError(f"which={which!r} must be one of {WHICH}.")
    if not 1 <= n_pairs <= size:
        raise ValueError(f"n_pairs={n_pairs} must be in [1, {size}], the size of the operator.")
    if budget < n_pairs:
        raise ValueError(
            f"max_matvecs={budget} must be >= n_pairs = {n_pairs}: each pair takes at least one "
            "product. Raise max_matvecs."
        )
    if max_basis < min(size, n_pairs + 8):
        raise ValueError(
            f"max_basis={max_basis} must be >= n_pairs + 8 = {n_pairs + 8}. Raise max_basis."
        )
    most = max(1, max_basis - n_pairs - 4)
    if not 1 <= block_size <= most:
        raise ValueError(
            f"block_size={block_size} must be in [1, {most}]: max_basis - n_pairs - 4. Raise "
            "max_basis."
        )
    if n_verify is not None and n_verify < 1:
        raise ValueError(f"n_verify={n_verify} must be >= 1, or None.")
