from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from joblib import effective_n_jobs
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.spatial import cKDTree
from sklearn.neighbors import NearestNeighbors

from skdmap.diffusion._eigensolvers.row_blocks import blas_threads
from skdmap.diffusion._neighbors.graph import TINY, DistanceGraph, _diagonal, _lists_to_csr, union
from skdmap.diffusion._neighbors.metrics import Metric, far_rows, listed_distances, pairwise
from skdmap.diffusion._wide.column_reader import WideRows

_BLOCK = 2**22
# Each block of distances between wide rows takes a pass over them: few large ones.
_WIDE_BLOCK = 2**27
# Squared radius over squared norm below which a matrix product does not tell neighbours apart.
_CONFUSED = 1e-5
_AXES = 15
# Fewer rows are searched at once by products in less time than the axes take.
_LEAST_ROWS, _MOST_COLUMNS = 5000, 2048
_AXIS_ROWS, _TRIAL_ROWS = 4096, 128
# A candidate costs what this many rows cost in a matrix product.
_PRODUCT_PAIRS = 40.0
_PROJECTED_BLOCK = 2**20
_ROWS_AT_ONCE = 2048


class AllPairs:
    """Every pair counts.

    Parameters
    ----------
    X : {ndarray, csr_matrix} of shape (n_train, n_features) or (n_train, n_train)
        Training rows; for "precomputed" their distances.
    metric : str or callable
        As ``canonical_metric`` returns it, or "precomputed".
    params : mapping
        Its keyword arguments.
    n_jobs : int or None
        For metrics that scikit-learn computes.
    """

    n_neighbors = None
    n_threads = 1

    def __init__(
        self, X: Any, metric: Metric, params: Mapping[str, Any], n_jobs: int | None = None
    ) -> None:
        self.X: Any = X
        self.metric = metric
        self.params = params
        self.n_jobs = n_jobs
        self._far = far_rows(X, metric, params)

    def training_graph(self) -> DistanceGraph:
        """Distances among the training rows."""
        if self.metric == "precomputed":
            distances = 0.5 * np.add(self.X, self.X.T, dtype=np.float64)
            np.fill_diagonal(distances, 0.0)
            # New rows come with distances of their own: those of the fit are not kept.
            self.X = None
            return DistanceGraph(distances)
        return DistanceGraph(pairwise(self.X, self.X, self.metric, self.params, n_jobs=self.n_jobs))

    def graph(self, Z: Any) -> DistanceGraph:
        """Distances from new rows to the training rows."""
        if self.metric == "precomputed":
            return DistanceGraph(np.array(Z, dtype=np.float64))
        near = Z if self._far is None else self._far.drawn_near(Z)
        return DistanceGraph(pairwise(near, self.X, self.metric, self.params, n_jobs=self.n_jobs))

    def all_distances(self, Z: Any) -> NDArray[np.float64]:
        """Distances from new rows to every training row."""
        distances: NDArray[np.float64] = self.graph(Z).distances
        return distances


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


def symmetric_graph(indices: NDArray[np.integer], distances: NDArray[np.float64]) -> DistanceGraph:
    """Return the graph of complete neighbour lists of the training rows, themselves included."""
    n = indices.shape[0]
    radii = distances.max(axis=1)
    lists = union(_lists_to_csr(indices, distances, n), _diagonal(n))
    return DistanceGraph(union(lists, lists.T.tocsr()), radii, radii)


def projected_lists(
    X: NDArray[np.floating], n_kept: int, *, workers: int = 1
) -> tuple[NDArray[np.intp], NDArray[np.float64]] | None:
    """Return the nearest rows of each row, itself included, where that pays.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features)
        Distinct rows.
    n_kept : int
        Rows in each list.
    workers : int, default=1
        Threads of the tree's queries.

    Returns
    -------
    indices : ndarray of shape (n_rows, n_kept)
    distances : ndarray of shape (n_rows, n_kept)
        Or None where matrix products are cheaper.
    """
    n_rows, n_features = X.shape
    if n_rows < _LEAST_ROWS or n_features > _MOST_COLUMNS or 4 * n_kept > n_rows:
        return None
    projected = _projections(X)
    # What rounding may add to a projection's distance.
    slack = 1e-12 * float(np.abs(projected).max())
    if not _pays(X, projected, n_kept, slack):
        return None
    tree = cKDTree(projected)
    indices = np.empty((n_rows, n_kept), dtype=np.intp)
    distances = np.empty((n_rows, n_kept))
    # Rows in the order of the leaves share their candidates.
    for start in range(0, n_rows, _ROWS_AT_ONCE):
        rows = tree.indices[start : start + _ROWS_AT_ONCE]
        indices[rows], distances[rows] = _nearest(
            X, projected, tree, rows, n_kept, slack=slack, workers=workers
        )
    return indices, distances


