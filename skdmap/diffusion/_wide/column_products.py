"""One pass over columns of wide samples: sums of squares and products of offsets from pivots."""

from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from skdmap.diffusion._wide.memory_limit import PART_ENTRIES
from skdmap.diffusion._wide.pivots import Pivots

# Columns to a product: sums in single precision are no longer than that.
_PRODUCT_COLUMNS = 2048
Sums = tuple[NDArray[np.float64], ...]
# Which rows of a block the samples are; None: all.
Rows = NDArray[np.intp] | None


def own_products(
    columns: slice,
    block: NDArray[np.floating],
    *,
    pivots: Pivots,
    rows: Rows,
    first_row: int,
    gram: bool,
) -> Sums:
    """|u|^2, u.(c - c'), |c - c'|^2 and, with ``gram``, u.u over some columns."""
    n_centres, n_rows = pivots.centres.size, pivots.labels.size
    squares, along = np.zeros(n_rows), np.zeros((n_rows, n_centres))
    between = np.zeros((n_centres, n_centres))
    product = np.zeros((n_rows, n_rows)) if gram else np.zeros((0, 0))
    for part in _parts(block, n_rows):
        raw = block[:, part]
        centres = raw[pivots.centres]
        offsets = _offsets(raw, pivots, rows, centres)
        squares += _square_sums(offsets)
        _check_finite(squares, raw, rows, first_row, columns.start + part.start)
        _add_along(offsets, centres, pivots, along, between)
        if gram:
            _add_product(product, offsets, offsets)
    between += between.T
    return (squares, along, between, product) if gram else (squares, along, between)


def cross_products(
    columns: slice,
    block: NDArray[np.floating],
    train: NDArray[np.floating],
    *,
    new: Pivots,
    new_rows: Rows,
    first_row: int,
    old: Pivots,
    old_rows: Rows,
    product_only: bool,
) -> Sums:
    """u.u of new and old offsets and, unless ``product_only``, |u|^2 and u.(c - c') of the new."""
    n_new, n_old = new.labels.size, old.labels.size
    product = np.zeros((n_new, n_old))
    squares, along = np.zeros(n_new), np.zeros((n_new, new.centres.size))
    for part in _parts(train, n_new + n_old):
        raw = train[:, part]
        fresh = block[:, part]
        centres = raw[old.centres]
        offsets = _offsets(fresh, new, new_rows, centres)
        if not product_only:
            squares += _square_sums(offsets)
            _check_finite(squares, fresh, new_rows, first_row, columns.start + part.start)
            _add_along(offsets, centres, new, along)
        _add_product(product, offsets, _offsets(raw, old, old_rows, centres))
    return (product,) if product_only else (product, squares, along)


def _parts(block: NDArray[np.floating], n_rows: int) -> list[slice]:
    """Cut a block that is wider than the memory meant for a pass, as a chunk of dask's may be."""
    width = max(_PRODUCT_COLUMNS, PART_ENTRIES // max(1, n_rows))
    return [slice(i, min(i + width, block.shape[1])) for i in range(0, block.shape[1], width)]


def _offsets(
    raw: NDArray[np.floating], pivots: Pivots, rows: Rows, centres: NDArray[np.floating]
) -> NDArray[np.floating]:
    """U times the scale, in the precision of the samples."""
    n_rows = pivots.labels.size
    dtype = np.result_type(raw.dtype, centres.dtype)
    offsets = np.empty((n_rows, raw.shape[1]), dtype=dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        for group, members in _members(pivots.labels):
            centre = centres[group]
            chosen = members if rows is None else rows[members]
            if _is_run(chosen) and _is_run(members):
                here = slice(members[0], members[-1] + 1)
                np.subtract(raw[chosen[0] : chosen[-1] + 1], centre, out=offsets[here])
            else:
                offsets[members] = raw[chosen] - centre
        if pivots.scale != 1.0:
            offsets *= dtype.type(pivots.scale)
    return offsets


def _is_run(rows: NDArray[np.intp]) -> bool:
    return bool(rows[-1] - rows[0] == rows.size - 1 and (np.diff(rows) == 1).all())


def _members(labels: NDArray[np.intp]) -> list[tuple[int, NDArray[np.intp]]]:
    """The samples of each group that has some, ascending."""
    order = np.argsort(labels, kind="stable")
    groups, first = np.unique(labels[order], return_index=True)
    return list(zip(groups.tolist(), np.split(order, first[1:]), strict=True))


def _square_sums(values: NDArray[np.floating]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.einsum("ij,ij->i", values, values, dtype=np.float64)


def _add_along(
    offsets: NDArray[np.floating],
    centres: NDArray[np.floating],
    pivots: Pivots,
    along: NDArray[np.float64],
    between: NDArray[np.float64] | None = None,
) -> None:
    """Add u_i.(c_a - c_b) for every b, and |c_a - c_b|^2 for b < a."""
    scale = offsets.dtype.type(pivots.scale)
    for group, members in _members(pivots.labels):
        apart = centres[group] - centres
        if scale != 1.0:
            apart *= scale
        if between is not None:
            between[group, :group] += _square_sums(apart[:group])
        own = offsets[members]
        # What overflows is seen in the squares, once the pass is over.
        with np.errstate(invalid="ignore", over="ignore"):
            for start in range(0, own.shape[1], _PRODUCT_COLUMNS):
                part = slice(start, start + _PRODUCT_COLUMNS)
                along[members] += own[:, part] @ apart[:, part].T


def _add_product(
    total: NDArray[np.float64], left: NDArray[np.floating], right: NDArray[np.floating]
) -> None:
    """Add left @ right.T."""
    for start in range(0, left.shape[1], _PRODUCT_COLUMNS):
        part = slice(start, start + _PRODUCT_COLUMNS)
        mine = left[:, part]
        # Of an array with itself numpy computes one triangle, by syrk.
        other = mine if left is right else right[:, part]
        with np.errstate(invalid="ignore", over="ignore"):
            total += mine @ other.T


def _check_finite(
    squares: NDArray[np.float64],
    raw: NDArray[np.floating],
    rows: Rows,
    first_row: int,
    first_column: int,
) -> None:
    """Raise ValueError with the entry that is not finite, if it is not squares that overflow."""
    bad = np.flatnonzero(~np.isfinite(squares))
    if not bad.size:
        return
    chosen = bad if rows is None else rows[bad]
    for row in chosen:
        if not np.isfinite(raw[row]).all():
            raise_not_finite(raw[row], int(row) + first_row, first_column)


def too_large(row: int) -> str:
    """What to say of a row whose squared differences do not fit single precision."""
    return (
        f"Input X: row {row} is so far from others that squared differences overflow its dtype. "
        "Rescale X, or pass it as float64."
    )


def raise_not_finite(values: NDArray[np.floating], row: int, first_column: int) -> NoReturn:
    """Raise ValueError with the first entry of part of a row that is not finite."""
    column = int(np.flatnonzero(~np.isfinite(values))[0])
    kind = "NaN" if np.isnan(values[column]) else "infinity"
    raise ValueError(
        f"Input X contains {kind}, in row {row}, column {first_column + column}; all entries must "
        "be finite. Drop such rows; if a training run diverged, drop the rows after that."
    )
