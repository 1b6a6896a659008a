"""vectorize=True: runs in a batch are the runs one by one."""

import numpy as np
import pytest
from torch import nn

from skdmap import Displacement, TrajectorySampler


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
    ("optimizer", "params"), [("SGD", {"lr": 0.1, "momentum": 0.9}), ("Adam", {"lr": 0.01})]
)
def test_runs_together_are_the_runs_one_by_one(blobs, optimizer, params):
    settings = {
        "optimizer": optimizer, "optimizer_params": params, "n_runs": 4, "max_epochs": 10,
        "scheduler": "ExponentialLR", "scheduler_params": {"gamma": 0.9},
    }  # fmt: skip
    apart = sampler(**settings).fit(*blobs)
    together = sampler(vectorize=True, **settings).fit(*blobs)
    assert together.run_ids_[:6].tolist() == [0, 1, 2, 3, 0, 1]
    order = np.lexsort([together.steps_, together.run_ids_])
    scale = np.abs(apart.snapshots_).max()
    np.testing.assert_allclose(
        together.snapshots_[order], apart.snapshots_, rtol=0, atol=1e-5 * scale
    )
    np.testing.assert_allclose(together.losses_[order], apart.losses_, rtol=1e-4)
    np.testing.assert_allclose(together.learning_rates_[order], apart.learning_rates_, rtol=1e-12)
    np.testing.assert_allclose(together.path_lengths_[order], apart.path_lengths_, rtol=1e-3)
    assert np.array_equal(together.epochs_[order], apart.epochs_)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"optimizer": "LBFGS"}, "optimizer=LBFGS"),
        ({"module": Noisy}, "draws random numbers"),
        ({"record_every": Displacement(0.1)}, "each run moves on its own"),
        ({"record": "outputs"}, "record='parameters'"),
        ({"callbacks": print}, "callbacks"),
        ({"label_noise": 0.1, "n_runs": 2}, "label_noise=0.1.*Hold the noise"),
        ({"scheduler": "ReduceLROnPlateau"}, "ReduceLROnPlateau"),
    ],
)
def test_what_cannot_be_done_together_is_named(blobs, params, message):
    with pytest.raises(ValueError, match=rf"vectorize=True.*{message}.*vectorize=False"):
        sampler(vectorize=True, **params).fit(*blobs)
