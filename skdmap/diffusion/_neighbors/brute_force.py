"""Exact neighbours by any metric, from blocks of the distance matrix; and all pairs."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
from joblib import effective_n_jobs
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from sklearn.neighbors import NearestNeighbors

from skdmap._threads import blas_threads
from skdmap.diffusion._eigensolvers.symmetric_eigh import largest_eigh
from skdmap.diffusion._neighbors.graph import (
    TINY,
    DistanceGraph,
    NeighborIndex,
    most_listed,
    nearest_third,
    symmetric_graph,
    tie_radii,
    tied_rows,
    union,
)
from skdmap.diffusion._neighbors.metrics import (
    Metric,
    far_samples,
    in_form_of,
    listed_distances,
    pairwise,
)
from skdmap.diffusion._wide.column_reader import WideRows, without_distances

_BLOCK = 2**22
# Each block of distances between wide samples takes a pass over them: few large ones.
_WIDE_BLOCK = 2**27
# Squared radius over squared norm below which a matrix product does not tell neighbours apart.
_CONFUSED = 1e-5
_AXES = 15
# Fewer samples are searched at once by products in less time than the axes take.
_LEAST_ROWS, _MOST_COLUMNS = 5000, 2048
_AXIS_ROWS, _TRIAL_ROWS = 4096, 128
# A candidate costs what this many samples cost in a matrix product.
_PRODUCT_PAIRS = 40.0
_PROJECTED_BLOCK = 2**20
_ROWS_AT_ONCE = 2048


class AllPairs(NeighborIndex):
    """Every pair counts. X is samples, or for "precomputed" their distances (n_train, n_train)."""

    n_neighbors = None

    def __init__(
        self, metric: Metric, params: Mapping[str, Any], n_jobs: int | None = None
    ) -> None:
        self.metric = metric
        self.params = params
        self.n_jobs = n_jobs

    def build(self, X: Any) -> DistanceGraph:
        """Distances among the training samples."""
        if self.metric == "precomputed":
            distances = 0.5 * np.add(X, X.T, dtype=np.float64)
            np.fill_diagonal(distances, 0.0)
            return DistanceGraph(distances)
        self.X = without_distances(X)
        self._far = far_samples(X, self.metric, self.params)
        return DistanceGraph(pairwise(X, X, self.metric, self.params, n_jobs=self.n_jobs))

    def query(self, Z: Any) -> DistanceGraph:
        """Distances from new samples to the training samples."""
        return DistanceGraph(self.all_distances(Z))

    def all_distances(self, Z: Any) -> NDArray[np.float64]:
        """Distances from new samples to every training sample."""
        if self.metric == "precomputed":
            return np.array(Z, dtype=np.float64)
        Z = in_form_of(Z, self.X)
        near = Z if self._far is None else self._far.drawn_near(Z)
        return pairwise(near, self.X, self.metric, self.params, n_jobs=self.n_jobs)


class BruteForceNeighbors(NeighborIndex):
    """Exact neighbours by any metric. X is distinct samples, or for "precomputed" distances."""

    def __init__(
        self,
        n_neighbors: int,
        metric: Metric,
        params: Mapping[str, Any],
        n_jobs: int | None = None,
    ) -> None:
        self.n_neighbors: int = n_neighbors
        self.metric = metric
        self.params = params
        self.n_jobs = n_jobs

    def build(self, X: Any) -> DistanceGraph:
        """The graph of the training samples."""
        self.X = None if self.metric == "precomputed" else without_distances(X)
        self._far = far_samples(X, self.metric, self.params)
        dense = not sp.issparse(X) and not isinstance(X, WideRows)
        if self.metric == "euclidean" and not self.params and dense:
            lists = self._fused(X)
        else:
            lists = self._nearest(X, np.arange(X.shape[0]), self.n_neighbors + 1)
        graph = symmetric_graph(*lists, partial(self._nearest, X))
        radii = graph.row_radii
        assert radii is not None
        self.radii = radii
        if radii.min() <= 0.0:
            # A semimetric may have more samples at distance 0 than a list has room for.
            ties = self.query(X).distances
            graph = DistanceGraph(union(ties, ties.T.tocsr()), radii, radii)
        return graph

    def _fused(self, X: NDArray[np.floating]) -> tuple[NDArray[np.integer], NDArray[np.float64]]:
        """Indices by projections or scikit-learn's fused search, distances from differences."""
        workers = blas_threads() if self.n_jobs is None else effective_n_jobs(self.n_jobs)
        found = projected_lists(X, self.n_neighbors + 1, workers=workers)
        if found is not None:
            return found
        centred = np.asarray(X, dtype=np.float64)
        centred = centred - centred.mean(axis=0)
        search = NearestNeighbors(
            n_neighbors=self.n_neighbors + 1, algorithm="brute", n_jobs=self.n_jobs
        ).fit(centred)
        indices = search.kneighbors(centred, return_distance=False)
        distances = listed_distances(centred, centred, indices)
        # The fused search takes |x|^2 + |y|^2 - 2xy: close samples far from the mean are confused.
        squares = np.einsum("ij,ij->i", centred, centred)
        confused = np.flatnonzero(distances.max(axis=1) ** 2 < _CONFUSED * squares)
        if confused.size:
            indices[confused], distances[confused] = self._nearest(
                X, confused, self.n_neighbors + 1
            )
        return indices, distances

    def _nearest(
        self, X: Any, rows: NDArray[np.intp], kept: int
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Neighbour lists (n_rows, kept) of some training samples, from blocks of distances."""
        indices = np.empty((rows.size, kept), dtype=np.intp)
        distances = np.empty((rows.size, kept))
        known = X.distances if isinstance(X, WideRows) else None
        step = _rows_at_once(X, X.shape[0])
        for start in range(0, rows.size, step):
            part = rows[start : start + step]
            block = self.all_distances(X[part]) if known is None else known[part]
            block[np.arange(part.size), part] = 0.0
            nearest = np.argpartition(block, kept - 1, axis=1)[:, :kept]
            indices[start : start + step] = nearest
            distances[start : start + step] = np.take_along_axis(block, nearest, axis=1)
        return indices, distances

    def query(self, Z: Any) -> DistanceGraph:
        """Distances from new samples to the training samples."""
        blocks, radii = [], []
        step = _rows_at_once(self.X, self.radii.size)
        for start in range(0, Z.shape[0], step):
            block = self.all_distances(Z[start : start + step])
            radius = self._radii_of(block)
            rows, columns = np.nonzero(block <= np.maximum(radius[:, None], self.radii[None, :]))
            values = np.maximum(block[rows, columns], TINY)
            blocks.append(sp.csr_matrix((values, (rows, columns)), shape=block.shape))
            radii.append(radius)
        return DistanceGraph(sp.vstack(blocks, format="csr"), np.concatenate(radii), self.radii)

    def _radii_of(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """R (n_rows,) of samples, from their distances to all training samples."""
        position = nearest_third(self.n_neighbors) - 1
        ordered = np.partition(distances, [position, self.n_neighbors], axis=1)
        radii = ordered[:, self.n_neighbors]
        tied = tied_rows(ordered[:, position], radii)
        count = most_listed(self.n_neighbors, distances.shape[1])
        nearest = np.partition(distances[tied], count - 1, axis=1)[:, :count]
        radii[tied] = tie_radii(np.sort(nearest, axis=1), self.n_neighbors)[0]
        return radii

    def all_distances(self, Z: Any) -> NDArray[np.float64]:
        """Distances from new samples to every training sample."""
        if self.metric == "precomputed":
            return np.array(Z, dtype=np.float64)
        Z = in_form_of(Z, self.X)
        near = Z if self._far is None else self._far.drawn_near(Z)
        return pairwise(near, self.X, self.metric, self.params, n_jobs=self.n_jobs)


def _rows_at_once(X: Any, n_train: int) -> int:
    return max(1, (_WIDE_BLOCK if isinstance(X, WideRows) else _BLOCK) // n_train)


def projected_lists(
    X: NDArray[np.floating], n_kept: int, *, workers: int = 1
) -> tuple[NDArray[np.intp], NDArray[np.float64]] | None:
    """Neighbour lists (n_rows, n_kept), own row included; None where products are cheaper."""
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
        indices[rows], distances[rows] = _nearest_projected(
            X, projected, tree, rows, n_kept, slack=slack, workers=workers
        )
    return indices, distances


def _projections(X: NDArray[np.floating]) -> NDArray[np.float64]:
    """Project on the principal axes of some samples, evenly spread over the order of X."""
    n_rows, n_features = X.shape
    some = np.unique(np.linspace(0, n_rows - 1, _AXIS_ROWS).astype(int))
    sample = X[some].astype(np.float64)
    mean = sample.mean(axis=0)
    sample -= mean
    _, axes = largest_eigh(sample.T @ sample, min(_AXES, n_features))
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
    """Whether a few samples have few candidates."""
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


def _nearest_projected(
    X: NDArray[np.floating],
    projected: NDArray[np.float64],
    tree: cKDTree,
    rows: NDArray[np.intp],
    n_kept: int,
    *,
    slack: float,
    workers: int,
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Lists of some samples: measure the nearest projections, then those that may be nearer."""
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
    """Distances from each sample to some others, from differences in double precision."""
    distances = np.empty(others.shape)
    step = max(1, _PROJECTED_BLOCK // (others.shape[1] * X.shape[1]))
    for start in range(0, len(others), step):
        part = slice(start, start + step)
        difference = X[others[part]].astype(np.float64)
        difference -= X[rows[part], None]
        squares = np.einsum("ijk,ijk->ij", difference, difference)
        distances[part] = np.sqrt(squares)
    return distances
