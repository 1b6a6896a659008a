"""Products of a matrix with blocks of vectors, on as many threads as BLAS may use.

Rows are cut into blocks of a fixed size, and each block is one thread's work: so a result does not
depend on the number of threads. scipy lets other threads run while it multiplies.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

# Rows of a block: 16 columns of so many rows stay in a core's cache.
BLOCK_ROWS = 4096


def row_slices(n_rows: int) -> Iterator[slice]:
    """Cut rows into blocks of one fixed size."""
    for start in range(0, n_rows, BLOCK_ROWS):
        yield slice(start, min(start + BLOCK_ROWS, n_rows))


def for_each_rows(work: Callable[[slice], None], n_rows: int, n_threads: int) -> None:
    """Call ``work`` with each block of rows, several at a time; it writes to its own rows only."""
    slices = list(row_slices(n_rows))
    if n_threads == 1 or len(slices) == 1:
        for rows in slices:
            work(rows)
        return
    for _ in _pool(os.getpid(), n_threads).map(work, slices):
        pass


@lru_cache(maxsize=8)
def _pool(process: int, n_threads: int) -> ThreadPoolExecutor:
    """Threads that wait for work; a forked process has none of its parent's and gets its own."""
    return ThreadPoolExecutor(n_threads)


class RowBlocks:
    """A square matrix (ndarray or csr_matrix) cut into blocks of rows that share its memory."""

    # ``diagonal`` (n,) is added to that of the matrix.
    def __init__(
        self, matrix: Any, n_threads: int, diagonal: NDArray[np.float64] | None = None
    ) -> None:
        matrix = matrix.tocsr() if sp.issparse(matrix) else matrix
        self.n_rows = matrix.shape[0]
        self.dtype = matrix.dtype
        self.n_threads = n_threads
        self._diagonal = diagonal
        self._blocks = [_rows_of(matrix, rows) for rows in row_slices(self.n_rows)]

    def each(
        self, vectors: NDArray[np.floating], use: Callable[[slice, NDArray[np.floating]], None]
    ) -> None:
        """Call ``use(rows, product)`` for each block of rows; blocks run at the same time."""

        def work(rows: slice) -> None:
            product = self._blocks[rows.start // BLOCK_ROWS] @ vectors
            if self._diagonal is not None:
                product += self._diagonal[rows, None] * vectors[rows]
            use(rows, product)

        for_each_rows(work, self.n_rows, self.n_threads)

    def __matmul__(self, vectors: NDArray[np.floating]) -> NDArray[Any]:
        """The matrix times a block of vectors."""
        result = np.empty(vectors.shape, dtype=np.result_type(self.dtype, vectors.dtype))

        def keep(rows: slice, product: NDArray[np.floating]) -> None:
            result[rows] = product

        self.each(vectors, keep)
        return result


def _rows_of(matrix: Any, rows: slice) -> Any:
    """Some rows of a matrix, in its own memory."""
    if not sp.issparse(matrix):
        return matrix[rows]
    ends = matrix.indptr[rows.start : rows.stop + 1]
    part = slice(int(ends[0]), int(ends[-1]))
    block = sp.csr_matrix((rows.stop - rows.start, matrix.shape[1]), dtype=matrix.dtype)
    block.data, block.indices = matrix.data[part], matrix.indices[part]
    block.indptr = (ends - ends[0]).astype(matrix.indices.dtype)
    return block
