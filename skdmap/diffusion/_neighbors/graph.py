"""The neighbour graph, the contract of an index that makes it, and helpers for sparse distances.

A pair (i, j) is in the graph when d_ij <= R_ij = max(r_i, r_j), r the distance to the
(n_neighbors + 1)-th nearest training sample, or more where many are equally far. The rule is the
same for training and new samples, so a training sample passed as a new one finds the same
neighbours.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

# A distance of 0 that sparse operations must not drop; its square is 0 all the same.
TINY = 5e-324
# Where the nearest third lies within this share of r, r is moved outwards: the kernel at the
# cut-off is 0, so that it would leave such a sample no neighbours.
_TIE = 0.01
# r moves to these multiples of n_neighbors + 1 in turn; no farther, so that graphs stay sparse.
_TIE_STEPS = (2, 4, 8)
_TIE_BLOCK = 2**22
# Entries of rows padded to one length, to be sorted.
_PADDED_BLOCK = 2**20
# The local bandwidth is the distance to this neighbour, the own sample not counted.
LOCAL_NEIGHBOR = 7
# Ties to rounding.
_EQUAL = 1e-9


@dataclass(frozen=True)
class DistanceGraph:
    """Distances from samples to training samples: of all pairs (dense), or of neighbours.
    For a given kernel affinities stand in their place.
    """

    # (n_rows, n_train), {ndarray, csr_matrix}. Sparse: stored zeros are TINY; a graph of new
    # samples may hold some pairs beyond R, whose kernel is 0.
    distances: Any
    # r of each row and of each training sample; None: all pairs count.
    row_radii: NDArray[np.float64] | None = None
    column_radii: NDArray[np.float64] | None = None
    # Distances that each row of a precomputed matrix stores itself, of which ``distances`` is the
    # union; None where nothing is precomputed.
    listed: Any = None
    # Training samples that have too many others at the same distance: these weigh nothing.
    n_tied: int = 0
    # (n_rows,) Distance to the (min(7, n_neighbors) + 1)-th nearest training sample, the own one
    # counted, where the search gives it: the local bandwidth.
    nearby: NDArray[np.float64] | None = None
    # Whether ``distances`` are affinities of a given kernel, dense or sparse.
    is_given: bool = False

    @property
    def is_sparse(self) -> bool:
        """Whether only some pairs count, cut off at R."""
        return self.row_radii is not None

    def cutoffs(self) -> NDArray[np.float64]:
        """R of each stored pair, in the order of ``distances.data``."""
        assert self.row_radii is not None
        assert self.column_radii is not None
        rows = np.repeat(self.row_radii, np.diff(self.distances.indptr))
        return np.maximum(rows, self.column_radii[self.distances.indices])

    def some_rows(self, rows: NDArray[np.intp]) -> "DistanceGraph":
        """The distances from some of the rows."""
        return replace(
            self,
            distances=self.distances[rows],
            row_radii=None if self.row_radii is None else self.row_radii[rows],
            listed=None if self.listed is None else self.listed[rows],
            nearby=None if self.nearby is None else self.nearby[rows],
        )


class NeighborIndex(Protocol):
    """What makes neighbour graphs; ``search.make_index`` chooses one of its implementations."""

    # Neighbours of a sample, itself not counted; None for all pairs.
    n_neighbors: int | None

    @property
    def n_threads(self) -> int:
        """How many queries may now run at the same time to advantage."""
        return 1

    def build(self, X: Any) -> DistanceGraph:
        """Keep what queries need of the training samples; return the symmetric graph of these."""

    def query(self, Z: Any) -> DistanceGraph:
        """Distances from new samples to the training samples."""

    def all_distances(self, Z: Any) -> NDArray[np.float64] | None:
        """Distances to every training sample (n_rows, n_train); None where only some are known."""


def with_stored_zeros(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Return the matrix with stored zeros made so small that sparse operations keep them."""
    return sp.csr_matrix(
        (np.maximum(matrix.data.astype(np.float64), TINY), matrix.indices, matrix.indptr),
        shape=matrix.shape,
    )


def union(first: sp.csr_matrix, second: sp.csr_matrix) -> sp.csr_matrix:
    """Return the pairs that either matrix stores, with the larger distance."""
    return first.maximum(second).tocsr()


def within(
    matrix: sp.csr_matrix,
    row_radii: NDArray[np.float64],
    column_radii: NDArray[np.float64] | None = None,
) -> sp.csr_matrix:
    """The stored distances that are at most R = max(r_row, r_column), or r_row alone."""
    limit = np.repeat(row_radii, np.diff(matrix.indptr))
    if column_radii is not None:
        np.maximum(limit, column_radii[matrix.indices], out=limit)
    kept = matrix.data <= limit
    ends = np.concatenate([[0], np.cumsum(kept)])[matrix.indptr].astype(matrix.indptr.dtype)
    return sp.csr_matrix((matrix.data[kept], matrix.indices[kept], ends), shape=matrix.shape)


def with_rows(
    matrix: sp.csr_matrix, rows: NDArray[np.intp], replacement: sp.csr_matrix
) -> sp.csr_matrix:
    """The matrix with some of its rows replaced."""
    both = sp.vstack([matrix, replacement], format="csr")
    order = np.arange(matrix.shape[0])
    order[rows] = matrix.shape[0] + np.arange(rows.size)
    return both[order]


