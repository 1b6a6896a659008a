"""Wide rows in, blocks of columns out: rows that are never copied whole.

Anything with ``shape``, ``dtype`` and two-dimensional slices will do: an array, a memory map, a
zarr or HDF5 data set, a dask array. Blocks are read one after the other and forgotten.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap.diffusion._mapped import mapped_file, release_pages

__all__ = [
    "WIDE",
    "Frame",
    "WideRows",
    "column_blocks",
    "is_dask",
    "is_lazy",
    "read_together",
    "reads_by_columns",
]

# From so many columns on distances come from blocks of columns; below, a copy in double precision
# costs less than it is worth to avoid.
WIDE = 2**14
# One block of columns takes so many bytes; a pass holds two or three of them.
BLOCK_BYTES = 2**26


@dataclass(frozen=True)
class Frame:
    """Reference rows, and where the rows lie from them.

    Attributes
    ----------
    centres : ndarray of shape (n_centres,)
        Rows of the source that the rows of each group are measured from.
    labels : ndarray of shape (n_rows,)
        Group of each row.
    spans : tuple of (int, int)
        Columns, from and to, by which new rows find their group.
    sample : ndarray of shape (n_centres, n_sampled)
        These columns of the reference rows, in double precision.
    scale : float
        A power of two that offsets are multiplied by, so that their squares fit.
    squares : ndarray of shape (n_rows,)
        Squared length of each row's offset from its reference.
    along : ndarray of shape (n_rows, n_centres)
        Products of each row's offset with the way from each reference to its own.
    between : ndarray of shape (n_centres, n_centres)
        Squared distances of the references from each other.
    """

    centres: NDArray[np.intp]
    labels: NDArray[np.intp]
    spans: tuple[tuple[int, int], ...]
    sample: NDArray[np.float64]
    scale: float
    squares: NDArray[np.float64]
    along: NDArray[np.float64]
    between: NDArray[np.float64]

    def rows(self, index: Any) -> "Frame":
        """Return the frame of some of the rows."""
        return replace(
            self,
            labels=self.labels[index],
            squares=self.squares[index],
            along=self.along[index],
        )


class WideRows:
    """Rows that are read by blocks of columns.

    Parameters
    ----------
    source : object of shape (n_source, n_features)
        Has ``shape``, ``dtype`` and two-dimensional slices.
    rows : ndarray of int or None, default=None
        Which rows of the source; None is all.
    frame : Frame or None, default=None
        Where these rows lie, once that is known.
    distances : ndarray of shape (n_rows, n_rows) or None, default=None
        Among these rows, for the first who asks.
    """

    ndim = 2

    def __init__(
        self,
        source: Any,
        rows: NDArray[np.intp] | None = None,
        frame: Frame | None = None,
        distances: NDArray[np.float64] | None = None,
    ) -> None:
        self.source = source
        self.rows = rows
        self.frame = frame
        self._distances = distances
        self._file = mapped_file(source) if isinstance(source, np.ndarray) else None
        n_rows = source.shape[0] if rows is None else rows.size
        self.shape = (int(n_rows), int(source.shape[1]))
        self.dtype = _float_dtype(source.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        """Return some of the rows, unread; or, with a slice of columns too, an array."""
        if not isinstance(key, tuple):
            frame = None if self.frame is None else self.frame.rows(key)
            if isinstance(key, slice) and self.rows is None and is_dask(self.source):
                return WideRows(self.source[key], None, frame)
            rows = np.arange(self.source.shape[0]) if self.rows is None else self.rows
            return WideRows(self.source, rows[key], frame)
        rows, columns = key
        block = self.read(columns, self.rows)
        return block if isinstance(rows, slice) and rows == slice(None) else block[rows]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.floating]:
        """Read everything; for few rows only."""
        parts = [self[:, columns] for columns in column_blocks(self)]
        return np.concatenate(parts, axis=1).astype(dtype or self.dtype, copy=False)

    def read(self, columns: slice, rows: NDArray[np.intp] | None = None) -> NDArray[np.floating]:
        """Return columns of some rows of the source, by default of all.

        Of all rows that are in memory it is a view. Of some rows no others are read, where the
        source allows that: a file, an array in memory or of dask's.
        """
        if self._file is not None:
            whole = np.arange(self.source.shape[0]) if rows is None else rows
            return self._file.read(whole, columns)
        block = self.source[:, columns]
        if rows is not None and is_dask(block):
            block = block[rows]
        block = np.asarray(block).astype(self.dtype, copy=False)
        return block if rows is None or is_dask(self.source) else block[rows]

    def take_distances(self) -> NDArray[np.float64] | None:
        """Hand over the distances among these rows, once; None where they are not at hand."""
        distances, self._distances = self._distances, None
        return distances

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the distances of the fit, which no later call needs, and the file."""
        return {"source": self.source, "rows": self.rows, "frame": self.frame}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["source"], state["rows"], state["frame"])  # type: ignore[misc]

    def with_frame(self, frame: Frame) -> "WideRows":
        """Return the same rows, with what is known of where they lie."""
        return WideRows(self.source, self.rows, frame)

    def release(self) -> None:
        """Give back the memory that pages of a read-only memory map take in this process."""
        release_pages(self.source)


