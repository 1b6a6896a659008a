"""Samples divided into chunks: where the criterion allows it, and nowhere else."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from skdmap.hessian import EmpiricalRisk
from skdmap.hessian._risk import chunking
from skdmap.hessian._risk.chunking import Chunking, measured_bytes

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
    monkeypatch.setattr(chunking, "_TENSOR_BYTES", 20.0)
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


def test_six_chunks_fit_in_the_bytes_that_are_left():
    measured = Chunking((slice(0, 1000),), "mean", True, 600.0, 100.0, 3, 8)
    assert measured.rows_of_chunk(left=6 * 5_600) == 50
    assert measured.rows_of_chunk(left=0) == 1
    assert measured.rows_of_chunk() == measured.rows_of_chunk(left=1e15) == 23_034  # three tensors
    for left in (0, 6_000, 60_000, None):
        shares = measured.shares(torch.ones(1000), 1000.0, left)
        assert sum(share for _, share in shares) == pytest.approx(1.0)
        assert left is None or left < 6_000 or 6 * measured.longest_bytes(shares) <= left


def test_a_network_of_twice_the_layers_gets_chunks_of_twice_the_bytes():
    """Its operations are as long then; the graph of the gradient grows with the layers."""
    sizes = {}
    X = np.ones((64, D))
    for n_layers in (4, 8, 16):
        layers = [part for _ in range(n_layers) for part in (nn.Linear(D, D), nn.Tanh())]
        risk = EmpiricalRisk(nn.Sequential(*layers), nn.MSELoss(), X, X)
        sizes[n_layers] = risk.chunk_bytes(risk._chunking.rows_of_chunk())
    assert (sizes[16] - sizes[8]) == pytest.approx(2 * (sizes[8] - sizes[4]), rel=0.05)


@pytest.mark.parametrize("width", [16, 256])
def test_the_graph_of_a_row_needs_its_outputs_and_what_goes_back(width):
    """Between the layers: a row of outputs kept for each of tanh, its derivative, and the like."""
    module = nn.Sequential(nn.Linear(D, width), nn.Tanh(), nn.Linear(width, 1)).double()
    risk = EmpiricalRisk(module, nn.MSELoss(), np.ones((64, D)), np.ones((64, 1)))
    _, of_a_row, _ = measured_bytes(risk._loss)
    assert 8 * width <= of_a_row <= 8 * 8 * width
    whole = Chunking.of(risk._loss, (slice(0, 64),), additive=True).n_bytes(64)
    half = Chunking.of(risk._loss, (slice(0, 64),), additive=True).n_bytes(32)
    kept, _ = chunking.graph_bytes(
        lambda: chunking._gradient_graph(
            risk._loss,
            tuple(p.clone().requires_grad_(True) for p in risk._loss.parts(risk._loss.own_point())),
            slice(0, 64),
        ),
        (risk._loss.X, risk._loss.y, *risk._loss.module.state_dict().values()),
    )
    assert whole - half == pytest.approx(32 * of_a_row, rel=1e-9)
    assert kept == pytest.approx(whole, rel=0.2)
