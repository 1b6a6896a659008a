"""y in the type and shape that the loss takes."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skdmap.trajectory._training.targets import encode_targets, match_outputs


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
        (["a", "b"], nn.MSELoss, "must be numeric for MSELoss"),
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
