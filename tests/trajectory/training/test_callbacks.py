"""Callbacks see each row, leave no trace and can end a run."""

import numpy as np
import pytest
import torch
from torch import nn

from skdmap import TrajectorySampler
from skdmap._parameters import flatten_parameters, parameter_layout

COLUMNS = [
    "snapshots_", "steps_", "epochs_", "run_ids_", "losses_", "learning_rates_", "path_lengths_",
    "buffers_",
]  # fmt: skip


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


def same(a, b, names=COLUMNS):
    return all(np.array_equal(getattr(a, n), getattr(b, n), equal_nan=True) for n in names)


def test_callbacks_see_each_row_and_leave_no_trace(blobs):
    seen = []

    def look(step, loss, module):
        layout = parameter_layout(module)
        seen.append((step, loss, flatten_parameters(module, layout).numpy()))
        module.train()(torch.randn(8, 4))
        torch.rand(1)

    fitted = sampler(module=Noisy, record_every=2, callbacks=[look], n_runs=2).fit(*blobs)
    assert same(fitted, sampler(module=Noisy, record_every=2, n_runs=2).fit(*blobs))
    assert [step for step, _, _ in seen] == fitted.steps_.tolist()
    assert [loss for _, loss, _ in seen] == fitted.losses_.tolist()
    for (_, _, theta), row in zip(seen, fitted.snapshots_, strict=True):
        assert np.array_equal(theta, row)


def test_true_ends_the_run_at_that_row(blobs):
    whole = sampler(module=Noisy, n_runs=2).fit(*blobs)
    cut = sampler(module=Noisy, n_runs=2, callbacks=lambda step, *_: step == 4).fit(*blobs)
    assert cut.steps_.tolist() == 2 * [0, 1, 2, 3, 4]
    kept = whole.steps_ <= 4
    for name in COLUMNS:
        a, b = getattr(cut, name), getattr(whole, name)[kept]
        assert np.array_equal(a, b, equal_nan=True)
    assert not cut.interrupted_
    # What the look at the next batch drew was put back.
    short = sampler(module=Noisy, n_runs=2, max_steps=4).fit(*blobs)
    for a, b in zip(cut._runs, short._runs, strict=True):
        assert torch.equal(a.dropout[0], b.dropout[0])
    # The module stands at the last row, buffers included.
    for a, b in zip(cut.module_.state_dict().values(), cut.module_at(-1).state_dict().values(),
                    strict=True):  # fmt: skip
        assert torch.equal(a, b)
