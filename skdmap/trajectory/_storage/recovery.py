"""Which rows of a store are whole: what its journal, its files and its checksums agree on."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from skdmap.trajectory._storage.journal import NO_JOURNAL, JournalContent, read_journal
from skdmap.trajectory._storage.manifest import StoreFormat
from skdmap.trajectory._storage.npy import file_rows, header_count
from skdmap.trajectory._storage.protocols import RowCoder, RowFiles
from skdmap.trajectory._storage.table import BASE_FIELDS, RowMetadata, columns_of, counted


@dataclass(frozen=True)
class StoredRows:
    """The rows from the first on that are whole, and why there are no more."""

    journal: JournalContent
    n_rows: int
    counts: dict[str, int]  # rows of each file that belong to them
    complaint: str  # why there are no more; empty if nothing is missing
    good_rows_follow: bool  # after a bad one
    remarks: list[str]  # damage that loses no row
    later: dict[int, RowMetadata] = field(default_factory=dict)  # good rows after them, to be read

    @property
    def numbers(self) -> list[int]:
        """The numbers of all good rows."""
        return [*range(self.n_rows), *self.later]

    @property
    def lost(self) -> dict[int, RowMetadata | None]:
        """The rows between good ones that are not, and what the journal says of them."""
        known = dict(enumerate(self.journal.metadata))
        known |= {number: row for number, (row, _) in self.journal.later.items()}
        between = range(self.n_rows, max(self.later, default=0))
        return {number: known.get(number) for number in between if number not in self.later}

    @property
    def metadata(self) -> list[RowMetadata]:
        """Those of all good rows."""
        rows = [*self.journal.metadata[: self.n_rows], *self.later.values()]
        losses = self.journal.later_losses
        return [
            row._replace(loss=losses[number]) if number in losses else row
            for number, row in zip(self.numbers, rows, strict=True)
        ]

    @property
    def is_interrupted(self) -> bool:
        """Whether the rows end as those of a crashed process may end."""
        synced = self.journal.n_synced
        if synced is None:
            # A damaged head was being written: two places of damage are one power cut.
            may_end = not (self.journal.continues or self.good_rows_follow)
            return self.journal.damaged_head or may_end
        return self.n_rows >= synced


NO_ROWS = StoredRows(NO_JOURNAL, 0, {}, "", good_rows_follow=False, remarks=[])


def all_files(coder: RowCoder, n_buffer_entries: int) -> RowFiles:
    """Return the files of the coder, and of the buffers, in the order of the checksum."""
    buffers = {"buffers": (n_buffer_entries, np.dtype("float64"))} if n_buffer_entries else {}
    return dict(coder.files) | buffers


def row_positions(
    coder: RowCoder, columns: Mapping[str, np.ndarray], n_rows: int, n_buffer_entries: int
) -> dict[str, np.ndarray]:
    """Return for each file, buffers among them, the position of row i in it; -1 for no part."""
    buffers = {"buffers": np.arange(n_rows)} if n_buffer_entries else {}
    return coder.positions(columns, n_rows) | buffers


def file_counts(positions: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Return how many rows of each file are in use."""
    return {name: int(position.max(initial=-1)) + 1 for name, position in positions.items()}


def read_rows(
    folder: Path,
    names: StoreFormat,
    coder: RowCoder,
    n_buffer_entries: int,
    scalars: tuple[str, ...] = (),
    *,
    n_recent: int | None = None,
) -> StoredRows:
    """Compare the journal with the rows of each file; ``n_recent``: checksums of the last only."""
    files = all_files(coder, n_buffer_entries)
    # Before the journal: another process may be writing.
    headers = _header_counts(folder, names, files)
    fields = BASE_FIELDS + tuple(coder.fields) + scalars
    journal = read_journal(folder / names.journal, fields, has_head=names.has_checksums)
    arrays, unreadable = _open_files(folder, names, files)
    n_lines = len(journal.metadata)
    positions = row_positions(
        coder, columns_of(journal.metadata, fields), n_lines, n_buffer_entries
    )
    n_rows, short = n_lines, ""
    for name, position in positions.items():
        missing = np.flatnonzero(position >= arrays[name].shape[0])
        if missing.size and missing[0] < n_rows:
            n_rows, short = int(missing[0]), name
    first = 0 if n_recent is None else max(0, n_rows - n_recent)
    bad = _bad_rows(arrays, positions, journal.checksums[:n_rows], first)
    good = bad[0] if bad else n_rows
    used = file_counts(positions)
    more = [name for name, count in headers.items() if (count or 0) > used[name] + 1]
    if bad:
        complaint = f"row {bad[0]} does not match its checksum"
    elif n_rows < n_lines:
        complaint = "; ".join(unreadable) or _too_short(folder, names, short, n_lines)
    elif journal.complaint:
        complaint = journal.complaint
    elif n_lines < (journal.n_synced or 0):
        complaint = f"{names.journal} lists {n_lines} of {journal.n_synced} rows"
    elif more:
        listed = counted(n_lines, "row")
        complaint = f"{names.journal} lists {listed}, and {names.rows.format(more[0])} more"
    else:
        complaint = ""
    damaged = [names.rows.format(name) for name, count in headers.items() if count is None]
    remarks = [f"the header of {name} is damaged, numpy.load misreads it" for name in damaged]
    if journal.damaged_head and n_lines:
        remarks.append(f"the first line of {names.journal} is damaged")
    counts = file_counts({name: position[:good] for name, position in positions.items()})
    follow = bool(bad) and bad != list(range(bad[0], n_rows))
    found = StoredRows(journal, good, counts, complaint, follow, [*remarks, *unreadable])
    if coder.is_chained or not (bad or journal.later):
        return found
    n_all = max(journal.later, default=n_rows - 1) + 1
    first = 0 if n_recent is None else n_all - n_recent
    return replace(found, later=_later_rows(arrays, found, bad, n_rows, first))


