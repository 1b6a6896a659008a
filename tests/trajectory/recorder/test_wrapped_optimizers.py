"""Optimizers around optimizers: a row is where the outermost step ends, and one step is one row."""

import copy
import cProfile
import pickle
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skdmap import TrajectoryRecorder


def new_module():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def new_data():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(32, 4, generator=generator), torch.randint(3, (32,), generator=generator)


def theta(module):
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()]).numpy().copy()


def loss_of(module):
    X, y = new_data()
    return F.cross_entropy(module(X), y)


def sgd(module):
    return torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.5)


class Wrapper:
    """Not a torch optimizer: holds one, as wrappers of schedule-free methods do."""

    def __init__(self, inner):
        self.base = inner

    @property
    def param_groups(self):
        return self.base.param_groups

    @property
    def state(self):
        return self.base.state

    def zero_grad(self):
        self.base.zero_grad()

    def parameters(self):
        return [p for group in self.param_groups for p in group["params"]]

    @torch.no_grad()
    def step(self, closure=None):
        """Swap the averages out, step, and swap them in again."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.averages = getattr(self, "averages", [p.clone() for p in self.parameters()])
        for parameter, average in zip(self.parameters(), self.averages, strict=True):
            parameter.mul_(2).sub_(average)
        self.base.step()
        for parameter, average in zip(self.parameters(), self.averages, strict=True):
            average.lerp_(parameter, 0.25)
            parameter.lerp_(average, 0.5)
        return loss


class TorchWrapper(torch.optim.Optimizer):
    """A torch optimizer by class, whose constructor is never called: torch hooks no step of it."""

    def __init__(self, inner):
        self.optimizer, self.param_groups, self.state = inner, inner.param_groups, inner.state
        self.counter = 0
        self.slow = [p.detach().clone() for g in self.param_groups for p in g["params"]]

    def zero_grad(self):
        self.optimizer.zero_grad()

    def step(self, closure=None):
        """Look ahead: every second step goes half of the way back."""
        loss = self.optimizer.step(closure)
        self.counter += 1
        if self.counter % 2 == 0:
            for group in self.param_groups:
                for parameter, slow in zip(group["params"], self.slow, strict=False):
                    parameter.data.lerp_(slow, 0.5)
                    slow.copy_(parameter.data)
        return loss


class Slotted:
    """Takes no attribute, so that its step cannot be replaced on the instance."""

    __slots__ = ("inner", "param_groups")

    def __init__(self, inner):
        self.inner, self.param_groups = inner, inner.param_groups

    def zero_grad(self):
        self.inner.zero_grad()

    @torch.no_grad()
    def step(self):
        self.inner.step()
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.mul_(0.99)


class Masters:
    """Steps copies in double precision, and writes them back."""

    def __init__(self, module):
        self.params = list(module.parameters())
        self.masters = [p.detach().double().requires_grad_() for p in self.params]
        self.optimizer = torch.optim.SGD(self.masters, lr=0.1)
        self.param_groups = [{"params": self.params, "lr": 0.1}]

    def zero_grad(self):
        for parameter in self.params:
            parameter.grad = None

    def step(self):
        for parameter, master in zip(self.params, self.masters, strict=True):
            master.grad = parameter.grad.double()
        self.optimizer.step()
        with torch.no_grad():
            for parameter, master in zip(self.params, self.masters, strict=True):
                parameter.copy_(master)


def monkeypatched(module):
    optimizer = sgd(module)
    plain = optimizer.step

    def clipping(*args, **kwargs):
        loss = plain(*args, **kwargs)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.clamp_(-0.3, 0.3)
        return loss

    optimizer.step = clipping
    return optimizer


def scheduled(module):
    optimizer = sgd(module)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    return Wrapper(optimizer)


MAKERS = {
    "wrapper": lambda module: Wrapper(sgd(module)),
    "wrapper of a scheduled one": scheduled,
    "torch wrapper": lambda module: TorchWrapper(sgd(module)),
    "wrapper of a wrapper": lambda module: TorchWrapper(Wrapper(sgd(module))),
    "slotted": lambda module: Slotted(sgd(module)),
    "masters": Masters,
    "replaced step": monkeypatched,
}


@pytest.mark.parametrize("is_given", [False, True])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_row_is_where_the_outermost_step_ends(kind, is_given):
    module = new_module()
    optimizer, rows = MAKERS[kind](module), [theta(module)]
    attributes = dict(getattr(optimizer, "__dict__", {}))
    with TrajectoryRecorder(module, optimizer if is_given else None) as recorder:
        for _ in range(5):
            optimizer.zero_grad()
            loss_of(module).backward()
            optimizer.step()
            rows.append(theta(module))
            with torch.no_grad():  # what the loop does after a step is part of the next one
                module[0].bias.mul_(1.01)
    np.testing.assert_array_equal(recorder.snapshots_, rows)
    left = getattr(optimizer, "__dict__", {})
    assert left.get("step") is attributes.get("step")


@pytest.mark.parametrize("is_given", [False, True])
def test_a_step_in_two_calls_is_one_row(is_given):
    class SharpnessAware(torch.optim.Optimizer):
        def __init__(self, params, base, **settings):
            super().__init__(params, settings)
            self.base_optimizer = base(self.param_groups, **settings)
            self.param_groups = self.base_optimizer.param_groups

        @torch.no_grad()
        def first_step(self):
            for group in self.param_groups:
                for parameter in group["params"]:
                    self.state[parameter]["old"] = parameter.data.clone()
                    parameter.add_(parameter.grad, alpha=0.05)

        @torch.no_grad()
        def second_step(self):
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data = self.state[parameter]["old"]
            self.base_optimizer.step()
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.mul_(0.999)

        @torch.no_grad()
        def step(self, closure):
            self.first_step()
            with torch.enable_grad():
                closure()
            self.second_step()

    def closure():
        optimizer.zero_grad()
        loss = loss_of(module)
        loss.backward()
        return loss

    module = new_module()
    optimizer = SharpnessAware(module.parameters(), torch.optim.SGD, lr=0.1)
    rows = [theta(module)]
    with TrajectoryRecorder(module, optimizer if is_given else None) as recorder:
        for in_two_calls in (True, True, False, True, False):
            closure()
            if in_two_calls:
                optimizer.first_step()
                closure()
                optimizer.second_step()
            else:
                optimizer.step(closure)
            rows.append(theta(module))
    np.testing.assert_array_equal(recorder.snapshots_, rows)
    # The closure is called at perturbed parameters: its loss is not that of the row.
    assert np.isnan(recorder.losses_).all()


@pytest.mark.parametrize("is_torch", [False, True])
def test_a_wrapper_that_accumulates_makes_a_step_where_the_one_within_does(is_torch):
    class Accumulating(torch.optim.Optimizer):
        def __init__(self, inner):
            if is_torch:
                super().__init__(inner.param_groups, {})
            self.param_groups, self.inner, self.calls = inner.param_groups, inner, 0

        def step(self, closure=None):
            self.calls += 1
            if self.calls % 3 == 0:
                self.inner.step()

    for is_given in (False, True):
        module = new_module()
        optimizer = Accumulating(sgd(module))
        with TrajectoryRecorder(module, optimizer if is_given else None) as recorder:
            for _ in range(7):
                loss_of(module).backward()
                optimizer.step()
        assert recorder.steps_.tolist() == [0, 1, 2]


def test_an_optimizer_that_is_not_torchs_counts_when_it_is_given():
    class ByHand:
        def __init__(self, params):
            self.param_groups = [{"params": list(params), "lr": 0.5}]

        @torch.no_grad()
        def step(self):
            for parameter in self.param_groups[0]["params"]:
                parameter.mul_(0.9)

    module = new_module()
    optimizer, rows = ByHand(module.parameters()), [theta(module)]
    with TrajectoryRecorder(module, optimizer) as recorder:
        for _ in range(3):
            optimizer.step()
            rows.append(theta(module))
    np.testing.assert_array_equal(recorder.snapshots_, rows)
    np.testing.assert_array_equal(recorder.learning_rates_, 0.5)


def test_a_copy_of_a_watched_wrapper_steps_its_own_parameters():
    module = new_module()
    optimizer = Wrapper(sgd(module))
    with TrajectoryRecorder(module, optimizer):
        loss_of(module).backward()
        optimizer.step()
        copied = copy.deepcopy(optimizer)
        pickle.dumps(optimizer)
        before = theta(module)
        for parameter in copied.parameters():
            parameter.grad = torch.ones_like(parameter)
        start = [p.detach().clone() for p in copied.parameters()]
        copied.step()
        np.testing.assert_array_equal(theta(module), before)
        moved = [not torch.equal(a, b) for a, b in zip(start, copied.parameters(), strict=True)]
        assert all(moved)


def test_recorders_of_one_wrapper_see_the_same_rows():
    module = new_module()
    optimizer, rows = Wrapper(sgd(module)), [theta(module)]
    with (
        TrajectoryRecorder(module) as first,
        TrajectoryRecorder(module, optimizer) as second,
        TrajectoryRecorder(module) as third,
    ):
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(module).backward()
            optimizer.step()
            rows.append(theta(module))
            with torch.no_grad():
                module[0].bias.mul_(1.01)
    for recorder in (first, second, third):
        np.testing.assert_array_equal(recorder.snapshots_, rows)
    assert "step" not in vars(optimizer)


def test_a_thread_that_is_profiled_stays_so_and_has_its_rows():
    module = new_module()
    optimizer, rows = Wrapper(sgd(module)), [theta(module)]
    profile = cProfile.Profile()
    profile.enable()
    try:
        with TrajectoryRecorder(module) as recorder:
            for _ in range(3):
                optimizer.zero_grad()
                loss_of(module).backward()
                optimizer.step()
                rows.append(theta(module))
        assert sys.getprofile() is not None
    finally:
        profile.disable()
    np.testing.assert_array_equal(recorder.snapshots_, rows)


def test_an_error_at_the_first_step_of_a_wrapper_ends_the_loop():
    module = new_module()
    optimizer = Wrapper(sgd(module))
    recorder = TrajectoryRecorder(module)
    message = "other parameters than when its recording began"
    with pytest.raises(ValueError, match=message), recorder:  # noqa: PT012 - as a user writes it
        loss_of(module).backward()
        module.append(nn.Linear(3, 3))
        optimizer.step()
    assert sys.getprofile() is None
    assert recorder.steps_.tolist() == [0]


@pytest.mark.parametrize("is_given", [False, True])
def test_one_optimizer_for_each_parameter_in_the_backward_pass(is_given):
    module = new_module()
    optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in module.parameters()}

    def step(parameter):
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in module.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    rows = [theta(module)]
    given = list(optimizers.values()) if is_given else None
    with TrajectoryRecorder(module, given) as recorder:
        for _ in range(3):
            loss_of(module).backward()
            rows.append(theta(module))
    stride = 1 if is_given else 4
    np.testing.assert_array_equal(recorder.snapshots_[::stride], rows)


@pytest.mark.parametrize("turned", [False, True])
def test_optimizers_given_together_make_one_step(turned):
    module = new_module()
    body, head = (torch.optim.SGD(module[i].parameters(), lr=0.1) for i in (0, 2))
    optimizers = [body, Wrapper(head)]
    rows = [theta(module)]
    given = optimizers[::-1] if turned else optimizers
    with TrajectoryRecorder(module, given) as recorder:
        for _ in range(4):
            module.zero_grad()
            loss = loss_of(module)
            loss.backward()
            recorder.log(loss)
            for optimizer in optimizers:
                optimizer.step()
            rows.append(theta(module))
    np.testing.assert_array_equal(recorder.snapshots_, rows)
    assert np.isfinite(recorder.losses_[:-1]).all()


def test_several_steps_of_one_to_one_of_the_other_are_one_step():
    """As a discriminator makes; and a step of one of the two may be skipped."""
    module = new_module()
    critic, generator = (torch.optim.SGD(module[i].parameters(), lr=0.1) for i in (0, 2))
    rows = [theta(module)]
    with TrajectoryRecorder(module, [critic, generator]) as recorder:
        for i in range(5):
            for _ in range(3):
                module.zero_grad()
                loss_of(module).backward()
                critic.step()
            if i != 2:
                generator.step()
                rows.append(theta(module))
    np.testing.assert_array_equal(recorder.snapshots_, rows)


def test_given_optimizers_that_do_not_fit_are_named():
    module = new_module()
    for given, message in (
        ([], r"optimizer=\[\] must not be empty"),
        ([sgd(module), "SGD"], "optimizer=str must be"),
        ([sgd(module), sgd(new_module())], "holds no parameter"),
    ):
        with pytest.raises(ValueError, match=message):
            TrajectoryRecorder(module, given)
