"""EmpiricalRisk against closed forms, and against itself in other batches."""

import copy
import pickle

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.nn.functional import cross_entropy

from skdmap.exceptions import SkdmapWarning
from skdmap.hessian import EmpiricalRisk

N, D, C = 40, 5, 3
TOL = {torch.float64: 1e-12, torch.float32: 1e-5}


def mlp(seed=0, width=4):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(D, width), nn.Tanh(), nn.Linear(width, C))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, D)), np.sort(rng.integers(0, C, N))


def hessian_of(risk, theta=None):
    theta = risk.snapshot()[0] if theta is None else theta
    return risk.matmat(theta, np.eye(risk.n_parameters))


def test_linear_regression_has_two_gram_matrices_over_n(data):
    X, _ = data
    y = X @ np.arange(D) + 1
    risk = EmpiricalRisk(nn.Linear(D, 1), nn.MSELoss(), X, y, dtype=torch.float64, batch_size=7)
    design = np.column_stack([X, np.ones(N)])
    np.testing.assert_allclose(hessian_of(risk), 2 * design.T @ design / N, atol=1e-13)
    assert risk(np.r_[np.arange(D), 1.0]) == pytest.approx(0, abs=1e-25)
    theta = np.linspace(-1, 1, D + 1)
    residual = design @ theta - y
    np.testing.assert_allclose(risk.gradient(theta), 2 * design.T @ residual / N, rtol=1e-12)


def test_softmax_regression_has_its_closed_form_and_rank(data):
    X, y = data
    model = nn.Linear(D, C)
    risk = EmpiricalRisk(model, nn.CrossEntropyLoss(), X, y, dtype=torch.float64, batch_size=11)
    theta = risk.snapshot()[0].astype(float)
    weight, bias = theta[: C * D].reshape(C, D), theta[C * D :]
    p = np.exp(X @ weight.T + bias)
    p /= p.sum(axis=1, keepdims=True)
    curvature = np.einsum("nc,ck->nck", p, np.eye(C)) - np.einsum("nc,nk->nck", p, p)
    design = np.column_stack([X, np.ones(N)])
    blocks = np.einsum("nck,ni,nj->cikj", curvature, design, design) / N
    biases = np.arange(D, C * (D + 1), D + 1)  # torch puts them behind all weights
    order = np.r_[np.setdiff1d(np.arange(C * (D + 1)), biases), biases]
    expected = blocks.reshape(C * (D + 1), -1)[np.ix_(order, order)]
    found = hessian_of(risk)
    np.testing.assert_allclose(found, expected, atol=1e-14)
    assert np.linalg.matrix_rank(found, tol=1e-12) == (C - 1) * (D + 1)


CRITERIA = {
    "mean": nn.CrossEntropyLoss(),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "weight": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 25.0])),
    "zero weight": nn.CrossEntropyLoss(weight=torch.tensor([0.0, 5.0, 25.0])),
    "ignored": nn.CrossEntropyLoss(ignore_index=0, label_smoothing=0.1),
    "both": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 25.0]), ignore_index=0),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch_size", [1, 7, 39, 40, 100])
@pytest.mark.parametrize("name", CRITERIA)
def test_number_and_last_size_of_batches_do_not_matter(data, name, batch_size, dtype):
    X, y = data  # sorted, so that whole batches are ignored
    criterion, module = CRITERIA[name], mlp()
    risk = EmpiricalRisk(module, criterion, X, y, batch_size=batch_size, dtype=dtype)
    # The whole in one go, without EmpiricalRisk.
    whole, exact = copy.deepcopy(module).double(), copy.deepcopy(criterion).double()
    loss = exact(whole(torch.as_tensor(X)), torch.as_tensor(y))
    loss.backward()
    gradient = torch.cat([p.grad.reshape(-1) for p in whole.parameters()]).numpy()
    theta, tol = risk.snapshot()[0], TOL[dtype]
    assert risk(theta) == pytest.approx(loss.item(), rel=tol)
    scale = np.abs(gradient).max()
    np.testing.assert_allclose(risk.gradient(theta), gradient, atol=tol * scale, rtol=0)
    one = EmpiricalRisk(module, criterion, X, y, dtype=torch.float64)
    V = np.random.default_rng(0).standard_normal((len(theta), 4))
    expected = one.matmat(theta, V)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(risk.matmat(theta, V), expected, atol=tol * scale, rtol=0)


