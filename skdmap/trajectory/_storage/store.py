"""A folder that takes rows. Knows no module, and loads no torch to write a row.

A row is written to its file, then the count in the file's header, then a line of the journal:
whatever kills the process, the journal lists the whole rows, and ``numpy.load`` reads the file.
"""

import errno
import os
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from skdmap._warning import warn
from skdmap.exceptions import SkdmapWarning
from skdmap.trajectory._storage.files import checked_line, replace_file, sync_folder
from skdmap.trajectory._storage.journal import (
    JOURNAL_HEAD_BYTES,
    Journal,
    RowLines,
    read_journal,
)
from skdmap.trajectory._storage.manifest import (
    FORMAT_3,
    StoreFormat,
    check_manifest,
    read_manifest,
    store_format,
)
from skdmap.trajectory._storage.npy import NpyRows
from skdmap.trajectory._storage.protocols import RowCoder, RowFile, RowStorage
from skdmap.trajectory._storage.recovery import NO_ROWS, StoredRows, all_files, read_rows
from skdmap.trajectory._storage.side_files import SideFiles, rows_state
from skdmap.trajectory._storage.table import BASE_FIELDS, RowMetadata, counted

_SYNC_EVERY, _STATE_EVERY = 1.0, 10.0  # seconds
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class Store(RowStorage):
    """A folder that takes rows, under the lock of its journal; made by :func:`open_store`."""

    def __init__(
        self,
        folder: Path,
        names: StoreFormat,
        journal: Journal,
        files: dict[str, RowFile],
        fields: tuple[str, ...],
    ) -> None:
        self.folder, self._journal, self._fields = folder, journal, fields
        self._journal_path, self._has_head = folder / names.journal, names.has_checksums
        self.side_files = SideFiles(folder, names)
        self._files = files  # in the order in which the checksum takes them
        self._lines = RowLines(fields)
        self.metadata: list[RowMetadata] = []
        self._n_rows = self._state_rows = 0  # and how many of them the saved state needs
        self._synced = self._state_saved = time.monotonic()
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

    def truncate(
        self,
        metadata: list[RowMetadata],
        counts: Mapping[str, int],
        state: Mapping[str, Any] | None = None,
    ) -> list[RowMetadata]:
        """Drop rows from the end, and the losses that were changed after them; ``state`` is that of
        the rows that are left.
        """
        self._check_open()
        # The state first: a process that is killed here leaves one that fits the rows.
        if state is not None:
            self.save_state(state)
            self._state_rows = len(metadata)
        elif self._state_rows > len(metadata):
            self.side_files.remove_state()  # it needs rows that are dropped
            self._state_rows = 0
        self.side_files.remove_endpoints(after=len(metadata))
        self._drop_rows(len(metadata), counts)
        return read_journal(self._journal_path, self._fields, has_head=self._has_head).metadata

    def arrays(self) -> dict[str, Any]:
        """Return the rows of each file, read-only."""
        return {name: rows.array() for name, rows in self._files.items()}

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the state; its rows are on the disk before."""
        self._check_open()
        self._sync()
        self._save(self.side_files.state_path, self.side_files.save_state, state)
        self._state_rows, self._state_saved = self._n_rows, time.monotonic()

    def load_state(self) -> Any:
        """Return the state saved last, or None."""
        return self.side_files.load_state()

    def save_module(self, run: int, state_dict: Mapping[str, Any]) -> None:
        """Save the last module of a run."""
        self._check_open()
        path = self.side_files.module_path(run)
        self._save(path, self.side_files.save_module, run, state_dict)

    def load_modules(self) -> dict[int, Any]:
        """Return the saved modules by run."""
        return self.side_files.load_modules()

    def save_results(self, results: Mapping[str, Any]) -> None:
        """Save numbers, strings and arrays."""
        self._save(self.side_files.results_path, self.side_files.save_results, results)

    def save_endpoints(self, endpoints: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> None:
        """Save the first and the last row of each run, one file a run."""
        path = self.side_files.endpoints_path(max(endpoints, default=0))
        self._save(path, self.side_files.save_endpoints, endpoints, self._n_rows)

    def load_endpoints(self) -> dict[int, np.ndarray]:
        """Return what :meth:`save_endpoints` saved, by run, and warn of what is damaged."""
        return self.side_files.load_endpoints(lambda why: warn(why, SkdmapWarning))

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

    def resume(self, stored: StoredRows, n_needed: int) -> None:
        """Continue after the good rows; the saved state needs ``n_needed`` of them."""
        self._state_rows = n_needed
        self.metadata = stored.journal.metadata[: stored.n_rows]
        self._journal.resume(stored.journal, stored.n_rows)
        self._drop_rows(stored.n_rows, stored.counts)

    def _drop_rows(self, n_rows: int, counts: Mapping[str, int]) -> None:
        # From the journal first, so that it never lists a row that is gone.
        self._journal.truncate(n_rows)
        for name, rows in self._files.items():
            rows.truncate(counts.get(name, 0))
        self._n_rows = n_rows

    def _sync(self) -> None:
        for rows in self._files.values():
            rows.sync()
        self._journal.sync()
        self._synced = time.monotonic()

    def _save(self, path: Path, save: Callable[..., None], *args: Any) -> None:
        try:
            save(*args)
        except OSError as error:
            raise self._write_error(error, path.name) from error

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


def open_store(
    store: Any, coder: RowCoder, record: dict[str, Any], *, resume: bool, to_continue: str
) -> Store:
    """Make a folder a store with the manifest ``record``, or resume the store in it.
    ``to_continue`` tells the caller's user how, where the folder holds a store already.
    """
    folder = Path(os.path.abspath(os.fspath(store)))
    journal, names = _locked_journal(folder, resume=resume, to_continue=to_continue)
    scalars, n_buffers = tuple(record["scalars"]), record["n_buffer_entries"]
    opened: dict[str, RowFile] = {}
    try:
        found = read_manifest(folder)
        rows, n_needed = NO_ROWS, 0
        if found is not None:
            if resume:
                check_manifest(folder, found, record)
            rows = read_rows(folder, names, coder, n_buffers, scalars)
        if found is not None and resume:
            n_needed = _check_resumable(folder, names, rows)
        else:
            if rows.journal.metadata or rows.complaint:
                raise _occupied(folder, counted(len(rows.journal.metadata), "row"), to_continue)
            rows = NO_ROWS
            journal.truncate(0)
            SideFiles(folder, names).remove_all()
            sync_folder(folder)  # the name of the journal: no store is without one
            # From here on the folder is a store.
            replace_file(folder / names.manifest, [checked_line(record)])
        for name, (width, dtype) in all_files(coder, n_buffers).items():
            opened[name] = _open_rows(folder, names, name, width, dtype)
        sync_folder(folder)
        opened_store = Store(folder, names, journal, opened, BASE_FIELDS + coder.fields + scalars)
        opened_store.resume(rows, n_needed)
    except BaseException as error:
        journal.close()
        for file in opened.values():
            file.close()
        if type(error) is OSError and error.errno in _NO_ROOM:
            raise OSError(
                error.errno, f"store={str(folder)!r}: {error.strerror}. Make room there"
            ) from error
        raise
    return opened_store


def _locked_journal(folder: Path, *, resume: bool, to_continue: str) -> tuple[Journal, StoreFormat]:
    """Return the journal of a store, or of a folder that may become one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = store_format(folder)
        path = folder / names.journal
        if read_manifest(folder) is None:
            # Before its manifest, a new store has an empty journal, or a part of the manifest.
            others = set(os.listdir(folder)) - {names.journal, f"{names.manifest}.tmp"}
            if others or (path.exists() and path.lstat().st_size > JOURNAL_HEAD_BYTES):
                raise _foreign(folder, sorted(others) or [names.journal])
            sync_folder(folder.parent)
        elif not path.exists():
            raise ValueError(
                f"store={str(folder)!r} is damaged: {path.name} is missing, so that it cannot be "
                "resumed. Nothing was changed. Restore the file from a copy, or train again in "
                "another folder."
            )
        elif names is not FORMAT_3 and not resume:
            raise _occupied(folder, "a trajectory", to_continue)
        return Journal(path, has_head=names.has_checksums), names
    except (BlockingIOError, FileExistsError):
        if folder.is_dir():
            raise
        raise OSError(
            errno.ENOTDIR,
            f"store={str(folder)!r} cannot be written: it is a file. Use another folder",
        ) from None
    except OSError as error:
        raise OSError(
            error.errno,
            f"store={str(folder)!r} cannot be written: {error.strerror}. Use another folder",
        ) from error


