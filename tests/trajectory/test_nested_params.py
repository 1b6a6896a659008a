"""Names such as optimizer__lr read and write the dicts of TrajectorySampler."""

import numpy as np
import pytest
from sklearn.base import clone

from skdmap import TrajectorySampler


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
