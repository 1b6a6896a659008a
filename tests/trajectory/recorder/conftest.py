"""A small loop by hand, its data and its module, the same in each test."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

N_ROWS, N_FEATURES = 40, 5


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N_ROWS, N_FEATURES)).astype(np.float32)
    y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(np.int64)
    return torch.tensor(X), torch.tensor(y)


@pytest.fixture
def new_module():
    """Return a function: seed -> module."""

    def make(seed=0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return nn.Sequential(nn.Linear(N_FEATURES, 8), nn.Tanh(), nn.Linear(8, 2))

    return make


def flat(module):
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()]).numpy().copy()


@pytest.fixture
def theta():
    """Return a function: module -> its parameters as one array."""
    return flat


@pytest.fixture
def loop():
    """Return a function that trains a module by hand."""

    def train(module, optimizer, data, n_steps, *, log=None, seen=None, start=0):
        """``seen`` gets the parameters and the loss before each step, and the end."""
        X, y = data
        for step in range(start, n_steps):
            rows = torch.arange(8) + 8 * (step % 5)
            loss = F.cross_entropy(module(X[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            if log is not None:
                log(loss)
            if seen is not None:
                seen.append((flat(module), loss.item()))
            optimizer.step()
        if seen is not None:
            seen.append((flat(module), np.nan))

    return train


@pytest.fixture
def sgd():
    """Return a function: module, settings -> an optimizer."""
    return lambda module, **settings: torch.optim.SGD(
        module.parameters(), **({"lr": 0.1, "momentum": 0.9} | settings)
    )
