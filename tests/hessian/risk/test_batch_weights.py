"""X and y are copied, and each batch weighs as much as the criterion divides by."""

import functools

import joblib
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from skdmap.hessian import EmpiricalRisk
from skdmap.hessian._risk.batch_weights import batch_shares, cut, even_batches, row_weights
from skdmap.hessian._risk.checks import check_sample

N, D, C = 40, 5, 3
EPS = np.finfo(np.float64).eps


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, D)), np.sort(rng.integers(0, C, N))


@pytest.fixture
def module():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(D, C).double()


class Halving(nn.Module):
    """Works in place on its input."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(D, C).double()

    def forward(self, x):
        return self.layer(x.mul_(0.5))


def greedy(output, y):
    """A criterion that works in place on its targets."""
    return (output - y.mul_(2.0)).square().mean()


@pytest.mark.parametrize("batch_size", [None, 7])
def test_a_module_or_a_criterion_in_place_changes_neither_the_data_nor_the_risk(data, batch_size):
    X, _ = data
    given, targets = X.copy(), X[:, :C].copy()
    risk = EmpiricalRisk(Halving(), greedy, given, targets, batch_size=batch_size)
    before, theta = joblib.hash(risk), risk.snapshot()[0]
    weight, bias = theta[: C * D].reshape(C, D), theta[C * D :]
    expected = np.square(X / 2 @ weight.T + bias - 2 * X[:, :C]).mean()
    for _ in range(2):
        assert risk(theta) == pytest.approx(expected, rel=100 * EPS)
    risk.hvp(theta, theta)
    assert joblib.hash(risk) == before
    np.testing.assert_array_equal(given, X)
    np.testing.assert_array_equal(targets, X[:, :C])


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_the_risk_does_not_follow_the_users_data(data, module, kind):
    X, y = kind(data[0]), kind(data[1])
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), X, y)
    before, value = joblib.hash(risk), risk(risk.snapshot()[0])
    X *= 2
    y[:] = 0
    assert risk(risk.snapshot()[0]) == value
    assert joblib.hash(risk) == before


def test_equal_data_have_equal_hashes_whatever_their_strides(data, module):
    X, y = data
    risks = [
        EmpiricalRisk(module, nn.CrossEntropyLoss(), rows, y)
        for rows in (X, np.asfortranarray(X), torch.from_numpy(X[::-1].copy()).flip(0))
    ]
    assert len({joblib.hash(risk) for risk in risks}) == 1


def squares(output, y):
    return (output - y).square().mean()


@pytest.mark.parametrize(
    "criterion", [nn.MSELoss(), mse_loss, functools.partial(mse_loss), squares]
)
@pytest.mark.parametrize("batch_size", [None, 7])
@pytest.mark.parametrize("shape", [(N,), (N, 1)])
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool])
def test_integers_and_booleans_against_a_column_are_values(
    data, criterion, batch_size, shape, dtype
):
    X, y = data[0], data[1].astype(dtype)
    line = nn.Linear(D, 1).double()
    risk = EmpiricalRisk(line, criterion, X, y.reshape(shape), batch_size=batch_size)
    theta = np.linspace(-1, 1, D + 1)
    residual = X @ theta[:D] + theta[D] - y.astype(float)
    assert risk(theta) == pytest.approx(np.mean(residual**2), rel=100 * EPS)
    design = np.column_stack([X, np.ones(N)])
    np.testing.assert_allclose(risk.gradient(theta), 2 * design.T @ residual / N, atol=1e-13)


def test_numbers_of_classes_stay_integers_where_there_is_one_class(data):
    # A criterion of torch would refuse floats there.
    risk = EmpiricalRisk(
        nn.Sequential(nn.Linear(D, 1), nn.LogSoftmax(1)), nn.NLLLoss(), data[0], np.zeros(N, int)
    )
    assert risk(risk.snapshot()[0]) == 0.0


SMOOTHED = {"weight": torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64), "label_smoothing": 0.2}


@pytest.mark.parametrize("batch_size", [1, 7])
def test_a_sum_keeps_smoothed_labels_of_weight_zero(data, module, batch_size):
    X, y = data  # sorted: the first batches hold label 0 only
    criterion = nn.CrossEntropyLoss(reduction="sum", **SMOOTHED)
    risk = EmpiricalRisk(module, criterion, X, y, batch_size=batch_size)
    expected = criterion(module(torch.from_numpy(X)), torch.from_numpy(y)).item()
    assert risk(risk.snapshot()[0]) == pytest.approx(expected, rel=100 * EPS)


def test_a_sum_over_smoothed_labels_of_weight_zero_alone_is_a_loss(data, module):
    X, y = torch.from_numpy(data[0]), torch.zeros(N, dtype=torch.int64)
    criterion = nn.CrossEntropyLoss(reduction="sum", **SMOOTHED)
    risk = EmpiricalRisk(module, criterion, X, y, batch_size=7)
    expected = criterion(module(X), y).item()
    assert expected > 1
    assert risk(risk.snapshot()[0]) == pytest.approx(expected, rel=100 * EPS)


def test_a_mean_refuses_batches_of_smoothed_labels_of_weight_zero_only(data, module):
    X, y = data
    criterion = nn.CrossEntropyLoss(**SMOOTHED)
    with pytest.raises(ValueError, match=r"sample 0 holds only labels of class weight 0"):
        EmpiricalRisk(module, criterion, X, y, batch_size=7)
    shuffled = np.random.default_rng(0).permutation(N)
    risk = EmpiricalRisk(module, criterion, X[shuffled], y[shuffled], batch_size=20)
    expected = criterion(module(torch.from_numpy(X)), torch.from_numpy(y)).item()
    assert risk(risk.snapshot()[0]) == pytest.approx(expected, rel=100 * EPS)


def test_smoothed_batches_that_are_ignored_whole_are_no_false_alarm(data, module):
    X, y = data
    criterion = nn.CrossEntropyLoss(label_smoothing=0.2, ignore_index=0)
    risk = EmpiricalRisk(module, criterion, X, y, batch_size=7)
    expected = criterion(module(torch.from_numpy(X)), torch.from_numpy(y)).item()
    assert risk(risk.snapshot()[0]) == pytest.approx(expected, rel=100 * EPS)


def heavy(output, y):
    return cross_entropy(output, y, weight=torch.tensor([1.0, 1.0, 50.0], dtype=output.dtype))


def known(output, y):
    """A mean over the entries of y that are not negative."""
    return (output.sum(1) - y)[y >= 0].square().mean()


def rare(special):
    """Thousands of rows, of which a few are special; none of them would be met by even steps."""
    rng = np.random.default_rng(0)
    n = 4000
    y = rng.integers(0, 2, n).astype(type(special))
    y[[17, 1234, 3801]] = special
    assert not np.isin(np.linspace(0, n - 1, 64).round(), [17, 1234, 3801]).any()
    return rng.standard_normal((n, D)), y


@pytest.mark.parametrize(
    ("criterion", "special"), [(cross_entropy, -100), (heavy, 2), (known, -1.0)]
)
def test_a_criterion_that_divides_by_something_rare_is_found_out(module, criterion, special):
    X, y = rare(special)
    with pytest.raises(ValueError, match=r"two batches.*batch_size=None"):
        EmpiricalRisk(module, criterion, X, y, batch_size=100)
    EmpiricalRisk(module, criterion, X, y)


@pytest.mark.parametrize(
    ("criterion", "special"),
    [(nn.CrossEntropyLoss(), -100), (cross_entropy, 2), (lambda z, t: squares(z.sum(1), t), -1.0)],
)
def test_rare_targets_are_no_false_alarm(module, criterion, special):
    X, y = rare(special)
    risk = EmpiricalRisk(module, criterion, X, y, batch_size=100)
    whole = criterion(module(torch.from_numpy(X)), torch.from_numpy(y)).item()
    assert risk(risk.snapshot()[0]) == pytest.approx(whole, rel=1e-12)


def test_rows_to_check_are_all_rows_where_they_are_few_and_hold_every_kind_else():
    labels = torch.arange(30).repeat_interleave(2)
    assert sorted(check_sample(torch.ones(60), labels).tolist()) == list(range(60))
    many = torch.cat([torch.zeros(5000, dtype=torch.int64), torch.arange(32)])
    rows = check_sample(torch.ones(len(many)), many)
    assert len(rows.unique()) == len(rows) <= 64
    assert set(many[rows].tolist()) == set(range(32))
    weights = torch.ones(len(many))
    weights[5010] = 0
    assert 10 not in many[check_sample(weights, many)]
    # Several targets a row: the least and the greatest count.
    wide = torch.zeros(500, 4)
    wide[77, 2] = -1.0
    assert check_sample(torch.ones(500), wide)[-1] == 77


def test_a_sum_divides_by_no_class_weight():
    y = torch.tensor([0, 1, 2, -100])
    criterion = nn.CrossEntropyLoss(weight=torch.tensor([0.0, 1.0, 5.0]), reduction="sum")
    assert row_weights(criterion, y, 4).tolist() == [1.0, 1.0, 1.0, 0.0]


def test_weights_are_class_weights_of_the_targets_that_count():
    criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]), ignore_index=9)
    assert row_weights(criterion, torch.tensor([0, 1, 9]), 3).tolist() == [1.0, 3.0, 0.0]


def test_shares_of_a_mean_sum_to_one_and_those_of_a_sum_are_one():
    weights, batches = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]), even_batches(5, 2)
    shares = batch_shares(weights, "mean", batches)
    assert shares == ((slice(0, 2), 0.5), (slice(2, 4), 0.5))
    assert [share for _, share in batch_shares(weights, "sum", batches)] == [1.0, 1.0, 1.0]
    assert batch_shares(weights, "mean", batches[:1], total=8.0) == ((slice(0, 2), 0.25),)


def test_batches_are_cut_evenly():
    pieces = cut([slice(0, 10), slice(10, 13)], 4)
    assert [p.stop - p.start for p in pieces] == [4, 3, 3, 3]
    assert [p.start for p in pieces] == [0, 4, 7, 10]


@pytest.mark.parametrize("n_rows", [1, 2, 3, 7])
def test_no_more_samples_are_chosen_for_a_check_than_asked_for(n_rows):
    labels = torch.tensor([0, 1, 2, 1, 0, 2, 1, 0, 0])
    rows = check_sample(torch.ones(9), labels, n_rows)
    assert 1 <= len(rows) <= n_rows
