"""One .npy file that grows row by row, and read-only memory maps of it."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from skdmap.trajectory._storage.journal import write_all
from skdmap.trajectory._storage.row_storage import RowFile

_HEADER = 128
# Format 1.0, and the length of what follows.
_MAGIC = b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little")


class MappedRows(np.memmap):
    """A read-only memory map of the first rows of a file, which pickles as the file's path."""

    _whole: tuple[str, int] | None

    def __array_finalize__(self, obj: Any) -> None:
        super().__array_finalize__(obj)
        self._whole = None  # a slice is not the file

    def __reduce__(self) -> Any:
        if self._whole is None:
            return np.array(self).__reduce__()
        return map_rows, self._whole

    def __deepcopy__(self, memo: Any) -> Any:
        return np.array(self) if self._whole is None else self


def map_rows(path: str, n_rows: int) -> MappedRows:
    """Return the first rows of an .npy file as a read-only memory map."""
    with Path(path).open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        # By size: after a power cut the header may count fewer rows than there are.
        room = os.fstat(file.fileno()).st_size - file.tell()
        if room < n_rows * shape[1] * dtype.itemsize:
            raise ValueError(
                f"{path} is too short for {n_rows} rows: rows were dropped since. Open the store "
                "with open_trajectory."
            )
        mapped = np.memmap(
            file, dtype=dtype, mode="r", offset=file.tell(), shape=(n_rows, shape[1])
        )
    rows = mapped.view(MappedRows)
    rows._whole = (os.path.abspath(path), n_rows)
    return rows


class NpyRows(RowFile):
    """One .npy file that grows row by row and is valid at any time."""

    def __init__(self, path: Path, width: int, dtype: np.dtype) -> None:
        self.path, self._dtype = path, np.dtype(dtype)
        self._row_bytes = width * self._dtype.itemsize
        descr = np.lib.format.dtype_to_descr(self._dtype)
        self._form = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': (%d, {width}), }}"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self.count = 0
        if os.fstat(self._fd).st_size < _HEADER:
            self.commit()

    @property
    def n_whole(self) -> int:
        """Rows that fit into the file, whatever its header counts."""
        return max(0, os.fstat(self._fd).st_size - _HEADER) // self._row_bytes

    def append(self, part: np.ndarray) -> None:
        """Write a contiguous row; it counts after :meth:`commit`."""
        write_all(self._fd, part.data, _HEADER + self.count * self._row_bytes)
        self.count += 1

    def commit(self) -> None:
        """Write the count into the header."""
        text = self._form % self.count
        write_all(self._fd, _MAGIC + text.ljust(_HEADER - 11).encode() + b"\n", 0)

    def truncate(self, count: int) -> None:
        """Keep the first rows only."""
        self.count = count
        self.commit()
        os.ftruncate(self._fd, _HEADER + count * self._row_bytes)

    def sync(self) -> None:
        """Wait until the rows are on the disk."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def array(self) -> np.ndarray:
        """Return the rows as a read-only memory map."""
        return map_rows(str(self.path), self.count)

    def whole(self) -> np.ndarray:
        """Return all rows that fit into the file."""
        return file_rows(self.path)


def file_rows(path: Path) -> np.ndarray:
    """Return all rows that fit into a file, read-only, whatever its header counts."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        n_rows = (os.fstat(file.fileno()).st_size - _HEADER) // (shape[1] * dtype.itemsize)
    return np.memmap(path, dtype=dtype, mode="r", offset=_HEADER, shape=(n_rows, shape[1]))
