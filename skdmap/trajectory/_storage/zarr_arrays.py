"""Rows in a zarr 3 array, one chunk a row, in place of an .npy file. Needs the extra ``store``."""

from pathlib import Path
from typing import Any

import numpy as np

from skdmap.trajectory._storage.row_storage import RowFile


class ZarrRows(RowFile):
    """Rows in an array of a zarr group, which ``path`` names (its suffix is dropped)."""

    # zarr makes room before it writes: a crash leaves a row of the fill value, nan, and the
    # journal, which is written last, does not list it.

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
        """Rows of the array, written or not."""
        return int(self._array.shape[0])

    def append(self, part: np.ndarray) -> None:
        """Write a row."""
        self._array.resize((self.count + 1, self._array.shape[1]))
        self._array[self.count] = part
        self.count += 1

    def truncate(self, count: int) -> None:
        """Keep the first rows only."""
        self.count = count
        if count != self._array.shape[0]:
            self._array.resize((count, self._array.shape[1]))

    def array(self) -> Any:
        """Return the array, read-only; ``numpy.asarray`` reads it whole."""
        return open_group(self.path.parent, "r")[self.path.stem]

    def whole(self) -> Any:
        """Return the whole array."""
        return self._array


def open_group(folder: Path, mode: Any) -> Any:
    """Return the group of a folder."""
    try:
        import zarr
    except ImportError as error:
        raise ImportError(
            f"store={str(folder)!r} ends in .zarr and needs zarr 3. Install skdmap[store], or use "
            "another name to store .npy files."
        ) from error
    return zarr.open_group(folder, mode=mode, zarr_format=3)
