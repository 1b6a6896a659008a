"""A folder that takes rows. Knows no module, and loads no torch to write a row.

A row is written to its file, then the count in the file's header, then a line of the journal:
whatever kills the process, the journal lists the whole rows, and ``numpy.load`` reads the file.
"""

import errno
import os
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from skdmap._warning import warn
from skdmap.exceptions import SkdmapWarning
from skdmap.trajectory._storage.coder import RowCoder, RowFiles
from skdmap.trajectory._storage.journal import (
    NO_JOURNAL,
    Journal,
    JournalContent,
    RowLines,
    read_journal,
)
from skdmap.trajectory._storage.manifest import MANIFEST, check_manifest, read_manifest, write_json
from skdmap.trajectory._storage.npy import NpyRows
from skdmap.trajectory._storage.recovery import GoodRows, find_good_rows
from skdmap.trajectory._storage.row_storage import RowFile, RowStorage
from skdmap.trajectory._storage.state_file import load_file, rows_state, save_file
from skdmap.trajectory._storage.table import BASE_FIELDS, RowMetadata

JOURNAL, STATE, RESULTS = "journal.jsonl", "state.pt", "results.json"
_SYNC_EVERY, _STATE_EVERY = 1.0, 10.0  # seconds
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class Store(RowStorage):
    """A folder that takes rows, under the lock of its journal; made by :func:`open_store`."""

    def __init__(
        self, folder: Path, journal: Journal, files: dict[str, RowFile], fields: tuple[str, ...]
    ) -> None:
        self.folder, self._journal, self._fields = folder, journal, fields
        self._files = files  # in the order in which the checksum takes them
        self._lines = RowLines(fields)
        self.metadata: list[RowMetadata] = []
        self._n_rows = 0
        self._synced = self._state_saved = time.monotonic()
        self._checked: set[str] = set()
        self._is_open = True

    @property
    def is_open(self) -> bool:
        """Whether it takes rows."""
        return self._is_open

    @property
    def state_is_due(self) -> bool:
        """Whether the state on disk is ten seconds old."""
        return time.monotonic() - self._state_saved >= _STATE_EVERY

    def append(self, parts: Mapping[str, np.ndarray], metadata: RowMetadata) -> None:
        """Write a row: whole, or not at all."""
        self._check_open()
        counts = {name: rows.count for name, rows in self._files.items()}
        try:
            checksum = 0
            for name, rows in self._files.items():
                if name in parts:
                    part = np.ascontiguousarray(parts[name])
                    rows.append(part)
                    checksum = zlib.crc32(part.data, checksum)
            for name in parts:
                self._files[name].commit()
            self._journal.append(self._lines.line((self._n_rows, *metadata.values, checksum)))
        except BaseException as error:
            self._roll_back(counts)
            if isinstance(error, OSError):
                raise self._write_error(error, f"row {self._n_rows}") from error
            raise
        self._n_rows += 1
        if time.monotonic() - self._synced >= _SYNC_EVERY:
            self._sync()

    def set_loss(self, row: int, loss: float) -> None:
        """Write another loss for a row."""
        self._check_open()
        try:
            self._journal.set_loss(row, loss)
        except OSError as error:
            raise self._write_error(error, f"the loss of row {row}") from error

    def truncate(self, metadata: list[RowMetadata], counts: Mapping[str, int]) -> list[RowMetadata]:
        """Drop rows from the end, and the losses that were changed after them."""
        self._check_open()
        self._drop_rows(len(metadata), counts)
        return read_journal(self.folder / JOURNAL, self._fields).metadata

    def arrays(self) -> dict[str, Any]:
        """Return the rows of each file, read-only."""
        return {name: rows.array() for name, rows in self._files.items()}

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the state; its rows are on the disk before."""
        self._check_open()
        self._sync()
        self._save(self.folder / STATE, state)
        self._state_saved = time.monotonic()

    def load_state(self) -> Any:
        """Return the state saved last, or None."""
        return load_file(self.folder / STATE)

    def save_module(self, run: int, state_dict: Mapping[str, Any]) -> None:
        """Save the last module of a run."""
        self._check_open()
        self._save(self.folder / f"module_{run:05d}.pt", state_dict)

    def load_modules(self) -> dict[int, Any]:
        """Return the saved modules by run."""
        return load_modules(self.folder)

    def save_results(self, results: Mapping[str, Any]) -> None:
        """Save numbers, strings and arrays."""
        try:
            write_json(self.folder / RESULTS, results)
        except OSError as error:
            raise self._write_error(error, RESULTS) from error

    def save_endpoints(self, endpoints: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> None:
        """Save the first and the last row of each run, one file a run."""
        for run, pair in endpoints.items():
            path = self.folder / f"endpoints_{run:05d}.npy"
            temporary = path.with_name(path.name + ".tmp")
            try:
                with temporary.open("wb") as file:
                    np.save(file, np.stack(pair), allow_pickle=False)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            except OSError as error:
                temporary.unlink(missing_ok=True)
                raise self._write_error(error, path.name) from error

    def close(self) -> None:
        """Write everything to disk and release the lock."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            self._sync()
        finally:
            for rows in self._files.values():
                rows.close()
            self._journal.close()

    def resume(self, content: JournalContent, good: GoodRows) -> None:
        """Continue after the good rows."""
        self.metadata = content.metadata[: good.n_rows]
        self._journal.resume(content, good.n_rows)
        self._drop_rows(good.n_rows, good.counts)

    def _drop_rows(self, n_rows: int, counts: Mapping[str, int]) -> None:
        # From the journal first, so that it never lists a row that is gone.
        self._journal.truncate(n_rows)
        for name, rows in self._files.items():
            rows.truncate(counts[name])
        self._n_rows = n_rows

    def _sync(self) -> None:
        for rows in self._files.values():
            rows.sync()
        self._journal.sync()
        self._synced = time.monotonic()

    def _save(self, path: Path, record: Mapping[str, Any]) -> None:
        kind = path.name[:5]
        try:
            save_file(path, record, check=kind not in self._checked)
        except OSError as error:
            raise self._write_error(error, path.name) from error
        self._checked.add(kind)

    def _roll_back(self, counts: Mapping[str, int]) -> None:
        for name, rows in self._files.items():
            if rows.count != counts[name]:
                with suppress(OSError):
                    rows.truncate(counts[name])

    def _write_error(self, error: OSError, what: str) -> OSError:
        kept = f"rows 0 to {self._n_rows - 1} are" if self._n_rows else "no rows were"
        return OSError(
            error.errno,
            f"{error.strerror or error}: {what} could not be written; {kept} kept. Make room, then "
            "continue with resume=True",
            str(self.folder),
        )

    def _check_open(self) -> None:
        if not self._is_open:
            raise ValueError(f"store={str(self.folder)!r} is closed. Open it with resume=True.")


