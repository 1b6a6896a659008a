"""Pairs of wide samples that are much closer than their offsets: computed a second time."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skdmap.diffusion._wide.column_reader import WideRows, column_blocks
from skdmap.diffusion._wide.memory_limit import PAIR_ENTRIES, rows_within
from skdmap.diffusion._wide.row_hashing import row_hashes

# Products in single precision err by 1.3e-7 of the squared offsets, which leaves 8e-6 of a square
# that is this share of them.
_CLOSE = {np.dtype(np.float32): 1.0 / 60.0, np.dtype(np.float64): 1e-5}
# Below this share of what they were taken from, now in double precision, differences are taken
# entry by entry.
_CANCELLED = {np.dtype(np.float32): 1e-10, np.dtype(np.float64): 1e-5}
# Blocks of both sides, and parts of these in double precision.
_COPIES = 4


def recompute_close_pairs(squared: NDArray[np.float64], Z: WideRows, X: WideRows) -> None:
    """Replace the squared distances (n_rows, n_train), times the squared scale, of close pairs."""
    new, old = Z.pivots, X.pivots
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
        # Equal samples, and those that are as good as equal, are left to differences.
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
    """The pairs whose squared distance is at most the sum of a limit of each."""
    rows, columns = [], []
    step = rows_within(PAIR_ENTRIES, squared.shape[1])
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
    """Squared distances within groups about their pivots, and what they were taken from."""
    pivots = X.pivots
    products = [np.zeros((i.size, j.size)) for _, i, j in blocks]
    lefts = [np.zeros(i.size) for _, i, _ in blocks]
    rights = [np.zeros(j.size) for _, _, j in blocks]
    new_rows = np.unique(np.concatenate([i for _, i, _ in blocks]))
    old_rows = np.unique(np.concatenate([j for _, _, j in blocks]))
    chosen = np.array([pivots.centres[label] for label, _, _ in blocks])
    for columns in column_blocks(Z, X, copies=_COPIES):
        new, old = Z[new_rows][:, columns], X[old_rows][:, columns]
        centres = X.read(columns, chosen).astype(np.float64)
        for number, (_, i, j) in enumerate(blocks):
            left = _offset(new[np.searchsorted(new_rows, i)], centres[number], pivots.scale)
            right = _offset(old[np.searchsorted(old_rows, j)], centres[number], pivots.scale)
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
    """Squared distances of pairs from differences; equal samples are compared once."""
    left, right = _representatives(Z, rows), _representatives(X, columns)
    pairs, place = np.unique(np.column_stack([left, right]), axis=0, return_inverse=True)
    checks = [(Z, rows, left), (X, columns, right)]
    values = _paired(Z, X, pairs[:, 0], pairs[:, 1])[place.reshape(-1)]
    for source, members, others in checks:
        merged = np.unique(np.column_stack([members, others])[members != others], axis=0)
        if merged.size and _paired(source, source, merged[:, 0], merged[:, 1]).any():
            return _paired(Z, X, rows, columns)  # two rows share a 64-bit hash
    return values


def _representatives(X: WideRows, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """For each row the first of those that are equal to it by their hashes."""
    some = np.unique(rows)
    _, first, group = np.unique(row_hashes(X[some]), return_index=True, return_inverse=True)
    representative: NDArray[np.intp] = some[first[group.reshape(-1)]]
    return representative[np.searchsorted(some, rows)]


def _paired(
    Z: WideRows, X: WideRows, rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[np.float64]:
    pivots = X.pivots
    squares = np.zeros(rows.size)
    new_rows, left = np.unique(rows, return_inverse=True)
    old_rows, right = np.unique(columns, return_inverse=True)
    for part in column_blocks(Z, X, copies=_COPIES):
        new, old = Z[new_rows][:, part], X[old_rows][:, part]
        step = rows_within(PAIR_ENTRIES, new.shape[1])
        for start in range(0, rows.size, step):
            some = slice(start, start + step)
            difference = new[left[some]].astype(np.float64)
            difference -= old[right[some]]
            difference *= pivots.scale
            squares[some] += np.einsum("ij,ij->i", difference, difference)
        Z.release()
        X.release()
    return squares
