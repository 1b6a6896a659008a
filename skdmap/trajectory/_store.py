"""A folder that takes rows. Knows no module, and loads no torch to write a row.

A row goes to its file, then the count in the file's header, then a line to the journal: whatever
kills the process, the journal tells which rows are whole, and ``numpy.load`` reads the file.
"""

import os
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np

from skdmap.trajectory._journal import Journal, JournalContent, RowLines, read_journal
from skdmap.trajectory._manifest import write_json
from skdmap.trajectory._state_file import load_file, save_file

__all__ = ["JOURNAL", "RESULTS", "STATE", "Store", "load_endpoints", "load_modules"]

JOURNAL, STATE, RESULTS = "journal.jsonl", "state.pt", "results.json"
_SYNC_EVERY, _STATE_EVERY = 1.0, 10.0  # seconds


class Store:
    """A folder that takes rows; made by :func:`open_store`.

    Parameters
    ----------
    folder : Path
        Of the store.
    journal : Journal
        Open and locked.
    files : mapping of str to NpyRows
        In the order in which the checksum takes them.
    fields : sequence of str
        Of a row's cell.
    """

    def __init__(
        self, folder: Path, journal: Journal, files: dict[str, Any], fields: Sequence[str]
    ) -> None:
        self.folder, self._journal, self._files = folder, journal, files
        self._lines = RowLines(fields)
        self.cells: list[tuple[Any, ...]] = []
        self._n_rows = 0
        self._synced = self._state_saved = time.monotonic()
        self._checked: set[str] = set()
        self._state: Any = None
        self._is_open = True

    @property
    def is_open(self) -> bool:
        """Whether it takes rows."""
        return self._is_open

    @property
    def state_is_due(self) -> bool:
        """Whether the state on disk is ten seconds old."""
        return time.monotonic() - self._state_saved >= _STATE_EVERY

    def append(self, parts: Mapping[str, np.ndarray], cell: tuple[Any, ...]) -> None:
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
            self._journal.append(self._lines.line((self._n_rows, *cell, checksum)))
        except BaseException as error:
            self._roll_back(counts)
            if isinstance(error, OSError):
                raise self._full(error, f"row {self._n_rows}") from error
            raise
        self._n_rows += 1
        if time.monotonic() - self._synced >= _SYNC_EVERY:
            self.sync()

    def amend(self, row: int, loss: float) -> None:
        """Write that a row has another loss."""
        self._check_open()
        try:
            self._journal.amend(row, loss)
        except OSError as error:
            raise self._full(error, f"the loss of row {row}") from error

    def truncate(self, n_rows: int, counts: Mapping[str, int]) -> None:
        """Drop rows from the end: from the journal first, that it tells of no row that is gone."""
        self._check_open()
        self._journal.truncate(n_rows)
        for name, rows in self._files.items():
            rows.truncate(counts[name])
        self._n_rows = n_rows

    def read_cells(self, names: Sequence[str]) -> list[tuple[Any, ...]]:
        """Return the fields of the rows as the journal has them."""
        return read_journal(self.folder / JOURNAL, names).cells

    def sync(self) -> None:
        """Wait until rows, then journal are on the disk."""
        for rows in self._files.values():
            rows.sync()
        self._journal.sync()
        self._synced = time.monotonic()

    def arrays(self) -> dict[str, Any]:
        """Return the rows of each file, read-only."""
        return {name: rows.array() for name, rows in self._files.items()}

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the state; the rows that it stands on are on the disk before."""
        self._check_open()
        self.sync()
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
        """Return the modules that were saved, by run."""
        return load_modules(self.folder)

    def save_results(self, results: Mapping[str, Any]) -> None:
        """Save numbers, strings and arrays."""
        try:
            write_json(self.folder / RESULTS, results)
        except OSError as error:
            raise self._full(error, RESULTS) from error

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
                raise self._full(error, path.name) from error

    def close(self) -> None:
        """Write everything out and give up the lock."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            self.sync()
        finally:
            for rows in self._files.values():
                rows.close()
            self._journal.close()

    def take_up(self, content: JournalContent, n_rows: int, counts: Mapping[str, int]) -> Self:
        """Go on after the first ``n_rows`` of the rows that were read."""
        self.cells = content.cells[:n_rows]
        self._journal.take_up(content, n_rows)
        self.truncate(n_rows, counts)
        return self

    def _save(self, path: Path, record: Mapping[str, Any]) -> None:
        kind = path.name[:5]
        try:
            save_file(path, record, check=kind not in self._checked)
        except OSError as error:
            raise self._full(error, path.name) from error
        self._checked.add(kind)

    def _roll_back(self, counts: Mapping[str, int]) -> None:
        for name, rows in self._files.items():
            if rows.count != counts[name]:
                with suppress(OSError):
                    rows.truncate(counts[name])

    def _full(self, error: OSError, what: str) -> OSError:
        kept = f"rows 0 to {self._n_rows - 1} are" if self._n_rows else "no rows were"
        return OSError(
            error.errno,
            f"{error.strerror or error}: {what} could not be written; {kept} kept. Make room, then "
            "go on with resume=True",
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