def test_class_weights_change_the_loss_they_are_tested_with(data):
    """Else the test above could not tell a weighted batch from a counted one."""
    X, y = data
    plain, weighted = (EmpiricalRisk(mlp(), CRITERIA[k], X, y) for k in ("mean", "weight"))
    theta = plain.snapshot()[0]
    assert abs(plain(theta) - weighted(theta)) > 0.05


def test_order_of_rows_does_not_matter(data):
    X, y = data
    shuffled = np.random.default_rng(1).permutation(N)
    settings = {"dtype": torch.float64, "batch_size": 9}
    first = EmpiricalRisk(mlp(), CRITERIA["weight"], X, y, **settings)
    second = EmpiricalRisk(mlp(), CRITERIA["weight"], X[shuffled], y[shuffled], **settings)
    np.testing.assert_allclose(hessian_of(first), hessian_of(second), atol=1e-14)


@pytest.mark.parametrize(
    "criterion",
    [
        lambda z, t: cross_entropy(z, t, weight=torch.tensor([1.0, 5.0, 25.0])),
        lambda z, t: cross_entropy(z, t, reduction="sum"),
        lambda z, t: cross_entropy(z, t) ** 2,
    ],
)
def test_a_criterion_that_is_no_mean_over_rows_is_found_out(data, criterion):
    X, y = data
    with pytest.raises(ValueError, match=r"reduction.*batch_size=None"):
        EmpiricalRisk(mlp(), criterion, X, y, batch_size=30)
    whole = EmpiricalRisk(mlp(), criterion, X, y)
    with torch.no_grad():
        expected = criterion(mlp()(torch.as_tensor(X).float()), torch.as_tensor(y)).item()
    assert whole(whole.snapshot()[0]) == pytest.approx(expected, rel=1e-6)


def test_tiny_losses_of_large_outputs_are_no_false_alarm(data):
    X, _ = data
    module = nn.Linear(D, C)
    with torch.no_grad():
        module.weight.mul_(30)  # losses down to 1e-8, below the rounding of the outputs
        y = module(torch.as_tensor(X).float()).argmax(1)
        rows = nn.functional.cross_entropy(module(torch.as_tensor(X).float()), y, reduction="none")
    sure = (rows < 1e-4).numpy()
    assert sure.sum() > 10
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), X[sure], y[sure], batch_size=4)
    assert risk(risk.snapshot()[0]) < 1e-4


def test_weight_decay_adds_a_multiple_of_the_identity(data):
    X, y = data
    settings = {"dtype": torch.float64, "batch_size": 9}
    bare = EmpiricalRisk(mlp(), nn.CrossEntropyLoss(), X, y, **settings)
    decayed = EmpiricalRisk(mlp(), nn.CrossEntropyLoss(), X, y, weight_decay=0.3, **settings)
    theta = bare.snapshot()[0]
    identity = np.eye(bare.n_parameters)
    np.testing.assert_allclose(hessian_of(decayed), hessian_of(bare) + 0.3 * identity, atol=1e-14)
    assert decayed(theta) == pytest.approx(bare(theta) + 0.15 * theta @ theta, rel=1e-14)