def kth_listed(matrix: sp.csr_matrix, k: Any) -> NDArray[np.float64]:
    """The k-th smallest stored value of each row; the largest where fewer are stored."""
    counts = np.diff(matrix.indptr)
    position, values = np.minimum(k, counts) - 1, np.zeros(counts.size)
    # Rows of about the same length together: a row of many pairs does not widen all others.
    rows = np.argsort(counts, kind="stable")
    rows = rows[np.searchsorted(counts[rows], 1) :]
    while rows.size:
        # Blocks end where their rows are half as long again as the first.
        width = int(1.5 * counts[rows[0]]) + 1
        size = min(max(1, _PADDED_BLOCK // width), int(np.searchsorted(counts[rows], width)))
        block, rows = rows[:size], rows[size:]
        width = counts[block[-1]]
        inside = np.arange(width) < counts[block, None]
        places = matrix.indptr[block][:, None] + np.arange(width)
        padded = matrix.data[np.where(inside, places, 0)]
        padded[~inside] = np.inf
        wanted = np.unique(position[block])
        padded = np.partition(padded, wanted, axis=1) if wanted.size < 4 else np.sort(padded)
        values[block] = padded[np.arange(size), position[block]]
    return values


def stored_diagonal(n: int) -> sp.csr_matrix:
    """The distances of samples to themselves, stored."""
    return sp.csr_matrix((np.full(n, TINY), np.arange(n), np.arange(n + 1)), shape=(n, n))


def neighbor_lists(
    indices: NDArray[np.integer], distances: NDArray[np.float64], n_columns: int
) -> sp.csr_matrix:
    """Lists of equal length (n_rows, n_kept) as a sparse matrix, in their own memory."""
    n_rows, kept = indices.shape
    np.maximum(distances, TINY, out=distances)
    matrix = sp.csr_matrix(
        (
            distances.reshape(-1),
            indices.reshape(-1),
            np.arange(0, n_rows * kept + 1, kept, dtype=indices.dtype),
        ),
        shape=(n_rows, n_columns),
    )
    matrix.sort_indices()
    return matrix


def nearest_third(n_neighbors: Any) -> Any:
    """How many nearest samples, the own one counted, decide whether the others are ties."""
    return -(-n_neighbors // 3) + 1


def tied_rows(third: NDArray[np.float64], radii: NDArray[np.float64]) -> NDArray[np.intp]:
    """Rows whose distance to the nearest third, both (n_rows,), is within 1 % of their radius."""
    return np.flatnonzero(~(third < (1.0 - _TIE) * radii))


def most_listed(n_neighbors: int, n_train: int) -> int:
    """How many nearest samples decide the radius of tied rows."""
    return min(_TIE_STEPS[-1] * (n_neighbors + 1), n_train)


def tie_radii(
    ordered: NDArray[np.float64], n_neighbors: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Radii (n_rows,) from ``most_listed`` ascending distances, and where all of these tie."""
    third, radii = ordered[:, nearest_third(n_neighbors) - 1], ordered[:, n_neighbors].copy()
    for multiple in _TIE_STEPS:
        position = multiple * (n_neighbors + 1)
        # Beyond the last sample: twice the largest distance.
        beyond = position > ordered.shape[1]
        farther = 2.0 * ordered[:, -1] if beyond else ordered[:, position - 1]
        radii += _tie_share(third, radii) * (farther - radii)
    return radii, third >= (1.0 - _EQUAL) * radii


def stored_tie_radii(stored: sp.csr_matrix) -> NDArray[np.float64]:
    """Radii (n_rows,) of rows of stored distances, beyond which nothing is known."""
    counts = np.diff(stored.indptr)
    largest = stored.max(axis=1).toarray().reshape(-1)
    third = kth_listed(stored, np.maximum(nearest_third(counts - 1), 1))
    radii = largest.copy()
    for _ in _TIE_STEPS:
        radii += _tie_share(third, radii) * (2.0 * largest - radii)
    return radii


def _tie_share(third: NDArray[np.float64], radii: NDArray[np.float64]) -> NDArray[np.float64]:
    """How near (n_rows,) the nearest third is to the radius: 1 at it, 0 from 1 % below it on."""
    ratio = np.divide(third, radii, out=np.ones_like(radii), where=radii > 0)
    return np.clip(1.0 - (1.0 - ratio) / _TIE, 0.0, 1.0)


def symmetric_graph(
    indices: NDArray[np.integer],
    distances: NDArray[np.float64],
    nearest: Callable[[NDArray[np.intp], int], tuple[NDArray[np.integer], NDArray[np.float64]]],
) -> DistanceGraph:
    """The graph of neighbour lists, own sample included; ``nearest`` lists more of tied samples."""
    n, kept = indices.shape
    position, near = nearest_third(kept - 1) - 1, min(LOCAL_NEIGHBOR, kept - 1)
    ordered = np.partition(distances, [position, near, kept - 1], axis=1)
    third, nearby, radii = (ordered[:, k].copy() for k in (position, near, kept - 1))
    own_first = np.array_equal(indices[:, 0], np.arange(n))
    lists = neighbor_lists(indices, distances, n)
    if not own_first:
        # Samples that differ can be at distance 0 in double precision, and push one out.
        lists = union(lists, stored_diagonal(n))
    tied, n_tied = tied_rows(third, radii), 0
    count = most_listed(kept - 1, n)
    step = max(1, _TIE_BLOCK // count)
    for start in range(0, tied.size, step):
        rows = tied[start : start + step]
        columns, values = nearest(rows, count)
        radii[rows], all_tied = tie_radii(np.sort(values, axis=1), kept - 1)
        n_tied += int(all_tied.sum())
        inside = values <= radii[rows, None]
        pairs = (np.repeat(rows, inside.sum(axis=1)), columns[inside])
        values = np.maximum(values[inside], TINY)
        lists = union(lists, sp.csr_matrix((values, pairs), shape=(n, n)))
    symmetric = union(lists, lists.T.tocsr())
    return DistanceGraph(symmetric, radii, radii, n_tied=n_tied, nearby=nearby)
