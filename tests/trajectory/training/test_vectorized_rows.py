"""What the sampler tells of runs trained together is what it tells of the same runs one by one."""

import numpy as np
import pytest
import torch
from torch import nn

from skdmap import LogSpaced, TrajectorySampler
from skdmap.exceptions import DivergenceWarning

N_ROWS, BATCH = 45, 16


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N_ROWS, 4)).astype(np.float32), rng.integers(0, 3, N_ROWS)


def both(data, *, by_parts=False, **params):
    """Return the sampler fitted run by run, and with all runs at once; rows in one order."""
    found = []
    for vectorize in (False, True):
        settings = {"max_epochs": 4, "batch_size": BATCH, "n_runs": 3, "random_state": 0, **params}
        sampler = TrajectorySampler(vectorize=vectorize, **settings)
        for _ in range(3 if by_parts else 1):
            (sampler.partial_fit if by_parts else sampler.fit)(*data)
        found.append((sampler, np.lexsort((sampler.steps_, sampler.run_ids_))))
    return found


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"record_every": 5},
        {"record_every": LogSpaced(4)},
        {"record_every": 4, "burn_in": 3, "parameters": "0.*"},
        {"by_parts": True, "record_every": 2},
        {"record_every": 3, "module": lambda: nn.Linear(4, 3).double(), "dtype": "float64"},
    ],
)
def test_columns_are_those_of_runs_one_by_one(data, params):
    (alone, order), (together, other) = both(data, **params)
    for name in ("run_ids_", "steps_", "epochs_", "learning_rates_"):
        np.testing.assert_array_equal(getattr(alone, name)[order], getattr(together, name)[other])
    for name in ("snapshots_", "losses_", "path_lengths_"):
        a, b = getattr(alone, name)[order], getattr(together, name)[other]
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5, err_msg=name)
    assert np.isnan(together.path_lengths_).sum() == 3


def test_a_path_is_no_shorter_than_the_way_between_its_rows(data):
    _, (together, _) = both(data, record_every=6)
    for run in range(3):
        own = together.run_ids_ == run
        rows, lengths = together.snapshots_[own].astype(float), together.path_lengths_[own]
        ways = np.linalg.norm(np.diff(rows, axis=0), axis=1)
        assert (lengths[1:] > ways).all()


def test_a_pass_in_which_a_run_diverges_counts_its_finite_steps(data):
    def quartic(outputs, targets):
        return (outputs**4).mean()

    with pytest.warns(DivergenceWarning):
        (alone, _), (together, _) = both(
            data, criterion=quartic, max_epochs=6, optimizer_params={"lr": 2.0}
        )
    diverged = [run.diverged for run in alone._runs]
    assert any(diverged)
    assert [run.diverged for run in together._runs] == diverged
    assert [run.step for run in together._runs] == [run.step for run in alone._runs]
    for name in ("run", "epoch", "learning_rate"):
        np.testing.assert_array_equal(together.history_[name], alone.history_[name])
    assert np.isfinite(together.history_["loss"]).all()
    passes = [[one.n_rows for one in run.passes] for run in alone._runs]
    found = [[one.n_rows for one in run.passes] for run in together._runs]
    assert [list(filter(None, rows)) for rows in found] == [
        list(filter(None, rows)) for rows in passes
    ]


class ByNumpy(nn.Linear):
    """Draws from a generator that torch does not know."""

    def __init__(self):
        super().__init__(4, 3)
        self.rng = np.random.default_rng(0)

    def forward(self, x):
        noise = torch.tensor(self.rng.normal(size=x.shape), dtype=x.dtype)
        return super().forward(x + noise if self.training else x)


def test_noise_that_all_runs_would_share_is_an_error(data):
    with pytest.raises(ValueError, match="ByNumpy draws random numbers"):
        both(data, module=ByNumpy)
