"""Wide rows in, distances out, from one pass over blocks of columns.

Row i of group a, with the reference c_a, is taken as u_i = x_i - c_a. Then

    d_ij^2 = |u_i|^2 + |u_j|^2 - 2 u_i.u_j + |c_a - c_b|^2 + 2 u_i.(c_a - c_b) + 2 u_j.(c_b - c_a).

Products are taken in the precision of the rows, over few columns each, and added up in double
precision: their error is as small as the offsets are, however far the rows lie from 0 and from the
rows of other groups. Pairs that are much closer than their offsets are computed once more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from skdmap.diffusion._wide.column_reader import (
    Frame,
    WideRows,
    column_blocks,
    is_dask,
    read_together,
)
from skdmap.diffusion._wide.pivots import find_groups, nearest_centre
from skdmap.diffusion._wide.row_hashing import row_hashes

_BLOCK = 2**22
# Sums of squares above this may not fit single precision.
_LARGEST = 1e37
# A progress bar appears after so many seconds, on a terminal.
_PATIENCE = 5.0
# Products in single precision err by 1.3e-7 of the squared offsets, which leaves 8e-6 of a square
# that is this share of them.
_CLOSE = {np.dtype(np.float32): 1.0 / 60.0, np.dtype(np.float64): 1e-5}
# Below this share of what they were taken from, now in double precision, differences are taken
# entry by entry.
_CANCELLED = {np.dtype(np.float32): 1e-10, np.dtype(np.float64): 1e-5}
_PAIR_BLOCK = 2**20
# Blocks of both sides, and parts of these in double precision.
_COPIES = 4
# Columns to a product: sums in single precision are no longer than that.
_PRODUCT_COLUMNS = 2048
Sums = tuple[NDArray[np.float64], ...]


def framed(X: WideRows, *, gram: bool = True) -> tuple[WideRows, NDArray[np.float64] | None]:
    """Read the rows once: where they lie from their references, and their products.

    Parameters
    ----------
    X : WideRows of shape (n_rows, n_features)
        Rows.
    gram : bool, default=True
        Whether the products among all rows are wanted.

    Returns
    -------
    X : WideRows
        With its frame.
    product : ndarray of shape (n_rows, n_rows) or None
        u_i.u_j.

    Raises
    ------
    ValueError
        At the first block that holds NaN or infinity.
    """
    groups = find_groups(X)
    check_sample(groups.sample)
    settings = Pass(groups.centres, groups.labels, X.rows, groups.scale)

    def products(columns: slice, block: NDArray[np.floating]) -> Sums:
        return own_products(block, settings, gram=gram, first_column=columns.start)

    squares, along, between, *product = _sum_over_columns(products, X)
    frame = Frame(
        groups.centres,
        groups.labels,
        groups.spans,
        groups.sample,
        groups.scale,
        squares,
        along,
        between,
    )
    return X.with_frame(frame), product[0] if gram else None


def own_distances(X: WideRows) -> tuple[WideRows, NDArray[np.float64]]:
    """Return the distances among wide rows.

    Parameters
    ----------
    X : WideRows of shape (n_rows, n_features)
        Finite, which the pass finds out.

    Returns
    -------
    X : WideRows
        With its frame, for distances from new rows.
    distances : ndarray of shape (n_rows, n_rows)
        Symmetric, zeros between equal rows; right to 1e-5 in the square for rows in single
        precision, to 1e-9 for rows in double precision.

    Raises
    ------
    ValueError
        If X holds NaN or infinity.
    """
    X, product = framed(X)
    assert product is not None
    return X, _finished(product, X, X)


def cross_distances(Z: WideRows, X: WideRows) -> NDArray[np.float64]:
    """Return the distances from wide rows to framed ones.

    Parameters
    ----------
    Z : WideRows of shape (n_rows, n_features)
        New rows, or some of the rows of X.
    X : WideRows of shape (n_train, n_features)
        With a frame.

    Returns
    -------
    ndarray of shape (n_rows, n_train)

    Raises
    ------
    ValueError
        If Z holds NaN or infinity.
    """
    frame = X.frame
    assert frame is not None
    known = Z.frame is not None and Z.frame.centres is frame.centres
    if known:
        assert Z.frame is not None
        labels = Z.frame.labels
    else:
        labels = nearest_centre(Z, frame.spans, frame.sample)
    new = Pass(frame.centres, labels, Z.rows, frame.scale)
    old = Pass(frame.centres, frame.labels, X.rows, frame.scale)

    def products(columns: slice, block: NDArray[np.floating], train: NDArray[np.floating]) -> Sums:
        return cross_products(block, train, new, old, bare=known, first_column=columns.start)

    product, *found = _sum_over_columns(products, Z, X)
    if not known:
        squares, along = found
        Z = Z.with_frame(
            Frame(
                frame.centres,
                labels,
                frame.spans,
                frame.sample,
                frame.scale,
                squares,
                along,
                frame.between,
            )
        )
    return _finished(product, Z, X)


def squares_from_references(X: WideRows, weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return squared distances from the mean of the references, each with its group's weight.

    Parameters
    ----------
    X : WideRows of shape (n_rows, n_features)
        With a frame: no row is read.
    weight : ndarray of shape (n_rows,)
        Sums to 1.

    Returns
    -------
    ndarray of shape (n_rows,)
        Times the square of the frame's scale.
    """
    frame = X.frame
    assert frame is not None
    mass = np.bincount(frame.labels, weights=weight, minlength=frame.centres.size)
    from_centres = frame.between @ mass - 0.5 * (mass @ frame.between @ mass)
    squares: NDArray[np.float64] = frame.squares + 2.0 * (frame.along @ mass)
    return squares + from_centres[frame.labels]


