"""The journal of a store: one line of JSON per row, written after the row, with checksums."""

import errno
import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from skdmap.trajectory._storage.table import RowMetadata

try:
    import fcntl
except ImportError:  # Windows: a second writer is not detected there
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class JournalContent:
    """The rows of a journal, up to its first bad line."""

    metadata: list[RowMetadata]
    checksums: list[int]  # crc32 of the bytes of each row
    offsets: list[int]  # where the line of each row begins
    n_bytes: int  # length of the good lines
    complaint: str  # what is wrong with the line after them; empty if nothing
    continues: bool = False  # good lines follow the bad one: not the end of a crashed run


NO_JOURNAL = JournalContent([], [], [], 0, "")


def journal_line(fields: Mapping[str, Any]) -> bytes:
    """Return a line of JSON with its own checksum in the last field."""
    body = json.dumps(fields)[:-1]
    return f'{body}, "line": {zlib.crc32(body.encode())}}}\n'.encode()


class RowLines:
    """Formats the lines of rows: as :func:`journal_line` does, in half the time."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = ("row", *names, "crc")
        self._form = "{" + ", ".join(f'"{name}": %r' for name in self._names)

    def line(self, values: tuple[Any, ...]) -> bytes:
        """Return the line of a row of plain numbers."""
        body = self._form % values
        # JSON spells these two in another way. No field name contains them.
        if "nan" in body or "inf" in body:
            return journal_line(dict(zip(self._names, values, strict=True)))
        return f'{body}, "line": {zlib.crc32(body.encode())}}}\n'.encode()


def read_journal(path: Path, names: Sequence[str]) -> JournalContent:
    """Read the lines that parse, count up and match their checksum; ``names`` are the fields."""
    metadata: list[RowMetadata] = []
    checksums: list[int] = []
    offsets: list[int] = []
    start, complaint, continues = 0, "", False
    lines = enumerate(_lines(path))
    for number, line in lines:
        fields = _parsed(line)
        if fields is None:
            complaint = f"line {number + 1} of {path.name} is damaged or incomplete"
            continues = any(_parsed(later) is not None for _, later in lines)
            break
        if "amend" in fields and 0 <= fields["amend"] < len(metadata):
            row = fields["amend"]
            metadata[row] = replace(metadata[row], loss=fields["loss"])
        elif fields.get("row") == len(metadata) and all(name in fields for name in names):
            metadata.append(RowMetadata.from_values([fields[name] for name in names]))
            checksums.append(fields["crc"])
            offsets.append(start)
        else:
            complaint = f"line {number + 1} of {path.name} is not that of row {len(metadata)}"
            continues = True
            break
        start += len(line)
    return JournalContent(metadata, checksums, offsets, start, complaint, continues)


def _lines(path: Path) -> Iterable[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except FileNotFoundError:
        return


def _parsed(line: bytes) -> dict[str, Any] | None:
    body, mark, _ = line.rpartition(b', "line": ')
    if not mark or not line.endswith(b"}\n"):
        return None
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    is_whole = isinstance(fields, dict) and fields.get("line") == zlib.crc32(body)
    return fields if is_whole else None


class Journal:
    """Writes lines, unbuffered, under a lock that ends with the process."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
        self._size = 0

    def resume(self, content: JournalContent, n_rows: int) -> None:
        """Continue after the first ``n_rows`` of the rows that were read."""
        self.offsets = list(content.offsets)
        self._size = content.n_bytes
        self.truncate(n_rows)

    def append(self, line: bytes) -> None:
        """Write the line of the next row, or nothing."""
        start = self._size
        self._write(line)
        self.offsets.append(start)

    def set_loss(self, row: int, loss: float) -> None:
        """Write a loss that replaces the one in the line of a row."""
        self._write(journal_line({"amend": row, "loss": loss}))

    def truncate(self, n_rows: int) -> None:
        """Keep the lines of the first rows."""
        if n_rows < len(self.offsets):
            self._size = self.offsets[n_rows]
            del self.offsets[n_rows:]
        os.ftruncate(self._fd, self._size)

    def sync(self) -> None:
        """Wait until the lines are on the disk."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Release the lock."""
        os.close(self._fd)

    def _write(self, line: bytes) -> None:
        try:
            write_all(self._fd, line, self._size)
        except BaseException:
            with suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(line)


def write_all(fd: int, data: Any, offset: int) -> None:
    """Write all bytes at an offset."""
    view = memoryview(data).cast("B")
    written = os.pwrite(fd, view, offset)
    while written < len(view):
        written += os.pwrite(fd, view[written:], offset + written)
