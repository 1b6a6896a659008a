"""Wide rows in, distances out, from one pass over blocks of columns.

Row i of group a, with the reference c_a, is taken as u_i = x_i - c_a. Then

    d_ij^2 = |u_i|^2 + |u_j|^2 - 2 u_i.u_j + |c_a - c_b|^2 + 2 u_i.(c_a - c_b) + 2 u_j.(c_b - c_a).

Products are taken in the precision of the rows, over few columns each, and added up in double
precision: their error is as small as the offsets are, however far the rows lie from 0 and from the
rows of other groups. Pairs that are much closer than their offsets are computed once more.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from skdmap.diffusion._close_pairs import recompute_close_pairs
from skdmap.diffusion._groups import find_groups, nearest_centre
from skdmap.diffusion._offset_products import (
    Pass,
    Sums,
    check_sample,
    cross_products,
    own_products,
    too_large,
)
from skdmap.diffusion._wide import Frame, WideRows, column_blocks, is_dask, read_together

__all__ = ["cross_distances", "framed", "own_distances", "squares_from_references"]

_BLOCK = 2**22
# Sums of squares above this may not fit single precision.
_LARGEST = 1e37
# A progress bar appears after so many seconds, on a terminal.
_PATIENCE = 5.0


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
        from skdmap.diffusion._dask import sum_over_chunks

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
