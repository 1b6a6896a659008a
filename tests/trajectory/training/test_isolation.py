"""Global random generators are left as found."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from skdmap import TrajectorySampler


class Noisy(nn.Sequential):
    """Batch normalisation and dropout: buffers, and a stream of its own."""

    def __init__(self):
        super().__init__(
            nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3)
        )


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 15)
    return rng.normal(size=(45, 4)) + 2 * np.eye(3, 4)[y], y


def sampler(**params):
    return TrajectorySampler(**{"max_epochs": 3, "batch_size": 16, "random_state": 0, **params})


@pytest.mark.parametrize(
    "params",
    [
        {"label_noise": 0.2, "record": "outputs"},
        {"vectorize": True, "module": None},
        {"callbacks": lambda step, loss, module: bool(torch.rand(1) > 2)},
    ],
)
def test_global_generators_are_as_they_were_found(blobs, params):
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 - the global generator is what is tested
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    schedule = {"scheduler": "StepLR", "scheduler_params": {"step_size": 1}}
    sampler(**{"module": Noisy, "n_runs": 2, **schedule, **params}).fit(*blobs)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002
