"""Rows in, distinct rows of positive weight out.

Equal rows are merged and their weights added before anything is computed. So a row of weight 2 and
two equal rows are the same thing for every later stage, neighbour counts and medians included.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from skdmap.diffusion._wide.row_hashing import row_hashes


@dataclass(frozen=True)
class DistinctRows:
    """Which rows stand for all.

    Attributes
    ----------
    index : ndarray of shape (n_distinct,)
        The first row of each group of equal rows that has positive weight: ascending, or in an
        order in which near rows stand together.
    group : ndarray of shape (n_samples,)
        Position in ``index`` of the row's group; -1 where the group has no weight.
    weight : ndarray of shape (n_distinct,)
        Sum of the group's weights; sums to 1.
    share : ndarray of shape (n_samples,)
        The row's part of its group's weight; 0 where the row has none.
    """

    index: NDArray[np.intp]
    group: NDArray[np.intp]
    weight: NDArray[np.float64]
    share: NDArray[np.float64]


def distinct_rows(X: Any, weight: NDArray[np.float64]) -> DistinctRows:
    """Group the equal rows of ``X``.

    Parameters
    ----------
    X : {ndarray, csr_matrix} of shape (n_samples, n_features)
        Read once, in blocks; never copied whole.
    weight : ndarray of shape (n_samples,)
        Non-negative, with a positive sum.

    Returns
    -------
    DistinctRows
    """
    keys = row_hashes(X)
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    if first.size < keys.size and not _same_rows(X, first[group]):
        # Two different rows share a 64-bit hash: sort the rows themselves.
        dense = X.toarray() if sp.issparse(X) else np.asarray(X)
        _, first, group = np.unique(dense, axis=0, return_index=True, return_inverse=True)
    return _with_weight(first, group.reshape(-1), weight)


def separate_rows(weight: NDArray[np.float64]) -> DistinctRows:
    """Take every row of positive weight for a row of its own."""
    everyone = np.arange(weight.size)
    return _with_weight(everyone, everyone, weight)


def in_local_order(rows: DistinctRows, X: NDArray[np.floating]) -> DistinctRows:
    """Put the rows in the order of a k-d tree's leaves.

    Then most of what is gathered for a row, its neighbours, stands near it in memory.

    Parameters
    ----------
    rows : DistinctRows
        In any order.
    X : ndarray of shape (n_samples, n_features)
        All rows, of few columns.

    Returns
    -------
    DistinctRows
        The same rows.
    """
    order = cKDTree(X[rows.index]).indices
    # The last stands for group -1.
    rank = np.full(order.size + 1, -1, dtype=np.intp)
    rank[order] = np.arange(order.size)
    return replace(rows, index=rows.index[order], group=rank[rows.group], weight=rows.weight[order])


def merge_zero_distances(
    distances: NDArray[np.floating], weight: NDArray[np.float64]
) -> DistinctRows:
    """Group the rows of a dense distance matrix that lie at distance 0 from each other."""
    if np.count_nonzero(distances) == distances.size - distances.shape[0]:
        return separate_rows(weight)
    _, labels = sp.csgraph.connected_components(sp.csr_matrix(distances == 0), directed=False)
    _, first, group = np.unique(labels, return_index=True, return_inverse=True)
    return _with_weight(first, group, weight)


def _with_weight(
    first: NDArray[np.intp], group: NDArray[np.intp], weight: NDArray[np.float64]
) -> DistinctRows:
    scaled = weight / weight.max()
    merged = np.bincount(group, weights=scaled, minlength=first.size)
    # Below this a weight is 0 in any sum in double precision.
    kept = np.flatnonzero(merged > 1e-280)
    kept = kept[np.argsort(first[kept])]
    position = np.full(first.size, -1, dtype=np.intp)
    position[kept] = np.arange(kept.size)
    with np.errstate(invalid="ignore"):
        share = np.where(scaled > 0, scaled / merged[group], 0.0)
    return DistinctRows(
        index=first[kept],
        group=position[group],
        weight=merged[kept] / merged[kept].sum(),
        share=share,
    )


def _same_rows(X: Any, representative: NDArray[np.intp]) -> bool:
    repeated = np.flatnonzero(representative != np.arange(X.shape[0]))
    step = max(1, 2**21 // max(1, X.shape[1]))
    for start in range(0, repeated.size, step):
        rows = repeated[start : start + step]
        if sp.issparse(X):
            if (X[rows] != X[representative[rows]]).nnz:
                return False
        elif not np.array_equal(X[rows], X[representative[rows]]):
            return False
    return True
