"""Label noise replaces labels as documented."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from skdmap import TrajectorySampler
from skdmap.trajectory._training.targets import Targets, noisy_targets

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


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_a_share_of_the_labels_is_replaced_by_others_drawn_uniformly(share):
    codes = np.arange(30_000) % 4
    noisy = noisy_targets(Targets(codes, np.arange(4), 4), share, seed=3)
    changed = noisy != codes
    assert changed.sum() == round(share * len(codes))
    counts = np.bincount(4 * codes[changed] + noisy[changed], minlength=16).reshape(4, 4)
    assert (np.diag(counts) == 0).all()
    n = counts.sum() / 12
    # 5 standard deviations of a binomial count.
    assert (np.abs(counts[~np.eye(4, dtype=bool)] - n) < 5 * np.sqrt(n)).all()
    assert np.array_equal(noisy, noisy_targets(Targets(codes, np.arange(4), 4), share, seed=3))


def test_noise_of_values_is_in_units_of_their_spread():
    values = np.random.default_rng(0).normal(5, [1.0, 100.0], size=(20_000, 2))
    added = noisy_targets(Targets(values, None, 2), 0.5, seed=1) - values
    np.testing.assert_allclose(added.std(axis=0) / values.std(axis=0), 0.5, rtol=0.03)
    np.testing.assert_allclose(added.mean(axis=0) / values.std(axis=0), 0, atol=0.02)


def test_ignored_rows_keep_their_label():
    codes = np.where(np.arange(100) % 2, -100, 1)
    noisy = noisy_targets(Targets(codes, np.arange(3), 3), 1.0, seed=0)
    assert (noisy[codes == -100] == -100).all()
    assert (noisy[codes == 1] != 1).all()


def test_training_sees_the_noisy_labels_and_score_the_clean_ones(blobs):
    X, y = blobs
    fitted = sampler(label_noise=0.3, batch_size=None).fit(X, y)
    clean = sampler(batch_size=None).fit(X, y)
    assert np.array_equal(fitted.snapshots_[0], clean.snapshots_[0])
    assert fitted.losses_[0] != clean.losses_[0]
    seed = np.random.SeedSequence(0, spawn_key=(3, 0)).generate_state(1, np.uint64)[0]
    noisy = noisy_targets(Targets(y, np.arange(3), 3), 0.3, int(seed))
    with torch.no_grad():
        outputs = fitted.module_at(0)(torch.tensor(X, dtype=torch.float32))
        assert fitted.losses_[0] == pytest.approx(
            F.cross_entropy(outputs, torch.tensor(noisy)).item(), rel=1e-6
        )
        outputs = fitted.module_(torch.tensor(X, dtype=torch.float32))
        expected = -F.cross_entropy(outputs, torch.tensor(y)).item()
    assert fitted.score(X, y) == pytest.approx(expected, rel=1e-6)


def test_the_stream_of_label_noise_can_be_held(blobs):
    others = {"init": 1, "batches": 1, "dropout": 1}
    settings = {"label_noise": 0.4, "n_runs": 2}
    free = sampler(random_state={"seed": 0, **others}, **settings).fit(*blobs)
    held = sampler(random_state={"seed": 0, "label_noise": 2, **others}, **settings).fit(*blobs)
    assert not np.array_equal(free.snapshots_[:10], free.snapshots_[10:])
    assert np.array_equal(held.snapshots_[:10], held.snapshots_[10:])
    # Passes one by one see the same noise.
    parts = sampler(label_noise=0.4)
    for _ in range(3):
        parts.partial_fit(*blobs)
    assert same(parts, sampler(label_noise=0.4).fit(*blobs))
