"""Blocks of columns in, sums over columns out: offsets of rows from their references, multiplied.

Products are taken in the precision of the rows, over few columns each, and added up in double
precision.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Pass", "Sums", "check_sample", "cross_products", "own_products", "too_large"]

# Columns to a product: sums in single precision are no longer than that.
_PRODUCT_COLUMNS = 2048

Sums = tuple[NDArray[np.float64], ...]


@dataclass(frozen=True)
class Pass:
    """What one pass over the columns of some rows needs to know of them.

    Attributes
    ----------
    centres : ndarray of shape (n_centres,)
        Reference rows, as rows of the source.
    labels : ndarray of shape (n_rows,)
        Group of each row.
    rows : ndarray of shape (n_rows,) or None
        Rows of the source; None is all.
    scale : float
        Offsets are multiplied by it.
    """

    centres: NDArray[np.intp]
    labels: NDArray[np.intp]
    rows: NDArray[np.intp] | None
    scale: float


def own_products(
    block: NDArray[np.floating], settings: Pass, *, gram: bool, first_column: int
) -> Sums:
    """Return |u|^2, u.(c - c'), |c - c'|^2 and u.u, over some columns."""
    n_centres = settings.centres.size
    n_rows = settings.labels.size
    squares, along = np.zeros(n_rows), np.zeros((n_rows, n_centres))
    between = np.zeros((n_centres, n_centres))
    product = np.zeros((n_rows, n_rows)) if gram else np.zeros((0, 0))
    for part in _parts(block, n_rows):
        raw = block[:, part]
        references = raw[settings.centres]
        offsets = _offsets(raw, settings, references)
        squares += _square_sums(offsets)
        _check_finite(squares, raw, settings, first_column + part.start)
        _add_along(offsets, references, settings, along, between)
        if gram:
            _add_product(product, offsets, offsets)
    between += between.T
    return (squares, along, between, product) if gram else (squares, along, between)


def cross_products(
    block: NDArray[np.floating],
    train: NDArray[np.floating],
    new: Pass,
    old: Pass,
    *,
    bare: bool,
    first_column: int,
) -> Sums:
    """Return u.u of new and old offsets; unless ``bare``, |u|^2 and u.(c - c') of the new too."""
    n_new, n_old = new.labels.size, old.labels.size
    product = np.zeros((n_new, n_old))
    squares, along = np.zeros(n_new), np.zeros((n_new, new.centres.size))
    for part in _parts(train, n_new + n_old):
        raw = train[:, part]
        fresh = block[:, part]
        references = raw[old.centres]
        offsets = _offsets(fresh, new, references)
        if not bare:
            squares += _square_sums(offsets)
            _check_finite(squares, fresh, new, first_column + part.start)
            _add_along(offsets, references, new, along)
        _add_product(product, offsets, _offsets(raw, old, references))
    return (product,) if bare else (product, squares, along)


def _parts(block: NDArray[np.floating], n_rows: int) -> list[slice]:
    """Cut a block that is wider than the memory meant for a pass, as a chunk of dask's may be."""
    width = max(_PRODUCT_COLUMNS, 2**24 // max(1, n_rows))
    return [slice(i, min(i + width, block.shape[1])) for i in range(0, block.shape[1], width)]


def _offsets(
    raw: NDArray[np.floating], settings: Pass, references: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Return u, times the scale, in the precision of the rows."""
    n_rows = settings.labels.size
    dtype = np.result_type(raw.dtype, references.dtype)
    offsets = np.empty((n_rows, raw.shape[1]), dtype=dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        for group, members in _members(settings):
            reference = references[group]
            rows = members if settings.rows is None else settings.rows[members]
            if _is_run(rows) and _is_run(members):
                here = slice(members[0], members[-1] + 1)
                np.subtract(raw[rows[0] : rows[-1] + 1], reference, out=offsets[here])
            else:
                offsets[members] = raw[rows] - reference
        if settings.scale != 1.0:
            offsets *= dtype.type(settings.scale)
    return offsets


def _is_run(rows: NDArray[np.intp]) -> bool:
    return bool(rows[-1] - rows[0] == rows.size - 1 and (np.diff(rows) == 1).all())


def _members(settings: Pass) -> list[tuple[int, NDArray[np.intp]]]:
    """Return the rows of each group that has some, ascending."""
    order = np.argsort(settings.labels, kind="stable")
    groups, first = np.unique(settings.labels[order], return_index=True)
    return list(zip(groups.tolist(), np.split(order, first[1:]), strict=True))


def _square_sums(values: NDArray[np.floating]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.einsum("ij,ij->i", values, values, dtype=np.float64)


def _add_along(
    offsets: NDArray[np.floating],
    references: NDArray[np.floating],
    settings: Pass,
    along: NDArray[np.float64],
    between: NDArray[np.float64] | None = None,
) -> None:
    """Add u_i.(c_a - c_b) for every b, and |c_a - c_b|^2 for b < a."""
    scale = offsets.dtype.type(settings.scale)
    for group, members in _members(settings):
        apart = references[group] - references
        if scale != 1.0:
            apart *= scale
        if between is not None:
            between[group, :group] += _square_sums(apart[:group])
        own = offsets[members]
        # What does not fit is seen in the squares, once the pass is over.
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


def check_sample(sample: NDArray[np.float64]) -> None:
    """Raise where a sample of the columns holds NaN or infinity."""
    if not np.isfinite(sample).all():
        raise ValueError(_not_finite(sample, "a row"))


def _check_finite(
    squares: NDArray[np.float64], raw: NDArray[np.floating], settings: Pass, first: int
) -> None:
    """Say which entry is not finite, where a sum of squares is not."""
    bad = np.flatnonzero(~np.isfinite(squares))
    if not bad.size:
        return
    rows = bad if settings.rows is None else settings.rows[bad]
    for row in rows:
        columns = np.flatnonzero(~np.isfinite(raw[row]))
        if columns.size:
            where = f"row {row}, column {first + int(columns[0])}"
            raise ValueError(_not_finite(raw[row], where))
    raise ValueError(too_large(int(rows[0])))


def too_large(row: int) -> str:
    """Return what to say of a row whose squared differences do not fit single precision."""
    return (
        f"Input X: row {row} is so far from others that squared differences do not fit its type. "
        "Rescale X, or pass it in double precision."
    )


def _not_finite(values: NDArray[np.floating], where: str) -> str:
    kind = "NaN" if np.isnan(values).any() else "infinity"
    return (
        f"Input X contains {kind}, in {where}; all entries must be finite. Drop such rows; where a "
        "run diverged, drop those after it did."
    )
