"""Wide samples, read by blocks of columns and never copied whole.

Anything with ``shape``, ``dtype`` and two-dimensional slices will do: an array, a memory map, a
zarr or HDF5 data set, a dask array. Blocks are read one after the other and forgotten.
"""

import mmap
import os
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap.diffusion._wide.memory_limit import columns_within_limit
from skdmap.diffusion._wide.pivots import Pivots

# From so many columns on distances come from blocks of columns; below, a copy in double precision
# costs less than it is worth to avoid.
WIDE = 2**14
_PROBES = 16


class WideRows:
    """Some rows of a source that are read by blocks of columns; where they lie, once known."""

    ndim = 2

    def __init__(self, source: Any, rows: NDArray[np.intp] | None = None) -> None:
        self.source = source
        self.rows = rows
        # Number of the first row in what the user passed, where the source is a part of that.
        self.first_row = 0
        self.distances: NDArray[np.float64] | None = None  # (n_rows, n_rows), where they are known
        self._pivots: Pivots | None = None
        self._file = mapped_file(source) if isinstance(source, np.ndarray) else None

    def _changed(self, **attributes: Any) -> "WideRows":
        """A copy with other attributes, that reads the same source."""
        changed = copy(self)
        vars(changed).update(attributes)
        return changed

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        n_rows = self.source.shape[0] if self.rows is None else self.rows.size
        return int(n_rows), int(self.source.shape[1])

    @property
    def dtype(self) -> np.dtype:
        """Single or double precision."""
        return float_dtype(self.source.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def pivots(self) -> Pivots:
        """Where these rows lie; ``distances.with_pivots`` finds out."""
        assert self._pivots is not None
        return self._pivots

    def shares_pivots(self, other: "WideRows") -> bool:
        """Whether both are parts of the same rows, with known pivots."""
        known = self._pivots is not None and other._pivots is not None
        return known and self.pivots.centres is other.pivots.centres

    def __getitem__(self, key: Any) -> Any:
        """Some of the rows, unread; or, with a slice of columns too, an array."""
        if not isinstance(key, tuple):
            pivots = None if self._pivots is None else self._pivots.rows(key)
            if isinstance(key, slice) and self.rows is None and is_dask(self.source):
                start, _, step = key.indices(len(self))
                if step == 1:
                    first = self.first_row + start
                    part = self.source[key]
                    return self._changed(
                        source=part, first_row=first, _pivots=pivots, distances=None
                    )
            rows = np.arange(self.source.shape[0]) if self.rows is None else self.rows
            return self._changed(rows=rows[key], _pivots=pivots, distances=None)
        rows, columns = key
        block = self.read(columns, self.rows)
        return block if isinstance(rows, slice) and rows == slice(None) else block[rows]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.floating]:
        """Read everything; for few rows only."""
        parts = [self[:, columns] for columns in column_blocks(self)]
        return np.concatenate(parts, axis=1).astype(dtype or self.dtype, copy=False)

    def read(self, columns: slice, rows: NDArray[np.intp] | None = None) -> NDArray[np.floating]:
        """Columns of some rows of the source, by default of all; a view where it is in memory.
        Slices mean what they mean for arrays: past either end there are no columns.
        """
        start, stop, step = columns.indices(self.shape[1])
        if step != 1:
            chosen = range(start, stop, step)
            inside = slice(min(chosen, default=0), max(chosen, default=-1) + 1)
            return self.read(inside, rows)[:, [column - inside.start for column in chosen]]
        stop = max(start, stop)
        if self._file is not None:
            whole = np.arange(self.source.shape[0]) if rows is None else rows
            block = self._file.read(whole, slice(start, stop))
            if block is not None:
                return block
        # Of some rows no others are read, where the source allows that: a file, an array, dask.
        block = self.source[:, start:stop]
        block = block.toarray() if sp.issparse(block) else block
        if rows is not None and is_dask(block):
            block = block[rows]
        block = np.asarray(block).astype(self.dtype, copy=False)
        return block if rows is None or is_dask(self.source) else block[rows]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the distances of the fit, which no later call needs, and the file."""
        return {**vars(self), "distances": None, "_file": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._file = mapped_file(self.source) if isinstance(self.source, np.ndarray) else None

    def with_pivots(self, pivots: Pivots) -> "WideRows":
        """The same rows, with what is known of where they lie."""
        return self._changed(_pivots=pivots)

    def with_distances(self, distances: NDArray[np.float64] | None) -> "WideRows":
        """The same rows, with the distances (n_rows, n_rows) among them."""
        return self._changed(distances=distances)

    def release(self) -> None:
        """Give back the memory that pages of a read-only memory map take in this process."""
        release_pages(self.source)


def without_distances(X: Any) -> Any:
    """The same samples; wide ones without the matrix of distances among them."""
    return X.with_distances(None) if isinstance(X, WideRows) else X


def column_blocks(*rows: WideRows, copies: int = 1) -> Iterator[slice]:
    """Slices of columns of which so many copies of all these rows stay within the memory limit."""
    sources = {id(part.source): part for part in rows}.values()
    bytes_each = sum(part.source.shape[0] * part.dtype.itemsize for part in sources)
    chunk = max(_chunk_width(part.source) for part in sources)
    return columns_within_limit(rows[0].shape[1], bytes_each, copies=copies, chunk=chunk)


def _chunk_width(source: Any) -> int:
    chunks = getattr(source, "chunks", None)
    if not chunks or len(chunks) != 2:
        return 1
    return int(chunks[1] if np.ndim(chunks[1]) == 0 else max(chunks[1]))


def read_together(columns: slice, *rows: WideRows) -> list[NDArray[np.floating]]:
    """These columns of each source, reading one that several share once."""
    sources = {id(part.source): part for part in rows}
    read = {key: part.read(columns) for key, part in sources.items()}
    return [read[id(part.source)] for part in rows]


def is_dask(X: Any) -> bool:
    """Whether X is a dask array, without importing dask."""
    return type(X).__module__.partition(".")[0] == "dask" and hasattr(X, "chunks")


def computed(X: Any) -> Any:
    """A dask DataFrame as a frame in memory; a dask array whose rows are not counted, counted."""
    if type(X).__module__.partition(".")[0] != "dask":
        return X
    if hasattr(X, "npartitions") and hasattr(X, "columns"):
        return X.compute()
    unknown = is_dask(X) and any(np.isnan(size) for size in X.shape)
    return X.copy().compute_chunk_sizes() if unknown else X


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


def float_dtype(dtype: Any) -> np.dtype:
    """Single precision of single precision, else double precision."""
    known = np.dtype(dtype)
    return known if known in (np.float32, np.float64) else np.dtype(np.float64)


@dataclass(frozen=True)
class MappedFile:
    """Rows in a file behind a memory map, and what the file was when it was found."""

    path: str
    offset: int  # of the first entry, in bytes
    stride: int  # from row to row, in bytes
    dtype: np.dtype
    identity: tuple[int, int]  # device and inode
    size: int
    modified: int  # nanoseconds

    def read(self, rows: NDArray[np.intp], columns: slice) -> NDArray[np.floating] | None:
        """Some columns of some rows; None where another file has the name: the map has the old one.
        OSError if the file was written to, other than by appending.
        """
        block = np.empty((rows.size, columns.stop - columns.start), dtype=self.dtype)
        place = self.offset + columns.start * self.dtype.itemsize
        try:
            handle = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(handle)
            if (status.st_dev, status.st_ino) != self.identity:
                return None
            if status.st_mtime_ns != self.modified and status.st_size <= self.size:
                raise self._changed(status)
            for target, row in zip(block, rows.tolist(), strict=True):
                wanted = memoryview(target).cast("B")
                start = place + row * self.stride
                while wanted.nbytes:
                    count = os.preadv(handle, [wanted], start)
                    if not count:
                        raise self._changed(status)
                    wanted, start = wanted[count:], start + count
        finally:
            os.close(handle)
        return block

    def _changed(self, status: os.stat_result) -> OSError:
        size = f", and has {status.st_size} bytes instead of {self.size}"
        return OSError(
            f"{self.path}, the file behind the memory map X, was written to after X was passed"
            f"{size if status.st_size != self.size else ''}: its rows may have changed. Fit "
            "again, or fit on a copy in memory, np.array(X)."
        )


def mapped_file(X: Any) -> MappedFile | None:
    """The file behind a read-only memory map of rows, or a view of one; None if it is another."""
    base, path, start = X, None, 0
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap) and base.filename is not None:
            path, start = os.fspath(base.filename), int(base.offset)
        base = base.base
    if path is None or not _is_read_only(base) or not hasattr(os, "preadv"):
        return None
    if X.strides[1] != X.itemsize or X.strides[0] < 0 or not Path(path).is_file():
        return None
    start -= start % mmap.ALLOCATIONGRANULARITY
    first = np.frombuffer(base, dtype=np.uint8).__array_interface__["data"][0]
    offset = start + X.__array_interface__["data"][0] - first
    status = os.stat(path)
    found = MappedFile(
        path,
        offset,
        X.strides[0],
        X.dtype,
        identity=(status.st_dev, status.st_ino),
        size=status.st_size,
        modified=status.st_mtime_ns,
    )
    return found if _agrees(found, X) else None


def _agrees(found: MappedFile, X: NDArray[np.floating]) -> bool:
    """Whether a few entries in the file are those of the map."""
    rows = np.linspace(0, X.shape[0] - 1, _PROBES).astype(int)
    columns = np.linspace(0, X.shape[1] - 1, _PROBES).astype(int)
    try:
        with open(found.path, "rb") as file:
            for row, column in zip(rows, columns, strict=True):
                file.seek(found.offset + row * found.stride + column * X.itemsize)
                if file.read(X.itemsize) != X[row, column].tobytes():
                    return False
    except OSError:
        return False
    return True


def release_pages(X: Any) -> None:
    """Give back the memory that the pages of a read-only memory map take in this process."""
    base = X
    while isinstance(base, np.ndarray):
        base = base.base
    advice = getattr(mmap, "MADV_DONTNEED", None)
    # Pages of a private map that was written to would be lost: only where nobody can write.
    if advice is not None and _is_read_only(base):
        base.madvise(advice)


def _is_read_only(base: Any) -> bool:
    return isinstance(base, mmap.mmap) and memoryview(base).readonly
