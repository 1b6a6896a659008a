"""Sparse graphs from an index that may miss neighbours: pynndescent, or a transformer.

An index answers with lists. They are cleaned (indices of -1 and repetitions occur), and for new
rows widened by the graph's own rows of the nearest training rows: that brings in the training rows
that have the new row within their radius, and gives a training row its own neighbours back.
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
    _diagonal,
    kth_listed,
    union,
    with_stored_zeros,
    within,
)
from skdmap.diffusion._neighbors.metrics import Metric, paired_distances, pairwise
from skdmap.diffusion._neighbors.precomputed import ListedNeighbors

_BLOCK = 2**22
# So many of the nearest training rows lend a new row their neighbours.
_LENDERS = 3
_DIFFERENCE_METRICS = {"manhattan": "cityblock", "chebyshev": "chebyshev"}


class Index(Protocol):
    """What answers with lists: (rows, columns) pairs that the index thinks are near."""

    n_neighbors: int
    metric: Metric
    params: Mapping[str, Any]

    def training_pairs(self) -> sp.csr_matrix:
        """Pairs among the training rows."""

    def pairs(self, Z: Any) -> sp.csr_matrix:
        """Pairs from new rows to training rows."""


class PynndescentIndex:
    """Nearest-neighbour descent (Dong, Moses & Li 2011, doi:10.1145/1963405.1963487).

    Parameters
    ----------
    X : {ndarray, csr_matrix} of shape (n_train, n_features)
        Training rows.
    n_neighbors : int
        The row itself not counted.
    metric : str or callable
        A metric of pynndescent.
    params : mapping
        Its keyword arguments.
    seed : int
        Of the index.
    n_jobs : int or None
        Threads of the index.
    """

    def __init__(
        self,
        X: Any,
        n_neighbors: int,
        metric: Metric,
        params: Mapping[str, Any],
        seed: int,
        n_jobs: int | None = None,
    ) -> None:
        import pynndescent

        self.n_neighbors = n_neighbors
        self.metric = metric
        self.params = params
        self.n_train = X.shape[0]
        # The index works in float32: far from the origin nothing would be left.
        self.centre = None if sp.issparse(X) else np.asarray(X, dtype=np.float64).mean(axis=0)
        self.index = pynndescent.NNDescent(
            self._shifted(X),
            n_neighbors=min(n_neighbors + 1, X.shape[0]),
            metric=metric,
            metric_kwds=dict(params) or None,
            random_state=np.random.RandomState(seed),
            n_jobs=1 if n_jobs is None else n_jobs,
        )

    def _shifted(self, X: Any) -> Any:
        if self.centre is None or self.metric not in {"euclidean", *_DIFFERENCE_METRICS}:
            return X.astype(np.float32)
        return (np.asarray(X, dtype=np.float64) - self.centre).astype(np.float32)

    def training_pairs(self) -> sp.csr_matrix:
        """Pairs among the training rows."""
        indices, _ = self.index.neighbor_graph
        return _clean_pairs(indices, self.n_train)

    def pairs(self, Z: Any) -> sp.csr_matrix:
        """Pairs from new rows to training rows."""
        indices, _ = self.index.query(self._shifted(Z), k=self.n_neighbors + 1)
        return _clean_pairs(indices, self.n_train)


class TransformerIndex:
    """A transformer with the interface of scikit-learn's KNeighborsTransformer.

    Parameters
    ----------
    transformer : estimator
        Unfitted; cloned. ``transform`` gives sparse distances to the training rows.
    X : {ndarray, csr_matrix} of shape (n_train, n_features)
        Training rows.
    metric : str or callable
        That of the transformer where it has one: listed pairs are measured again by it.
    params : mapping
        Its keyword arguments.
    """

    def __init__(self, transformer: Any, X: Any, metric: Metric, params: Mapping[str, Any]) -> None:
        self.transformer = clone(transformer)
        self._training = self.transformer.fit_transform(X)
        self.metric = metric
        self.params = params
        self.n_neighbors = int(transformer.n_neighbors)

    def training_pairs(self) -> sp.csr_matrix:
        """Pairs among the training rows."""
        return with_stored_zeros(sp.csr_matrix(self._training))

    def pairs(self, Z: Any) -> sp.csr_matrix:
        """Pairs from new rows to training rows."""
        return with_stored_zeros(sp.csr_matrix(self.transformer.transform(Z)))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the lists of the fit, which no later call needs."""
        return {**self.__dict__, "_training": None}


