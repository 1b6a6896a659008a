"""Runs that diverge are recorded up to there."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skdmap import TrajectorySampler
from skdmap.exceptions import DivergenceWarning


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 15)
    return rng.normal(size=(45, 4)) + 2 * np.eye(3, 4)[y], y


@pytest.fixture(scope="module")
def line():
    X = np.random.default_rng(1).normal(size=(40, 3))
    return X, X @ [1.0, -2.0, 0.5] + 0.25


def sampler(**params):
    return TrajectorySampler(**{"max_epochs": 3, "batch_size": 16, "random_state": 0, **params})


class FirstSteep(nn.Module):
    """Diverges in the first run that is built, and in no other."""

    n_made = 0

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.scale = 1e12 if FirstSteep.n_made == 0 else 1.0
        FirstSteep.n_made += 1

    def forward(self, x):
        return self.scale * self.layer(x)


def test_divergence_is_recorded_up_to_there_and_warned_of(line):
    X, y = line
    diverging = sampler(optimizer_params={"lr": 1e3}, max_epochs=50)
    with pytest.warns(DivergenceWarning, match=r"loss=.*step \d+ of run 0.*optimizer_params"):
        diverging.fit(X, y)
    assert np.isfinite(diverging.snapshots_).all()
    assert np.isfinite(diverging.losses_).all()
    assert diverging.losses_[-1] > 1e20
    assert 2 < diverging.steps_[-1] < 150
    assert diverging.steps_.tolist() == list(range(len(diverging.steps_)))
    # One step after the last row lies what gave a loss that is not finite.
    inputs = torch.tensor(X, dtype=torch.float32)
    with torch.no_grad():
        error = diverging.module_(inputs).squeeze(1) - torch.tensor(y, dtype=torch.float32)
    assert not np.isfinite((error**2).mean().item())


def test_the_other_runs_go_on(line):
    FirstSteep.n_made = 0
    with pytest.warns(DivergenceWarning, match="of run 0"):
        fitted = sampler(module=FirstSteep, optimizer_params={"lr": 0.01}, n_runs=3).fit(*line)
    assert np.isfinite(fitted.losses_).all()
    assert (fitted.run_ids_ == 0).sum() < 10
    assert fitted.steps_[fitted.run_ids_ > 0].tolist() == 2 * list(range(10))


def test_parameters_that_are_not_finite_are_never_rows(blobs):
    def steep(outputs, targets):
        return 100 * F.cross_entropy(outputs, targets)

    with pytest.warns(DivergenceWarning):
        fitted = sampler(criterion=steep, optimizer_params={"lr": 3e38}).fit(*blobs)
    assert fitted.steps_.tolist() == [0]
    assert np.isfinite(fitted.snapshots_).all()