def load_modules(folder: Path) -> dict[int, Any]:
    """Return the parameters and buffers of the modules in a folder, by run."""
    paths = sorted(folder.glob("module_*.pt"))
    return {int(path.stem.removeprefix("module_")): load_file(path) for path in paths}


def load_endpoints(folder: Path) -> dict[int, np.ndarray]:
    """Return the first and the last row of each run, of shape (2, n_parameters), by run."""
    paths = sorted(folder.glob("endpoints_*.npy"))
    return {
        int(path.stem.removeprefix("endpoints_")): np.load(path, allow_pickle=False)
        for path in paths
    }


def open_store(
    store: Any, files: RowFiles, coder: RowCoder, record: dict[str, Any], *, resume: bool
) -> Store:
    """Make a folder a store with the manifest ``record``, or resume the store in it."""
    folder = Path(os.path.abspath(os.fspath(store)))
    journal = _locked_journal(folder)
    fields = BASE_FIELDS + tuple(coder.fields)
    opened: dict[str, RowFile] = {}
    try:
        content = _prepared(folder, record, fields, resume=resume)
        make_rows = rows_class(folder)
        for name, (width, dtype) in files.items():
            opened[name] = make_rows(folder / f"{name}.npy", width, dtype)
        opened_store = Store(folder, journal, opened, fields)
        # All rows that fit, because the header may count fewer than there are.
        arrays = {name: rows.whole() for name, rows in opened.items()}
        good = find_good_rows(coder, content, arrays, record["n_buffer_entries"])
        _check_resumable(opened_store, content, good)
        opened_store.resume(content, good)
    except BaseException as error:
        journal.close()
        for rows in opened.values():
            rows.close()
        if type(error) is OSError and error.errno in _NO_ROOM:
            raise OSError(
                error.errno, f"store={str(folder)!r}: {error.strerror}. Make room there"
            ) from error
        raise
    return opened_store