class TransformedNeighbors(ListedNeighbors):
    """The lists of a transformer that names no number of neighbours, such as one by radius.

    Parameters
    ----------
    transformer : estimator
        Unfitted; cloned. ``transform`` gives sparse distances to the training rows.
    X : {ndarray, csr_matrix} of shape (n_train, n_features)
        Training rows.
    """

    def __init__(self, transformer: Any, X: Any) -> None:
        self.transformer = clone(transformer)
        super().__init__(sp.csr_matrix(self.transformer.fit_transform(X)))

    def _lists_of(self, Z: Any) -> sp.csr_matrix:
        return sp.csr_matrix(self.transformer.transform(Z))


class ApproximateNeighbors:
    """The graph of an index, by the same rule as the exact one.

    Parameters
    ----------
    index : PynndescentIndex or TransformerIndex
        Answers with lists; their distances are computed again.
    X : {ndarray, csr_matrix} of shape (n_train, n_features)
        Training rows.
    """

    n_threads = 1

    def __init__(self, index: Index, X: Any) -> None:
        self.index = index
        self.X = X
        self.n_neighbors = index.n_neighbors
        n = X.shape[0]
        lists = union(self._measured(X, index.training_pairs()), _diagonal(n))
        # Lists may be shorter than promised: all rows, new ones too, then go by the shortest.
        self._count = int(min(self.n_neighbors + 1, np.diff(lists.indptr).min()))
        self.radii = kth_listed(lists, self._count)
        lists = within(lists, self.radii)
        self._symmetric = union(lists, lists.T.tocsr())

    def training_graph(self) -> DistanceGraph:
        """Distances among the training rows."""
        return DistanceGraph(self._symmetric, self.radii, self.radii)

    def graph(self, Z: Any) -> DistanceGraph:
        """Distances from new rows to the training rows."""
        listed = self._measured(Z, self.index.pairs(Z))
        nearest = within(listed, kth_listed(listed, _LENDERS))
        nearest.data[:] = 1.0
        lent = nearest @ self._pattern()
        pairs = self._measured(Z, (listed + lent).tocsr())
        radii = kth_listed(pairs, self._count)
        return DistanceGraph(within(pairs, radii, self.radii), radii, self.radii)

    def all_distances(self, Z: Any) -> NDArray[np.float64]:
        """Distances from new rows to every training row."""
        return pairwise(Z, self.X, self.index.metric, self.index.params)

    def _pattern(self) -> sp.csr_matrix:
        pattern = self._symmetric.copy()
        pattern.data[:] = 1.0
        return pattern

    def _measured(self, Z: Any, pairs: sp.csr_matrix) -> sp.csr_matrix:
        """Return the pairs with their distances computed from the rows."""
        distances = np.empty(pairs.nnz)
        rows = np.repeat(np.arange(pairs.shape[0]), np.diff(pairs.indptr))
        metric, params = self.index.metric, self.index.params
        if params or not (metric == "euclidean" or metric in _DIFFERENCE_METRICS):
            for i in range(pairs.shape[0]):
                part = slice(pairs.indptr[i], pairs.indptr[i + 1])
                if part.stop > part.start:
                    columns = pairs.indices[part]
                    distances[part] = pairwise(Z[i : i + 1], self.X[columns], metric, params)[0]
        else:
            step = max(1, _BLOCK // self.X.shape[1])
            for start in range(0, pairs.nnz, step):
                part = slice(start, start + step)
                distances[part] = _paired(Z[rows[part]], self.X[pairs.indices[part]], metric)
        measured = sp.csr_matrix(
            (np.maximum(distances, TINY), pairs.indices, pairs.indptr), shape=pairs.shape
        )
        measured.sort_indices()
        return measured


def _paired(X: Any, Y: Any, metric: Metric) -> NDArray[np.float64]:
    if metric == "euclidean":
        return paired_distances(X, Y)
    difference = np.abs(
        (X - Y).toarray() if sp.issparse(X) else np.asarray(X, np.float64) - np.asarray(Y)
    )
    return difference.sum(axis=1) if metric == "manhattan" else difference.max(axis=1)


def _clean_pairs(indices: NDArray[np.integer], n_columns: int) -> sp.csr_matrix:
    """Return the pairs of neighbour lists without indices of -1 and repetitions."""
    rows = np.repeat(np.arange(indices.shape[0]), indices.shape[1])
    columns = indices.reshape(-1)
    valid = (columns >= 0) & (columns < n_columns)
    pairs = sp.csr_matrix(
        (np.ones(valid.sum()), (rows[valid], columns[valid])),
        shape=(indices.shape[0], n_columns),
    )
    pairs.sum_duplicates()
    return pairs
