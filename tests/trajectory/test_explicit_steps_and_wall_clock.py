"""record_every as a sequence of steps and as WallClock, in the sampler and in the recorder."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.nn import functional as F

from skdmap import TrajectoryRecorder, TrajectorySampler, WallClock, open_trajectory
from skdmap.trajectory import _cadence
from skdmap.trajectory._cadence import RowTimer, explicit_steps
from skdmap.trajectory._storage import store as _store

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 4)), np.arange(60) % 3


class Clock:
    """Time that stands still unless it is told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def loss(self, outputs, targets):
        """A loss that takes a second, where it is that of a batch of the training loop."""
        if outputs.requires_grad and len(outputs) > 2:
            self.now += 1.0
        return F.cross_entropy(outputs, targets)


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(_cadence, "monotonic", made)
    return made


def sampler(record_every, **params):
    # 12 batches of 5 a pass, 24 steps.
    settings = {"max_epochs": 2, "batch_size": 5, "random_state": 0, **params}
    return TrajectorySampler(record_every=record_every, **settings)


def loop(recorder, module, optimizer, clock=None, n_steps=24):
    for _ in range(n_steps):
        loss = F.cross_entropy(module(torch.tensor(X).float()), torch.tensor(Y))
        optimizer.zero_grad()
        loss.backward()
        recorder.log(loss)
        if clock is not None:
            clock.now += 1.0
        optimizer.step()


def record(record_every, clock=None, n_steps=24, **params):
    torch.manual_seed(0)
    module = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with TrajectoryRecorder(module, optimizer, record_every=record_every, **params) as recorder:
        loop(recorder, module, optimizer, clock, n_steps)
    return recorder


KINDS = [list, tuple, np.array, lambda s: np.array(s, dtype=np.uint8), torch.tensor]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [[0, 3, 17], [5], [1, 2, 24]])
def test_the_steps_given_and_the_last_one_are_rows(kind, steps):
    whole, expected = sampler(1).fit(X, Y), sorted({*steps, 24})
    fitted = sampler(kind(steps)).fit(X, Y)
    assert fitted.steps_.tolist() == expected
    assert np.array_equal(fitted.snapshots_, whole.snapshots_[expected])
    assert np.array_equal(fitted.losses_, whole.losses_[expected])
    lengths = np.add.reduceat(whole.path_lengths_, np.array(expected[:-1]) + 1)
    np.testing.assert_allclose(fitted.path_lengths_[1:], lengths)
    assert record(kind(steps)).steps_.tolist() == expected


def test_a_range_is_a_sequence_of_steps():
    assert sampler(range(2, 20, 6)).fit(X, Y).steps_.tolist() == [2, 8, 14, 24]
    assert record(range(2, 20, 6)).steps_.tolist() == [2, 8, 14, 24]


def test_burn_in_drops_steps_of_a_sequence():
    assert sampler([0, 3, 17], burn_in=4).fit(X, Y).steps_.tolist() == [17, 24]
    assert record([0, 3, 17], burn_in=4).steps_.tolist() == [17, 24]


def test_runs_in_a_batch_record_the_steps_of_a_sequence():
    fitted = sampler([0, 3, 17], n_runs=2, vectorize=True).fit(X, Y)
    assert fitted.steps_.tolist() == [0, 0, 3, 3, 17, 17, 24, 24]


def test_steps_of_later_calls_come_when_they_are_reached():
    fitted = sampler([0, 20, 30, 40], warm_start=True).fit(X, Y)
    assert fitted.fit(X, Y).steps_.tolist() == [0, 20, 24, 30, 40, 48]
    passes = sampler([0, 20, 30])
    for _ in range(3):
        passes.partial_fit(X, Y)
    assert passes.steps_.tolist() == [0, 12, 20, 24, 30, 36]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "non-empty"),
        ([3, 3], r"record_every\[1\]=3 follows 3; it must be larger"),
        ([0, 5, 4], r"record_every\[2\]=4 follows 5"),
        (np.array([5, 4], dtype=np.uint64), r"record_every\[1\]=4 follows 5"),
        ([-1, 4], "contains the step -1"),
        ([0.0, 4.0], "dtype float64"),
        ([True, False], "dtype bool"),
        ([[0, 4]], r"shape \(1, 2\)"),
        (np.array(4), r"shape \(\)"),
        ({1, 2}, "shape"),
        ({0: 1}, "shape"),
    ],
)
def test_steps_out_of_order_or_range_are_named_before_training(steps, message):
    with pytest.raises(ValueError, match=rf"record_every.*{message.removeprefix('record_every')}"):
        explicit_steps(steps)
    with pytest.raises(ValueError, match="record_every"):
        sampler(steps).fit(X, Y)
    with pytest.raises(ValueError, match="record_every"):
        record(steps)


@pytest.mark.parametrize("value", ["every", 0, 2.5, None])
def test_what_is_not_a_cadence_is_an_error_that_lists_them(value):
    with pytest.raises(ValueError, match=r"record_every.*a sequence of steps.*WallClock"):
        sampler(value).fit(X, Y)
    with pytest.raises(ValueError, match=r"record_every.*a sequence of steps.*WallClock"):
        record(value)


def test_a_step_that_the_run_does_not_reach_is_an_error():
    with pytest.raises(ValueError, match=r"contains the step 30, but the run has 24 steps"):
        sampler([0, 30]).fit(X, Y)


