"""Rows on request, and a word where no step was seen although training took place."""

import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from skdmap import Displacement, TrajectoryRecorder
from skdmap.exceptions import DivergenceWarning, SkdmapWarning


def new_module(width=8):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3))


def theta(module):
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()]).numpy().copy()


def loss_of(module):
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(32, 4, generator=generator)
    return F.cross_entropy(module(X), torch.randint(3, (32,), generator=generator))


def step_by_hand(module):
    module.zero_grad()
    loss = loss_of(module)
    loss.backward()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter -= 0.1 * parameter.grad
    return loss


@torch.no_grad()
def clip(module):
    for parameter in module.parameters():
        parameter.clamp_(-0.25, 0.25)


@pytest.mark.parametrize("order", ["a", "b"])
def test_a_loop_by_hand_has_a_row_for_each_call(order):
    module, losses = new_module(), []
    rows = [theta(module)]
    with TrajectoryRecorder(module) as recorder:
        for _ in range(4):
            loss = step_by_hand(module)
            if order == "b":
                recorder.log(loss)
            recorder.step()
            if order == "a":
                recorder.log(loss)
            rows.append(theta(module))
            losses.append(loss.item())
    np.testing.assert_array_equal(recorder.snapshots_, rows)
    np.testing.assert_array_equal(recorder.steps_, np.arange(5))
    np.testing.assert_allclose(recorder.losses_, [*losses, np.nan], rtol=1e-6)
    assert np.isnan(recorder.learning_rates_).all()
    lengths = np.linalg.norm(np.diff(np.array(rows, dtype=float), axis=0), axis=1)
    np.testing.assert_allclose(recorder.path_lengths_[1:], lengths, rtol=1e-5)


def test_a_cadence_may_decide_which_steps_by_hand_are_rows():
    module = new_module()
    with TrajectoryRecorder(module, record_every=3, burn_in=2) as recorder:
        for step in range(1, 9):
            step_by_hand(module)
            recorder.step(always=step == 4)
    assert recorder.steps_.tolist() == [3, 4, 6, 8]


@pytest.mark.parametrize("width", [8, 10_000])  # above 2^16 parameters memory is reused
@pytest.mark.parametrize("every", [1, 4, Displacement(1e-9)])
def test_a_row_is_replaced_by_what_a_loop_makes_of_the_step(width, every):
    module = new_module(width)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    clip(module)
    rows, losses = [theta(module)], []
    with TrajectoryRecorder(module, record_every=every) as recorder:
        for _ in range(6):
            optimizer.zero_grad()
            loss = loss_of(module)
            loss.backward()
            recorder.log(loss)
            optimizer.step()
            clip(module)
            recorder.step()
            rows.append(theta(module))
            losses.append(loss.item())
    np.testing.assert_array_equal(recorder.snapshots_, rows)
    np.testing.assert_array_equal(recorder.steps_, np.arange(7))
    np.testing.assert_allclose(recorder.losses_, [*losses, np.nan], rtol=1e-6)
    np.testing.assert_array_equal(recorder.learning_rates_, 0.5)
    lengths = np.linalg.norm(np.diff(np.array(rows, dtype=float), axis=0), axis=1)
    first = 1 if width == 8 else 2
    np.testing.assert_allclose(recorder.path_lengths_[first:], lengths[first - 1 :], rtol=1e-4)
    assert recorder.path_lengths_[1] >= lengths[0] * (1 - 1e-4)


def test_a_second_call_after_one_step_counts_a_step():
    module = new_module()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    rows = [theta(module)]
    with TrajectoryRecorder(module) as recorder:
        loss_of(module).backward()
        optimizer.step()
        for factor in (0.9, 0.8):
            with torch.no_grad():
                module[0].weight.mul_(factor)
            recorder.step()
            rows.append(theta(module))
    np.testing.assert_array_equal(recorder.snapshots_, rows)
    recorder.step()  # outside of the block nothing happens
    assert len(recorder.steps_) == 3


def test_without_a_call_a_row_is_the_end_of_the_step():
    module = new_module()
    optimizer, rows = torch.optim.SGD(module.parameters(), lr=0.5), [theta(module)]
    with TrajectoryRecorder(module) as recorder:
        for _ in range(3):
            loss_of(module).backward()
            optimizer.step()
            rows.append(theta(module))
            clip(module)
    np.testing.assert_array_equal(recorder.snapshots_, rows)


