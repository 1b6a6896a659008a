"""Format 3: what is synced and when, which file of a folder is touched, what damage does."""

import os
import shutil
import signal
import sys
import warnings
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch

from skdmap import TrajectoryRecorder, TrajectorySampler, open_trajectory
from skdmap.exceptions import SkdmapWarning
from skdmap.trajectory._storage.journal import journal_head
from skdmap.trajectory._storage.record import decode_record, encode_record
from skdmap.trajectory._storage.writer import open_writer

X = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


class Normed(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))


def sampler(folder, **more):
    options = {"module": Normed, "max_epochs": 3, "batch_size": 10, "random_state": 0}
    return TrajectorySampler(store=folder, **options | more)


@pytest.fixture(scope="module", params=["run", "run.zarr"])
def whole(request, tmp_path_factory):
    """A store of 13 rows, in .npy files or in zarr."""
    if request.param.endswith("zarr"):
        pytest.importorskip("zarr")
    folder = tmp_path_factory.mktemp("whole") / request.param
    sampler(folder).fit(X, Y)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / whole.name)


def rows_file(folder):
    """Return the file of the newest row."""
    if folder.suffix == ".zarr":
        return folder / "snapshots" / "c" / "12" / "0"
    return folder / "skdmap-snapshots.npy"


def test_a_store_opens_and_resumes(folder):
    rows = np.asarray(open_trajectory(folder, verify=True).snapshots_)
    resumed = sampler(folder, resume=True).fit(X, Y)
    np.testing.assert_array_equal(np.asarray(resumed.snapshots_), rows)
    assert rows.shape == (13, 34)


@pytest.mark.parametrize("content", [b"", b"x" * 40])
def test_a_torn_newest_row_is_left_out_and_named(folder, content):
    path = rows_file(folder)
    if folder.suffix == ".zarr":
        path.write_bytes(content)
    else:
        os.truncate(path, path.stat().st_size - 5)
    with pytest.warns(SkdmapWarning, match=r"row 12|shorter than the 13 rows"):
        found = open_trajectory(folder, verify=True)
    assert len(found.steps_) == 12
    # The state needs the row: it had been synced.
    with pytest.raises(ValueError, match="the saved state needs 13 rows"):
        sampler(folder, resume=True).fit(X, Y)


@pytest.mark.parametrize("content", [None, b"", b"head"])
def test_a_journal_that_is_missing_empty_or_cut_is_named(folder, content):
    path = folder / "skdmap-journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(b"".join(lines[:5]) if content else b"")
    with pytest.warns(SkdmapWarning, match=r"journal.jsonl (is missing|is empty|lists)") as caught:
        found = open_trajectory(folder)
    assert len(found.steps_) == (4 if content else 0)
    assert len(caught) == 1
    with pytest.raises(ValueError, match=r"journal.jsonl is missing|needs 13 rows"):
        sampler(folder, resume=True).fit(X, Y)


def test_without_its_head_a_journal_is_held_against_the_rows(tmp_path):
    sampler(tmp_path / "s").fit(X, Y)
    path = tmp_path / "s" / "skdmap-journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(journal_head(0) + b"".join(lines[1:6]))
    with pytest.warns(SkdmapWarning, match=r"lists 5 rows, and skdmap-snapshots.npy more"):
        assert len(open_trajectory(tmp_path / "s").steps_) == 5
    # A process that was killed between a row and its line is no damage.
    path.write_bytes(journal_head(0) + b"".join(lines[1:13]))
    assert len(open_trajectory(tmp_path / "s").steps_) == 12


SIDE_FILES = {
    "skdmap-results.json": "history_ is None",
    "skdmap-endpoints-00000.bin": "endpoints_ lacks run 0",
}


@pytest.mark.parametrize("content", [b"", b"[]", b"\x00" * 500])
@pytest.mark.parametrize("name", SIDE_FILES)
def test_a_damaged_side_file_is_named_and_rows_open(name, content, tmp_path):
    sampler(tmp_path / "s", sketch_dim=8).fit(X, Y)
    (tmp_path / "s" / name).write_bytes(content)
    with pytest.warns(SkdmapWarning, match=f"{name} is damaged.*{SIDE_FILES[name]}"):
        assert len(open_trajectory(tmp_path / "s").steps_) == 13


