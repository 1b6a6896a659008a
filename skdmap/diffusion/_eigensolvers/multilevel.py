"""The multilevel eigensolver: LOBPCG steps whose corrections are V-cycles over aggregates.

A block of vectors starts on the coarsest level and is prolonged level by level. On each level a
V-cycle corrects the block on the aggregates (where a product costs a thirtieth, and which are
corrected on theirs), smooths the rest by a Chebyshev filter of low degree, and a LOBPCG step takes
the best of old and new in double precision. So the number of products with the large operator
hardly grows with its rows, where Krylov methods need the square root.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap._threads import blas_threads, one_thread
from skdmap.diffusion._eigensolvers.aggregation import (
    MarkovLevel,
    coarse_levels,
    is_local,
    local_order,
    sparsified,
)
from skdmap.diffusion._eigensolvers.block_lanczos import block_lanczos
from skdmap.diffusion._eigensolvers.chebyshev import Smoother, lower_bound, smoother_of
from skdmap.diffusion._eigensolvers.eigenproblem import (
    Eigenproblem,
    Pairs,
    eigenpairs_of,
    tolerances,
)
from skdmap.diffusion._eigensolvers.rayleigh_ritz import (
    RitzBlock,
    inner,
    lobpcg_step,
    rayleigh_ritz,
)
from skdmap.diffusion._eigensolvers.row_blocks import RowBlocks
from skdmap.diffusion._eigensolvers.symmetric_eigh import largest_eigh

Tolerance = Callable[[NDArray[np.float64]], NDArray[np.float64]]
# Columns of a block are a multiple of this: 16 of single precision fill a line of cache.
_LINE = 16
# Columns that start at random: they find what the coarse levels cannot see.
_RANDOM = 2
# A block that ends among rates 1 - lambda below this times the last one wanted converges slowly.
_CLUSTER = 1.2
_MAX_PRODUCTS = 3000
# What is aimed at, relative to what counts as converged. The last steps gain a factor of up to 10
# each: where ``tol`` decides one more step is cheap. Where the gap to the trivial eigenvalue
# decides, as it does for many rows, a step costs as much as all the rest.
_MARGIN, _MARGIN_OF_TOL = 0.5, 0.2
# Residual norms on coarse levels, relative to 1 - lambda.
_COARSE_ACCURACY = 1e-2
# Where aggregates stay many, a dense decomposition of the coarsest level would cost more than all
# the rest: block Lanczos starts it, with so many blocks at most.
_DENSE_ROWS, _MAX_BLOCKS = 1500, 60
# A correction on the coarsest aggregates need not be more exact than they are.
_COARSE_GAIN = 30.0
# What the smoother damps, and how much: aggregates do not see what varies faster.
_SMOOTH_UPPER, _SMOOTH_DEGREE = 0.8, 5
# Inner levels are corrected once a cycle: there the smoother reaches further, and further still
# where what corrects them is itself corrected: else cycles grow with the number of levels.
_INNER_UPPER, _INNER_DEGREE = 0.97, 32
_DEEP_UPPER, _DEEP_DEGREE = 0.99, 48
# Unsmoothed aggregation makes the rates of smooth modes too large and the correction too small
# (Braess 1995, doi:10.1007/BF02238488), by a factor that the Ritz values of both levels tell; by
# less for modes that are less smooth.
_OVER_CORRECTION, _MOST_OVER_CORRECTION = 0.6, 4.0
# Iterations that gain less than this factor in all are a standstill.
_STALLED, _LEAST_GAIN = 6, 0.7


@dataclass(frozen=True)
class Level:
    """A level, ready to be multiplied."""

    double: RowBlocks  # S
    smoother: Smoother
    locked: NDArray[np.float64]  # (n, c), orthonormal
    # From the next coarser level to this one, and back, in single precision.
    prolongation: sp.csr_matrix | None
    restriction: sp.csr_matrix | None


def multilevel(problem: Eigenproblem) -> Pairs:
    """Residual norms of about a tenth of the tolerance, on several threads."""
    operator = problem.operator
    if not sp.issparse(operator.kernel):
        dense = RowBlocks(operator.kernel, blas_threads(), operator.diagonal)
        root = np.sqrt(operator.stationary)
        found = _solved(problem, sparsified(operator.kernel, root, operator.diagonal), dense)
        checked = eigenpairs_of(problem, found, "multilevel")
        # Masses of very different size: what was left out counts after all.
        if np.all(checked.residuals <= tolerances(checked.values, problem.tol)):
            return found
    matrix = sp.csr_matrix(operator.kernel)
    if operator.diagonal is not None:
        matrix = matrix + sp.diags(operator.diagonal, format="csr")
    return _solved(problem, matrix, None)


def _solved(problem: Eigenproblem, matrix: sp.csr_matrix, dense: RowBlocks | None) -> Pairs:
    """The pairs of ``matrix``, or of ``dense`` by corrections from a matrix near it."""
    tol = problem.tol
    return multilevel_eigenpairs(
        matrix,
        np.sqrt(problem.operator.stationary),
        problem.n_pairs,
        locked=problem.locked,
        tolerance=lambda values: _MARGIN * tolerances(values, tol * _MARGIN_OF_TOL / _MARGIN),
        rng=problem.rng,
        dense=dense,
    )


def multilevel_eigenpairs(
    matrix: sp.csr_matrix,
    root: NDArray[np.float64],
    n_pairs: int,
    *,
    locked: NDArray[np.float64],
    tolerance: Tolerance,
    rng: np.random.Generator,
    dense: RowBlocks | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The leading eigenpairs of S, its diagonal stored, orthogonal to the locked ones (n, c).
    With ``dense`` they are those of ``dense``, and S, which is near it, only corrects.
    """
    # The locked vectors are multiples of ``root`` = sqrt(pi) on each component.
    threads = blas_threads()
    # Rows are shared out among threads here: BLAS would start as many for each of them.
    with one_thread():
        chain, order = coarse_levels(matrix, root, rng), np.arange(root.size)
        if len(chain) == 1 and root.size > _DENSE_ROWS:
            raise np.linalg.LinAlgError(f"{root.size} rows make no aggregates.")
        if dense is None:
            chain, order = _ordered(chain)
        levels = _prepared(chain, locked[order], threads, rng)
        if dense is not None:
            levels[0] = replace(levels[0], double=dense)
        pairs = [_coarsest(levels[-1], n_pairs, rng)]
        for depth in reversed(range(len(levels) - 1)):
            level, aim = levels[depth], _coarse_tolerance if depth else tolerance
            start = partial(_started, level, chain[depth], pairs[0], n_pairs, rng)
            block = _solve_by_cycles(levels[depth:], pairs, start, n_pairs, aim)
            pairs.insert(0, _solve_by_filter(level, block, n_pairs, aim))
    vectors = np.empty((root.size, n_pairs))
    vectors[order] = pairs[0].vectors[:, :n_pairs]
    return pairs[0].values[:n_pairs], vectors