def test_a_store_is_resumed_with_the_same_steps_of_any_type(tmp_path):
    whole = sampler([0, 3, 10, 17]).fit(X, Y)
    stop = {"callbacks": lambda step, *_: step == 10}
    sampler([0, 3, 10, 17], store=tmp_path / "a", **stop).fit(X, Y)
    again = sampler(np.array([0, 3, 10, 17]), store=tmp_path / "a", resume=True).fit(X, Y)
    assert np.array_equal(again.snapshots_, whole.snapshots_[:3])  # the callback ended that run
    with pytest.raises(ValueError, match="record_every"):
        sampler([0, 3, 10, 18], store=tmp_path / "a", resume=True).fit(X, Y)
    record([0, 3, 20], store=tmp_path / "b", n_steps=10)
    with pytest.raises(ValueError, match="record_every"):
        record([0, 4, 20], store=tmp_path / "b", resume=True, first_step=10)


@pytest.mark.parametrize(("seconds", "steps"), [(5, [0, 5, 10, 15, 20, 24]), (30, [0, 24])])
def test_a_row_comes_when_the_seconds_have_passed(clock, seconds, steps):
    whole = sampler(1).fit(X, Y)
    fitted = sampler(WallClock(seconds), criterion=clock.loss).fit(X, Y)
    assert fitted.steps_.tolist() == steps
    np.testing.assert_array_equal(fitted.snapshots_, whole.snapshots_[steps])
    assert record(WallClock(seconds), clock).steps_.tolist() == steps


def test_the_clock_begins_with_the_first_row_after_the_burn_in(clock):
    fitted = sampler(WallClock(5), criterion=clock.loss, burn_in=7).fit(X, Y)
    assert fitted.steps_.tolist() == [7, 12, 17, 22, 24]
    assert record(WallClock(5), clock, burn_in=7).steps_.tolist() == [7, 12, 17, 22, 24]


def test_time_between_calls_does_not_count(clock):
    fitted = sampler(WallClock(10), criterion=clock.loss, warm_start=True)
    fitted.fit(X, Y)
    clock.now += 1000
    assert fitted.fit(X, Y).steps_.tolist() == [0, 10, 20, 24, 34, 44, 48]


def test_runs_in_a_batch_share_a_clock(monkeypatch):
    times = iter(np.arange(10**6) * 0.1)
    monkeypatch.setattr(_cadence, "monotonic", lambda: next(times))
    fitted = sampler(WallClock(0.55), n_runs=2, vectorize=True).fit(X, Y)
    whole = sampler(1, n_runs=2, vectorize=True).fit(X, Y)
    assert fitted.steps_[0] == 0
    assert fitted.steps_[-1] == 24
    assert 4 < len(fitted.steps_) < 30
    assert np.array_equal(fitted.steps_[::2], fitted.steps_[1::2])
    places = 2 * fitted.steps_ + fitted.run_ids_
    assert np.array_equal(fitted.snapshots_, whole.snapshots_[places])


def test_a_resumed_run_waits_on_from_its_last_row(clock, tmp_path, monkeypatch):
    monkeypatch.setattr(_store, "_STATE_EVERY", 0.0)
    whole = sampler(1).fit(X, Y)

    class Killed(BaseException):
        pass

    def dying(outputs, targets):
        if clock.now == 13:
            raise Killed
        return clock.loss(outputs, targets)

    settings = {"store": tmp_path / "a", "record_every": WallClock(5)}
    with pytest.raises(Killed):
        sampler(criterion=dying, **settings).fit(X, Y)
    clock.now += 1000  # while nothing runs
    resumed = sampler(criterion=_renamed(clock.loss, dying), resume=True, **settings).fit(X, Y)
    steps = resumed.steps_.tolist()
    assert steps == [0, 5, 10, 15, 20, 24]
    assert np.array_equal(resumed.snapshots_, whole.snapshots_[steps])
    assert open_trajectory(tmp_path / "a", verify=True).steps_.tolist() == steps


def _renamed(function, as_function):
    """Return a function of another's name, which is what a store knows of it."""

    def same(outputs, targets):
        return function(outputs, targets)

    same.__module__, same.__qualname__ = as_function.__module__, as_function.__qualname__
    return same


def test_a_resumed_recorder_begins_to_wait_when_it_is_entered(clock, tmp_path):
    torch.manual_seed(0)
    module = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    settings = {"record_every": WallClock(5), "store": tmp_path / "a"}
    with TrajectoryRecorder(module, optimizer, **settings) as recorder:
        loop(recorder, module, optimizer, clock, 12)
    assert recorder.steps_.tolist() == [0, 5, 10, 12]
    clock.now += 1000
    with TrajectoryRecorder(module, optimizer, resume=True, first_step=12, **settings) as recorder:
        loop(recorder, module, optimizer, clock, 12)
    assert recorder.steps_.tolist() == [0, 5, 10, 12, 17, 22, 24]


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), "1", True, None])
def test_seconds_out_of_range_are_named(seconds):
    with pytest.raises(ValueError, match=rf"WallClock: seconds={seconds!r} must be a finite"):
        WallClock(seconds)


def test_a_clock_clones_and_pickles():
    fitted = pickle.loads(pickle.dumps(clone(sampler(WallClock(1000))).fit(X, Y)))
    assert fitted.record_every == WallClock(1000)
    assert fitted.steps_.tolist() == [0, 24]


def test_no_other_cadence_waits(clock):
    timer = RowTimer(3)
    clock.now = 1e9
    assert not timer.is_due
