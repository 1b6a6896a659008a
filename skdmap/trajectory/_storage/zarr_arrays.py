"""Rows in a zarr 3 array, one chunk a row, in place of an .npy file. Needs the extra ``store``."""

from pathlib import Path
from typing import Any

import numpy as np


class ZarrRows:
    """The contract of ``NpyRows``, kept by an array of a zarr group.

    zarr makes room before it writes, so that a crash leaves a row of fill value: that is nan, and
    the journal, which comes last, does not tell of it.

    Parameters
    ----------
    path : Path
        Group and name of the array; a suffix is dropped.
    width : int
        Columns.
    dtype : dtype
        Of an entry.
    """

    def __init__(self, path: Path, width: int, dtype: np.dtype) -> None:
        group = open_group(path.parent, "a")
        name = path.stem
        if (path.parent / name / "zarr.json").exists():
            self._array = group[name]
        else:
            self._array = group.create_array(
                name, shape=(0, width), chunks=(1, width), dtype=dtype, fill_value=np.nan
            )
        self.path, self.count = path, 0

    @property
    def n_whole(self) -> int:
        """Rows that the array has room for."""
        return int(self._array.shape[0])

    def append(self, part: np.ndarray) -> None:
        """Write a row."""
        self._array.resize((self.count + 1, self._array.shape[1]))
        self._array[self.count] = part
        self.count += 1

    def commit(self) -> None:
        """Do nothing: the shape was written first."""

    def truncate(self, count: int) -> None:
        """Keep the first rows only."""
        self.count = count
        if count != self._array.shape[0]:
            self._array.resize((count, self._array.shape[1]))

    def sync(self) -> None:
        """Do nothing: zarr has no call for it."""

    def close(self) -> None:
        """Do nothing: zarr keeps no file open."""

    def array(self) -> Any:
        """Return the array, read-only; ``numpy.asarray`` reads it whole."""
        return open_group(self.path.parent, "r")[self.path.stem]

    def whole(self) -> Any:
        """Return all rows that the array has room for."""
        return self._array


def open_group(folder: Path, mode: Any) -> Any:
    """Return the group of a folder.

    Raises
    ------
    ImportError
        If zarr is not installed.
    """
    try:
        import zarr
    except ImportError as error:
        raise ImportError(
            f"store={str(folder)!r} ends in .zarr and needs zarr 3. Install skdmap[store], or pass "
            "another name for .npy files."
        ) from error
    return zarr.open_group(folder, mode=mode, zarr_format=3)
