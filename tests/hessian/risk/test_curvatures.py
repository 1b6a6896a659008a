"""Gauss-Newton, Fisher and noise covariance against matrices built row by row, without skdmap."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from skdmap.hessian import EmpiricalRisk, hessian_operator

N, D, C = 30, 5, 3


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.LSTM(2, 3, batch_first=True), nn.Linear(3, C)

    def forward(self, x):
        return self.head(self.body(x.unflatten(1, (2, 2)))[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.TransformerEncoderLayer(4, 2, 5, batch_first=True)
        self.head = nn.Linear(4, C)

    def forward(self, x):
        return self.head(self.body(x.unflatten(1, (1, 4))).mean(1))


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().double()


MODELS = {
    "mlp": lambda: nn.Sequential(nn.Linear(4, D), nn.Tanh(), nn.Linear(D, C)),
    "batchnorm": lambda: nn.Sequential(nn.Linear(4, D), nn.BatchNorm1d(D), nn.Linear(D, C)),
    "lstm": Recurrent,
    "attention": Attention,
}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, 4)), rng.integers(0, C, N)


def weighted():
    return nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 25.0]), ignore_index=1)


CRITERIA = {
    "mean": nn.CrossEntropyLoss(),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "weighted": weighted(),
    "smoothed": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 25.0]), label_smoothing=0.2),
    "function": F.cross_entropy,
    "squares": nn.MSELoss(),
}


CASES = [("mlp", name) for name in CRITERIA] + [(model, "weighted") for model in MODELS]


def pieces(module, criterion, X, y):
    """The outputs of each row, their Jacobians, and the loss as a function of all outputs."""
    module = module.eval()
    names = [name for name, _ in module.named_parameters()]
    shapes = [p.shape for p in module.parameters()]
    theta = torch.cat([p.detach().reshape(-1) for p in module.parameters()])

    def outputs(flat):
        parts = flat.split([s.numel() for s in shapes])
        state = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return functional_call(module, state, (torch.as_tensor(X),)).reshape(-1)

    leaf = theta.clone().requires_grad_()
    z = outputs(leaf)
    jacobian = torch.stack([torch.autograd.grad(e, leaf, retain_graph=True)[0] for e in z])
    targets = torch.as_tensor(y)
    return theta, z.detach(), jacobian.detach(), lambda z: criterion(z.view(N, C), targets)


def targets_for(name, y):
    return np.eye(C)[y] if name == "squares" else y


@pytest.mark.parametrize("batch_size", [None, 7])
@pytest.mark.parametrize(("model", "name"), CASES)
def test_gauss_newton_is_the_jacobian_around_the_curvature_of_the_loss(
    data, model, name, batch_size
):
    X, y = data[0], targets_for(name, data[1])
    module, criterion = seeded(MODELS[model]), CRITERIA[name]
    if isinstance(criterion, nn.Module):
        criterion = criterion.double()
    if name == "function":
        batch_size = None if batch_size is None else 10
    risk = EmpiricalRisk(module, criterion, X, y, batch_size=batch_size)
    theta, z, J, loss = pieces(module, criterion, X, y)
    A = torch.autograd.functional.hessian(loss, z)
    V = np.random.default_rng(0).standard_normal((len(theta), 8))
    expected = (J.T @ A @ J).numpy() @ V
    with risk.operator_at(theta.numpy(), "ggn") as operator:
        found = operator.matmat(V)
        slope = torch.autograd.functional.jacobian(loss, z)
        gradient = (J.T @ slope).numpy()
        np.testing.assert_allclose(operator.gradient.numpy(), gradient, atol=1e-12)
        assert operator.loss == pytest.approx(loss(z).item(), rel=1e-12)
    np.testing.assert_allclose(found, expected, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("batch_size", [None, 7])
@pytest.mark.parametrize(("model", "name"), CASES)
def test_fisher_and_covariance_are_moments_of_row_gradients(
    data, model, name, batch_size, weight_decay
):
    X, y = data[0], targets_for(name, data[1])
    module, criterion = seeded(MODELS[model]), CRITERIA[name]
    if isinstance(criterion, nn.Module):
        criterion = criterion.double()
    risk = EmpiricalRisk(module, criterion, X, y, batch_size=batch_size, weight_decay=weight_decay)
    theta, z, J, loss = pieces(module, criterion, X, y)
    # The gradient in the outputs splits by rows: n times a row's part is the gradient of l_i.
    slope = torch.autograd.functional.jacobian(loss, z).view(N, C)
    rows = N * torch.einsum("nc,ncp->np", slope, J.view(N, C, -1)) + weight_decay * theta
    rows = rows.numpy()
    V = np.random.default_rng(0).standard_normal((len(theta), 8))
    moments = rows.T @ rows / N @ V
    scale = np.abs(moments).max()
    with risk.operator_at(theta.numpy(), "fisher") as operator:
        found = operator.matmat(V)
        np.testing.assert_allclose(operator.gradient.numpy(), rows.mean(axis=0), atol=1e-11)
    np.testing.assert_allclose(found, moments, atol=1e-12 * scale)
    with risk.operator_at(theta.numpy(), "gradient_covariance") as operator:
        found = operator.matmat(V)
    np.testing.assert_allclose(found, np.cov(rows.T, bias=True) @ V, atol=1e-12 * scale)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_gauss_newton_is_the_hessian_of_a_linear_model(data, weight_decay):
    risk = EmpiricalRisk(
        seeded(lambda: nn.Linear(4, C)), weighted(), *data, weight_decay=weight_decay
    )
    theta, identity = risk.snapshot()[0], np.eye(risk.n_parameters)
    expected = risk.matmat(theta, identity)
    with risk.operator_at(theta, "ggn") as ggn, risk.operator_at(theta) as hessian:
        np.testing.assert_allclose(hessian.matmat(identity), expected, atol=1e-14)
        np.testing.assert_allclose(ggn.matmat(identity), expected, atol=1e-14)


def test_a_mean_over_several_targets_a_row_has_its_rows(data):
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((N, 6, 4)), rng.integers(0, C, (N, 6))
    y[0], y[3, :4] = -100, -100

    class Steps(nn.Linear):
        def forward(self, x):
            return super().forward(x).transpose(1, 2)

    module, criterion = seeded(lambda: Steps(4, C)), nn.CrossEntropyLoss()
    risk = EmpiricalRisk(module, criterion, X, y, batch_size=7)
    count = (y != -100).sum()
    rows = []
    for i in range(N):
        module.zero_grad()
        out = module(torch.as_tensor(X[i : i + 1]))
        F.cross_entropy(out, torch.as_tensor(y[i : i + 1]), reduction="sum").backward()
        rows.append(torch.cat([p.grad.reshape(-1) for p in module.parameters()]) * N / count)
    rows = torch.stack(rows).numpy()
    with risk.operator_at(risk.snapshot()[0], "fisher") as operator:
        found = operator.matmat(np.eye(risk.n_parameters))
    np.testing.assert_allclose(found, rows.T @ rows / N, atol=1e-12)


def test_a_quarter_of_the_covariance_is_that_of_means_over_four_rows_drawn_with_replacement(data):
    """All pairs of rows are drawn here: an identity, not an estimate."""
    X, y = data[0][:5], data[1][:5]
    module = seeded(MODELS["mlp"])
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), X, y)
    theta = risk.snapshot()[0]
    pairs = [[i, j] for i in range(5) for j in range(5)]
    means = [
        EmpiricalRisk(module, nn.CrossEntropyLoss(), X[p], y[p]).gradient(theta) for p in pairs
    ]
    with risk.operator_at(theta, "gradient_covariance") as operator:
        found = operator.matmat(np.eye(len(theta)))
    np.testing.assert_allclose(np.cov(np.array(means).T, bias=True), found / 2, atol=1e-13)


@pytest.mark.parametrize(
    ("criterion", "targets"),
    [
        (lambda z, t: F.cross_entropy(z, t), "labels"),
        (lambda z: z.square().mean(), None),
        (lambda z, p: F.kl_div(z, p, reduction="batchmean"), "probabilities"),
    ],
)
def test_a_criterion_that_does_not_tell_rows_apart_is_named(data, criterion, targets):
    X, labels = data
    y = {"labels": labels, "probabilities": np.full((N, C), 1 / C)}.get(targets)
    risk = EmpiricalRisk(seeded(MODELS["mlp"]), criterion, X, y)
    with pytest.raises(ValueError, match="does not give one loss for each sample"):
        risk.operator_at(risk.snapshot()[0], "fisher")


def test_what_has_no_such_curvature_is_named(data):
    risk = EmpiricalRisk(seeded(MODELS["mlp"]), nn.CrossEntropyLoss(), *data)
    theta = risk.snapshot()[0]
    with pytest.raises(ValueError, match="curvature='gauss' must be one of 'hessian', 'ggn'"):
        risk.operator_at(theta, "gauss")
    with pytest.raises(ValueError, match="curvature='ggn' needs an EmpiricalRisk"):
        hessian_operator(lambda t: t.square().sum(), theta, "ggn")
    with hessian_operator(risk, theta, "ggn") as operator:
        assert operator.size == len(theta)


class Pair(nn.Linear):
    def forward(self, x):
        return {"logits": super().forward(x)}


def test_a_module_that_returns_no_tensor_has_a_hessian_and_no_gauss_newton_matrix(data):
    module = seeded(lambda: Pair(4, C))
    risk = EmpiricalRisk(module, lambda out, y: F.cross_entropy(out["logits"], y), *data)
    plain = EmpiricalRisk(seeded(lambda: nn.Linear(4, C)), nn.CrossEntropyLoss(), *data)
    theta = risk.snapshot()[0]
    np.testing.assert_allclose(risk.hvp(theta, theta), plain.hvp(theta, theta), rtol=1e-12)
    with pytest.raises(ValueError, match="returns one tensor of floats, not dict"):
        risk.operator_at(theta, "ggn")


def test_weight_decay_adds_half_its_squared_length_to_the_loss(data):
    module, (X, y) = seeded(MODELS["mlp"]), data
    losses = []
    for decay in (0.0, 0.3):
        risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), X, y, weight_decay=decay)
        theta = risk.snapshot()[0]
        with risk.operator_at(theta) as operator:
            losses.append((operator.loss, operator.gradient.numpy(), operator(theta)))
    np.testing.assert_allclose(losses[1][0] - losses[0][0], 0.15 * theta @ theta, rtol=1e-12)
    for i in (1, 2):  # the gradient of it is decay * theta, and so is its Hessian times theta
        np.testing.assert_allclose(losses[1][i] - losses[0][i], 0.3 * theta, rtol=1e-9, atol=1e-12)
