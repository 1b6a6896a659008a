"""Fits neither change nor depend on global generators and modes of torch."""

import random
from contextlib import nullcontext

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


MODES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "meta": lambda: torch.device("meta"),
    "deterministic": nullcontext,
}


@pytest.mark.parametrize("params", [{}, {"module": Noisy}, {"vectorize": True, "n_runs": 2}])
@pytest.mark.parametrize("mode", MODES)
def test_rows_and_scores_do_not_depend_on_the_modes_around_fit(blobs, mode, params):
    alone = sampler(optimizer="Adam", **params).fit(*blobs)
    score = alone.score(*blobs)
    torch.use_deterministic_algorithms(mode == "deterministic")
    try:
        with MODES[mode]():
            modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            fitted = sampler(optimizer="Adam", **params).fit(*blobs)
            assert fitted.score(*blobs) == score
            assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == modes
            assert torch.are_deterministic_algorithms_enabled() == (mode == "deterministic")
    finally:
        torch.use_deterministic_algorithms(False)
    assert np.array_equal(fitted.snapshots_, alone.snapshots_)
    assert np.array_equal(fitted.losses_, alone.losses_)


def test_an_instance_made_in_inference_mode_is_trained(blobs):
    torch.manual_seed(0)
    with torch.inference_mode():
        made = Noisy()
    torch.manual_seed(0)
    rows = [sampler(module=module).fit(*blobs).snapshots_ for module in (made, Noisy())]
    assert np.array_equal(*rows)


def test_a_default_dtype_is_that_of_the_module(blobs):
    torch.set_default_dtype(torch.float64)
    try:
        fitted = sampler(dtype="float64").fit(*blobs)
    finally:
        torch.set_default_dtype(torch.float32)
    assert next(fitted.module_.parameters()).dtype == torch.float64
    last = torch.cat([p.detach().flatten() for p in fitted.module_.parameters()])
    assert np.array_equal(fitted.snapshots_[-1], last)


def test_an_optimizer_that_ignores_the_closure_is_named(blobs):
    class Deaf(torch.optim.SGD):
        def step(self, closure=None):
            return None

    with pytest.raises(ValueError, match="optimizer=Deaf does not call the closure"):
        sampler(optimizer=Deaf, optimizer_params={"lr": 0.1}).fit(*blobs)
