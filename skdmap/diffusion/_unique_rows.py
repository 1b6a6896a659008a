"""Equal samples merged: unique samples of positive weight, and who stands for whom.

Merging comes before everything else. So a sample of weight 2 and two equal samples are the same
for every later step, neighbour counts and medians included.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from skdmap.diffusion._wide.memory_limit import HASH_ENTRIES, rows_within
from skdmap.diffusion._wide.row_hashing import row_hashes

# Relative to the largest, a smaller weight is 0 in any sum in double precision.
_LEAST_WEIGHT = 1e-280


@dataclass(frozen=True)
class UniqueRows:
    """Groups of equal samples."""

    # (n_unique,) First sample of each group of positive weight: ascending, or in local order.
    index: NDArray[np.intp]
    # (n_samples,) Position of the sample's group in ``index``; -1 for groups without weight.
    group: NDArray[np.intp]
    # (n_unique,) Sum of the group's weights; sums to 1.
    weight: NDArray[np.float64]
    # (n_samples,) The sample's share of its group's weight.
    share: NDArray[np.float64]


def unique_rows(X: Any, weight: NDArray[np.float64]) -> UniqueRows:
    """Group equal rows of X (n_samples, n_features), read once in blocks, by their hashes."""
    keys = row_hashes(X)
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    if first.size < keys.size and not _same_rows(X, first[group]):
        # Two different rows share a 64-bit hash: sort the rows themselves.
        dense = X.toarray() if sp.issparse(X) else np.asarray(X)
        _, first, group = np.unique(dense, axis=0, return_index=True, return_inverse=True)
    return _with_weight(first, group.reshape(-1), weight)


def separate_rows(weight: NDArray[np.float64]) -> UniqueRows:
    """Treat every sample of positive weight as unique."""
    own = np.arange(weight.size)
    return _with_weight(own, own, weight)


def unique_distances(distances: NDArray[np.floating], weight: NDArray[np.float64]) -> UniqueRows:
    """Group samples whose whole rows of a dense distance matrix are equal."""
    if _all_apart(distances):
        return separate_rows(weight)
    return unique_rows(distances, weight)


def merge_zero_distances(
    distances: NDArray[np.floating], weight: NDArray[np.float64]
) -> UniqueRows:
    """Group samples at distance 0 from each other; for the distances of a metric only."""
    if _all_apart(distances):
        return separate_rows(weight)
    _, labels = sp.csgraph.connected_components(sp.csr_matrix(distances == 0), directed=False)
    _, first, group = np.unique(labels, return_index=True, return_inverse=True)
    return _with_weight(first, group, weight)


def some_unique_rows(rows: UniqueRows, kept: NDArray[np.intp]) -> UniqueRows:
    """Keep some groups of positive weight; the others count as groups of weight 0."""
    # The last entry stands for group -1.
    position = np.full(rows.index.size + 1, -1, dtype=np.intp)
    position[kept] = np.arange(kept.size)
    weight = rows.weight[kept]
    group = position[rows.group]
    return UniqueRows(
        index=rows.index[kept],
        group=group,
        weight=weight / weight.sum(),
        share=np.where(group < 0, 0.0, rows.share),
    )


def in_local_order(rows: UniqueRows, X: NDArray[np.floating]) -> UniqueRows:
    """Sort unique rows by the leaves of a k-d tree, so that neighbours are close in memory."""
    order = cKDTree(X[rows.index], balanced_tree=False).indices
    # The last entry stands for group -1.
    rank = np.full(order.size + 1, -1, dtype=np.intp)
    rank[order] = np.arange(order.size)
    return replace(rows, index=rows.index[order], group=rank[rows.group], weight=rows.weight[order])


def _all_apart(distances: NDArray[np.floating]) -> bool:
    """Whether no distance but those of samples to themselves is 0."""
    zeros = distances.size - np.count_nonzero(distances)
    return bool(zeros == distances.shape[0] - np.count_nonzero(np.diagonal(distances)))


def _with_weight(
    first: NDArray[np.intp], group: NDArray[np.intp], weight: NDArray[np.float64]
) -> UniqueRows:
    """Drop groups (given by ``first`` sample and ``group`` number) that have no weight."""
    scaled = weight / weight.max()
    merged = np.bincount(group, weights=scaled, minlength=first.size)
    kept = np.flatnonzero(merged > _LEAST_WEIGHT)
    kept = kept[np.argsort(first[kept])]
    position = np.full(first.size, -1, dtype=np.intp)
    position[kept] = np.arange(kept.size)
    with np.errstate(invalid="ignore"):
        share = np.where(scaled > 0, scaled / merged[group], 0.0)
    return UniqueRows(
        index=first[kept],
        group=position[group],
        weight=merged[kept] / merged[kept].sum(),
        share=share,
    )


def _same_rows(X: Any, representative: NDArray[np.intp]) -> bool:
    """Whether each row equals the row that represents it."""
    repeated = np.flatnonzero(representative != np.arange(X.shape[0]))
    step = rows_within(HASH_ENTRIES, X.shape[1])
    for start in range(0, repeated.size, step):
        rows = repeated[start : start + step]
        if sp.issparse(X):
            if (X[rows] != X[representative[rows]]).nnz:
                return False
        elif not np.array_equal(X[rows], X[representative[rows]]):
            return False
    return True
