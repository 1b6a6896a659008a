import numpy as np
import pytest
from scipy.stats import linregress
from scipy.stats import t as student

import skdmap.diagnostics._gradient_noise as stage
from skdmap.diagnostics import gradient_noise_along, stationary_variance

EPS = np.finfo(np.float64).eps


def orthonormal(k, m, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((m, k)))[0].T


@pytest.fixture
def drawn():
    """Gradients whose covariance along known directions is eigenvalue^1.5."""
    basis, values = orthonormal(30, 30), np.geomspace(100, 0.01, 30)
    noise = np.random.default_rng(1).standard_normal((2000, 30)) * values**0.75
    return noise @ basis + 3.0, basis, values


def test_the_variance_is_that_of_the_projection(drawn):
    gradients, basis, values = drawn
    found = gradient_noise_along(gradients, basis[:5], values[:5])
    np.testing.assert_allclose(
        found.variance, np.var(gradients @ basis[:5].T, axis=0, ddof=1), rtol=1e-10
    )
    total = np.var(gradients, axis=0, ddof=1).sum()
    assert found.total_variance == pytest.approx(total)
    assert found.chance == pytest.approx(total / 30)
    assert found.share == pytest.approx(found.variance.sum() / total)
    assert found.chance_share == 5 / 30


def test_the_slope_of_a_known_power_is_found_with_its_interval(drawn):
    found = gradient_noise_along(*drawn)
    low, high = found.slope_interval
    assert low < 1.5 < high
    assert high - low < 0.05
    line = linregress(np.log(found.eigenvalues), np.log(found.variance))
    assert found.slope == pytest.approx(line.slope)
    assert found.correlation == pytest.approx(line.rvalue)
    half = student.ppf(0.975, 28) * line.stderr
    np.testing.assert_allclose([low, high], [line.slope - half, line.slope + half], rtol=1e-9)


def test_the_interval_of_a_variance_covers_it_as_often_as_it_says():
    hits = []
    for seed in range(300):
        gradients = np.random.default_rng(seed).standard_normal((25, 4))
        low, high = gradient_noise_along(gradients, np.eye(4), np.ones(4)).variance_interval.T
        hits += [(low < 1) & (high > 1)]
    share = np.mean(hits)
    assert abs(share - 0.95) < 5 * np.sqrt(0.95 * 0.05 / 1200)


def test_directions_of_negative_curvature_take_no_part_in_the_slope(drawn):
    gradients, basis, values = drawn
    signed = values.copy()
    signed[10:] *= -1
    found = gradient_noise_along(gradients, basis, signed)
    assert found.n_fitted == 10
    assert found.slope == gradient_noise_along(gradients, basis[:10], values[:10]).slope
    few = gradient_noise_along(gradients, basis[:3], [1.0, 2.0, -1.0])
    assert np.isnan(few.slope)
    assert "too few for a slope" in few.summary()


def test_a_batch_of_four_has_a_quarter_of_the_noise():
    rows = np.random.default_rng(0).standard_normal((40_000, 3))
    single = gradient_noise_along(rows, np.eye(3), np.ones(3)).variance
    batches = gradient_noise_along(
        rows.reshape(10_000, 4, 3).mean(axis=1), np.eye(3), np.ones(3)
    ).variance
    np.testing.assert_allclose(batches / single, 0.25, rtol=5 * np.sqrt(2 / 10_000))


def test_blocks_and_a_common_gradient_do_not_matter(drawn, monkeypatch):
    gradients, basis, values = drawn
    whole = gradient_noise_along(gradients, basis, values)
    monkeypatch.setattr(stage, "_BLOCK_BYTES", 8 * 30 * 7)
    shifted = gradient_noise_along(gradients + 1e3, basis, values)
    np.testing.assert_allclose(shifted.variance, whole.variance, rtol=1e-8)


def test_iterates_of_sgd_on_a_quadratic_have_the_stationary_variance():
    curvature, noise, rate = np.array([4.0, 1.0, 0.5]), np.array([4.0, 2.0, 0.5]), 0.3
    rng = np.random.default_rng(0)
    # Ten thousand chains; 200 steps forget the start to (1 - .15)^400.
    x = np.zeros((10_000, 3))
    for _ in range(200):
        x -= rate * (curvature * x + np.sqrt(noise / 8) * rng.standard_normal(x.shape))
    expected = stationary_variance(noise, curvature, learning_rate=rate, batch_size=8)
    np.testing.assert_allclose(x.var(axis=0), expected, rtol=5 * np.sqrt(2 / 10_000))
    small = stationary_variance(noise, curvature, learning_rate=1e-6, batch_size=8)
    np.testing.assert_allclose(small, 1e-6 * noise / (16 * curvature), rtol=1e-5)


def test_without_equilibrium_there_is_no_stationary_variance():
    found = stationary_variance([1.0, 1.0, 1.0], [-1.0, 1.0, 30.0], learning_rate=0.1)
    assert np.isnan(found).tolist() == [True, False, True]
    with pytest.raises(ValueError, match=r"learning_rate=0 must be .* \(0, inf\)"):
        stationary_variance([1.0], [1.0], learning_rate=0)


@pytest.mark.parametrize(
    ("gradients", "components", "values", "message"),
    [
        (np.ones((1, 3)), np.eye(3), np.ones(3), "gradients has shape .* at least two gradients"),
        (np.ones((4, 2)), np.eye(3), np.ones(3), "components has 3 columns and gradients has 2"),
        (np.eye(3), 2 * np.eye(3), np.ones(3), "components must have orthonormal rows"),
        (np.eye(3), np.eye(3), np.ones(2), r"eigenvalues has shape \(2,\)"),
        (np.eye(3) * np.nan, np.eye(3), np.ones(3), "gradients contains NaN"),
    ],
)
def test_bad_input_is_named(gradients, components, values, message):
    with pytest.raises(ValueError, match=message):
        gradient_noise_along(gradients, components, values)
