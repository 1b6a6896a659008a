"""Modules that are hard to copy, call or differentiate have the numbers of plain ones."""

import copy
import warnings

import joblib
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

from skdmap import EmpiricalRisk, HessianSpectrum
from skdmap.hessian._risk import module_loss

N, D, C = 40, 4, 3


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, D)), rng.integers(0, C, N)


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().double()


def mlp():
    return nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, C))


def differences(risk, theta, v, step=1e-6):
    return (risk.gradient(theta + step * v) - risk.gradient(theta - step * v)) / (2 * step)


def same(first, second, theta=None):
    """Compare loss, gradient and product of two risks, away from the modules' own parameters."""
    theta = first.snapshot()[0] + 0.1 if theta is None else theta
    v = np.random.default_rng(1).standard_normal(len(theta))
    assert first(theta) == pytest.approx(second(theta), rel=1e-12)
    np.testing.assert_allclose(first.gradient(theta), second.gradient(theta), atol=1e-12)
    np.testing.assert_allclose(first.hvp(theta, v), second.hvp(theta, v), atol=1e-12)


def right(risk):
    theta = risk.snapshot()[0] + 0.1
    v = np.random.default_rng(1).standard_normal(len(theta))
    expected = differences(risk, theta, v)
    np.testing.assert_allclose(risk.hvp(theta, v), expected, atol=1e-6 * np.abs(expected).max())


def computed(kind):
    layer = nn.Linear(D, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        if kind == "weight_norm":
            weight_norm(layer)
        elif kind == "spectral_norm":
            spectral_norm(layer)
        elif kind == "prune":
            prune.l1_unstructured(layer, "weight", amount=0.3)
        elif kind == "new weight_norm":
            parametrizations.weight_norm(layer)
        elif kind == "new spectral_norm":
            parametrizations.spectral_norm(layer)
        elif kind == "orthogonal":
            parametrizations.orthogonal(layer)
    return nn.Sequential(layer, nn.Tanh(), nn.Linear(5, C))


KINDS = [
    "weight_norm",
    "spectral_norm",
    "prune",
    "new weight_norm",
    "new spectral_norm",
    "orthogonal",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_module_whose_weight_is_computed_is_copied_and_right(data, kind):
    module = seeded(lambda: computed(kind))
    module(torch.from_numpy(data[0]))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), *data)
    right(risk)
    own = F.cross_entropy(module.eval()(torch.from_numpy(data[0])), torch.from_numpy(data[1]))
    assert risk(risk.snapshot()[0]) == pytest.approx(own.item(), rel=1e-12)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    if kind in ("weight_norm", "spectral_norm", "prune"):  # torch pickles no parametrized module
        digest = joblib.hash(risk)
        risk(risk.snapshot()[0])
        assert joblib.hash(risk) == digest