def _projections(X: NDArray[np.floating]) -> NDArray[np.float64]:
    """Project on the principal axes of some rows, evenly spread over the order of X."""
    n_rows, n_features = X.shape
    some = np.unique(np.linspace(0, n_rows - 1, _AXIS_ROWS).astype(int))
    sample = X[some].astype(np.float64)
    mean = sample.mean(axis=0)
    sample -= mean
    first = max(0, n_features - _AXES)
    _, axes = eigh(sample.T @ sample, subset_by_index=(first, n_features - 1))
    projected = np.empty((n_rows, axes.shape[1]))
    step = max(1, _PROJECTED_BLOCK // n_features)
    for start in range(0, n_rows, step):
        block = X[start : start + step].astype(np.float64)
        block -= mean
        projected[start : start + step] = block @ axes
    return projected


def _pays(
    X: NDArray[np.floating], projected: NDArray[np.float64], n_kept: int, slack: float
) -> bool:
    """Whether a few rows have few candidates."""
    rows = np.unique(np.linspace(0, len(X) - 1, _TRIAL_ROWS).astype(int))
    new = projected[rows]
    near = np.empty((rows.size, len(X)))
    for number, row in enumerate(new):
        difference = projected - row
        near[number] = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    nearest = np.argpartition(near, n_kept - 1, axis=1)[:, :n_kept]
    bound = _measured(X, rows, nearest).max(axis=1) + slack
    candidates = (near <= bound[:, None]).sum(axis=1).mean()
    return bool(_PRODUCT_PAIRS * candidates < len(X))


def _nearest(
    X: NDArray[np.floating],
    projected: NDArray[np.float64],
    tree: cKDTree,
    rows: NDArray[np.intp],
    n_kept: int,
    *,
    slack: float,
    workers: int,
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Lists of some rows: measure the nearest projections, then those that may be nearer."""
    near, found = tree.query(projected[rows], k=2 * n_kept, workers=workers)
    distances = np.full(near.shape, np.inf)
    distances[:, :n_kept] = _measured(X, rows, found[:, :n_kept])
    bound = distances[:, :n_kept].max(axis=1) + slack
    row, column = np.nonzero(near[:, n_kept:] <= bound[:, None])
    column += n_kept
    distances[row, column] = _measured(X, rows[row], found[row, column][:, None])[:, 0]
    best = np.argpartition(distances, n_kept - 1, axis=1)[:, :n_kept]
    indices = np.take_along_axis(found, best, axis=1)
    nearest = np.take_along_axis(distances, best, axis=1)
    # More rows than were asked for may lie within the bound.
    for number in np.flatnonzero(near[:, -1] <= bound):
        point = projected[rows[number]]
        inside = np.array(tree.query_ball_point(point, bound[number]), dtype=np.intp)
        exact = _measured(X, rows[number : number + 1], inside[None, :])[0]
        chosen = np.argpartition(exact, n_kept - 1)[:n_kept]
        indices[number], nearest[number] = inside[chosen], exact[chosen]
    return indices, nearest


def _measured(
    X: NDArray[np.floating], rows: NDArray[np.intp], others: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Distances from each row to some others, from differences in double precision."""
    distances = np.empty(others.shape)
    step = max(1, _PROJECTED_BLOCK // (others.shape[1] * X.shape[1]))
    for start in range(0, len(others), step):
        part = slice(start, start + step)
        difference = X[others[part]].astype(np.float64)
        difference -= X[rows[part], None]
        squares = np.einsum("ijk,ijk->ij", difference, difference)
        distances[part] = np.sqrt(squares)
    return distances
