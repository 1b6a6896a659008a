"""Sparse graphs: who counts as a neighbour, by trees, by brute force, approximately, or as listed.

The rule is the same for training rows and new rows: a pair counts when d <= max(r, r'), r being the
distance to the (n_neighbors + 1)-th nearest training row. It needs the training rows that have the
new row within *their* radius, which a query for nearest neighbours alone would miss.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from joblib import effective_n_jobs
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from skdmap.diffusion._balls import kth_smallest, pairs_in_balls, passing_tree, with_pairs
from skdmap.diffusion._distances import Metric, listed_distances, pairwise
from skdmap.diffusion._far_rows import FarRows, far_rows
from skdmap.diffusion._graph import TINY, DistanceGraph, union, with_stored_zeros, within
from skdmap.diffusion._products import blas_threads
from skdmap.diffusion._projected import projected_lists
from skdmap.diffusion._wide import WideRows

__all__ = ["BruteNeighbors", "ListedNeighbors", "TreeNeighbors", "tree_order"]

_BLOCK = 2**22
# Each block of distances between wide rows takes a pass over them: few large ones.
_WIDE_BLOCK = 2**27
# Squared radius over squared norm below which a matrix product does not tell neighbours apart.
_CONFUSED = 1e-5
# Above this many columns a k-d tree visits nearly all rows.
_TREE_COLUMNS = 15
# Training rows whose radii differ by less than this factor share a tree for the reverse query.
_RADIUS_RATIO = 1.2
# New rows near a training row look this much further than the radii that reach it.
_SPARE, _LAST_LISTED = 1.02, 8
# New rows that look again list so many times the neighbours that they need: the more, the fewer
# must be asked the other way round.
_LISTED_MORE = 1.2


def tree_order(X: Any, metric: Metric, params: Mapping[str, Any]) -> float | None:
    """Return the order p of the Minkowski distance that a k-d tree can search, or None."""
    if sp.issparse(X) or X.shape[1] > _TREE_COLUMNS or callable(metric):
        return None
    if metric == "minkowski" and set(params) <= {"p"}:
        return float(params.get("p", 2))
    orders = {"euclidean": 2.0, "manhattan": 1.0, "chebyshev": np.inf}
    return None if params else orders.get(metric)


class TreeNeighbors:
    """Exact neighbours in few columns, by k-d trees.

    Parameters
    ----------
    X : ndarray of shape (n_train, n_features)
        Distinct training rows.
    n_neighbors : int
        The row itself not counted.
    order : float
        p of the Minkowski distance.
    n_jobs : int or None, default=None
        Threads of the queries.
    """

    def __init__(
        self, X: NDArray[np.floating], n_neighbors: int, order: float, n_jobs: int | None = None
    ) -> None:
        self.n_neighbors = n_neighbors
        self.order = order
        self.n_threads = blas_threads() if n_jobs is None else effective_n_jobs(n_jobs)
        self._far = FarRows(X, order)
        self.rows = np.asarray(X, dtype=np.float64) - self._far.centre
        self.tree = cKDTree(self.rows)
        # Queries in the order of the tree's leaves meet the same nodes in the cache.
        order_of_leaves = self.tree.indices
        distances = np.empty((len(self.rows), n_neighbors + 1))
        indices = np.empty(distances.shape, dtype=np.int32)
        distances[order_of_leaves], indices[order_of_leaves] = self.tree.query(
            self.rows[order_of_leaves], k=n_neighbors + 1, p=order, workers=self.n_threads
        )
        self._lists: Any = distances, indices
        self.radii = distances[:, -1].copy()
        # The largest radius that reaches a row, nearly: those that just do are at the end of lists.
        self._reach = self.radii.copy()
        np.maximum.at(self._reach, indices[:, -_LAST_LISTED:], self.radii[:, None])
        self._reach *= _SPARE
        self._groups = [
            (members, cKDTree(self.rows[members]), self.radii[members].max())
            for members in _similar_radii(self.radii)
        ]

    def training_graph(self) -> DistanceGraph:
        """Distances among the training rows; to be called once, as it uses the lists up."""
        distances, indices = self._lists
        self._lists = None
        own_first = np.array_equal(indices[:, 0], np.arange(self.rows.shape[0]))
        lists = _lists_to_csr(indices, distances, self.rows.shape[0])
        del distances, indices
        if not own_first:
            # Rows that differ can be at distance 0 in double precision, and push a row out.
            lists = union(lists, _diagonal(self.rows.shape[0]))
        return DistanceGraph(union(lists, lists.T.tocsr()), self.radii, self.radii)

    def graph(self, Z: NDArray[np.floating]) -> DistanceGraph:
        """Distances from new rows to the training rows, and some more beyond the cut-off."""
        new = self._placed(Z)
        kept = self.n_neighbors + 1
        _, nearest = self.tree.query(new, k=1, p=self.order)
        pairs, known = pairs_in_balls(
            new, self.tree, self._reach[nearest], n_kept=kept, order=self.order
        )
        radii = kth_smallest(pairs, kept)
        short = np.flatnonzero(np.isinf(radii))
        more = [self._listed(new, short, known, radii)]
        more += [self._reverse(new, known, group) for group in self._groups]
        pairs = with_pairs(pairs, *(np.concatenate(part) for part in zip(*more, strict=True)))
        np.maximum(pairs.data, TINY, out=pairs.data)
        return DistanceGraph(pairs, radii, self.radii)

    def _placed(self, Z: NDArray[np.floating]) -> NDArray[np.float64]:
        """New rows from the mean of the training rows."""
        placed: NDArray[np.float64] = self._far.drawn_near(Z) - self._far.centre
        return placed

    def _listed(
        self,
        new: NDArray[np.float64],
        rows: NDArray[np.intp],
        known: NDArray[np.float64],
        radii: NDArray[np.float64],
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
        """Pairs of some rows that are not known yet, from lists of nearest rows; sets the radii."""
        if rows.size == 0:
            return rows, rows, np.empty(0)
        n_train = self.rows.shape[0]
        length = min(n_train, int(_LISTED_MORE * (self.n_neighbors + 1)) + 1)
        distances, indices = self.tree.query(new[rows], k=length, p=self.order)
        radii[rows] = distances[:, self.n_neighbors]
        # All pairs nearer than this are listed; it stays clear of rounding at the last one.
        listed = (
            distances[:, -1] * (1.0 - 1e-12) if length < n_train else np.full(len(rows), np.inf)
        )
        kept = (distances >= known[rows, None]) & (distances < listed[:, None])
        kept &= distances <= np.maximum(radii[rows, None], self.radii[indices])
        known[rows] = np.maximum(known[rows], listed)
        return np.repeat(rows, kept.sum(axis=1)), indices[kept], distances[kept]

    def _reverse(
        self,
        new: NDArray[np.float64],
        known: NDArray[np.float64],
        group: tuple[NDArray[np.intp], cKDTree, float],
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
        """Pairs that are not known, but have the new row in the training row's radius."""
        members, tree, radius = group
        asking = np.flatnonzero(known <= radius)
        if asking.size == 0:
            return asking, asking, np.empty(0)
        found = passing_tree(new[asking]).sparse_distance_matrix(
            tree, radius, p=self.order, output_type="ndarray"
        )
        rows, columns, values = asking[found["i"]], members[found["j"]], found["v"]
        kept = (values <= self.radii[columns]) & (values >= known[rows])
        return rows[kept], columns[kept], values[kept]

    def all_distances(self, Z: NDArray[np.floating]) -> NDArray[np.float64]:
        """Distances from new rows to every training row."""
        new = self._placed(Z)
        if np.isinf(self.order):
            return cdist(new, self.rows, "chebyshev")
        return cdist(new, self.rows, "minkowski", p=self.order)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the lists of the fit, which no later call needs."""
        return {**self.__dict__, "_lists": None}


def _similar_radii(radii: NDArray[np.float64]) -> Iterator[NDArray[np.intp]]:
    order = np.argsort(radii, kind="stable")
    positive = np.maximum(radii[order], np.finfo(np.float64).tiny)
    level = np.floor(np.log(positive) / np.log(_RADIUS_RATIO))
    yield from np.split(order, np.flatnonzero(np.diff(level)) + 1)


class BruteNeighbors:
    """Exact neighbours by any metric, from blocks of the distance matrix.

    Parameters
    ----------
    X : {ndarray, csr_matrix} of shape (n_train, n_features) or (n_train, n_train)
        Distinct training rows; for "precomputed" their dense distances.
    n_neighbors : int
        The row itself not counted.
    metric : str or callable
        As ``canonical_metric`` returns it, or "precomputed".
    params : mapping
        Its keyword arguments.
    n_jobs : int or None, default=None
        For scikit-learn's search.
    """

    n_threads = 1

    def __init__(
        self,
        X: Any,
        n_neighbors: int,
        metric: Metric,
        params: Mapping[str, Any],
        n_jobs: int | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.X: Any = X
        self.metric = metric
        self.params = params
        self.n_jobs = n_jobs
        self.n_train = X.shape[0]
        self._far = far_rows(X, metric, params)
        self._training = self._fused() if self._can_fuse() else self._blockwise()
        radii = self._training.row_radii
        assert radii is not None
        self.radii = radii
        if radii.min() <= 0.0:
            # A semimetric may have more rows at distance 0 than a list has room for.
            ties = self.graph(X).distances
            self._training = DistanceGraph(union(ties, ties.T.tocsr()), radii, radii)
        if metric == "precomputed":
            # New rows come with distances of their own: those of the fit are not kept.
            self.X = None

    def _can_fuse(self) -> bool:
        dense = not sp.issparse(self.X) and not isinstance(self.X, WideRows)
        return self.metric == "euclidean" and not self.params and dense

    def _fused(self) -> DistanceGraph:
        """Indices by projections or scikit-learn's fused search, distances from differences."""
        workers = blas_threads() if self.n_jobs is None else effective_n_jobs(self.n_jobs)
        found = projected_lists(self.X, self.n_neighbors + 1, workers=workers)
        if found is not None:
            return symmetric_graph(*found)
        centred = np.asarray(self.X, dtype=np.float64)
        centred = centred - centred.mean(axis=0)
        search = NearestNeighbors(
            n_neighbors=self.n_neighbors + 1, algorithm="brute", n_jobs=self.n_jobs
        ).fit(centred)
        indices = search.kneighbors(centred, return_distance=False)
        distances = listed_distances(centred, centred, indices)
        # The fused search takes |x|^2 + |y|^2 - 2xy: close rows far from the mean are confused.
        squares = np.einsum("ij,ij->i", centred, centred)
        confused = np.flatnonzero(distances.max(axis=1) ** 2 < _CONFUSED * squares)
        if confused.size:
            indices[confused], distances[confused] = self._nearest(confused)
        return symmetric_graph(indices, distances)

    def _blockwise(self) -> DistanceGraph:
        return symmetric_graph(*self._nearest(np.arange(self.X.shape[0])))

    def _nearest(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        kept = self.n_neighbors + 1
        indices = np.empty((rows.size, kept), dtype=np.intp)
        distances = np.empty((rows.size, kept))
        known = self.X.take_distances() if isinstance(self.X, WideRows) else None
        step = self._rows_at_once()
        for start in range(0, rows.size, step):
            part = rows[start : start + step]
            block = self._measure(self.X[part]) if known is None else known[part]
            block[np.arange(part.size), part] = 0.0
            nearest = np.argpartition(block, kept - 1, axis=1)[:, :kept]
            indices[start : start + step] = nearest
            distances[start : start + step] = np.take_along_axis(block, nearest, axis=1)
        return indices, distances

    def _rows_at_once(self) -> int:
        block = _WIDE_BLOCK if isinstance(self.X, WideRows) else _BLOCK
        return max(1, block // self.n_train)

    def _measure(self, Z: Any) -> NDArray[np.float64]:
        if self.metric == "precomputed":
            return np.array(Z, dtype=np.float64)
        near = Z if self._far is None else self._far.drawn_near(Z)
        return pairwise(near, self.X, self.metric, self.params, n_jobs=self.n_jobs)

    def training_graph(self) -> DistanceGraph:
        """Distances among the training rows."""
        return self._training

    def graph(self, Z: Any) -> DistanceGraph:
        """Distances from new rows to the training rows."""
        blocks, radii = [], []
        step = self._rows_at_once()
        for start in range(0, Z.shape[0], step):
            block = self._measure(Z[start : start + step])
            radius = np.partition(block, self.n_neighbors, axis=1)[:, self.n_neighbors]
            rows, columns = np.nonzero(block <= np.maximum(radius[:, None], self.radii[None, :]))
            values = np.maximum(block[rows, columns], TINY)
            blocks.append(sp.csr_matrix((values, (rows, columns)), shape=block.shape))
            radii.append(radius)
        return DistanceGraph(sp.vstack(blocks, format="csr"), np.concatenate(radii), self.radii)

    def all_distances(self, Z: Any) -> NDArray[np.float64]:
        """Distances from new rows to every training row."""
        return self._measure(Z)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the graph of the fit, which no later call needs."""
        return {**self.__dict__, "_training": None}


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


def symmetric_graph(indices: NDArray[np.integer], distances: NDArray[np.float64]) -> DistanceGraph:
    """Return the graph of complete neighbour lists of the training rows, themselves included."""
    n = indices.shape[0]
    radii = distances.max(axis=1)
    lists = union(_lists_to_csr(indices, distances, n), _diagonal(n))
    return DistanceGraph(union(lists, lists.T.tocsr()), radii, radii)
