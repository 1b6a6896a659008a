"""Operators on the kinds of models in use, against differences of the gradient, and each other."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from skdmap.hessian import EmpiricalRisk

N, C = 9, 3


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, C)

    def forward(self, x):
        return self.head(self.body(x)[0][:, -1])


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.1, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(4, C)

    def forward(self, x):
        return self.head(self.body(x).mean(1))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, C)
        self.outer.weight = self.inner.weight

    def forward(self, x):
        return self.head(self.outer(self.inner(x).tanh()).tanh()).mean(1)


def convolution():
    return nn.Sequential(
        nn.Unflatten(1, (1, 5)), nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.SiLU(),
        nn.MaxPool2d((2, 1)), nn.Flatten(), nn.Linear(18, C),
    )  # fmt: skip


def frozen():
    module = nn.Sequential(nn.Flatten(), nn.Linear(20, 5), nn.Tanh(), nn.Linear(5, C))
    module[1].requires_grad_(False)
    return module


MODELS = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(20, C)),
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(20, 5), nn.Tanh(), nn.Linear(5, C)),
    "cnn": convolution,
    "transformer": Transformer,
    "lstm": Recurrent,
    "tied": Tied,
    "frozen": frozen,
}


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, 5, 4)), rng.integers(0, C, N)


def differences(risk, theta, v, step=1e-5):
    return (risk.gradient(theta + step * v) - risk.gradient(theta - step * v)) / (2 * step)


@pytest.mark.filterwarnings("ignore:theta differs:skdmap.exceptions.SkdmapWarning")
@pytest.mark.parametrize("name", MODELS)
def test_products_are_differences_of_gradients_and_gauss_newton_is_no_less_than_zero(data, name):
    module = seeded(MODELS[name])
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), *data, batch_size=4, dtype=torch.float64)
    trainable = [p for p in module.parameters() if p.requires_grad]
    assert risk.n_parameters == sum(p.numel() for p in trainable)
    rng = np.random.default_rng(1)
    theta, V = risk.snapshot()[0], rng.standard_normal((risk.n_parameters, 2))
    with risk.operator_at(theta) as hessian, risk.operator_at(theta, "ggn") as ggn:
        products, images = hessian.matmat(V), ggn.matmat(V)
    expected = np.column_stack([differences(risk, theta, v) for v in V.T])
    limit = 1e-6 * np.abs(products).max()
    np.testing.assert_allclose(products, expected, atol=limit)
    for found in (products, images):
        gram = V.T @ found
        assert abs(gram[0, 1] - gram[1, 0]) <= 1e-12 * np.abs(gram).max()
    assert np.linalg.eigvalsh(V.T @ images)[0] >= -1e-12


@pytest.mark.parametrize("name", MODELS)
def test_float32_agrees_with_float64(data, name):
    module = seeded(MODELS[name])
    products = []
    for dtype in ("float32", "float64"):
        risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), *data, dtype=dtype)
        v = np.random.default_rng(1).standard_normal(risk.n_parameters)
        for curvature in ("hessian", "ggn", "fisher"):
            with risk.operator_at(risk.snapshot()[0], curvature) as operator:
                products.append(operator(v))
    for low, high in zip(products[:3], products[3:], strict=True):
        assert np.abs(low - high).max() <= 1e-4 * np.abs(high).max()


def test_parts_of_the_vector_by_name_give_blocks(data):
    module = seeded(MODELS["mlp"])
    whole = EmpiricalRisk(module, nn.CrossEntropyLoss(), *data, dtype="float64")
    layer = EmpiricalRisk(module, nn.CrossEntropyLoss(), *data, dtype="float64", parameters=["3.*"])
    for curvature in ("hessian", "ggn", "fisher", "gradient_covariance"):
        with (
            whole.operator_at(whole.snapshot()[0], curvature) as all_of_it,
            layer.operator_at(layer.snapshot()[0], curvature) as block,
        ):
            size = block.size
            expected = all_of_it.matmat(np.eye(all_of_it.size)[:, -size:])[-size:]
            np.testing.assert_allclose(block.matmat(np.eye(size)), expected, atol=1e-13)


def test_a_hugging_face_model_from_a_configuration():
    transformers = pytest.importorskip("transformers")
    configuration = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=8, num_labels=C,
    )  # fmt: skip
    model = seeded(lambda: transformers.BertForSequenceClassification(configuration))
    rng = np.random.default_rng(0)
    # Not token 0, the padding: torch holds its embedding constant, differences would move it.
    tokens, y = rng.integers(1, 20, (N, 6)), rng.integers(0, C, N)

    def criterion(output, targets):
        return cross_entropy(output.logits, targets)

    risk = EmpiricalRisk(model, criterion, tokens, y, batch_size=4, dtype="float64")
    theta = risk.snapshot()[0]
    with torch.no_grad():
        expected = cross_entropy(
            model.eval()(torch.as_tensor(tokens)).logits, torch.as_tensor(y)
        ).item()
    assert risk(theta) == pytest.approx(expected, rel=1e-5)
    v = rng.standard_normal(risk.n_parameters)
    product = risk.hvp(theta, v)
    limit = 1e-6 * np.abs(product).max()
    np.testing.assert_allclose(product, differences(risk, theta, v), atol=limit)
