"""A read-only memory map in, its file out: blocks of columns are read, not mapped.

Reading through the map would do, but every page that is touched, and often megabytes around it,
then counts as memory of the process until the map is let go.
"""

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MappedFile", "mapped_file", "release_pages"]

_PROBES = 16


@dataclass(frozen=True)
class MappedFile:
    """Rows in a file.

    Attributes
    ----------
    path : str
        The file.
    offset : int
        Of the first entry, in bytes.
    stride : int
        From row to row, in bytes.
    dtype : dtype
        Of the entries.
    """

    path: str
    offset: int
    stride: int
    dtype: np.dtype

    def read(self, rows: NDArray[np.intp], columns: slice) -> NDArray[np.floating]:
        """Return some columns of some rows.

        Parameters
        ----------
        rows : ndarray of shape (n_rows,)
            Which.
        columns : slice
            With a start and a stop.

        Returns
        -------
        ndarray of shape (n_rows, columns.stop - columns.start)

        Raises
        ------
        OSError
            If the file has become shorter.
        """
        block = np.empty((rows.size, columns.stop - columns.start), dtype=self.dtype)
        place = self.offset + columns.start * self.dtype.itemsize
        handle = os.open(self.path, os.O_RDONLY)
        try:
            for target, row in zip(block, rows.tolist(), strict=True):
                wanted = memoryview(target).cast("B")
                start = place + row * self.stride
                while wanted.nbytes:
                    count = os.preadv(handle, [wanted], start)
                    if not count:
                        raise OSError(f"{self.path} ends before row {row} of X; was it cut?")
                    wanted, start = wanted[count:], start + count
        finally:
            os.close(handle)
        return block


def mapped_file(X: Any) -> MappedFile | None:
    """Return the file behind a read-only memory map of rows.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features)
        Perhaps a memory map, or a view of one.

    Returns
    -------
    MappedFile or None
        None where X is no such map, or its file is not the one that was mapped any more.
    """
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
    found = MappedFile(path, offset, X.strides[0], X.dtype)
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