def test_selected_parameters_give_the_block_of_the_whole_hessian(data):
    X, y = data
    whole = EmpiricalRisk(mlp(), nn.CrossEntropyLoss(), X, y, dtype=torch.float64)
    last = EmpiricalRisk(mlp(), nn.CrossEntropyLoss(), X, y, parameters="2.*", dtype=torch.float64)
    assert last.parameter_layout.names == ("2.weight", "2.bias")
    block = hessian_of(whole)[-last.n_parameters :, -last.n_parameters :]
    np.testing.assert_allclose(hessian_of(last), block, atol=1e-14)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.LSTM(D, 3, batch_first=True), nn.Linear(3, C)

    def forward(self, x):
        return self.head(self.body(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.5, batch_first=True)
        self.head = nn.Linear(4, C)

    def forward(self, x):
        return self.head(self.body(x[..., :4]).mean(1))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(D, D), nn.Linear(D, D)
        self.outer.weight = self.inner.weight

    def forward(self, x):
        return self.outer(self.inner(x).tanh()).sum(1)


@pytest.mark.parametrize("kind", [Recurrent, Attention, Tied])
def test_products_are_differences_of_gradients(kind):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((12, 4, D)), rng.integers(0, C, 12)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = kind()
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), X, y, batch_size=5, dtype=torch.float64)
    assert risk.n_parameters == sum(p.numel() for p in module.parameters())
    theta, v, step = risk.snapshot()[0], rng.standard_normal(risk.n_parameters), 1e-5
    difference = risk.gradient(theta + step * v) - risk.gradient(theta - step * v)
    product = risk.hvp(theta, v)
    # The error is the step squared times a derivative of the Hessian along v, twice.
    limit = 1e-6 * np.abs(product).max()
    np.testing.assert_allclose(product, difference / (2 * step), atol=limit, rtol=0)


def test_hvp_matmat_and_operator_are_one(data):
    X, y = data
    risk = EmpiricalRisk(mlp(), nn.CrossEntropyLoss(), X, y, batch_size=9, dtype=torch.float64)
    V = np.random.default_rng(0).standard_normal((risk.n_parameters, 3))
    theta = risk.snapshot()[0]
    with risk.operator_at(theta) as hessian:
        kept = np.column_stack([hessian(v) for v in V.T])
        assert hessian.loss == pytest.approx(risk(theta), rel=1e-14)
        np.testing.assert_allclose(hessian.gradient.numpy(), risk.gradient(theta), atol=1e-15)
    np.testing.assert_allclose(risk.matmat(theta, V), kept, atol=1e-14)
    np.testing.assert_allclose(risk.hvp(theta, V[:, 1]), kept[:, 1], atol=1e-14)


def test_arrays_in_arrays_out_and_tensors_in_tensors_out(data):
    risk = EmpiricalRisk(mlp(), nn.CrossEntropyLoss(), *data)
    theta, v = risk.snapshot()[0], np.ones(risk.n_parameters)
    assert risk.snapshot().shape == (1, risk.n_parameters)
    for out in (risk.gradient(theta), risk.hvp(theta, v), risk.matmat(theta, v[:, None])):
        assert isinstance(out, np.ndarray)
        assert out.dtype == np.float32
    theta, v = torch.as_tensor(theta), torch.as_tensor(v)
    for out in (risk.gradient(theta), risk.hvp(theta, v), risk.matmat(theta, v[:, None])):
        assert isinstance(out, torch.Tensor)
        assert out.dtype == torch.float32


def photograph(module):
    tensors = {k: v.numpy().tobytes() for k, v in module.state_dict().items()}
    grads = [None if p.grad is None else p.grad.numpy().tobytes() for p in module.parameters()]
    flags = [part.training for part in module.modules()]
    wanted = [p.requires_grad for p in module.parameters()]
    return tensors, grads, flags, wanted, torch.get_rng_state().numpy().tobytes()


