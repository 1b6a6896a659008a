"""Exact neighbours in many columns by way of few: principal axes, a tree, and a second look.

A distance between projections on orthonormal axes is never larger than the distance itself. So the
nearest rows by their projections bound how far the true neighbours can be, and only rows whose
projections are nearer than that have to be measured. Where rows lie near a surface of few
dimensions these are few. Where they do not, a sample of the rows says so, and the search is left
to matrix products.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.spatial import cKDTree

__all__ = ["projected_lists"]

_AXES = 15
# Fewer rows are searched at once by products in less time than the axes take.
_LEAST_ROWS, _MOST_COLUMNS = 5000, 2048
_AXIS_ROWS, _TRIAL_ROWS = 4096, 128
# A candidate costs what this many rows cost in a matrix product.
_PRODUCT_PAIRS = 40.0
_BLOCK = 2**20
_ROWS_AT_ONCE = 2048


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
    step = max(1, _BLOCK // n_features)
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
    step = max(1, _BLOCK // (others.shape[1] * X.shape[1]))
    for start in range(0, len(others), step):
        part = slice(start, start + step)
        difference = X[others[part]].astype(np.float64)
        difference -= X[rows[part], None]
        squares = np.einsum("ijk,ijk->ij", difference, difference)
        distances[part] = np.sqrt(squares)
    return distances
