from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap.diffusion._neighbors.graph import (
    DistanceGraph,
    _diagonal,
    union,
    with_stored_zeros,
    within,
)


class ListedNeighbors:
    """Neighbours as a sparse distance matrix lists them; a pair counts when d <= min(r, r').

    Parameters
    ----------
    X : csr_matrix of shape (n_train, n_train)
        Stored zeros are distances; r is the largest distance stored in a row.
    """

    n_threads = 1

    def __init__(self, X: sp.csr_matrix) -> None:
        n = X.shape[0]
        self._lists = union(with_stored_zeros(X), _diagonal(n))
        self.radii = _row_maxima(self._lists)
        self.n_neighbors = int(np.diff(self._lists.indptr).max()) - 1

    def training_graph(self) -> DistanceGraph:
        """Distances among the training rows."""
        lists = self._lists
        kept = within(lists, self.radii, self.radii, "min")
        pairs = union(kept, kept.T.tocsr())
        return DistanceGraph(pairs, self.radii, self.radii, rule="min", listed=lists)

    def graph(self, Z: sp.csr_matrix) -> DistanceGraph:
        """Distances from new rows to the training rows."""
        lists = with_stored_zeros(self._lists_of(Z))
        radii = _row_maxima(lists)
        pairs = within(lists, radii, self.radii, "min")
        return DistanceGraph(pairs, radii, self.radii, rule="min", listed=lists)

    def _lists_of(self, Z: Any) -> sp.csr_matrix:
        return sp.csr_matrix(Z)

    def all_distances(self, Z: sp.csr_matrix) -> None:
        """Only the listed distances are known."""
        return None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the lists of the fit, which no later call needs."""
        return {**self.__dict__, "_lists": None}


def _row_maxima(lists: sp.csr_matrix) -> NDArray[np.float64]:
    return lists.max(axis=1).toarray().reshape(-1)
