"""What does not fit the sampler is named, with its value and the way out."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import nn

from skdmap import TrajectorySampler
from skdmap.exceptions import DivergenceWarning

D, C = 6, 3


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((30, D)), np.arange(30) % C


def lazy():
    return nn.Sequential(nn.LazyLinear(4), nn.Linear(5, C))


@pytest.mark.parametrize("module", [nn.Linear(10, 10), lazy])
def test_a_module_that_does_not_take_the_rows_is_named(data, module):
    message = (
        r"(Linear|Sequential) fails on samples of shape \(6,\) and type float32: mat1 and mat2"
    )
    with pytest.raises(ValueError, match=message):
        TrajectorySampler(module).fit(*data)


def test_a_module_is_left_in_its_mode_where_it_fails(data):
    X, y = data
    sampler = TrajectorySampler(max_epochs=1).fit(X, y)
    sampler.module_.train()
    sampler.module_[0].register_forward_pre_hook(lambda layer, rows: (rows[0][:, :2],))
    with pytest.raises(ValueError, match="module=Sequential fails on samples"):
        sampler.score(X, y)
    assert sampler.module_.training


def test_a_criterion_that_does_not_take_the_outputs_is_named(data):
    X, _ = data
    sampler = TrajectorySampler(nn.Linear(D, 1), nn.TripletMarginLoss)
    with pytest.raises(ValueError, match="criterion=TripletMarginLoss fails on outputs of shape"):
        sampler.fit(X, X[:, 0])


def test_a_criterion_without_reduction_is_named(data):
    sampler = TrajectorySampler(None, nn.CrossEntropyLoss(reduction="none"))
    with pytest.raises(
        ValueError, match=r"returns shape \(2,\) for 2 samples.*'reduction': 'mean'"
    ):
        sampler.fit(*data)


@pytest.mark.parametrize(
    ("params", "way_out"),
    [
        ({"criterion": "mse"}, r"'mse'.*Pass torch\.nn\.MSELoss"),
        ({"max_epochs": 0}, "Got 0.*None leaves the end to max_steps"),
        ({"max_steps": 0}, "Got 0.*None leaves the end to max_epochs"),
        ({"device": "gpu"}, r"device='gpu' cannot be used.*gpu\. Pass None.*'cpu', or 'cuda'"),
        ({"device": 3}, "'device'.*Got 3.*Pass 'cpu'"),
        ({"module": "mlp"}, r"'mlp'.*Pass a torch\.nn\.Module"),
        ({"burn_in": -1}, "Got -1.*0 records from the initialisation"),
        ({"n_runs": 0}, "Got 0.*Pass 1"),
        ({"parameters": 3}, r"Got 3.*'0\.\*'"),
        ({"random_state": "a"}, "'a'.*Pass an integer"),
        ({"dtype": torch.bfloat16}, r"torch\.bfloat16.*Pass 'float32'"),
    ],
)
def test_a_bad_parameter_comes_with_a_way_out(data, params, way_out):
    with pytest.raises(ValueError, match=way_out):
        TrajectorySampler(**params).fit(*data)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_dtype_may_be_torchs(data, dtype):
    given = getattr(torch, dtype)
    named, sampler = (
        TrajectorySampler(max_epochs=1, dtype=spelling, random_state=0)
        for spelling in (dtype, given)
    )
    rows = clone(sampler).fit(*data).snapshots_
    assert rows.dtype == dtype
    np.testing.assert_array_equal(rows, named.fit(*data).snapshots_)
    assert sampler.fit(*data).dtype is given


def test_a_warning_points_to_the_line_of_the_user(data):
    X, _ = data
    sampler = TrajectorySampler(nn.Linear(D, 1), optimizer_params={"lr": 1e4}, random_state=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DivergenceWarning)
        make_pipeline(sampler.set_params(max_epochs=200), FunctionTransformer()).fit(X, X[:, 0])
    (warning,) = (w for w in caught if issubclass(w.category, DivergenceWarning))
    assert warning.filename == __file__
