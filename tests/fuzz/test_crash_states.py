"""Every prefix of the writes of a run, unsynced ones lost or torn: right rows, bit-equal resume.

A shim records what a run does to its folder: files made, bytes written, renames, syncs. A crash
state is a prefix of that. What was synced is there; of the rest, each write, cut, new name and
removal is kept or lost on its own, and a write may be torn. SKDMAP_CRASH_STATES is the number of
states of each kind.
"""

import os
import random
import shutil
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from skdmap import TrajectorySampler, open_trajectory
from skdmap.trajectory._storage import store as store_module

N_STATES = int(os.environ.get("SKDMAP_CRASH_STATES", "40"))
KINDS = {
    "rows": {"n_runs": 2},
    "zarr": {},
    "sketch": {"sketch_dim": 8, "n_runs": 2},
    "float16": {"dtype": "float16", "optimizer": "Adam"},
}
COLUMNS = ("snapshots_", "buffers_", "steps_", "run_ids_", "losses_", "path_lengths_")
RNG = np.random.default_rng(0)
X = RNG.standard_normal((24, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


def network():
    return torch.nn.Sequential(
        torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2)
    )


class StoppedError(Exception):
    pass


def sampler(kind, store=None, **more):
    options = {"max_steps": 12, "batch_size": 8, "random_state": 0, "resume": store is not None}
    return TrajectorySampler(network, store=store, **options | KINDS[kind] | more)


class Recording:
    """What happens to the files in a folder, in order."""

    def __init__(self, root):
        self.root, self.operations = Path(root), []
        self._inodes, self._opened, self._n_inodes = {}, {}, 0

    @contextmanager
    def running(self):
        names = (
            "open",
            "close",
            "pwrite",
            "ftruncate",
            "fsync",
            "sync",
            "replace",
            "unlink",
            "mkdir",
        )
        self.real = {name: getattr(os, name) for name in names}
        sync = store_module.Store._sync
        recording = self

        def marked_sync(store):
            sync(store)
            recording.operations.append(("mark", store._n_rows))

        try:
            for name in names:
                setattr(os, name, getattr(self, name))
            store_module.Store._sync = marked_sync
            yield self
        finally:
            for name, function in self.real.items():
                setattr(os, name, function)
            store_module.Store._sync = sync

    def _own(self, path):
        path = Path(os.fspath(path)) if isinstance(path, (str, os.PathLike)) else None
        return path if path is not None and self.root in (path, *path.parents) else None

    def open(self, path, flags, mode=0o777, *, dir_fd=None):
        fd = self.real["open"](path, flags, mode, dir_fd=dir_fd)
        own = self._own(path)
        if own is not None:
            if own.is_dir():
                self._opened[fd] = own
            else:
                if own not in self._inodes:
                    self._n_inodes += 1
                    self._inodes[own] = self._n_inodes
                    self.operations.append(("create", own, self._n_inodes))
                self._opened[fd] = self._inodes[own]
        return fd

    def close(self, fd):
        self._opened.pop(fd, None)
        self.real["close"](fd)

    def pwrite(self, fd, data, offset):
        n_bytes = self.real["pwrite"](fd, data, offset)
        if fd in self._opened:
            content = bytes(memoryview(data).cast("B")[:n_bytes])
            self.operations.append(("write", self._opened[fd], offset, content))
        return n_bytes

    def ftruncate(self, fd, size):
        self.real["ftruncate"](fd, size)
        if fd in self._opened:
            self.operations.append(("cut", self._opened[fd], size))

    def fsync(self, fd):
        if fd in self._opened:
            self.operations.append(("sync", self._opened[fd]))

    def sync(self):
        self.operations.append(("sync all",))

    def replace(self, source, target, **more):
        self.real["replace"](source, target, **more)
        if self._own(target) is not None:
            self._inodes[Path(target)] = self._inodes.pop(Path(source))
            self.operations.append(("rename", Path(source), Path(target)))

    def unlink(self, path, **more):
        self.real["unlink"](path, **more)
        if self._own(path) is not None:
            self._inodes.pop(Path(path), None)
            self.operations.append(("remove", Path(path)))

    def mkdir(self, path, *more, **options):
        self.real["mkdir"](path, *more, **options)
        if self._own(path) is not None and Path(path) != self.root:
            self.operations.append(("folder", Path(path)))


def place_of(operation):
    """Return what has to be synced for an operation to last: an inode or a folder."""
    if operation[0] in ("write", "cut"):
        return operation[1]
    return operation[1].parent


def crash_state(operations, rng, loss):
    """Return the files and folders that a crash after these operations leaves, by path."""
    synced, lasting = set(), set()
    for number in range(len(operations) - 1, -1, -1):
        kind = operations[number][0]
        if kind == "sync all":
            lasting.update(range(number))
        elif kind == "sync":
            synced.add(operations[number][1])
        elif kind != "mark" and place_of(operations[number]) in synced:
            lasting.add(number)
    content, names, source = {}, {}, {}
    for number, (kind, *what) in enumerate(operations):
        if kind in ("mark", "sync", "sync all"):
            continue
        is_kept = number in lasting or rng.random() >= loss
        if kind == "create":
            source[what[0]] = what[1]
            content.setdefault(what[1], bytearray())
            if is_kept:
                names[what[0]] = what[1]
        elif kind == "folder" and is_kept:
            names[what[0]] = None
        elif kind == "rename":
            source[what[1]] = source.pop(what[0])
            if is_kept:
                names.pop(what[0], None)
                names[what[1]] = source[what[1]]
        elif kind == "remove" and is_kept:
            names.pop(what[0], None)
        elif kind == "cut" and is_kept:
            data, size = content[what[0]], what[1]
            data[size:] = b""
            data.extend(bytes(size - len(data)))
        elif kind == "write":
            inode, offset, new = what
            if not is_kept:
                if rng.random() < 0.5:
                    continue
                first, last = sorted(rng.choices(range(len(new) + 1), k=2))  # torn
                offset, new = offset + first, new[first:last]
            if new:
                data = content[inode]
                data.extend(bytes(max(0, offset + len(new) - len(data))))
                data[offset : offset + len(new)] = new
    return {path: None if inode is None else bytes(content[inode]) for path, inode in names.items()}


def write_state(state, root, folder):
    for path, content in sorted(state.items(), key=lambda item: len(item[0].parts)):
        target = folder / path.relative_to(root)
        if not target.parent.is_dir():
            continue  # its folder was lost
        if content is None:
            target.mkdir(exist_ok=True)
        else:
            target.write_bytes(content)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """By kind: the operations of a run that is stopped and resumed, and the undisturbed rows."""
    made = {}

    def record(kind):
        if kind in made:
            return made[kind]
        if kind == "zarr":
            pytest.importorskip("zarr")
        root = tmp_path_factory.mktemp(kind) / ("s.zarr" if kind == "zarr" else "s")
        root.mkdir()
        recording, n_calls = Recording(root), [0]

        def stop(step, loss, module):
            n_calls[0] += 1
            if n_calls[0] == 8:
                raise StoppedError

        before = store_module._SYNC_EVERY, store_module._STATE_EVERY
        clock = iter(range(10**9))
        monotonic = store_module.time.monotonic
        try:
            # Each look at the clock is a tick: rows are synced and states saved every few rows.
            store_module._SYNC_EVERY, store_module._STATE_EVERY = 5, 14
            store_module.time.monotonic = lambda: float(next(clock))
            with recording.running():
                with pytest.raises(StoppedError):
                    sampler(kind, root, callbacks=stop).fit(X, Y)
                whole = sampler(kind, root, callbacks=lambda *_: False).fit(X, Y)
        finally:
            store_module._SYNC_EVERY, store_module._STATE_EVERY = before
            store_module.time.monotonic = monotonic
        alone = sampler(kind, callbacks=lambda *_: False).fit(X, Y)
        expected = {name: np.asarray(getattr(alone, name)).copy() for name in COLUMNS}
        for name, column in expected.items():
            np.testing.assert_array_equal(np.asarray(getattr(whole, name)), column, err_msg=name)
        made[kind] = recording.operations, expected, root
        return made[kind]

    return record


def check(folder, kind, expected, n_durable):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = open_trajectory(folder, verify=True)
        except FileNotFoundError:
            assert n_durable == 0
        else:
            n_rows = len(found.steps_)
            assert n_rows >= n_durable
            for name, column in expected.items():
                rows = np.asarray(getattr(found, name))
                np.testing.assert_array_equal(rows, column[:n_rows], err_msg=name)
        resumed = sampler(kind, folder, callbacks=lambda *_: False).fit(X, Y)
        again = open_trajectory(folder, verify=True)
    for name, column in expected.items():
        np.testing.assert_array_equal(np.asarray(getattr(resumed, name)), column, err_msg=name)
        np.testing.assert_array_equal(np.asarray(getattr(again, name)), column, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_crash_state_has_right_rows_and_resumes(kind, recorded, tmp_path, monkeypatch):
    operations, expected, root = recorded(kind)
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    for number in range(N_STATES):
        rng = random.Random(f"{kind} {number}")
        end = number % (len(operations) + 1)
        if len(operations) > N_STATES:
            # One in four is of the beginning, where a folder becomes a store.
            end = rng.randrange(100 if number % 4 == 0 else len(operations) + 1)
        state = crash_state(operations[:end], rng, loss=rng.choice([0.1, 0.5, 0.9, 1.0]))
        folder = tmp_path / f"{number}{root.suffix}"
        folder.mkdir()
        write_state(state, root, folder)
        marks = [what[0] for name, *what in operations[:end] if name == "mark"]
        # A resume drops the rows after the state; a later mark counts them again.
        n_durable = min(marks[-1:] or [0])
        try:
            check(folder, kind, expected, n_durable)
        except BaseException as error:
            error.add_note(f"state {number} of kind {kind}, after {end} operations: {folder}")
            raise
        shutil.rmtree(folder)
