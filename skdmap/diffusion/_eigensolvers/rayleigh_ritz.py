"""Rayleigh-Ritz: the best eigenpairs in the span of a block, and the LOBPCG step.

All work goes through the rows in slices of one size, which are summed in their order: a result
does not depend on the number of threads.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skdmap.diffusion._eigensolvers.row_blocks import RowBlocks, for_each_rows, row_slices
from skdmap.diffusion._eigensolvers.symmetric_eigh import largest_eigh

# Directions of less relative size in a block are rounding.
_NEGLIGIBLE = 1e-7


@dataclass(frozen=True)
class RitzBlock:
    """Approximate eigenpairs, largest first."""

    values: NDArray[np.float64]  # (b,)
    vectors: NDArray[np.float64]  # (n, b), orthonormal
    residuals: NDArray[np.float64]  # (n, b), S v - lambda v
    norms: NDArray[np.float64]  # (b,), of the residuals
    # What the last step added to the vectors, and S times that; None before the first.
    directions: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None


def rayleigh_ritz(
    matrix: RowBlocks, block: NDArray[np.float64], locked: NDArray[np.float64]
) -> RitzBlock:
    """The Ritz pairs of the span of a block (n, b), without its part in the locked vectors."""
    threads, basis = matrix.n_threads, block
    for _ in range(2):
        basis = basis - locked @ inner(locked, basis, threads)
        basis = basis @ _orthonormalizing(inner(basis, basis, threads))
    product = matrix @ basis
    values, rotation = largest_eigh(_symmetric(inner(basis, product, threads)))
    values, rotation = values[::-1], rotation[:, ::-1]
    vectors = basis @ rotation
    residuals = product @ rotation
    residuals -= vectors * values
    return RitzBlock(values, vectors, residuals, np.linalg.norm(residuals, axis=0))


def lobpcg_step(
    matrix: RowBlocks,
    pairs: RitzBlock,
    corrections: NDArray[np.floating],
    locked: NDArray[np.float64],
) -> RitzBlock:
    """Ritz pairs of the span of a block, corrections (n, b) to it, and its last directions."""
    # Locally optimal, as conjugate gradients are: Knyazev 2001, doi:10.1137/S1064827500366124.
    width, threads = pairs.values.size, matrix.n_threads
    basis, product = _search_basis(matrix, pairs, corrections, locked)

    def measured(rows: slice) -> NDArray[np.float64]:
        here = basis[rows]
        return np.vstack([here.T @ here, here.T @ product[rows], pairs.residuals[rows].T @ here])

    tall = _summed(measured, basis.shape[0], threads)
    size = basis.shape[1]
    rotation = _orthonormalizing(tall[:size])
    # The old vectors are orthogonal to the new ones: of S v only the residual is left.
    cross = tall[2 * size :] @ rotation
    inside = rotation.T @ _symmetric(tall[size : 2 * size]) @ rotation
    small = np.block([[np.diag(pairs.values), cross], [cross.T, inside]])
    found, parts = largest_eigh(small)
    found, parts = found[::-1][:width], parts[:, ::-1][:, :width]
    old, new = parts[:width], rotation @ parts[width:]
    rest = pairs.values[:, None] * old - old * found
    shape = (basis.shape[0], width)
    vectors, residuals, directions, products = (np.empty(shape) for _ in range(4))

    def combined(rows: slice) -> NDArray[np.float64]:
        before, step = pairs.vectors[rows], basis[rows] @ new
        directions[rows], products[rows] = step, product[rows] @ new
        vectors[rows] = before @ old + step
        residual = before @ rest + pairs.residuals[rows] @ old
        residual += products[rows] - step * found
        residuals[rows] = residual
        return np.einsum("ij,ij->j", residual, residual)

    squares = _summed(combined, basis.shape[0], threads)
    return RitzBlock(found, vectors, residuals, np.sqrt(squares), (directions, products))


def _search_basis(
    matrix: RowBlocks,
    pairs: RitzBlock,
    corrections: NDArray[np.floating],
    locked: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corrections and last directions without their part in the block, and S times these."""
    n, width = corrections.shape
    vectors, threads = pairs.vectors, matrix.n_threads
    directions, products = (None, None) if pairs.directions is None else pairs.directions
    basis = np.empty((n, width if directions is None else width + directions.shape[1]))
    product = np.empty(basis.shape)
    in_block = inner(vectors, corrections, threads)
    in_locked = inner(locked, corrections, threads)
    old = None if directions is None else inner(vectors, directions, threads)

    def project(rows: slice) -> None:
        basis[rows, :width] = (
            corrections[rows] - vectors[rows] @ in_block - locked[rows] @ in_locked
        )
        if directions is not None and products is not None and old is not None:
            basis[rows, width:] = directions[rows] - vectors[rows] @ old
            # S v is locked as lambda v and the error.
            product[rows, width:] = products[rows] - vectors[rows] @ (pairs.values[:, None] * old)
            product[rows, width:] -= pairs.residuals[rows] @ old

    for_each_rows(project, n, threads)

    def keep(rows: slice, part: NDArray[np.floating]) -> None:
        product[rows, :width] = part

    matrix.each(np.ascontiguousarray(basis[:, :width]), keep)
    return basis, product


def _orthonormalizing(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """What makes a block orthonormal, from its Gram matrix; near dependences are left out."""
    # After Stathopoulos & Wu 2002, doi:10.1137/S1064827500370883.
    size = np.sqrt(np.maximum(np.diag(gram), np.finfo(float).tiny))
    scales, rotation = largest_eigh(gram / np.outer(size, size))
    kept = scales > _NEGLIGIBLE * scales[-1]
    return np.asarray(rotation[:, kept] / size[:, None] / np.sqrt(scales[kept]))


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
