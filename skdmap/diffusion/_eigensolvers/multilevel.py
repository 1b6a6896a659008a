"""A large sparse operator in, its leading eigenpairs out, over levels of aggregates of its rows.

A block of vectors starts on the coarsest level and is carried up. On each level a cycle corrects
the block on the aggregates (where a product costs a thirtieth, and which are corrected on theirs),
smooths the rest by a Chebyshev filter of low degree, and takes the best of old and new by
Rayleigh-Ritz in double precision. So the number of products with the large operator hardly grows
with its rows, where Krylov methods need the square root.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from skdmap.diffusion._eigensolvers.aggregation import Level, coarse_levels, is_local, local_order
from skdmap.diffusion._eigensolvers.chebyshev import Smoother, lower_bound, smoother_of
from skdmap.diffusion._eigensolvers.rayleigh_ritz import (
    RitzBlock,
    first_ritz_block,
    inner,
    wider_ritz_block,
)
from skdmap.diffusion._eigensolvers.row_blocks import RowBlocks, blas_threads

Goal = Callable[[NDArray[np.float64]], NDArray[np.float64]]
# Columns of a block are a multiple of this: 16 of single precision fill a line of cache.
_LINE = 16
# Columns that start at random: what the coarse levels cannot see is found by them.
_RANDOM = 2
_MOST_PRODUCTS = 3000
# Residuals on coarse levels, relative to 1 - lambda.
_COARSE_ACCURACY = 1e-2
# A correction on the aggregates need not be more exact than they are.
_COARSE_GAIN = 30.0
# What the smoother damps, and how much: aggregates do not see what varies faster.
_SMOOTH_UPPER, _SMOOTH_DEGREE = 0.8, 5
# Inner levels are corrected once a cycle: there the smoother reaches further, and further still
# where what corrects them is itself corrected: else cycles grow with the number of levels.
_INNER_UPPER, _INNER_DEGREE = 0.97, 32
_DEEP_UPPER, _DEEP_DEGREE = 0.99, 48
# Steps between aggregates make the rates of smooth modes too large, and the correction too small,
# by a factor that the Ritz values of both levels tell; by less for modes that are less smooth.
_REPAIRED, _MOST_RATIO = 0.6, 4.0
# Cycles that gain less than this factor in all are a standstill.
_STALLED, _LEAST_GAIN = 6, 0.7


@dataclass(frozen=True)
class Solver:
    """A level, ready to be multiplied.

    Attributes
    ----------
    double : RowBlocks
        S.
    smoother : Smoother
        Of its errors.
    locked : ndarray of shape (n, c)
        Orthonormal eigenvectors to leave out.
    prolongation, restriction : csr_matrix or None
        From the next coarser level to this one, and back, in single precision.
    """

    double: RowBlocks
    smoother: Smoother
    locked: NDArray[np.float64]
    prolongation: sp.csr_matrix | None
    restriction: sp.csr_matrix | None


def multilevel_eigenpairs(
    matrix: sp.csr_matrix,
    root: NDArray[np.float64],
    n_pairs: int,
    *,
    locked: NDArray[np.float64],
    goal: Goal,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the leading eigenpairs orthogonal to the locked ones.

    Parameters
    ----------
    matrix : csr_matrix of shape (n, n)
        S, its diagonal stored.
    root : ndarray of shape (n,)
        sqrt(pi).
    n_pairs : int
        k.
    locked : ndarray of shape (n, c)
        Orthonormal eigenvectors that are multiples of ``root`` on each component.
    goal : callable
        From eigenvalues to the residuals that will do.
    rng : Generator
        Of aggregates and start vectors.

    Returns
    -------
    values : ndarray of shape (k,)
        Descending.
    vectors : ndarray of shape (n, k)
        The best found.
    """
    threads = blas_threads()
    # Rows are shared out among threads here: BLAS would start as many for each of them.
    with threadpool_limits(limits=1, user_api="blas"):
        levels, order = _ordered(coarse_levels(matrix, root, rng))
        solvers = _solvers(levels, locked[order], threads, rng)
        pairs = [_coarsest(levels[-1], solvers[-1].locked, n_pairs)]
        for depth in reversed(range(len(solvers) - 1)):
            solver, aim = solvers[depth], _coarse_goal if depth else goal
            start = _with_random(levels[depth].prolongation() @ pairs[0].vectors, n_pairs, rng)
            block = _full_block(solver, start, rng)
            block = _cycled(solvers[depth:], pairs, block, n_pairs, aim)
            pairs.insert(0, _filtered(solver, block, n_pairs, aim))
    vectors = np.empty((root.size, n_pairs))
    vectors[order] = pairs[0].vectors[:, :n_pairs]
    return pairs[0].values[:n_pairs], vectors


