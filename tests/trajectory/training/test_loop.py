"""Steps of the loop have their closed form, and each batch is used once."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

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


def test_gradient_descent_on_a_quadratic_has_its_closed_form():
    """theta_t = (I - lr A)^t theta_0 for the loss theta' A theta / 2."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 5)) / 3
    A = root @ root.T
    quadratic = torch.tensor(A)

    class Point(nn.Module):
        def __init__(self):
            super().__init__()
            self.theta = nn.Parameter(torch.randn(5, dtype=torch.float64))

        def forward(self, x):
            return self.theta.expand(len(x), -1)

    def criterion(outputs, _):
        return 0.5 * outputs[0] @ quadratic @ outputs[0]

    fitted = TrajectorySampler(
        Point, criterion, optimizer_params={"lr": 0.3}, max_epochs=None, max_steps=60,
        batch_size=None, dtype="float64", random_state=0,
    ).fit(np.zeros((3, 1)), np.zeros(3))  # fmt: skip
    theta = fitted.snapshots_[0]
    for t, row in enumerate(fitted.snapshots_):
        expected = np.linalg.matrix_power(np.eye(5) - 0.3 * A, t) @ theta
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-13)
        assert fitted.losses_[t] == pytest.approx(0.5 * row @ A @ row, rel=1e-12)


def test_a_batchnorm_network_has_its_loss_again(blobs):
    """Parameters and buffers of row i give the loss in eval mode that a callback saw there."""
    X, y = blobs
    inputs, labels = torch.tensor(X, dtype=torch.float32), torch.tensor(y)
    seen = {}

    def look(step, loss, module):
        with torch.no_grad():
            seen[step] = F.cross_entropy(module.eval()(inputs), labels).item()

    fitted = sampler(module=Noisy, callbacks=look).fit(X, y)
    assert same(fitted, sampler(module=Noisy).fit(X, y))
    n_parameters = sum(p.numel() for p in Noisy().parameters())
    assert fitted.snapshots_.shape == (10, n_parameters)
    assert fitted.buffers_.shape == (10, 6 + 6 + 1)
    for i, step in enumerate(fitted.steps_):
        with torch.no_grad():
            assert F.cross_entropy(fitted.module_at(i)(inputs), labels).item() == seen[step]
    assert len({fitted.buffers_[i, 0] for i in range(10)}) == 10


def test_a_module_that_changes_its_input_sees_each_batch_once(blobs):
    """The loss of the last row is taken on the last batch as it was."""
    X, y = blobs

    class Shifting(nn.Linear):
        def forward(self, x):
            return super().forward(x.add_(1.0))

    fitted = sampler(module=lambda: Shifting(4, 3), batch_size=None, max_steps=2).fit(X, y)
    inputs = torch.tensor(X, dtype=torch.float32)
    for i in range(3):
        with torch.no_grad():
            loss = F.cross_entropy(fitted.module_at(i)(inputs.clone()), torch.tensor(y)).item()
        assert fitted.losses_[i] == pytest.approx(loss, rel=1e-6)
