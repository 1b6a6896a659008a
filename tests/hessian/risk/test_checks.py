"""What does not show at the module's own parameters, or is not real, is found out all the same."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skdmap.hessian import EmpiricalRisk, HessianSpectrum

N, D, C = 4000, 4, 2


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, D)), rng.integers(0, C, N)


class StartsAtZero(nn.Module):
    """Its outputs are all zero, whatever ``between`` does to the hidden layer."""

    def __init__(self, between=None):
        super().__init__()
        self.hidden, self.last = nn.Linear(D, 64), nn.Linear(64, C)
        self.between = between or nn.Identity()
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x):
        return self.last(self.between(torch.tanh(self.hidden(x))))


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(dim=0)


class AlwaysDropping(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5, training=True)


def test_weights_of_classes_show_where_all_outputs_are_alike(data):
    weight = torch.tensor([1.0, 5.0], dtype=torch.float64)

    def criterion(outputs, y):
        return F.cross_entropy(outputs, y, weight=weight)

    with pytest.raises(ValueError, match="two batches of them"):
        EmpiricalRisk(StartsAtZero().double(), criterion, *data, batch_size=300)


def test_rows_that_depend_on_each_other_are_not_cut_where_all_outputs_are_alike(data):
    X, y = (torch.from_numpy(part) for part in data)
    module = StartsAtZero(Centred()).double()
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), *data)
    own = risk.snapshot()[0]
    F.cross_entropy(module(X), y).backward()
    wanted = torch.cat([p.grad.reshape(-1) for p in module.parameters()]).numpy()
    np.testing.assert_allclose(risk.gradient(own), wanted, atol=1e-12)
    with pytest.raises(ValueError, match="two batches of them"):
        EmpiricalRisk(module, nn.CrossEntropyLoss(), *data, batch_size=300)


def test_a_module_that_draws_at_random_shows_where_all_outputs_are_alike(data):
    with pytest.raises(ValueError, match="not deterministic"):
        EmpiricalRisk(StartsAtZero(AlwaysDropping()).double(), nn.CrossEntropyLoss(), *data)


def test_a_loss_that_is_not_finite_elsewhere_is_no_false_alarm(data):
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.full((40,), 1e-3, dtype=torch.float64))

        def forward(self, x):
            return x[:, :1] * self.w.sqrt().sum()

    risk = EmpiricalRisk(Root(), nn.MSELoss(), *data, batch_size=300)
    assert np.isfinite(risk(risk.snapshot()[0]))


class Turning(nn.Module):
    """Multiplies pairs of columns with complex numbers, as rotary embeddings do."""

    def __init__(self, kind):
        super().__init__()
        self.last = nn.Linear(D, C)
        angles = torch.polar(torch.ones(2), torch.tensor([0.5, 1.3]))
        if kind == "buffer":
            self.register_buffer("angles", angles)
        else:
            self.angles = nn.Parameter(angles, requires_grad=kind == "parameter")

    def forward(self, x):
        turned = torch.view_as_complex(x.reshape(-1, 2, 2)) * self.angles
        return self.last(torch.view_as_real(turned).reshape(-1, D))


@pytest.mark.parametrize("kind", ["buffer", "frozen"])
@pytest.mark.parametrize("dtype", [None, "float64"])
def test_complex_constants_keep_their_imaginary_parts(data, kind, dtype):
    module = Turning(kind)
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), *data, dtype=dtype)
    X, y = torch.from_numpy(data[0]).float(), torch.from_numpy(data[1])
    wanted = float(F.cross_entropy(module(X), y).detach())
    assert risk(risk.snapshot()[0]) == pytest.approx(wanted, rel=1e-5)


def test_complex_parameters_and_data_are_named(data):
    X, y = data
    with pytest.raises(ValueError, match=r"complex parameters .angles."):
        EmpiricalRisk(Turning("parameter"), nn.CrossEntropyLoss(), X, y)
    for complex_X in (X + 1j, torch.from_numpy(X + 1j)):
        with pytest.raises(TypeError, match=r"dtype .*complex128; it must be"):
            EmpiricalRisk(nn.Linear(D, C), nn.CrossEntropyLoss(), complex_X, y)


def test_a_module_that_writes_into_its_parameters_leaves_theta_alone(data):
    words, y = np.arange(2 * N).reshape(N, 2) % 5, data[1]
    module = nn.Sequential(nn.Embedding(5, 3, max_norm=0.5), nn.Flatten(), nn.Linear(6, C))
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), words, y)
    theta = torch.ones(risk.n_parameters)
    risk(theta)
    assert torch.equal(theta, torch.ones(risk.n_parameters))


RANDOM = {
    "noise times parameters that are zero": lambda t: (torch.rand(len(t)) * t.square()).sum(),
    "dropout of what is zero": lambda t: nn.functional.dropout(t, 0.5).square().sum(),
    "in the slope": lambda t: torch.rand(len(t)).double() @ t + t.square().sum(),
}


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("size", [20, 400])
def test_randomness_that_is_zero_at_the_point_shows(name, size):
    with pytest.raises(ValueError, match="not deterministic"):
        HessianSpectrum(RANDOM[name], 2, random_state=0).fit(np.zeros((1, size)))


def test_checks_of_a_function_call_it_three_times():
    calls = []

    def loss(theta):
        calls.append(1)
        return (theta**4).sum()

    HessianSpectrum(loss, 2, random_state=0).fit(np.ones((1, 300)))
    assert len(calls) == 3
