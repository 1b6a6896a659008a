"""Losses whose derivatives autograd does not know: an error with figures, no wrong spectrum."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from skdmap import EmpiricalRisk, HessianSpectrum
from skdmap.exceptions import SkdmapWarning

N, D, C = 30, 4, 3
FIGURES = r"do not fit its values.*(norm|direction is) [-\d.e+]+.*difference quotient.*[-\d.e+]+"


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, D)), rng.integers(0, C, N)


class OnceDifferentiable(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * x * g


class KeepsOnContext(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.sigmoid = torch.sigmoid(x)
        return x * ctx.sigmoid

    @staticmethod
    def backward(ctx, g):
        (x,), s = ctx.saved_tensors, ctx.sigmoid
        return g * (s + x * s * (1 - s))


class KeepsInput(Function):
    """Of the newer kind, with setup_context."""

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.x = inputs[0].detach()

    @staticmethod
    def backward(ctx, g):
        return 3 * ctx.x**2 * g


class WrongBackward(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.sin(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 0.9 * torch.cos(x) * g


def straight_through(x):
    return x + (torch.round(x) - x).detach()


def by_numpy(x):
    return x * torch.from_numpy(np.tanh(x.detach().numpy()))


HIDDEN = {
    "once_differentiable": OnceDifferentiable.apply,
    "kept on ctx": KeepsOnContext.apply,
    "kept in setup_context": KeepsInput.apply,
    "wrong backward": WrongBackward.apply,
    "detach": lambda x: x * torch.sigmoid(x).detach(),
    ".data": lambda x: torch.tanh(x) * x.data,
    "straight through": straight_through,
    "numpy": by_numpy,
    "no_grad": lambda x: x + _under_no_grad(x),
}


@torch.no_grad()
def _under_no_grad(x):
    return torch.tanh(x)


class Activation(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", HIDDEN)
def test_a_hidden_dependence_is_an_error(data, name, dtype, last):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, C), Activation(HIDDEN[name])]
        layers += [] if last else [nn.Linear(C, C)]
        module = nn.Sequential(*layers).to(dtype)
    with pytest.raises(ValueError, match=rf"{FIGURES}|once_differentiable"):
        EmpiricalRisk(module, nn.CrossEntropyLoss(), *data)


@pytest.mark.parametrize("name", HIDDEN)
def test_a_hidden_dependence_of_a_function_is_an_error(name):
    point = np.array([[0.3, -0.6, 1.1]])
    with pytest.raises(ValueError, match=rf"{FIGURES}|once_differentiable"):
        HessianSpectrum(lambda t: HIDDEN[name](t).square().sum(), 2).fit(point)


@pytest.mark.parametrize(
    "loss",
    [
        lambda t: torch.tensor(t.square().sum().item(), requires_grad=True),
        lambda t: t.square().sum().detach().requires_grad_(),
        lambda t: (
            torch.tensor([float(v) for v in t.detach()], requires_grad=True).square().sum()
            + 0 * t[0]
        ),
    ],
)
def test_a_loss_that_is_created_anew_is_an_error(loss):
    with pytest.raises(ValueError, match=FIGURES):
        HessianSpectrum(loss, 2).fit(np.ones((1, 5)))


def test_a_loss_of_a_criterion_that_is_created_anew_is_an_error(data):
    def anew(z, y):
        return torch.tensor(F.cross_entropy(z, y).item(), requires_grad=True)

    with pytest.raises(ValueError, match=FIGURES):
        EmpiricalRisk(nn.Linear(D, C), anew, *data)


@pytest.mark.parametrize(
    "loss",
    [
        lambda t: t.abs().sum(),
        lambda t: torch.relu(t).square().sum() + torch.relu(t).sum(),
        lambda t: (t - 1).abs().amax(),
        lambda t: t.square().sum().clamp(max=1e-30),
        lambda t: 0 * t.sum() + 5,
        lambda t: t.norm(p=3) ** 3,
        lambda t: 1e120 * t.square().sum(),
        lambda t: torch.where(t > 0, t, 0.1 * t).sum(),
    ],
)
def test_kinks_and_constants_are_no_false_alarm(loss):
    HessianSpectrum(loss, 2).fit(np.zeros((1, 5)))


class Penalised:
    def __init__(self, net):
        self.net = net

    def __call__(self, z, y):
        penalty = sum(p.square().sum() for p in self.net.parameters())
        return F.cross_entropy(z, y) + 0.5 * penalty


def net():
    return nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, C))


def test_a_penalty_on_the_parameters_of_the_module_names_them(data):
    module = net()
    for criterion in (Penalised(module), lambda z, y: Penalised(module)(z, y)):
        with pytest.raises(ValueError, match=r"0\.weight.*weight_decay"):
            EmpiricalRisk(module, criterion, *data)
    with pytest.raises(ValueError, match=r"2\.weight"):
        EmpiricalRisk(module, Penalised(module), *data, parameters="0.*")
    with pytest.raises(ValueError, match="4 of the shapes that the module's parameters have"):
        EmpiricalRisk(net(), Penalised(module), *data)


def test_a_forward_that_holds_another_module_names_its_parameters(data):
    module = net()
    inner = module.forward
    module.forward = lambda x: 2 * inner(x)
    with pytest.raises(ValueError, match=r"0\.weight.*forward that was replaced"):
        EmpiricalRisk(module, nn.CrossEntropyLoss(), *data)


def test_trainable_tensors_elsewhere_are_held_fixed_with_a_warning(data):
    teacher = nn.Linear(C, 7)
    with pytest.warns(SkdmapWarning, match=r"2 trainable tensors.*held fixed.*requires_grad_"):
        EmpiricalRisk(net(), lambda z, y: F.cross_entropy(teacher(z), y), *data)
    teacher.requires_grad_(False)
    EmpiricalRisk(net(), lambda z, y: F.cross_entropy(teacher(z), y), *data)
