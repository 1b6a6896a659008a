"""Operator -> some of its eigenpairs with residuals; knows no model.

Lanczos with full reorthogonalisation and thick restarts (K. Wu and H. Simon, Thick-restart Lanczos
method for large symmetric eigenvalue problems, SIAM J. Matrix Anal. Appl. 22, 602-616, 2000,
doi:10.1137/S0895479898334605). Departures: the start is a Gaussian vector, so that no eigenvector
of small support is orthogonal to it by chance; an invariant subspace is locked before the iteration
goes on in its complement; and it goes on for ten products after the residuals are small.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._krylov import Krylov, quotas_of, select

__all__ = ["WHICH", "RitzPairs", "dense_eigenpairs", "lanczos"]

Vector = NDArray[np.float64]
Operator = Callable[[Vector], Vector]

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
        Whether every residual is at most ``tol * scale`` and the values stood still for ten
        products, or a closed complement of locked pairs holds no wanted pair. It speaks of
        residuals: each value is near an eigenvalue. That no more extreme one was skipped is
        likely, not proven.
    orthogonality_error : float
        Largest entry of ``vectors @ vectors.T - identity``.
    """

    eigenvalues: Vector
    vectors: Vector
    residuals: Vector
    scale: float
    n_matvecs: int
    converged: bool
    orthogonality_error: float


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
    precision: float = 2.3e-16,
) -> RitzPairs:
    """Return the wanted eigenpairs of a symmetric operator.

    Stops when the residual of every wanted Ritz pair is at most ``tol`` times the largest absolute
    eigenvalue seen, and no value has moved by more than that for ten products: a start vector that
    holds little of a wanted eigenvector shows it late. Where the Krylov space closes, the iteration
    restarts at random in the complement, until that shows nothing more that is wanted: so all
    copies of a multiple eigenvalue are found, and a zero operator is a result. Where the wanted
    pairs converge before the space closes, further copies of an exactly multiple eigenvalue are not
    looked for: one start vector shows one copy, and each pair given is right all the same.

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
    precision : float, default=2.3e-16
        Relative rounding error of a product.

    Returns
    -------
    RitzPairs
        Converged or not.

    Raises
    ------
    ValueError
        If a parameter is out of range or a product is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.hessian import lanczos
    >>> d = np.r_[np.linspace(0, 1, 300), 5.0, 5.0]
    >>> pairs = lanczos(lambda v: d * v, 302, n_pairs=1, rng=np.random.default_rng(0))
    >>> pairs.converged, pairs.eigenvalues.round(5)
    (True, array([5.]))
    """
    cap = min(size, max(60, 3 * n_pairs + 20) if max_basis is None else max_basis)
    budget = 100 + 30 * n_pairs if max_matvecs is None else max_matvecs
    _check_ranges(size, n_pairs, which, cap, budget)
    quotas = quotas_of(which, n_pairs)
    state = Krylov(size, cap, quotas, tol, precision, rng)
    while True:
        state.extend(operator)
        out_of_budget = state.n_matvecs >= budget
        if not (state.due or state.closed or state.full or out_of_budget):
            continue
        values, residuals = state.solve()
        converged = state.done(values, residuals)
        if converged or out_of_budget:
            break
        if state.closed:
            state.lock_block(values, residuals)
        elif state.full:
            state.thick_restart(values)
    wanted = select(values, quotas)
    rows = state.vectors(wanted)
    return RitzPairs(
        eigenvalues=values[wanted],
        vectors=rows,
        residuals=residuals[wanted],
        scale=state.scale,
        n_matvecs=state.n_matvecs,
        converged=converged,
        orthogonality_error=_orthogonality_error(rows),
    )


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
    _check_ranges(size, n_pairs, which, size, size)
    matrix = np.empty((size, size))
    for row, unit in enumerate(np.eye(size)):
        matrix[row] = operator(unit)
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
        orthogonality_error=_orthogonality_error(rows),
    )


def _orthogonality_error(rows: Vector) -> float:
    return float(np.abs(rows @ rows.T - np.eye(len(rows))).max())


def _check_ranges(size: int, n_pairs: int, which: str, cap: int, budget: int) -> None:
    if which not in WHICH:
        raise ValueError(f"which={which!r} must be one of {WHICH}.")
    if not 1 <= n_pairs <= size:
        raise ValueError(f"n_pairs={n_pairs} must be in [1, {size}], the size of the operator.")
    if budget < n_pairs:
        raise ValueError(f"max_matvecs={budget} must be >= the {n_pairs} pairs wanted.")
    if cap < min(size, n_pairs + 8):
        raise ValueError(f"max_basis={cap} must be >= n_pairs + 8 = {n_pairs + 8}.")
