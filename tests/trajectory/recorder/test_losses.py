"""The loss of a row is the loss at the row, whether it is logged before or after the step."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skdmap import TrajectoryRecorder
from skdmap.exceptions import SkdmapWarning
from skdmap.trajectory._stored_trajectory import open_trajectory


@pytest.fixture
def training():
    """A module, its optimizer, and a function from a batch to the loss."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)

    def loss_of(step):
        generator = torch.Generator().manual_seed(step)
        X = torch.randn(8, 4, generator=generator)
        return F.mse_loss(module(X), X[:, :2])

    return module, optimizer, loss_of


def run(training, recorder, orders, *, log_every=1):
    """Train one step for each letter: b logs before the step, a after it, n not at all."""
    _, optimizer, loss_of = training
    true = []
    for step, order in enumerate(orders):
        optimizer.zero_grad()
        loss = loss_of(step)
        loss.backward()
        if order == "b" and step % log_every == 0:
            recorder.log(loss)
        optimizer.step()
        if order == "a" and step % log_every == 0:
            recorder.log(loss.item())
        true.append(loss.item())
    return np.array([*true, np.nan])


@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("order", ["a", "b"])
def test_losses_are_those_of_the_rows_in_either_order(training, tmp_path, order, every, store):
    folder = tmp_path / "run" if store else None
    with TrajectoryRecorder(training[0], record_every=every, store=folder) as recorder:
        true = run(training, recorder, order * 8)
    np.testing.assert_allclose(recorder.losses_, true[recorder.steps_], rtol=1e-6)
    if store:
        read = open_trajectory(folder, verify=True)
        np.testing.assert_array_equal(read.losses_, recorder.losses_)


@pytest.mark.parametrize("order", ["a", "b"])
def test_losses_that_are_logged_at_some_steps_stand_at_their_rows(training, order):
    with TrajectoryRecorder(training[0]) as recorder:
        true = run(training, recorder, order * 9, log_every=2)
    wanted = np.where(np.arange(10) % 2 == 0, true, np.nan)
    wanted[-1] = np.nan
    np.testing.assert_allclose(recorder.losses_, wanted, rtol=1e-6)


@pytest.mark.parametrize("logged", [[0, 1, 2, 4, 7, 14], [0, 1, 2, 3, 10, 11, 12], [3, 4, 6, 9]])
def test_an_irregular_log_is_not_taken_for_a_change_of_order(training, logged):
    orders = ["b" if step in logged else "n" for step in range(16)]
    orders[0] = "b"
    with TrajectoryRecorder(training[0]) as recorder:
        true = run(training, recorder, orders)
    kept = [step for step, order in enumerate(orders) if order == "b"]
    np.testing.assert_allclose(recorder.losses_[kept], true[kept], rtol=1e-6)


@pytest.mark.parametrize(
    ("orders", "message"),
    [
        ("bbbaa", "before each step of this block"),
        ("baaa", "before each step of this block"),
        ("aaab", "twice after one step"),
        ("ab", "twice after one step"),
    ],
)
def test_a_change_of_order_within_a_block_is_an_error_that_keeps_the_rows(
    training, orders, message
):
    recorder = TrajectoryRecorder(training[0])
    with pytest.raises(ValueError, match=message), recorder:
        run(training, recorder, orders)
    assert len(recorder.steps_) >= 2
    with recorder:  # each block has its own order
        run(training, recorder, "aaa")


def test_the_loss_of_the_last_row_of_a_block_comes_with_the_next_block(training):
    recorder = TrajectoryRecorder(training[0])
    true = []
    for order in ("a", "a", "b"):
        with recorder:
            true += run(training, recorder, order * 3)[:-1].tolist()
    np.testing.assert_allclose(recorder.losses_, [*true, np.nan], rtol=1e-6)


@pytest.mark.parametrize("order", ["a", "b"])
@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_grad_scaler_skips_shifts_no_loss(order, fused):
    module = nn.Linear(4, 2)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)
    X, wanted = torch.randn(8, 4), []
    with TrajectoryRecorder(module) as recorder:
        for step in range(8):
            optimizer.zero_grad()
            loss = module(X).square().mean()
            scaler.scale(loss).backward()
            if order == "b":
                recorder.log(loss)
            if step in (3, 6):
                module.weight.grad[0, 0] = torch.inf
            else:
                wanted.append(loss.item())
            scaler.step(optimizer)
            scaler.update()
            if order == "a":
                recorder.log(loss)
    np.testing.assert_allclose(recorder.losses_, [*wanted, np.nan], rtol=1e-6)


def test_a_loss_that_is_not_a_number_is_named(training):
    with TrajectoryRecorder(training[0]) as recorder:
        for loss in (torch.zeros(3), "0.3", None):
            with pytest.raises(ValueError, match="must be one number"):
                recorder.log(loss)


@pytest.mark.parametrize("accumulate", [2, 4])
@pytest.mark.parametrize("after", [False, True])
def test_losses_of_accumulated_gradients_are_their_mean_or_an_error(training, accumulate, after):
    module, optimizer, loss_of = training
    wanted = []

    def loop():
        for batch in range(4 * accumulate):
            loss = loss_of(batch)
            wanted.append(loss.item())
            (loss / accumulate).backward()
            if not after:
                recorder.log(loss)
            if (batch + 1) % accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()
            if after:  # at the end of each iteration: the last loss of a step comes after it
                recorder.log(loss)

    recorder = TrajectoryRecorder(module)
    if after:
        with pytest.raises(ValueError, match="before the second one"), recorder:
            loop()
        return
    with recorder:
        loop()
    means = np.reshape(wanted, (4, accumulate)).mean(axis=1)
    np.testing.assert_allclose(recorder.losses_, [*means, np.nan], rtol=1e-6)