def _ordered(levels: list[MarkovLevel]) -> tuple[list[MarkovLevel], NDArray[np.intp]]:
    """Put the rows of the first level in an order that suits the cache, unless they are in one."""
    first = levels[0]
    if is_local(first.matrix):
        return levels, np.arange(first.root.size)
    order = local_order(levels)
    rank = np.empty(order.size, dtype=first.matrix.indices.dtype)
    rank[order] = np.arange(order.size, dtype=rank.dtype)
    rows = first.matrix[order]
    moved = sp.csr_matrix(rows.shape, dtype=rows.dtype)
    moved.data, moved.indices, moved.indptr = rows.data, rank[rows.indices], rows.indptr
    member = None if first.member is None else first.member[order]
    return [MarkovLevel(moved, first.root[order], member), *levels[1:]], order


def _prepared(
    chain: list[MarkovLevel],
    locked: NDArray[np.float64],
    threads: int,
    rng: np.random.Generator,
) -> list[Level]:
    levels = []
    lower = lower_bound(RowBlocks(chain[0].matrix, threads), rng)
    for level in chain:
        down = None if level.member is None else level.prolongation()
        levels.append(
            Level(
                double=RowBlocks(level.matrix, threads),
                smoother=smoother_of(level, lower, threads),
                locked=locked,
                prolongation=None if down is None else down.astype(np.float32),
                restriction=None if down is None else down.T.tocsr().astype(np.float32),
            )
        )
        locked = locked if down is None else down.T @ locked
    return levels


