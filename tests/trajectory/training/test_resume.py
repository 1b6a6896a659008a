"""fit with store=: what is on disk, and what resume=True makes of a run that was cut off."""

import json
import pickle
import signal

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skdmap import Displacement, LogSpaced, TrajectorySampler, open_trajectory
from skdmap.exceptions import SkdmapWarning
from skdmap.trajectory._storage import store as _store

COLUMNS = [
    "steps_", "epochs_", "run_ids_", "losses_", "learning_rates_", "path_lengths_", "buffers_",
]  # fmt: skip
FILES = ["skdmap-snapshots.npy", "skdmap-buffers.npy", "skdmap-journal.jsonl"]


class Noisy(nn.Sequential):
    """Batch normalisation and dropout: buffers, and a stream of its own."""

    def __init__(self):
        super().__init__(
            nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3)
        )


class CutError(Exception):
    """What a kill is to the code that runs."""


class Cutting(nn.Module):
    """Cross-entropy that ends the process' work at one of its calls."""

    calls, at = 0, None

    def forward(self, outputs, targets):
        Cutting.calls += 1
        if Cutting.calls == Cutting.at:
            raise CutError
        return F.cross_entropy(outputs, targets)


class ByLoss(torch.optim.lr_scheduler.ReduceLROnPlateau):
    """A rate that depends on every digit of the mean loss."""

    def step(self, metrics, epoch=None):
        for group in self.optimizer.param_groups:
            group["lr"] = 0.05 / (1 + metrics)


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 15)
    return rng.normal(size=(45, 4)) + 2 * np.eye(3, 4)[y], y


@pytest.fixture(autouse=True)
def _calls():
    Cutting.calls, Cutting.at = 0, None


def sampler(store, **params):
    settings = {
        "module": Noisy, "criterion": Cutting(), "max_epochs": 3, "batch_size": 16,
        "random_state": 0, "store": store, "optimizer_params": {"lr": 0.05},
    }  # fmt: skip
    return TrajectorySampler(**{**settings, **params})


def bytes_of(folder):
    return {name: (folder / name).read_bytes() for name in FILES if (folder / name).exists()}


def cut(store, at, blobs, **params):
    Cutting.calls, Cutting.at = 0, at
    with pytest.raises(CutError):
        sampler(store, **params).fit(*blobs)
    Cutting.at = None


