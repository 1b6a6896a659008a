"""New rows and a k-d tree in, all pairs within some radius out, many rows at a time.

Two trees that are searched at once give pairs at half of what nearest neighbours cost row by row.
Only a good guess of the radius is needed: where it was too small, or too many rows lie within it,
the caller looks again.
"""

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.spatial import cKDTree

__all__ = ["kth_smallest", "pairs_in_balls", "passing_tree", "with_pairs"]

# Radii are rounded up to powers of this: rows of one radius are searched together.
_STEP = 1.1
# Some rows of each radius are counted first. Pairs cost less than a list of nearest rows as long as
# they are not so many times more; and no row may have so many that memory runs out.
_TRIAL_ROWS = 32
_MOST_ON_AVERAGE, _MOST = 2.5, 16.0
_BLOCK = 2**18


def pairs_in_balls(
    new: NDArray[np.float64],
    tree: cKDTree,
    guess: NDArray[np.float64],
    *,
    n_kept: int,
    order: float = 2.0,
) -> tuple[sp.csr_matrix, NDArray[np.float64]]:
    """Return the pairs nearer than about ``guess``.

    Parameters
    ----------
    new : ndarray of shape (n_rows, n_features)
        New rows.
    tree : cKDTree
        Of the training rows.
    guess : ndarray of shape (n_rows,)
        A radius for each new row.
    n_kept : int
        Training rows that each is to meet. Where balls hold many more, they are not searched.
    order : float, default=2.0
        p of the Minkowski distance.

    Returns
    -------
    pairs : csr_matrix of shape (n_rows, n_train)
        Distances, in no order within a row; zeros are stored.
    known : ndarray of shape (n_rows,)
        All pairs nearer than this are there, and no others; 0 for a row that was not searched.
    """
    known = np.zeros(len(new))
    parts = []
    for rows, radius in _alike(guess):
        some = rows[:: max(1, rows.size // _TRIAL_ROWS)]
        counts = tree.query_ball_point(new[some], radius, p=order, return_length=True)
        if counts.mean() > _MOST_ON_AVERAGE * n_kept or counts.max() > _MOST * n_kept:
            continue
        found = passing_tree(new[rows]).sparse_distance_matrix(
            tree, radius, p=order, output_type="ndarray"
        )
        # Clear of rounding at the border.
        known[rows] = limit = radius * (1.0 - 1e-12)
        if found["v"].max(initial=0.0) >= limit:
            found = found[found["v"] < limit]
        parts.append((rows.astype(np.int32), found))
    return _rows_together(parts, (len(new), tree.n)), known


def _rows_together(
    parts: list[tuple[NDArray[np.int32], NDArray[np.void]]], shape: tuple[int, int]
) -> sp.csr_matrix:
    """Rows by number, and pairs of each part by place among its rows, as one matrix."""
    size = sum(found.size for _, found in parts)
    numbers, columns = np.empty(size, dtype=np.int32), np.empty(size, dtype=np.int32)
    values, start = np.empty(size), 0
    for rows, found in parts:
        here = slice(start, start + found.size)
        numbers[here] = rows[found["i"]]
        columns[here], values[here] = found["j"], found["v"]
        start = here.stop
    pairs = sp.coo_matrix((values, (numbers, columns)), shape=shape)
    # No pair is there twice: nothing is to be sorted and summed.
    pairs.has_canonical_format = True
    return pairs.tocsr()


def passing_tree(rows: NDArray[np.float64]) -> cKDTree:
    """A tree that is made quickly, for one search."""
    return cKDTree(rows, leafsize=32, balanced_tree=False, compact_nodes=False)


def _alike(guess: NDArray[np.float64]) -> Iterator[tuple[NDArray[np.intp], float]]:
    """Rows whose radii are rounded up to the same number, and this."""
    level = np.ceil(np.log(np.maximum(guess, np.finfo(float).tiny)) / np.log(_STEP))
    order = np.argsort(level, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(level[order])) + 1):
        if rows.size:
            yield rows, float(_STEP ** level[rows[0]])


def kth_smallest(matrix: sp.csr_matrix, k: int) -> NDArray[np.float64]:
    """Return the k-th smallest stored value of each row; inf where fewer are stored."""
    counts = np.diff(matrix.indptr)
    result = np.full(counts.size, np.inf)
    width = int(counts.max(initial=0))
    if width < k:
        return result
    step = max(1, _BLOCK // width)
    for start in range(0, counts.size, step):
        stop = min(start + step, counts.size)
        filled = np.arange(width) < counts[start:stop, None]
        padded = np.full(filled.shape, np.inf)
        padded[filled] = matrix.data[matrix.indptr[start] : matrix.indptr[stop]]
        padded.partition(k - 1, axis=1)
        result[start:stop] = padded[:, k - 1]
    return result


def with_pairs(
    matrix: sp.csr_matrix,
    rows: NDArray[np.integer],
    columns: NDArray[np.integer],
    values: NDArray[np.float64],
) -> sp.csr_matrix:
    """Put in pairs that are not stored yet."""
    if rows.size == 0:
        return matrix
    order = np.argsort(rows, kind="stable")
    place = matrix.indptr[rows[order] + 1]
    more = np.cumsum(np.bincount(rows, minlength=matrix.shape[0]))
    indptr = matrix.indptr + np.concatenate([[0], more]).astype(matrix.indptr.dtype)
    return sp.csr_matrix(
        (
            np.insert(matrix.data, place, values[order]),
            np.insert(matrix.indices, place, columns[order]),
            indptr,
        ),
        shape=matrix.shape,
    )
