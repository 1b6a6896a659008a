"""What does not fit a risk or a spectrum is named, with its value and the way out."""

import functools
import warnings

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import nn
from torch.nn import functional as F

from skdmap.exceptions import SkdmapWarning
from skdmap.hessian import EmpiricalRisk, HessianSpectrum

N, D, C = 100, 4, 3


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, D)), rng.integers(0, C, N)


def risk_of(data, **changes):
    X, y = data
    arguments = {"module": nn.Linear(D, C), "criterion": nn.CrossEntropyLoss(), "X": X, "y": y}
    return EmpiricalRisk(**(arguments | changes))


def at_zero(risk):
    return risk(np.zeros(risk.n_parameters))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": np.ones((N, 7))}, r"module=Linear fails on samples of shape \(7,\).*mat1 and mat2"),
        ({"X": np.ones((N, D), int)}, r"dtype torch.int64: .*X.astype\(float\)"),
        ({"module": nn.Sequential(nn.Embedding(5, 2), nn.Linear(2, C))}, "integers where it takes"),
        ({"module": nn.Sequential(nn.Linear(D, 1), nn.Flatten(0))}, "one column for each class"),
    ],
)
def test_a_module_that_does_not_take_the_rows_is_named(data, change, message):
    with pytest.raises(ValueError, match=message):
        risk_of(data, **change)


@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss(), F.cross_entropy])
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (
            np.arange(N) % C * 1.0,
            r"y contains floats \(0, 1, 2\).*integers in \[0, 2\].*astype\(int\)",
        ),
        (np.linspace(0, 1, N), r"y contains floats \(0, .*, \.\.\.\).*criterion=torch.nn.MSELoss"),
        (np.arange(N) % 5, r"y contains 3, 4, but .*\[0, 2\].*LabelEncoder"),
        (np.arange(N) % C - 1, "y contains -1, but"),
        # One row, which a trial on some rows may miss.
        (np.r_[np.zeros(N - 2, int), 9, 0], "y contains 9, but"),
        (
            np.zeros((N, 1), int),
            r"y of shape \(64, 1\).*tried on 64 of 100.*integers of shape \(n,\)",
        ),
    ],
)
def test_y_that_is_no_class_label_is_named(data, criterion, y, message):
    with pytest.raises(ValueError, match=message):
        risk_of(data, criterion=criterion, y=y)


def test_labels_out_of_range_are_named_before_class_weights_are_looked_up(data):
    with pytest.raises(ValueError, match="y contains 3, but criterion=CrossEntropyLoss"):
        risk_of(data, criterion=nn.CrossEntropyLoss(weight=torch.ones(C)), y=np.full(N, C))


@pytest.mark.parametrize(
    "criterion",
    [
        nn.CrossEntropyLoss(ignore_index=7),
        functools.partial(F.cross_entropy, ignore_index=7),
    ],
)
def test_a_label_to_be_ignored_may_be_out_of_range(data, criterion):
    y = np.r_[np.zeros(N - 1, int), 7]
    assert at_zero(risk_of(data, criterion=criterion, y=y)) == pytest.approx(np.log(C))


def test_class_probabilities_are_targets_of_a_cross_entropy(data):
    y = np.full((N, C), 1 / C)
    assert at_zero(risk_of(data, y=y)) == pytest.approx(np.log(C))
    with pytest.raises(ValueError, match="y contains floats"):
        risk_of(data, criterion=nn.NLLLoss(), y=y)


def test_values_may_be_integers_in_any_number_of_columns(data):
    y = np.arange(N * C).reshape(N, C) % 2
    risk = risk_of(data, criterion=nn.BCEWithLogitsLoss(), y=y)
    assert at_zero(risk) == pytest.approx(np.log(2))
    column = EmpiricalRisk(nn.Linear(D, 1), nn.MSELoss(), data[0], data[1])
    assert at_zero(column) == pytest.approx(np.mean(data[1] ** 2))


@pytest.mark.parametrize("criterion", [nn.MSELoss(), nn.MSELoss, F.mse_loss])
def test_a_criterion_that_needs_y_says_so(data, criterion):
    with pytest.raises(ValueError, match=r"y=None, but criterion=(MSEL|mse_l)oss takes targets"):
        risk_of(data, criterion=criterion, y=None)


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        ("mse", "criterion='mse' must be a class.*torch.nn.MSELoss"),
        (lambda z: z.sum(), r"does not take \(outputs, y\).*y=None"),
        (functools.partial, "criterion=partial cannot be made without arguments"),
        (nn.CrossEntropyLoss(weight=torch.ones(5)), "criterion=CrossEntropyLoss fails on outputs"),
        (nn.CrossEntropyLoss(reduction="none"), "CrossEntropyLoss has reduction='none'.*'mean' or"),
        (
            lambda z, y: F.cross_entropy(z, y, reduction="none"),
            r"criterion=<lambda> returned shape \((\d+),\) for \1 samples; it must return one",
        ),
    ],
)
def test_a_criterion_that_cannot_be_called_is_named(data, criterion, message):
    with pytest.raises(ValueError, match=message):
        risk_of(data, criterion=criterion)


