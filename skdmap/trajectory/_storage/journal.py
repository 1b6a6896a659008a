"""The journal of a store: one line of JSON per row, written after the row, with checksums."""

import errno
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from skdmap.trajectory._storage.files import (
    checked_line,
    lock,
    open_regular,
    parse_line,
    sync,
    with_checksum,
    write_all,
)
from skdmap.trajectory._storage.table import RowMetadata

# Format 3: the first line has a fixed length, and is rewritten in place.
JOURNAL_HEAD_BYTES = 64
_HEAD_BODY = JOURNAL_HEAD_BYTES - len(', "line": ' + "4294967295" + "}\n")


@dataclass(frozen=True)
class JournalContent:
    """The rows of a journal up to its first bad line, and those after it."""

    metadata: list[RowMetadata]
    checksums: list[int]  # crc32 of the bytes of each row
    offsets: list[int]  # where the line of each row begins
    n_bytes: int  # length of the good lines
    complaint: str  # what is wrong with the line after them; empty if nothing
    continues: bool = False  # good lines follow the bad one: not the end of a crashed run
    later: dict[int, tuple[RowMetadata, int]] = field(default_factory=dict)  # with checksum, by row
    later_losses: dict[int, float] = field(default_factory=dict)  # by row, in good lines after it
    n_synced: int | None = None  # rows that were on the disk; None if unknown
    damaged_head: bool = False
    line_checksums: list[int] = field(
        default_factory=list
    )  # crc32 from each row's line to the next


NO_JOURNAL = JournalContent([], [], [], 0, "")


def journal_head(n_synced: int) -> bytes:
    """Return the first line, with the number of rows that are known to be on the disk."""
    line = with_checksum(f'{{"skdmap": "journal", "synced": {n_synced}'.ljust(_HEAD_BODY))
    return line[:-2].ljust(JOURNAL_HEAD_BYTES - 2) + b"}\n"


