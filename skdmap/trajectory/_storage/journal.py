"""The journal of a store: one line of JSON per row, written after the row, with checksums."""

import errno
import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: two writers are not found out there
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class JournalContent:
    """What a journal tells, up to its first bad line.

    Attributes
    ----------
    cells : list of tuple
        The fields of each row.
    checksums : list of int
        crc32 of the bytes of each row.
    offsets : list of int
        Where the line of each row begins.
    n_bytes : int
        Length of the good lines.
    complaint : str
        What is wrong with the line after them; empty where there is none.
    goes_on : bool
        Whether there are good lines after the bad one: then it was no crash that left it.
    """

    cells: list[tuple[Any, ...]]
    checksums: list[int]
    offsets: list[int]
    n_bytes: int
    complaint: str
    goes_on: bool = False


def journal_line(fields: Mapping[str, Any]) -> bytes:
    r"""Return a line with its own checksum in the last field.

    Examples
    --------
    >>> journal_line({"row": 0, "loss": 0.5})
    b'{"row": 0, "loss": 0.5, "line": 1225070567}\n'
    """
    body = json.dumps(fields)[:-1]
    return f'{body}, "line": {zlib.crc32(body.encode())}}}\n'.encode()


class RowLines:
    """Makes the lines of rows: what :func:`journal_line` makes of their fields, in half its time.

    Parameters
    ----------
    names : sequence of str
        Fields of a row, between its number and its checksum.

    Examples
    --------
    >>> fields = {"row": 0, "loss": 0.5, "crc": 7}
    >>> RowLines(["loss"]).line((0, 0.5, 7)) == journal_line(fields)
    True
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = ("row", *names, "crc")
        self._form = "{" + ", ".join(f'"{name}": %r' for name in self._names)

    def line(self, values: tuple[Any, ...]) -> bytes:
        """Return the line of a row; ``values`` are plain numbers."""
        body = self._form % values
        # JSON has other words for these two. No name holds one of them.
        if "nan" in body or "inf" in body:
            return journal_line(dict(zip(self._names, values, strict=True)))
        return f'{body}, "line": {zlib.crc32(body.encode())}}}\n'.encode()


def read_journal(path: Path, names: Sequence[str]) -> JournalContent:
    """Read the lines that parse, count up and have their checksum.

    Parameters
    ----------
    path : Path
        Of the journal. None there is an empty one.
    names : sequence of str
        Fields that make a cell.

    Returns
    -------
    JournalContent
        Of the good lines.
    """
    cells: list[tuple[Any, ...]] = []
    checksums: list[int] = []
    offsets: list[int] = []
    start, complaint, goes_on = 0, "", False
    where = {name: place for place, name in enumerate(names)}
    lines = enumerate(_lines(path))
    for number, line in lines:
        fields = _parsed(line)
        if fields is None:
            complaint = f"line {number + 1} of {path.name} is damaged or incomplete"
            goes_on = any(_parsed(later) is not None for _, later in lines)
            break
        if "amend" in fields and 0 <= fields["amend"] < len(cells):
            cell = list(cells[fields["amend"]])
            cell[where["loss"]] = fields["loss"]
            cells[fields["amend"]] = tuple(cell)
        elif fields.get("row") == len(cells) and all(name in fields for name in names):
            cells.append(tuple(fields[name] for name in names))
            checksums.append(fields["crc"])
            offsets.append(start)
        else:
            complaint = f"line {number + 1} of {path.name} is not that of row {len(cells)}"
            goes_on = True
            break
        start += len(line)
    return JournalContent(cells, checksums, offsets, start, complaint, goes_on)


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
    """Writes lines, unbuffered, under a lock that ends with the process.

    Parameters
    ----------
    path : Path
        Made where there is none.

    Raises
    ------
    BlockingIOError
        If another writer holds the lock.
    """

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
                    "another process, or another sampler or recorder of this one, writes to this "
                    "store. Wait for it to end, or pass another folder",
                    str(path.parent),
                ) from error
            raise
        self.offsets: list[int] = []
        self._size = 0

    def take_up(self, content: JournalContent, n_rows: int) -> None:
        """Go on after the first ``n_rows`` of the rows that were read."""
        self.offsets = list(content.offsets)
        self._size = content.n_bytes
        self.truncate(n_rows)

    def append(self, line: bytes) -> None:
        """Write the line of the next row, or nothing."""
        start = self._size
        self._write(line)
        self.offsets.append(start)

    def amend(self, row: int, loss: float) -> None:
        """Write that a row has another loss than its line says."""
        self._write(journal_line({"amend": row, "loss": loss}))

    def truncate(self, n_rows: int) -> None:
        """Keep the lines of the first rows only."""
        if n_rows < len(self.offsets):
            self._size = self.offsets[n_rows]
            del self.offsets[n_rows:]
        os.ftruncate(self._fd, self._size)

    def sync(self) -> None:
        """Wait until the lines are on the disk."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Give up the lock."""
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
    """Write at an offset, again and again until every byte is written."""
    view = memoryview(data).cast("B")
    written = os.pwrite(fd, view, offset)
    while written < len(view):
        written += os.pwrite(fd, view[written:], offset + written)
