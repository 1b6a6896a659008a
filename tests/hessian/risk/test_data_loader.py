"""A DataLoader in place of arrays."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from skdmap.hessian import EmpiricalRisk

N, D, C = 41, 5, 3


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    return (
        torch.from_numpy(rng.standard_normal((N, D))),
        torch.from_numpy(rng.integers(0, C, N)),
    )


@pytest.fixture
def module():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(D, 4), nn.Tanh(), nn.Linear(4, C)).double()


class Shuffled(Sampler):
    """Draws from a generator of numpy of its own, and counts."""

    def __init__(self, n):
        self.n, self.rng, self.epoch = n, np.random.default_rng(0), 0

    def __len__(self):
        return self.n

    def __iter__(self):
        self.epoch += 1
        yield from self.rng.permutation(self.n).tolist()


class Noised(TensorDataset):
    """Draws from the global generators for each row, as augmentation does."""

    def __getitem__(self, i):
        random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
        return super().__getitem__(i)


LOADERS = {
    "in order": lambda d: DataLoader(d, batch_size=7),
    "shuffled": lambda d: DataLoader(d, batch_size=7, shuffle=True),
    "seeded": lambda d: DataLoader(
        d, batch_size=7, shuffle=True, generator=torch.Generator().manual_seed(3)
    ),
    "sampler": lambda d: DataLoader(d, batch_size=7, sampler=Shuffled(len(d))),
    "unequal": lambda d: DataLoader(d, batch_sampler=[[0, 1], list(range(2, 20)), [*range(20, N)]]),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", LOADERS)
def test_a_loader_gives_the_loss_of_its_rows_in_any_order(tensors, module, name, weighted):
    weight = torch.tensor([1.0, 5.0, 25.0]).double() if weighted else None
    criterion = nn.CrossEntropyLoss(weight=weight)
    risk = EmpiricalRisk(module, criterion, LOADERS[name](Noised(*tensors)))
    whole = EmpiricalRisk(module, criterion, *tensors)
    theta = risk.snapshot()[0] + 0.1
    assert risk(theta) == pytest.approx(whole(theta), rel=1e-13)
    np.testing.assert_allclose(risk.gradient(theta), whole.gradient(theta), atol=1e-14)
    np.testing.assert_allclose(risk.hvp(theta, theta), whole.hvp(theta, theta), atol=1e-13)


@pytest.mark.parametrize("name", LOADERS)
def test_training_goes_on_as_if_the_loader_had_not_been_read(tensors, module, name):
    def order(read):
        torch.manual_seed(5), np.random.seed(5), random.seed(5)  # noqa: NPY002
        loader = LOADERS[name](Noised(*tensors))
        if read:
            EmpiricalRisk(module, nn.CrossEntropyLoss(), loader)
        epochs = [torch.cat([X for X, _ in loader]).numpy() for _ in range(2)]
        rest = torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()  # noqa: NPY002
        return np.stack(epochs), rest, getattr(loader.sampler, "epoch", None)

    with torch.random.fork_rng():
        states = np.random.get_state(), random.getstate()  # noqa: NPY002
        expected, found = order(False), order(True)
        np.random.set_state(states[0]), random.setstate(states[1])  # noqa: NPY002
    np.testing.assert_array_equal(found[0], expected[0])
    assert found[1:] == expected[1:]


def test_batches_stay_as_they_come_where_they_matter(tensors, module):
    """Each batch has its own dropout mask, drawn from the number of its first row."""
    module = nn.Sequential(nn.Dropout(0.5), module)
    sizes = [2, 18, N - 20]
    loader = LOADERS["unequal"](TensorDataset(*tensors))
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), loader, mode="train")
    with torch.random.fork_rng(), torch.no_grad():
        expected, start = 0.0, 0
        for size in sizes:
            torch.manual_seed(start)
            X, y = (part[start : start + size] for part in tensors)
            expected += size / N * nn.CrossEntropyLoss()(module.train()(X), y).item()
            start += size
    assert risk(risk.snapshot()[0]) == pytest.approx(expected, rel=1e-13)


def test_a_loader_of_rows_alone_goes_with_a_criterion_of_outputs_alone(tensors):
    loader = DataLoader(tensors[0], batch_size=7)
    line = nn.Linear(D, 1, bias=False).double()
    risk = EmpiricalRisk(line, lambda z: z.square().mean(), loader)
    X = tensors[0].numpy()
    found = risk.matmat(np.zeros(D), np.eye(D))
    np.testing.assert_allclose(found, 2 * X.T @ X / N, atol=1e-13)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"y": np.zeros(N, int)}, ValueError, "y must be None where X is a DataLoader"),
        ({"batch_size": 8}, ValueError, "batch_size=8 must be None where X is a DataLoader"),
        ({"X": DataLoader([])}, ValueError, "DataLoader without batches"),
        ({"X": DataLoader([{"a": 1}])}, TypeError, "gives a dict of length 1"),
        (
            {"X": DataLoader([torch.ones(2), torch.ones(3)])},
            ValueError,
            "batches cannot be joined.*Pad the samples",
        ),
    ],
)
def test_what_is_no_loader_of_rows_is_named(tensors, module, arguments, kind, message):
    arguments = {"X": DataLoader(TensorDataset(*tensors))} | arguments
    with pytest.raises(kind, match=message):
        EmpiricalRisk(module, nn.CrossEntropyLoss(), **arguments)


def test_a_loader_that_gives_single_rows_is_named():
    rows = TensorDataset(torch.ones(5, D), torch.zeros(5, dtype=torch.int64))
    for dataset in (rows, torch.ones(5), torch.ones(5, D)):
        with pytest.raises(
            ValueError, match=r"DataLoader\(batch_size=None\).*single samples.*batch_size"
        ):
            EmpiricalRisk(
                nn.Linear(D, C), nn.CrossEntropyLoss(), DataLoader(dataset, batch_size=None)
            )


def test_a_loader_of_ready_batches_is_read_as_they_are():
    X, y = torch.randn(5, D, dtype=torch.float64), torch.arange(5) % C
    ready = [(X[:3], y[:3]), (X[3:], y[3:])]
    module = nn.Linear(D, C).double()
    loaded = EmpiricalRisk(module, nn.CrossEntropyLoss(), DataLoader(ready, batch_size=None))
    whole = EmpiricalRisk(module, nn.CrossEntropyLoss(), X, y)
    theta = whole.snapshot()[0]
    assert loaded(theta) == pytest.approx(whole(theta), rel=1e-14)