def test_weight_norm_has_the_hessian_of_its_formula(data):
    """torch.nn.utils.weight_norm of torch 2.13 has wrong second derivatives on a CPU."""

    class Formula(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.bias = copy.deepcopy(layer.bias)
            self.g = nn.Parameter(layer.parametrizations.weight.original0.detach().clone())
            self.v = nn.Parameter(layer.parametrizations.weight.original1.detach().clone())

        def forward(self, x):
            return F.linear(x, self.g * self.v / self.v.norm(dim=1, keepdim=True), self.bias)

    layer = seeded(lambda: parametrizations.weight_norm(nn.Linear(D, C)))
    first, second = (
        EmpiricalRisk(module, nn.CrossEntropyLoss(), *data) for module in (layer, Formula(layer))
    )
    same(first, second)


@pytest.mark.parametrize("pattern", [None, "0.*", "0.weight"])
@pytest.mark.parametrize("kind", ["compile", "inner compile", "compile()", "parallel", "both"])
def test_wrapped_modules_are_the_plain_ones(data, kind, pattern):
    plain, wrapped = seeded(mlp), seeded(mlp)
    if kind == "compile":
        wrapped = torch.compile(wrapped, backend="aot_eager")
    elif kind == "inner compile":
        wrapped[0] = torch.compile(wrapped[0], backend="aot_eager")
    elif kind == "compile()":
        wrapped.compile(backend="aot_eager")
    elif kind == "parallel":
        wrapped = nn.DataParallel(wrapped)
    else:
        wrapped = nn.DataParallel(torch.compile(wrapped, backend="aot_eager"))
    first, second = (
        EmpiricalRisk(module, nn.CrossEntropyLoss(), *data, parameters=pattern)
        for module in (plain, wrapped)
    )
    same(first, second)


def test_a_compiled_function_has_a_hessian():
    loss = torch.compile(lambda t: (t**4).sum() / 12, backend="aot_eager")
    found = HessianSpectrum(loss, 2).fit(np.array([[1.0, 2.0]])).eigenvalues_
    np.testing.assert_allclose(found, [4.0, 1.0])


class Tokens(nn.Module):
    def __init__(self, sparse=False):
        super().__init__()
        self.e, self.l = nn.Embedding(7, 3, sparse=sparse), nn.Linear(3, C)

    def forward(self, tokens):
        return self.l(torch.tanh(self.e(tokens).mean(1)))


@pytest.mark.parametrize("curvature", ["hessian", "ggn", "fisher"])
def test_a_sparse_embedding_is_a_dense_one(curvature):
    rng = np.random.default_rng(0)
    tokens, y = rng.integers(0, 7, (30, 5)), rng.integers(0, C, 30)
    risks = [
        EmpiricalRisk(seeded(lambda s=s: Tokens(s)), nn.CrossEntropyLoss(), tokens, y)
        for s in (False, True)
    ]
    same(*risks)
    theta = risks[0].snapshot()[0]
    dense, sparse = (risk.operator_at(theta, curvature) for risk in risks)
    with dense, sparse:
        np.testing.assert_allclose(sparse(theta), dense(theta), atol=1e-13)


class Checkpointed(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(D, 5), nn.Linear(5, 5), nn.Linear(5, C)
        self.how = how

    def forward(self, x):
        def block(h):
            return torch.tanh(self.b(torch.tanh(h)))

        h = self.a(x)
        return self.c(
            block(h) if self.how is None else checkpoint(block, h, use_reentrant=self.how)
        )


@pytest.mark.parametrize("curvature", ["hessian", "ggn", "fisher", "gradient_covariance"])
def test_activation_checkpointing_changes_nothing(data, curvature):
    plain, saving = (
        EmpiricalRisk(seeded(lambda h=h: Checkpointed(h)), nn.CrossEntropyLoss(), *data)
        for h in (None, False)
    )
    same(plain, saving)
    theta = plain.snapshot()[0] + 0.1  # not the parameters that the module itself holds
    for budget in (None, 1):
        first, second = (
            risk.operator_at(theta, curvature, memory_budget=budget) for risk in (plain, saving)
        )
        with first, second:
            np.testing.assert_allclose(second(theta), first(theta), atol=1e-13)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
def test_reentrant_checkpointing_is_an_error_with_the_way_out(data):
    with pytest.raises(ValueError, match="use_reentrant=False"):
        EmpiricalRisk(seeded(lambda: Checkpointed(True)), nn.CrossEntropyLoss(), *data)


class Residual(nn.Module):
    def __init__(self, enabled):
        super().__init__()
        self.u = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1))
        self.enabled = enabled

    def forward(self, z):
        with torch.set_grad_enabled(self.enabled or torch.is_grad_enabled()):
            z = z.detach().requires_grad_(True)
            (du,) = torch.autograd.grad(self.u(z).sum(), z, create_graph=True)
            (ddu,) = torch.autograd.grad(du[:, 0].sum(), z, create_graph=True)
            return du[:, 1] - ddu[:, 0]


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_derivatives_in_forward_are_there_whatever_the_caller_has_switched_off(context):
    X, y = np.random.default_rng(0).random((30, 2)), np.zeros(30)
    plain = EmpiricalRisk(seeded(lambda: Residual(True)), nn.MSELoss(), X, y)
    with context():
        risk = EmpiricalRisk(seeded(lambda: Residual(False)), nn.MSELoss(), X, y)
        same(risk, plain)
        right(risk)
        found = HessianSpectrum(risk, 2, random_state=0).fit(risk.snapshot()).eigenvalues_
    expected = HessianSpectrum(plain, 2, random_state=0).fit(plain.snapshot()).eigenvalues_
    np.testing.assert_allclose(found, expected, rtol=1e-10)