def _finished(product: NDArray[np.float64], Z: WideRows, X: WideRows) -> NDArray[np.float64]:
    """Turn products into distances, in place."""
    new, old = Z.frame, X.frame
    assert new is not None
    assert old is not None
    if X.dtype == np.float32 and max(new.squares.max(), old.squares.max()) > _LARGEST:
        raise ValueError(too_large(int(new.squares.argmax())))
    back = np.ascontiguousarray(old.along.T)
    step = max(1, _BLOCK // len(X))
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


def _sum_over_columns(function: Callable[..., Sums], *rows: WideRows) -> Sums:
    """Add up what a function makes of each block of columns of the sources."""
    if any(is_dask(part.source) for part in rows):
        from skdmap.diffusion._wide.dask_arrays import sum_over_chunks

        return sum_over_chunks(
            function, [part.source for part in rows], [part.dtype for part in rows]
        )
    total: list[Any] = []
    blocks = list(column_blocks(*rows))
    with tqdm(total=len(blocks), desc="Distances", disable=None, delay=_PATIENCE) as bar:
        for columns in blocks:
            parts = function(columns, *read_together(columns, *rows))
            total = _added(total, parts)
            for part in rows:
                part.release()
            bar.update()
    return tuple(total)


def _added(total: list[Any], parts: Sums) -> list[Any]:
    if not total:
        return list(parts)
    for whole, part in zip(total, parts, strict=True):
        whole += part
    return total


def recompute_close_pairs(squared: NDArray[np.float64], Z: WideRows, X: WideRows) -> None:
    """Replace the squared distances of close pairs, in place.

    Parameters
    ----------
    squared : ndarray of shape (n_rows, n_train)
        Squared distances, times the square of the frame's scale.
    Z : WideRows of shape (n_rows, n_features)
        Rows, with a frame.
    X : WideRows of shape (n_train, n_features)
        Rows, with the same references; Z itself for distances among its rows.
    """
    new, old = Z.frame, X.frame
    assert new is not None
    assert old is not None
    dtype = np.result_type(Z.dtype, X.dtype)
    share = _CLOSE[dtype]
    rows, columns = _close(squared, share * new.squares, share * old.squares, same=Z is X)
    if not rows.size:
        return
    group = old.labels[columns]
    blocks = []
    for label in np.unique(group):
        inside = group == label
        blocks.append((label, np.unique(rows[inside]), np.unique(columns[inside])))
    left_rows, left_columns = [], []
    for (_, i, j), (values, scale) in zip(blocks, _group_squares(blocks, Z, X), strict=True):
        squared[np.ix_(i, j)] = values
        if Z is X:
            squared[np.ix_(j, i)] = values.T
        # Equal rows, and what is as good as equal, are left to differences.
        k, m = np.nonzero(values <= _CANCELLED[dtype] * scale)
        left_rows.append(i[k])
        left_columns.append(j[m])
    rows, columns = np.concatenate(left_rows), np.concatenate(left_columns)
    if Z is X:
        apart = rows != columns
        rows, columns = rows[apart], columns[apart]
    if rows.size:
        values = _difference_squares(rows, columns, Z, X)
        squared[rows, columns] = values
        if Z is X:
            squared[columns, rows] = values


def _close(
    squared: NDArray[np.float64],
    new: NDArray[np.float64],
    old: NDArray[np.float64],
    *,
    same: bool,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the pairs whose squared distance is at most the sum of a limit of each."""
    rows, columns = [], []
    step = max(1, _PAIR_BLOCK // squared.shape[1])
    for start in range(0, squared.shape[0], step):
        part = slice(start, start + step)
        i, j = np.nonzero(squared[part] <= new[part, None] + old[None, :])
        i += start
        kept = i != j if same else slice(None)
        rows.append(i[kept])
        columns.append(j[kept])
    return np.concatenate(rows), np.concatenate(columns)


def _group_squares(
    blocks: list[tuple[Any, NDArray[np.intp], NDArray[np.intp]]], Z: WideRows, X: WideRows
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Squared distances within groups about their references, and what they were taken from."""
    frame = X.frame
    assert frame is not None
    products = [np.zeros((i.size, j.size)) for _, i, j in blocks]
    lefts = [np.zeros(i.size) for _, i, _ in blocks]
    rights = [np.zeros(j.size) for _, _, j in blocks]
    new_rows = np.unique(np.concatenate([i for _, i, _ in blocks]))
    old_rows = np.unique(np.concatenate([j for _, _, j in blocks]))
    centres = np.array([frame.centres[label] for label, _, _ in blocks])
    for columns in column_blocks(Z, X, copies=_COPIES):
        new, old = Z[new_rows][:, columns], X[old_rows][:, columns]
        references = X.read(columns, centres).astype(np.float64)
        for number, (_, i, j) in enumerate(blocks):
            left = _offset(new[np.searchsorted(new_rows, i)], references[number], frame.scale)
            right = _offset(old[np.searchsorted(old_rows, j)], references[number], frame.scale)
            products[number] += left @ right.T
            lefts[number] += np.einsum("ij,ij->i", left, left)
            rights[number] += np.einsum("ij,ij->i", right, right)
        Z.release()
        X.release()
    found = []
    for product, left, right in zip(products, lefts, rights, strict=True):
        total = left[:, None] + right[None, :]
        found.append((total - 2.0 * product, total))
    return found


def _offset(
    rows: NDArray[np.floating], centre: NDArray[np.float64], scale: float
) -> NDArray[np.float64]:
    offset = rows.astype(np.float64)
    offset -= centre
    return offset if scale == 1.0 else offset * scale


def _difference_squares(
    rows: NDArray[np.intp], columns: NDArray[np.intp], Z: WideRows, X: WideRows
) -> NDArray[np.float64]:
    """Squared distances of pairs from differences; equal rows are looked at once."""
    left, right = _representatives(Z, rows), _representatives(X, columns)
    pairs, place = np.unique(np.column_stack([left, right]), axis=0, return_inverse=True)
    checks = [(Z, rows, left), (X, columns, right)]
    values = _paired(Z, X, pairs[:, 0], pairs[:, 1])[place.reshape(-1)]
    for source, members, others in checks:
        doubt = np.unique(np.column_stack([members, others])[members != others], axis=0)
        if doubt.size and _paired(source, source, doubt[:, 0], doubt[:, 1]).any():
            return _paired(Z, X, rows, columns)  # two rows share a 64-bit hash
    return values


def _representatives(X: WideRows, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return for each row the first of those that are equal to it by their hashes."""
    some = np.unique(rows)
    _, first, group = np.unique(row_hashes(X[some]), return_index=True, return_inverse=True)
    representative: NDArray[np.intp] = some[first[group.reshape(-1)]]
    return representative[np.searchsorted(some, rows)]


def _paired(
    Z: WideRows, X: WideRows, rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[np.float64]:
    frame = X.frame
    assert frame is not None
    squares = np.zeros(rows.size)
    new_rows, left = np.unique(rows, return_inverse=True)
    old_rows, right = np.unique(columns, return_inverse=True)
    for part in column_blocks(Z, X, copies=_COPIES):
        new, old = Z[new_rows][:, part], X[old_rows][:, part]
        step = max(1, _PAIR_BLOCK // new.shape[1])
        for start in range(0, rows.size, step):
            some = slice(start, start + step)
            difference = new[left[some]].astype(np.float64)
            difference -= old[right[some]]
            difference *= frame.scale
            squares[some] += np.einsum("ij,ij->i", difference, difference)
        Z.release()
        X.release()
    return squares


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