def averaged():
    module = new_module()
    copied, optimizer = AveragedModel(module), torch.optim.SGD(module.parameters(), lr=0.1)

    def train():
        for _ in range(3):
            loss_of(module).backward()
            optimizer.step()
            copied.update_parameters(module)

    return copied, None, train


def by_hand():
    module = new_module()
    return module, None, lambda: step_by_hand(module)


def another_of_the_same_class():
    def train():
        module = new_module()
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        loss_of(module).backward()
        optimizer.step()

    return new_module(), None, train


def another_optimizer():
    module = new_module()
    used, given = (torch.optim.SGD(module.parameters(), lr=0.1) for _ in range(2))

    def train():
        loss_of(module).backward()
        used.step()

    return module, given, train


@pytest.mark.parametrize("make", [averaged, by_hand, another_of_the_same_class, another_optimizer])
def test_training_without_a_step_that_counts_is_warned_of_with_the_ways_out(make):
    module, optimizer, train = make()
    recorder = TrajectoryRecorder(module, optimizer)
    ways_out = r"recorded no step.*recorder\.step\(\).*skorch"
    with pytest.warns(SkdmapWarning, match=ways_out), recorder:
        train()
    assert recorder.steps_.tolist() == [0]


def test_the_rows_are_there_where_the_warning_is_an_error():
    module = new_module()
    recorder = TrajectoryRecorder(module)
    with pytest.raises(SkdmapWarning, match="recorded no step"), recorder:
        step_by_hand(module)
    assert recorder.snapshots_.shape[0] == 1


def test_a_block_without_training_says_nothing():
    other = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    with TrajectoryRecorder(new_module()) as recorder:
        other(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    assert recorder.steps_.tolist() == [0]
    module = new_module()
    with pytest.raises(KeyError), TrajectoryRecorder(module):  # noqa: PT012 - as a user writes it
        step_by_hand(module)
        raise KeyError


@pytest.mark.parametrize("is_given", [False, True])
def test_recorders_in_other_threads_disturb_no_step(is_given):
    """Torch walks its hooks in each step, and raises where they are changed meanwhile."""
    errors, rows = [], []

    def train():
        module = nn.Linear(50, 50)
        optimizer = torch.optim.SGD(module.parameters(), lr=1e-6)
        try:
            for _ in range(15):
                with TrajectoryRecorder(module, optimizer if is_given else None) as recorder:
                    for _ in range(10):
                        module(torch.ones(4, 50)).square().mean().backward()
                        optimizer.step()
                rows.append(len(recorder.steps_))
        except RuntimeError as error:
            errors.append(error)

    threads = [threading.Thread(target=train) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert rows == [11] * 90


def test_a_row_that_is_replaced_by_one_that_is_not_finite_is_dropped():
    """The loss of the next block is not that of the row before."""
    module = new_module()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    recorder = TrajectoryRecorder(module)
    with (  # noqa: PT031 - the loop is what warns
        pytest.warns(DivergenceWarning, match="row of step 2 is not finite"),
        recorder,
    ):
        for step in range(2):
            optimizer.zero_grad()
            loss = loss_of(module)
            loss.backward()
            recorder.log(loss)
            optimizer.step()
            if step == 1:
                kept = module[0].weight.detach().clone()
                with torch.no_grad():
                    module[0].weight.fill_(torch.nan)
            recorder.step()
        with torch.no_grad():
            module[0].weight.copy_(kept)
        recorder.step()
    assert recorder.steps_.tolist() == [0, 1, 3]
    assert np.isnan(recorder.path_lengths_).tolist() == [True, False, True]
    assert np.isfinite(recorder.losses_[:2]).all()


@pytest.mark.parametrize("order", ["a", "b"])
def test_losses_of_every_third_step_by_hand_are_those_of_their_rows(order):
    module, wanted = new_module(), []
    with TrajectoryRecorder(module) as recorder:
        for step in range(9):
            module.zero_grad()
            loss = loss_of(module)
            loss.backward()
            if order == "b" and step % 3 == 2:
                recorder.log(loss)
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter -= 0.1 * parameter.grad
            recorder.step()
            if order == "a" and step % 3 == 2:
                recorder.log(loss)
            wanted.append(loss.item() if step % 3 == 2 else np.nan)
    np.testing.assert_allclose(recorder.losses_, [*wanted, np.nan], rtol=1e-6)