def _later_rows(
    arrays: Mapping[str, Any], found: StoredRows, bad: list[int], n_rows: int, first: int
) -> dict[int, RowMetadata]:
    """Return the good rows after the first bad one; checksums are compared from ``first`` on."""
    journal = found.journal
    later = {row: journal.metadata[row] for row in range(found.n_rows, n_rows) if row not in bad}
    if n_rows == len(journal.metadata):
        later |= {
            row: metadata
            for row, (metadata, checksum) in journal.later.items()
            if _is_good(arrays, row, checksum if row >= first else None)
        }
    # What is newer than the last sync ends at its first bad row, as after a power cut.
    limit = 0 if journal.damaged_head else journal.n_synced
    return {row: metadata for row, metadata in later.items() if limit is None or row < limit}


def _is_good(arrays: Mapping[str, Any], row: int, checksum: int | None) -> bool:
    """Return whether the files hold a row, and its bytes match its checksum, if that is given."""
    if any(row >= array.shape[0] for array in arrays.values()):
        return False
    positions = {name: {row: row} for name in arrays}
    return checksum is None or _checksum(arrays, positions, row) == checksum


def _too_short(folder: Path, names: StoreFormat, name: str, n_lines: int) -> str:
    file = names.rows.format(name)
    if not (folder / (name if folder.suffix == ".zarr" else file)).exists():
        return f"{file} is missing"
    return f"{file} is shorter than the {counted(n_lines, 'row')} of the journal"


def _header_counts(folder: Path, names: StoreFormat, files: RowFiles) -> dict[str, int | None]:
    if folder.suffix == ".zarr":
        return {}
    return {
        name: header_count(folder / names.rows.format(name), width, dtype)
        for name, (width, dtype) in files.items()
    }


def _open_files(
    folder: Path, names: StoreFormat, files: RowFiles
) -> tuple[dict[str, Any], list[str]]:
    """Return the rows of each file, and what is wrong with the files that are damaged."""
    if folder.suffix != ".zarr":
        return {
            name: file_rows(folder / names.rows.format(name), width, dtype)
            for name, (width, dtype) in files.items()
        }, []
    from skdmap.trajectory._storage.zarr_arrays import ChunkFiles

    arrays: dict[str, Any] = {}
    unreadable = []
    for name, (width, dtype) in files.items():
        try:
            arrays[name] = ChunkFiles(folder / name, width, dtype)
        except ValueError as error:
            arrays[name] = np.empty((0, width), dtype)
            unreadable.append(str(error))
    return arrays, unreadable


def _bad_rows(
    arrays: Mapping[str, Any],
    positions: Mapping[str, Any],
    checksums: Sequence[int],
    first: int,
) -> list[int]:
    """Return the rows from ``first`` on whose bytes do not match the checksum of their line."""
    rows = range(first, len(checksums))
    return [row for row in rows if _checksum(arrays, positions, row) != checksums[row]]


def _checksum(arrays: Mapping[str, Any], positions: Mapping[str, Any], row: int) -> int:
    """Return the checksum of a row's bytes, -1 where they cannot be read."""
    checksum = 0
    try:
        for name in arrays:
            if positions[name][row] >= 0:
                part = np.ascontiguousarray(arrays[name][positions[name][row]])
                checksum = zlib.crc32(part.data, checksum)
    except (ValueError, OSError, RuntimeError):  # a torn chunk
        return -1
    return checksum
