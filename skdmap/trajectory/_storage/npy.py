"""One .npy file that grows row by row, and read-only memory maps of it."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from skdmap.trajectory._storage.files import open_regular, read_at, sync, write_all
from skdmap.trajectory._storage.protocols import RowFile

_HEADER = 128
# Format 1.0, and the length of what follows.
_MAGIC = b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little")


class MappedRows(np.memmap):
    """A read-only memory map of the first rows of a file, which pickles as the file's path."""

    _whole: tuple[str, int, int, str] | None

    def __array_finalize__(self, obj: Any) -> None:
        super().__array_finalize__(obj)
        self._whole = None  # a slice is not the file

    def __reduce__(self) -> Any:
        if self._whole is None:
            return np.array(self).__reduce__()
        return _reopened_rows, self._whole

    def __deepcopy__(self, memo: Any) -> Any:
        return np.array(self) if self._whole is None else self


def npy_header(width: int, dtype: np.dtype, count: int) -> bytes:
    """Return the header of a file of ``count`` rows."""
    return _filled(_header_form(width, dtype), count)


def _header_form(width: int, dtype: np.dtype) -> str:
    descr = np.lib.format.dtype_to_descr(dtype)
    return f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': (%d, {width}), }}"


def _filled(form: str, count: int) -> bytes:
    return _MAGIC + (form % count).ljust(_HEADER - 11).encode() + b"\n"


def header_count(path: Path, width: int, dtype: np.dtype) -> int | None:
    """Return how many rows the header counts; None if it is damaged, 0 if there is no file."""
    try:
        fd = open_regular(path)
    except FileNotFoundError:
        return 0
    try:
        header = read_at(fd, _HEADER, 0)
    finally:
        os.close(fd)
    match = re.search(rb"\((\d{1,18}),", header)
    count = int(match[1]) if match else 0
    return count if header == npy_header(width, dtype, count) else None


def map_rows(path: str, n_rows: int, width: int, dtype: str) -> MappedRows:
    """Return the first rows of an .npy file as a read-only memory map; the header is not asked."""
    entry = np.dtype(dtype)
    with open(path, "rb", opener=open_regular) as file:
        room = os.fstat(file.fileno()).st_size - _HEADER
        if room < n_rows * width * entry.itemsize:
            raise _dropped(path, n_rows)
        mapped = np.memmap(file, dtype=entry, mode="r", offset=_HEADER, shape=(n_rows, width))
    rows = mapped.view(MappedRows)
    rows._whole = os.path.abspath(path), n_rows, width, dtype
    return rows


def _reopened_rows(path: str, n_rows: int, width: int, dtype: str) -> MappedRows:
    """Return the rows that a pickle names, unless a resumed recording dropped some of them."""
    count = header_count(Path(path), width, np.dtype(dtype))
    if count is not None and count < n_rows:
        raise _dropped(path, n_rows)
    return map_rows(path, n_rows, width, dtype)


def _dropped(path: str, n_rows: int) -> ValueError:
    return ValueError(
        f"{path} is too short for {n_rows} rows: rows were dropped since. Open the store with "
        "open_trajectory."
    )


def file_rows(path: Path, width: int, dtype: np.dtype) -> np.ndarray:
    """Return all rows that fit into a file, read-only; none if there is no file."""
    try:
        with open(path, "rb", opener=open_regular) as file:
            room = os.fstat(file.fileno()).st_size - _HEADER
            n_rows = max(0, room) // (width * dtype.itemsize) if width else 0
            if n_rows:
                return np.memmap(file, dtype, "r", offset=_HEADER, shape=(n_rows, width))
    except FileNotFoundError:
        pass
    return np.empty((0, width), dtype)


class NpyRows(RowFile):
    """One .npy file that grows row by row and is valid at any time; it is never shortened."""

    # Others may have mapped it: a page that is cut off under their map ends their process.

    def __init__(self, path: Path, width: int, dtype: np.dtype) -> None:
        self._path, self._width, self._dtype = path, width, np.dtype(dtype)
        self._row_bytes = width * self._dtype.itemsize
        self._form = _header_form(width, self._dtype)
        self._fd = open_regular(path, os.O_RDWR | os.O_CREAT)
        self.count = 0

    def append(self, part: np.ndarray) -> None:
        """Write a contiguous row; it counts after :meth:`commit`."""
        write_all(self._fd, part.data, _HEADER + self.count * self._row_bytes)
        self.count += 1

    def commit(self) -> None:
        """Write the count into the header."""
        write_all(self._fd, _filled(self._form, self.count), 0)

    def truncate(self, count: int) -> None:
        """Count the first rows only."""
        self.count = count
        self.commit()

    def sync(self) -> None:
        """Wait until the rows are on the disk."""
        sync(self._fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def array(self) -> np.ndarray:
        """Return the rows as a read-only memory map."""
        return map_rows(str(self._path), self.count, self._width, self._dtype.str)
