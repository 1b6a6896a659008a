"""Files of a folder that may come from somebody else: no link is followed, nothing is half written.

All files of a store are opened, replaced and removed here, and what depends on the system is here.
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

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Windows has none of these.
_SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


# Windows opens no folders, and syncs only what is open for writing.
_OPENS_FOLDERS = os.name != "nt"
# Beyond the end of a journal, because on Windows others cannot read a locked byte; Windows takes
# 32-bit offsets here.
_LOCKED_BYTE = 2**31 - 2


def open_regular(path: Any, flags: int = os.O_RDONLY) -> int:
    """Open a regular file; a link, a pipe or a folder in its place is a ValueError."""
    if not hasattr(os, "O_NOFOLLOW") and os.path.islink(path):
        raise _not_regular(path)
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
    written = _write_at(fd, view, offset)
    while written < len(view):
        written += _write_at(fd, view[written:], offset + written)


def _write_at(fd: int, view: memoryview, offset: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(fd, view, offset)
    os.lseek(fd, offset, os.SEEK_SET)
    return os.write(fd, view)


def read_at(fd: int, n_bytes: int, offset: int) -> bytes:
    """Return at most ``n_bytes`` at an offset."""
    if hasattr(os, "pread"):
        return os.pread(fd, n_bytes, offset)
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, n_bytes)


def sync(fd: int) -> None:
    """Wait until what was written is on the disk; on macOS, past the cache of the disk, too."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        with suppress(OSError):  # not on network file systems
            fcntl.fcntl(fd, full)
            return
    os.fsync(fd)


def lock(fd: int) -> None:
    """Lock a file until it is closed; a BlockingIOError or PermissionError if it is locked."""
    if fcntl is not None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    import msvcrt

    os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
    msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]


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
            sync(fd)
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
    fd = open_regular(path, os.O_RDONLY if _OPENS_FOLDERS else os.O_RDWR)
    try:
        sync(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk; Windows has nothing to wait for."""
    if not _OPENS_FOLDERS:
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        sync(fd)
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
