"""Rayleigh-Ritz: the best eigenpairs in the span of a block, and the LOBPCG step.

All work goes through the rows in slices of one size, which are summed in their order: a result
does not depend on the number of threads.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skdmap.diffusion._eigensolvers.row_blocks import RowBlocks, for_each_rows
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
    last = () if pairs.directions is None else pairs.directions
    basis, product, gram, images, cross = _search_basis(matrix, pairs, corrections, locked, last)
    rotation = _orthonormalizing(gram)
    # The old vectors are orthogonal to the new ones: of S v only the residual is left.
    cross = cross @ rotation
    inside = rotation.T @ _symmetric(images) @ rotation
    small = np.block([[np.diag(pairs.values), cross], [cross.T, inside]])
    found, parts = largest_eigh(small)
    found, parts = found[::-1][:width], parts[:, ::-1][:, :width]
    old, new = parts[:width], rotation @ parts[width:]
    fresh, again = new[:width], new[width:]
    rest = pairs.values[:, None] * old - old * found
    # The part of the new directions in the new vectors.
    inner_part = parts[width:].T @ parts[width:]
    vectors, residuals = np.empty_like(basis), np.empty_like(basis)

    def combined(rows: slice) -> NDArray[np.float64]:
        before = pairs.vectors[rows]
        step, image = basis[rows] @ fresh, product[rows] @ fresh
        if last:
            step += last[0][rows] @ again
            image += last[1][rows] @ again
        vector = before @ old
        vector += step
        residual = before @ rest
        residual += pairs.residuals[rows] @ old
        residual += image
        residual -= step * found
        # S v is locked as lambda v and the residual.
        step -= vector @ inner_part
        image -= vector @ (found[:, None] * inner_part)
        image -= residual @ inner_part
        vectors[rows], residuals[rows] = vector, residual
        # In their place: what these rows held is no longer needed.
        basis[rows], product[rows] = step, image
        return np.einsum("ij,ij->j", residual, residual)

    squares = _summed(combined, basis.shape[0], threads)
    return RitzBlock(found, vectors, residuals, np.sqrt(squares), (basis, product))


def _search_basis(
    matrix: RowBlocks,
    pairs: RitzBlock,
    corrections: NDArray[np.floating],
    locked: NDArray[np.float64],
    last: tuple[NDArray[np.float64], ...],
) -> tuple[NDArray[np.float64], ...]:
    """Corrections C without their part in the block, S C, and with U = [C, last directions]
    U' U, U' S U and R' U, R the residuals.
    """
    n, width = corrections.shape
    vectors, threads = pairs.vectors, matrix.n_threads
    basis, product = np.empty((n, width)), np.empty((n, width))

    def parts_of(rows: slice) -> NDArray[np.float64]:
        # In double precision only as long as it is in cache.
        part = np.asarray(corrections[rows], dtype=np.float64)
        return np.vstack([vectors[rows].T @ part, locked[rows].T @ part])

    inside = _summed(parts_of, n, threads)

    def project(rows: slice) -> None:
        part = corrections[rows] - vectors[rows] @ inside[:width]
        part -= locked[rows] @ inside[width:]
        basis[rows] = part

    for_each_rows(project, n, threads)
    sums: dict[int, NDArray[np.float64]] = {}

    def measure(rows: slice, image: NDArray[np.floating]) -> None:
        product[rows] = image
        here, images = basis[rows], image
        if last:
            here, images = np.hstack([here, last[0][rows]]), np.hstack([image, last[1][rows]])
        of_rows = [here.T @ here, here.T @ images, pairs.residuals[rows].T @ here]
        sums[rows.start] = np.vstack(of_rows)

    matrix.each(basis, measure)
    tall = _in_order(sums)
    size = tall.shape[1]
    return basis, product, tall[:size], tall[size : 2 * size], tall[2 * size :]


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
    found: dict[int, NDArray[np.float64]] = {}

    def work(rows: slice) -> None:
        found[rows.start] = part(rows)

    for_each_rows(work, n_rows, n_threads)
    return _in_order(found)


def _in_order(parts: dict[int, NDArray[np.float64]]) -> NDArray[np.float64]:
    """The sum of what slices of rows gave, by where they start."""
    first, *others = sorted(parts)
    total = parts[first].copy()
    for start in others:
        total += parts[start]
    return total


def _symmetric(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * (matrix + matrix.T)
