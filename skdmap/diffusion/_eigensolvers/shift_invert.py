"""Lanczos on an inverse by sparse factors, for graphs of few dimensions.

S has its wanted eigenvalues close to 1 and close to each other; those of (1 + shift - S)^-1 lie far
apart, so that three dozen steps find ten pairs. Each step solves with triangular factors, which
stay small where the graph can be cut by few rows: along curves, surfaces and trees. In more
dimensions they fill, and other solvers take less time.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import breadth_first_order
from scipy.sparse.linalg import splu

from skdmap._threads import one_thread
from skdmap.diffusion._eigensolvers.block_lanczos import block_lanczos
from skdmap.diffusion._eigensolvers.eigenproblem import Eigenproblem, Pairs, tolerances

Block = NDArray[np.float64]
# Far below the gaps that matter. What it adds to rounding lies along the locked vectors.
_SHIFT = 1e-9
# Residuals of the rough search for a missed copy, relative to the eigenvalues of the inverse; its
# value is off by no more. A copy that exceeds the last pair found by less is not put in.
_ROUGH, _NO_LOSS = 3e-3, 1e-10
_SHARE_OF_TOL = 0.1
_MAX_PRODUCTS = 1000
# Factors pay from so many layers on, and up to so many entries times the mean size of a layer.
_LEAST_LAYERS, _LARGEST_FILL = 16, 4e7


def shift_invert(problem: Eigenproblem) -> Pairs:
    """Residual norms of at most a tenth of the tolerance; copies that one start vector misses are
    put in.
    """
    locked, rng = problem.locked, problem.rng
    with one_thread():
        solve = _factors(problem.operator).solve

        def product(block: Block) -> Block:
            # What rounding adds along the locked vectors, to which the block is orthogonal, grows
            # as 1 / shift.
            found = solve(block)
            return np.asarray(found - locked @ (locked.T @ found))

        def accurate(values: Block) -> Block:
            # Those of S are, relative to the norm of 1 - S, at most as large.
            limits = tolerances(1.0 + _SHIFT - 1.0 / values, problem.tol)
            return _SHARE_OF_TOL / (1.0 - problem.operator.lower_bound) * limits * values

        def rough(values: Block) -> Block:
            return _ROUGH * values

        def leading(n_pairs: int, known: Block, tolerance: Callable[[Block], Block]) -> Pairs:
            return block_lanczos(
                product,
                len(locked),
                n_pairs,
                width=1,
                locked=known,
                tolerance=tolerance,
                rng=rng,
                max_products=max(_MAX_PRODUCTS, 3 * n_pairs),
            )

        values, vectors = leading(problem.n_pairs, locked, accurate)
        errors = np.linalg.norm(product(vectors) - vectors * values, axis=0)
        # Without convergence each of the pairs would be found again, one by one.
        if np.any(errors > rough(values)):
            return 1.0 + _SHIFT - 1.0 / values, vectors
        while values.size + locked.shape[1] < len(locked):
            known = np.hstack([locked, vectors])
            if leading(1, known, rough)[0][0] * (1 + _ROUGH) <= values.min():
                break
            more, vector = leading(1, known, accurate)
            if more[0] <= values.min() * (1 + _NO_LOSS):
                break
            values, vectors = np.append(values, more), np.hstack([vectors, vector])
            kept = np.argsort(-values, kind="stable")[: problem.n_pairs]
            values, vectors = values[kept], vectors[:, kept]
    return 1.0 + _SHIFT - 1.0 / values, vectors


def _factors(operator: Any) -> Any:
    """Factors of 1 + shift - S, which but for scaling is an M-matrix and needs no pivots."""
    rest = 1.0 + _SHIFT - (0.0 if operator.diagonal is None else operator.diagonal)
    diagonal = sp.diags_array(np.full(operator.n_rows, rest), format="csc")
    # S is symmetric: its rows are its columns.
    kernel = sp.csr_array(operator.kernel).T
    try:
        return splu(
            diagonal - kernel,
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            # Columns one by one: wider panels and relaxed supernodes cost more than they gain here.
            relax=1,
            panel_size=1,
            options={"SymmetricMode": True},
        )
    except (RuntimeError, MemoryError) as failure:
        raise np.linalg.LinAlgError(f"No factors of the operator: {failure}") from failure


def has_small_factors(kernel: sp.csr_matrix) -> bool:
    """Whether the rows of a connected kernel lie in many small layers, each of which cuts it."""
    n = kernel.shape[0]
    order, reached_from = breadth_first_order(kernel, 0)
    # Again from a row that is far from the first one: the layers are smaller.
    order, reached_from = breadth_first_order(kernel, order[-1])
    if order.size < n:
        return False
    place = np.empty(n, dtype=np.intp)
    place[order] = np.arange(n)
    # Where the row lies in the order that each one was reached from: it does not fall.
    sources = place[reached_from[order[1:]]]
    first, last, squares = 0, 1, 1
    while last < n:
        first, last = last, 1 + int(np.searchsorted(sources, last))
        squares += (last - first) ** 2
    # Eliminated layer by layer, a row fills at most twice this; the ordering used is better.
    width = squares / n
    return n >= _LEAST_LAYERS * width and kernel.nnz * width <= _LARGEST_FILL
