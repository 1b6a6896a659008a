"""Rows that a recorder writes to a store or sketches; a loop that was killed goes on."""

import errno
import shutil
import textwrap

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skdmap import Displacement, TrajectoryRecorder
from skdmap.exceptions import DivergenceWarning, SkdmapWarning
from skdmap.trajectory._recorder.row_writer import RowWriter
from skdmap.trajectory._storage.side_files import SideFiles
from skdmap.trajectory._storage.store import Store
from skdmap.trajectory._stored_trajectory import open_trajectory


def new_module():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 1))


def theta(module):
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()]).numpy().copy()


class Training:
    """A loop with checkpoints of its own."""

    def __init__(self):
        self.module = new_module()
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=0.05)
        self.seen = []

    def run(self, start, stop, recorder=None):
        for step in range(start, stop):
            X = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
            loss = F.mse_loss(self.module(X), X[:, :1] * X[:, 1:2])
            self.optimizer.zero_grad()
            loss.backward()
            if recorder is not None:
                recorder.log(loss)
            self.seen.append(theta(self.module))
            self.optimizer.step()
        return self

    def save(self, path):
        torch.save([self.module.state_dict(), self.optimizer.state_dict()], path)

    def load(self, path):
        module, optimizer = torch.load(path, weights_only=True)
        self.module.load_state_dict(module)
        self.optimizer.load_state_dict(optimizer)
        return self


def files(folder):
    return {
        name: (folder / name).read_bytes()
        for name in ("skdmap-snapshots.npy", "skdmap-buffers.npy", "skdmap-journal.jsonl")
    }


