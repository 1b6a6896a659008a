"""The flat vector follows the parameters, and its steps have the length of theirs."""

import numpy as np
import pytest
import torch
from torch import nn

from skdmap import TrajectorySampler
from skdmap.trajectory._flat_parameters import CHUNK, FlatPath, move_to

# Below and above the length at which the vector is written over in place.
SIZES = [5, CHUNK + 7]


def parameters(n, *dtypes):
    rng = np.random.default_rng(0)
    return [nn.Parameter(torch.from_numpy(rng.normal(size=n)).to(kind)) for kind in dtypes]


def shake(parts, seed):
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for part in parts:
            part += torch.from_numpy(rng.normal(size=part.shape)).to(part.dtype)


def values(parts):
    return np.concatenate([part.detach().double().numpy().ravel() for part in parts])


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(
    "dtypes",
    [(torch.float32,), (torch.float32, torch.float64), (torch.bfloat16, torch.float16)],
)
def test_the_vector_is_the_parameters_and_a_step_has_its_length(n, dtypes):
    parts = parameters(n, *dtypes)
    path = FlatPath(parts)
    for seed in range(3):
        before = values(parts)
        shake(parts, seed)
        exact = np.linalg.norm(values(parts) - before)
        # A sum of n squares in float32, in pieces of at most a chunk.
        assert path.follow() == pytest.approx(exact, rel=1e-5)
        np.testing.assert_array_equal(path.theta.double().numpy(), values(parts))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_stays_as_it_is_when_the_path_goes_on(n, dtype):
    parts = parameters(n, torch.float32)
    path = FlatPath(parts)
    row, expected = path.row(dtype), values(parts)
    for seed in range(2):
        shake(parts, seed)
        path.follow()
    assert torch.from_numpy(row).dtype == dtype
    np.testing.assert_array_equal(row, expected)


@pytest.mark.parametrize("n", SIZES)
def test_memory_that_was_replaced_and_rows_that_are_no_vector_are_followed(n):
    columns = nn.Parameter(torch.zeros(2, n).t())  # its flat form is a copy
    plain = nn.Parameter(torch.zeros(n))
    path = FlatPath([columns, plain])
    plain.data = torch.full((n,), 2.0)
    with torch.no_grad():
        columns.fill_(1.0)
    assert path.follow() == pytest.approx(np.sqrt(2 * n + 4 * n), rel=1e-5)
    np.testing.assert_array_equal(path.theta, [1.0] * (2 * n) + [2.0] * n)


def test_a_step_that_overflows_is_told_without_a_warning():
    parts = parameters(5, torch.float32)
    path = FlatPath(parts)
    with torch.no_grad():
        parts[0].fill_(1e30)
    assert path.follow() == np.inf
    with torch.no_grad():
        parts[0].fill_(np.nan)
    assert np.isnan(path.follow())


def test_moving_to_new_values_crosses_the_edges_of_chunks():
    theta = torch.arange(2 * CHUNK + 3, dtype=torch.float64)
    wanted = theta.flip(0)
    exact = float((theta - wanted).square().sum())
    squared = move_to(theta, wanted.split([1, CHUNK + 1, CHUNK + 1]))
    assert float(squared) == pytest.approx(exact, rel=1e-12)
    assert torch.equal(theta, wanted)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "LBFGS"])
def test_a_wide_module_is_recorded_bit_for_bit_between_steps_that_are_no_rows(optimizer):
    """Above a chunk the vector is written over, which rows and reference must not feel."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(24, 4)).astype(np.float32), rng.normal(size=24).astype(np.float32)
    options = {
        "module_params": {"hidden": CHUNK // 4}, "optimizer_params": {"lr": 1e-4}, "batch_size": 8,
        "max_steps": 7, "random_state": 0,
    }  # fmt: skip
    every = TrajectorySampler(None, None, optimizer, **options).fit(X, y)
    third = TrajectorySampler(None, None, optimizer, record_every=3, **options).fit(X, y)
    assert every.snapshots_.shape[1] > CHUNK
    np.testing.assert_array_equal(third.snapshots_, every.snapshots_[[0, 3, 6, 7]])
    assert np.array_equal(every.snapshots_[-1], values(every.module_.parameters()))
    lengths = np.linalg.norm(np.diff(every.snapshots_.astype(float), axis=0), axis=1)
    assert lengths.min() > 0
    np.testing.assert_allclose(every.path_lengths_[1:], lengths, rtol=1e-5)
    np.testing.assert_allclose(
        third.path_lengths_[1:], [lengths[:3].sum(), lengths[3:6].sum(), lengths[6]], rtol=1e-5
    )
