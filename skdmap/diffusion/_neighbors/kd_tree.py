"""Exact neighbours in few columns, by k-d trees.

New samples also need the training samples that have the new one within *their* radius, which a
query for nearest neighbours alone would miss.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from joblib import effective_n_jobs
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from skdmap._threads import blas_threads
from skdmap.diffusion._neighbors.graph import (
    LOCAL_NEIGHBOR,
    TINY,
    DistanceGraph,
    NeighborIndex,
    most_listed,
    nearest_third,
    symmetric_graph,
    tie_radii,
    tied_rows,
)
from skdmap.diffusion._neighbors.metrics import MINKOWSKI_ORDERS, FarSamples, Metric, in_form_of

# Above this many columns a k-d tree visits nearly all samples.
TREE_COLUMNS = 15
# Training samples whose radii differ by less than this factor share a tree for the reverse query.
_RADIUS_RATIO = 1.2
# New samples near a training sample look this much further than the radii that reach it.
_SPARE, _LAST_LISTED = 1.02, 8
# New samples that look again list so many times the neighbours that they need: the more, the fewer
# must be asked the other way round.
_LISTED_MORE = 1.2
# Radii are rounded up to powers of this: samples of one radius are searched together.
_STEP = 1.1
# Some samples of each radius are counted first. Pairs cost less than a list of nearest samples as
# long as they are not so many times more; and none may have so many that memory runs out.
_TRIAL_ROWS = 32
_MOST_ON_AVERAGE, _MOST = 2.5, 16.0
_BLOCK = 2**18
_LISTED_BLOCK = 2**22


def tree_order(X: Any, metric: Metric, params: Mapping[str, Any]) -> float | None:
    """The order p of the Minkowski distance that a k-d tree can search, or None."""
    if sp.issparse(X) or X.shape[1] > TREE_COLUMNS or callable(metric):
        return None
    if metric == "minkowski" and set(params) <= {"p"}:
        return float(params.get("p", 2))
    return None if params else MINKOWSKI_ORDERS.get(metric)


def _tree(rows: NDArray[np.float64]) -> cKDTree:
    """Cells cut in the middle: made in two thirds of the time of a balanced tree, and searched in
    nine tenths.
    """
    return cKDTree(rows, balanced_tree=False)


class KDTreeNeighbors(NeighborIndex):
    """Exact neighbours by the Minkowski distance of order p, by k-d trees."""

    def __init__(self, n_neighbors: int, order: float, n_jobs: int | None = None) -> None:
        self.n_neighbors: int = n_neighbors
        self.order = order
        self.n_jobs = n_jobs

    @property
    def n_threads(self) -> int:
        """As many as BLAS may use, unless the user says how many."""
        return blas_threads() if self.n_jobs is None else effective_n_jobs(self.n_jobs)

    def build(self, X: NDArray[np.floating]) -> DistanceGraph:
        """The graph of distinct training samples (n_train, n_features)."""
        self._far = FarSamples(X, self.order)
        self.rows = np.asarray(X, dtype=np.float64) - self._far.centre
        self.tree = _tree(self.rows)
        # Queries in the order of the tree's leaves meet the same nodes in the cache.
        order_of_leaves = self.tree.indices
        distances = np.empty((len(self.rows), self.n_neighbors + 1))
        indices = np.empty(distances.shape, dtype=np.int32)
        distances[order_of_leaves], indices[order_of_leaves] = self.tree.query(
            self.rows[order_of_leaves],
            k=self.n_neighbors + 1,
            p=self.order,
            workers=self.n_threads,
        )
        graph = symmetric_graph(indices, distances, self._nearest)
        assert graph.row_radii is not None
        self.radii = graph.row_radii
        # The largest radius that reaches a sample, nearly: those that just do end the lists.
        self._reach = self.radii.copy()
        np.maximum.at(self._reach, indices[:, -_LAST_LISTED:], self.radii[:, None])
        self._reach *= _SPARE
        return graph

    @cached_property
    def _groups(self) -> list[tuple[NDArray[np.intp], cKDTree, float]]:
        """A tree of the samples of each radius, for reverse queries."""
        return [
            (members, _tree(self.rows[members]), self.radii[members].max())
            for members in _similar_radii(self.radii)
        ]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the trees, which are made again from the samples: skops does not store them."""
        state = {**vars(self), "tree": None}
        state.pop("_groups", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.tree = _tree(self.rows)

    def query(self, Z: NDArray[np.floating]) -> DistanceGraph:
        """Distances from new samples to training samples, and some more beyond the cut-off."""
        new = self._placed(Z)
        kept = self.n_neighbors + 1
        pairs, known = self._in_balls(new, kept)
        found = kth_smallest(pairs, [nearest_third(kept - 1), self._near + 1, kept])
        third, nearby, radii = found
        short = np.flatnonzero(np.isinf(radii))
        length = min(self.tree.n, int(_LISTED_MORE * kept) + 1)
        more = [self._listed(new, short, known, found, length)]
        tied, length = tied_rows(third, radii), most_listed(self.n_neighbors, self.tree.n)
        for rows in np.array_split(tied, max(1, tied.size * length // _LISTED_BLOCK)):
            more.append(self._listed(new, rows, known, found, length))
        more += [self._reverse(new, known, group) for group in self._groups]
        pairs = with_pairs(pairs, *(np.concatenate(part) for part in zip(*more, strict=True)))
        np.maximum(pairs.data, TINY, out=pairs.data)
        return DistanceGraph(pairs, radii, self.radii, nearby=nearby)

    def _in_balls(
        self, new: NDArray[np.float64], kept: int
    ) -> tuple[sp.csr_matrix, NDArray[np.float64]]:
        """The pairs within the reach of the nearest training sample, as ``pairs_in_balls``.
        None where some samples tell that lists of the nearest cost less, as in many dimensions.
        """
        some = new[:: max(1, len(new) // _TRIAL_ROWS)]
        reach = self._reach[self.tree.query(some, k=1, p=self.order)[1]]
        counts = self.tree.query_ball_point(some, reach, p=self.order, return_length=True)
        if counts.mean() > _MOST_ON_AVERAGE * kept:
            return sp.csr_matrix((len(new), self.tree.n)), np.zeros(len(new))
        _, nearest = self.tree.query(new, k=1, p=self.order)
        return pairs_in_balls(new, self.tree, self._reach[nearest], n_kept=kept, order=self.order)

    @property
    def _near(self) -> int:
        """The neighbour whose distance is the local bandwidth."""
        return min(LOCAL_NEIGHBOR, self.n_neighbors)

    def _nearest(
        self, rows: NDArray[np.intp], count: int
    ) -> tuple[NDArray[np.integer], NDArray[np.float64]]:
        """Longer neighbour lists (n_rows, count) of some training samples."""
        distances, indices = self.tree.query(
            self.rows[rows], k=count, p=self.order, workers=self.n_threads
        )
        return indices, distances

    def _placed(self, Z: NDArray[np.floating]) -> NDArray[np.float64]:
        """New samples from the mean of the training samples, far ones drawn near."""
        Z = in_form_of(Z, self.rows)
        placed: NDArray[np.float64] = self._far.drawn_near(Z) - self._far.centre
        return placed

    def _listed(
        self,
        new: NDArray[np.float64],
        rows: NDArray[np.intp],
        known: NDArray[np.float64],
        found: NDArray[np.float64],
        length: int,
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
        """Pairs of some rows that are not known yet, from lists of the nearest; sets the radii.
        ``found`` (3, n_rows): distances to the nearest third, to the seventh, and the radii.
        """
        if rows.size == 0:
            return rows, rows, np.empty(0)
        n_train = self.rows.shape[0]
        third, nearby, radii = found
        distances, indices = self.tree.query(new[rows], k=length, p=self.order)
        third[rows] = distances[:, nearest_third(self.n_neighbors) - 1]
        nearby[rows] = distances[:, self._near]
        if length == most_listed(self.n_neighbors, n_train):
            radii[rows] = tie_radii(distances, self.n_neighbors)[0]
        else:
            radii[rows] = distances[:, self.n_neighbors]
        # All pairs nearer than this are listed; it stays clear of rounding at the last one.
        listed = (
            distances[:, -1] * (1.0 - 1e-12) if length < n_train else np.full(len(rows), np.inf)
        )
        kept = (distances >= known[rows, None]) & (distances < listed[:, None])
        known[rows] = np.maximum(known[rows], listed)
        return np.repeat(rows, kept.sum(axis=1)), indices[kept], distances[kept]

    def _reverse(
        self,
        new: NDArray[np.float64],
        known: NDArray[np.float64],
        group: tuple[NDArray[np.intp], cKDTree, float],
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
        """Pairs not known yet that have the new sample within the training sample's radius."""
        members, tree, radius = group
        asking = np.flatnonzero(known <= radius)
        if asking.size == 0:
            return asking, asking, np.empty(0)
        found = temporary_tree(new[asking]).sparse_distance_matrix(
            tree, radius, p=self.order, output_type="ndarray"
        )
        rows, columns, values = asking[found["i"]], members[found["j"]], found["v"]
        kept = (values <= self.radii[columns]) & (values >= known[rows])
        return rows[kept], columns[kept], values[kept]

    def all_distances(self, Z: NDArray[np.floating]) -> NDArray[np.float64]:
        """Distances from new samples to every training sample."""
        new = self._placed(Z)
        if np.isinf(self.order):
            return cdist(new, self.rows, "chebyshev")
        return cdist(new, self.rows, "minkowski", p=self.order)


def _similar_radii(radii: NDArray[np.float64]) -> Iterator[NDArray[np.intp]]:
    order = np.argsort(radii, kind="stable")
    positive = np.maximum(radii[order], np.finfo(np.float64).tiny)
    level = np.floor(np.log(positive) / np.log(_RADIUS_RATIO))
    yield from np.split(order, np.flatnonzero(np.diff(level)) + 1)


def pairs_in_balls(
    new: NDArray[np.float64],
    tree: cKDTree,
    guess: NDArray[np.float64],
    *,
    n_kept: int,
    order: float = 2.0,
) -> tuple[sp.csr_matrix, NDArray[np.float64]]:
    """The pairs nearer than about ``guess`` (n_rows,), and up to where each row's are complete.
    That is 0 for a row whose ball holds far more than ``n_kept``.
    """
    known = np.zeros(len(new))
    parts = []
    for rows, radius in _equal_radii(guess):
        some = rows[:: max(1, rows.size // _TRIAL_ROWS)]
        counts = tree.query_ball_point(new[some], radius, p=order, return_length=True)
        if counts.mean() > _MOST_ON_AVERAGE * n_kept or counts.max() > _MOST * n_kept:
            continue
        found = temporary_tree(new[rows]).sparse_distance_matrix(
            tree, radius, p=order, output_type="ndarray"
        )
        # Clear of rounding at the border.
        known[rows] = limit = radius * (1.0 - 1e-12)
        if found["v"].max(initial=0.0) >= limit:
            found = found[found["v"] < limit]
        parts.append((rows.astype(np.int32), found))
    return _rows_together(parts, (len(new), tree.n)), known


def _rows_together(
    parts: list[tuple[NDArray[np.int32], NDArray[np.void]]], shape: tuple[int, int]
) -> sp.csr_matrix:
    """Pairs of each part, by position among its rows, as one matrix."""
    size = sum(found.size for _, found in parts)
    numbers, columns = np.empty(size, dtype=np.int32), np.empty(size, dtype=np.int32)
    values, start = np.empty(size), 0
    for rows, found in parts:
        here = slice(start, start + found.size)
        numbers[here] = rows[found["i"]]
        columns[here], values[here] = found["j"], found["v"]
        start = here.stop
    pairs = sp.coo_matrix((values, (numbers, columns)), shape=shape)
    # No pair is there twice: nothing is to be sorted and summed.
    pairs.has_canonical_format = True
    return pairs.tocsr()


def temporary_tree(rows: NDArray[np.float64]) -> cKDTree:
    """A tree that is cheap to make, for one search."""
    return cKDTree(rows, leafsize=32, balanced_tree=False, compact_nodes=False)


def _equal_radii(guess: NDArray[np.float64]) -> Iterator[tuple[NDArray[np.intp], float]]:
    """Rows whose radii are rounded up to the same number, and that number."""
    level = np.ceil(np.log(np.maximum(guess, np.finfo(float).tiny)) / np.log(_STEP))
    order = np.argsort(level, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(level[order])) + 1):
        if rows.size:
            yield rows, float(_STEP ** level[rows[0]])


def kth_smallest(matrix: sp.csr_matrix, wanted: Sequence[int]) -> NDArray[np.float64]:
    """The k-th smallest stored values (n_wanted, n_rows) of each row; inf where fewer are."""
    counts = np.diff(matrix.indptr)
    result = np.full((len(wanted), counts.size), np.inf)
    width = max(int(counts.max(initial=0)), *wanted)
    places = np.array(wanted) - 1
    step = max(1, _BLOCK // width)
    for start in range(0, counts.size, step):
        stop = min(start + step, counts.size)
        filled = np.arange(width) < counts[start:stop, None]
        padded = np.full(filled.shape, np.inf)
        padded[filled] = matrix.data[matrix.indptr[start] : matrix.indptr[stop]]
        padded.partition(np.unique(places), axis=1)
        result[:, start:stop] = padded[:, places].T
    return result


def with_pairs(
    matrix: sp.csr_matrix,
    rows: NDArray[np.integer],
    columns: NDArray[np.integer],
    values: NDArray[np.float64],
) -> sp.csr_matrix:
    """Insert pairs that are not stored yet."""
    if rows.size == 0:
        return matrix
    order = np.argsort(rows, kind="stable")
    place = matrix.indptr[rows[order] + 1]
    more = np.cumsum(np.bincount(rows, minlength=matrix.shape[0]))
    indptr = matrix.indptr + np.concatenate([[0], more]).astype(matrix.indptr.dtype)
    return sp.csr_matrix(
        (
            np.insert(matrix.data, place, values[order]),
            np.insert(matrix.indices, place, columns[order]),
            indptr,
        ),
        shape=matrix.shape,
    )