class RowLines:
    """Formats the lines of rows: as :func:`checked_line` does, in half the time."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = ("row", *names, "crc")
        self._form = "{" + ", ".join(f'"{name}": %r' for name in self._names)

    def line(self, values: tuple[Any, ...]) -> bytes:
        """Return the line of a row of plain numbers."""
        body = self._form % values
        # JSON spells these two in another way.
        if "nan" in body or "inf" in body:
            return checked_line(dict(zip(self._names, values, strict=True)))
        return with_checksum(body)


def read_journal(path: Path, names: Sequence[str], *, has_head: bool) -> JournalContent:
    """Read the lines that parse, count up and match their checksum; ``names`` are the fields."""
    try:
        fd = open_regular(path)
    except FileNotFoundError:
        return replace(NO_JOURNAL, complaint=f"{path.name} is missing", continues=True)
    with os.fdopen(fd, "rb") as file:
        if not has_head:
            return _read_lines(file, path.name, names, 0)
        line = file.read(JOURNAL_HEAD_BYTES)
        if len(line) < JOURNAL_HEAD_BYTES:  # it was on the disk before the store was one
            return replace(NO_JOURNAL, complaint=f"{path.name} is empty", continues=True)
        head = parse_line(line)
        content = _read_lines(file, path.name, names, JOURNAL_HEAD_BYTES)
    n_synced = None if head is None else head.get("synced")
    if not isinstance(n_synced, int):
        return replace(content, damaged_head=True)
    return replace(content, n_synced=n_synced)


def _read_lines(
    file: Iterable[bytes], name: str, names: Sequence[str], start: int
) -> JournalContent:
    metadata: list[RowMetadata] = []
    checksums: list[int] = []
    offsets: list[int] = []
    line_checksums: list[int] = []

    def content(complaint: str, **more: Any) -> JournalContent:
        found = metadata, checksums, offsets, start, complaint
        return JournalContent(*found, line_checksums=line_checksums, **more)

    lines = enumerate(file, 1 + (start > 0))
    for number, line in lines:
        fields = parse_line(line)
        if fields is None:
            complaint = f"line {number} of {name} is damaged or incomplete"
            later, losses, continues = _read_later((line for _, line in lines), names, metadata)
            return content(complaint, continues=continues, later=later, later_losses=losses)
        row, loss = _amended(fields)
        values = [fields.get(name) for name in names]
        if 0 <= row < len(metadata):
            metadata[row] = metadata[row]._replace(loss=loss)
            line_checksums[-1] = zlib.crc32(line, line_checksums[-1])
        elif fields.get("row") == len(metadata) and all(map(_is_number, values)):
            metadata.append(RowMetadata.from_values(values))
            checksums.append(fields.get("crc", -1))
            offsets.append(start)
            line_checksums.append(zlib.crc32(line))
        else:
            complaint = f"line {number} of {name} is not the line of row {len(metadata)}"
            return content(complaint, continues=True)
        start += len(line)
    return content("")


def _read_later(
    lines: Iterable[bytes], names: Sequence[str], metadata: Sequence[RowMetadata]
) -> tuple[dict[int, tuple[RowMetadata, int]], dict[int, float], bool]:
    """Return rows and losses in the good lines after a bad one, and whether there are any lines."""
    later: dict[int, tuple[RowMetadata, int]] = {}
    losses: dict[int, float] = {}
    continues = False
    for fields in filter(None, map(parse_line, lines)):
        continues = True
        row, loss = _amended(fields)
        number, values = fields.get("row"), [fields.get(name) for name in names]
        if row in later:
            later[row] = later[row][0]._replace(loss=loss), later[row][1]
        elif 0 <= row < len(metadata):
            losses[row] = loss
        elif not isinstance(number, int) or not all(map(_is_number, values)):
            continue
        elif number > max(later, default=len(metadata) - 1):
            later[number] = RowMetadata.from_values(values), fields.get("crc", -1)
    return later, losses, continues


def _amended(fields: Mapping[str, Any]) -> tuple[int, float]:
    """Return row and loss of a line that amends a loss; row -1 for another line."""
    row, loss = fields.get("amend", -1), fields.get("loss")
    is_amended = isinstance(row, int) and loss is not None and _is_number(loss)
    return (row, loss) if is_amended else (-1, 0.0)  # type: ignore[return-value]


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and -(2**63) <= value < 2**63)


class ListedRows:
    """The lines of rows when a reader opened a store, to tell whether these rows were dropped."""

    # A resume cuts the journal before it writes over rows.

    def __init__(self, path: Path, content: JournalContent) -> None:
        self._path, self._checksums = path, content.line_checksums
        self._ends = [*content.offsets, content.n_bytes]

    def check(self, first: int, last: int) -> None:
        """Raise a ValueError unless the journal still lists rows ``first`` to ``last``."""
        start = self._ends[first]
        try:
            with os.fdopen(open_regular(self._path), "rb") as file:
                file.seek(start)
                lines = file.read(self._ends[last + 1] - start)
        except OSError:
            lines = b""
        for row in range(first, last + 1):
            line = lines[self._ends[row] - start : self._ends[row + 1] - start]
            if zlib.crc32(line) != self._checksums[row]:
                raise ValueError(
                    f"{str(self._path.parent)!r}: recording was resumed since this store was "
                    f"opened, and row {row} was dropped. Open it again."
                )


class Journal:
    """Writes lines, unbuffered, under a lock that ends with the process."""

    def __init__(self, path: Path, *, has_head: bool) -> None:
        self._fd = open_regular(path, os.O_RDWR | os.O_CREAT)
        self._first = JOURNAL_HEAD_BYTES if has_head else 0
        try:
            lock(self._fd)
        except OSError as error:
            os.close(self._fd)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise BlockingIOError(
                    errno.EAGAIN,
                    "another process, or another sampler or recorder in this process, writes to "
                    "this store. Wait until it ends, or pass another folder",
                    str(path.parent),
                ) from error
            raise
        self.offsets: list[int] = []
        self._size = self._first

    def resume(self, content: JournalContent, n_rows: int) -> None:
        """Continue after the first ``n_rows`` of the rows that were read."""
        self.offsets = list(content.offsets)
        self._size = max(self._first, content.n_bytes)
        self.truncate(n_rows)

    def append(self, line: bytes) -> None:
        """Write the line of the next row, or nothing."""
        start = self._size
        self._write(line)
        self.offsets.append(start)

    def set_loss(self, row: int, loss: float) -> None:
        """Write a loss that replaces the one in the line of a row."""
        self._write(checked_line({"amend": row, "loss": loss}))

    def truncate(self, n_rows: int) -> None:
        """Keep the lines of the first rows, and make sure that no other comes back."""
        if n_rows < len(self.offsets):
            self._size = self.offsets[n_rows]
            del self.offsets[n_rows:]
        # The head first: it must not promise rows that are gone.
        self._mark()
        os.ftruncate(self._fd, self._size)
        sync(self._fd)

    def sync(self) -> None:
        """Wait until the lines are on the disk, and note in the head how many there are."""
        sync(self._fd)
        self._mark()

    def close(self) -> None:
        """Write the head to the disk too, and release the lock."""
        try:
            sync(self._fd)
        finally:
            os.close(self._fd)

    def _mark(self) -> None:
        if self._first:
            write_all(self._fd, journal_head(len(self.offsets)), 0)

    def _write(self, line: bytes) -> None:
        try:
            write_all(self._fd, line, self._size)
        except BaseException:
            with suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(line)
