"""The neighbour graph, the contract of an index that makes it, and helpers for sparse distances.

A pair (i, j) is in the graph when d_ij <= R_ij = max(r_i, r_j), r the distance to the
(n_neighbors + 1)-th nearest training sample. The rule is the same for training and new samples, so
a training sample passed as a new one finds the same neighbours.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

# A distance of 0 that sparse operations must not drop; its square is 0 all the same.
TINY = 5e-324


@dataclass(frozen=True)
class DistanceGraph:
    """Distances from samples to training samples: of all pairs (dense), or of neighbours."""

    # (n_rows, n_train), {ndarray, csr_matrix}. Sparse: stored zeros are TINY; a graph of new
    # samples may hold some pairs beyond R, whose kernel is 0.
    distances: Any
    # r of each row and of each training sample; None: all pairs count.
    row_radii: NDArray[np.float64] | None = None
    column_radii: NDArray[np.float64] | None = None
    # How R is made of the two radii.
    rule: Literal["max", "min"] = "max"
    # All stored distances, of which ``distances`` are those that count; None where they are equal.
    listed: Any = None

    @property
    def is_sparse(self) -> bool:
        """Whether only some pairs count."""
        return self.row_radii is not None

    def cutoffs(self) -> NDArray[np.float64]:
        """R of each stored pair, in the order of ``distances.data``."""
        assert self.row_radii is not None
        assert self.column_radii is not None
        rows = np.repeat(self.row_radii, np.diff(self.distances.indptr))
        columns = self.column_radii[self.distances.indices]
        return np.maximum(rows, columns) if self.rule == "max" else np.minimum(rows, columns)

    def some_rows(self, rows: NDArray[np.intp]) -> "DistanceGraph":
        """The distances from some of the rows."""
        return replace(
            self,
            distances=self.distances[rows],
            row_radii=None if self.row_radii is None else self.row_radii[rows],
            listed=None if self.listed is None else self.listed[rows],
        )


class NeighborIndex(Protocol):
    """What makes neighbour graphs; ``factory.make_index`` chooses one of its implementations."""

    # Neighbours of a sample, itself not counted; None for all pairs.
    n_neighbors: int | None
    # How many queries may run at the same time to advantage.
    n_threads: int = 1

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
    rule: Literal["max", "min"] = "max",
) -> sp.csr_matrix:
    """Return the stored distances that are at most R = rule(r_row, r_column), or r_row alone."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    limit = row_radii[rows]
    if column_radii is not None:
        combine = np.maximum if rule == "max" else np.minimum
        limit = combine(limit, column_radii[matrix.indices])
    kept = matrix.data <= limit
    return sp.csr_matrix(
        (matrix.data[kept], (rows[kept], matrix.indices[kept])), shape=matrix.shape
    )


def with_rows(
    matrix: sp.csr_matrix, rows: NDArray[np.intp], replacement: sp.csr_matrix
) -> sp.csr_matrix:
    """The matrix with some of its rows replaced."""
    both = sp.vstack([matrix, replacement], format="csr")
    order = np.arange(matrix.shape[0])
    order[rows] = matrix.shape[0] + np.arange(rows.size)
    return both[order]


def kth_listed(matrix: sp.csr_matrix, k: int) -> NDArray[np.float64]:
    """The k-th smallest stored value of each row; the largest where fewer are stored."""
    counts = np.diff(matrix.indptr)
    rows = np.repeat(np.arange(matrix.shape[0]), counts)
    order = np.lexsort((matrix.data, rows))
    values = np.zeros(matrix.shape[0])
    filled = counts > 0
    position = matrix.indptr[:-1] + np.minimum(k, counts) - 1
    values[filled] = matrix.data[order][position[filled]]
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


def symmetric_graph(indices: NDArray[np.integer], distances: NDArray[np.float64]) -> DistanceGraph:
    """The graph of complete neighbour lists of the training samples, themselves included."""
    n = indices.shape[0]
    radii = distances.max(axis=1)
    own_first = np.array_equal(indices[:, 0], np.arange(n))
    lists = neighbor_lists(indices, distances, n)
    if not own_first:
        # Samples that differ can be at distance 0 in double precision, and push one out.
        lists = union(lists, stored_diagonal(n))
    return DistanceGraph(union(lists, lists.T.tocsr()), radii, radii)
