"""Rows in, distances out: between all pairs, or between neighbours.

A graph is made by a search object. Its ``training_graph()`` holds the distances among the rows it
was made of; ``graph(Z)`` holds those from new rows to them, by the same rule, so that a training
row given as a new one finds the same neighbours.
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
    """Distances from rows to training rows.

    Attributes
    ----------
    distances : {ndarray, csr_matrix} of shape (n_rows, n_train)
        Dense: all pairs. Sparse: the pairs that count, stored zeros replaced by 5e-324. Those of
        new rows may have some more, beyond R, whose kernel is 0.
    row_radii, column_radii : ndarray or None
        r of each row and of each training row; a pair counts when its distance is at most
        R = rule(r_row, r_column). None: all pairs count.
    rule : {"max", "min"}
        How R is made of the two radii.
    listed : csr_matrix of shape (n_rows, n_train) or None
        Everything that a list holds, of which ``distances`` are the pairs that count. None where
        these are the same.
    """

    distances: Any
    row_radii: NDArray[np.float64] | None = None
    column_radii: NDArray[np.float64] | None = None
    rule: Literal["max", "min"] = "max"
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


class NeighborSearch(Protocol):
    """What makes graphs: the contract of every back end."""

    @property
    def n_neighbors(self) -> int | None:
        """Neighbours of a row, itself not counted; None for all pairs."""

    @property
    def n_threads(self) -> int:
        """How many graphs of new rows may be made at the same time to advantage."""

    def training_graph(self) -> DistanceGraph:
        """Distances among the training rows; symmetric."""

    def graph(self, Z: Any) -> DistanceGraph:
        """Distances from new rows to the training rows."""

    def all_distances(self, Z: Any) -> NDArray[np.float64] | None:
        """Distances from new rows to every training row; None where only lists are known."""


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


def _diagonal(n: int) -> sp.csr_matrix:
    return sp.csr_matrix((np.full(n, TINY), np.arange(n), np.arange(n + 1)), shape=(n, n))


def _lists_to_csr(
    indices: NDArray[np.integer], distances: NDArray[np.float64], n_columns: int
) -> sp.csr_matrix:
    """The lists as a matrix, in their own memory."""
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
