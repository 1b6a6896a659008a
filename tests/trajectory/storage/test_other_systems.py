"""Stores where POSIX calls are missing, as on Windows, and where syncs go further, as on macOS."""

import errno
import os
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from skdmap import TrajectoryRecorder, open_trajectory
from skdmap.trajectory._storage import files

fcntl = pytest.importorskip("fcntl", reason="the simulation itself needs POSIX")


def linear_module():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.nn.Linear(3, 2)


def train(module, n_steps):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(n_steps):
        optimizer.zero_grad()
        sum(p.square().sum() for p in module.parameters()).backward()
        optimizer.step()


@pytest.fixture
def like_windows(monkeypatch):
    """Take away what Windows has not; fail where it fails; return the locks that were asked for."""
    for name in ("pread", "pwrite", "sync", "O_NOFOLLOW"):
        monkeypatch.delattr(os, name)
    monkeypatch.setattr(files, "_SAFE", 0)
    monkeypatch.setattr(files, "_OPENS_FOLDERS", False)
    monkeypatch.setattr(files, "fcntl", None)
    opened = os.open

    def open_no_folder(path, flags, mode=0o777, *, dir_fd=None):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, flags, mode, dir_fd=dir_fd)

    def sync_what_is_writable(fd):
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")

    locks = []

    def locking(fd, mode, n_bytes):
        locks.append((os.lseek(fd, 0, os.SEEK_CUR), mode, n_bytes))
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PermissionError(errno.EACCES, "Permission denied") from error

    monkeypatch.setattr(os, "open", open_no_folder)
    monkeypatch.setattr(os, "fsync", sync_what_is_writable)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
    return locks


@pytest.mark.parametrize("name", ["run", "run.zarr"])
def test_a_store_without_posix_calls_holds_and_resumes_every_row(tmp_path, like_windows, name):
    whole = linear_module()
    with TrajectoryRecorder(whole) as expected:
        train(whole, 130)
    module = linear_module()
    with TrajectoryRecorder(module, store=tmp_path / name):
        train(module, 80)
    with TrajectoryRecorder(module, store=tmp_path / name, resume=True, first_step=80):
        train(module, 50)
    stored = open_trajectory(tmp_path / name, verify=True)
    assert stored.steps_.tolist() == list(range(131))
    np.testing.assert_array_equal(stored.snapshots_, expected.snapshots_)
    assert like_windows
    assert {place for place, _, _ in like_windows} == {files._LOCKED_BYTE}


def test_a_second_writer_is_refused_without_flock(tmp_path, like_windows):
    with TrajectoryRecorder(linear_module(), store=tmp_path / "run"):
        second = TrajectoryRecorder(linear_module(), store=tmp_path / "run", resume=True)
        with pytest.raises(BlockingIOError, match="another process"), second:
            pass


def test_links_are_refused_where_the_system_cannot_refuse_them(tmp_path, like_windows):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(ValueError, match="is a link"):
        files.open_regular(tmp_path / "link")
    assert files.read_bytes(tmp_path / "file") == b"content"


def test_syncs_reach_the_disk_itself_where_the_system_offers_it(tmp_path, monkeypatch):
    calls = []
    full = SimpleNamespace(
        F_FULLFSYNC=51, fcntl=lambda fd, command: calls.append(command), flock=fcntl.flock
    )
    full.LOCK_EX, full.LOCK_NB = fcntl.LOCK_EX, fcntl.LOCK_NB
    monkeypatch.setattr(files, "fcntl", full)
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append("fsync"))
    files.replace_file(tmp_path / "file", [b"content"])
    assert calls
    assert set(calls) == {51}


def test_a_file_system_without_full_syncs_gets_ordinary_ones(tmp_path, monkeypatch):
    calls = []

    def refused(fd, command):
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(files, "fcntl", SimpleNamespace(F_FULLFSYNC=51, fcntl=refused))
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append(stat.S_IFMT(os.fstat(fd).st_mode)))
    files.replace_file(tmp_path / "file", [b"content"])
    assert calls == [stat.S_IFREG, stat.S_IFDIR]
    assert Path(tmp_path / "file").read_bytes() == b"content"
