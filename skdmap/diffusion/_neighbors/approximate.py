"""Neighbour graphs from a search that may miss neighbours: pynndescent, or a transformer.

Such a search proposes pairs. They are cleaned (indices of -1 and repetitions occur), measured
again, and for new samples widened by the neighbours of the nearest training samples. That brings in
the training samples that have the new one within their radius, and gives a training sample its own
neighbours back.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.base import clone

from skdmap.diffusion._neighbors.graph import (
    TINY,
    DistanceGraph,
    NeighborIndex,
    kth_listed,
    most_listed,
    nearest_third,
    stored_diagonal,
    tie_radii,
    tied_rows,
    union,
    with_rows,
    with_stored_zeros,
    within,
)
from skdmap.diffusion._neighbors.metrics import (
    MINKOWSKI_ORDERS,
    Metric,
    in_form_of,
    pairwise,
    stored_pair_distances,
)
from skdmap.diffusion._neighbors.precomputed import StoredNeighbors, checked_lists
from skdmap.diffusion._wide.row_hashing import row_hashes

# So many of the nearest training samples lend a new one their neighbours.
_LENDERS = 3


class CandidateSearch(Protocol):
    """Proposes pairs of samples that are probably near, as the pattern of a sparse matrix."""

    n_neighbors: int
    metric: Metric
    params: Mapping[str, Any]

    def build(self, X: Any) -> sp.csr_matrix:
        """Pairs among the training samples (n_train, n_train)."""

    def query(self, Z: Any) -> sp.csr_matrix:
        """Pairs from new samples to training samples (n_rows, n_train)."""


class PynndescentSearch(CandidateSearch):
    """Nearest-neighbour descent (Dong, Moses & Li 2011, doi:10.1145/1963405.1963487)."""

    def __init__(
        self,
        n_neighbors: int,
        metric: Metric,
        params: Mapping[str, Any],
        *,
        seed: int,
        n_jobs: int | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.params = params
        self.seed = seed
        self.n_jobs = 1 if n_jobs is None else n_jobs

    def build(self, X: Any) -> sp.csr_matrix:
        """Pairs among the training samples."""
        self.X = X
        # The index works in float32: far from the origin nothing would be left.
        self.centre = None if sp.issparse(X) else np.asarray(X, dtype=np.float64).mean(axis=0)
        self._index = self._made()
        return _clean_pairs(self._index.neighbor_graph[0], X.shape[0])

    def query(self, Z: Any) -> sp.csr_matrix:
        """Pairs from new samples to training samples."""
        if self._index is None:
            self._index = self._made()
        indices, _ = self._index.query(self._shifted(Z), k=self.n_neighbors + 1)
        return _clean_pairs(indices, self.X.shape[0])

    def _made(self) -> Any:
        """The index of the training samples: the same one each time."""
        import pynndescent

        return pynndescent.NNDescent(
            self._shifted(self.X),
            n_neighbors=min(self.n_neighbors + 1, self.X.shape[0]),
            metric=self.metric,
            metric_kwds=dict(self.params) or None,
            random_state=np.random.RandomState(self.seed),
            n_jobs=self.n_jobs,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the index, which the first query makes again: skops does not store it."""
        return {**vars(self), "_index": None}

    def _shifted(self, X: Any) -> Any:
        if self.centre is None or self.metric not in tuple(MINKOWSKI_ORDERS):
            return X.astype(np.float32)
        return (np.asarray(X, dtype=np.float64) - self.centre).astype(np.float32)


class TransformerSearch(CandidateSearch):
    """A transformer with the interface of scikit-learn's KNeighborsTransformer; it is cloned."""

    def __init__(self, transformer: Any, metric: Metric, params: Mapping[str, Any]) -> None:
        self.transformer = clone(transformer)
        self.metric = metric
        self.params = params
        self.n_neighbors = int(transformer.n_neighbors)

    def build(self, X: Any) -> sp.csr_matrix:
        """Pairs among the training samples."""
        self._n_train = X.shape[0]
        return self._lists(self.transformer.fit_transform(X), X.shape[0])

    def query(self, Z: Any) -> sp.csr_matrix:
        """Pairs from new samples to training samples."""
        return self._lists(self.transformer.transform(Z), Z.shape[0])

    def _lists(self, given: Any, n_rows: int) -> sp.csr_matrix:
        lists = checked_lists(given, (n_rows, self._n_train), _origin(self.transformer))
        return with_stored_zeros(lists)


class TransformedNeighbors(StoredNeighbors):
    """The distances of a transformer that has no number of neighbours, such as one by radius."""

    def __init__(self, transformer: Any) -> None:
        self.transformer = clone(transformer)

    def build(self, X: Any) -> DistanceGraph:
        """The graph of the transformer's distances."""
        self._is_sparse = sp.issparse(X)
        self.origin = _origin(self.transformer)
        return super().build(self._lists(self.transformer.fit_transform(X), X.shape[0], X.shape[0]))

    def query(self, Z: Any) -> DistanceGraph:
        """The transformer's distances of new samples."""
        Z = Z.toarray() if sp.issparse(Z) and not self._is_sparse else Z
        lists = self.transformer.transform(Z)
        return super().query(self._lists(lists, Z.shape[0], self.radii.size))

    def _lists(self, given: Any, n_rows: int, n_train: int) -> sp.csr_matrix:
        return checked_lists(given, (n_rows, n_train), self.origin)


def _origin(transformer: Any) -> str:
    return f"neighbors_algorithm={type(transformer).__name__}()"


