"""Rows of outputs and of functions of the module."""

import numpy as np
import pytest
import torch
from torch import nn

from skdmap import TrajectorySampler

COLUMNS = [
    "snapshots_", "steps_", "epochs_", "run_ids_", "losses_", "learning_rates_", "path_lengths_",
    "buffers_",
]  # fmt: skip


class Noisy(nn.Sequential):
    """Batch normalisation and dropout: buffers, and a stream of its own."""

    def __init__(self):
        super().__init__(
            nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3)
        )


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 15)
    return rng.normal(size=(45, 4)) + 2 * np.eye(3, 4)[y], y


def sampler(**params):
    return TrajectorySampler(**{"max_epochs": 3, "batch_size": 16, "random_state": 0, **params})


def same(a, b, names=COLUMNS):
    return all(np.array_equal(getattr(a, n), getattr(b, n), equal_nan=True) for n in names)


@pytest.mark.parametrize("with_probe", [False, True])
def test_outputs_are_log_probabilities_on_the_rows_asked_for(blobs, with_probe):
    X, y = blobs
    probe = X[::7] + 0.5 if with_probe else X
    plain = sampler(module=Noisy).fit(X, y)
    record = ("outputs", probe) if with_probe else "outputs"
    seen = sampler(module=Noisy, record=record).fit(X, y)
    assert seen.snapshots_.shape == (10, 3 * len(probe))
    inputs = torch.tensor(probe, dtype=torch.float32)
    for i in range(10):
        with torch.no_grad():
            expected = torch.log_softmax(plain.module_at(i)(inputs), dim=1).reshape(-1).numpy()
        assert np.array_equal(seen.snapshots_[i], expected)
    # Looking draws from no stream and changes no buffer.
    assert same(seen, plain, [c for c in COLUMNS if c != "snapshots_"])
    with pytest.raises(ValueError, match="record is set"):
        seen.module_at(0)
    assert seen.get_feature_names_out().tolist()[-1] == f"trajectorysampler{3 * len(probe) - 1}"


def test_outputs_of_a_regression_are_predictions(blobs):
    X, y = blobs
    fitted = sampler(record="outputs").fit(X, y.astype(float))
    with torch.no_grad():
        expected = fitted.module_(torch.tensor(X, dtype=torch.float32)).reshape(-1).numpy()
    assert np.array_equal(fitted.snapshots_[-1], expected)


def test_a_function_says_what_a_row_is(blobs):
    def scale_of_layers(module):
        module(torch.randn(9, 4))  # draws, and changes the buffers of a module that trains
        return torch.stack([p.norm() for p in module.parameters()])

    plain = sampler(module=Noisy).fit(*blobs)
    seen = sampler(module=Noisy, record=scale_of_layers, n_runs=2).fit(*blobs)
    for i in (0, 4, 9):
        norms = [p.norm().item() for p in plain.module_at(i).parameters()]
        np.testing.assert_allclose(seen.snapshots_[i], norms, rtol=1e-6)
    own = seen.run_ids_ == 0
    for column in ("losses_", "buffers_", "path_lengths_"):
        a, b = getattr(seen, column)[own], getattr(plain, column)
        assert np.array_equal(a, b, equal_nan=True)