def _occupied(folder: Path, what: str, to_continue: str) -> FileExistsError:
    return FileExistsError(
        errno.EEXIST,
        f"the store already holds {what}. To continue, {to_continue}. To start anew, use another "
        "folder",
        str(folder),
    )


def _foreign(folder: Path, names: list[str]) -> FileExistsError:
    listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return FileExistsError(
        errno.EEXIST,
        f"the folder holds files that skdmap did not write ({listed}); only an empty folder or a "
        "store is written to. Use another folder",
        str(folder),
    )


def _open_rows(folder: Path, names: StoreFormat, name: str, width: int, dtype: np.dtype) -> RowFile:
    if folder.suffix == ".zarr":
        from skdmap.trajectory._storage.zarr_arrays import ZarrRows

        return ZarrRows(folder / name, width, dtype)
    return NpyRows(folder / names.rows.format(name), width, dtype)


def _check_resumable(folder: Path, names: StoreFormat, rows: StoredRows) -> int:
    """Raise if rows are damaged, warn if the last ones are; return how many the state needs."""
    saved = SideFiles(folder, names).load_state()
    n_lines = len(rows.journal.metadata)
    if saved is not None:
        # Later rows are computed again.
        n_needed = rows_state(saved)["n_rows"]
        if rows.n_rows < n_needed:
            raise _damaged(folder, names, rows, f"the saved state needs {counted(n_needed, 'row')}")
        return int(n_needed)
    if not rows.is_interrupted:
        n_synced = rows.journal.n_synced
        are = "1 row was" if n_synced == 1 else f"{n_synced} rows were"
        why = f"{are} on the disk" if n_synced else "good rows follow it"
        raise _damaged(folder, names, rows, why)
    if rows.n_rows < n_lines:
        warn(
            f"store={str(folder)!r}: rows {rows.n_rows} to {n_lines - 1} are incomplete, as "
            "after a power cut, and are dropped. The rows before them are good.",
            SkdmapWarning,
        )
    elif rows.journal.continues:
        warn(
            f"store={str(folder)!r}: {rows.complaint}, as after a power cut. The rows that follow "
            "are dropped; the rows before are good.",
            SkdmapWarning,
        )
    return 0


def _damaged(folder: Path, names: StoreFormat, rows: StoredRows, why: str) -> ValueError:
    what = rows.complaint or f"{names.journal} ends after row {rows.n_rows - 1}"
    return ValueError(
        f"store={str(folder)!r} is damaged: {what}, but {why}, so that it cannot be resumed. "
        f"Nothing was changed: open_trajectory reads the first {counted(rows.n_rows, 'row')}. "
        "Restore the files from a copy, or train again in another folder."
    )
