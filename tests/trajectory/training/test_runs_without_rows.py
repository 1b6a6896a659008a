"""Runs that leave no row: they diverge before the burn-in, or the burn-in is not over yet."""

import numpy as np
import pytest
import torch
from torch import nn

from skdmap import TrajectorySampler, make_mlp
from skdmap.exceptions import DivergenceWarning

COLUMNS = ["snapshots_", "steps_", "epochs_", "losses_", "learning_rates_"]


class Marked(nn.Module):
    """A frozen part, other in each run, tells which module a row was given to."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.layer = nn.Linear(4, 1)

    def forward(self, x):
        return self.layer(self.frozen(x))


class FirstDiverges(torch.optim.SGD):
    """A rate beyond reason for the first run that is trained, another one for the rest."""

    n_made = 0

    def __init__(self, parameters, lr):
        super().__init__(parameters, 3e38 if FirstDiverges.n_made == 0 else lr)
        FirstDiverges.n_made += 1


@pytest.fixture(scope="module")
def data():
    X = np.random.default_rng(0).normal(size=(53, 4))
    return X, X.sum(axis=1)


def sampler(**params):
    settings = {"batch_size": 16, "max_steps": 20, "max_epochs": None, "random_state": 0}
    return TrajectorySampler(**{**settings, **params})


def test_module_at_finds_the_run_of_a_row_beside_a_run_without_rows(data):
    FirstDiverges.n_made = 0
    three = sampler(
        module=Marked, optimizer=FirstDiverges, optimizer_params={"lr": 0.01}, burn_in=10, n_runs=3
    )
    with pytest.warns(DivergenceWarning, match="run 0"):
        three.fit(*data)
    assert three.run_ids_.tolist() == 11 * [1] + 11 * [2]
    calm = sampler(module=Marked, optimizer_params={"lr": 0.01}, burn_in=10, n_runs=3).fit(*data)
    assert np.array_equal(three.snapshots_, calm.snapshots_[calm.run_ids_ > 0])
    weights = [module.frozen.weight for module in calm.modules_]
    assert not torch.equal(weights[1], weights[2])
    for i, run in enumerate(three.run_ids_):
        assert torch.equal(three.module_at(i).frozen.weight, weights[run])
    for module, weight in zip(three.modules_, weights, strict=True):
        assert torch.equal(module.frozen.weight, weight)
    assert set(three.history_["run"].tolist()) == {0, 1, 2}


def test_a_pass_within_the_burn_in_leaves_an_empty_table_and_the_runs(data):
    """Four steps a pass: nothing, nothing, then what fit records of twelve steps."""
    parts = sampler(burn_in=9, n_runs=2)
    for _ in range(2):
        parts.partial_fit(*data)
        assert parts.snapshots_.shape == parts.transform(data[0]).shape
        assert parts.snapshots_.shape == (0, make_mlp(4, 1)[0].weight.numel() + 32 + 33)
        assert len(parts.modules_) == 2
        assert np.isfinite(parts.score(*data))
    parts.partial_fit(*data)
    whole = sampler(burn_in=9, n_runs=2, max_steps=12).fit(*data)
    assert parts.steps_.tolist() == 2 * [9, 10, 11, 12]
    for name in COLUMNS:
        assert np.array_equal(getattr(parts, name), getattr(whole, name))


@pytest.mark.parametrize("lr", [10.0, 1e8, 3e38])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_divergence_of_every_run_before_the_burn_in_is_an_error(data, lr, method):
    X, y = data
    diverging = sampler(
        optimizer_params={"lr": lr}, max_steps=200, burn_in=150, n_runs=2, batch_size=1
    )
    with (
        pytest.warns(DivergenceWarning),
        pytest.raises(ValueError, match=r"burn_in=150: every run diverged .*optimizer_params"),
    ):
        getattr(diverging, method)(np.tile(10 * X, (4, 1)), np.tile(y, 4))
    assert not hasattr(diverging, "snapshots_")


def test_divergence_leaves_no_row_before_the_burn_in(data):
    def diverging(**params):
        with pytest.warns(DivergenceWarning):
            return sampler(optimizer_params={"lr": 10.0}, max_steps=200, **params).fit(*data)

    end = diverging().steps_[-1]
    assert 2 < end < 200
    assert diverging(burn_in=end).steps_.tolist() == [end]
    with pytest.raises(ValueError, match=f"burn_in={end + 1}"):
        diverging(burn_in=end + 1)


def test_runs_that_stand_at_different_steps_all_fit_into_the_table(data):
    """Run 0 stopped early, so the others record more rows of the next pass."""
    FirstDiverges.n_made = 0
    uneven = sampler(
        module=Marked, optimizer=FirstDiverges, optimizer_params={"lr": 0.01}, burn_in=6, n_runs=3
    )
    with pytest.warns(DivergenceWarning):
        uneven.partial_fit(*data)
    with pytest.warns(DivergenceWarning):
        uneven.partial_fit(*data)
    assert uneven.run_ids_.tolist() == 3 * [1] + 3 * [2]
    assert uneven.steps_.tolist() == 2 * [6, 7, 8]