def _coarsest(level: Level, n_pairs: int, rng: np.random.Generator) -> RitzBlock:
    """Pairs of the coarsest level, as many as a block is wide."""
    n, locked = level.locked.shape[0], level.locked
    take = min(_width(n_pairs) + _LINE, n - locked.shape[1])
    if n > _DENSE_ROWS:
        values, vectors = block_lanczos(
            level.double.__matmul__,
            n,
            take,
            width=_LINE,
            locked=locked,
            n_exact=n_pairs,
            tolerance=_coarse_tolerance,
            rng=rng,
            max_products=_MAX_BLOCKS * _LINE,
        )
    else:
        dense = level.double @ np.eye(n)
        values, vectors = largest_eigh(dense - 3.0 * (locked @ locked.T), take)
        values, vectors = values[::-1], vectors[:, ::-1]
    width = min(take, _width(n_pairs, 1.0 - values))
    vectors = vectors[:, :width]
    return RitzBlock(values[:width], vectors, np.zeros_like(vectors), np.zeros(width))


def _width(n_pairs: int, rates: NDArray[np.float64] | None = None) -> int:
    """Columns of a block: a line more where ``rates`` (k,), 1 - lambda, say that it would end among
    rates like the last one wanted, and then would not.
    """
    width = _LINE * int(np.ceil((n_pairs + _RANDOM + 3) / _LINE))
    if rates is None or rates.size < width + _LINE:
        return width
    last = max(float(rates[n_pairs - 1]), np.finfo(float).tiny)
    near, far = rates[[width - 1 - _RANDOM, width + _LINE - 1 - _RANDOM]] / last
    return width + _LINE if near < _CLUSTER and far > _CLUSTER**2 else width