def _ordered(levels: list[Level]) -> tuple[list[Level], NDArray[np.intp]]:
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
    return [Level(moved, first.root[order], member), *levels[1:]], order


def _solvers(
    levels: list[Level], locked: NDArray[np.float64], threads: int, rng: np.random.Generator
) -> list[Solver]:
    solvers = []
    lower = lower_bound(RowBlocks(levels[0].matrix, threads), rng)
    for level in levels:
        down = None if level.member is None else level.prolongation()
        solvers.append(
            Solver(
                double=RowBlocks(level.matrix, threads),
                smoother=smoother_of(level, lower, threads),
                locked=locked,
                prolongation=None if down is None else down.astype(np.float32),
                restriction=None if down is None else down.T.tocsr().astype(np.float32),
            )
        )
        locked = locked if down is None else down.T @ locked
    return solvers


def _width(n_pairs: int) -> int:
    return _LINE * int(np.ceil((n_pairs + _RANDOM + 3) / _LINE))


def _coarsest(level: Level, locked: NDArray[np.float64], n_pairs: int) -> RitzBlock:
    n = level.root.size
    take = min(_width(n_pairs), n - locked.shape[1])
    values, vectors = scipy.linalg.eigh(
        level.matrix.toarray() - 3.0 * (locked @ locked.T), subset_by_index=(n - take, n - 1)
    )
    values, vectors = values[::-1], vectors[:, ::-1]
    return RitzBlock(values, vectors, np.zeros_like(vectors), np.zeros(take))


