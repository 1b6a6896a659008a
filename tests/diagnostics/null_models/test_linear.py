"""Linear null models: what is fitted, and what surrogates keep."""

import numpy as np
import pytest

from skdmap.diagnostics import surrogate_trajectories
from skdmap.diagnostics._null_models.linear import anisotropic_ou, anisotropic_walk, linear

LINEAR = {"anisotropic_walk": anisotropic_walk, "anisotropic_ou": anisotropic_ou, "linear": linear}


def relaxing(pulls, momentum, n_steps, scale, seed=0):
    """Return positions (n_steps + 1, k) with s_t = momentum s_(t-1) - pull y_t + noise."""
    generator = np.random.default_rng(seed)
    pulls, scale = np.asarray(pulls), np.asarray(scale)
    rows, step = np.zeros((n_steps + 1, len(pulls))), np.zeros(len(pulls))
    for t in range(n_steps):
        step = momentum * step - pulls * rows[t] + scale * generator.standard_normal(len(pulls))
        rows[t + 1] = rows[t] + step
    return rows


def test_the_pull_of_each_principal_component_is_found():
    # Of very different size, so that the axes are the principal components.
    rows = relaxing([0.02, 0.1, 0.5], 0.0, 20_000, [10.0, 1.0, 0.1])
    steps = np.diff(rows, axis=0)
    process = linear(steps)
    np.testing.assert_allclose(np.abs(process.axes), np.eye(3), atol=0.05)
    np.testing.assert_allclose(process.pulls, [0.02, 0.1, 0.5], rtol=0.2)
    assert process.momentum < 0.02
    assert anisotropic_ou(np.diff(relaxing([0.1] * 8, 0, 5000, np.ones(8)), axis=0)).pulls == (
        pytest.approx(np.full(8, 0.1), rel=0.1)
    )
    assert not anisotropic_walk(steps).pulls.any()
    assert not anisotropic_walk(steps).offset.any()


def test_momentum_of_a_walk_is_found_and_negative_correlation_is_none():
    steps = np.diff(relaxing(np.zeros(20), 0.8, 3000, np.ones(20)), axis=0)
    assert linear(steps).momentum == pytest.approx(0.8, abs=0.02)
    white = np.random.default_rng(0).standard_normal((300, 20))
    assert anisotropic_walk(np.diff(white, axis=0)).momentum == 0.0


@pytest.mark.parametrize("kind", LINEAR)
def test_surrogates_keep_the_covariance_of_steps(kind):
    variances = np.array([16.0, 4.0, 1.0, 1.0])
    rows = np.cumsum(np.random.default_rng(1).standard_normal((300, 4)) * variances**0.5, axis=0)
    steps = np.diff(rows, axis=0)
    unit = steps / np.linalg.norm(steps, axis=1, keepdims=True)
    expected = np.linalg.eigvalsh(unit.T @ unit / len(unit))
    found = []
    for surrogate in surrogate_trajectories(rows, kind=kind, n_surrogates=40, random_state=0):
        drawn = np.diff(surrogate, axis=0)
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        found.append(np.linalg.eigvalsh(drawn.T @ drawn / len(drawn)))
    np.testing.assert_allclose(np.mean(found, axis=0), expected, atol=0.04)


@pytest.mark.parametrize("kind", ["anisotropic_ou", "linear"])
def test_a_pull_keeps_surrogates_in_place(kind):
    rows = relaxing(np.full(10, 0.2), 0.0, 400, np.ones(10))
    free, held = (
        np.mean(
            [
                np.sum((x - x.mean(axis=0)) ** 2)
                for x in surrogate_trajectories(rows, kind=name, n_surrogates=10, random_state=0)
            ]
        )
        for name in ("anisotropic_walk", kind)
    )
    recorded = np.sum((rows - rows.mean(axis=0)) ** 2)
    assert held == pytest.approx(recorded, rel=0.25)
    assert free > 5 * recorded


@pytest.mark.parametrize("kind", ["anisotropic_ou", "linear"])
def test_a_line_is_its_own_surrogate(kind):
    # Nothing is left that could be random.
    line = np.outer(np.arange(50.0), [3.0, 4.0])
    (surrogate,) = surrogate_trajectories(line, kind=kind, n_surrogates=1, random_state=0)
    np.testing.assert_allclose(np.linalg.norm(surrogate, axis=1), 5 * np.arange(50), rtol=1e-9)


@pytest.mark.parametrize("kind", LINEAR)
def test_surrogates_start_with_the_recorded_step(kind):
    rows = relaxing(np.full(10, 0.2), 0.0, 40, np.ones(10))
    made = list(surrogate_trajectories(rows, kind=kind, n_surrogates=2, random_state=0))
    np.testing.assert_allclose(made[0][1], made[1][1], rtol=1e-9)
    assert not np.allclose(made[0][2], made[1][2])
