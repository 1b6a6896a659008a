"""Markov operator in, leading eigenpairs out, each with its residual.

The locked eigenvectors are deflated exactly. A Krylov method that starts from one vector can miss
the copies of a multiple eigenvalue, and residuals do not show it: so after convergence everything
found is deflated, and a further eigenvalue above the last one found is put in.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh, lobpcg
from threadpoolctl import threadpool_limits

from skdmap.diffusion._eigensolvers.block_lanczos import block_lanczos
from skdmap.diffusion._eigensolvers.multilevel import multilevel_eigenpairs
from skdmap.diffusion._eigensolvers.row_blocks import RowBlocks, blas_threads
from skdmap.diffusion._markov import MarkovOperator

# Up to this size a dense decomposition is as fast as any iteration.
_DENSE_ROWS = 1500
# Columns of a Lanczos block: a product with so many costs little more than with one. With less than
# half of them a spectrum that is hard takes half as long again.
_NARROWEST_BLOCK, _WIDEST_BLOCK = 8, 16
# Blocks that Lanczos multiplies before another method takes over: 10 to 130 will do but where many
# eigenvalues lie within 1e-6 of 1.
_MOST_BLOCKS = 200
# A dense kernel of more rows is not copied to the sparse form that the multilevel method takes.
_SPARSE_COPY_ROWS = 12_000
_ROUNDING = 1e-12
# Up to this size the dense decomposition, of seconds, comes to the rescue of an iteration that has
# made so many products; for more rows their number grows like the square root, as the need does.
_DENSE_LIMIT = 5000
_MOST_PRODUCTS = 3000
# What the multilevel method goes for, beside what counts as converged. Its last steps gain a factor
# of up to 10 each: beside ``tol`` one more step is cheap. Where the distance to the trivial
# eigenvalue decides, as it does for many rows, a step costs as much as all the rest.
_MARGIN, _MARGIN_OF_TOL = 0.5, 0.2
# Fewer rows than this for each pair wanted: dense.
_LEAST_ROWS_A_PAIR = 5
_Solver = Callable[
    [MarkovOperator, int, NDArray[np.float64], float, float, np.random.Generator],
    tuple[Any, Any],
]


def _dense(
    operator: MarkovOperator,
    n_pairs: int,
    locked: NDArray[np.float64],
    shift: float,
    tol: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    n = operator.n_rows
    matrix = operator.kernel.toarray() if sp.issparse(operator.kernel) else operator.kernel.copy()
    if operator.diagonal is not None:
        matrix[np.diag_indices(n)] += operator.diagonal
    matrix -= shift * (locked @ locked.T)
    # All at once is faster than a part of the spectrum when the part is large.
    subset = None if n_pairs > n // 3 else (n - n_pairs, n - 1)
    values, vectors = scipy.linalg.eigh(
        matrix, subset_by_index=subset, overwrite_a=True, check_finite=False
    )
    return values[-n_pairs:], vectors[:, -n_pairs:]


def _lanczos(
    operator: MarkovOperator,
    n_pairs: int,
    locked: NDArray[np.float64],
    shift: float,
    tol: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # No wanted eigenvalue has more copies than there are pairs.
    width = min(max(n_pairs + 2, _NARROWEST_BLOCK), _WIDEST_BLOCK)
    matrix = operator.kernel.tocsr() if sp.issparse(operator.kernel) else operator.kernel
    kernel = RowBlocks(matrix, blas_threads())

    def product(block: NDArray[np.float64]) -> NDArray[np.float64]:
        result = kernel @ block
        if operator.diagonal is not None:
            result += operator.diagonal[:, None] * block
        return result

    # Only products are worth several threads: for a block of few columns BLAS takes up to ten times
    # as long with two, those of numpy and of scipy waiting for each other.
    with threadpool_limits(limits=1, user_api="blas"):
        values, vectors = block_lanczos(
            product,
            operator.n_rows,
            n_pairs,
            width=width,
            locked=locked,
            tol=_ROUNDING,
            rng=rng,
            max_products=_MOST_BLOCKS * width,
        )
    if width < n_pairs:
        return _with_missed_copies(operator, values, vectors, locked, shift, rng)
    return values, vectors


def _arpack(
    operator: MarkovOperator,
    n_pairs: int,
    locked: NDArray[np.float64],
    shift: float,
    tol: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values, vectors, complete = _eigsh(operator, n_pairs, locked, shift, 0.0, rng)
    if complete:
        values, vectors = _with_missed_copies(operator, values, vectors, locked, shift, rng)
    return values, vectors


def _lobpcg(
    operator: MarkovOperator,
    n_pairs: int,
    locked: NDArray[np.float64],
    shift: float,
    tol: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    n = operator.n_rows
    # A few vectors more than wanted speed up the last ones wanted.
    width = min(n_pairs + 4, (n - locked.shape[1]) // _LEAST_ROWS_A_PAIR)
    block = rng.standard_normal((n, width))
    linear = LinearOperator(
        (n, n), matvec=operator.matmat, matmat=operator.matmat, dtype=np.float64
    )
    with warnings.catch_warnings():
        # Residuals are judged, and reported, by the caller.
        warnings.simplefilter("ignore")
        values, vectors = lobpcg(
            linear, block, Y=locked, largest=True, tol=min(tol, 1e-8), maxiter=1000
        )
    keep = np.argsort(-values, kind="stable")[:n_pairs]
    return values[keep], vectors[:, keep]


def _multilevel(
    operator: MarkovOperator,
    n_pairs: int,
    locked: NDArray[np.float64],
    shift: float,
    tol: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    matrix = operator.kernel.tocsr() if sp.issparse(operator.kernel) else None
    if matrix is None:
        matrix = sp.csr_matrix(operator.kernel)
    if operator.diagonal is not None:
        matrix = matrix + sp.diags(operator.diagonal, format="csr")
    return multilevel_eigenpairs(
        matrix,
        np.sqrt(operator.stationary),
        n_pairs,
        locked=locked,
        goal=lambda values: _MARGIN * tolerances(values, tol * _MARGIN_OF_TOL / _MARGIN),
        rng=rng,
    )


_SOLVERS: dict[str, _Solver] = {
    "dense": _dense,
    "lanczos": _lanczos,
    "arpack": _arpack,
    "lobpcg": _lobpcg,
    "multilevel": _multilevel,
}


@dataclass(frozen=True)
class Eigenpairs:
    """Eigenpairs of a symmetric operator, largest first.

    Attributes
    ----------
    values : ndarray of shape (k,)
        Descending.
    vectors : ndarray of shape (n, k)
        Orthonormal.
    residuals : ndarray of shape (k,)
        Norm of S v - lambda v.
    solver : str
        The method that gave them.
    """

    values: NDArray[np.float64]
    vectors: NDArray[np.float64]
    residuals: NDArray[np.float64]
    solver: str


def leading_eigenpairs(
    operator: MarkovOperator,
    n_pairs: int,
    *,
    locked: NDArray[np.float64],
    solver: str = "auto",
    tol: float = 1e-6,
    rng: np.random.Generator,
) -> Eigenpairs:
    """Return the eigenpairs with the largest eigenvalues that are orthogonal to the locked ones.

    Parameters
    ----------
    operator : MarkovOperator
        Symmetric form S.
    n_pairs : int
        k, at most n minus the number of locked vectors.
    locked : ndarray of shape (n, c)
        Orthonormal eigenvectors to leave out.
    solver : {"auto", "dense", "lanczos", "arpack", "lobpcg", "multilevel"}, default="auto"
        "auto": dense when small; else block Lanczos for a dense kernel, ARPACK for a sparse one of
        up to 5000 rows, the multilevel method above. Where it does not converge, dense up to 5000
        rows; above, ARPACK for a sparse kernel, the multilevel method for a dense one of up to
        12,000 rows, then LOBPCG.
    tol : float, default=1e-6
        Residual at which a pair counts as converged (Lanczos and ARPACK go to rounding whatever
        it is).
    rng : Generator
        Start vectors.

    Returns
    -------
    Eigenpairs
        The best that was found, converged or not.
    """
    n = operator.n_rows
    # Below every other eigenvalue goes what is locked.
    shift = 2.0 - operator.lower_bound
    if n_pairs == 0:
        return Eigenpairs(np.empty(0), np.empty((n, 0)), np.empty(0), "none")
    # An iteration that looks for many of few pairs is slower than finding all, and scipy's LOBPCG
    # refuses to.
    if solver == "dense" or n_pairs > (n - locked.shape[1]) // _LEAST_ROWS_A_PAIR:
        methods = ["dense"]
    elif solver != "auto":
        # ARPACK may give up with fewer pairs than wanted; LOBPCG always gives all.
        methods = [solver, "lobpcg"]
    elif n <= _DENSE_ROWS:
        methods = ["dense"]
    else:
        sparse, small = sp.issparse(operator.kernel), n <= _DENSE_LIMIT
        methods = ["arpack" if sparse else "lanczos", "dense" if small else "lobpcg"]
        if not small and (sparse or n <= _SPARSE_COPY_ROWS):
            methods.insert(0 if sparse else 1, "multilevel")
    best: Eigenpairs | None = None
    for method in methods:
        values, vectors = _SOLVERS[method](operator, n_pairs, locked, shift, tol, rng)
        pairs = _sorted_pairs(operator, values, vectors, method)
        if best is None or _badness(pairs, n_pairs) < _badness(best, n_pairs):
            best = pairs
        complete = np.isfinite(_badness(best, n_pairs))
        if complete and (
            solver != "auto" or np.all(best.residuals <= tolerances(best.values, tol))
        ):
            break
    assert best is not None
    return best


def tolerances(values: NDArray[np.float64], tol: float) -> NDArray[np.float64]:
    """Residuals that are small beside both ``tol`` and the distance to the trivial eigenvalue."""
    return np.maximum(1e-12, np.minimum(tol, 1e-2 * (1.0 - values)))


def _badness(pairs: Eigenpairs, n_pairs: int) -> float:
    return float(pairs.residuals.max()) if pairs.values.size == n_pairs else np.inf


def _sorted_pairs(
    operator: MarkovOperator,
    values: NDArray[np.float64],
    vectors: NDArray[np.float64],
    method: str,
) -> Eigenpairs:
    order = np.argsort(-values, kind="stable")
    values, vectors = values[order], np.ascontiguousarray(vectors[:, order])
    residuals = np.linalg.norm(operator.matmat(vectors) - vectors * values, axis=0)
    return Eigenpairs(values, vectors, residuals, method)


def _with_missed_copies(
    operator: MarkovOperator,
    values: NDArray[np.float64],
    vectors: NDArray[np.float64],
    locked: NDArray[np.float64],
    shift: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    n_pairs, complete = values.size, True
    while complete:
        found = np.hstack([locked, vectors])
        # The look for a missing copy may be coarse: its error in the eigenvalue is squared.
        rough, start, complete = _eigsh(operator, 1, found, shift, 1e-4, rng)
        if rough.size == 0 or rough[0] <= values.min() + 1e-10:
            break
        extra, vector, complete = _eigsh(operator, 1, found, shift, 0.0, rng, start[:, 0])
        if extra.size == 0 or extra[0] <= values.min():
            break
        values = np.append(values, extra)
        vectors = np.hstack([vectors, vector])
        keep = np.argsort(-values, kind="stable")[:n_pairs]
        values, vectors = values[keep], vectors[:, keep]
    return values, vectors


def _eigsh(
    operator: MarkovOperator,
    k: int,
    locked: NDArray[np.float64],
    shift: float,
    tol: float,
    rng: np.random.Generator,
    start: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    n = operator.n_rows

    def product(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        flat = vector.reshape(-1)
        return operator.matmat(flat) - shift * (locked @ (locked.T @ flat))

    v0 = rng.standard_normal(n) if start is None else start
    v0 = v0 - locked @ (locked.T @ v0)
    linear = LinearOperator((n, n), matvec=product, dtype=np.float64)
    ncv = min(n - 1, max(2 * k + 10, 30))
    # As many products as rows ask for that have as many neighbours and lie as evenly.
    most = _MOST_PRODUCTS * max(1.0, n / _DENSE_LIMIT) ** 0.5
    restarts = int(most) // (ncv - k)
    try:
        values, vectors = eigsh(linear, k=k, which="LA", v0=v0, tol=tol, ncv=ncv, maxiter=restarts)
    except ArpackNoConvergence as failure:
        return failure.eigenvalues, failure.eigenvectors, False
    except ArpackError:
        return np.empty(0), np.empty((n, 0)), False
    return values, vectors, True
