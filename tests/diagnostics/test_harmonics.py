import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from skdmap.diagnostics import harmonic_residuals
from skdmap.diagnostics._dense_diffusion_map import diffusion_pairs, squared_distances


def test_harmonics_of_a_curve_are_no_dimensions():
    s = np.random.default_rng(0).random(400)
    found = harmonic_residuals(np.cos(np.pi * np.outer(s, [1, 2, 3, 4])))
    assert found.independent.tolist() == [0]
    assert found.residuals[0] == 1.0
    assert found.residuals[1:].max() < 0.2


def test_new_directions_of_a_strip_are_found_among_harmonics():
    # Sides 1 and .4: the width is the third mode, 1 / .4 lying between 2 and 3.
    s, w = np.random.default_rng(0).random((2, 900))
    waves = [np.cos(np.pi * s), np.cos(2 * np.pi * s), np.cos(np.pi * w)]
    waves += [np.cos(np.pi * s) * np.cos(np.pi * w), np.cos(3 * np.pi * s)]
    found = harmonic_residuals(np.column_stack(waves))
    assert found.independent.tolist() == [0, 2]
    assert "Of 5 coordinates, 2 are not functions of those before them" in found.summary()


def test_a_linear_function_is_fitted_exactly():
    x = np.random.default_rng(0).random(100)
    assert harmonic_residuals(np.column_stack([x, 3 * x])).residuals[1] < 1e-3


def relative_error_of_linear_fits(before, target):
    """Fits by least squares, one sample after the other, each from all others."""
    distances = squareform(pdist(before))
    errors = []
    for i in range(len(target)):
        weight = np.exp(-((distances[i] * 3 / np.median(distances)) ** 2))
        weight[i] = 0
        root = np.sqrt(weight)
        design = np.column_stack([np.ones(len(target)), before - before[i]])
        fit = np.linalg.lstsq(design * root[:, None], target * root, rcond=None)[0][0]
        mean = np.average(target, weights=weight)
        reach = 30 * np.sqrt(np.average((target - mean) ** 2, weights=weight))
        errors.append(target[i] - np.clip(fit, mean - reach, mean + reach))
    return np.sqrt(np.sum(np.square(errors)) / np.sum(target**2))


@pytest.mark.parametrize("n_samples", [40, 200])
def test_each_fit_is_the_weighted_one_without_the_sample_itself(n_samples):
    rng = np.random.default_rng(0)
    before = rng.standard_normal((n_samples, 2))
    target = before[:, 0] ** 2 + before[:, 1] + 0.1 * rng.standard_normal(n_samples)
    found = harmonic_residuals(np.column_stack([before, target])).residuals[2]
    # The ridge of 1e-6 shows where a sample has few neighbours.
    assert found == pytest.approx(relative_error_of_linear_fits(before, target), rel=1e-3)


def test_no_fit_is_worse_than_the_mean():
    values = np.random.default_rng(0).standard_normal((40, 3))
    values[:, 2] += 2
    target = values[:, 2]
    mean_only = np.sqrt(np.sum((target - target.mean()) ** 2) / np.sum(target**2))
    assert relative_error_of_linear_fits(values[:, :2], target) > 1.2 * mean_only
    assert harmonic_residuals(values).residuals[2] == pytest.approx(mean_only)


def test_a_sample_far_from_close_neighbours_does_not_decide():
    # Slopes between close neighbours are those of the noise; at the last sample they are wrong by
    # a factor of a million.
    x = np.append(1e-6 * np.arange(50), [1.0])
    noise = 1e-3 * np.random.default_rng(0).standard_normal(51)
    waves = np.cos(np.pi * np.linspace(0, 1, 300))
    before = np.concatenate([waves, 3 + x])
    target = np.concatenate([2 * waves**2 - 1, noise])
    assert harmonic_residuals(np.column_stack([before, target])).residuals[1] < 0.2


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_units_do_not_matter(scale):
    s = np.random.default_rng(0).random(100)
    waves = np.cos(np.pi * np.outer(s, [1, 2]))
    expected = harmonic_residuals(waves).residuals
    np.testing.assert_allclose(harmonic_residuals(scale * waves).residuals, expected, rtol=1e-9)


@pytest.mark.parametrize(
    "before",
    [
        np.full(60, 0.3),
        np.r_[np.full(59, 0.3), 1.0],
        np.r_[1e-200 * np.arange(50), 1.0, 2.0, np.full(8, 3.0)],
        np.r_[1e-9 * np.arange(59), 1e9],
    ],
    ids=["all equal", "all but one equal", "scales apart", "far outlier"],
)
def test_degenerate_coordinates_have_finite_residuals(before):
    target = np.random.default_rng(0).standard_normal(60)
    for column in (target, before, np.eye(60)[-1], np.eye(60)[3]):
        residual = harmonic_residuals(np.column_stack([before, column])).residuals[1]
        assert 0 <= residual <= 1


@pytest.mark.study
def test_residuals_of_random_trajectories_are_finite_shares():
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        rows = rng.standard_normal((rng.integers(20, 80), rng.integers(2, 40)))
        rows *= rng.pareto(1.5, (len(rows), 1)) ** rng.choice([0.0, 1.0, 3.0])
        if seed % 2:
            rows = np.cumsum(rows, axis=0)
        functions = diffusion_pairs(squared_distances(rows), 5)[1]
        residuals = harmonic_residuals(functions).residuals
        assert np.all((residuals >= 0) & (residuals <= 1)), seed


def test_noise_is_a_new_direction():
    x = np.random.default_rng(0).standard_normal((300, 3))
    assert harmonic_residuals(x).residuals.min() > 0.9


@pytest.mark.parametrize(
    ("coordinates", "threshold", "message"),
    [
        (np.ones(9), 0.5, r"coordinates has shape \(9,\)"),
        (np.eye(9)[:, :2] * np.nan, 0.5, "finite matrix"),
        (np.column_stack([np.arange(9.0), np.zeros(9)]), 0.5, "column 1 of coordinates is 0"),
        (np.eye(9), 1.0, r"threshold=1.0 must be a finite number in \(0, 1\)"),
    ],
)
def test_bad_coordinates_are_named(coordinates, threshold, message):
    with pytest.raises(ValueError, match=message):
        harmonic_residuals(coordinates, threshold=threshold)
