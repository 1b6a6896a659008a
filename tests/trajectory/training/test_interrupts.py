"""Ctrl-C ends training and keeps the recorded rows."""

import signal

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skdmap import TrajectorySampler
from skdmap._parameters import flatten_parameters
from skdmap.exceptions import SkdmapWarning

COLUMNS = [
    "snapshots_", "steps_", "epochs_", "run_ids_", "losses_", "learning_rates_", "buffers_",
]  # fmt: skip


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 15)
    return rng.normal(size=(45, 4)) + 2 * np.eye(3, 4)[y], y


def sampler(**params):
    return TrajectorySampler(**{"max_epochs": 3, "batch_size": 16, "random_state": 0, **params})


class Interrupting(nn.Module):
    """Cross-entropy that presses Ctrl-C at some of its calls."""

    calls = 0

    def __init__(self, *at):
        super().__init__()
        self.at = at

    def forward(self, outputs, targets):
        Interrupting.calls += 1
        if Interrupting.calls in self.at:
            signal.raise_signal(signal.SIGINT)
        return F.cross_entropy(outputs, targets)


def interrupted(method, *data):
    Interrupting.calls = 0
    with pytest.warns(SkdmapWarning, match=r"Ctrl-C ended training after step \d+ of run \d"):
        return method(*data)


def test_an_interrupt_ends_after_the_step_and_keeps_what_was_recorded(blobs):
    whole = sampler(n_runs=3).fit(*blobs)
    assert not whole.interrupted_
    # One call to try the module, ten of run 0; then one and six of run 1: step 6 is made.
    cut = interrupted(sampler(n_runs=3, criterion=Interrupting(1 + 10 + 1 + 6)).fit, *blobs)
    assert cut.interrupted_
    assert cut.run_ids_.tolist() == 10 * [0] + 6 * [1]
    for name in COLUMNS:
        assert np.array_equal(getattr(cut, name), getattr(whole, name)[:16])
    assert len(cut.modules_) == 2
    # The module stands after the step under way.
    last = flatten_parameters(cut.module_, cut.parameter_layout_).numpy()
    assert np.array_equal(last, whole.snapshots_[16])
    assert cut.module_at(3)(torch.zeros(1, 4)).shape == (1, 3)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_interrupt_is_passed_on_at_once(blobs):
    Interrupting.calls = 0
    state = torch.get_rng_state()
    twice = sampler(criterion=Interrupting(4, 5), optimizer="LBFGS")
    with pytest.raises(KeyboardInterrupt):
        twice.fit(*blobs)
    assert Interrupting.calls == 5
    assert torch.equal(torch.get_rng_state(), state)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_between_runs_begins_no_other(blobs):
    # The last call of run 0 looks at the last row once more.
    cut = interrupted(sampler(n_runs=3, criterion=Interrupting(1 + 10)).fit, *blobs)
    assert cut.run_ids_.tolist() == 10 * [0]
    assert len(cut.modules_) == 1


def test_an_interrupted_pass_keeps_the_runs_it_did_not_reach(blobs):
    Interrupting.calls = 0
    two = sampler(n_runs=2, criterion=Interrupting(2 * 11 + 1 + 2)).fit(*blobs)
    assert Interrupting.calls == 2 * 11  # each run: one try, nine steps, the last row
    with pytest.warns(SkdmapWarning, match="after step 11 of run 0"):
        two.partial_fit(*blobs)
    assert two.interrupted_
    assert two.steps_[20:].tolist() == [10]
    assert len(two.modules_) == 2
    assert not two.partial_fit(*blobs).interrupted_
    assert two.run_ids_[21:].tolist() == 4 * [0] + 3 * [1]
    assert two.steps_[21:].tolist() == [11, 12, 13, 14, 10, 11, 12]


def test_an_interrupt_before_the_first_row_is_passed_on(blobs):
    Interrupting.calls = 0
    state = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        sampler(criterion=Interrupting(2), burn_in=5).fit(*blobs)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_handler_of_the_users_stays_in_place(blobs):
    taken = []
    before = signal.signal(signal.SIGINT, lambda *args: taken.append(args))
    try:
        Interrupting.calls = 0
        fitted = sampler(criterion=Interrupting(4)).fit(*blobs)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(taken) == 1
    assert not fitted.interrupted_