@pytest.mark.filterwarnings("ignore:theta differs:skdmap.exceptions.SkdmapWarning")
def test_the_users_module_data_and_generator_are_bit_for_bit_as_before(data):
    X, y = (part.copy() for part in data)
    module = nn.Sequential(
        nn.Linear(D, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Tanh(), nn.Linear(4, C)
    )
    module[4].eval()
    module[4].bias.requires_grad_(False)
    module(torch.as_tensor(X).float()).sum().backward()
    criterion = nn.CrossEntropyLoss(weight=torch.ones(C))
    before, weights = photograph(module), criterion.weight.clone()
    risk = EmpiricalRisk(module, criterion, X, y, batch_size=9, dtype=torch.float64)
    theta = risk.snapshot()[0] + 1
    risk(theta), risk.gradient(theta), risk.hvp(theta, theta)
    with risk.operator_at(theta) as hessian:
        hessian(theta)
    assert photograph(module) == before
    assert criterion.training
    assert criterion.weight.dtype == torch.float32
    assert torch.equal(criterion.weight, weights)
    np.testing.assert_array_equal(X, data[0])
    assert theta.dtype == np.float64


def test_the_risk_does_not_follow_the_users_module(data):
    module = mlp()
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), *data)
    before = risk.snapshot()
    with torch.no_grad():
        module[0].weight.zero_()
    np.testing.assert_array_equal(risk.snapshot(), before)