class Network(nn.Module):
    """A graph convolution, whose adjacency fits all samples and no others."""

    def __init__(self, n):
        super().__init__()
        self.register_buffer("A", torch.rand(n, n) / n)
        self.a, self.b = nn.Linear(D, 6), nn.Linear(6, C)

    def forward(self, x):
        return self.b(self.A @ torch.relu(self.a(self.A @ x)))


@pytest.mark.parametrize("n", [20, 100, 700])
def test_samples_that_need_each_other_go_together(n):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((n, D)), rng.integers(0, C, n)
    module = seeded(lambda: Network(n))
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), X, y)
    loss = F.cross_entropy(module(torch.from_numpy(X)), torch.from_numpy(y))
    slope = torch.autograd.grad(loss, list(module.parameters()))
    theta = risk.snapshot()[0]
    assert risk(theta) == pytest.approx(loss.item(), rel=1e-12)
    np.testing.assert_allclose(
        risk.gradient(theta), torch.cat([part.reshape(-1) for part in slope]), atol=1e-13
    )
    right(risk)
    with risk.operator_at(theta, memory_budget=10**6) as operator:
        assert operator.n_chunks == 1
        assert not operator.has_sample
    with pytest.raises(ValueError, match="fails on samples"):
        EmpiricalRisk(module, nn.CrossEntropyLoss(), X, y, batch_size=7)


def test_a_criterion_that_needs_all_samples_has_them(data):
    weights = torch.linspace(0, 1, 100, dtype=torch.float64)

    def criterion(z, y):
        return (weights * F.cross_entropy(z, y, reduction="none")).sum()

    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((100, D)), rng.integers(0, C, 100)
    module = seeded(mlp)
    risk = EmpiricalRisk(module, criterion, X, y)
    expected = criterion(module(torch.from_numpy(X)), torch.from_numpy(y)).item()
    assert risk(risk.snapshot()[0]) == pytest.approx(expected, rel=1e-12)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(8, C)

    def forward(self, ids):
        return self.head(self.encoder(self.embed(ids), src_key_padding_mask=ids == 0).mean(1))


