"""The sampler beside a training loop as one writes it by hand: every column, bit for bit."""

import numpy as np
import pytest
import torch
from torch import nn

from skdmap import TrajectorySampler

N_ROWS, BATCH = 53, 16
STREAMS = {"init": 0, "batches": 1, "dropout": 2}


class Noisy(nn.Module):
    """Batch normalisation and dropout: buffers, and a stream of its own."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        hidden = torch.tanh(self.norm(self.first(x)))
        return self.last(nn.functional.dropout(hidden, 0.3, self.training))


class Reassigning(nn.Module):
    """Puts a new tensor in place of its buffer in each step."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, x):
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * x.detach().mean()
        return self.layer(x) + self.mean


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N_ROWS, 4)).astype(np.float32), rng.integers(0, 3, N_ROWS)


def seed_of(master, stream, run):
    sequence = np.random.SeedSequence(master, spawn_key=(STREAMS[stream], run))
    return int(sequence.generate_state(1, np.uint64)[0])


def flat(tensors):
    return np.concatenate([t.detach().double().numpy().ravel() for t in tensors])


def plain_loop(data, module_class, optimizer, params, n_steps, seeds):
    """Train by hand; return parameters, losses and buffers before each step and at the end."""
    X, y = map(torch.tensor, data)
    torch.manual_seed(seeds["init"])
    module = module_class()
    order = torch.Generator().manual_seed(seeds["batches"])
    torch.manual_seed(seeds["dropout"])
    optimizer = getattr(torch.optim, optimizer)(module.parameters(), **params)
    rows, losses, buffers, batches = [], [], [], []
    while len(losses) < n_steps:
        batches = batches or list(torch.randperm(N_ROWS, generator=order).split(BATCH))
        batch = batches.pop(0)
        rows.append(flat(module.parameters()))
        buffers.append(flat(module.buffers()))
        tried = []

        def closure(batch=batch, tried=tried):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(module(X[batch]), y[batch])
            loss.backward()
            tried.append(loss.item())
            return loss

        optimizer.step(closure)
        losses.append(tried[0])
    rows.append(flat(module.parameters()))
    buffers.append(flat(module.buffers()))
    losses.append(nn.functional.cross_entropy(module(X[batch]), y[batch]).item())
    return np.array(rows), np.array(losses), np.array(buffers)


@pytest.mark.parametrize("module", [Noisy, Reassigning])
@pytest.mark.parametrize(
    ("optimizer", "params"),
    [
        ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
        ("Adam", {"lr": 0.01}),
        ("LBFGS", {"lr": 0.1, "max_iter": 4}),
    ],
)
def test_runs_are_those_of_a_plain_loop(data, module, optimizer, params):
    fitted = TrajectorySampler(
        module, None, optimizer, optimizer_params=params, batch_size=BATCH, max_steps=10,
        n_runs=2, random_state=7,
    ).fit(*data)  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        for run in range(2):
            seeds = {stream: seed_of(7, stream, run) for stream in STREAMS}
            rows, losses, buffers = plain_loop(data, module, optimizer, params, 10, seeds)
            own = fitted.run_ids_ == run
            assert np.array_equal(fitted.snapshots_[own], rows)
            assert np.array_equal(fitted.losses_[own], losses)
            assert np.array_equal(fitted.buffers_[own], buffers)


def test_held_streams_are_seeded_as_run_0_of_their_own_seed(data):
    fitted = TrajectorySampler(
        Noisy, optimizer_params={"lr": 0.1}, batch_size=BATCH, max_steps=6, n_runs=2,
        random_state={"seed": 3, "batches": 5, "init": 2},
    ).fit(*data)  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        for run in range(2):
            seeds = {
                "init": seed_of(2, "init", 0),
                "batches": seed_of(5, "batches", 0),
                "dropout": seed_of(3, "dropout", run),
            }
            rows, *_ = plain_loop(data, Noisy, "SGD", {"lr": 0.1}, 6, seeds)
            assert np.array_equal(fitted.snapshots_[fitted.run_ids_ == run], rows)


def test_a_module_that_reassigns_its_buffer_is_restored_with_it(data):
    fitted = TrajectorySampler(Reassigning, max_steps=5, batch_size=BATCH, random_state=0)
    fitted.fit(*data)
    assert len(np.unique(fitted.buffers_)) == 6
    for i in range(6):
        assert fitted.module_at(i).mean.tolist() == fitted.buffers_[i].tolist()
    assert torch.equal(fitted.module_at(-1).mean, fitted.module_.mean)


def test_a_buffer_that_changes_its_size_is_named(data):
    class Growing(Reassigning):
        def forward(self, x):
            if self.training:
                self.mean = torch.cat([self.mean, x.detach().mean()[None]])
            return self.layer(x) + self.mean[-1]

    growing = TrajectorySampler(Growing, max_steps=5, batch_size=BATCH, random_state=0)
    with pytest.raises(ValueError, match=r"2 buffer entries at step 1 of run 0; it must have 1"):
        growing.fit(*data)
