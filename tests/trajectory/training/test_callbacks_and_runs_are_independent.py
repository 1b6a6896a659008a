"""Who looks at a run does not change it, and runs share nothing that is trained or scheduled."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skdmap import TrajectorySampler

N_ROWS, BATCH = 45, 16


class Noisy(nn.Sequential):
    """Noise on the rows, batch normalisation and dropout: buffers, and a stream of its own."""

    def __init__(self):
        super().__init__(
            nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3)
        )

    def forward(self, x):
        return super().forward(x + 0.1 * torch.randn_like(x) if self.training else x)


class Body(nn.Module):
    """A network around a part that it is given."""

    def __init__(self, part, again=None):
        super().__init__()
        self.part, self.again, self.last = part, again, nn.Linear(4, 3)

    def forward(self, x):
        x = torch.tanh(self.part(x))
        return self.last(x if self.again is None else torch.tanh(self.again(x)))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N_ROWS, 4)).astype(np.float32), rng.integers(0, 3, N_ROWS)


@pytest.fixture(scope="module")
def tensors(data):
    return tuple(map(torch.tensor, data))


def sampler(**params):
    settings = {"module": Noisy, "max_epochs": 2, "batch_size": BATCH, "random_state": 0}
    return TrajectorySampler(**{**settings, **params})


def trained(fitted):
    return [[p.detach().numpy() for p in module.parameters()] for module in fitted.modules_]


def gradient(module):
    return np.concatenate([p.grad.numpy().ravel() for p in module.parameters()])


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "LBFGS"])
def test_a_callback_that_makes_gradients_changes_nothing(data, tensors, optimizer):
    def look(step, loss, module):
        F.cross_entropy(module(tensors[0]), tensors[1]).backward()
        if step == 3:
            module.zero_grad()

    settings = {"optimizer": optimizer, "n_runs": 2, "optimizer_params": {"lr": 0.05}}
    alone, looked_at = (
        sampler(**settings).fit(*data),
        sampler(callbacks=look, **settings).fit(*data),
    )
    np.testing.assert_array_equal(looked_at.snapshots_, alone.snapshots_)
    np.testing.assert_array_equal(looked_at.losses_, alone.losses_)
    np.testing.assert_array_equal(looked_at.buffers_, alone.buffers_)
    assert all(p.grad is None for module in looked_at.modules_ for p in module.parameters())


def test_a_callback_finds_the_gradient_of_the_loss_of_its_row(data, tensors):
    """The last row too: theta of one step more differs by lr times it."""
    seen = {}

    def note(step, loss, module):
        seen[step] = gradient(module)

    settings = {"module": lambda: nn.Linear(4, 3), "batch_size": None, "max_epochs": 5}
    fitted = sampler(callbacks=note, optimizer_params={"lr": 0.1}, **settings).fit(*data)
    assert list(seen) == list(range(6))
    for step, row in enumerate(fitted.snapshots_):
        module = fitted.module_at(step)
        assert np.array_equal(
            row, np.concatenate([p.detach().ravel() for p in module.parameters()])
        )
        F.cross_entropy(module(tensors[0]), tensors[1]).backward()
        # Rows in another order: equal up to the rounding of a sum.
        np.testing.assert_allclose(seen[step], gradient(module), atol=1e-6)


def test_a_recorded_function_may_make_gradients_at_its_row(data, tensors):
    def squared_gradient(module):
        loss = F.cross_entropy(module(tensors[0]), tensors[1])
        loss.backward()
        return torch.stack([loss.detach(), *(p.grad.square().sum() for p in module.parameters())])

    settings = {"n_runs": 2, "optimizer_params": {"lr": 0.1, "momentum": 0.9}}
    alone = sampler(**settings).fit(*data)
    looked_at = sampler(record=squared_gradient, **settings).fit(*data)
    for one, other in zip(trained(alone), trained(looked_at), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(looked_at.losses_, alone.losses_)
    for i in range(len(alone.snapshots_)):
        again = squared_gradient(alone.module_at(i))
        np.testing.assert_allclose(looked_at.snapshots_[i], again, rtol=1e-5)


@pytest.mark.parametrize("vectorize", [False, True])
def test_a_rate_that_is_a_tensor_begins_alike_in_each_run_and_stays_the_users(data, vectorize):
    rate = torch.tensor(0.1)
    settings = {
        "module": lambda: nn.Linear(4, 3), "n_runs": 2, "scheduler": "ExponentialLR",
        "scheduler_params": {"gamma": 0.5}, "vectorize": vectorize,
    }  # fmt: skip
    fitted = sampler(optimizer_params={"lr": rate}, **settings).fit(*data)
    as_number = sampler(optimizer_params={"lr": 0.1}, **settings).fit(*data)
    assert float(rate) == pytest.approx(0.1)
    np.testing.assert_allclose(fitted.learning_rates_, as_number.learning_rates_, rtol=1e-6)
    np.testing.assert_allclose(fitted.snapshots_, as_number.snapshots_, rtol=1e-4, atol=1e-6)


def test_a_part_that_a_module_is_given_is_not_trained_and_each_run_begins_with_it(data):
    part = nn.Linear(4, 4)
    before = copy.deepcopy(part.state_dict())
    fitted = sampler(module=Body, module_params={"part": part}, n_runs=2).fit(*data)
    for name, value in part.state_dict().items():
        assert torch.equal(value, before[name])
    first, second = (fitted.snapshots_[fitted.run_ids_ == run] for run in (0, 1))
    n_given = sum(value.numel() for value in before.values())
    np.testing.assert_array_equal(first[0, :n_given], second[0, :n_given])
    assert not np.array_equal(first[0, n_given:], second[0, n_given:])
    assert not np.array_equal(first[-1, :n_given], first[0, :n_given])


def test_a_part_that_is_given_twice_stays_one(data):
    part = nn.Linear(4, 4)
    fitted = sampler(module=Body, module_params={"part": part, "again": part}).fit(*data)
    assert fitted.module_.part is fitted.module_.again
    assert fitted.snapshots_.shape[1] == 4 * 4 + 4 + 4 * 3 + 3
