"""Criteria that divide in their own way, or lack a second derivative in torch."""

import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from skdmap.hessian import EmpiricalRisk, HessianSpectrum

N, D, C = 20, 4, 3  # 20 rows in batches of 7: the last one has 6


class LogProbabilities(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, C))

    def forward(self, x):
        return self.body(x).log_softmax(dim=1)


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().double()


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, D)), rng.dirichlet(np.ones(C), N), rng.integers(0, C, N)


def of_outputs(module, X):
    """The outputs of all rows as a function of the flat vector, and the vector."""
    shapes = {name: p.shape for name, p in module.named_parameters()}
    theta = torch.cat([p.detach().reshape(-1) for p in module.parameters()])

    def outputs(flat):
        parts = flat.split([shape.numel() for shape in shapes.values()])
        state = {n: p.view(s) for (n, s), p in zip(shapes.items(), parts, strict=True)}
        return functional_call(module, state, (torch.as_tensor(X),))

    return theta, outputs


def oracle(curvature, theta, outputs, loss_of_rows, whole):
    """The matrix, dense, from the loss as a function of all outputs or of each row of them."""
    if curvature == "hessian":
        return torch.autograd.functional.hessian(lambda t: whole(outputs(t)), theta)
    J = torch.autograd.functional.jacobian(lambda t: outputs(t).reshape(-1), theta)
    if curvature == "ggn":
        z = outputs(theta).reshape(-1)
        A = torch.autograd.functional.hessian(lambda z: whole(z.view(N, C)), z)
        return J.T @ A @ J
    G = torch.autograd.functional.jacobian(lambda t: loss_of_rows(outputs(t)), theta)
    G = G - G.mean(dim=0) if curvature == "gradient_covariance" else G
    return G.T @ G / N


def found_by(risk, theta, curvature):
    with risk.operator_at(theta.numpy(), curvature) as operator:
        return operator.matmat(np.eye(len(theta)))


CURVATURES = ["hessian", "ggn", "fisher", "gradient_covariance"]


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.parametrize(("batch_size", "as_function"), [(None, False), (7, False), (7, True)])
@pytest.mark.parametrize("reduction", ["batchmean", "mean", "sum"])
@pytest.mark.parametrize("curvature", CURVATURES)
def test_a_divergence_divides_by_rows_by_entries_or_by_nothing(
    data, curvature, reduction, batch_size, as_function
):
    X, P, _ = data
    module = seeded(LogProbabilities)
    theta, outputs = of_outputs(module, X)
    # Written out: the sum over rows and classes of p (log p - log q).
    target = torch.as_tensor(P)

    def sums(z):
        return (target * (target.log() - z)).sum(dim=1)

    each = {"batchmean": 1.0, "mean": 1 / C, "sum": N}[reduction]
    expected = oracle(
        curvature, theta, outputs, lambda z: each * sums(z), lambda z: each * sums(z).mean()
    ).numpy()
    criterion = nn.KLDivLoss(reduction=reduction)
    if as_function:
        criterion = functools.partial(F.kl_div, reduction=reduction)
    risk = EmpiricalRisk(module, criterion, X, P, batch_size=batch_size)
    # Of log-probabilities the loss is linear: the Gauss-Newton matrix is zero.
    size = max(np.abs(expected).max(), 1e-3)
    np.testing.assert_allclose(found_by(risk, theta, curvature), expected, atol=1e-12 * size)


@pytest.mark.parametrize("curvature", CURVATURES)
def test_a_sum_by_keyword_is_a_sum(data, curvature):
    X, P, _ = data
    module = seeded(LogProbabilities)
    theta = of_outputs(module, X)[0]
    risks = [
        EmpiricalRisk(module, criterion, X, P, batch_size=7)
        for criterion in (
            nn.MSELoss(reduction="sum"),
            functools.partial(F.mse_loss, reduction="sum"),
        )
    ]
    expected, found = (found_by(risk, theta, curvature) for risk in risks)
    np.testing.assert_allclose(found, expected, atol=1e-12 * np.abs(expected).max())


WEIGHT = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)


@pytest.mark.parametrize(
    "settings",
    [{}, {"p": 2}, {"p": 2, "margin": 0.5, "weight": WEIGHT}, {"p": 2, "reduction": "sum"}],
)
@pytest.mark.parametrize("curvature", CURVATURES)
def test_a_multi_class_margin_has_all_its_curvatures(data, curvature, settings):
    X, _, y = data
    module = seeded(lambda: nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, C)))
    theta, outputs = of_outputs(module, X)
    power, margin = settings.get("p", 1), settings.get("margin", 1.0)
    weight = settings.get("weight", torch.ones(C, dtype=torch.float64))

    def rows(z):  # class by class, as the definition has it
        own, label = z[range(N), y], torch.as_tensor(y)
        missed = [(label != j) * torch.relu(margin - own + z[:, j]) ** power for j in range(C)]
        return weight[label] * sum(missed) / C

    each = N if settings.get("reduction") == "sum" else 1.0
    expected = oracle(
        curvature, theta, outputs, lambda z: each * rows(z), lambda z: each * rows(z).mean()
    ).numpy()
    atol = 1e-12 * max(np.abs(expected).max(), 1e-3)
    for criterion in (
        nn.MultiMarginLoss(**settings),
        functools.partial(F.multi_margin_loss, **settings),
    ):
        risk = EmpiricalRisk(module, criterion, X, y, batch_size=7)
        own = criterion(outputs(theta), torch.as_tensor(y))
        assert risk(theta.numpy()) == pytest.approx(own.item(), rel=1e-12)
        np.testing.assert_allclose(found_by(risk, theta, curvature), expected, atol=atol)


def test_a_plain_function_of_a_multi_class_margin_can_be_fitted(data):
    X, _, y = data
    made, plain = (
        HessianSpectrum(EmpiricalRisk(seeded(lambda: nn.Linear(D, C)), c, X, y), 3).fit(
            np.zeros((1, D * C + C))
        )
        for c in (nn.MultiMarginLoss, F.multi_margin_loss)
    )
    np.testing.assert_allclose(made.eigenvalues_, plain.eigenvalues_, atol=1e-12)
