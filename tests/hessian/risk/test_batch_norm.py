"""Buffers and dropout masks: eval, recalibrate, train."""

import copy
import pickle

import joblib
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from skdmap.exceptions import SkdmapWarning
from skdmap.hessian import EmpiricalRisk

N, D, C = 40, 5, 3


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, D)), rng.integers(0, C, N)


def normed(dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(D, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(dropout), nn.Linear(6, C)
        ).double()


def image():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, C)
        ).double()


def at(module, theta):
    """A copy of the module at another point."""
    module = copy.deepcopy(module)
    nn.utils.vector_to_parameters(torch.as_tensor(theta), module.parameters())
    return module


def other_point(risk):
    return risk.snapshot()[0] + np.random.default_rng(1).standard_normal(risk.n_parameters)


def differences(risk, theta, v, step=1e-5):
    return (risk.gradient(theta + step * v) - risk.gradient(theta - step * v)) / (2 * step)


@pytest.mark.parametrize("make", [normed, image])
def test_train_mode_has_the_loss_and_gradient_of_a_training_step(data, make):
    X, y = data
    X = X if make is normed else np.random.default_rng(2).standard_normal((N, 1, 3, 3))
    risk = EmpiricalRisk(make(), nn.CrossEntropyLoss(), X, y, mode="train")
    theta = other_point(risk)
    module = at(make(), theta).train()
    loss = cross_entropy(module(torch.as_tensor(X)), torch.as_tensor(y))
    loss.backward()
    gradient = torch.cat([p.grad.reshape(-1) for p in module.parameters()]).numpy()
    assert risk(theta) == pytest.approx(loss.item(), rel=1e-13)
    np.testing.assert_allclose(risk.gradient(theta), gradient, atol=1e-13)
    v = np.random.default_rng(3).standard_normal(risk.n_parameters)
    product = risk.hvp(theta, v)
    # The derivative of the batch statistics is part of it.
    limit = 1e-6 * np.abs(product).max()
    np.testing.assert_allclose(product, differences(risk, theta, v), atol=limit)


def test_recalibrated_statistics_are_those_of_the_data_at_each_point(data):
    X, y = data
    risk = EmpiricalRisk(normed(), nn.CrossEntropyLoss(), X, y, mode="recalibrate")
    for theta in (risk.snapshot()[0], other_point(risk)):
        module = at(normed(), theta).eval()
        inner = module[0](torch.as_tensor(X)).detach()
        module[1].running_mean, module[1].running_var = inner.mean(0), inner.var(0)
        loss = cross_entropy(module(torch.as_tensor(X)), torch.as_tensor(y))
        loss.backward()
        gradient = torch.cat([p.grad.reshape(-1) for p in module.parameters()]).numpy()
        assert risk(theta) == pytest.approx(loss.item(), rel=1e-13)
        np.testing.assert_allclose(risk.gradient(theta), gradient, atol=1e-13)
        with risk.operator_at(theta) as operator:
            assert operator.loss == pytest.approx(loss.item(), rel=1e-13)
            fixed = EmpiricalRisk(module, nn.CrossEntropyLoss(), X, y)
            np.testing.assert_allclose(operator(theta), fixed.hvp(theta, theta), atol=1e-13)


def test_statistics_of_batches_are_averaged_by_their_rows(data):
    X, y = data
    risk = EmpiricalRisk(normed(), nn.CrossEntropyLoss(), X, y, mode="recalibrate", batch_size=30)
    theta = other_point(risk)
    module = at(normed(), theta).eval()
    parts = module[0](torch.as_tensor(X)).detach().split(30)
    module[1].running_mean = sum(len(p) * p.mean(0) for p in parts) / N
    module[1].running_var = sum(len(p) * p.var(0) for p in parts) / N
    expected = cross_entropy(module(torch.as_tensor(X)), torch.as_tensor(y)).item()
    assert risk(theta) == pytest.approx(expected, rel=1e-13)


@pytest.mark.filterwarnings("ignore:mode='train' keeps each batch:skdmap.exceptions.SkdmapWarning")
def test_dropout_masks_are_the_same_in_every_product_and_leave_the_generators_alone(data):
    X, y = data
    before = torch.get_rng_state()
    module = nn.Sequential(nn.Linear(D, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, C)).double()
    torch.set_rng_state(before)
    state = copy.deepcopy(module.state_dict())
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), X, y, mode="train", batch_size=25)
    theta = other_point(risk)
    moved = at(module, theta).train()
    with torch.random.fork_rng():
        losses = []
        for start in (0, 25):
            torch.manual_seed(start)
            rows = slice(start, start + 25)
            losses.append(cross_entropy(moved(torch.as_tensor(X[rows])), torch.as_tensor(y[rows])))
    expected = (25 * losses[0] + 15 * losses[1]).item() / N
    assert risk(theta) == pytest.approx(expected, rel=1e-13)
    assert expected != pytest.approx(EmpiricalRisk(module, nn.CrossEntropyLoss(), X, y)(theta))
    few = risk.operator_at(theta, memory_budget=1)
    with risk.operator_at(theta) as kept, few as made_anew:
        assert (kept.n_kept_chunks, made_anew.n_kept_chunks) == (2, 0)
        first = kept(theta)
        np.testing.assert_array_equal(kept(theta), first)
        np.testing.assert_allclose(made_anew(theta), first, atol=1e-15)
        np.testing.assert_array_equal(made_anew(theta), made_anew(theta))
    np.testing.assert_allclose(
        first, differences(risk, theta, theta), atol=1e-6 * np.abs(first).max()
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(state[k], v) for k, v in module.state_dict().items())


