"""Files of a folder that may come from somebody else: no link is followed, nothing is half written.

All files of a store are opened, replaced and removed here.
"""

import errno
import json
import os
import stat
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

# Windows has none of these.
_SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


def open_regular(path: Any, flags: int = os.O_RDONLY) -> int:
    """Open a regular file; a link, a pipe or a folder in its place is a ValueError."""
    try:
        fd = os.open(path, flags | _SAFE | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR):
            raise _not_regular(path) from error
        raise
    status = os.fstat(fd)
    writes = flags & (os.O_WRONLY | os.O_RDWR)
    if not stat.S_ISREG(status.st_mode) or (writes and status.st_nlink > 1):
        os.close(fd)
        raise _not_regular(path)
    return fd


def _not_regular(path: Any) -> ValueError:
    return ValueError(
        f"{path} is a link or not a regular file: it is neither read nor written. Put the file "
        "itself there, or use another folder."
    )


def read_bytes(path: Path) -> bytes | None:
    """Return the content of a regular file, or None if it does not exist."""
    try:
        fd = open_regular(path)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read()


def write_all(fd: int, data: Any, offset: int) -> None:
    """Write all bytes at an offset."""
    view = memoryview(data).cast("B")
    written = os.pwrite(fd, view, offset)
    while written < len(view):
        written += os.pwrite(fd, view[written:], offset + written)


def replace_file(path: Path, parts: Iterable[Any]) -> None:
    """Write a file under a temporary name, sync it, rename it, and sync the folder."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    # O_EXCL: nothing that somebody put there is opened.
    fd = open_regular(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        try:
            offset = 0
            for part in parts:
                write_all(fd, part, offset)
                offset += memoryview(part).nbytes
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def remove_file(path: Path) -> None:
    """Remove a file, or the link in its place, for good."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Wait until a file is on the disk."""
    fd = open_regular(path)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def checked_line(fields: Mapping[str, Any]) -> bytes:
    """Return a line of JSON with its own checksum in the last field."""
    return with_checksum(json.dumps(fields)[:-1])


def with_checksum(body: str) -> bytes:
    """Return the line of a JSON object that lacks its closing brace."""
    return f'{body}, "line": {zlib.crc32(body.encode())}}}\n'.encode()


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the fields of a checked line, or None if it is damaged or incomplete."""
    body, mark, _ = line.rpartition(b', "line": ')
    if not mark or not line.endswith(b"}\n"):
        return None
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or fields.pop("line", None) != zlib.crc32(body):
        return None
    return fields