@pytest.mark.parametrize("name", ["skdmap-state.bin", "skdmap-module-00000.bin"])
def test_a_flipped_bit_of_state_or_module_is_an_error(name, folder):
    path = folder / name
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is damaged: its checksum is wrong"):
        sampler(folder, resume=True).fit(X, Y)
    with pytest.warns(SkdmapWarning, match=f"{name} is damaged"):
        found = open_trajectory(folder, verify=True, module=Normed)
    assert len(found.steps_) == 13
    if "module" in name:
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            _ = found.module_


def test_files_of_others_in_a_store_are_left_alone(folder):
    names = ["state.pt", "module_best.pt", "results.json", "endpoints_old.npy", "buffers.npy"]
    names += ["skdmap-module-best.bin", "skdmap-endpoints-0.bin", "journal.jsonl", "manifest.json"]
    for name in names:
        (folder / name).write_bytes(b"mine")
    assert len(open_trajectory(folder, verify=True, module=Normed).modules_) == 1
    sampler(folder, resume=True).fit(X, Y)
    assert {(folder / name).read_bytes() for name in names} == {b"mine"}


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    "name",
    ["state.pt", "buffers.npy", "manifest.json", "journal.jsonl", "notes.txt", ".git", "zarr.json"],
)
def test_a_folder_with_files_of_others_is_never_made_a_store(name, resume, tmp_path):
    (tmp_path / name).write_bytes(b'{"name": "mine"}')
    with pytest.raises(FileExistsError, match="files that skdmap did not write"):
        sampler(tmp_path, resume=resume).fit(X, Y)
    with pytest.raises(FileExistsError, match="files that skdmap did not write"):
        TrajectoryRecorder(Normed(), store=tmp_path, resume=resume).__enter__()
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == b'{"name": "mine"}'


def test_a_start_that_was_cut_short_is_begun_again(tmp_path):
    """Before its manifest, a new store has a journal, or a part of the manifest."""
    for files in ([], ["skdmap-journal.jsonl"], ["skdmap-journal.jsonl", "skdmap-store.json.tmp"]):
        folder = tmp_path / str(len(files))
        folder.mkdir()
        for name in files:
            (folder / name).write_bytes(b"")
        with pytest.raises(FileNotFoundError, match=r"skdmap-store.json is missing"):
            open_trajectory(folder)
        sampler(folder, resume=True).fit(X, Y)
        assert len(open_trajectory(folder, verify=True).steps_) == 13


@pytest.mark.parametrize("name", ["skdmap-snapshots.npy", "skdmap-journal.jsonl"])
@pytest.mark.parametrize("kind", ["symbolic", "hard", "dangling"])
def test_no_link_is_written_through(name, kind, tmp_path):
    folder, victim = tmp_path / "s", tmp_path / "victim"
    sampler(folder).fit(X, Y)
    victim.write_bytes(b"precious")
    (folder / name).unlink()
    if kind == "hard":
        (folder / name).hardlink_to(victim)
    else:
        (folder / name).symlink_to(victim if kind == "symbolic" else tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"is a link or not a regular file|is damaged"):
        sampler(folder, resume=True).fit(X, Y)
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("name", ["skdmap-state.bin.tmp", "skdmap-results.json.tmp"])
def test_a_link_in_place_of_a_temporary_file_is_not_followed(name, tmp_path):
    folder, victim = tmp_path / "s", tmp_path / "victim"
    sampler(folder).fit(X, Y)
    (folder / "skdmap-state.bin").unlink()
    victim.write_bytes(b"precious")
    (folder / name).symlink_to(victim)
    sampler(folder, resume=True).fit(X, Y)
    assert victim.read_bytes() == b"precious"
    assert not (folder / name).exists()


def test_a_linked_chunk_or_array_of_zarr_is_not_followed(tmp_path):
    pytest.importorskip("zarr")
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("snapshots", "snapshots/c", "snapshots/c/12", "snapshots/c/12/0"):
        folder = tmp_path / f"{name.replace('/', '-')}.zarr"
        sampler(folder).fit(X, Y)
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.symlink_to(outside)
        with pytest.warns(SkdmapWarning, match="is a link"):
            assert len(open_trajectory(folder).steps_) == 0
        with pytest.raises(ValueError, match="is a link"):
            sampler(folder, resume=True).fit(X, Y)
        assert os.listdir(outside) == []


