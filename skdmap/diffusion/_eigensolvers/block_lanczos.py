"""Block Lanczos with full reorthogonalisation and thick restart, for dense symmetric operators.

A dense matrix is read from memory once per product, whatever the number of columns, up to a dozen.
So a block costs about what one vector does, needs a fraction of the products, and finds as many
copies of a multiple eigenvalue as it has columns. After Golub & Underwood 1977
(doi:10.1016/B978-0-12-587260-7.50018-2) and Wu & Simon 2000 (doi:10.1137/S0895479898334605).
"""

from collections.abc import Callable

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from skdmap._threads import blas_threads, one_thread
from skdmap.diffusion._eigensolvers.eigenproblem import Eigenproblem, Pairs
from skdmap.diffusion._eigensolvers.row_blocks import RowBlocks
from skdmap.diffusion._eigensolvers.scipy_solvers import with_missed_copies
from skdmap.diffusion._eigensolvers.symmetric_eigh import largest_eigh

Block = NDArray[np.float64]
_BASIS_COLUMNS = 240
# Columns of a block: a product with so many costs little more than with one. With less than half
# of them a hard spectrum takes half as long again.
_NARROWEST_BLOCK, _WIDEST_BLOCK = 8, 16
# Blocks to multiply before another solver takes over: 10 to 130 suffice unless many eigenvalues
# lie within 1e-6 of 1.
_MAX_BLOCKS = 200
_ROUNDING = 1e-12
# What is left of a column, relative to the block, below which rounding counts.
_CANCELLED = 1e-3


def lanczos(problem: Eigenproblem) -> Pairs:
    """Block Lanczos to rounding, its products on several threads."""
    operator, n_pairs = problem.operator, problem.n_pairs
    # No wanted eigenvalue has more copies than there are pairs.
    width = min(max(n_pairs + 2, _NARROWEST_BLOCK), _WIDEST_BLOCK)
    matrix = RowBlocks(operator.kernel, blas_threads(), operator.diagonal)
    # Only products are worth several threads: for a block of few columns BLAS takes up to ten times
    # as long with two, those of numpy and of scipy waiting for each other.
    with one_thread():
        pairs = block_lanczos(
            matrix.__matmul__,
            operator.n_rows,
            n_pairs,
            width=width,
            locked=problem.locked,
            tolerance=lambda values: _ROUNDING,
            rng=problem.rng,
            max_products=_MAX_BLOCKS * width,
        )
    return with_missed_copies(problem, pairs) if width < n_pairs else pairs


def block_lanczos(
    product: Callable[[Block], Block],
    size: int,
    n_pairs: int,
    *,
    width: int,
    locked: Block,
    tolerance: Callable[[Block], Block | float],
    rng: np.random.Generator,
    max_products: int,
    n_exact: int | None = None,
) -> tuple[NDArray[np.float64], Block]:
    """The k largest eigenpairs of a product (n, width) -> (n, width), locked ones left out."""
    # It ends when the residual norms of the first ``n_exact`` pairs, all by default, are at most
    # ``tolerance`` of their values. Copies of an eigenvalue up to ``width`` are found for certain.
    # ``max_products`` counts single columns.
    room = size - locked.shape[1]
    n_exact = n_pairs if n_exact is None else n_exact
    cap = min(max(_BASIS_COLUMNS, 3 * (n_pairs + width)), room)
    width, step = min(width, cap), max(2, n_pairs // 8)
    basis = np.empty((size, cap), order="F")
    projected = np.zeros((cap, cap))
    block = _orthonormal(rng.standard_normal((size, width)), locked, basis[:, :0], rng)[0]
    used = n_products = 0
    while True:
        first, used = used, used + block.shape[1]
        basis[:, first:used] = block
        image = product(block)
        n_products += block.shape[1]
        image = image - locked @ (locked.T @ image)
        inner = basis[:, :used].T @ image
        image -= basis[:, :used] @ inner
        projected[:used, first:used] = inner
        projected[first:used, :used] = inner.T
        block, coupling = _orthonormal(image, locked, basis[:, :used], rng)
        is_last = used == room or n_products >= max_products
        is_full = used + block.shape[1] > cap
        # Computing Ritz pairs takes as long as a step does with one column, and as dozens of steps
        # where the basis is large.
        if not (is_last or is_full) and (used < n_pairs or (width == 1 and used % step)):
            continue
        values, rotation = largest_eigh(projected[:used, :used])
        residuals = np.linalg.norm(coupling @ rotation[first:used], axis=0)
        converged = used >= n_pairs and bool(
            np.all(residuals[-n_exact:] <= tolerance(values[-n_exact:]))
        )
        if converged or is_last:
            break
        if is_full:
            if cap < room:
                used = _restart(basis, projected, values, rotation, n_pairs + width)
            block = block[:, : cap - used]
    wanted = rotation[:, ::-1][:, :n_pairs]
    return values[::-1][:n_pairs], basis[:, :used] @ wanted


def _restart(basis: Block, projected: Block, values: Block, rotation: Block, kept: int) -> int:
    """Keep the best Ritz vectors, on which the operator is diagonal; return their number."""
    basis[:, :kept] = basis[:, : values.size] @ rotation[:, -kept:]
    projected[:] = 0.0
    projected[np.arange(kept), np.arange(kept)] = values[-kept:]
    return kept


def _orthonormal(
    image: Block, locked: Block, basis: Block, rng: np.random.Generator
) -> tuple[Block, Block]:
    """Q and R, image = Q R up to parts in locked and basis; spent directions are redrawn."""
    scale = max(1.0, float(np.abs(image).max()))
    image = image - basis @ (basis.T @ image)
    image = image - locked @ (locked.T @ image)
    block, factor = _qr(image)
    sizes = np.abs(np.diagonal(factor))
    spent = sizes <= 1e-13 * scale
    if spent.any():
        factor[spent] = 0.0
        block[:, spent] = rng.standard_normal((block.shape[0], int(spent.sum())))
    # Two passes are enough, and were made, unless little was left of a column.
    for _ in range(2 if sizes.min() < _CANCELLED * scale else 0):
        block = block - basis @ (basis.T @ block)
        block = block - locked @ (locked.T @ block)
        block, again = _qr(block)
        factor = again @ factor
    return block, factor


def _qr(block: Block) -> tuple[Block, Block]:
    """Q and R; LAPACK takes longer for one column than all else does."""
    if block.shape[1] > 1:
        return scipy.linalg.qr(block, mode="economic", check_finite=False)
    size = np.linalg.norm(block)
    return block / (size or 1.0), np.array([[size]])
