"""Module, loss and optimizer from names, classes, factories and instances."""

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skdmap.trajectory._training.factories import (
    DEFAULT_SGD_LR,
    build_criterion,
    build_module,
    build_optimizer,
)

CPU = torch.device("cpu")


def _parameters():
    return [nn.Parameter(torch.zeros(3))]


@pytest.mark.parametrize("optimizer", ["SGD", torch.optim.SGD])
def test_sgd_without_lr_gets_the_default(optimizer):
    built = build_optimizer(optimizer, {"momentum": 0.5}, _parameters())
    assert built.param_groups[0]["lr"] == DEFAULT_SGD_LR
    assert built.param_groups[0]["momentum"] == 0.5
    assert build_optimizer(optimizer, {"lr": 3.0}, _parameters()).param_groups[0]["lr"] == 3.0


def test_an_optimizer_may_be_a_factory():
    factory = functools.partial(torch.optim.Adam, lr=0.25)
    built = build_optimizer(factory, {"amsgrad": True}, _parameters())
    assert built.param_groups[0]["lr"] == 0.25
    assert built.param_groups[0]["amsgrad"]


@pytest.mark.parametrize(
    ("optimizer", "params", "message"),
    [
        ("Adm", None, "optimizer='Adm'.*Did you mean 'Adam'"),
        ("SGD", {"momentun": 0.9}, "'momentun'.*SGD.*Did you mean 'momentum'"),
        ("SGD", {"lr": -1.0}, "optimizer_params={'lr': -1.0}"),
        (torch.optim.SGD(_parameters(), lr=1.0), None, "Pass its class"),
        (lambda parameters: parameters, None, "returned list"),
    ],
)
def test_a_bad_optimizer_is_named(optimizer, params, message):
    with pytest.raises(ValueError, match=message):
        build_optimizer(optimizer, params, _parameters())


def test_a_module_is_never_the_object_of_the_user():
    kept = nn.Linear(3, 2)
    for given in (kept, lambda: kept):
        built = build_module(given, None, n_features=3, n_outputs=2)
        assert built is not kept
        assert built.weight.data_ptr() != kept.weight.data_ptr()
        assert torch.equal(built.weight, kept.weight)
    built = build_module(
        nn.Linear, {"in_features": 4, "out_features": 1}, n_features=9, n_outputs=9
    )
    assert built.weight.shape == (1, 4)


@pytest.mark.parametrize(
    ("module", "params", "message"),
    [
        (nn.Linear(2, 2), {"bias": False}, "Pass the class"),
        (None, {"hiden": 3}, "'hiden'.*make_mlp.*Did you mean 'hidden'"),
        (nn.Linear, {"in_feature": 3}, "'in_feature'.*Did you mean 'in_features'"),
        (lambda: 3, None, "returned int"),
    ],
)
def test_a_bad_module_is_named(module, params, message):
    with pytest.raises(ValueError, match=message):
        build_module(module, params, n_features=3, n_outputs=2)


def test_a_criterion_may_be_class_instance_or_function():
    outputs, targets = torch.tensor([[2.0, -1.0], [0.5, 0.0]]), torch.tensor([0, 1])
    expected = F.cross_entropy(outputs, targets, label_smoothing=0.1)
    params = {"label_smoothing": 0.1}
    for criterion, given in (
        (nn.CrossEntropyLoss, params),
        (nn.CrossEntropyLoss(label_smoothing=0.1), None),
        (F.cross_entropy, params),
        (functools.partial(F.cross_entropy, label_smoothing=0.1), None),
    ):
        assert torch.equal(build_criterion(criterion, given, CPU)(outputs, targets), expected)
    with pytest.raises(ValueError, match=r"criterion_params.*Pass the class"):
        build_criterion(nn.CrossEntropyLoss(), params, CPU)
    with pytest.raises(ValueError, match=r"'smoothing'.*Did you mean 'label_smoothing'"):
        build_criterion(nn.CrossEntropyLoss, {"smoothing": 0.1}, CPU)