def test_the_fast_path_of_an_encoder_changes_no_block_of_the_hessian():
    rng = np.random.default_rng(0)
    ids, y = rng.integers(1, 9, (N, 6)), rng.integers(0, C, N)
    ids[: N // 2, 4:] = 0
    module = seeded(Encoder)
    whole = EmpiricalRisk(module, nn.CrossEntropyLoss(), ids, y)
    head = EmpiricalRisk(module, nn.CrossEntropyLoss(), ids, y, parameters="head.*")
    theta, own = whole.snapshot()[0], head.snapshot()[0]
    assert np.array_equal(theta[-len(own) :], own)
    assert head(own) == pytest.approx(whole(theta), rel=1e-13)
    units = np.eye(len(theta))[:, -len(own) :]
    block = whole.matmat(theta, units)[-len(own) :]
    np.testing.assert_allclose(head.matmat(own, np.eye(len(own))), block, atol=1e-13)
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_fast_path_is_as_before_after_an_error(data):
    for enabled in (False, True):
        torch.backends.mha.set_fastpath_enabled(enabled)
        with pytest.raises(ValueError, match="fails on samples"):
            EmpiricalRisk(nn.Linear(7, C), nn.CrossEntropyLoss(), *data)
        assert torch.backends.mha.get_fastpath_enabled() is enabled


class Autocast(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.inner(x).float()


def leave_on_forward(module):
    """As a trainer does: the instance gets a forward that casts."""
    plain = type(module).forward
    cast = torch.autocast("cpu", dtype=torch.bfloat16)(plain)
    module.forward = cast.__get__(module)
    return module


@pytest.mark.parametrize("how", ["inside", "on forward", "outside"])
def test_autocast_is_undone(data, how):
    X, y = data[0].astype(np.float32), data[1]
    plain = EmpiricalRisk(seeded(mlp).float(), nn.CrossEntropyLoss(), X, y)
    module = seeded(mlp).float()
    module = {"inside": Autocast, "on forward": leave_on_forward}.get(how, lambda m: m)(module)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how == "outside"):
        risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), X, y)
        theta = plain.snapshot()[0]
        np.testing.assert_allclose(
            risk.hvp(theta, theta), plain.hvp(theta, theta), atol=1e-6, rtol=1e-5
        )
        found = HessianSpectrum(risk, 3, random_state=0).fit(theta[None]).eigenvalues_
    expected = HessianSpectrum(plain, 3, random_state=0).fit(theta[None]).eigenvalues_
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("risk_dtype", ["float32", "float64"])
def test_half_precision_by_hand_is_an_error(data, dtype, risk_dtype):
    class Half(nn.Linear):
        def forward(self, x):
            return F.linear(x.to(dtype), self.weight.to(dtype)).to(x)

    with pytest.raises(ValueError, match=rf"computes in {dtype}.*Remove the conversion"):
        EmpiricalRisk(Half(D, C), nn.CrossEntropyLoss(), *data, dtype=risk_dtype)
    with pytest.raises(ValueError, match=rf"computes in {dtype}.*Remove the conversion"):
        HessianSpectrum(lambda t: t.to(dtype).square().sum(), 1).fit(np.ones((1, 3)))


def test_a_module_trained_by_accelerate_in_mixed_precision(data):
    accelerate = pytest.importorskip("accelerate")
    X, y = data[0].astype(np.float32), data[1]
    plain = EmpiricalRisk(seeded(mlp).float(), nn.CrossEntropyLoss(), X, y)
    module = accelerate.Accelerator(cpu=True, mixed_precision="bf16").prepare(seeded(mlp).float())
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), X, y)
    theta = plain.snapshot()[0]
    np.testing.assert_allclose(risk.hvp(theta, theta), plain.hvp(theta, theta), atol=1e-6)


