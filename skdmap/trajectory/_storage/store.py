"""A folder that takes rows. Knows no module, and loads no torch to write a row.

A row goes to its file, then the count in the file's header, then a line to the journal: whatever
kills the process, the journal tells which rows are whole, and ``numpy.load`` reads the file.
"""

import errno
import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np

from skdmap._warning import warn
from skdmap.exceptions import SkdmapWarning
from skdmap.trajectory._storage.journal import Journal, JournalContent, RowLines, read_journal
from skdmap.trajectory._storage.manifest import MANIFEST, check_manifest, read_manifest, write_json
from skdmap.trajectory._storage.npy import NpyRows
from skdmap.trajectory._storage.state_file import load_file, save_file
from skdmap.trajectory._storage.table import columns_of

JOURNAL, STATE, RESULTS = "journal.jsonl", "state.pt", "results.json"
_SYNC_EVERY, _STATE_EVERY = 1.0, 10.0  # seconds
Places = Callable[[Mapping[str, np.ndarray], int], dict[str, np.ndarray]]


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


def open_store(
    store: Any,
    files: Mapping[str, tuple[int, np.dtype]],
    record: dict[str, Any],
    *,
    places: Places,
    fields: Sequence[str],
    resume: bool,
) -> Store:
    """Make a folder a store, or take up the one that it is.

    Parameters
    ----------
    store : path-like
        The folder.
    files : mapping of str to (int, dtype)
        Width and type of the rows of each file.
    record : dict
        The manifest.
    places : callable
        Columns and number of rows -> where the part of each row stands in each file.
    fields : sequence of str
        Of a journal line.
    resume : bool
        Whether the folder may hold rows.

    Returns
    -------
    Store
        Open, with the good rows in ``cells``.

    Raises
    ------
    FileExistsError, ValueError, OSError
        As in ``open_writer``.
    """
    folder = Path(os.path.abspath(os.fspath(store)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        journal = Journal(folder / JOURNAL)
    except BlockingIOError:
        raise
    except OSError as error:
        raise OSError(
            error.errno,
            f"store={str(folder)!r} cannot be written: {error.strerror}. Pass a folder that can",
        ) from error
    opened: dict[str, Any] = {}
    try:
        stored = read_manifest(folder)
        content = read_journal(folder / JOURNAL, fields)
        if not resume or stored is None:
            _refuse_rows(folder, stored, content)
            for name in (STATE, "endpoints_*.npy", "module_*.pt"):
                for path in folder.glob(name):
                    path.unlink()
        if stored is None or not resume:
            write_json(folder / MANIFEST, record)
            content = JournalContent([], [], [], 0, "")
        else:
            check_manifest(folder, stored, record)
        make_rows = rows_class(folder)
        for name, (width, dtype) in files.items():
            opened[name] = make_rows(folder / f"{name}.npy", width, dtype)
        opened_store = Store(folder, journal, opened, fields)
        counts = _recovered(opened_store, content, files, places, fields)
        return opened_store.take_up(content, *counts)
    except BaseException as error:
        journal.close()
        for rows in opened.values():
            rows.close()
        if type(error) is OSError and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise OSError(
                error.errno, f"store={str(folder)!r}: {error.strerror}. Make room there"
            ) from error
        raise


def rows_class(folder: Path) -> Any:
    """Return what keeps the rows of a file: by the name of the folder, .npy or zarr."""
    if folder.suffix == ".zarr":
        from skdmap.trajectory._storage.zarr_arrays import ZarrRows

        return ZarrRows
    return NpyRows


def _refuse_rows(folder: Path, stored: Any, content: JournalContent) -> None:
    strangers = stored is None and (folder / "snapshots.npy").exists()
    if content.cells or content.complaint or strangers:
        n_rows = f"{len(content.cells)} rows" if content.cells else "files"
        raise FileExistsError(
            errno.EEXIST,
            f"the store holds {n_rows} already. Pass resume=True to go on with them, or another "
            "folder",
            str(folder),
        )


def _recovered(
    store: Store,
    content: JournalContent,
    files: Mapping[str, Any],
    places: Places,
    fields: Sequence[str],
) -> tuple[int, dict[str, int]]:
    """Return how many rows are good, and how many rows of each file that makes.

    Bad rows at the end, as a power cut leaves them, are dropped. Bad rows before good ones, or
    among those that a saved state stands on, are damage, and nothing is changed.
    """

    def places_of(n_rows: int) -> dict[str, np.ndarray]:
        columns = columns_of(content.cells[:n_rows], tuple(fields))
        return places(columns, n_rows) | (
            {"buffers": np.arange(n_rows)} if "buffers" in files else {}
        )

    n_lines = len(content.cells)
    sizes = {name: rows.n_whole for name, rows in store._files.items()}
    n_rows = whole_rows(sizes, places_of(n_lines), n_lines)
    place = places_of(n_rows)
    # The header may count fewer rows than there are.
    arrays = {name: rows.whole() for name, rows in store._files.items()}
    bad = bad_rows(arrays, place, content.checksums[:n_rows])
    saved = store.load_state()
    needed = None if saved is None else int(saved["keeper"]["n_rows"])
    good = bad[0] if bad else n_rows
    if needed is not None and good < needed:
        what = (
            f"row {bad[0]} has not the checksum that was written with it"
            if bad
            else (
                content.complaint or f"the files are shorter than the {n_lines} rows of the journal"
            )
        )
        raise _damaged(store.folder, what, good, f"the saved state stands on {needed} rows")
    if needed is None and content.goes_on:
        raise _damaged(store.folder, content.complaint, good, "good lines follow it")
    if needed is None and bad and bad != list(range(bad[0], n_rows)):
        what = f"row {bad[0]} has not the checksum that was written with it"
        raise _damaged(store.folder, what, good, f"good rows follow it, up to {n_rows - 1}")
    if needed is None and good < n_lines:
        warn(
            f"store={str(store.folder)!r}: rows {good} to {n_lines - 1} are not whole and are "
            "dropped, as after a power cut. Rows before them are good.",
            SkdmapWarning,
        )
    ends = {name: int(p[:good].max(initial=-1)) + 1 for name, p in place.items()}
    return good, ends


def _damaged(folder: Path, what: str, good: int, why: str) -> ValueError:
    return ValueError(
        f"store={str(folder)!r} is damaged: {what}, but {why}, so that it cannot be resumed. "
        f"Nothing was changed: open_trajectory reads the first {good} rows. Bring the files back "
        "from a copy, or train again in another folder."
    )


def whole_rows(arrays: Mapping[str, int], places: Mapping[str, np.ndarray], n_rows: int) -> int:
    """Return how many rows from the first on have all their parts within the files.

    Parameters
    ----------
    arrays : mapping of str to int
        Rows in each file.
    places : mapping of str to ndarray
        Where the part of each row stands.
    n_rows : int
        Rows in the journal.

    Returns
    -------
    int
        At most ``n_rows``.
    """
    for name, place in places.items():
        missing = np.flatnonzero(place >= arrays[name])
        n_rows = min([n_rows, *missing[:1].tolist()])
    return n_rows


def bad_rows(
    arrays: Mapping[str, Any],
    places: Mapping[str, np.ndarray],
    checksums: Sequence[int],
    *,
    first: int = 0,
) -> list[int]:
    """Return the rows from ``first`` on whose bytes do not have the checksum of their line."""
    found = []
    for row in range(first, len(checksums)):
        checksum = 0
        for name in arrays:
            if places[name][row] >= 0:
                part = np.ascontiguousarray(arrays[name][places[name][row]])
                checksum = zlib.crc32(part.data, checksum)
        if checksum != checksums[row]:
            found.append(row)
    return found