def _with_random(
    start: NDArray[np.float64], n_pairs: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Replace the last columns by random ones, and fill up the block."""
    kept = start[:, : _width(n_pairs) - _RANDOM]
    more = rng.standard_normal((start.shape[0], _width(n_pairs) - kept.shape[1]))
    return np.hstack([kept, more])


def _full_block(solver: Solver, block: NDArray[np.float64], rng: np.random.Generator) -> RitzBlock:
    """Ritz pairs of a block; columns that it has in name only are replaced by random ones."""
    pairs = first_ritz_block(solver.double, block, solver.locked)
    lost = min(block.shape[1], solver.locked.shape[0] - solver.locked.shape[1]) - pairs.values.size
    if lost > 0:
        more = rng.standard_normal((block.shape[0], lost))
        pairs = first_ritz_block(solver.double, np.hstack([pairs.vectors, more]), solver.locked)
    return pairs


def _coarse_goal(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(_COARSE_ACCURACY * (1.0 - values), 1e-12)


def _need(pairs: RitzBlock, n_pairs: int, goal: Goal) -> NDArray[np.float64]:
    """Residuals in units of what will do; 1 or less is converged."""
    return pairs.residuals[:n_pairs] / goal(pairs.values[:n_pairs])


def _unwanted(values: NDArray[np.float64]) -> float:
    """What the block does not hold lies below; the random columns have no say in it."""
    return float(values[-1 - _RANDOM])


def _cycled(
    solvers: list[Solver], below: list[RitzBlock], pairs: RitzBlock, n_pairs: int, goal: Goal
) -> RitzBlock:
    """Correct on the coarser levels, and smooth."""
    if any(block.values.size != pairs.values.size for block in below):
        return pairs  # too few aggregates to correct all columns

    def step(pairs: RitzBlock) -> tuple[NDArray[np.float32], int]:
        return _correction(solvers, [pairs, *below], pairs.errors, n_pairs), _SMOOTH_DEGREE + 1

    return _improved(solvers[0], pairs, n_pairs, goal, step)


def _filtered(solver: Solver, pairs: RitzBlock, n_pairs: int, goal: Goal) -> RitzBlock:
    """Smooth by a polynomial that does all by itself."""

    def step(pairs: RitzBlock) -> tuple[NDArray[np.float32], int]:
        gain = np.clip(3.0 * _need(pairs, n_pairs, goal), 1.0, 1e4)
        unwanted = _unwanted(pairs.values)
        degree = solver.smoother.full_degree(pairs.values[:n_pairs], gain, unwanted)
        change = solver.smoother.change(
            pairs.values, pairs.errors, degree=degree, unwanted=unwanted
        )
        return change, degree

    return _improved(solver, pairs, n_pairs, goal, step)


def _improved(
    solver: Solver,
    pairs: RitzBlock,
    n_pairs: int,
    goal: Goal,
    step: Callable[[RitzBlock], tuple[NDArray[np.float32], int]],
) -> RitzBlock:
    """Take the best of old and what a step gives, until the residuals will do, or a standstill."""
    best, products, stalled = pairs, 0, 0
    while _need(pairs, n_pairs, goal).max() > 1.0:
        if stalled == _STALLED or products >= _MOST_PRODUCTS:
            break
        with np.errstate(over="ignore", invalid="ignore"):
            change, made = step(pairs)
        # The bound below S is none for certain: what lies lower may outgrow single precision.
        change[:, ~np.isfinite(change).all(axis=0)] = 0.0
        pairs = wider_ritz_block(solver.double, pairs, change, solver.locked)
        products += made
        gained = _need(pairs, n_pairs, goal).max() / _need(best, n_pairs, goal).max()
        stalled = 0 if gained < _LEAST_GAIN else stalled + 1
        if gained < 1.0:
            best = pairs
    if not products:
        return pairs
    # Anew in double precision: what was found in many steps has drifted off orthonormality.
    return first_ritz_block(solver.double, best.vectors, solver.locked)


def _correction(
    solvers: list[Solver],
    blocks: list[RitzBlock],
    errors: NDArray[np.floating],
    n_pairs: int,
    *,
    inside: bool = False,
) -> NDArray[np.float32]:
    """What (lambda - S)^-1 makes of errors, roughly, but for what the block holds."""
    solver, values = solvers[0], blocks[0].values
    smoother, unwanted = solver.smoother, _unwanted(values)
    if len(solvers) == 1:
        gain = np.full(n_pairs, _COARSE_GAIN)
        degree = smoother.full_degree(values[:n_pairs], gain, unwanted)
        return smoother.change(values, errors, degree=degree, unwanted=unwanted)
    assert solver.prolongation is not None
    assert solver.restriction is not None
    error = solver.restriction @ errors.astype(np.float32)
    # Random columns hold no eigenvectors: without them in the error it could not be mended.
    held = blocks[1].vectors[:, :-_RANDOM]
    error -= held @ inner(held, error, solver.double.n_threads)
    deeper = _correction(solvers[1:], blocks[1:], error, n_pairs, inside=True)
    deeper *= np.float32(1.0 + _REPAIRED * (_rate_ratio(blocks, n_pairs) - 1.0))
    change = np.asarray(solver.prolongation @ deeper)
    rest = smoother.errors_after(change, values, errors)
    upper, degree = _SMOOTH_UPPER, _SMOOTH_DEGREE
    if inside:
        deep = len(solvers) > 2
        upper = _DEEP_UPPER if deep else _INNER_UPPER
        degree = _DEEP_DEGREE if deep else _INNER_DEGREE
    change += smoother.change(values, rest, degree=degree, unwanted=unwanted, upper=upper)
    return change


def _rate_ratio(blocks: list[RitzBlock], n_pairs: int) -> float:
    """1 - lambda on the aggregates over that on the rows."""
    fine, coarse = (1.0 - block.values[:n_pairs] for block in blocks[:2])
    ratio = np.median(coarse / np.maximum(fine, np.finfo(float).tiny))
    return float(np.clip(ratio, 1.0, _MOST_RATIO))
