"""Samples divided into chunks: where the criterion allows it, and nowhere else."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from skdmap.hessian import EmpiricalRisk
from skdmap.hessian._risk import chunking
from skdmap.hessian._risk.batch_weights import cut

N, D, C = 40, 5, 3
SMOOTHED = {"weight": torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64), "label_smoothing": 0.2}


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, D)), np.sort(rng.integers(0, C, N))


@pytest.fixture
def module():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(D, C).double()


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunking, "_CHUNK_BYTES", 200.0)
    monkeypatch.setattr(chunking, "_CHUNK_GRADIENTS", 0)


def chunks_and_loss(module, criterion, X, y=None):
    risk = EmpiricalRisk(module, criterion, X, y)
    with risk.operator_at(risk.snapshot()[0]) as operator:
        return operator.n_chunks, operator.loss


@pytest.mark.usefixtures("small_chunks")
def test_all_rows_are_cut_in_chunks_where_the_criterion_is_known(data, module):
    n_chunks, loss = chunks_and_loss(module, nn.CrossEntropyLoss(), *data)
    assert n_chunks > 3
    X, y = (torch.from_numpy(part) for part in data)
    assert loss == pytest.approx(cross_entropy(module(X), y).item(), rel=1e-14)


def trimmed(z):
    return z[z.abs() < 100].square().mean()


@pytest.mark.usefixtures("small_chunks")
def test_all_rows_stay_together_where_it_is_not(module):
    """One row in a thousand that the check does not see changes the divisor."""
    X = np.random.default_rng(0).standard_normal((1000, D))
    X[123] = 1e6
    n_chunks, loss = chunks_and_loss(module, trimmed, X)
    assert n_chunks == 1
    assert loss == pytest.approx(trimmed(module(torch.from_numpy(X))).item(), rel=1e-14)


@pytest.mark.usefixtures("small_chunks")
def test_smoothed_labels_of_weight_zero_stay_together(data, module):
    criterion = nn.CrossEntropyLoss(**SMOOTHED)
    n_chunks, loss = chunks_and_loss(module, criterion, *data)
    assert n_chunks == 1
    X, y = (torch.from_numpy(part) for part in data)
    assert loss == pytest.approx(criterion(module(X), y).item(), rel=1e-14)


def test_batches_are_cut_evenly():
    pieces = cut([slice(0, 10), slice(10, 13)], 4)
    assert [p.stop - p.start for p in pieces] == [4, 3, 3, 3]
    assert [p.start for p in pieces] == [0, 4, 7, 10]