def column_blocks(*rows: WideRows, copies: int = 1) -> Iterator[slice]:
    """Yield slices of columns of which so many copies of all these rows take ``BLOCK_BYTES``.

    Whole chunks where a source is stored in chunks, because part of one costs as much to read.
    """
    n_features = rows[0].shape[1]
    sources = {id(part.source): part for part in rows}.values()
    bytes_each = sum(part.source.shape[0] * part.dtype.itemsize for part in sources)
    width = max(256, BLOCK_BYTES // max(1, copies * bytes_each))
    chunk = max(_chunk_width(part.source) for part in sources)
    width = max(chunk, width // chunk * chunk)
    for start in range(0, n_features, width):
        yield slice(start, min(start + width, n_features))


def _chunk_width(source: Any) -> int:
    chunks = getattr(source, "chunks", None)
    if not chunks or len(chunks) != 2:
        return 1
    return int(chunks[1] if np.ndim(chunks[1]) == 0 else max(chunks[1]))


def read_together(columns: slice, *rows: WideRows) -> list[NDArray[np.floating]]:
    """Return these columns of each source, reading one that several share once."""
    sources = {id(part.source): part for part in rows}
    read = {key: part.read(columns) for key, part in sources.items()}
    return [read[id(part.source)] for part in rows]


def is_dask(X: Any) -> bool:
    """Whether X is a dask array, without importing dask."""
    return type(X).__module__.partition(".")[0] == "dask" and hasattr(X, "to_delayed")


def is_lazy(X: Any) -> bool:
    """Whether X has a shape, a type and slices, but is no array, frame or matrix in memory."""
    if isinstance(X, (np.ndarray, WideRows)) or sp.issparse(X) or hasattr(X, "iloc"):
        return False
    if len(getattr(X, "shape", ())) != 2 or not hasattr(X, "__getitem__"):
        return False
    try:
        return np.dtype(X.dtype).kind in "fiub"
    except (AttributeError, TypeError):
        return False  # a frame, or a tensor of another library


def reads_by_columns(X: Any) -> bool:
    """Whether X can and should be read by blocks of columns, without a look at its values."""
    if len(getattr(X, "shape", ())) != 2 or X.shape[0] < 2 or X.shape[1] < WIDE:
        return False
    if isinstance(X, np.ndarray):
        return type(X) is not np.matrix and X.dtype in (np.float32, np.float64)
    return is_lazy(X)


def _float_dtype(dtype: Any) -> np.dtype:
    known = np.dtype(dtype)
    return known if known in (np.float32, np.float64) else np.dtype(np.float64)