def test_a_store_holds_what_memory_would(tmp_path):
    stored, kept = Training(), Training()
    with TrajectoryRecorder(stored.module, store=tmp_path / "run") as on_disk:
        stored.run(0, 9, on_disk)
    with TrajectoryRecorder(kept.module) as in_memory:
        kept.run(0, 9, in_memory)
    read = open_trajectory(tmp_path / "run", verify=True, module=new_module)
    for name in ("snapshots_", "buffers_", "steps_", "losses_", "learning_rates_", "run_ids_"):
        wanted = getattr(in_memory, name)
        np.testing.assert_array_equal(getattr(on_disk, name), wanted)
        np.testing.assert_array_equal(getattr(read, name), wanted)
    assert isinstance(on_disk.snapshots_, np.memmap)
    assert not on_disk.snapshots_.flags.writeable
    assert not read.interrupted_
    np.testing.assert_array_equal(theta(read.module_at(-1)), theta(kept.module))
    for one, other in zip(read.module_.buffers(), kept.module.buffers(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("killed_at", [5, 6, 8])
def test_a_resumed_recording_ends_as_an_undisturbed_one(tmp_path, every, killed_at):
    whole = Training()
    settings = {"record_every": every}
    with TrajectoryRecorder(whole.module, store=tmp_path / "whole", **settings) as recorder:
        whole.run(0, 12, recorder)

    first = Training()
    recorder = TrajectoryRecorder(first.module, store=tmp_path / "part", **settings)
    with pytest.raises(ZeroDivisionError), recorder:  # noqa: PT012 - as a kill would
        first.run(0, 5, recorder)
        first.save(tmp_path / "checkpoint.pt")
        first.run(5, killed_at, recorder)
        raise ZeroDivisionError
    second = Training().load(tmp_path / "checkpoint.pt")
    with TrajectoryRecorder(
        second.module, store=tmp_path / "part", resume=True, first_step=5, **settings
    ) as recorder:
        second.run(5, 12, recorder)
    undisturbed = open_trajectory(tmp_path / "whole")
    if every == 3 and killed_at == 5:
        # The end of the first part was its last step, which is kept off the cadence too.
        assert recorder.steps_.tolist() == [0, 3, 5, 6, 9, 12]
        return
    for name in ("skdmap-snapshots.npy", "skdmap-buffers.npy"):
        assert files(tmp_path / "part")[name] == files(tmp_path / "whole")[name]
    np.testing.assert_array_equal(recorder.steps_, undisturbed.steps_)
    np.testing.assert_array_equal(recorder.losses_, undisturbed.losses_)
    np.testing.assert_allclose(recorder.path_lengths_, undisturbed.path_lengths_, rtol=1e-5)
    open_trajectory(tmp_path / "part", verify=True)


def test_kill_nine_loses_at_most_the_newest_row(tmp_path, run_script):
    script = textwrap.dedent(
        f"""
        import os, signal, torch
        from skdmap import TrajectoryRecorder
        module = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        with TrajectoryRecorder(module, store={str(tmp_path / "run")!r}) as recorder:
            for step in range(30):
                loss = module(torch.ones(2, 3)).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if step == 20:
                    os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = run_script(script)
    assert done.returncode == -9, done.stderr
    read = open_trajectory(tmp_path / "run", verify=True)
    assert read.steps_.tolist() == list(range(21))
    assert read.interrupted_


def test_another_place_than_the_stored_row_is_an_error_that_keeps_the_rows(tmp_path):
    first = Training()
    with TrajectoryRecorder(first.module, store=tmp_path) as recorder:
        first.run(0, 6, recorder)
    before = files(tmp_path)
    wrong = Training().run(0, 3)
    recorder = TrajectoryRecorder(wrong.module, store=tmp_path, resume=True, first_step=4)
    with (
        pytest.raises(ValueError, match=r"module differ from those stored for step 4 .row 4."),
        recorder,
    ):
        pass
    assert files(tmp_path) == before
    # The lock is given up: the right checkpoint goes on.
    right = Training().run(0, 4)
    with TrajectoryRecorder(right.module, store=tmp_path, resume=True, first_step=4) as recorder:
        right.run(4, 6, recorder)
    assert files(tmp_path) == before


def test_rows_missing_before_the_first_step_are_named(tmp_path):
    training = Training()
    with TrajectoryRecorder(training.module, store=tmp_path, record_every=2) as recorder:
        training.run(0, 4, recorder)
    training.run(4, 9)
    recorder = TrajectoryRecorder(
        training.module, store=tmp_path, record_every=2, resume=True, first_step=9
    )
    with pytest.warns(SkdmapWarning, match="ends at step 4. 2 rows are missing"), recorder:
        training.run(9, 10, recorder)
    assert recorder.steps_.tolist() == [0, 2, 4, 10]


def test_a_folder_with_rows_is_an_error_without_resume(tmp_path):
    training = Training()
    with TrajectoryRecorder(training.module, store=tmp_path):
        training.run(0, 2)
    again = TrajectoryRecorder(training.module, store=tmp_path)
    with pytest.raises(FileExistsError, match="resume=True"), again:
        pass
    training.run(2, 3)
    assert open_trajectory(tmp_path).steps_.tolist() == [0, 1, 2]


def test_other_settings_are_an_error_when_resumed(tmp_path):
    training = Training()
    with TrajectoryRecorder(training.module, store=tmp_path, record_every=2):
        training.run(0, 2)
    other = TrajectoryRecorder(
        training.module, store=tmp_path, record_every=3, resume=True, first_step=2
    )
    with pytest.raises(ValueError, match="record_every is 2 in the store and 3 here"), other:
        pass


def test_a_recorder_with_a_store_that_is_entered_again_goes_on(tmp_path):
    training = Training()
    recorder = TrajectoryRecorder(training.module, store=tmp_path)
    for start in (0, 3):
        with recorder:
            training.run(start, start + 3, recorder)
    assert recorder.steps_.tolist() == list(range(7))
    np.testing.assert_array_equal(recorder.snapshots_[:-1], training.seen)
    assert np.isfinite(recorder.losses_[:-1]).all()


def test_a_full_disk_ends_the_loop_and_keeps_the_rows(tmp_path, monkeypatch):
    from skdmap.trajectory._storage import npy as _npy_rows

    training = Training()
    recorder = TrajectoryRecorder(training.module, store=tmp_path)
    append = _npy_rows.NpyRows.append

    def full(self, part):
        if self.count >= 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, part)

    monkeypatch.setattr(_npy_rows.NpyRows, "append", full)
    with pytest.raises(OSError, match="rows 0 to 3 are kept"), recorder:
        training.run(0, 9, recorder)
    monkeypatch.undo()
    assert open_trajectory(tmp_path, verify=True).steps_.tolist() == [0, 1, 2, 3]
    assert recorder.interrupted_


@pytest.mark.parametrize("store", [False, True])
def test_a_sketch_knows_its_error_and_the_ends(tmp_path, store):
    training = Training()
    with TrajectoryRecorder(
        training.module, sketch_dim=64, store=tmp_path if store else None
    ) as recorder:
        training.run(0, 8, recorder)
    rows = np.stack([*training.seen, theta(training.module)]).astype(float)
    exact = np.square(np.diff(rows, axis=0)).sum(axis=1)
    sketched = np.square(np.diff(recorder.snapshots_.astype(float), axis=0)).sum(axis=1)
    assert recorder.snapshots_.shape == (9, 64)
    np.testing.assert_allclose(recorder.sketch_error_[1:], sketched / exact - 1, atol=1e-4)
    np.testing.assert_allclose(recorder.step_lengths_[1:], np.sqrt(exact), rtol=1e-6)
    np.testing.assert_array_equal(recorder.endpoints_[0], rows[[0, -1]].astype(np.float32))
    with pytest.raises(ValueError, match="are sketches"):
        recorder.module_at(0)


def test_a_sketched_recording_goes_on(tmp_path):
    training = Training()
    settings = {"sketch_dim": 32, "store": tmp_path}
    with TrajectoryRecorder(training.module, **settings) as recorder:
        training.run(0, 4, recorder)
    with TrajectoryRecorder(training.module, **settings, resume=True, first_step=4) as recorder:
        training.run(4, 8, recorder)
    plain = Training()
    with TrajectoryRecorder(plain.module, sketch_dim=32) as whole:
        plain.run(0, 8, whole)
    for name in ("snapshots_", "step_lengths_", "sketch_error_", "start_distances_"):
        np.testing.assert_array_equal(getattr(recorder, name), getattr(whole, name), err_msg=name)
    np.testing.assert_array_equal(recorder.endpoints_[0], whole.endpoints_[0])
    np.testing.assert_allclose(recorder.start_distances_, whole.start_distances_, rtol=1e-6)


def test_a_sketch_knows_its_first_row_after_a_kill_during_a_resume(tmp_path, monkeypatch):
    """The folder is copied before each step of the resume, as a kill at that moment leaves it."""
    settings, copies = {"sketch_dim": 32, "resume": True, "first_step": 4}, []
    training = Training()
    with TrajectoryRecorder(training.module, sketch_dim=32, store=tmp_path / "run") as whole:
        training.run(0, 4, whole).save(tmp_path / "checkpoint.pt")
        training.run(4, 9, whole)
        shutil.copytree(tmp_path / "run", tmp_path / "first kill")
    names = ("snapshots_", "steps_", "start_distances_", "endpoints_")
    wanted = [np.array(getattr(whole, name)) for name in names[:3]] + [whole.endpoints_[0]]

    def copying(method):
        def copied(*args, **more):
            copies.append(tmp_path / f"killed {len(copies)}")
            shutil.copytree(tmp_path / "first kill", copies[-1])
            return method(*args, **more)

        return copied

    def resume(folder):
        again = Training().load(tmp_path / "checkpoint.pt")
        return again, TrajectoryRecorder(again.module, store=folder, **settings)

    with monkeypatch.context() as patch:
        for kind, name in (
            (Store, "_drop_rows"),
            (Store, "save_state"),
            (RowWriter, "follow"),
            (SideFiles, "remove_endpoints"),
            (SideFiles, "remove_state"),
        ):
            patch.setattr(kind, name, copying(getattr(kind, name)))
        again, recorder = resume(tmp_path / "first kill")
        with recorder:
            again.run(4, 6, recorder)
    assert len(copies) >= 5
    for folder in copies:
        again, recorder = resume(folder)
        with recorder:
            again.run(4, 9, recorder)
        found = [getattr(recorder, name) for name in names[:3]] + [recorder.endpoints_[0]]
        for name, mine, right in zip(names, found, wanted, strict=True):
            np.testing.assert_array_equal(mine, right, err_msg=f"{folder.name}: {name}")


def test_the_last_row_of_a_sketched_run_is_never_one_that_was_dropped(tmp_path):
    training, settings = Training(), {"sketch_dim": 32, "store": tmp_path / "run"}
    with TrajectoryRecorder(training.module, **settings) as recorder:
        training.run(0, 2, recorder).save(tmp_path / "checkpoint.pt")
        training.run(2, 6, recorder)
    again = Training().load(tmp_path / "checkpoint.pt")
    with TrajectoryRecorder(again.module, **settings, resume=True, first_step=2) as recorder:
        again.run(2, 3, recorder)
        found = open_trajectory(tmp_path / "run").endpoints_  # as after a kill
        assert found == {}


@pytest.mark.parametrize("name", ["run", "run.zarr"])
def test_a_reader_of_half_precision_rows_is_told_when_a_resume_drops_them(tmp_path, name):
    """New differences in the places of old ones would be added to the old rows."""
    if name == "run.zarr":
        pytest.importorskip("zarr")
    training, settings = Training(), {"dtype": "float16", "store": tmp_path / name}
    with TrajectoryRecorder(training.module, **settings) as recorder:
        training.run(0, 5, recorder).save(tmp_path / "checkpoint.pt")
        training.run(5, 9, recorder)
    rows = open_trajectory(tmp_path / name).snapshots_
    seen = np.asarray(rows)
    again = Training().load(tmp_path / "checkpoint.pt")
    with TrajectoryRecorder(again.module, **settings, resume=True, first_step=5) as recorder:
        again.run(5, 9, recorder)
        with pytest.raises(ValueError, match=rf"{name}.*row 6 was dropped\. Open it again"):
            rows[7]
        np.testing.assert_array_equal(rows[:6], seen[:6])
    new = np.asarray(open_trajectory(tmp_path / name).snapshots_)
    np.testing.assert_allclose(new, seen, atol=1e-3)


def test_half_precision_rows_are_decoded(tmp_path):
    training = Training()
    with TrajectoryRecorder(training.module, dtype="float16", store=tmp_path) as recorder:
        training.run(0, 8, recorder)
    rows = np.stack([*training.seen, theta(training.module)])
    found = np.asarray(recorder.snapshots_)
    largest = np.abs(rows - rows[0]).max()
    np.testing.assert_allclose(found, rows, rtol=0, atol=largest * 2.0**-11)


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize(
    "settings", [{}, {"dtype": "float16"}, {"sketch_dim": 32}, {"record": None}]
)
def test_a_path_to_a_checkpoint_is_as_long_as_it_was_or_straight_or_unknown(
    tmp_path, settings, is_kept
):
    """Row 3, a checkpoint at 5, and row 6 after it was resumed; a kill may lose what is kept."""
    if "record" in settings:
        settings = {"record": lambda module: module[0].bias}
    settings = settings | {"record_every": 3, "store": tmp_path / "rows"}
    first = Training()
    with TrajectoryRecorder(first.module, **settings) as recorder:
        first.run(0, 5, recorder).save(tmp_path / "checkpoint.pt")
        first.run(5, 8, recorder)
    assert recorder.steps_.tolist() == [0, 3, 6, 8]
    followed = recorder.path_lengths_[2]
    second = Training().load(tmp_path / "checkpoint.pt")
    recorder = TrajectoryRecorder(second.module, **settings, resume=True, first_step=5)
    if is_kept:
        with recorder:
            second.run(5, 12, recorder)
    else:
        (tmp_path / "rows" / "skdmap-state.bin").unlink()
        with pytest.warns(SkdmapWarning, match="could not be checked"), recorder:
            second.run(5, 12, recorder)
    assert recorder.steps_.tolist() == [0, 3, 6, 9, 12]
    assert np.isfinite(recorder.path_lengths_[[1, 3, 4]]).all()
    if is_kept:
        np.testing.assert_allclose(recorder.path_lengths_[2], followed, rtol=1e-6)
    elif "sketch_dim" in settings or "record" in settings:
        assert np.isnan(recorder.path_lengths_[2])
    else:
        rows = [*first.seen[:5], *second.seen]
        straight = np.linalg.norm(rows[5] - rows[3]) + np.linalg.norm(rows[6] - rows[5])
        assert straight < followed
        rtol = 1e-3 if "dtype" in settings else 1e-5
        np.testing.assert_allclose(recorder.path_lengths_[2], straight, rtol=rtol)


def test_a_length_from_a_row_that_is_gone_is_not_taken(tmp_path):
    """Rows 0, 2, 4 and the length from 4 to the checkpoint at 5; a power cut takes row 4."""
    training = Training()
    settings = {"record_every": 2, "store": tmp_path / "rows"}
    with TrajectoryRecorder(training.module, **settings) as recorder:
        training.run(0, 5, recorder).save(tmp_path / "checkpoint.pt")
        training.run(5, 6, recorder)
    module = Training().load(tmp_path / "checkpoint.pt").module
    writer = RowWriter(module, recorder._settings, 5)
    writer.open(store=tmp_path / "rows", resume=True)
    assert writer._prints.length(5, 4) > 0
    assert writer._prints.length(5, 2) is None
    writer.finish(0.0, interrupted=False, history={})


@pytest.mark.parametrize("along", ["line", "path"])
def test_rows_come_again_where_a_loop_goes_back_to_a_checkpoint(along):
    training = Training()
    saved = [{k: v.clone() for k, v in training.module.state_dict().items()}]
    cadence = Displacement(1e-6, along=along)
    with (  # noqa: PT031 - the loop is what warns
        pytest.warns(DivergenceWarning, match="row of step 4"),
        TrajectoryRecorder(training.module, record_every=cadence) as recorder,
    ):
        training.run(0, 3, recorder)
        with torch.no_grad():
            training.module[0].weight.fill_(torch.nan)
        training.run(3, 4, recorder)
        training.module.load_state_dict(saved[0])
        training.optimizer = torch.optim.SGD(training.module.parameters(), lr=0.05)
        training.run(4, 9, recorder)
    assert recorder.steps_.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert np.isnan(recorder.path_lengths_[[0, 4]]).all()
    assert np.isfinite(recorder.path_lengths_[5:]).all()


@pytest.mark.parametrize("settings", [{}, {"dtype": "float16"}, {"sketch_dim": 32}])
def test_a_recording_that_is_resumed_at_its_last_row_keeps_all_rows(tmp_path, settings):
    whole, part = Training(), Training()
    with TrajectoryRecorder(whole.module, **settings) as undisturbed:
        whole.run(0, 9, undisturbed)
    for start in (0, 3, 6):
        resume = {"resume": start > 0, "first_step": start, "store": tmp_path}
        with TrajectoryRecorder(part.module, **settings, **resume) as recorder:
            part.run(start, start + 3, recorder)
    wanted = undisturbed.snapshots_[:]
    # Key rows of half precision lie elsewhere.
    largest = np.abs(np.diff(wanted, axis=0)).max() if settings.get("dtype") == "float16" else 0.0
    np.testing.assert_allclose(recorder.snapshots_[:], wanted, rtol=0, atol=largest * 2.0**-10)
    read = open_trajectory(tmp_path, verify=True)
    np.testing.assert_array_equal(read.snapshots_[:], recorder.snapshots_[:])


KINDS = [
    {}, {"dtype": "float16"}, {"dtype": "float64"}, {"sketch_dim": 32},
    {"sketch_dim": 32, "dtype": "float64"}, {"parameters": "0.*"},
    {"record": ("outputs", torch.ones(3, 4))}, {"record": lambda module: module[0].bias},
    {"record": lambda module: module[3].weight.reshape(-1), "sketch_dim": 4},
]  # fmt: skip


CADENCES = [1, 3, Displacement(0.1)]
# By default each kind of row with one cadence and one format of files; the others are slow.
CASES = [
    pytest.param(
        KINDS[i], CADENCES[j], ending,
        marks=() if (i + j) % 3 == 0 and (i // 3 + j + k) % 2 == 0 else pytest.mark.slow,
    )
    for i in range(len(KINDS))
    for j in range(len(CADENCES))
    for k, ending in enumerate(["", ".zarr"])
]  # fmt: skip


@pytest.mark.parametrize(("settings", "every", "ending"), CASES)
def test_a_module_that_does_not_stand_at_the_step_told_is_an_error(
    tmp_path, settings, every, ending
):
    if ending:
        pytest.importorskip("zarr")
    folder = tmp_path / f"run{ending}"
    settings = {**settings, "record_every": every, "store": folder}
    training = Training()
    with TrajectoryRecorder(training.module, **settings) as recorder:
        for step in range(14):
            training.save(tmp_path / f"{step}.pt")
            training.run(step, step + 1, recorder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for told in (2, 7, 12, 13):
        for at in (told - 1, told + 1, 0):
            if at == 14:
                continue
            wrong = Training().load(tmp_path / f"{at}.pt")
            recorder = TrajectoryRecorder(wrong.module, **settings, resume=True, first_step=told)
            with pytest.raises(ValueError, match=f"first_step={told}: the parameters"), recorder:
                pass
    rows = {path: content for path, content in before.items() if "snapshots" in path.name}
    assert all(path.read_bytes() == content for path, content in rows.items())
    for told in (12, 7, 2):
        right = Training().load(tmp_path / f"{told}.pt")
        with TrajectoryRecorder(right.module, **settings, resume=True, first_step=told) as recorder:
            right.run(told, told + 1, recorder)
        open_trajectory(folder, verify=True)


def test_a_step_of_which_nothing_is_known_is_resumed_with_a_warning(tmp_path):
    """As in a store of an earlier version, or after a kill."""
    training = Training()
    settings = {"record_every": 4, "store": tmp_path / "run"}
    with TrajectoryRecorder(training.module, **settings) as recorder:
        training.run(0, 6, recorder).save(tmp_path / "6.pt")
        training.run(6, 12, recorder)
    for state in (tmp_path / "run").glob("*state*"):
        state.unlink()
    module = Training().load(tmp_path / "6.pt").module
    with (
        pytest.warns(SkdmapWarning, match="could not be checked"),
        TrajectoryRecorder(module, **settings, resume=True, first_step=6),
    ):
        pass
    recorder = TrajectoryRecorder(Training().module, **settings, resume=True, first_step=5)
    with pytest.raises(ValueError, match="not on the path from step 4 to step 6"), recorder:
        pass


def test_parameters_that_are_changed_in_the_block_before_its_first_step_are_warned_of():
    training, other = Training(), Training().run(0, 3)
    recorder = TrajectoryRecorder(training.module)
    with (  # noqa: PT031 - as a user writes it
        pytest.warns(SkdmapWarning, match="before its first step"),
        recorder,
    ):
        training.module.load_state_dict(other.module.state_dict())
        training.run(0, 2)
    # Another type of numbers, or another device, is no change.
    training = Training()
    with TrajectoryRecorder(training.module):
        training.module.double()
        optimizer = torch.optim.SGD(training.module.parameters(), lr=0.1)
        training.module(torch.ones(2, 4).double()).sum().backward()
        optimizer.step()


def test_a_sequence_of_steps_may_be_continued_and_says_which_steps_have_gone_by(tmp_path):
    training = Training()
    settings = {"store": tmp_path / "run", "resume": True}
    with TrajectoryRecorder(training.module, record_every=[0, 2], store=tmp_path / "run") as first:
        training.run(0, 3, first)
    longer = {"record_every": [0, 2, 4, 9], "first_step": 3, **settings}
    with TrajectoryRecorder(training.module, **longer) as second:
        training.run(3, 6, second)
    assert second.steps_.tolist() == [0, 2, 3, 4, 6]
    late = {"record_every": [0, 2, 5, 7], "first_step": 6, **settings}
    recorder = TrajectoryRecorder(training.module, **late)
    with (
        pytest.warns(SkdmapWarning, match=r"1 row of record_every is missing.*at step 5"),
        recorder,
    ):
        training.run(6, 8, recorder)
    assert recorder.steps_.tolist() == [0, 2, 3, 4, 6, 7, 8]
    for other in ([0, 3, 9], [0], 2):
        recorder = TrajectoryRecorder(training.module, record_every=other, first_step=8, **settings)
        with pytest.raises(ValueError, match=r"settings\.record_every"), recorder:
            pass


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_kill_after_a_checkpoint_costs_no_loss_and_no_length(tmp_path, order, run_script):
    """The row of the checkpoint is lost; it is taken again, with its length, when resumed."""
    script = textwrap.dedent(
        f"""
        import os, signal, sys, torch
        from skdmap import TrajectoryRecorder
        torch.manual_seed(0)
        module = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        folder, stops_at, first = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
        if first:
            module.load_state_dict(torch.load(folder + "/checkpoint.pt"))
        recorder = TrajectoryRecorder(
            module, store=folder + "/run", resume=first > 0, first_step=first
        )
        with recorder:
            for step in range(first, 9):
                loss = module(torch.full((2, 3), 1.0 + step % 3)).square().mean()
                optimizer.zero_grad()
                loss.backward()
                if {order == "before"}:
                    recorder.log(loss)
                optimizer.step()
                if {order == "after"}:
                    recorder.log(loss)
                if step == 4 and not first:
                    torch.save(module.state_dict(), folder + "/checkpoint.pt")
                if step == stops_at:
                    os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    tables = []
    for name, parts in (("whole", [(99, 0)]), ("killed", [(4, 0), (99, 5)])):
        folder = tmp_path / name
        folder.mkdir()
        for stops_at, first in parts:
            done = run_script(script, folder, stops_at, first)
            assert done.returncode == (-9 if stops_at == 4 else 0), done.stderr
        tables.append(open_trajectory(folder / "run", verify=True))
    for name in ("snapshots_", "steps_", "losses_", "learning_rates_"):
        np.testing.assert_array_equal(getattr(tables[1], name), getattr(tables[0], name))
    np.testing.assert_allclose(tables[1].path_lengths_, tables[0].path_lengths_, rtol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"burn_in": 2}, {"sketch_dim": 32}])
def test_a_resume_from_step_0_says_which_rows_are_dropped_before_it_does(tmp_path, settings):
    settings = {**settings, "store": tmp_path / "run"}
    first = Training()
    with TrajectoryRecorder(first.module, **settings) as recorder:
        first.run(0, 6, recorder)
    before = files(tmp_path / "run")
    n_dropped = len(recorder.steps_) - ("burn_in" not in settings)
    message = f"store='.*run': {n_dropped} rows after step 0 are dropped.*first_step=its step"
    again = TrajectoryRecorder(Training().module, **settings, resume=True)
    with pytest.raises(SkdmapWarning, match=message), again:  # warnings are errors here
        pass
    assert files(tmp_path / "run") == before
    again = Training()
    recorder = TrajectoryRecorder(again.module, **settings, resume=True)
    with pytest.warns(SkdmapWarning, match=message), recorder:
        again.run(0, 3, recorder)
    assert recorder.steps_[-1] == 3


def test_a_resume_where_there_are_no_rows_says_so(tmp_path):
    training = Training().run(0, 5)
    settings = {"resume": True, "first_step": 5}
    for cadence in (1, Displacement(1e-3)):
        recorder = TrajectoryRecorder(
            training.module,
            store=tmp_path / type(cadence).__name__,
            record_every=cadence,
            **settings,
        )
        with pytest.warns(SkdmapWarning, match="holds no rows: rows begin at step 5"), recorder:
            pass
    for i, late in enumerate(({"burn_in": 5}, {"burn_in": 7}, {"record_every": [6, 8]})):
        with TrajectoryRecorder(training.module, store=tmp_path / f"late-{i}", **late, **settings):
            pass


@pytest.mark.parametrize("settings", [{}, {"dtype": "float16"}, {"sketch_dim": 32}])
def test_the_path_over_missing_rows_is_unknown(tmp_path, settings):
    training = Training()
    settings = {**settings, "store": tmp_path}
    with TrajectoryRecorder(training.module, **settings) as recorder:
        training.run(0, 4, recorder)
    training.run(4, 9)
    recorder = TrajectoryRecorder(training.module, **settings, resume=True, first_step=9)
    with (
        pytest.warns(SkdmapWarning, match="4 rows are missing.*it could not be checked") as caught,
        recorder,
    ):
        training.run(9, 11, recorder)
    assert len(caught) == 1
    assert recorder.steps_.tolist() == [0, 1, 2, 3, 4, 9, 10, 11]
    assert np.flatnonzero(np.isnan(recorder.path_lengths_)).tolist() == [0, 5]


def test_a_negative_first_step_is_an_error():
    with pytest.raises(ValueError, match="first_step=-1 must not be negative"):
        TrajectoryRecorder(new_module(), first_step=-1)


def test_a_store_with_rows_says_how_to_continue_or_to_start_anew(tmp_path):
    training = Training()
    with TrajectoryRecorder(training.module, store=tmp_path):
        pass
    wanted = "holds 1 row. To continue, load your checkpoint and pass resume=True, first_step="
    with pytest.raises(FileExistsError, match=f"{wanted}.*To start anew, use another folder"):
        TrajectoryRecorder(training.module, store=tmp_path).__enter__()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_learning_rate_is_that_of_the_first_optimizer_given(order):
    """In each order of their steps, also where its scheduler acts between the two."""
    module = new_module()
    optimizers = [
        torch.optim.SGD(module[0].parameters(), lr=0.1),
        torch.optim.SGD(module[3].parameters(), lr=7.0),
    ]
    with TrajectoryRecorder(module, optimizers) as recorder:
        for _ in range(3):
            module(torch.ones(3, 4)).sum().backward()
            for i in order:
                optimizers[i].step()
                if i == 0:
                    optimizers[0].param_groups[0]["lr"] /= 2
    np.testing.assert_allclose(recorder.learning_rates_, [0.1, 0.1, 0.05, 0.025])
