"""Which rows of a store are whole: what its journal, its files and its checksums agree on."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skdmap.trajectory._storage.coder import RowCoder
from skdmap.trajectory._storage.journal import JournalContent
from skdmap.trajectory._storage.table import BASE_FIELDS, columns_of


@dataclass(frozen=True)
class GoodRows:
    """The rows from the first on that are whole, and why there are no more."""

    n_rows: int
    counts: dict[str, int]  # rows of each file that belong to them
    bad: list[int]  # rows within the files whose checksum is wrong
    n_checked: int  # rows within the files
    complaint: str  # what is wrong with the next row; empty if nothing

    @property
    def good_rows_follow(self) -> bool:
        """Whether there are good rows after a bad one."""
        return bool(self.bad) and self.bad != list(range(self.bad[0], self.n_checked))


def row_positions(
    coder: RowCoder, columns: Mapping[str, np.ndarray], n_rows: int, n_buffer_entries: int
) -> dict[str, np.ndarray]:
    """Return for each file, buffers among them, the position of row i in it; -1 for no part."""
    buffers = {"buffers": np.arange(n_rows)} if n_buffer_entries else {}
    return coder.positions(columns, n_rows) | buffers


def file_counts(positions: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Return how many rows of each file are in use."""
    return {name: int(position.max(initial=-1)) + 1 for name, position in positions.items()}


def find_good_rows(
    coder: RowCoder,
    content: JournalContent,
    arrays: Mapping[str, Any],
    n_buffer_entries: int,
    *,
    n_recent: int | None = None,
) -> GoodRows:
    """Compare the journal with the rows of each file; ``n_recent``: checksums of the last only."""
    n_lines = len(content.metadata)
    columns = columns_of(content.metadata, BASE_FIELDS + tuple(coder.fields))
    positions = row_positions(coder, columns, n_lines, n_buffer_entries)
    n_rows = n_lines
    for name, position in positions.items():
        missing = np.flatnonzero(position >= arrays[name].shape[0])
        n_rows = min([n_rows, *missing[:1].tolist()])
    first = 0 if n_recent is None else max(0, n_rows - n_recent)
    bad = _bad_rows(arrays, positions, content.checksums[:n_rows], first)
    good = bad[0] if bad else n_rows
    counts = file_counts({name: position[:good] for name, position in positions.items()})
    if bad:
        complaint = f"row {bad[0]} does not match its checksum"
    elif n_rows < n_lines:
        complaint = f"the files are shorter than the {n_lines} rows of the journal"
    else:
        complaint = content.complaint
    return GoodRows(good, counts, bad, n_rows, complaint)


def _bad_rows(
    arrays: Mapping[str, Any],
    positions: Mapping[str, np.ndarray],
    checksums: Sequence[int],
    first: int,
) -> list[int]:
    """Return the rows from ``first`` on whose bytes do not match the checksum of their line."""
    found = []
    for row in range(first, len(checksums)):
        checksum = 0
        for name in arrays:
            if positions[name][row] >= 0:
                part = np.ascontiguousarray(arrays[name][positions[name][row]])
                checksum = zlib.crc32(part.data, checksum)
        if checksum != checksums[row]:
            found.append(row)
    return found
