"""Distances among wide samples, and from new ones to them, from one pass over blocks of columns.

Sample i of group a, with the pivot c_a, is taken as u_i = x_i - c_a. Then

    d_ij^2 = |u_i|^2 + |u_j|^2 - 2 u_i.u_j + |c_a - c_b|^2 + 2 u_i.(c_a - c_b) + 2 u_j.(c_b - c_a).

Products are taken in the precision of X, over few columns each, and added up in double precision:
their error is as small as the offsets are, however far the samples lie from 0 and from other
groups. Pairs that are much closer than their offsets are computed once more (``close_pairs``).
Squares are right to 1e-5 for X in single precision, to 1e-9 in double precision.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skdmap._progress import progress
from skdmap.diffusion._wide.close_pairs import recompute_close_pairs
from skdmap.diffusion._wide.column_products import (
    Sums,
    cross_products,
    own_products,
    raise_not_finite,
    too_large,
)
from skdmap.diffusion._wide.column_reader import (
    WIDE,
    WideRows,
    column_blocks,
    is_dask,
    read_together,
)
from skdmap.diffusion._wide.memory_limit import PIVOT_ENTRIES, SAMPLE_ENTRIES, rows_within
from skdmap.diffusion._wide.pivots import Pivots, group_samples, nearest_pivot

# Sums of squares above this may not fit single precision.
_LARGEST = 1e37
# Samples are far from all others beyond so many times the extent of these.
_BEYOND = 2.0**26
# A progress bar appears after so many seconds, on a terminal.
_PATIENCE = 5.0
# Spans of columns that pivots are chosen by, and how many columns they have in all.
_SPANS, _LAZY_SPANS = 16, 4
_MOST_COLUMNS = 2048


def find_pivots(X: WideRows) -> Pivots:
    """Group the samples by a few spans of their columns."""
    spans = _spans(X)
    sample = _sampled(X, spans)
    centres, labels, scale = group_samples(sample)
    rows = centres if X.rows is None else X.rows[centres]
    return Pivots(rows, labels, scale, spans, sample[centres])


def check_unchanged(X: WideRows) -> None:
    """Raise ValueError where the pivots of the fit are not in the source any more."""
    if is_dask(X.source):
        return  # computed anew each time, perhaps elsewhere: not to the last bit
    pivots = X.pivots
    parts = [X.read(slice(*span), pivots.centres) for span in pivots.spans]
    if not np.array_equal(np.concatenate(parts, axis=1).astype(np.float64), pivots.sample):
        raise ValueError(
            f"The training samples were changed after fit. X with {WIDE} columns or more is not "
            "copied, but read again. Fit again, or fit on a copy of X."
        )


def with_pivots(X: WideRows, *, gram: bool = True) -> tuple[WideRows, NDArray[np.float64] | None]:
    """Read the samples once: where they lie from their pivots, and their products u_i.u_j."""
    # ValueError at the first block that holds NaN or infinity.
    pivots = find_pivots(X)
    function = partial(
        own_products, pivots=pivots.for_pass(), rows=X.rows, first_row=X.first_row, gram=gram
    )
    squares, along, between, *product = _sum_over_columns(function, X)
    pivots = replace(pivots, squares=squares, along=along, between=between)
    return X.with_pivots(pivots), product[0] if gram else None


def own_distances(X: WideRows) -> tuple[WideRows, NDArray[np.float64]]:
    """The samples with their pivots, and the distances among them: symmetric, 0 if equal."""
    X, product = with_pivots(X)
    assert product is not None
    return X, _finished(product, X, X)


def cross_distances(Z: WideRows, X: WideRows) -> NDArray[np.float64]:
    """The distances from new samples, or some of X, to samples with pivots."""
    pivots = X.pivots
    known = Z.shares_pivots(X)
    if not known:
        check_unchanged(X)
        labels = nearest_pivot(_sampled(Z, pivots.spans), pivots.sample)
        Z = Z.with_pivots(pivots.of_new(labels))
    function = partial(
        cross_products,
        new=Z.pivots.for_pass(),
        new_rows=Z.rows,
        first_row=Z.first_row,
        old=pivots.for_pass(),
        old_rows=X.rows,
        product_only=known,
    )
    product, *found = _sum_over_columns(function, Z, X)
    if known:
        return _finished(product, Z, X)
    squares, along = found
    Z = Z.with_pivots(replace(Z.pivots, squares=squares, along=along))
    fits = np.isfinite(np.column_stack([squares, product.max(axis=1), product.min(axis=1)]))
    inside = fits.all(axis=1) & np.isfinite(along).all(axis=1)
    if inside.all():
        return _finished(product, _drawn_near(product, Z, X), X)
    # Products with samples so far away overflow: these are read again, nearer.
    far, near = np.flatnonzero(~inside), np.flatnonzero(inside)
    distances = np.empty(product.shape)
    if near.size:
        rest = product[near]
        distances[near] = _finished(rest, _drawn_near(rest, Z[near], X), X)
    distances[far] = cross_distances(WideRows(DrawnNear(Z[far], X)), X)
    return distances


class DrawnNear:
    """Samples whose squares overflow, read by columns: moved towards their pivots, in double
    precision. So far away only the direction of a sample counts.
    """

    dtype = np.dtype(np.float64)

    def __init__(self, Z: WideRows, X: WideRows) -> None:
        self.shape = Z.shape
        self._Z, self._X, self._labels = Z, X, Z.pivots.labels
        half = np.zeros(len(Z))
        for columns in column_blocks(Z):
            new, centres = self._read(columns)
            np.maximum(half, np.abs(0.5 * new - 0.5 * centres).max(axis=1), out=half)
        # |z - c| is at most sqrt(n_features) times the largest entry.
        limit = _extent(X) / X.pivots.scale / np.sqrt(self.shape[1])
        self._factor = np.minimum(1.0, 0.5 * limit / half)[:, None]

    def _read(self, columns: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        centres = self._X.read(columns, self._X.pivots.centres)[self._labels]
        return self._Z[:, columns].astype(np.float64), centres.astype(np.float64)

    def __getitem__(self, key: tuple[slice, slice]) -> NDArray[np.float64]:
        """Some columns of all samples."""
        new, centres = self._read(key[1])
        return centres + (new * self._factor - centres * self._factor)


def squares_from_pivots(X: WideRows, weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances (n_rows,) from the mean of the pivots, each with its group's weight."""
    # Times the square of the scale; no sample is read.
    pivots = X.pivots
    mass = np.bincount(pivots.labels, weights=weight, minlength=pivots.centres.size)
    from_centres = pivots.between @ mass - 0.5 * (mass @ pivots.between @ mass)
    squares: NDArray[np.float64] = pivots.squares + 2.0 * (pivots.along @ mass)
    return squares + from_centres[pivots.labels]


