"""make_mlp, cadence, nested names, building and targets: each alone."""

import functools
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.nn import functional as F

from skdmap import TrajectorySampler, make_mlp
from skdmap.trajectory._cadence import count_steps, recorded_steps
from skdmap.trajectory._training.factories import (
    DEFAULT_SGD_LR,
    build_criterion,
    build_module,
    build_optimizer,
)
from skdmap.trajectory._training.targets import encode_targets, match_outputs

CPU = torch.device("cpu")


# make_mlp


@pytest.mark.parametrize("hidden", [(), 7, (7,), [7, 5], (4, 3, 2)])
def test_mlp_has_linear_layers_of_the_widths_given(hidden):
    inner = [hidden] if isinstance(hidden, int) else list(hidden)
    widths = [6, *inner, 3]
    module = make_mlp(6, 3, hidden)
    n_parameters = sum((a + 1) * b for a, b in pairwise(widths))
    assert sum(p.numel() for p in module.parameters()) == n_parameters
    assert module(torch.zeros(2, 6)).shape == (2, 3)


def test_mlp_without_hidden_layers_is_linear():
    module = make_mlp(4, 2, ()).double()
    a, b = torch.randn(2, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(module(a + b) + module(0 * a), module(a) + module(b), atol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 2), "n_features.*0"), ((2, 0.5), "n_outputs.*0.5"), ((2, 2, (3, 0)), "hidden.*0")],
)
def test_mlp_names_a_bad_width(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_mlp(*arguments)


# cadence


@pytest.mark.parametrize("burn_in", [0, 1, 7, 20])
@pytest.mark.parametrize("record_every", [1, 3, 7, 50, "epoch"])
def test_burn_in_only_drops_rows(record_every, burn_in):
    every = recorded_steps(record_every, first=0, last=20, steps_per_epoch=6)
    later = recorded_steps(record_every, first=0, last=20, steps_per_epoch=6, burn_in=burn_in)
    assert later.tolist() == [step for step in every if step >= burn_in]
    assert every[0] == 0
    assert every[-1] == 20
    assert (np.diff(every) > 0).all()


def test_two_calls_record_what_one_would():
    one = recorded_steps(4, first=0, last=24, steps_per_epoch=12)
    two = [recorded_steps(4, first=a, last=a + 12, steps_per_epoch=12) for a in (0, 12)]
    assert sorted({*two[0].tolist(), *two[1].tolist()}) == one.tolist()


def test_the_first_limit_ends_training():
    assert count_steps(5, 2, None) == 10
    assert count_steps(5, 2, 7) == 7
    assert count_steps(5, 2, 70) == 10
    assert count_steps(5, None, 70) == 70
    with pytest.raises(ValueError, match="max_epochs=None and max_steps=None"):
        count_steps(5, None, None)


# nested names


def test_nested_names_read_and_write_the_dicts():
    given = {"lr": 0.5}
    sampler = TrajectorySampler(optimizer_params=given)
    assert sampler.get_params()["optimizer__lr"] == 0.5
    assert "optimizer__lr" not in sampler.get_params(deep=False)
    sampler.set_params(optimizer__momentum=0.9, module__hidden=64, max_epochs=2)
    assert sampler.optimizer_params == {"lr": 0.5, "momentum": 0.9}
    assert sampler.module_params == {"hidden": 64}
    assert sampler.max_epochs == 2
    assert given == {"lr": 0.5}


def test_nested_names_of_a_clone_leave_the_original_alone():
    sampler = TrajectorySampler(optimizer_params={"lr": 0.5})
    clone(sampler).set_params(optimizer__lr=0.1)
    assert sampler.get_params()["optimizer__lr"] == 0.5


def test_a_dict_and_a_key_of_it_can_be_set_together():
    sampler = TrajectorySampler(optimizer_params={"nesterov": True})
    sampler.set_params(optimizer__lr=0.1, optimizer_params={"momentum": 0.5})
    assert sampler.optimizer_params == {"momentum": 0.5, "lr": 0.1}


@pytest.mark.parametrize("value", [None, 3, "lr", [("lr", 1)], np.inf, {1: 2}])
def test_get_params_tolerates_any_value(value):
    sampler = TrajectorySampler(optimizer_params=value)
    assert sampler.get_params()["optimizer_params"] is value


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("optimzer__lr", "'optimizer__lr'"),
        ("optimizer_params__lr", "'optimizer__lr'"),
        ("max_epoch", "'max_epochs'"),
    ],
)
def test_an_unknown_name_changes_nothing_and_says_what_was_meant(name, meant):
    sampler = TrajectorySampler()
    with pytest.raises(ValueError, match=f"{name}.*Did you mean {meant}"):
        sampler.set_params(**{"max_steps": 3, name: 1})
    assert sampler.max_steps is None


