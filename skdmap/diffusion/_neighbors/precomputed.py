"""The index of a sparse matrix of precomputed distances: nothing is searched."""

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap.diffusion._neighbors.graph import (
    DistanceGraph,
    NeighborIndex,
    stored_diagonal,
    union,
    with_stored_zeros,
    within,
)


class StoredNeighbors(NeighborIndex):
    """Stored distances, zeros included; a pair counts when d <= min(r, r'), r a row's largest."""

    n_neighbors = 0
    radii: NDArray[np.float64]

    def build(self, X: sp.csr_matrix) -> DistanceGraph:
        """The graph of the pairs that either of two rows stores."""
        stored = union(with_stored_zeros(X), stored_diagonal(X.shape[0]))
        self.radii = _row_maxima(stored)
        self.n_neighbors = int(np.diff(stored.indptr).max()) - 1
        kept = within(stored, self.radii, self.radii, "min")
        pairs = union(kept, kept.T.tocsr())
        return DistanceGraph(pairs, self.radii, self.radii, rule="min", listed=stored)

    def query(self, Z: sp.csr_matrix) -> DistanceGraph:
        """The stored distances of new samples."""
        stored = with_stored_zeros(Z)
        radii = _row_maxima(stored)
        pairs = within(stored, radii, self.radii, "min")
        return DistanceGraph(pairs, radii, self.radii, rule="min", listed=stored)

    def all_distances(self, Z: Any) -> None:
        """Only the stored distances are known."""
        return None


def _row_maxima(matrix: sp.csr_matrix) -> NDArray[np.float64]:
    return matrix.max(axis=1).toarray().reshape(-1)