class Counting(nn.Module):
    """Writes into its buffer at each call."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(D, C)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.layer(x)


def test_its_hash_does_not_change_in_use_and_equal_risks_have_equal_hashes(data):
    def make():
        torch.manual_seed(0)
        return EmpiricalRisk(Counting(), nn.CrossEntropyLoss(), *data, batch_size=9)

    with torch.random.fork_rng():
        risk, other = make(), make()
    before = joblib.hash(risk)
    theta = risk.snapshot()[0]
    risk(theta), risk.hvp(theta, theta)
    with risk.operator_at(theta) as hessian:
        hessian(theta)
        assert joblib.hash(risk) == before
    assert joblib.hash(other) == before
    assert joblib.hash(pickle.loads(pickle.dumps(risk))) == before
    assert joblib.hash(EmpiricalRisk(Counting(), nn.CrossEntropyLoss(), *data)) != before


def test_a_clone_is_itself_and_a_pickle_gives_the_same_bits(data):
    X, y = data
    risk = EmpiricalRisk(mlp(), CRITERIA["weight"], X, y, batch_size=9, weight_decay=0.1)
    theta = risk.snapshot()[0]
    assert clone(risk) is risk
    again = pickle.loads(pickle.dumps(risk))
    assert again(theta) == risk(theta)
    np.testing.assert_array_equal(again.hvp(theta, theta), risk.hvp(theta, theta))


def test_without_targets_the_criterion_takes_the_output_alone(data):
    X, _ = data
    model = nn.Linear(D, 1, bias=False)
    risk = EmpiricalRisk(model, lambda z: z.square().mean(), X, batch_size=7, dtype=torch.float64)
    np.testing.assert_allclose(hessian_of(risk), 2 * X.T @ X / N, atol=1e-13)


def test_a_flat_target_is_matched_to_a_column_of_outputs(data):
    X, _ = data
    flat = EmpiricalRisk(nn.Linear(D, 1), nn.MSELoss(), X, X[:, 0])
    column = EmpiricalRisk(nn.Linear(D, 1), nn.MSELoss(), X, X[:, :1])
    theta = np.ones(D + 1)
    assert flat(theta) == column(theta)
    assert flat(np.eye(D + 1)[0]) == 0.0


def test_read_only_and_reversed_arrays_and_integer_inputs_work():
    tokens = np.arange(8)[::-1]
    tokens.flags.writeable = False
    module = nn.Sequential(nn.Embedding(8, 2), nn.Linear(2, 8))
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), tokens, tokens.astype(np.int32))
    assert np.isfinite(risk(risk.snapshot()[0]))


def test_running_statistics_at_another_point_are_warned_of(data):
    module = nn.Sequential(nn.Linear(D, 4), nn.BatchNorm1d(4), nn.Linear(4, C))
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), *data)
    own = risk.snapshot()[0]
    risk.gradient(own)  # a warning here would be an error
    with pytest.warns(SkdmapWarning, match="running statistics"):
        risk.gradient(own + 1)


class Noisy(nn.Linear):
    def forward(self, x):
        return super().forward(x) + torch.randn(C)


def test_a_loss_that_draws_is_found_out_without_a_step_of_the_global_generator(data):
    before = torch.get_rng_state()
    module = Noisy(D, C)
    assert not torch.equal(torch.get_rng_state(), before)  # making it does draw
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="not deterministic"):
        EmpiricalRisk(module, nn.CrossEntropyLoss(), *data)
    assert torch.equal(torch.get_rng_state(), before)


def broken_module():
    module = mlp()
    nn.init.constant_(module[0].weight, np.nan)
    return module


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"module": nn.Linear}, TypeError, "module=.*must be a torch.nn.Module"),
        ({"module": nn.Tanh()}, ValueError, "module=Tanh has no trainable parameters"),
        ({"module": broken_module()}, ValueError, "module has parameters that are NaN"),
        ({"module": Noisy(D, C)}, ValueError, "loss is not deterministic"),
        ({"module": mlp().half()}, ValueError, r"dtype=torch.float16 must be torch.float32"),
        (
            {"criterion": nn.CrossEntropyLoss(reduction="none")},
            ValueError,
            "reduction=.none., one loss for each",
        ),
        ({"criterion": lambda z, t: cross_entropy(z, t) / 0}, ValueError, "loss=inf"),
        ({"criterion": lambda z, t: cross_entropy(z.detach(), t)}, ValueError, "not differentia"),
        (
            {"criterion": nn.CrossEntropyLoss(ignore_index=0), "y": np.zeros(N, int)},
            ValueError,
            "counts no sample",
        ),
        ({"X": np.full((N, D), np.nan)}, ValueError, "X contains NaN"),
        ({"X": np.empty((0, D))}, ValueError, r"X has shape \(0, 5\)"),
        ({"y": np.zeros(3, int)}, ValueError, "y has 3 samples; it must have as many as X: 40"),
        ({"y": np.full(N, "a")}, TypeError, "y has dtype <U1; it must be numbers"),
        ({"batch_size": 0}, ValueError, "batch_size=0 must be an integer >= 1"),
        ({"batch_size": 2.5}, ValueError, "batch_size=2.5 must be an integer >= 1"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay=-1.0 must be finite and >= 0"),
        ({"parameters": "body.*"}, ValueError, "parameters='body.\\*' matches no trainable"),
    ],
)
def test_bad_input_is_named_when_the_risk_is_made(data, change, kind, message):
    X, y = data
    arguments = {"module": mlp(), "criterion": nn.CrossEntropyLoss(), "X": X, "y": y} | change
    with pytest.raises(kind, match=message):
        EmpiricalRisk(**arguments)


@pytest.mark.parametrize(
    ("theta", "message"),
    [
        (np.ones((1, 39)), r"theta has shape \(1, 39\); it must be \(39,\)"),
        (np.ones(3), r"theta has shape \(3,\); it must be \(39,\)"),
        (np.full(39, np.inf), "theta contains NaN or infinity"),
    ],
)
def test_a_bad_point_is_named(data, theta, message):
    risk = EmpiricalRisk(mlp(), nn.CrossEntropyLoss(), *data)
    with pytest.raises(ValueError, match=message):
        risk(theta)


def test_a_matrix_of_vectors_with_the_wrong_length_is_named(data):
    risk = EmpiricalRisk(mlp(), nn.CrossEntropyLoss(), *data)
    with pytest.raises(ValueError, match=r"V has shape \(4, 2\); it must be \(39, n_vectors\)"):
        risk.matmat(risk.snapshot()[0], np.ones((4, 2)))