def test_a_key_needs_a_dict():
    with pytest.raises(ValueError, match="optimizer_params=3 must be a dict"):
        TrajectorySampler(optimizer_params=3).set_params(optimizer__lr=1)


# module, criterion, optimizer


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


# targets


@pytest.mark.parametrize(
    ("y", "codes"),
    [
        ([5, 3, 5], [1, 0, 1]),
        ([True, False, True], [1, 0, 1]),
        (["b", "a", "b"], [1, 0, 1]),
        (np.array(["b", "a", "b"], dtype=object), [1, 0, 1]),
        ([[5], [3], [5]], [1, 0, 1]),
    ],
)
def test_labels_are_encoded(y, codes):
    targets = encode_targets(y, None)
    assert targets.values.dtype == np.int64
    assert targets.values.tolist() == codes
    assert targets.n_outputs == 2
    assert targets.classes[targets.values].tolist() == np.ravel(y).tolist()


@pytest.mark.parametrize("y", [[1.0, 2.0, 2.0], [1.5, 2.0, 0.0]])
def test_floats_are_values_whole_or_not(y):
    targets = encode_targets(np.array(y, dtype=np.float32), None)
    assert targets.classes is None
    assert targets.values.dtype == np.float64
    assert targets.values.tolist() == y


def test_the_criterion_has_the_last_word():
    assert encode_targets([1, 2, 2], nn.MSELoss).values.tolist() == [1.0, 2.0, 2.0]
    assert encode_targets([1, 2, 2], F.mse_loss).classes is None
    assert encode_targets([1.0, 2.0, 2.0], nn.CrossEntropyLoss()).values.tolist() == [0, 1, 1]
    two = encode_targets(["no", "yes"], nn.BCEWithLogitsLoss)
    assert (two.values.tolist(), two.values.dtype, two.n_outputs) == ([0.0, 1.0], np.float64, 1)
    several = encode_targets([[0, 1], [1, 1]], nn.BCEWithLogitsLoss)
    assert several.n_outputs == 2


@pytest.mark.parametrize(
    ("y", "criterion", "message"),
    [
        ([[1, 2], [2, 1]], None, r"shape \(2, 2\)"),
        (["a", "b"], nn.MSELoss, "must hold numbers for MSELoss"),
        ([1, 2, 3], nn.BCELoss, "3 labels.*BCELoss"),
        ([0.5, 0.1], nn.CrossEntropyLoss, "continuous"),
    ],
)
def test_y_that_does_not_fit_the_criterion_is_named(y, criterion, message):
    with pytest.raises(ValueError, match=message):
        encode_targets(y, criterion)


def test_labels_known_already_keep_their_codes():
    assert encode_targets([9, 9], None, np.array([3, 5, 9])).values.tolist() == [2, 2]
    with pytest.raises(ValueError, match=r"\[4\].*\[3, 5, 9\]"):
        encode_targets([9, 4], None, np.array([3, 5, 9]))


def test_a_column_of_outputs_is_never_broadcast_against_y():
    y = torch.arange(5.0)
    assert match_outputs(y, torch.zeros(2, 1), nn.MSELoss()).shape == (5, 1)
    assert match_outputs(y[:, None], torch.zeros(2), nn.MSELoss()).shape == (5,)
    with pytest.raises(ValueError, match=r"module returns rows of shape \(3,\)"):
        match_outputs(y, torch.zeros(2, 3), nn.MSELoss())
    with pytest.raises(ValueError, match="n_classes=5"):
        match_outputs(torch.arange(5), torch.zeros(2, 4), nn.CrossEntropyLoss())