SETTINGS = {
    "momentum": {"optimizer_params": {"lr": 0.05, "momentum": 0.9}},
    "adam": {"optimizer": "Adam", "optimizer_params": {"lr": 0.01}},
    "lbfgs": {"optimizer": "LBFGS", "optimizer_params": {"lr": 0.1, "max_iter": 3}},
    "scheduler": {
        "optimizer_params": {"lr": 0.05, "momentum": 0.9}, "scheduler": "OneCycleLR",
        "scheduler_params": {"max_lr": 0.2, "total_steps": 20}, "scheduler_interval": "step",
    },
    "plateau": {"scheduler": ByLoss},
    "runs": {"n_runs": 3, "label_noise": 0.2},
    "sketch": {"sketch_dim": 16, "n_runs": 2},
    "half": {"dtype": "float16"},
    "line": {"record_every": Displacement(0.1)},
    "path": {"record_every": Displacement(0.1, along="path"), "n_runs": 2},
    "log": {"record_every": LogSpaced(5), "burn_in": 1},
    "outputs": {"record": "outputs", "record_every": 2},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "every"),
    # Without a state on disk all begins again.
    [(name, 0.0) for name in SETTINGS] + [(name, 1e9) for name in ("runs", "sketch", "half")],
)
def test_a_run_that_was_cut_off_goes_on_bit_for_bit(name, every, blobs, tmp_path, monkeypatch):
    """Cut twice, resumed twice; equal to the run in one piece, in every byte on disk."""
    monkeypatch.setattr(_store, "_STATE_EVERY", every)
    params = SETTINGS[name]
    whole = sampler(tmp_path / "whole", **params).fit(*blobs)
    n_calls = Cutting.calls
    folder = tmp_path / "cut"
    cut(folder, n_calls // 3, blobs, **params)
    cut(folder, n_calls // 3 + 1, blobs, resume=True, **params)
    resumed = sampler(folder, resume=True, **params).fit(*blobs)
    assert bytes_of(folder) == bytes_of(tmp_path / "whole")
    assert np.array_equal(np.asarray(resumed.snapshots_), np.asarray(whole.snapshots_))
    for column in COLUMNS:
        a, b = getattr(resumed, column), getattr(whole, column)
        assert np.array_equal(a, b, equal_nan=True), column
    for key, values in whole.history_.items():
        assert np.array_equal(resumed.history_[key], values)
    for a, b in zip(resumed.modules_, whole.modules_, strict=True):
        for key, value in b.state_dict().items():
            assert torch.equal(a.state_dict()[key], value)


@pytest.mark.parametrize("at", range(2, 23, 3))
def test_wherever_it_is_cut(at, blobs, tmp_path, monkeypatch):
    monkeypatch.setattr(_store, "_STATE_EVERY", 0.0)
    params = SETTINGS["scheduler"] | {"n_runs": 2, "record_every": 2}
    sampler(tmp_path / "whole", **params).fit(*blobs)
    cut(tmp_path / "cut", at, blobs, **params)
    sampler(tmp_path / "cut", resume=True, **params).fit(*blobs)
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


def test_rows_on_disk_are_those_in_memory(blobs, tmp_path):
    stored, kept = (sampler(store, n_runs=2).fit(*blobs) for store in (tmp_path / "a", None))
    assert np.array_equal(np.load(tmp_path / "a" / "skdmap-snapshots.npy"), kept.snapshots_)
    opened = open_trajectory(tmp_path / "a", verify=True, module=Noisy)
    for column in ["snapshots_", *COLUMNS]:
        for other in (stored, opened):
            assert np.array_equal(getattr(other, column), getattr(kept, column), equal_nan=True)
    assert not stored.snapshots_.flags.writeable
    for i in (0, 7, -1):
        for key, value in kept.module_at(i).state_dict().items():
            assert torch.equal(opened.module_at(i).state_dict()[key], value)
            assert torch.equal(stored.module_at(i).state_dict()[key], value)
    assert len(opened.modules_) == 2
    lines = (tmp_path / "a" / "skdmap-journal.jsonl").read_text().splitlines()[1:]
    assert [json.loads(line)["loss"] for line in lines] == kept.losses_.tolist()


def test_a_stored_sampler_pickles_as_its_path(blobs, tmp_path):
    big = sampler(tmp_path / "a", module=None, module_params={"hidden": 20_000}).fit(*blobs)
    content = pickle.dumps(big.set_params(criterion=None))
    assert len(content) < big.snapshots_.nbytes / 4
    loaded = pickle.loads(content)
    assert np.array_equal(loaded.snapshots_, big.snapshots_)
    assert str(tmp_path) in str(loaded.snapshots_.filename)


def test_a_folder_with_rows_is_an_error_without_resume(blobs, tmp_path):
    sampler(tmp_path / "a").fit(*blobs)
    before = bytes_of(tmp_path / "a")
    with pytest.raises(FileExistsError, match=r"holds 10 rows.*resume=True"):
        sampler(tmp_path / "a").fit(*blobs)
    assert bytes_of(tmp_path / "a") == before


def test_a_run_that_is_over_is_not_trained_again(blobs, tmp_path):
    whole = sampler(tmp_path / "a", n_runs=2).fit(*blobs)
    before, Cutting.calls = bytes_of(tmp_path / "a"), 0
    again = sampler(tmp_path / "a", n_runs=2, resume=True).fit(*blobs)
    assert Cutting.calls == 2  # y is tried on the module of each run
    assert bytes_of(tmp_path / "a") == before
    # What comes after it comes after it.
    for one in (whole, again):
        one.set_params(store=None, resume=False)
    for key in ("loss", "epoch"):
        assert np.array_equal(whole.history_[key], again.history_[key])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"optimizer_params": {"lr": 0.06}},
            r"optimizer_params\.lr is 0\.05 in the store and 0\.06 here",
        ),
        ({"random_state": 1}, r"seeds\.master is 0 in the store and 1 here"),
        ({"max_epochs": 4}, "max_epochs is 3 in the store and 4 here"),
        ({"dtype": "float64"}, "dtype is 'float32' in the store"),
        ({"module": None}, "with other settings"),
    ],
)
def test_other_settings_are_an_error(params, message, blobs, tmp_path):
    cut(tmp_path / "a", 6, blobs)
    before = bytes_of(tmp_path / "a")
    with pytest.raises(ValueError, match=message):
        sampler(tmp_path / "a", resume=True, **params).fit(*blobs)
    assert bytes_of(tmp_path / "a") == before


