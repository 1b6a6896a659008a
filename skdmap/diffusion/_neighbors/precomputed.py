"""The index of a sparse matrix of precomputed distances: nothing is searched."""

from typing import Any, NoReturn

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap._warning import warn
from skdmap.diffusion._neighbors.graph import (
    TINY,
    DistanceGraph,
    NeighborIndex,
    stored_diagonal,
    stored_tie_radii,
    union,
    with_stored_zeros,
)
from skdmap.diffusion._wide.row_hashing import row_hashes
from skdmap.exceptions import SkdmapWarning

# What searches write where they found nothing: the largest numbers, rounded by some.
_FILL_VALUES = np.array([np.finfo(np.float32).max, 3.4e38, np.finfo(np.float64).max])
# No distance of a training sample is so many times the median one.
_PADDING = 1e30
# Searches by |x|^2 + |y|^2 - 2xy put a sample of single precision so far away from itself.
_SELF = 1e-4
# Lists of fewer positive distances may be equal by symmetry.
_LEAST_EQUAL = 3


class StoredNeighbors(NeighborIndex):
    """Stored distances, zeros included; a pair counts when either of its two rows stores it."""

    n_neighbors = 0
    radii: NDArray[np.float64]
    # Where the distances come from, for messages.
    origin = "X (metric='precomputed')"

    def build(self, X: sp.csr_matrix) -> DistanceGraph:
        """The union of what the rows store; all pairs, not cut off, where every pair is stored."""
        n = X.shape[0]
        check_stored(X, self.origin)
        if is_connectivity(X):
            X = as_distances(X, self.origin)
        else:
            check_training_lists(X, self.origin)
            X = with_dropped_zeros(X, self.origin)
        stored = union(with_stored_zeros(X), stored_diagonal(n))
        self.n_neighbors = int(np.diff(stored.indptr).max()) - 1
        distances = union(stored, stored.T.tocsr())
        if stored.nnz == n * n:
            self.radii = np.full(n, np.inf)
            dense = distances.toarray()
            dense[dense <= TINY] = 0.0
            np.fill_diagonal(dense, 0.0)
            return DistanceGraph(dense)
        self.radii = stored_tie_radii(stored)
        return DistanceGraph(distances, self.radii, self.radii, listed=stored)

    def query(self, Z: sp.csr_matrix) -> DistanceGraph:
        """The stored distances of new samples."""
        check_stored(Z, self.origin)
        stored = with_stored_zeros(Z)
        return DistanceGraph(stored, stored_tie_radii(stored), self.radii)

    def all_distances(self, Z: Any) -> None:
        """Only the stored distances are known."""
        return None


def checked_lists(given: Any, shape: tuple[int, int], origin: str) -> sp.csr_matrix:
    """What a transformer returned as lists (n_rows, n_train); ValueError on another shape."""
    if np.shape(given) != shape:
        raise ValueError(
            f"{origin}: transform returned an array of shape {np.shape(given)}; it must return a "
            f"sparse matrix of shape {shape}, distances from each sample to the training samples, "
            "as KNeighborsTransformer(mode='distance') does."
        )
    lists = sp.csr_matrix(given)
    lists.sum_duplicates()
    return lists


def check_stored(X: sp.csr_matrix, origin: str) -> None:
    """Raise ValueError on stored distances that are negative, not finite, or padding."""
    data = X.data
    problems = {
        "not finite": ~np.isfinite(data),
        "negative": data < 0,
        "padding": np.isin(data, _FILL_VALUES),
    }
    for what, bad in problems.items():
        if bad.any():
            _refuse(X, int(bad.argmax()), what, origin)


def is_connectivity(X: sp.csr_matrix) -> bool:
    """Whether all stored values are one positive number, as in a connectivity graph."""
    return X.nnz > X.shape[0] and bool(X.data.min() > 0 and X.data.min() == X.data.max())


def as_distances(X: sp.csr_matrix, origin: str) -> sp.csr_matrix:
    """The graph without loops, after a word on what it is taken for."""
    warn(
        f"{origin}: all stored distances are {X.data[0]:g}, so it is treated as a connectivity "
        "graph, in which all neighbours of a sample are at the same distance. To weigh near "
        "neighbours more, pass distances, such as those of KNeighborsTransformer(mode='distance'), "
        "or affinities with kernel='precomputed'.",
        SkdmapWarning,
    )
    edges = X.tocoo()
    others = edges.row != edges.col
    return sp.csr_matrix(
        (edges.data[others], (edges.row[others], edges.col[others])), shape=X.shape
    )


def check_training_lists(X: sp.csr_matrix, origin: str) -> None:
    """Raise ValueError on a distance of a sample from itself, or one beyond all proportion."""
    diagonal, positive = X.diagonal(), X.data[X.data > 0]
    if diagonal.max(initial=0.0) > _SELF * positive.max(initial=0.0):
        row = int(diagonal.argmax())
        raise ValueError(
            f"{origin}: the stored distance of row {row} from itself is {diagonal[row]:g}; it must "
            "be 0 or not stored. Use mode='distance', not 'connectivity', or pass affinities with "
            "kernel='precomputed'."
        )
    if positive.size and positive.max() / _PADDING > np.median(positive):
        place = int(X.data.argmax())
        _refuse(X, place, f"padding, {_PADDING:g} times the median distance", origin)


def _refuse(X: sp.csr_matrix, place: int, what: str, origin: str) -> NoReturn:
    row = int(np.searchsorted(X.indptr, place, side="right")) - 1
    raise ValueError(
        f"{origin}: the stored distance {X.data[place]:g} in row {row} is {what}. Distances must "
        "be finite and >= 0. Leave out pairs without one, and pass affinities with "
        "kernel='precomputed'."
    )


def with_dropped_zeros(X: sp.csr_matrix, origin: str) -> sp.csr_matrix:
    """Store the distance 0 between samples whose lists are equal, and warn, where it is missing."""
    # Zeros do not count in the keys, so these are keys of lists without zeros.
    keys = row_hashes(X)
    positive = np.diff(np.concatenate([[0], np.cumsum(X.data > 0)])[X.indptr])
    rows = np.flatnonzero(positive >= _LEAST_EQUAL)
    order = rows[np.argsort(keys[rows], kind="stable")]
    equal = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    first, second = order[equal], order[equal + 1]
    if not first.size:
        return X
    stored = with_stored_zeros(X)
    missing = np.asarray((stored + stored.T.tocsr())[first, second]).reshape(-1) == 0
    if not missing.any():
        return X
    warn(
        f"{origin}: rows {first[missing][0]} and {second[missing][0]}, one of "
        f"{int(missing.sum())} such pairs, have equal distances to the same samples but no "
        "stored distance to each other. Zeros were probably dropped, so a distance of 0 is added. "
        "Store the zeros, or drop duplicate samples.",
        SkdmapWarning,
    )
    return _with_zeros_within_groups(stored, order, keys[order])


def _with_zeros_within_groups(
    stored: sp.csr_matrix, rows: NDArray[np.intp], keys: NDArray[np.uint64]
) -> sp.csr_matrix:
    """Store the distance 0 among the rows of each key; equal keys stand together."""
    pairs = [
        np.array(np.meshgrid(group, group)).reshape(2, -1)
        for group in np.split(rows, np.flatnonzero(np.diff(keys)) + 1)
        if group.size > 1
    ]
    places = np.concatenate(pairs, axis=1)
    zeros = sp.csr_matrix((np.full(places.shape[1], TINY), places), shape=stored.shape)
    return union(stored, zeros)