def test_classes_on_the_wrong_axis_are_named_with_the_sizes_that_were_tried(data):
    X, _ = data
    tokens = np.arange(N * 7).reshape(N, 7) % C
    module = nn.Sequential(nn.Linear(D, 7 * C), nn.Unflatten(1, (7, C)))
    with pytest.raises(ValueError, match=r"Classes must be on axis 1") as caught:
        EmpiricalRisk(module, nn.CrossEntropyLoss(), X, tokens)
    # torch's own text holds the same sizes.
    assert f"outputs of shape (64, 7, {C}) and y of shape (64, 7)" in str(caught.value)
    assert f"Expected target size [64, {C}], got [64, 7]" in str(caught.value)

    def moved(outputs, y):
        return F.cross_entropy(outputs.movedim(-1, 1), y)

    assert at_zero(EmpiricalRisk(module, moved, X, tokens)) == pytest.approx(np.log(C))


def test_a_loss_over_the_samples_is_named_with_the_sizes_that_were_tried(data):
    message = rf"shape \((\d+), {C}\) and y of shape \(\1,\).*tried on \1 of {N}.*samples are on"
    with pytest.raises(ValueError, match=message):
        risk_of(data, criterion=lambda z, y: F.cross_entropy(z.T, y))


def test_a_criterion_may_be_a_class(data):
    made, given = risk_of(data, criterion=nn.CrossEntropyLoss), risk_of(data)
    assert at_zero(made) == at_zero(given) == pytest.approx(np.log(C))
    batched = risk_of(data, criterion=nn.CrossEntropyLoss, batch_size=7)
    assert at_zero(batched) == pytest.approx(np.log(C))


@pytest.mark.parametrize(
    ("name", "dtype"), [("float32", torch.float32), ("float64", torch.float64)]
)
def test_a_dtype_may_be_a_name(data, name, dtype):
    rows = [risk_of(data, dtype=spelling).snapshot() for spelling in (name, dtype)]
    assert rows[0].dtype == rows[1].dtype == name


@pytest.mark.parametrize("dtype", ["float16", torch.float16, "double", 64])
def test_a_dtype_without_curvature_is_named(data, dtype):
    with pytest.raises(ValueError, match=f"dtype={dtype!r} must be .*Set dtype='float32'"):
        risk_of(data, dtype=dtype)


def test_a_device_that_is_not_here_is_named(data):
    with pytest.raises(ValueError, match=r"device='gpu' cannot be used: .* 'cpu'"):
        risk_of(data, device="gpu")


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.MSELoss, F.mse_loss, lambda: 0.0])
def test_a_loss_that_is_no_function_of_the_parameters_is_named(loss):
    with pytest.raises(
        ValueError, match=r"cannot be called with one flat tensor of shape \(3,\).*"
    ):
        HessianSpectrum(loss).fit(np.ones((2, 3)))


def test_a_loss_with_further_arguments_that_have_defaults_is_fine():
    def bowl(theta, scale=2.0):
        return scale * theta.square().sum()

    np.testing.assert_allclose(
        HessianSpectrum(bowl, n_components=2).fit(np.ones((1, 3))).eigenvalues_, [4.0, 4.0]
    )


def test_a_warning_points_to_the_line_of_the_user(data):
    module = nn.Sequential(nn.Linear(D, C), nn.BatchNorm1d(C))
    risk = risk_of(data, module=module)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SkdmapWarning)
        at_zero(risk)
    assert {warning.filename for warning in caught} == {__file__}


def test_a_warning_of_fit_points_to_the_line_of_the_user_through_a_pipeline():
    curvatures = torch.linspace(1, 2, 300, dtype=torch.float64)
    spectrum = HessianSpectrum(
        lambda theta: curvatures @ theta**2, n_components=3, max_matvecs=5, random_state=0
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SkdmapWarning)
        make_pipeline(spectrum, FunctionTransformer()).fit_transform(np.ones((2, 300)))
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(D, C, device="meta"),
        nn.Sequential(nn.Linear(D, C), nn.Linear(C, C, device="meta")),
        nn.Sequential(nn.Linear(D, C), nn.BatchNorm1d(C, affine=False, device="meta")),
    ],
)
def test_a_module_without_numbers_is_named(data, module):
    with pytest.raises(ValueError, match=r"module has .* on the meta device.*to_empty"):
        risk_of(data, module=module)
    with pytest.raises(ValueError, match=r"module has .* on the meta device.*to_empty"):
        risk_of(data, module=module, parameters="0.*" if len(list(module.children())) else None)


def test_a_device_or_data_without_numbers_are_named(data):
    with pytest.raises(ValueError, match=r"device='meta' .*holds no numbers.*'cpu'"):
        risk_of(data, device="meta")
    with pytest.raises(ValueError, match=r"X is on the meta device"):
        risk_of(data, X=torch.ones(N, D, device="meta"))