READER = """
import numpy as np, torch
from skdmap import TrajectoryRecorder, open_trajectory
torch.set_num_threads(1)
module = torch.nn.Linear({width}, 1, bias=False)
optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
def steps(n):
    for _ in range(n):
        module.weight.grad = torch.ones_like(module.weight)
        optimizer.step()
saved = module.weight.detach().clone()
with TrajectoryRecorder(module, store={folder!r}) as first:
    steps(40)
stored = open_trajectory({folder!r}, verify=True)
before = np.array(stored.snapshots_)
with torch.no_grad():
    module.weight.copy_(saved)
with TrajectoryRecorder(module, store={folder!r}, resume=True, first_step=0):
    for rows in (stored.snapshots_, first.snapshots_):
        assert (np.array(rows) == before).all()
    steps(40)
"""


@pytest.mark.parametrize("width", [10, 5000])
def test_an_open_memory_map_outlives_a_resume(width, tmp_path, run_script):
    script = READER.format(width=width, folder=str(tmp_path / "s"))
    done = run_script(script)
    assert done.returncode == 0, (done.returncode, done.stderr)


def test_no_file_of_rows_is_ever_shortened(tmp_path, monkeypatch):
    cut = []
    ftruncate = os.ftruncate

    def watched(fd, size):
        path = os.readlink(f"/proc/self/fd/{fd}")
        if size < os.fstat(fd).st_size:
            cut.append(Path(path).name)
        ftruncate(fd, size)

    monkeypatch.setattr(os, "ftruncate", watched)
    for dtype in ("float32", "float16"):
        folder = tmp_path / dtype
        writer = open_writer(5, 2, store=folder, dtype=dtype)
        for step in range(9):
            writer.append(np.full(5, step), np.zeros(2), step=step, loss=0.0)
        writer.close()
        again = open_writer(5, 2, store=folder, dtype=dtype, resume=True)
        again.truncate(2)
        again.close()
        assert len(open_trajectory(folder, verify=True).steps_) == 2
    assert set(cut) == {"skdmap-journal.jsonl"}


def test_dropping_rows_that_a_state_needs_drops_the_state(tmp_path, run_script):
    """Else a recording that goes back behind its state and is killed could not be resumed."""
    script = dedent(f"""
    import os, signal
    import numpy as np
    from skdmap.trajectory._storage.writer import open_writer
    writer = open_writer(3, store={str(tmp_path / "s")!r})
    for step in range(20):
        writer.append(np.zeros(3), step=step, loss=0.0)
    writer.save_state({{}})
    writer.close()
    writer = open_writer(3, store={str(tmp_path / "s")!r}, resume=True)
    writer.truncate(6)
    writer.append(np.ones(3), step=6, loss=0.0)
    os.kill(os.getpid(), signal.SIGKILL)
    """)
    done = run_script(script)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(open_trajectory(tmp_path / "s", verify=True).steps_) == 7
    writer = open_writer(3, store=tmp_path / "s", resume=True)
    assert writer.n_rows == 7
    writer.close()


