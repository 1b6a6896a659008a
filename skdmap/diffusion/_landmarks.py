"""Landmarks: a few samples that stand for all, each weighted with the samples nearest to it.

The map is fitted on the weighted landmarks and extended to every sample. X is never copied: some
rows are read to choose landmarks, then blocks of rows once for the weights and once for the
coordinates. Row numbers are drawn from n and a seed in blocks of a fixed size, so that an array and
a dask array of any chunks have the same landmarks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
from joblib import effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from skdmap._progress import progress
from skdmap._threads import blas_threads
from skdmap._warning import warn
from skdmap.diffusion._neighbors.kd_tree import TREE_COLUMNS
from skdmap.diffusion._neighbors.metrics import pairwise
from skdmap.diffusion._nystrom import NystromExtension, extend
from skdmap.diffusion._training_set import Landmarks
from skdmap.diffusion._unique_rows import unique_rows
from skdmap.diffusion._validation import check_n_distinct, check_sample_weight
from skdmap.diffusion._warnings import warn_extension, warn_far_samples
from skdmap.diffusion._wide.column_products import raise_not_finite
from skdmap.diffusion._wide.column_reader import WideRows, float_dtype, is_dask, release_pages
from skdmap.diffusion._wide.dask_arrays import map_row_blocks, sum_over_row_blocks, take_rows
from skdmap.diffusion._wide.distances import with_pivots
from skdmap.diffusion._wide.memory_limit import rows_within
from skdmap.exceptions import SkdmapWarning

# Row numbers are drawn in blocks of so many rows, whatever the chunks of X.
_DRAWN_ROWS = 2**14
# Rows drawn for each landmark, and their entries at most. On a sphere and a swiss roll twice as
# many changed no figure.
_ROWS_PER_LANDMARK, _DRAWN_ENTRIES = 10, 2**25
# Of 1,000 landmarks on a sphere (h = 0.1) the rates of degree 1 and 2 were 10 and 13 % low without
# a step, 1 and 3 % with one, 0.2 and 2 % with three or six.
_LLOYD_STEPS = 3
# Landmarks within twice the distance of the nearest, in d dimensions about 2^d. From 5 dimensions
# on means are hardly more even than samples; from 7 on products find the nearest faster than trees.
_LLOYD_CROWD, _TREE_CROWD = 32.0, 128.0
_TRIAL_ROWS = 128
# Rows of a block that is read, and its entries at most.
_PASS_ROWS, _PASS_ENTRIES = 2**16, 2**22
_PRODUCT_ENTRIES = 2**21
# What rounding adds to a squared distance from products, relative to the squared norms.
_ROUNDING = 1e-14


@dataclass(frozen=True)
class NearestLandmark:
    """What the search for the nearest landmark needs."""

    # (m, n_features) From ``centre`` if dense; WideRows have pivots.
    landmarks: Any
    centre: Any
    # None: by products.
    tree: cKDTree | None
    n_threads: int


def choose_landmarks(
    X: Any,
    sample_weight: ArrayLike | None,
    n_landmarks: int,
    *,
    seed: int,
    n_jobs: int | None = None,
    verbose: bool = False,
) -> Landmarks:
    """Choose landmarks evenly over the samples X (n_samples, n_features), and weigh them.
    Fewer than ``n_landmarks`` where the rows drawn have fewer distinct ones.
    """
    n = X.shape[0]
    weight = None if sample_weight is None else check_sample_weight(sample_weight, n)
    most = max(n_landmarks, min(_ROWS_PER_LANDMARK * n_landmarks, _DRAWN_ENTRIES // X.shape[1]))
    rows = drawn_rows(n, most, seed=seed, weight=weight)
    drawn = _read_rows(X, rows)
    unique = unique_rows(drawn, np.ones(rows.size) if weight is None else weight[rows])
    check_n_distinct(n, unique.index.size)
    if unique.index.size < n_landmarks:
        _warn_clipped(n_landmarks, unique.index.size, n if rows.size < most else rows.size)
        n_landmarks = unique.index.size
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(unique.index.size, n_landmarks, replace=False))
    samples = drawn[unique.index[chosen]]
    if isinstance(samples, WideRows):
        samples = np.asarray(samples)
    # Of dask's workers each has a thread for itself.
    n_threads = blas_threads() if n_jobs is None else effective_n_jobs(n_jobs)
    n_threads = 1 if is_dask(X) else n_threads
    crowd = np.inf if _is_by_products(X) else _crowd(samples, drawn)
    if crowd <= _LLOYD_CROWD and n_landmarks < unique.index.size:
        distinct = np.asarray(drawn[unique.index], dtype=np.float64)
        samples = lloyd_steps(distinct, unique.weight, chosen, crowd, n_threads)
        samples = samples.astype(drawn.dtype)
    if isinstance(X, WideRows):
        samples = WideRows(samples)
    search = nearest_landmark(samples, crowd, n_threads)
    return Landmarks(samples, _weights(X, search, weight, verbose), X)


def drawn_rows(
    n_samples: int, size: int, *, seed: int, weight: NDArray[np.float64] | None = None
) -> NDArray[np.intp]:
    """Draw row numbers (size,) at most, ascending, evenly over X; none of weight 0."""
    starts = np.arange(0, n_samples, _DRAWN_ROWS)
    positive = partial(_positive_rows, weight, n_samples)
    counts = np.array([positive(int(start)).size for start in starts])
    ends = np.cumsum(counts)
    size = min(size, int(ends[-1]))
    shares = np.diff(ends * size // ends[-1], prepend=0)
    rows = []
    for number in np.flatnonzero(shares):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(number),)))
        some = rng.choice(counts[number], shares[number], replace=False)
        rows.append(positive(int(starts[number]))[np.sort(some)])
    return np.concatenate(rows)


def _positive_rows(
    weight: NDArray[np.float64] | None, n_samples: int, start: int
) -> NDArray[np.intp]:
    """Rows of positive weight of the block that begins at ``start``."""
    stop = min(start + _DRAWN_ROWS, n_samples)
    if weight is None:
        return np.arange(start, stop)
    return start + np.flatnonzero(weight[start:stop] > 0)


def lloyd_steps(
    samples: NDArray[np.float64],
    weight: NDArray[np.float64],
    chosen: NDArray[np.intp],
    crowd: float,
    n_threads: int = 1,
) -> NDArray[np.float64]:
    """Move centres, at first the ``chosen`` samples, to the means of the samples nearest to them.
    See Lloyd 1982, doi:10.1109/TIT.1982.1056489. A centre without samples stays.
    """
    origin = samples.mean(axis=0)
    offsets = samples - origin
    centres = offsets[chosen]
    for _ in range(_LLOYD_STEPS):
        group = nearest(offsets, nearest_landmark(centres, crowd, n_threads))
        entries = (weight, (group, np.arange(group.size)))
        members = sp.csr_matrix(entries, shape=(len(centres), group.size))
        mass = np.asarray(members.sum(axis=1)).reshape(-1)
        filled = mass > 0
        centres[filled] = (members @ offsets)[filled] / mass[filled, None]
    return centres + origin


def nearest_landmark(landmarks: Any, crowd: float, n_threads: int = 1) -> NearestLandmark:
    """Prepare the search; ``crowd``: landmarks within twice the distance of the nearest."""
    if isinstance(landmarks, WideRows):
        return NearestLandmark(with_pivots(landmarks, gram=False)[0], 0.0, None, n_threads)
    if sp.issparse(landmarks):
        return NearestLandmark(landmarks.astype(np.float64), 0.0, None, n_threads)
    centre = landmarks.mean(axis=0, dtype=np.float64)
    centred = landmarks - centre
    by_tree = crowd <= _TREE_CROWD and landmarks.shape[1] <= TREE_COLUMNS
    return NearestLandmark(centred, centre, cKDTree(centred) if by_tree else None, n_threads)


def nearest(Z: Any, search: NearestLandmark) -> NDArray[np.intp]:
    """Number of the nearest landmark (n_rows,) of each sample of Z."""
    if isinstance(search.landmarks, WideRows):
        return np.asarray(pairwise(Z, search.landmarks, "euclidean", {}).argmin(axis=1))
    if search.tree is not None:
        return np.asarray(search.tree.query(Z - search.centre, workers=search.n_threads)[1])
    squares = _square_norms(search.landmarks)
    found = np.empty(Z.shape[0], dtype=np.intp)
    step = rows_within(_PRODUCT_ENTRIES, squares.size)
    for start in range(0, Z.shape[0], step):
        block = Z[start : start + step]
        block = block if sp.issparse(block) else block - search.centre
        found[start : start + step] = _nearest_by_products(block, search.landmarks, squares)
    return found


def _nearest_by_products(Z: Any, landmarks: Any, squares: NDArray[np.float64]) -> NDArray[np.intp]:
    if sp.issparse(Z):
        return np.asarray((squares - 2.0 * (Z @ landmarks.T).toarray()).argmin(axis=1))
    distances = Z @ landmarks.T
    distances *= -2.0
    distances += squares
    found = distances.argmin(axis=1)
    # Rounding, which depends on the block, does not decide between landmarks that are as near.
    limit = distances[np.arange(found.size), found]
    limit += _ROUNDING * (_square_norms(Z) + squares.max())
    near = distances <= limit[:, None]
    tied = np.flatnonzero(near.sum(axis=1) > 1)
    place, column = np.nonzero(near[tied])
    exact = _square_norms(Z[tied[place]] - landmarks[column])
    order = np.lexsort((column, exact, place))
    first = order[np.unique(place[order], return_index=True)[1]]
    found[tied] = column[first]
    return np.asarray(found)


def _square_norms(X: Any) -> NDArray[np.float64]:
    if sp.issparse(X):
        return np.asarray(X.multiply(X).sum(axis=1)).reshape(-1)
    return np.asarray(np.einsum("ij,ij->i", X, X))


def _crowd(samples: NDArray[np.floating], drawn: NDArray[np.floating]) -> float:
    """Mean number of landmarks within twice the distance of the nearest one of some samples."""
    some = np.unique(np.linspace(0, len(drawn) - 1, _TRIAL_ROWS).astype(np.intp))
    distances = pairwise(drawn[some], samples, "euclidean", {})
    distances[distances == 0.0] = np.inf
    return float((distances <= 2.0 * distances.min(axis=1, keepdims=True)).sum(axis=1).mean())


def _is_by_products(X: Any) -> bool:
    return sp.issparse(X) or isinstance(X, WideRows)


def _weights(
    X: Any, search: NearestLandmark, weight: NDArray[np.float64] | None, verbose: bool
) -> NDArray[np.float64]:
    """Weights (m,) of the samples nearest to each landmark: one pass over X."""
    count = partial(_block_weights, search=search, dtype=float_dtype(X.dtype))
    if is_dask(X):
        (total,) = sum_over_row_blocks(count, X, weight)
        return total
    total = np.zeros(search.landmarks.shape[0])
    for rows, block in _blocks(X, "landmark weights", verbose):
        total += count(block, rows.start, None if weight is None else weight[rows])[0]
    return total


def _block_weights(
    block: Any,
    start: int,
    weight: NDArray[np.float64] | None,
    *,
    search: NearestLandmark,
    dtype: np.dtype,
) -> tuple[NDArray[np.float64]]:
    block = _as_finite(block, np.arange(start, start + block.shape[0]), dtype)
    group = nearest(block, search)
    counts = np.bincount(group, weights=weight, minlength=search.landmarks.shape[0])
    return (counts.astype(np.float64),)


def extended_to_samples(extension: NystromExtension, X: Any, verbose: bool) -> Any:
    """Coordinates (n_samples, k) of all samples, in the precision of X, by one pass over X.
    Of a dask array another one, not computed yet.
    """
    dtype, n_components = float_dtype(X.dtype), extension.theta.size
    if is_dask(X):
        work = partial(_block_coordinates, extension=extension, dtype=dtype)
        return map_row_blocks(work, X, n_components)
    embedding = np.empty((X.shape[0], n_components), dtype=dtype)
    far, pole = [np.zeros(0, np.intp)], [np.zeros(0, np.intp)]
    for rows, block in _blocks(X, "coordinates", verbose):
        extended = extend(extension, _as_float(block, dtype))
        embedding[rows] = extended.coordinates
        far.append(rows.start + np.flatnonzero(extended.is_far))
        pole.append(rows.start + np.flatnonzero(extended.near_pole))
    is_given = extension.kernel.kind == "given"
    warn_far_samples(np.concatenate(far), X.shape[0], is_given=is_given)
    warn_extension(embedding, np.concatenate(pole), training=False)
    return embedding


def _block_coordinates(
    block: Any, *, extension: NystromExtension, dtype: np.dtype
) -> NDArray[np.floating]:
    return extend(extension, _as_float(block, dtype)).coordinates.astype(dtype, copy=False)


def _blocks(X: Any, name: str, verbose: bool) -> Iterator[tuple[slice, Any]]:
    """Blocks of rows of X, one after the other, with a progress bar."""
    n = X.shape[0]
    wide = isinstance(X, WideRows)
    step = _DRAWN_ROWS if wide else min(_PASS_ROWS, rows_within(_PASS_ENTRIES, X.shape[1]))
    with progress(n, f"DiffusionMap, {name}", verbose=verbose, unit="samples") as bar:
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            yield rows, X[rows]
            bar.update(rows.stop - start)
            if not wide:
                release_pages(X)


def _read_rows(X: Any, rows: NDArray[np.intp]) -> Any:
    """Some rows of X, ascending: finite and in single or double precision."""
    if isinstance(X, WideRows):
        return X[rows]
    if is_dask(X):
        found = take_rows(X, rows)
    elif isinstance(X, np.ndarray) or sp.issparse(X):
        found = X[rows]
    else:
        # What is stored in chunks is read in blocks.
        blocks = np.split(rows, np.searchsorted(rows, np.arange(0, X.shape[0], _DRAWN_ROWS)[1:]))
        found = np.concatenate(
            [
                np.asarray(X[start : start + _DRAWN_ROWS])[block - start]
                for start, block in zip(range(0, X.shape[0], _DRAWN_ROWS), blocks, strict=True)
                if block.size
            ]
        )
    return _as_finite(found, rows, float_dtype(X.dtype))


def _as_float(block: Any, dtype: np.dtype) -> Any:
    if isinstance(block, WideRows):
        return block
    block = block if sp.issparse(block) else np.asarray(block)
    return block.astype(dtype, copy=False)


def _as_finite(block: Any, rows: NDArray[np.intp], dtype: np.dtype) -> Any:
    """The block in single or double precision; ValueError with the first entry not finite."""
    block = _as_float(block, dtype)
    if isinstance(block, WideRows):
        return block  # checked where its columns are read
    values = block.data if sp.issparse(block) else block
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum(dtype=np.float64)):
            return block
    dense = block.toarray() if sp.issparse(block) else block
    bad = np.flatnonzero(~np.isfinite(dense).all(axis=1))
    if bad.size:
        raise_not_finite(dense[bad[0]], int(rows[bad[0]]), 0)
    return block


def _warn_clipped(n_landmarks: int, n_distinct: int, n_rows: int) -> None:
    warn(
        f"n_landmarks={n_landmarks} is above the number of distinct samples of positive weight, "
        f"{n_distinct} among {n_rows}; {n_distinct} are used. Set n_landmarks=None to fit the map "
        "on all samples.",
        SkdmapWarning,
    )