def _with_random(
    start: NDArray[np.float64], n_pairs: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Replace the last columns by random ones, and fill up the block."""
    width = max(_width(n_pairs), start.shape[1])
    kept = start[:, : width - _RANDOM]
    more = rng.standard_normal((start.shape[0], width - kept.shape[1]))
    return np.hstack([kept, more])


def _started(
    level: Level, lumped: MarkovLevel, coarse: RitzBlock, n_pairs: int, rng: np.random.Generator
) -> RitzBlock:
    """The block of the next coarser level, on this one."""
    start = _with_random(lumped.prolongation() @ coarse.vectors, n_pairs, rng)
    return _full_block(level, start, rng)


def _full_block(level: Level, block: NDArray[np.float64], rng: np.random.Generator) -> RitzBlock:
    """Ritz pairs of a block; columns that depend on others are replaced by random ones."""
    pairs = rayleigh_ritz(level.double, block, level.locked)
    lost = min(block.shape[1], level.locked.shape[0] - level.locked.shape[1]) - pairs.values.size
    if lost > 0:
        more = rng.standard_normal((block.shape[0], lost))
        pairs = rayleigh_ritz(level.double, np.hstack([pairs.vectors, more]), level.locked)
    return pairs


def _coarse_tolerance(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(_COARSE_ACCURACY * (1.0 - values), 1e-12)


def _excess(pairs: RitzBlock, n_pairs: int, tolerance: Tolerance) -> NDArray[np.float64]:
    """Residual norms over their tolerance; 1 or less is converged."""
    return pairs.norms[:n_pairs] / tolerance(pairs.values[:n_pairs])


def _unwanted(values: NDArray[np.float64]) -> float:
    """What the block does not hold lies below; the random columns do not count."""
    return float(values[-1 - _RANDOM])


def _solve_by_cycles(
    levels: list[Level],
    coarser: list[RitzBlock],
    start: Callable[[], RitzBlock],
    n_pairs: int,
    tolerance: Tolerance,
) -> RitzBlock:
    """Iterate with corrections by V-cycles."""

    def correct(pairs: RitzBlock) -> tuple[NDArray[np.float32], int] | None:
        if any(block.values.size != pairs.values.size for block in coarser):
            return None  # too few aggregates to correct all columns
        found = _v_cycle(levels, [pairs, *coarser], pairs.residuals, n_pairs)
        return found, _SMOOTH_DEGREE + 1

    return _iterated(levels[0], start, n_pairs, tolerance, correct)


def _solve_by_filter(
    level: Level, pairs: RitzBlock, n_pairs: int, tolerance: Tolerance
) -> RitzBlock:
    """Iterate with corrections by a polynomial of as high a degree as is needed."""
    smoother = level.smoother

    def correct(pairs: RitzBlock) -> tuple[NDArray[np.float32], int]:
        gain = np.clip(3.0 * _excess(pairs, n_pairs, tolerance), 1.0, 1e4)
        unwanted = _unwanted(pairs.values)
        degree = smoother.full_degree(pairs.values[:n_pairs], gain, unwanted)
        found = smoother.correction(pairs.values, pairs.residuals, degree=degree, unwanted=unwanted)
        return found, degree

    return _iterated(level, lambda: pairs, n_pairs, tolerance, correct)


def _iterated(
    level: Level,
    start: Callable[[], RitzBlock],
    n_pairs: int,
    tolerance: Tolerance,
    correct: Callable[[RitzBlock], tuple[NDArray[np.float32], int] | None],
) -> RitzBlock:
    """LOBPCG steps until convergence or a standstill; ``correct`` also returns its products."""
    # Nobody else holds the blocks of many rows: they are freed as soon as a step replaces them.
    pairs, products, stalled = start(), 0, 0
    vectors = pairs.vectors
    excess = least = _excess(pairs, n_pairs, tolerance).max()
    while excess > 1.0 and stalled < _STALLED and products < _MAX_PRODUCTS:
        with np.errstate(over="ignore", invalid="ignore"):
            found = correct(pairs)
        if found is None:
            break
        corrections, made = found
        # The bound below S is not certain: what lies lower may outgrow single precision.
        corrections[:, ~np.isfinite(corrections).all(axis=0)] = 0.0
        pairs = lobpcg_step(level.double, pairs, corrections, level.locked)
        products += made
        excess = _excess(pairs, n_pairs, tolerance).max()
        stalled = 0 if excess < _LEAST_GAIN * least else stalled + 1
        if excess < least:
            vectors, least = pairs.vectors, excess
    if not products:
        return pairs
    del pairs
    # Anew in double precision: what was found in many steps has drifted off orthonormality.
    return rayleigh_ritz(level.double, vectors, level.locked)


def _v_cycle(
    levels: list[Level],
    blocks: list[RitzBlock],
    residuals: NDArray[np.floating],
    n_pairs: int,
    *,
    inner_level: bool = False,
) -> NDArray[np.float32]:
    """What (lambda - S)^-1 makes of residuals (n, b), roughly, but for what the block holds."""
    level, values = levels[0], blocks[0].values
    smoother, unwanted = level.smoother, _unwanted(values)
    if len(levels) == 1:
        gain = np.full(n_pairs, _COARSE_GAIN)
        degree = smoother.full_degree(values[:n_pairs], gain, unwanted)
        return smoother.correction(values, residuals, degree=degree, unwanted=unwanted)
    assert level.prolongation is not None
    assert level.restriction is not None
    restricted = level.restriction @ residuals.astype(np.float32)
    # Random columns hold no eigenvectors: the residual keeps its part in them.
    held = blocks[1].vectors[:, :-_RANDOM]
    restricted -= held @ inner(held, restricted, level.double.n_threads)
    coarse = _v_cycle(levels[1:], blocks[1:], restricted, n_pairs, inner_level=True)
    coarse *= np.float32(1.0 + _OVER_CORRECTION * (_rate_ratio(blocks, n_pairs) - 1.0))
    correction = np.asarray(level.prolongation @ coarse)
    rest = smoother.residuals_after(correction, values, residuals)
    upper, degree = _SMOOTH_UPPER, _SMOOTH_DEGREE
    if inner_level:
        deep = len(levels) > 2
        upper = _DEEP_UPPER if deep else _INNER_UPPER
        degree = _DEEP_DEGREE if deep else _INNER_DEGREE
    correction += smoother.correction(values, rest, degree=degree, unwanted=unwanted, upper=upper)
    return correction


def _rate_ratio(blocks: list[RitzBlock], n_pairs: int) -> float:
    """1 - lambda on the aggregates over that on the rows."""
    fine, coarse = (1.0 - block.values[:n_pairs] for block in blocks[:2])
    ratio = np.median(coarse / np.maximum(fine, np.finfo(float).tiny))
    return float(np.clip(ratio, 1.0, _MOST_OVER_CORRECTION))