def _spans(X: WideRows) -> tuple[tuple[int, int], ...]:
    """A few spans, spread evenly over the columns."""
    n_features = X.shape[1]
    n_spans = _SPANS if isinstance(X.source, np.ndarray) else _LAZY_SPANS
    wanted = min(n_features, _MOST_COLUMNS, max(n_spans, SAMPLE_ENTRIES // len(X)))
    width = max(1, wanted // n_spans)
    starts = np.unique(np.linspace(0, n_features - width, n_spans).astype(int))
    return tuple((int(start), int(start) + width) for start in starts)


def _sampled(X: WideRows, spans: tuple[tuple[int, int], ...]) -> NDArray[np.float64]:
    parts = []
    for start, stop in spans:
        part = X[:, start:stop]
        finite = np.isfinite(part)
        if not finite.all():
            bad = np.flatnonzero(~finite.all(axis=1))[:1]
            rows = bad if X.rows is None else X.rows[bad]
            raise_not_finite(part[bad[0]], int(rows[0]) + X.first_row, start)
        parts.append(part.astype(np.float64))
    X.release()
    return np.concatenate(parts, axis=1)


def _finished(product: NDArray[np.float64], Z: WideRows, X: WideRows) -> NDArray[np.float64]:
    """Turn products (n_rows, n_train) into distances, in place."""
    new, old = Z.pivots, X.pivots
    largest = _LARGEST if X.dtype == np.float32 else np.finfo(float).max
    for side in (Z, X):
        farthest = side.pivots.squares.argmax()
        if not side.pivots.squares[farthest] <= largest:
            row = farthest if side.rows is None else side.rows[farthest]
            raise ValueError(too_large(int(row) + side.first_row))
    back = np.ascontiguousarray(old.along.T)
    step = rows_within(PIVOT_ENTRIES, len(X))
    for start in range(0, len(Z), step):
        part = slice(start, start + step)
        groups = new.labels[part]
        block = product[part]
        block *= -2.0
        block += new.squares[part, None] + old.squares[None, :]
        # Symmetric in the last digit: what belongs together is added first.
        block += 2.0 * (new.along[part][:, old.labels] + back[groups])
        block += old.between[groups][:, old.labels]
    recompute_close_pairs(product, Z, X)
    np.maximum(product, 0.0, out=product)
    np.sqrt(product, out=product)
    product /= old.scale
    if Z is X:
        np.fill_diagonal(product, 0.0)
    return product


def _extent(X: WideRows) -> float:
    """How far, times the scale, a sample may be from the training samples to differ from others."""
    pivots = X.pivots
    return float(_BEYOND * (np.sqrt(pivots.squares.max()) + np.sqrt(pivots.between.max())))


def _drawn_near(product: NDArray[np.float64], Z: WideRows, X: WideRows) -> WideRows:
    """New samples so far away that their distances do not differ, moved towards their pivots."""
    new = Z.pivots
    limit = _extent(X)
    size = np.sqrt(new.squares)
    far = np.flatnonzero(size > limit)
    if not far.size:
        return Z
    # u.u_j and u.(c - c') are linear in u: no sample is read again.
    factor = limit / size[far]
    product[far] *= factor[:, None]
    squares, along = new.squares.copy(), new.along.copy()
    squares[far] *= factor**2
    along[far] *= factor[:, None]
    return Z.with_pivots(replace(new, squares=squares, along=along))


def _sum_over_columns(function: Callable[..., Sums], *rows: WideRows) -> Sums:
    """Add up ``function(columns, *blocks)`` over blocks of columns of the sources."""
    if any(is_dask(part.source) for part in rows):
        from skdmap.diffusion._wide.dask_arrays import sum_over_chunks

        return sum_over_chunks(
            function, [part.source for part in rows], [part.dtype for part in rows]
        )
    total: list[Any] = []
    blocks = list(column_blocks(*rows))
    with progress(len(blocks), "Distances", verbose=None, delay=_PATIENCE) as bar:
        for columns in blocks:
            parts = function(columns, *read_together(columns, *rows))
            if not total:
                total = list(parts)
            else:
                for whole, part in zip(total, parts, strict=True):
                    whole += part
            for source in rows:
                source.release()
            bar.update()
    return tuple(total)
