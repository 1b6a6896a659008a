"""Clones, warm starts and pickles of a sampler."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from torch import nn

from skdmap import TrajectorySampler

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


def test_clone_keeps_functions_and_copies_objects():
    class Counter:
        def __call__(self, step, loss, module):
            return False

    def look(step, loss, module):
        return False

    counter = Counter()
    copied = clone(TrajectorySampler(callbacks=[look, counter]))
    assert copied.callbacks[0] is look
    assert copied.callbacks[1] is not counter
    assert isinstance(copied.callbacks[1], Counter)


@pytest.mark.parametrize("params", [{}, {"sketch_dim": 16}, {"dtype": "float16"}])
def test_a_warm_start_goes_on_and_appends(blobs, params):
    whole = sampler(module=Noisy, optimizer="Adam", **params).fit(*blobs)
    warm = sampler(module=Noisy, optimizer="Adam", max_epochs=1, warm_start=True, **params)
    for n_passes in (1, 2, 3):
        warm = pickle.loads(pickle.dumps(warm.fit(*blobs)))
        assert warm.steps_.tolist() == list(range(3 * n_passes + 1))
    assert np.array_equal(np.asarray(warm.snapshots_), np.asarray(whole.snapshots_))
    assert same(warm, whole, COLUMNS[1:])
    assert np.array_equal(warm.history_["loss"], whole.history_["loss"])
    cold = warm.set_params(warm_start=False).fit(*blobs)
    assert cold.steps_.tolist() == [0, 1, 2, 3]


def test_a_pickle_holds_each_row_once(blobs):
    fitted = sampler(module_params={"hidden": 5000}).fit(*blobs)
    n_modules = 3  # the module, and momentum and the like at most
    row = fitted.snapshots_.nbytes / len(fitted.snapshots_)
    assert len(pickle.dumps(fitted)) < fitted.snapshots_.nbytes + n_modules * row