@pytest.fixture
def synced(monkeypatch):
    """The names of files and folders that were synced, in order, and the renames among them."""
    calls = []
    fsync, replace = os.fsync, Path.replace

    def watched_sync(fd):
        calls.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
        fsync(fd)

    def watched_replace(self, target):
        calls.append(f"-> {Path(target).name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", watched_sync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    return calls


@pytest.mark.skipif(sys.platform != "linux", reason="names of descriptors come from /proc")
@pytest.mark.parametrize("name", ["s", "s.zarr"])
def test_a_renamed_file_is_synced_before_and_its_folder_after(name, tmp_path, synced):
    if name.endswith("zarr"):
        pytest.importorskip("zarr")
    sampler(tmp_path / name).fit(X, Y)
    for place, call in enumerate(synced):
        if call.startswith("-> "):
            target = call.removeprefix("-> ")
            folder = {"zarr.json": synced[place + 1]}.get(target, name)
            assert synced[place - 1] == f"{target}.tmp"
            assert synced[place + 1] == folder
    assert {"-> skdmap-store.json", "-> skdmap-results.json", "-> skdmap-state.bin"} <= set(synced)


@pytest.mark.skipif(sys.platform != "linux", reason="names of descriptors come from /proc")
def test_chunks_of_zarr_are_synced_before_the_journal(tmp_path, synced):
    pytest.importorskip("zarr")
    writer = open_writer(3, store=tmp_path / "s.zarr")
    for step in range(4):
        writer.append(np.ones(3), step=step, loss=0.0)
    del synced[:]
    writer.close()
    journal = synced.index("skdmap-journal.jsonl")
    assert synced[:journal].count("0") >= 4  # the chunk files, each in a folder of its own
    assert "c" in synced[:journal]


def test_named_scalars_are_columns_of_the_journal(tmp_path):
    names = ("sharpness", "trace_estimate")
    for store in (None, tmp_path / "s"):
        writer = open_writer(2, store=store, scalars=names)
        for step in range(3):
            writer.append(np.ones(2), step=step, loss=0.0, scalars={"sharpness": 2.0 * step})
        writer.close()
        found = writer.table().scalars
        np.testing.assert_array_equal(found["sharpness"], [0, 2, 4])
        assert np.isnan(found["trace_estimate"]).all()
    again = open_writer(2, store=tmp_path / "s", scalars=names, resume=True)
    again.truncate(2)
    again.append(np.ones(2), step=2, loss=0.0, scalars={"trace_estimate": 1.0})
    np.testing.assert_array_equal(again.table().scalars["sharpness"], [0, 2, np.nan])
    again.close()
    assert len(open_trajectory(tmp_path / "s", verify=True).steps_) == 3
    with pytest.raises(ValueError, match="scalars is"):
        open_writer(2, store=tmp_path / "s", scalars=("other",), resume=True)
    for wrong in (("loss",), ("two words",), ("a", "a"), ("crc",)):
        with pytest.raises(ValueError, match="must be an identifier that is not used twice"):
            open_writer(2, scalars=wrong)


def test_a_record_comes_back_as_it_was():
    record = {
        "tensors": [
            torch.arange(6.0).reshape(2, 3).t(), torch.tensor(3), torch.tensor([True, False]),
            torch.ones(2, dtype=torch.bfloat16), torch.empty(0, 4), torch.ones(2) * 1j,
        ],
        0: (None, True, -1, 0.1, float("inf"), "text", b"\x00\xff", 1 + 2j),
        "dtype": torch.float16, "device": torch.device("cpu"), "size": torch.Size([2]),
    }  # fmt: skip
    found = decode_record(b"".join(bytes(part) for part in encode_record(record)))
    for mine, theirs in zip(found.pop("tensors"), record.pop("tensors"), strict=True):
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs)
    assert found == record
    assert type(found[0]) is tuple


@pytest.mark.parametrize("resume", [False, True])
def test_a_good_store_gives_no_warning(resume, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if resume:
            sampler(folder, resume=True).fit(X, Y)
        found = open_trajectory(folder, verify=True, module=Normed)
        assert len(found.modules_) == 1


def test_a_damaged_state_of_sketches_keeps_no_row_from_opening(tmp_path):
    sampler(tmp_path / "s", sketch_dim=8).fit(X, Y)
    (tmp_path / "s" / "skdmap-state.bin").write_bytes(b"x" * 90)
    with pytest.warns(SkdmapWarning, match=r"skdmap-state.bin is damaged.*endpoints_ lacks runs"):
        found = open_trajectory(tmp_path / "s")
    assert len(found.steps_) == 13
    assert found.endpoints_[0].shape == (2, 34)


def test_rows_of_earlier_formats_that_the_journal_does_not_list_are_told(tmp_path):
    stores = Path(__file__).parents[2] / "fixtures" / "stores"
    for n_lines, message in ((4, "lists 4 rows, and"), (0, "lists 0 rows, and"), (None, "missing")):
        folder = shutil.copytree(stores / "plain", tmp_path / str(n_lines))
        journal = folder / "journal.jsonl"
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.unlink() if n_lines is None else journal.write_bytes(b"".join(lines[:n_lines]))
        with pytest.warns(SkdmapWarning, match=message):
            assert len(open_trajectory(folder).steps_) == (n_lines or 0)