class Masked(nn.Module):
    """Its input is a mask: negation and indexing mean something else for integers."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(D)), nn.Linear(1, C)

    def forward(self, x):
        kept = torch.stack([self.a[row].sum() - self.a[~row].sum() for row in x])
        return self.b(torch.tanh(kept)[:, None])


def test_booleans_stay_booleans(data):
    mask, y = data[0] > 0, data[1] > 0
    module = seeded(Masked)
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), mask, data[1])
    own = F.cross_entropy(module(torch.from_numpy(mask)), torch.from_numpy(data[1])).item()
    assert risk(risk.snapshot()[0]) == pytest.approx(own, rel=1e-12)

    def criterion(z, y):
        return F.softplus(-z[y]).sum() + F.softplus(z[~y]).sum()

    line = seeded(lambda: nn.Sequential(nn.Linear(D, 1), nn.Flatten(0)))
    risk = EmpiricalRisk(line, criterion, data[0], y)
    own = criterion(line(torch.from_numpy(data[0])), torch.from_numpy(y)).item()
    assert risk(risk.snapshot()[0]) == pytest.approx(own, rel=1e-12)
    as_labels = EmpiricalRisk(seeded(mlp), nn.CrossEntropyLoss(), data[0], y)
    same(as_labels, EmpiricalRisk(seeded(mlp), nn.CrossEntropyLoss(), data[0], y.astype(int)))
    by_function = EmpiricalRisk(seeded(mlp), lambda z, y: F.cross_entropy(z, y), data[0], y)
    same(by_function, as_labels)


def test_bytes_stay_bytes_where_the_module_takes_them(data):
    X = np.random.default_rng(0).integers(0, 255, (N, D)).astype(np.uint8)

    class Inverted(nn.Linear):
        def forward(self, x):
            return super().forward((~x).to(self.weight) / 255)

    module = seeded(lambda: Inverted(D, C))
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), X, data[1])
    own = F.cross_entropy(module(torch.from_numpy(X)), torch.from_numpy(data[1])).item()
    assert risk(risk.snapshot()[0]) == pytest.approx(own, rel=1e-12)
    tokens = X % 7  # an embedding takes no bytes
    EmpiricalRisk(seeded(Tokens), nn.CrossEntropyLoss(), tokens, data[1])


class Counting(nn.Module):
    """Keeps a count, a list of activations and a running scale as attributes."""

    def __init__(self):
        super().__init__()
        self.layer, self.calls, self.kept = nn.Linear(D, C), 0, []

    def forward(self, x):
        self.calls += 1
        self.kept.append(self.layer(x))
        return self.kept[-1] / self.calls


class RunningScale(nn.Module):
    """A criterion that divides by a running mean of the losses."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.ones(()))

    def forward(self, z, y):
        loss = F.cross_entropy(z, y)
        self.mean.mul_(0.9).add_(0.1 * loss.detach())
        return loss / 2


def test_state_that_is_kept_in_forward_changes_nothing(data):
    risk = EmpiricalRisk(seeded(Counting), RunningScale(), *data)
    theta = risk.snapshot()[0]
    before = joblib.hash(risk)
    assert risk(theta) == risk(theta)
    right(risk)
    assert joblib.hash(risk) == before
    assert risk._loss.module.kept == []


class Locked(nn.Linear):
    def __init__(self):
        super().__init__(D, C)
        self.batches = (row for row in range(3))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Locked, "module=Locked cannot be copied: .*generator"),
        (lambda: nn.LazyLinear(C), "lazy parameter 'weight'.*one batch"),
    ],
)
def test_a_module_that_cannot_be_copied_or_has_no_shape_is_named(data, module, message):
    with pytest.raises(ValueError, match=message):
        EmpiricalRisk(module(), nn.CrossEntropyLoss(), *data)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_scripted_module_is_named(data):
    module = nn.Sequential(torch.jit.script(nn.Linear(D, C)))
    with pytest.raises(TypeError, match=r"module\.0 is a torch.jit.ScriptModule"):
        EmpiricalRisk(module, nn.CrossEntropyLoss(), *data)


def test_data_that_is_not_dense_is_named(data):
    sparse = pytest.importorskip("scipy.sparse")
    X, y = data
    masked = np.ma.masked_array(X, mask=X > 1)
    for given, message in (
        (sparse.csr_matrix(X), r"X\.toarray\(\)"),
        (torch.from_numpy(X).to_sparse(), r"X\.to_dense\(\)"),
        (masked, "masked entries"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            EmpiricalRisk(seeded(mlp), nn.CrossEntropyLoss(), given, y)


def test_operations_without_second_derivative_are_replaced(data):
    """nn.Hardsigmoid has none in torch; the same function made of others has."""

    class Plain(nn.Module):
        def forward(self, x):
            return F.relu6(x + 3) / 6

    risks = []
    for kind in (nn.Hardsigmoid, Plain):
        layers = seeded(lambda k=kind: nn.Sequential(nn.Linear(D, 5), k(), nn.Linear(5, C)))
        risks.append(EmpiricalRisk(layers, nn.CrossEntropyLoss(), *data))
    same(*risks)
    assert isinstance(risks[0]._loss._interception(), module_loss.Interception)
