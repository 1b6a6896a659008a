"""Wide rows in, groups of rows that lie near each other out, each with a reference row.

Distances between rows of one group, and of groups whose references are near each other, come from
offsets from the references, so that nothing is lost where rows are close and far from the origin.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skdmap.diffusion._wide.column_reader import WideRows

# Groups of at most so many rows: on a random walk squared offsets are about 24 squared steps.
_GROUP_ROWS = 48
_SPANS, _LAZY_SPANS = 16, 4
_MOST_COLUMNS = 2048
_SAMPLE_ENTRIES = 2**23


@dataclass(frozen=True)
class Groups:
    """Reference rows and who belongs to them.

    Attributes
    ----------
    centres : ndarray of shape (n_centres,)
        Rows of the source.
    labels : ndarray of shape (n_rows,)
        Group of each row.
    spans : tuple of (int, int)
        Columns looked at, from and to.
    sample : ndarray of shape (n_centres, n_sampled)
        These columns of the reference rows.
    scale : float
        Power of two by which offsets come near 1.
    """

    centres: NDArray[np.intp]
    labels: NDArray[np.intp]
    spans: tuple[tuple[int, int], ...]
    sample: NDArray[np.float64]
    scale: float


def find_groups(X: WideRows) -> Groups:
    """Halve the rows where a gap is, until groups are small, by a sample of the columns.

    Parameters
    ----------
    X : WideRows of shape (n_rows, n_features)
        Of which a few spans of columns are read.

    Returns
    -------
    Groups
    """
    spans = _spans(X)
    sample = _sampled(X, spans)
    labels = np.empty(len(X), dtype=np.intp)
    centres: list[int] = []
    pending = [np.arange(len(X))]
    largest = 0.0
    while pending:
        members = pending.pop()
        offsets = sample[members] - sample[members].mean(axis=0)
        squares = np.einsum("ij,ij->i", offsets, offsets)
        if members.size > _GROUP_ROWS:
            pending.extend(_halves(members, offsets, squares))
            continue
        labels[members] = len(centres)
        centres.append(int(members[squares.argmin()]))
        largest = max(largest, float(np.abs(offsets).max(initial=0.0)))
    chosen = np.array(centres, dtype=np.intp)
    rows = chosen if X.rows is None else X.rows[chosen]
    exponent = -np.frexp(largest)[1] if 0.0 < largest < np.inf else 0
    # Within these bounds squares and their sums are far from the ends of single precision.
    scale = float(2.0**exponent) if abs(exponent) > 24 else 1.0
    return Groups(rows, labels, spans, sample[chosen], scale)


def nearest_centre(
    Z: WideRows, spans: tuple[tuple[int, int], ...], sample: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Return the group of each new row: that of the nearest reference row, in the columns sampled.

    Parameters
    ----------
    Z : WideRows of shape (n_rows, n_features)
        New rows.
    spans : tuple of (int, int)
        Columns to look at.
    sample : ndarray of shape (n_centres, n_sampled)
        These columns of the reference rows.

    Returns
    -------
    ndarray of shape (n_rows,)
    """
    new = _sampled(Z, spans) - sample[0]
    known = sample - sample[0]
    squares = np.einsum("ij,ij->i", known, known)[None, :] - 2.0 * (new @ known.T)
    return squares.argmin(axis=1)


def _spans(X: WideRows) -> tuple[tuple[int, int], ...]:
    """Spread a few spans evenly over the columns."""
    n_features = X.shape[1]
    n_spans = _SPANS if isinstance(X.source, np.ndarray) else _LAZY_SPANS
    wanted = min(n_features, _MOST_COLUMNS, max(n_spans, _SAMPLE_ENTRIES // len(X)))
    width = max(1, wanted // n_spans)
    starts = np.unique(np.linspace(0, n_features - width, n_spans).astype(int))
    return tuple((int(start), int(start) + width) for start in starts)


def _sampled(X: WideRows, spans: tuple[tuple[int, int], ...]) -> NDArray[np.float64]:
    parts = [np.asarray(X[:, slice(*span)], dtype=np.float64) for span in spans]
    X.release()
    return np.concatenate(parts, axis=1)


def _halves(
    members: NDArray[np.intp], offsets: NDArray[np.float64], squares: NDArray[np.float64]
) -> list[NDArray[np.intp]]:
    """Cut between two far rows, at the largest gap of the middle half."""

    def from_row(row: int) -> NDArray[np.float64]:
        return squares - 2.0 * (offsets @ offsets[row])

    first = int(squares.argmax())
    near_first = from_row(first)
    along = near_first - from_row(int((near_first + squares[first]).argmax()))
    order = np.argsort(along, kind="stable")
    low, high = members.size // 4, 3 * members.size // 4
    gaps = np.diff(along[order])[low:high]
    cut = low + 1 + int(gaps.argmax()) if gaps.max() > 0 else members.size // 2
    return [members[order[:cut]], members[order[cut:]]]
