"""Labels that are indices of outputs keep their meaning for weights and ignore_index."""

import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skdmap import TrajectorySampler, make_mlp

WEIGHT = torch.tensor([1.0, 100.0, 3.0])


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(53, 4)).astype(np.float32), rng.integers(0, 3, 53)


def sampler(**params):
    """One batch of all rows, so that the loss of a row is that of the data."""
    return TrajectorySampler(
        **{"module": make_mlp(4, 3), "batch_size": None, "max_epochs": 2, "random_state": 0}
        | params
    )


def expected_loss(module, X, y, **settings):
    with torch.no_grad():
        return F.cross_entropy(module(torch.tensor(X)), torch.tensor(y), **settings).item()


CRITERIA = [
    (nn.CrossEntropyLoss, True),
    (lambda **settings: nn.CrossEntropyLoss(**settings), False),
    (F.cross_entropy, True),
    (lambda **settings: functools.partial(F.cross_entropy, **settings), False),
]


@pytest.mark.parametrize(("criterion", "by_params"), CRITERIA)
@pytest.mark.parametrize("n_outputs", [3, 4])
@pytest.mark.parametrize("ignored", [-100, 255])
def test_ignored_rows_take_no_part(data, criterion, by_params, n_outputs, ignored):
    X, y = data
    y = np.where(np.arange(53) % 3 == 0, ignored, y)
    settings = {"ignore_index": ignored}
    given = {"criterion_params": settings} if by_params else {}
    fitted = sampler(
        module=make_mlp(4, n_outputs), **given,
        criterion=criterion if by_params else criterion(**settings),
    ).fit(X, y)  # fmt: skip
    assert fitted.classes_.tolist() == list(range(n_outputs))
    for i in range(3):
        expected = expected_loss(fitted.module_at(i), X, y, ignore_index=ignored)
        assert fitted.losses_[i] == pytest.approx(expected, rel=1e-6)
    assert -fitted.score(X, y) == pytest.approx(expected, rel=1e-6)
    kept = sampler(module=make_mlp(4, n_outputs), criterion=nn.CrossEntropyLoss)
    kept.set_params(module=fitted.module_at(0)).fit(X[y != ignored], y[y != ignored])
    np.testing.assert_allclose(kept.losses_, fitted.losses_, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, float])
def test_weights_stay_with_their_classes_when_one_is_absent(data, dtype):
    X, y = data
    y = np.where(y == 1, 2, y)
    fitted = sampler(criterion=nn.CrossEntropyLoss(weight=WEIGHT)).fit(X, y.astype(dtype))
    expected = expected_loss(fitted.module_, X, y, weight=WEIGHT)
    assert fitted.losses_[-1] == pytest.approx(expected, rel=1e-6)
    assert -fitted.score(X, y.astype(dtype)) == pytest.approx(expected, rel=1e-6)
    fitted.partial_fit(*data)  # the label that was absent is no stranger
    assert fitted.classes_.tolist() == [0, 1, 2]


def test_without_a_module_the_ignored_label_is_no_class(data):
    X, y = data
    y = np.where(np.arange(53) % 3 == 0, -100, y)
    fitted = sampler(module=None, criterion=nn.CrossEntropyLoss).fit(X, y)
    assert fitted.module_(torch.tensor(X)).shape == (53, 3)
    expected = expected_loss(fitted.module_, X, y)
    assert fitted.losses_[-1] == pytest.approx(expected, rel=1e-6)
    fitted.partial_fit(X, y)


@pytest.mark.parametrize("module", [None, make_mlp(4, 3)])
@pytest.mark.parametrize(
    ("change", "criterion", "message"),
    [
        (
            lambda y: np.where(y == 1, -100, 10 * y + 5),
            nn.CrossEntropyLoss,
            r"y contains ignore_index=-100.*\[5, 25\].*n_outputs=",
        ),
        (
            lambda y: np.where(y == 1, 7, y),
            nn.NLLLoss(weight=WEIGHT[[0, 1, 1, 2]]),
            r"weight of the criterion has 4 entries.*3 labels in y, \[0, 2, 7\]",
        ),
        (
            lambda y: np.where(y == 1, "b", "a"),
            functools.partial(F.cross_entropy, weight=WEIGHT),
            r"weight of the criterion has 3 entries.*2 labels in y, \['a', 'b'\]",
        ),
    ],
)
def test_labels_whose_meaning_is_unclear_are_an_error(data, module, change, criterion, message):
    X, y = data
    unfitted = sampler(module=module, criterion=criterion)
    with pytest.raises(ValueError, match=message):
        unfitted.fit(X, change(y))
    assert not hasattr(unfitted, "snapshots_")


def test_labels_that_are_no_indices_are_numbered_in_sorted_order(data):
    X, y = data
    fitted = sampler(criterion=nn.CrossEntropyLoss(weight=WEIGHT)).fit(X, 10 * y + 5)
    assert fitted.classes_.tolist() == [5, 15, 25]
    expected = expected_loss(fitted.module_, X, y, weight=WEIGHT)
    assert fitted.losses_[-1] == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match=r"\[-100\]"):
        fitted.partial_fit(X, np.where(y == 1, -100, 10 * y + 5))
