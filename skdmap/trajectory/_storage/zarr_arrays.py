"""Rows in a zarr 3 array, one chunk a row, in place of an .npy file. Needs the extra ``store``.

Chunks and metadata are written here and not by zarr, which syncs nothing: after a power cut the
metadata of an array could be empty, and with it all rows would be lost.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from skdmap.trajectory._storage.files import (
    open_regular,
    read_bytes,
    replace_file,
    sync_file,
    sync_folder,
    write_all,
)
from skdmap.trajectory._storage.protocols import RowFile

_GROUP = {"attributes": {}, "zarr_format": 3, "node_type": "group"}
# More files to sync than this: one call for the whole disk is cheaper.
_MOST_SYNCS = 64


def _metadata(n_rows: int, width: int, dtype: np.dtype) -> dict[str, Any]:
    """Return the metadata of an array, as in the specification of zarr 3."""
    return {
        "shape": [n_rows, width],
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, width]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "NaN",
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "attributes": {},
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def _read_metadata(folder: Path, width: int, dtype: np.dtype) -> tuple[int, bool]:
    """Return the rows of an array, and whether its chunks are compressed as in formats 1 and 2."""
    content = read_bytes(folder / "zarr.json")
    if content is None:
        return 0, False
    try:
        found = json.loads(content)
        n_rows, codecs = found["shape"][0], found["codecs"]
        kinds = [codec["name"] for codec in codecs]
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise _damaged(folder, error) from error
    expected = _metadata(n_rows, width, dtype)
    is_compressed = kinds == ["bytes", "zstd"]
    if is_compressed:
        # It was written by a version of zarr, whose fields are not all known here.
        expected = found | expected | {"codecs": codecs, "storage_transformers": []}
        found = {"storage_transformers": []} | found
    if found != expected or not isinstance(n_rows, int) or n_rows < 0:
        raise _damaged(folder, "its fields are not those of rows")
    return n_rows, is_compressed


def _damaged(folder: Path, reason: Any) -> ValueError:
    return ValueError(f"{folder / 'zarr.json'} is damaged: {reason}")


class ChunkFiles:
    """The rows of an array for checking: what is read is a file of the length of a row."""

    def __init__(self, folder: Path, width: int, dtype: np.dtype) -> None:
        check_no_links(folder)
        self._folder, self._dtype = folder, dtype
        n_rows, is_compressed = _read_metadata(folder, width, dtype)
        self.shape = n_rows, width
        self._array = _open_array(folder) if is_compressed else None

    def __getitem__(self, row: int) -> np.ndarray:
        """Return a row, or raise a ValueError if it is torn."""
        path = self._folder / "c" / str(row) / "0"
        content = read_bytes(path) or b""
        n_bytes = self.shape[1] * self._dtype.itemsize
        if (len(content) if self._array is None else _zstd_size(content)) != n_bytes:
            raise ValueError(f"{path} is damaged")
        return np.frombuffer(content, self._dtype) if self._array is None else self._array[row]


def _zstd_size(frame: bytes) -> int:
    """Return what a zstd frame (RFC 8878, 3.1.1.1) says of its decompressed size; -1 if nothing."""
    if len(frame) < 14:
        return -1
    descriptor = frame[4]
    is_single, flag = descriptor >> 5 & 1, descriptor >> 6
    start = 5 + (not is_single) + (0, 1, 2, 4)[descriptor & 3]
    length = (is_single, 2, 4, 8)[flag]
    size = int.from_bytes(frame[start : start + length], "little")
    return (size + 256 if flag == 1 else size) if length else -1


class ZarrRows(RowFile):
    """Rows in an array of a zarr group; the folder of the array is never shortened."""

    def __init__(self, folder: Path, width: int, dtype: np.dtype) -> None:
        self._folder, self._width, self._dtype = folder, width, np.dtype(dtype)
        check_no_links(folder)
        (folder / "c").mkdir(parents=True, exist_ok=True)
        if not (folder.parent / "zarr.json").exists():
            replace_file(folder.parent / "zarr.json", [json.dumps(_GROUP, indent=2).encode()])
        # What is damaged is written again; rows are told by the journal.
        self._compressed: Any = None
        try:
            self._shape, is_compressed = _read_metadata(folder, width, self._dtype)
        except ValueError:
            self._shape, is_compressed = 0, False
        if is_compressed:
            self._compressed = _open_array(folder, "r+")
        else:
            self._resize(self._shape)
        self._pending: list[Path] = []
        self.count = self._shape

    def append(self, part: np.ndarray) -> None:
        """Write a row."""
        if self.count >= self._shape:
            # Each change of the shape is synced, and must not come with each row.
            self._resize(self.count + max(64, self.count // 4))
        path = self._folder / "c" / str(self.count) / "0"
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        if self._compressed is not None:
            self._compressed[self.count] = part
        else:
            fd = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                write_all(fd, part.data, 0)
            finally:
                os.close(fd)
        self._pending.append(path)
        self.count += 1

    def truncate(self, count: int) -> None:
        """Continue after the first rows; the chunks of others stay until they are replaced."""
        self.count = count

    def sync(self) -> None:
        """Wait until the rows are on the disk."""
        if len(self._pending) > _MOST_SYNCS and hasattr(os, "sync"):  # not on Windows
            os.sync()
        else:
            for path in self._pending:
                with suppress(FileNotFoundError):  # rolled back
                    sync_file(path)
                    sync_folder(path.parent)
            sync_folder(self._folder / "c")
        self._pending.clear()

    def close(self) -> None:
        """Write the number of rows as the shape."""
        # On a full disk it stays longer: the journal counts the rows.
        with suppress(OSError):
            if self._shape != self.count:
                self._resize(self.count)

    def array(self) -> Any:
        """Return the array, read-only; ``numpy.asarray`` reads it whole."""
        return zarr_rows(self._folder, self.count)

    def _resize(self, n_rows: int) -> None:
        path = self._folder / "zarr.json"
        record = _metadata(n_rows, self._width, self._dtype)
        if self._compressed is not None:
            record = json.loads(read_bytes(path) or b"{}") | {"shape": record["shape"]}
        replace_file(path, [json.dumps(record, indent=2).encode()])
        if self._compressed is not None:
            self._compressed = _open_array(self._folder, "r+")
        self._shape = n_rows


def zarr_rows(folder: Path, n_rows: int) -> Any:
    """Return the first rows of an array, read-only: the array itself if it has no more."""
    if not (folder / "zarr.json").exists():
        return np.empty((0, 0))
    rows = _open_array(folder)
    return rows if rows.shape[0] == n_rows else rows[:n_rows]


def check_no_links(folder: Path) -> None:
    """Raise a ValueError if anything in a folder is a link."""
    for path in _links(folder):
        raise ValueError(
            f"{path} is a link: it is neither read nor written. Put the file itself there, or use "
            "another folder."
        )


def _links(folder: Path) -> Iterator[Path]:
    if folder.is_symlink():
        yield folder
        return
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            if path.is_symlink():
                yield path


def import_zarr(folder: Path) -> Any:
    """Return zarr, or raise an ImportError that says how to get it."""
    try:
        import zarr
    except ImportError as error:
        raise ImportError(
            f"store={str(folder)!r} ends in .zarr and needs zarr 3. Install skdmap[store], or use "
            "another name to store .npy files."
        ) from error
    return zarr


def _open_array(folder: Path, mode: Any = "r") -> Any:
    zarr = import_zarr(folder.parent)
    try:
        return zarr.open_array(folder, mode=mode, zarr_format=3)
    except Exception as error:
        raise _damaged(folder, error) from error
