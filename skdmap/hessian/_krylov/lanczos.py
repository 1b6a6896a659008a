"""Operator -> some of its eigenpairs with residuals; knows no model.

Lanczos with full reorthogonalisation and thick restarts (K. Wu and H. Simon, Thick-restart Lanczos
method for large symmetric eigenvalue problems, SIAM J. Matrix Anal. Appl. 22, 602-616, 2000,
doi:10.1137/S0895479898334605). Departures: the start is a Gaussian vector, so that no eigenvector
of small support is orthogonal to it by chance; and once the residuals are small, a random vector
orthogonal to all of the space joins it for a trial, as one more column of a block would (A. Ruhe,
Implementation aspects of band Lanczos algorithms for computation of eigenvalues of large sparse
symmetric matrices, Math. Comp. 33, 680-687, 1979, doi:10.1090/S0025-5718-1979-0521282-9). So copies
of a multiple eigenvalue are found, and eigenvectors of which the start holds little. Where there is
a surrogate, an operator nearby that is much cheaper, a few steps with it find what to try.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skdmap._interrupt import deferred_interrupt
from skdmap.hessian._krylov.basis import Krylov, Quadrature, quotas_of, select

Vector = NDArray[np.float64]
Operator = Callable[[Vector], Vector]
Callback = Callable[[int, Vector, Vector], object]
WHICH = ("largest", "smallest", "magnitude", "both")


@dataclass(frozen=True)
class RitzPairs:
    """Eigenpairs with their evidence.

    Attributes
    ----------
    eigenvalues : ndarray of shape (k,)
        Most wanted first; with which="both" descending.
    vectors : ndarray of shape (k, n)
        Orthonormal rows.
    residuals : ndarray of shape (k,)
        Norm of A v - lambda v, in units of the eigenvalues. An eigenvalue of A lies within it.
    scale : float
        Largest absolute eigenvalue seen.
    n_matvecs : int
        Products with A.
    converged : bool
        Whether every residual is at most ``tol * scale`` and the values stood still in a trial. It
        speaks of residuals: each value is near an eigenvalue. That no more extreme one was skipped
        is likely, not proven.
    interrupted : bool
        Whether an interrupt or the callback ended the iteration. Then only pairs with small
        residuals are given.
    orthogonality_error : float
        Largest entry of ``vectors @ vectors.T - identity``.
    quadrature : Quadrature or None
        What the products say about the whole spectrum; None for the explicit matrix.
    spectrum : ndarray of shape (n,) or None
        All eigenvalues, ascending; for the explicit matrix only.
    """

    eigenvalues: Vector
    vectors: Vector
    residuals: Vector
    scale: float
    n_matvecs: int
    converged: bool
    interrupted: bool
    orthogonality_error: float
    quadrature: Quadrature | None
    spectrum: Vector | None


def default_basis(n_pairs: int) -> int:
    """Return how many vectors are kept before a thick restart, where memory allows."""
    return max(60, 3 * n_pairs + 20)


def scouted_trial_length(n_pairs: int, *, warm: bool = False) -> int:
    """Return how many products follow with a trial vector that a surrogate found.

    One less for a warm start, six more once something has shown up: copies are likely then.
    Of 240 starts on twelve spectra of small networks, with an eighth of the rows as surrogate, 0, 2
    and 11 skip an eigenvalue among the 5, 10 and 20 largest by more than tol; without a surrogate,
    and with 4, 2 and 0 products more, 0, 3 and 15.
    """
    return max(3 if n_pairs < 5 else 2, 3 * n_pairs // 10 - 1) - warm


def trial_length(n_pairs: int, *, warm: bool = False) -> int:
    """Return how many products follow once the residuals are small.

    Two less for a warm start, from which the wanted eigenvectors are not far. Of 480 starts on
    twelve spectra of a small network, one skipped an eigenvalue among the 10 largest by more than
    tol, none among the 5 largest, 11 among the 20 largest; without a trial 2, none and 26. A copy
    of one of few eigenvalues far above the rest takes three products to show, as a rule.
    """
    few = 4 if n_pairs == 1 else 6 if n_pairs < 10 else 5
    return max(few, 3 + 2 * ((n_pairs + 5) // 10)) - 2 * warm


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
) -> RitzPairs:
    """Return the wanted eigenpairs of a symmetric operator.

    Stops when the residual of every wanted Ritz pair is at most ``tol`` times the largest absolute
    eigenvalue seen, and no value moves by more than that in a trial: a random vector joins the
    space, and products go on for a while with it and with what came before in turn. What the start
    vector holds little of, and further copies of a multiple eigenvalue, show then; each time that
    something shows, the trial starts again with one vector more. A zero operator is a result.

    Parameters
    ----------
    operator : callable
        Maps a float64 array of shape (size,) to A times it.
    size : int
        Dimension n of the space.
    n_pairs : int
        How many pairs, k, in [1, size].
    rng : numpy.random.Generator
        Draws the start vectors.
    which : {"largest", "smallest", "magnitude", "both"}, default="largest"
        Algebraically largest or smallest, of largest absolute value, or half from each end (the odd
        one from the top).
    tol : float, default=1e-3
        See above.
    max_matvecs : int, default=None
        Most products, >= n_pairs; None is ``100 + 30 * n_pairs``.
    max_basis : int, default=None
        Vectors kept, >= n_pairs + 8, 8 n bytes each; None is ``max(60, 3 * n_pairs + 20)``. Beyond
        that, a thick restart.
    start : ndarray of shape (size,) or (n_starts, size), default=None
        Vectors to start from, such as the sum of the eigenvectors of an operator nearby; not zero,
        linearly independent; at most max_basis - n_pairs - 4 are taken. Then ``quadrature`` says
        nothing about the trace. None draws them.
    block_size : int, default=1
        How many vectors are drawn, in [1, max_basis - n_pairs - 4]; for eigenvalues in clusters of
        so many.
    precision : float, default=2.3e-16
        Relative rounding error of a product.
    first_rank : callable, default=None
        Where several processes make the products together: maps an array to that of the first one.
        All drawn vectors and decisions go through it.
    surrogate : callable, default=None
        An operator near to this one and much cheaper, such as the curvature of some of the rows.
        The random vector of a trial is then replaced by what a few of its products hold for most
        wanted among all that is orthogonal to the space. They are not counted as products.
    callback : callable, default=None
        Called as ``callback(n_matvecs, eigenvalues, residuals)`` with what is there after each look
        at the Ritz pairs; a true result ends the iteration.

    Returns
    -------
    RitzPairs
        Converged or not.

    Raises
    ------
    ValueError
        If a parameter is out of range or a product is not finite.
    KeyboardInterrupt
        If it comes before any pair has converged.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.hessian import lanczos
    >>> d = np.r_[np.linspace(0, 1, 300), 5.0, 5.0]
    >>> pairs = lanczos(lambda v: d * v, 302, n_pairs=2, rng=np.random.default_rng(0))
    >>> pairs.converged, pairs.eigenvalues.round(4)
    (True, array([5., 5.]))
    """
    cap = min(size, default_basis(n_pairs) if max_basis is None else max_basis)
    budget = 100 + 30 * n_pairs if max_matvecs is None else max_matvecs
    _check_ranges(size, n_pairs, which, cap, budget, block_size)
    agree = first_rank if first_rank is not None else np.asarray

    def draw() -> Vector:
        return agree(rng.standard_normal(size))

    if start is None:
        starts = np.stack([draw() for _ in range(min(block_size, size))])
    else:
        starts = np.atleast_2d(agree(np.asarray(start, dtype=np.float64)))
        starts = starts[: max(1, cap - n_pairs - 4)]
    state = Krylov(size, cap, quotas_of(which, n_pairs), tol, precision, draw, starts, surrogate)
    warm = start is not None
    lengths = trial_length(n_pairs, warm=warm), scouted_trial_length(n_pairs, warm=warm)
    settled, interrupted = _iterate(state, operator, budget, lengths, agree, callback)
    wanted = state.wanted()
    if interrupted:
        wanted = wanted[state.residuals[wanted] <= tol * state.scale]
        if len(wanted) == 0:
            raise KeyboardInterrupt
    rows = state.vectors(wanted)
    return RitzPairs(
        eigenvalues=state.values[wanted],
        vectors=rows,
        residuals=state.residuals[wanted],
        scale=state.scale,
        n_matvecs=state.n_matvecs,
        converged=settled,
        interrupted=interrupted and not settled,
        orthogonality_error=_orthogonality_error(rows),
        quadrature=state.quadrature(),
        spectrum=None,
    )


def _iterate(
    state: Krylov,
    operator: Operator,
    budget: int,
    n_trial: tuple[int, int],
    agree: Callable[[Vector], Vector],
    callback: Callback | None,
) -> tuple[bool, bool]:
    """Make products until all is settled, or something ends it; return which of the two."""
    with deferred_interrupt() as asked_to_stop:
        while True:
            interrupted = False
            try:
                state.extend(operator)
            except KeyboardInterrupt:
                if state.n_used == 0:
                    raise
                interrupted = True
            interrupted = interrupted or asked_to_stop()
            over = interrupted or state.n_matvecs >= budget
            if not (state.due or state.closed or state.full or over):
                continue
            state.solve()
            settled = state.settled(*n_trial)
            if callback is not None:
                seen = state.wanted()
                interrupted |= bool(
                    callback(state.n_matvecs, state.values[seen], state.residuals[seen])
                )
            decision = agree(np.array([settled, interrupted, over], dtype=np.float64))
            settled, interrupted, over = (bool(flag) for flag in decision)
            if settled or interrupted or over:
                return settled, interrupted
            try:
                state.prepare()
            except KeyboardInterrupt:  # in a product of the surrogate
                state.solve()
                return False, True


def dense_eigenpairs(
    operator: Operator, size: int, *, n_pairs: int, which: str = "largest"
) -> RitzPairs:
    """Return the wanted eigenpairs from the explicit matrix, ``size`` products.

    Parameters
    ----------
    operator : callable
        Maps a float64 array of shape (size,) to A times it.
    size : int
        Dimension n of the space; 24 n^2 bytes are needed.
    n_pairs : int
        How many pairs.
    which : {"largest", "smallest", "magnitude", "both"}, default="largest"
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
    _check_ranges(size, n_pairs, which, size, size, 1)
    matrix = np.empty((size, size))
    unit = np.zeros(size)
    for row in range(size):
        unit[row] = 1.0
        matrix[row] = operator(unit)
        unit[row] = 0.0
    matrix = (matrix + matrix.T) / 2
    values, vectors = np.linalg.eigh(matrix)
    wanted = select(values, quotas_of(which, n_pairs))
    rows = np.ascontiguousarray(vectors[:, wanted].T)
    residuals = np.linalg.norm(rows @ matrix - values[wanted, None] * rows, axis=1)
    return RitzPairs(
        eigenvalues=values[wanted],
        vectors=rows,
        residuals=residuals,
        scale=float(np.abs(values).max()),
        n_matvecs=size,
        converged=True,
        interrupted=False,
        orthogonality_error=_orthogonality_error(rows),
        quadrature=None,
        spectrum=values,
    )


def _orthogonality_error(rows: Vector) -> float:
    return float(np.abs(rows @ rows.T - np.eye(len(rows))).max())


def _check_ranges(
    size: int, n_pairs: int, which: str, cap: int, budget: int, block_size: int
) -> None:
    if which not in WHICH:
        raise ValueError(f"which={which!r} must be one of {WHICH}.")
    if not 1 <= n_pairs <= size:
        raise ValueError(f"n_pairs={n_pairs} must be in [1, {size}], the size of the operator.")
    if budget < n_pairs:
        raise ValueError(f"max_matvecs={budget} must be >= the {n_pairs} pairs wanted.")
    if cap < min(size, n_pairs + 8):
        raise ValueError(f"max_basis={cap} must be >= n_pairs + 8 = {n_pairs + 8}.")
    if not 1 <= block_size <= max(1, cap - n_pairs - 4):
        raise ValueError(
            f"block_size={block_size} must be in [1, {max(1, cap - n_pairs - 4)}]: max_basis - "
            "n_pairs - 4. Raise max_basis."
        )
