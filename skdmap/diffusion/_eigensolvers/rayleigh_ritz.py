"""Blocks of vectors in, the best eigenpairs in their span out (Rayleigh-Ritz), with residuals.

All work goes through the rows in slices of one size, which are summed in their order: a result
does not depend on the number of threads.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from skdmap.diffusion._eigensolvers.row_blocks import RowBlocks, for_each_rows, row_slices

# Directions that a block hardly has would be rounding.
_NEGLIGIBLE = 1e-7


@dataclass(frozen=True)
class RitzBlock:
    """Approximate eigenpairs, largest first.

    Attributes
    ----------
    values : ndarray of shape (b,)
        Descending.
    vectors : ndarray of shape (n, b)
        Orthonormal.
    errors : ndarray of shape (n, b)
        S v - lambda v.
    residuals : ndarray of shape (b,)
        Norms of these.
    moves : tuple of two ndarrays of shape (n, b), or None
        What the last step added to the vectors, and S times that.
    """

    values: NDArray[np.float64]
    vectors: NDArray[np.float64]
    errors: NDArray[np.float64]
    residuals: NDArray[np.float64]
    moves: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None


def first_ritz_block(
    matrix: RowBlocks, block: NDArray[np.float64], locked: NDArray[np.float64]
) -> RitzBlock:
    """Return the Ritz pairs of the span of a block.

    Parameters
    ----------
    matrix : RowBlocks
        S, in double precision.
    block : ndarray of shape (n, b)
        Any vectors.
    locked : ndarray of shape (n, c)
        Orthonormal; left out of the span.

    Returns
    -------
    RitzBlock
    """
    threads, basis = matrix.n_threads, block
    for _ in range(2):
        basis = basis - locked @ inner(locked, basis, threads)
        basis = basis @ _orthonormalizing(inner(basis, basis, threads))
    product = matrix @ basis
    values, turn = scipy.linalg.eigh(_symmetric(inner(basis, product, threads)))
    values, turn = values[::-1], turn[:, ::-1]
    vectors = basis @ turn
    errors = product @ turn
    errors -= vectors * values
    return RitzBlock(values, vectors, errors, np.linalg.norm(errors, axis=0))


def wider_ritz_block(
    matrix: RowBlocks,
    pairs: RitzBlock,
    change: NDArray[np.floating],
    locked: NDArray[np.float64],
) -> RitzBlock:
    """Return as many Ritz pairs of the span of a block, changes to it, and its last moves.

    With the moves it is the locally optimal method of Knyazev 2001, doi:10.1137/S1064827500366124,
    which gains as conjugate gradients do.

    Parameters
    ----------
    matrix : RowBlocks
        S, in double precision; one product with the changes is made.
    pairs : RitzBlock
        What was found before.
    change : ndarray of shape (n, b)
        Directions to look in.
    locked : ndarray of shape (n, c)
        Orthonormal; left out of the span.

    Returns
    -------
    RitzBlock
    """
    width, threads = pairs.values.size, matrix.n_threads
    basis, product = _directions(matrix, pairs, change, locked)

    def measured(rows: slice) -> NDArray[np.float64]:
        here = basis[rows]
        return np.vstack([here.T @ here, here.T @ product[rows], pairs.errors[rows].T @ here])

    tall = _summed(measured, basis.shape[0], threads)
    size = basis.shape[1]
    turn = _orthonormalizing(tall[:size])
    # The old vectors are orthogonal to the new ones: of S v only the error is left.
    cross = tall[2 * size :] @ turn
    inside = turn.T @ _symmetric(tall[size : 2 * size]) @ turn
    small = np.block([[np.diag(pairs.values), cross], [cross.T, inside]])
    found, parts = scipy.linalg.eigh(small)
    found, parts = found[::-1][:width], parts[:, ::-1][:, :width]
    old, new = parts[:width], turn @ parts[width:]
    rest = pairs.values[:, None] * old - old * found
    shape = (basis.shape[0], width)
    vectors, errors, moves, moved = (np.empty(shape) for _ in range(4))

    def combined(rows: slice) -> NDArray[np.float64]:
        before, step = pairs.vectors[rows], basis[rows] @ new
        moves[rows], moved[rows] = step, product[rows] @ new
        vectors[rows] = before @ old + step
        error = before @ rest + pairs.errors[rows] @ old
        error += moved[rows] - step * found
        errors[rows] = error
        return np.einsum("ij,ij->j", error, error)

    squares = _summed(combined, basis.shape[0], threads)
    return RitzBlock(found, vectors, errors, np.sqrt(squares), (moves, moved))


def _directions(
    matrix: RowBlocks,
    pairs: RitzBlock,
    change: NDArray[np.floating],
    locked: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Changes and last moves without their part in the block, and S times these."""
    n, width = change.shape
    vectors, threads = pairs.vectors, matrix.n_threads
    moves, moved = (None, None) if pairs.moves is None else pairs.moves
    basis = np.empty((n, width if moves is None else width + moves.shape[1]))
    product = np.empty(basis.shape)
    shares = inner(vectors, change, threads)
    told = inner(locked, change, threads)
    old = None if moves is None else inner(vectors, moves, threads)

    def project(rows: slice) -> None:
        basis[rows, :width] = change[rows] - vectors[rows] @ shares - locked[rows] @ told
        if moves is not None and moved is not None and old is not None:
            basis[rows, width:] = moves[rows] - vectors[rows] @ old
            # S v is locked as lambda v and the error.
            product[rows, width:] = moved[rows] - vectors[rows] @ (pairs.values[:, None] * old)
            product[rows, width:] -= pairs.errors[rows] @ old

    for_each_rows(project, n, threads)

    def keep(rows: slice, part: NDArray[np.floating]) -> None:
        product[rows, :width] = part

    matrix.each(np.ascontiguousarray(basis[:, :width]), keep)
    return basis, product


def _orthonormalizing(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """What makes a block orthonormal, from its Gram matrix; near dependences are left out.

    After Stathopoulos & Wu 2002, doi:10.1137/S1064827500370883.
    """
    size = np.sqrt(np.maximum(np.diag(gram), np.finfo(float).tiny))
    scales, turn = scipy.linalg.eigh(gram / np.outer(size, size))
    kept = scales > _NEGLIGIBLE * scales[-1]
    return np.asarray(turn[:, kept] / size[:, None] / np.sqrt(scales[kept]))


def inner(
    left: NDArray[np.floating], right: NDArray[np.floating], n_threads: int
) -> NDArray[np.float64]:
    """Inner products of the columns of two blocks."""
    return _summed(lambda rows: left[rows].T @ right[rows], left.shape[0], n_threads)


def _summed(
    part: Callable[[slice], NDArray[np.float64]], n_rows: int, n_threads: int
) -> NDArray[np.float64]:
    """Sum what each slice of rows gives, in the order of the slices."""
    starts = [rows.start for rows in row_slices(n_rows)]
    found: dict[int, NDArray[np.float64]] = {}

    def work(rows: slice) -> None:
        found[rows.start] = part(rows)

    for_each_rows(work, n_rows, n_threads)
    total = found[starts[0]].copy()
    for start in starts[1:]:
        total += found[start]
    return total


def _symmetric(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * (matrix + matrix.T)