def _locked_journal(folder: Path) -> Journal:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Journal(folder / JOURNAL)
    except BlockingIOError:
        raise
    except OSError as error:
        raise OSError(
            error.errno,
            f"store={str(folder)!r} cannot be written: {error.strerror}. Use another folder",
        ) from error


def _prepared(
    folder: Path, record: dict[str, Any], fields: tuple[str, ...], *, resume: bool
) -> JournalContent:
    """Return the rows to continue from, in a folder that holds the manifest."""
    stored = read_manifest(folder)
    content = read_journal(folder / JOURNAL, fields)
    if resume and stored is not None:
        check_manifest(folder, stored, record)
        return content
    has_rows_only = stored is None and (folder / "snapshots.npy").exists()
    if content.metadata or content.complaint or has_rows_only:
        n_rows = f"{len(content.metadata)} rows" if content.metadata else "files"
        raise FileExistsError(
            errno.EEXIST,
            f"the store already holds {n_rows}. Pass resume=True to continue it, or use another "
            "folder",
            str(folder),
        )
    for name in (STATE, "endpoints_*.npy", "module_*.pt"):
        for path in folder.glob(name):
            path.unlink()
    write_json(folder / MANIFEST, record)
    return NO_JOURNAL


def rows_class(folder: Path) -> Any:
    """Return the class of a folder's row files: zarr by the folder's suffix, else .npy."""
    if folder.suffix == ".zarr":
        from skdmap.trajectory._storage.zarr_arrays import ZarrRows

        return ZarrRows
    return NpyRows


def _check_resumable(store: Store, content: JournalContent, good: GoodRows) -> None:
    """Raise if rows are damaged, and warn if the last ones are dropped as after a power cut."""
    # Bad rows before good ones, or among those that a saved state needs, are damage.
    saved = store.load_state()
    if saved is not None:
        n_needed = int(rows_state(saved)["n_rows"])
        if good.n_rows < n_needed:
            what = good.complaint or f"{JOURNAL} ends after row {good.n_rows - 1}"
            raise _damaged(store, good, what, f"the saved state needs {n_needed} rows")
        return
    if content.continues:
        raise _damaged(store, good, content.complaint, "good lines follow it")
    if good.good_rows_follow:
        why = f"good rows follow it, up to {good.n_checked - 1}"
        raise _damaged(store, good, good.complaint, why)
    n_lines = len(content.metadata)
    if good.n_rows < n_lines:
        warn(
            f"store={str(store.folder)!r}: rows {good.n_rows} to {n_lines - 1} are incomplete, as "
            "after a power cut, and are dropped. The rows before them are good.",
            SkdmapWarning,
        )


def _damaged(store: Store, good: GoodRows, what: str, why: str) -> ValueError:
    return ValueError(
        f"store={str(store.folder)!r} is damaged: {what}, but {why}, so that it cannot be resumed. "
        f"Nothing was changed: open_trajectory reads the first {good.n_rows} rows. Restore the "
        "files from a copy, or train again in another folder."
    )