def watch(module, inputs, output):
    """A hook that changes nothing."""


@pytest.mark.parametrize("mode", ["eval", "recalibrate", "train"])
@pytest.mark.filterwarnings("ignore:theta differs:skdmap.exceptions.SkdmapWarning")
def test_module_generators_and_risk_are_bit_for_bit_as_before(data, mode):
    X, y = data
    module = normed(dropout=0.4)
    module(torch.as_tensor(X)).sum().backward()
    module[0].register_forward_hook(watch)
    before = pickle.dumps([module.state_dict(), [p.grad for p in module.parameters()]])
    flags = [(m.training, len(m._forward_hooks)) for m in module.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), X, y, mode=mode)
    mark = joblib.hash(risk)
    theta = other_point(risk)
    risk(theta), risk.gradient(theta), risk.hvp(theta, theta)
    for curvature in ("hessian", "ggn"):
        with risk.operator_at(theta, curvature) as operator:
            operator(theta)
    assert joblib.hash(risk) == mark
    again = pickle.loads(pickle.dumps(risk))
    assert again(theta) == risk(theta)
    assert pickle.dumps([module.state_dict(), [p.grad for p in module.parameters()]]) == before
    assert [(m.training, len(m._forward_hooks)) for m in module.modules()] == flags
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002


def test_batch_statistics_of_parts_are_refused(data):
    with pytest.raises(ValueError, match=r"batch_size=8 with mode='train'.*batch_size=None"):
        EmpiricalRisk(normed(), nn.CrossEntropyLoss(), *data, mode="train", batch_size=8)
    with pytest.raises(ValueError, match="mode='test' must be one of 'eval', 'recalibrate'"):
        EmpiricalRisk(normed(), nn.CrossEntropyLoss(), *data, mode="test")
    risk = EmpiricalRisk(normed(), nn.CrossEntropyLoss(), *data, mode="train")
    with pytest.raises(ValueError, match="a single sample has no gradient"):
        risk.operator_at(risk.snapshot()[0], "fisher")


def test_a_batch_in_one_piece_that_exceeds_the_budget_is_warned_of(data):
    risk = EmpiricalRisk(normed(), nn.CrossEntropyLoss(), *data, mode="train")
    with pytest.warns(SkdmapWarning, match="mode='train' keeps each batch in one piece"):
        risk.operator_at(risk.snapshot()[0], memory_budget=1).close()


def test_a_module_without_statistics_has_the_same_loss_in_every_mode(data):
    with torch.random.fork_rng():
        module = nn.Sequential(nn.Linear(D, 4), nn.Tanh(), nn.Linear(4, C)).double()
    losses = {}
    for mode in ("eval", "recalibrate", "train"):
        risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), *data, mode=mode)
        losses[mode] = risk(risk.snapshot()[0] + 1)
    assert losses["eval"] == pytest.approx(losses["train"], rel=1e-14)
    assert losses["eval"] == pytest.approx(losses["recalibrate"], rel=1e-14)


@pytest.mark.parametrize(("n_rows", "batch_size"), [(36, 7), (5, 1), (1, None)])
def test_statistics_of_a_batch_of_one_row_are_refused_at_once(data, n_rows, batch_size):
    X, y = (part[:n_rows] for part in data)
    with pytest.raises(
        ValueError, match=r"mode='recalibrate'.*batch of 1 sample.*layers 1.*batch_size.*drop_last"
    ):
        EmpiricalRisk(
            normed(), nn.CrossEntropyLoss(), X, y, mode="recalibrate", batch_size=batch_size
        )


def test_statistics_of_one_row_in_train_mode_are_refused(data):
    X, y = (part[:1] for part in data)
    with pytest.raises(ValueError, match=r"mode='train'.*batch of 1 sample.*layers 1.*mode='eval'"):
        EmpiricalRisk(normed(), nn.CrossEntropyLoss(), X, y, mode="train")


def test_one_image_has_statistics_of_its_own(data):
    module = nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, C))
    X, y = np.random.default_rng(0).standard_normal((3, 1, 3, 3)), data[1][:3]
    risk = EmpiricalRisk(
        module, nn.CrossEntropyLoss(), X, y, mode="recalibrate", batch_size=1, dtype="float64"
    )
    assert np.isfinite(risk(risk.snapshot()[0]))
