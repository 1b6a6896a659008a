"""Optimizers that wrap another one, take several closures a step or have modes of their own."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skdmap import TrajectorySampler

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 4)).astype(np.float32), np.arange(40) % 3


class Lookahead(torch.optim.Optimizer):
    """Every third step goes half of the way from the slow weights."""

    def __init__(self, params, lr):
        self.inner = torch.optim.SGD(params, lr=lr)
        super().__init__(self.inner.param_groups, {})
        self.param_groups, self.n_steps = self.inner.param_groups, 0
        self.slow = [p.detach().clone() for p in self.param_groups[0]["params"]]

    def step(self, closure=None):
        loss = self.inner.step(closure)
        self.n_steps += 1
        if self.n_steps % 3 == 0:
            with torch.no_grad():
                for slow, p in zip(self.slow, self.param_groups[0]["params"], strict=True):
                    p.copy_(slow.lerp_(p, 0.5))
        return loss


class Sharpness(torch.optim.SGD):
    """Sharpness-aware minimisation: the gradient at a point uphill."""

    def step(self, closure):
        loss = closure()
        parameters = self.param_groups[0]["params"]
        with torch.no_grad():
            norm = torch.sqrt(sum(p.grad.square().sum() for p in parameters))
            moves = [0.05 * p.grad / norm for p in parameters]
            for p, move in zip(parameters, moves, strict=True):
                p.add_(move)
        closure()
        with torch.no_grad():
            for p, move in zip(parameters, moves, strict=True):
                p.sub_(move)
        super().step()
        return loss


class WithModes(torch.optim.SGD):
    """Refuses to step unless it is in train mode, as schedule-free optimizers do."""

    is_training = False

    def train(self):
        self.is_training = True

    def step(self, closure):
        assert self.is_training
        return super().step(closure)


@pytest.mark.parametrize("optimizer", [Lookahead, Sharpness, WithModes])
def test_rows_and_losses_are_those_between_whole_steps(optimizer):
    start = nn.Linear(4, 3)
    sampler = TrajectorySampler(
        start, optimizer=optimizer, optimizer_params={"lr": 0.2}, batch_size=None, max_epochs=7
    )
    fitted = sampler.fit(X, Y)
    module = sampler.module_at(0)
    by_hand, rows, losses = optimizer(module.parameters(), lr=0.2), [], []
    if optimizer is WithModes:
        by_hand.train()

    def closure():
        by_hand.zero_grad()
        loss = F.cross_entropy(module(torch.tensor(X)), torch.tensor(Y))
        loss.backward()
        return loss

    for _ in range(8):
        rows.append(torch.cat([p.detach().reshape(-1) for p in module.parameters()]).numpy().copy())
        losses.append(by_hand.step(closure).item())
    # The order of the samples in the batch changes sums by rounding.
    np.testing.assert_allclose(fitted.snapshots_, rows, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(fitted.losses_, losses, rtol=1e-5)
    moves = np.linalg.norm(np.diff(rows, axis=0), axis=1)
    np.testing.assert_allclose(fitted.path_lengths_[1:], moves, rtol=1e-3)