def test_a_step_over_fewer_batches_is_no_error(training):
    module, optimizer, loss_of = training
    with TrajectoryRecorder(module) as recorder:
        for n_batches in (4, 3, 4, 3, 1):
            for batch in range(n_batches):
                recorder.log(loss_of(batch))
            loss_of(0).backward()
            optimizer.step()
    assert np.isfinite(recorder.losses_[:-1]).all()


def test_a_closure_logs_the_last_of_several_losses(training):
    module, optimizer, loss_of = training

    def closure():
        loss = loss_of(2)
        recorder.log(loss)
        loss.backward()
        return loss / 3

    wanted = []
    with TrajectoryRecorder(module) as recorder:
        for _ in range(3):
            optimizer.zero_grad()
            wanted.append(np.mean([loss_of(i).item() for i in range(3)]))
            for i in (0, 1):
                recorder.log(loss_of(i))
            optimizer.step(closure)
    np.testing.assert_allclose(recorder.losses_, [*wanted, np.nan], rtol=1e-6)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("each", [False, True])
def test_one_loss_after_steps_of_two_optimizers_is_warned_of_unless_both_are_given(given, each):
    module = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    pair = [torch.optim.SGD(part.parameters(), lr=0.1) for part in (module[0], module[2])]
    recorder, wanted = TrajectoryRecorder(module, pair if given else None), []

    def loop():
        for _ in range(4):
            loss = module(torch.ones(3, 4)).square().mean()
            loss.backward()
            wanted.append(loss.item())
            for optimizer in pair:
                optimizer.step()
                optimizer.zero_grad()
                if each and not given:
                    recorder.log(loss)
            if not each or given:
                recorder.log(loss)

    if each or given:
        with recorder:
            loop()
    else:
        with pytest.warns(SkdmapWarning, match="steps of 2 opt.*optimizer=") as caught, recorder:
            loop()
        assert len(caught) == 1
    if given:
        np.testing.assert_allclose(recorder.losses_, [*wanted, np.nan], rtol=1e-6)


def test_one_loss_before_steps_of_two_optimizers_is_that_of_its_row():
    module = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    pair = [torch.optim.SGD(part.parameters(), lr=0.1) for part in (module[0], module[2])]
    wanted = []
    with TrajectoryRecorder(module) as recorder:
        for _ in range(4):
            loss = module(torch.ones(3, 4)).square().mean()
            loss.backward()
            recorder.log(loss)
            wanted += [loss.item(), np.nan]
            for optimizer in pair:
                optimizer.step()
                optimizer.zero_grad()
    np.testing.assert_allclose(recorder.losses_, [*wanted, np.nan], rtol=1e-6)


@pytest.mark.parametrize("sets_to_none", [True, False])
@pytest.mark.parametrize("order", ["a", "b"])
def test_losses_of_every_third_step_are_those_of_their_rows_though_steps_come_first(
    training, order, sets_to_none
):
    module, optimizer, loss_of = training
    wanted = []
    with TrajectoryRecorder(module) as recorder:
        for step in range(10):
            optimizer.zero_grad(set_to_none=sets_to_none)
            loss = loss_of(step)
            loss.backward()
            if order == "b" and step % 3 == 2:
                recorder.log(loss)
            optimizer.step()
            if order == "a" and step % 3 == 2:
                recorder.log(loss)
            wanted.append(loss.item() if step % 3 == 2 else np.nan)
    np.testing.assert_allclose(recorder.losses_, [*wanted, np.nan], rtol=1e-6)


@pytest.mark.parametrize("sets_to_none", [True, False])
def test_a_first_loss_that_may_be_of_either_step_is_warned_of(training, sets_to_none):
    """Logged before backward(), or after zero_grad(): no gradient tells."""
    module, optimizer, loss_of = training
    with (  # noqa: PT031 - the loop is what warns
        pytest.warns(SkdmapWarning, match="logged after 2 steps without one") as caught,
        TrajectoryRecorder(module) as recorder,
    ):
        for step in range(9):
            optimizer.zero_grad(set_to_none=sets_to_none)
            loss = loss_of(step)
            if step % 3 == 2:
                recorder.log(loss)
            loss.backward()
            optimizer.step()
    assert len(caught) == 1


def test_zeroed_gradients_before_the_first_loss_are_no_reason_to_warn(training):
    module, optimizer, loss_of = training
    wanted = []
    with TrajectoryRecorder(module) as recorder:
        for step in range(4):
            loss = loss_of(step)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.log(loss)
            wanted.append(loss.item())
    np.testing.assert_allclose(recorder.losses_, [*wanted, np.nan], rtol=1e-6)


def test_losses_of_two_optimizers_that_are_logged_before_some_steps_are_those_of_their_rows():
    module = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    pair = [torch.optim.SGD(part.parameters(), lr=0.1) for part in (module[0], module[2])]
    wanted = []
    with TrajectoryRecorder(module) as recorder:
        for step in range(6):
            loss = module(torch.ones(3, 4)).square().mean()
            loss.backward()
            if step % 2:
                recorder.log(loss)
            wanted += [loss.item() if step % 2 else np.nan, np.nan]
            for optimizer in pair:
                optimizer.step()
                optimizer.zero_grad()
    np.testing.assert_allclose(recorder.losses_, [*wanted, np.nan], rtol=1e-6)