class ApproximateNeighbors(NeighborIndex):
    """The graph of the pairs that a search proposes, by the same rule as the exact one."""

    def __init__(self, candidates: CandidateSearch) -> None:
        self.candidates = candidates
        self.n_neighbors = candidates.n_neighbors

    def build(self, X: Any) -> DistanceGraph:
        """The graph of the training samples; all pairs, not cut off, where all are proposed."""
        self.X = X
        n = X.shape[0]
        pairs = union(self._measured(X, self.candidates.build(X)), stored_diagonal(n))
        self._all_pairs = pairs.nnz == n * n
        if self._all_pairs:
            return DistanceGraph(pairwise(X, X, self.candidates.metric, self.candidates.params))
        # Lists may be shorter than promised: a short one ends at its own last sample.
        lengths = np.bincount(np.diff(pairs.indptr))
        self._count = min(self.n_neighbors + 1, int(lengths.argmax()))
        self._keys = row_hashes(X)
        self._by_key = np.argsort(self._keys, kind="stable")
        self._proposed = _pattern(pairs)
        self.radii, n_tied, pairs = self._within_radii(X, pairs)
        distances = union(pairs, pairs.T.tocsr())
        self._symmetric = _pattern(distances)
        return DistanceGraph(distances, self.radii, self.radii, n_tied=n_tied)

    def query(self, Z: Any) -> DistanceGraph:
        """Distances from new samples to training samples."""
        if self._all_pairs:
            return DistanceGraph(self.all_distances(Z))
        Z = in_form_of(Z, self.X)
        proposed = self._measured(Z, self.candidates.query(Z))
        nearest = _pattern(within(proposed, kth_listed(proposed, _LENDERS)))
        pairs = self._measured(Z, (proposed + nearest @ self._symmetric).tocsr())
        radii, _, own = self._within_radii(Z, pairs)
        pairs = union(own, within(pairs, radii, self.radii))
        # A training sample has the neighbours that it has in the fit, whatever is proposed.
        known, training = self._training_samples(Z)
        if known.size:
            pairs = with_rows(pairs, known, self._measured(Z[known], self._symmetric[training]))
            radii[known] = self.radii[training]
        return DistanceGraph(pairs, radii, self.radii)

    def _training_samples(self, Z: Any) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Which of the new samples are training samples, and which ones."""
        keys = row_hashes(Z)
        place = np.searchsorted(self._keys, keys, sorter=self._by_key)
        training = self._by_key[np.minimum(place, self._by_key.size - 1)]
        known = np.flatnonzero(self._keys[training] == keys)
        training = training[known]
        if sp.issparse(Z):
            same = np.asarray(abs(Z[known] - self.X[training]).sum(axis=1)).reshape(-1) == 0
        else:
            same = (Z[known] == self.X[training]).all(axis=1)
        return known[same], training[same]

    def _within_radii(
        self, Z: Any, pairs: sp.csr_matrix
    ) -> tuple[NDArray[np.float64], int, sp.csr_matrix]:
        """Radii (n_rows,), how many rows tie throughout, and the pairs within the radii."""
        count = self._count
        radii = kth_listed(pairs, count)
        tied, n_tied = tied_rows(kth_listed(pairs, nearest_third(count - 1)), radii), 0
        own = within(pairs, radii)
        if tied.size:
            # Neighbours of neighbours hold those that are a little farther.
            wider = _pattern(pairs[tied]) @ self._proposed
            wider = self._measured(Z[tied], (wider + _pattern(pairs[tied])).tocsr())
            most = most_listed(count - 1, self.X.shape[0])
            radii[tied], all_tied = tie_radii(_ordered(wider, most), count - 1)
            n_tied = int(all_tied.sum())
            rows = sp.csr_matrix(
                (np.ones(tied.size), (tied, np.arange(tied.size))),
                shape=(pairs.shape[0], tied.size),
            )
            own = union(own, rows @ within(wider, radii[tied]))
        return radii, n_tied, own

    def all_distances(self, Z: Any) -> NDArray[np.float64]:
        """Distances from new samples to every training sample."""
        Z = in_form_of(Z, self.X)
        return pairwise(Z, self.X, self.candidates.metric, self.candidates.params)

    def _measured(self, Z: Any, pairs: sp.csr_matrix) -> sp.csr_matrix:
        """The pairs with their distances computed from the samples."""
        metric, params = self.candidates.metric, self.candidates.params
        distances = stored_pair_distances(Z, self.X, pairs, metric, params)
        measured = sp.csr_matrix(
            (np.maximum(distances, TINY), pairs.indices, pairs.indptr), shape=pairs.shape
        )
        measured.sort_indices()
        return measured


def _pattern(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """The same pairs with ones."""
    return sp.csr_matrix((np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape)


def _ordered(matrix: sp.csr_matrix, width: int) -> NDArray[np.float64]:
    """The least stored values of each row (n_rows, width), ascending; then twice the largest."""
    counts = np.diff(matrix.indptr)
    result = np.repeat(2.0 * matrix.max(axis=1).toarray(), width, axis=1)
    rows = np.repeat(np.arange(counts.size), counts)
    values = matrix.data[np.lexsort((matrix.data, rows))]
    position = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], counts)
    inside = position < width
    result[rows[inside], position[inside]] = values[inside]
    return result


def _clean_pairs(indices: NDArray[np.integer], n_columns: int) -> sp.csr_matrix:
    """The pairs of neighbour lists (n_rows, n_kept) without indices of -1 and repetitions."""
    rows = np.repeat(np.arange(indices.shape[0]), indices.shape[1])
    columns = indices.reshape(-1)
    valid = (columns >= 0) & (columns < n_columns)
    pairs = sp.csr_matrix(
        (np.ones(valid.sum()), (rows[valid], columns[valid])),
        shape=(indices.shape[0], n_columns),
    )
    pairs.sum_duplicates()
    return pairs
