"""Learning rates follow the schedule."""

import numpy as np
import pytest
import torch
from torch import nn

from skdmap import TrajectorySampler

COLUMNS = [
    "snapshots_", "steps_", "epochs_", "run_ids_", "losses_", "learning_rates_", "path_lengths_",
    "buffers_",
]  # fmt: skip


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 15)
    return rng.normal(size=(45, 4)) + 2 * np.eye(3, 4)[y], y


def sampler(**params):
    return TrajectorySampler(**{"max_epochs": 3, "batch_size": 16, "random_state": 0, **params})


def same(a, b, names=COLUMNS):
    return all(np.array_equal(getattr(a, n), getattr(b, n), equal_nan=True) for n in names)


def rates_by_hand(make, n_steps, per_pass, interval, lr=0.1):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler, used = make(optimizer), []
    for step in range(n_steps):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if interval == "step" or (step + 1) % per_pass == 0:
            scheduler.step()
    return used


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("StepLR", {"step_size": 2, "gamma": 0.5}),
        ("ExponentialLR", {"gamma": 0.9}),
        ("CosineAnnealingLR", {"T_max": 12}),
        ("LinearLR", {"start_factor": 0.1, "total_iters": 4}),
        ("OneCycleLR", {"max_lr": 0.3, "total_steps": 30}),
    ],
)
def test_rates_follow_the_schedule(blobs, name, params, interval):
    kind = getattr(torch.optim.lr_scheduler, name)
    expected = rates_by_hand(lambda o: kind(o, **params), 12, 3, interval)
    given = {
        "scheduler_params": params, "scheduler_interval": interval, "max_epochs": 4,
        "optimizer_params": {"lr": 0.1},
    }  # fmt: skip
    fitted = sampler(scheduler=name, **given).fit(*blobs)
    # Row 0 by the next step, row i by the step that led to it.
    assert fitted.learning_rates_.tolist() == [expected[0], *expected]
    assert same(fitted, sampler(scheduler=kind, **given).fit(*blobs))
    step_lengths = np.linalg.norm(np.diff(fitted.snapshots_.astype(float), axis=0), axis=1)
    assert (step_lengths > 0).all()
    # Passes one by one carry the schedule on.
    parts = sampler(scheduler=name, **given)
    for _ in range(4):
        parts.partial_fit(*blobs)
    assert same(parts, fitted)


def test_a_plateau_is_told_the_mean_loss_since_the_last_step(blobs):
    told = []

    class Told(torch.optim.lr_scheduler.ReduceLROnPlateau):
        def step(self, metrics, epoch=None):
            told.append(metrics)
            super().step(metrics)

    fitted = sampler(
        scheduler=Told, scheduler_params={"patience": 0, "threshold": 0.9, "factor": 0.5}
    ).fit(*blobs)
    np.testing.assert_allclose(told, fitted.history_["loss"], rtol=1e-12)
    assert fitted.learning_rates_.tolist() == [0.1] * 7 + [0.05] * 3