def test_other_data_are_an_error(blobs, tmp_path):
    X, y = blobs
    cut(tmp_path / "a", 6, blobs)
    for changed in ((X + 1e-9, y), (X, y[::-1])):
        with pytest.raises(ValueError, match=r"settings\.data\.[Xy] is"):
            sampler(tmp_path / "a", resume=True).fit(*changed)


def test_a_seed_left_open_is_the_stored_one(blobs, tmp_path):
    cut(tmp_path / "a", 9, blobs, random_state=None)
    first = np.load(tmp_path / "a" / "skdmap-snapshots.npy")
    resumed = sampler(tmp_path / "a", random_state=None, resume=True).fit(*blobs)
    assert np.array_equal(resumed.snapshots_[: len(first)], first)
    assert len(resumed.snapshots_) == 10


def test_an_interrupted_fit_is_resumed(blobs, tmp_path):
    def press(step, loss, module):
        if step == 4:
            signal.raise_signal(signal.SIGINT)

    whole = sampler(tmp_path / "whole", n_runs=2).fit(*blobs)
    with pytest.warns(SkdmapWarning, match="Ctrl-C"):
        first = sampler(tmp_path / "cut", n_runs=2, callbacks=press).fit(*blobs)
    assert first.interrupted_
    assert open_trajectory(tmp_path / "cut").interrupted_
    assert first.steps_.tolist() == [0, 1, 2, 3, 4]
    resumed = sampler(tmp_path / "cut", n_runs=2, resume=True).fit(*blobs)
    assert not resumed.interrupted_
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")
    assert np.array_equal(resumed.snapshots_, whole.snapshots_)


@pytest.mark.parametrize("params", [{}, {"sketch_dim": 16}, {"dtype": "float16"}])
def test_passes_one_by_one_go_to_the_store(params, blobs, tmp_path):
    stored = sampler(tmp_path / "a", optimizer="Adam", n_runs=2, **params)
    kept = sampler(None, optimizer="Adam", n_runs=2, **params)
    for _ in range(3):
        stored.partial_fit(*blobs)
        kept.partial_fit(*blobs)
    assert np.array_equal(np.asarray(stored.snapshots_), np.asarray(kept.snapshots_))
    for column in COLUMNS:
        assert np.array_equal(getattr(stored, column), getattr(kept, column), equal_nan=True)


def test_a_warm_start_appends_to_the_store(blobs, tmp_path):
    whole = sampler(None).fit(*blobs)
    warm = sampler(tmp_path / "a", max_epochs=1, warm_start=True)
    for _ in range(3):
        warm.fit(*blobs)
    assert np.array_equal(warm.snapshots_, whole.snapshots_)
    assert np.array_equal(warm.losses_, whole.losses_)
    assert np.array_equal(open_trajectory(tmp_path / "a").losses_, whole.losses_)


def test_partial_fit_does_not_resume(blobs, tmp_path):
    with pytest.raises(ValueError, match=r"resume=True.*partial_fit cannot know"):
        sampler(tmp_path / "a", resume=True).partial_fit(*blobs)


def test_a_module_of_another_type_than_the_stored_one_is_an_error(blobs, tmp_path, monkeypatch):
    monkeypatch.setattr(_store, "_STATE_EVERY", 0.0)

    def ending(step, loss, module):
        if step == 4:
            raise KeyError("an end without a last state")

    with pytest.raises(KeyError):
        TrajectorySampler(store=tmp_path / "a", random_state=0, callbacks=ending).fit(*blobs)
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(ValueError, match=r"0.weight of the module is torch.float64 here and"):
            TrajectorySampler(store=tmp_path / "a", random_state=0, resume=True).fit(*blobs)
    finally:
        torch.set_default_dtype(torch.float32)
