"""What counts as a step, and which loss and learning rate belong to it."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from skdmap import TrajectoryRecorder

N_ROWS, N_FEATURES = 40, 5


def test_a_closure_tells_the_loss_and_one_lbfgs_step_is_one(data, new_module):
    X, y = data
    module = new_module()
    optimizer = torch.optim.LBFGS(module.parameters(), max_iter=5)
    calls, seen = [], []

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(module(X), y)
        loss.backward()
        calls.append(loss.item())
        return loss

    with TrajectoryRecorder(module) as recorder:
        for _ in range(3):
            calls.clear()
            optimizer.step(closure)
            seen.append(calls[0])
            assert len(calls) > 1
    np.testing.assert_array_equal(recorder.losses_, [*seen, np.nan])
    assert recorder.steps_.tolist() == [0, 1, 2, 3]
    # The loss of a row is the loss at the row.
    for row in range(3):
        with torch.no_grad():
            again = F.cross_entropy(recorder.module_at(row)(X), y).item()
        assert again == pytest.approx(seen[row], rel=1e-6)


def test_a_closure_by_keyword_and_one_that_logs_and_returns_none(data, new_module, sgd):
    X, y = data
    module = new_module()
    optimizer = sgd(module)
    wanted = []

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(module(X), y)
        loss.backward()
        wanted.append(loss.item())
        recorder.log(loss)

    with TrajectoryRecorder(module) as recorder:
        optimizer.step(closure=closure)
        optimizer.step(closure)
    np.testing.assert_array_equal(recorder.losses_, [*wanted, np.nan])


def test_accumulated_gradients_are_one_step_with_the_mean_of_the_losses(data, new_module, sgd):
    X, y = data
    module = new_module()
    optimizer = sgd(module)
    with TrajectoryRecorder(module) as recorder:
        for _ in range(3):
            optimizer.zero_grad()
            for rows in torch.arange(N_ROWS).split(10):
                loss = F.cross_entropy(module(X[rows]), y[rows])
                recorder.log(loss)
                (loss / 4).backward()
            optimizer.step()
    assert recorder.steps_.tolist() == [0, 1, 2, 3]
    for row in range(3):
        with torch.no_grad():
            whole = F.cross_entropy(recorder.module_at(row)(X), y).item()
        assert recorder.losses_[row] == pytest.approx(whole, rel=1e-6)


def test_learning_rates_are_those_of_the_step_that_led_to_the_row(data, new_module, loop, sgd):
    module = new_module()
    optimizer = sgd(module, lr=0.4)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    with TrajectoryRecorder(module, optimizer) as recorder:
        for step in range(3):
            loop(module, optimizer, data, step + 1, start=step)
            scheduler.step()
    np.testing.assert_array_equal(recorder.learning_rates_, [0.4, 0.4, 0.2, 0.1])


def test_two_optimizers_on_one_module_count_together_or_one_alone(data, new_module):
    module = new_module()
    body, head = (torch.optim.SGD(module[i].parameters(), lr=0.1) for i in (0, 2))
    with (
        TrajectoryRecorder(module) as both,
        TrajectoryRecorder(module, head) as one,
        TrajectoryRecorder(new_module(1)) as other,
    ):
        for _ in range(3):
            loss = F.cross_entropy(module(data[0]), data[1])
            loss.backward()
            body.step()
            head.step()
            head.step()
            module.zero_grad()
    assert both.steps_.tolist() == list(range(10))
    assert one.steps_.tolist() == list(range(7))
    assert other.steps_.tolist() == [0]
    np.testing.assert_array_equal(both.snapshots_[[0, 2, 3]], one.snapshots_[:3])


def test_a_wrapped_step_is_one_step(data, new_module, loop, sgd):
    class Doubled(torch.optim.Optimizer):
        """Steps another optimizer, as wrappers do."""

        def __init__(self, inner):
            super().__init__(inner.param_groups, {})
            self.optimizer = inner

        def step(self, closure=None):
            return self.optimizer.step(closure)

    class Child(torch.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    for make in (lambda m: Doubled(sgd(m)), lambda m: Child(m.parameters(), lr=0.1)):
        module = new_module()
        optimizer = make(module)
        for chosen in (None, optimizer):
            with TrajectoryRecorder(module, chosen) as recorder:
                loop(module, optimizer, data, 4)
            assert recorder.steps_.tolist() == [0, 1, 2, 3, 4]


def test_a_row_is_the_end_of_the_outermost_step(data, new_module, loop, sgd):
    class LookingBack(torch.optim.Optimizer):
        """Goes half of each step back, after the step of the optimizer within."""

        def __init__(self, inner):
            super().__init__(inner.param_groups, {"lr": 7.0})
            self.optimizer = inner

        def step(self, closure=None):
            before = [p.detach().clone() for g in self.param_groups for p in g["params"]]
            self.optimizer.step(closure)
            with torch.no_grad():
                for group in self.param_groups:
                    for parameter, old in zip(group["params"], before, strict=True):
                        parameter.lerp_(old, 0.5)

    module, seen = new_module(), []
    with TrajectoryRecorder(module) as recorder:
        loop(module, LookingBack(sgd(module)), data, 4, seen=seen)
    np.testing.assert_array_equal(recorder.snapshots_, np.stack([row for row, _ in seen]))


def test_a_step_that_an_exception_ends_is_none_and_the_next_one_counts(data, new_module, loop, sgd):
    module = new_module()
    optimizer = sgd(module)

    def failing():
        raise ArithmeticError

    with TrajectoryRecorder(module) as recorder:
        for _ in range(2):
            with pytest.raises(ArithmeticError):
                optimizer.step(failing)
        loop(module, optimizer, data, 2)
    assert recorder.steps_.tolist() == [0, 1, 2]


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_grad_scaler_skips_is_none(data, fused, new_module, theta):
    X, y = data
    module = new_module()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)
    rows = [theta(module)]
    with TrajectoryRecorder(module) as recorder:
        for step in range(6):
            optimizer.zero_grad()
            loss = F.cross_entropy(module(X), y)
            scaler.scale(loss).backward()
            if step in (1, 4):
                module[0].weight.grad[0, 0] = torch.inf
            scaler.step(optimizer)
            scaler.update()
            if step not in (1, 4):
                rows.append(theta(module))
    assert recorder.steps_.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(recorder.snapshots_, np.stack(rows))
