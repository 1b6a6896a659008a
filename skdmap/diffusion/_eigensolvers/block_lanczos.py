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

Block = NDArray[np.float64]
_BASIS_COLUMNS = 240


def block_lanczos(
    product: Callable[[Block], Block],
    size: int,
    n_pairs: int,
    *,
    width: int,
    locked: Block,
    tol: float,
    rng: np.random.Generator,
    max_products: int,
) -> tuple[NDArray[np.float64], Block]:
    """Return the eigenpairs with the largest eigenvalues, orthogonal to the locked vectors.

    Parameters
    ----------
    product : callable
        From a block of shape (size, width) to the operator times it.
    size : int
        Dimension n.
    n_pairs : int
        k.
    width : int
        Columns of a block: the largest multiplicity that is found for certain.
    locked : ndarray of shape (size, c)
        Orthonormal eigenvectors to leave out.
    tol : float
        Residual at which a pair counts as converged.
    rng : Generator
        Start block.
    max_products : int
        Products with single columns before it stops, converged or not.

    Returns
    -------
    values : ndarray of shape (k,)
        Descending.
    vectors : ndarray of shape (size, k)
        Orthonormal.
    """
    room = size - locked.shape[1]
    cap = min(max(_BASIS_COLUMNS, 3 * (n_pairs + width)), room)
    width = min(width, cap)
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
        values, rotation = scipy.linalg.eigh(projected[:used, :used], check_finite=False)
        residuals = np.linalg.norm(coupling @ rotation[first:used], axis=0)
        converged = used >= n_pairs and bool(np.all(residuals[-n_pairs:] <= tol))
        if converged or used == room or n_products >= max_products:
            break
        if used + block.shape[1] > cap:
            if cap < room:
                used = _restart(basis, projected, values, rotation, n_pairs + width)
            block = block[:, : cap - used]
    wanted = rotation[:, ::-1][:, :n_pairs]
    return values[::-1][:n_pairs], basis[:, :used] @ wanted


def _restart(basis: Block, projected: Block, values: Block, rotation: Block, kept: int) -> int:
    """Keep the best Ritz vectors, on which the operator is diagonal; return how many."""
    basis[:, :kept] = basis[:, : values.size] @ rotation[:, -kept:]
    projected[:] = 0.0
    projected[np.arange(kept), np.arange(kept)] = values[-kept:]
    return kept


def _orthonormal(
    image: Block, locked: Block, basis: Block, rng: np.random.Generator
) -> tuple[Block, Block]:
    """Orthonormalise against all that is there; spent directions are drawn anew.

    Returns the block Q, and R with image = Q R up to what lies in locked and basis.
    """
    scale = max(1.0, float(np.abs(image).max()))
    image = image - basis @ (basis.T @ image)
    image = image - locked @ (locked.T @ image)
    block, factor = scipy.linalg.qr(image, mode="economic", check_finite=False)
    spent = np.abs(np.diagonal(factor)) <= 1e-13 * scale
    if spent.any():
        factor[spent] = 0.0
        block[:, spent] = rng.standard_normal((block.shape[0], int(spent.sum())))
    for _ in range(2):
        block = block - basis @ (basis.T @ block)
        block = block - locked @ (locked.T @ block)
        block, again = scipy.linalg.qr(block, mode="economic", check_finite=False)
        factor = again @ factor
    return block, factor
