"""Sketches of a whole recording."""

import numpy as np
import pytest

from skdmap import TrajectorySampler


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 15)
    return rng.normal(size=(45, 4)) + 2 * np.eye(3, 4)[y], y


def sampler(**params):
    return TrajectorySampler(**{"max_epochs": 3, "batch_size": 16, "random_state": 0, **params})


def test_a_sketch_keeps_the_exact_lengths(blobs):
    plain = sampler(n_runs=2).fit(*blobs)
    sketch = sampler(n_runs=2, sketch_dim=64).fit(*blobs)
    assert sketch.snapshots_.shape == (20, 64)
    for run in (0, 1):
        rows = plain.snapshots_[plain.run_ids_ == run].astype(float)
        own = sketch.run_ids_ == run
        steps = np.linalg.norm(np.diff(rows, axis=0), axis=1)
        np.testing.assert_allclose(sketch.step_lengths_[own][1:], steps, rtol=1e-6)
        from_start = np.linalg.norm(rows - rows[0], axis=1)
        np.testing.assert_allclose(sketch.start_distances_[own], from_start, rtol=1e-6)
        sketched = np.diff(sketch.snapshots_[own].astype(float), axis=0)
        errors = (sketched**2).sum(axis=1) / steps**2 - 1
        np.testing.assert_allclose(sketch.sketch_error_[own][1:], errors, atol=1e-4)
        assert np.array_equal(sketch.endpoints_[run][0], rows[0].astype(np.float32))
    with pytest.raises(ValueError, match="sketch_dim is set"):
        sketch.module_at(0)
