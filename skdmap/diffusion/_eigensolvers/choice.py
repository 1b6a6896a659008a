"""Markov operator in, leading eigenpairs out: which eigensolver, and which one if it fails.

A solver is a function from an ``Eigenproblem`` to (values, vectors). To add one, write it in a file
of its own, enter it in ``_SOLVERS`` and, where "auto" should use it, in ``_chain``.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackError

from skdmap._threads import one_thread
from skdmap.diffusion._eigensolvers.block_lanczos import lanczos
from skdmap.diffusion._eigensolvers.eigenproblem import (
    Eigenpairs,
    Eigenproblem,
    Pairs,
    eigenpairs_of,
    tolerances,
)
from skdmap.diffusion._eigensolvers.lobpcg import lobpcg
from skdmap.diffusion._eigensolvers.multilevel import multilevel
from skdmap.diffusion._eigensolvers.scipy_solvers import arpack, dense
from skdmap.diffusion._eigensolvers.shift_invert import has_small_factors, shift_invert
from skdmap.diffusion._markov import MarkovOperator

# Up to this size a dense decomposition is as fast as any iteration.
_DENSE_ROWS = 1500
# Up to this size a dense decomposition, of seconds, is what follows an iteration that failed.
_DENSE_LIMIT = 5000
# A dense kernel of more rows is not copied to the sparse form that the multilevel method takes.
_SPARSE_COPY_ROWS = 12_000
# Above this self-loop probability of a median row, few of all pairs count and Krylov methods are
# slow: the multilevel method comes first.
_NARROW = 0.1
# Fewer rows than this for each pair: an iteration is slower than finding all pairs.
_LEAST_ROWS_A_PAIR = 5
# Where no solver of a chain finds all pairs, the dense one is asked, if the matrix fits.
_LAST_RESORT_ROWS = 20_000
# Vectors that overlap more were not found once each.
_ORTHONORMAL = 1e-4

_SOLVERS: dict[str, Callable[[Eigenproblem], Pairs]] = {
    "dense": dense,
    "lanczos": lanczos,
    "arpack": arpack,
    "lobpcg": lobpcg,
    "multilevel": multilevel,
    "shift-invert": shift_invert,
}


def leading_eigenpairs(
    operator: MarkovOperator,
    n_pairs: int,
    *,
    locked: NDArray[np.float64],
    solver: str = "auto",
    tol: float = 1e-6,
    rng: np.random.Generator,
) -> Eigenpairs:
    """The best pairs that the solvers of the chain find, converged or not.
    n_pairs is at most n minus the number of locked eigenvectors (n, c), which are left out.
    """
    problem = Eigenproblem(operator, n_pairs, locked, tol, rng)
    if n_pairs == 0:
        return _no_pairs(problem)
    best = _no_pairs(problem)
    for name in _chain(problem, solver):
        pairs = _attempt(problem, name)
        best = min(best, pairs, key=partial(_worst, problem))
        # A solver that was asked for by name is followed only where it gave too few pairs.
        if np.isfinite(_worst(problem, best)) and (
            solver != "auto" or np.all(best.residuals <= tolerances(best.values, tol))
        ):
            break
    if np.isfinite(_worst(problem, best)):
        return best
    if operator.n_rows > _LAST_RESORT_ROWS:
        raise np.linalg.LinAlgError(
            f"eigen_solver={solver!r} found {best.values.size} of {n_pairs} eigenpairs of "
            f"{operator.n_rows} samples. Lower n_components or raise bandwidth; "
            f"eigen_solver='dense' needs {24e-9 * operator.n_rows**2:.0f} GB."
        )
    return _attempt(problem, "dense")


def _no_pairs(problem: Eigenproblem) -> Eigenpairs:
    return Eigenpairs(np.empty(0), np.empty((problem.operator.n_rows, 0)), np.empty(0), "none")


def _attempt(problem: Eigenproblem, name: str) -> Eigenpairs:
    """What a solver finds; no pairs where it fails. The dense one does not."""
    try:
        return eigenpairs_of(problem, _SOLVERS[name](problem), name)
    except (np.linalg.LinAlgError, ArpackError):
        if name == "dense":
            raise
        return _no_pairs(problem)


def _chain(problem: Eigenproblem, solver: str) -> list[str]:
    """The solvers to try in turn."""
    operator, n = problem.operator, problem.operator.n_rows
    many = problem.n_pairs > (n - problem.locked.shape[1]) // _LEAST_ROWS_A_PAIR
    if solver == "dense" or many or (solver == "auto" and n <= _DENSE_ROWS):
        return ["dense"]
    if solver != "auto":
        # ARPACK may return fewer pairs than wanted.
        return [solver, "lobpcg"]
    sparse = sp.issparse(operator.kernel)
    krylov = "arpack" if sparse else "lanczos"
    direct = ["shift-invert"] if sparse and has_small_factors(operator.kernel) else []
    if n <= _DENSE_LIMIT:
        return [*direct, krylov, "dense"]
    if sparse:
        return [*direct, "multilevel", krylov, "lobpcg"]
    if n > _SPARSE_COPY_ROWS:
        return [krylov, "lobpcg"]
    if np.median(np.diagonal(operator.kernel)) > _NARROW:
        return ["multilevel", krylov, "lobpcg"]
    return [krylov, "multilevel", "lobpcg"]


@one_thread()  # others would wait for more products long after this one
def _worst(problem: Eigenproblem, pairs: Eigenpairs) -> float:
    """The largest residual norm; inf where pairs are missing or not orthonormal."""
    if pairs.values.size != problem.n_pairs or not np.isfinite(pairs.residuals).all():
        return np.inf
    overlap = pairs.vectors.T @ pairs.vectors - np.eye(problem.n_pairs)
    return float(pairs.residuals.max()) if np.abs(overlap).max() < _ORTHONORMAL else np.inf
