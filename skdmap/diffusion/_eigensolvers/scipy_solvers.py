"""Eigensolvers of scipy: the dense decomposition, and ARPACK with missed copies put in.

A Krylov method that starts from one vector can miss copies of a multiple eigenvalue, and residuals
do not show it. So after convergence everything found is deflated, and a further eigenvalue above
the last one found is put in.
"""

import inspect
from contextlib import nullcontext
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

from skdmap._threads import one_thread
from skdmap.diffusion._eigensolvers.eigenproblem import Eigenproblem, Pairs
from skdmap.diffusion._eigensolvers.symmetric_eigh import largest_eigh

# Products before ARPACK gives up, for this many rows; the need grows like the square root.
_MAX_PRODUCTS, _REFERENCE_ROWS = 3000, 5000
# Up to so many rows a dense decomposition has one thread: several wait for each other.
_ONE_THREAD_ROWS = 1500
# From scipy 1.17 on, ARPACK's restarts draw vectors, by default with a seed of the system's.
_DRAWS_RESTARTS = "rng" in inspect.signature(eigsh).parameters


def dense(problem: Eigenproblem) -> Pairs:
    """The upper end of the whole matrix."""
    operator, locked = problem.operator, problem.locked
    n = operator.n_rows
    matrix = operator.kernel.toarray() if sp.issparse(operator.kernel) else operator.kernel.copy()
    if operator.diagonal is not None:
        matrix[np.diag_indices(n)] += operator.diagonal
    matrix -= problem.shift * (locked @ locked.T)
    with one_thread() if n <= _ONE_THREAD_ROWS else nullcontext():
        return largest_eigh(matrix, problem.n_pairs)


def arpack(problem: Eigenproblem) -> Pairs:
    """Implicitly restarted Lanczos to rounding; fewer pairs than wanted where it gives up."""
    # Its vectors are short of what several threads of BLAS pay for.
    with one_thread():
        values, vectors, complete = _eigsh(problem, problem.n_pairs, problem.locked, 0.0)
        return with_missed_copies(problem, (values, vectors)) if complete else (values, vectors)


def with_missed_copies(problem: Eigenproblem, pairs: Pairs) -> Pairs:
    """Deflate what was found, and put in eigenvalues above the last one until no more are left."""
    values, vectors = pairs
    n_pairs, complete = values.size, True
    while complete:
        found = np.hstack([problem.locked, vectors])
        # The look for a missing copy may be coarse: its error in the eigenvalue is squared.
        rough, start, complete = _eigsh(problem, 1, found, 1e-4)
        if rough.size == 0 or rough[0] <= values.min() + 1e-10:
            break
        extra, vector, complete = _eigsh(problem, 1, found, 0.0, start[:, 0])
        if extra.size == 0 or extra[0] <= values.min():
            break
        values = np.append(values, extra)
        vectors = np.hstack([vectors, vector])
        keep = np.argsort(-values, kind="stable")[:n_pairs]
        values, vectors = values[keep], vectors[:, keep]
    return values, vectors


def _eigsh(
    problem: Eigenproblem,
    k: int,
    deflated: NDArray[np.float64],
    tol: float,
    start: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    """ARPACK's k pairs orthogonal to the deflated vectors (n, c), and whether it found all."""
    n = problem.operator.n_rows

    def product(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        flat = vector.reshape(-1)
        return problem.operator.matmat(flat) - problem.shift * (deflated @ (deflated.T @ flat))

    v0 = problem.rng.standard_normal(n) if start is None else start
    v0 = v0 - deflated @ (deflated.T @ v0)
    linear = LinearOperator((n, n), matvec=product, dtype=np.float64)
    ncv = min(n - 1, max(2 * k + 10, 30))
    products = _MAX_PRODUCTS * max(1.0, n / _REFERENCE_ROWS) ** 0.5
    restarts = int(products) // (ncv - k)
    options: dict[str, Any] = {"rng": problem.rng} if _DRAWS_RESTARTS else {}
    try:
        values, vectors = eigsh(
            linear, k=k, which="LA", v0=v0, tol=tol, ncv=ncv, maxiter=restarts, **options
        )
    except ArpackNoConvergence as failure:
        return failure.eigenvalues, failure.eigenvectors, False
    except ArpackError:
        return np.empty(0), np.empty((n, 0)), False
    return values, vectors, True
