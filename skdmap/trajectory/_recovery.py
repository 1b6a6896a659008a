"""Opening a store: what is there is read, checked, and cut where a crash left half a row."""

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skdmap._warning import warn
from skdmap.exceptions import SkdmapWarning
from skdmap.trajectory._journal import Journal, JournalContent, read_journal
from skdmap.trajectory._kept_table import columns_of
from skdmap.trajectory._manifest import MANIFEST, check_manifest, read_manifest, write_json
from skdmap.trajectory._npy_rows import NpyRows
from skdmap.trajectory._store import JOURNAL, STATE, Store
from skdmap.trajectory._verification import bad_rows, whole_rows

__all__ = ["open_store", "rows_class"]

Places = Callable[[Mapping[str, np.ndarray], int], dict[str, np.ndarray]]


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
        As in ``open_keeper``.
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
        from skdmap.trajectory._zarr_store import ZarrRows

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
