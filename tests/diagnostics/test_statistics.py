import numpy as np
import pytest
from scipy.optimize import isotonic_regression
from scipy.spatial.distance import pdist, squareform

from skdmap import DiffusionMap
from skdmap.diagnostics import harmonic_residuals, random_walk
from skdmap.diagnostics._dense_diffusion_map import (
    diffusion_pairs,
    slope_dimension,
    squared_distances,
)
from skdmap.diagnostics._statistics import STATISTICS, elapsed_variation, unexplained_by_time

EPS = np.finfo(np.float64).eps


def of(rows, name):
    norms = np.linalg.norm(np.diff(rows, axis=0), axis=1)
    return STATISTICS[name].compute(squared_distances(rows), elapsed_variation(norms))


def test_the_dense_diffusion_map_is_the_estimator():
    rows = random_walk(60, 30, random_state=0)
    distances = squared_distances(rows)
    bandwidth = float(np.sqrt(np.median(pdist(rows) ** 2) / 2))
    full = DiffusionMap(5, bandwidth=bandwidth, alpha=1.0, diffusion_time=0).fit(rows)
    values, functions = diffusion_pairs(distances, 5)
    np.testing.assert_allclose(values, full.eigenvalues_, atol=1e4 * EPS)
    inner = np.abs(np.sum(functions * full.embedding_ * full.stationary_distribution_[:, None], 0))
    np.testing.assert_allclose(inner, 1.0, atol=1e-9)
    alone, nothing = diffusion_pairs(distances, 5, vectors=False)
    np.testing.assert_allclose(alone, values, atol=1e3 * EPS)
    assert nothing.shape == (60, 0)


def test_distances_far_from_the_origin():
    rows = random_walk(40, 20, random_state=0)
    np.testing.assert_allclose(
        squared_distances(rows + 1e4), squareform(pdist(rows)) ** 2, rtol=1e-6, atol=1e-6
    )


def test_a_straight_line_is_explained_by_time_and_a_circle_is_not():
    line = np.outer(np.linspace(0, 1, 50) ** 2, np.ones(4))
    # On a line d^2 is a function of the path length; with uneven steps the quadratic variation
    # orders pairs a little differently.
    even = np.outer(np.arange(50.0), np.ones(4))
    assert of(even, "isotonic") < 1e-12
    assert of(line, "isotonic") < 0.1
    angle = np.linspace(0, 6 * np.pi, 100)
    assert of(np.column_stack([np.cos(angle), np.sin(angle)]), "isotonic") > 0.5


def test_pairs_equally_far_apart_in_time_get_their_mean():
    # Even steps: pairs of one lag are ties, so the fit is that of the means by lag.
    # On a circle the means go up and down, so that the fit pools lags of different weights.
    angle = np.linspace(0, 5, 30)
    rows = np.column_stack([np.cos(angle), np.sin(angle)])
    distances = squared_distances(rows)
    upper = np.triu_indices(30, 1)
    logs, lag = np.log(distances[upper]), upper[1] - upper[0]
    means = np.array([logs[lag == k].mean() for k in range(1, 30)])
    fit = isotonic_regression(means, weights=30.0 - np.arange(1, 30)).x[lag - 1]
    expected = np.sum((logs - fit) ** 2) / np.sum((logs - logs.mean()) ** 2)
    found = unexplained_by_time(distances, np.arange(30.0))
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", STATISTICS)
def test_scale_shift_and_rotation_do_not_matter(name):
    rows = random_walk(60, 8, random_state=0)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((8, 8)))[0]
    assert of(1e-3 * rows @ turn + 5.0, name) == pytest.approx(of(rows, name), rel=1e-5)


@pytest.mark.parametrize("name", STATISTICS)
def test_rows_that_coincide_are_no_accident(name):
    rows = random_walk(40, 8, random_state=0)
    rows[10:18] = rows[10]
    assert np.isfinite(of(rows, name))


def test_slope_of_a_walk_is_two_of_a_line_one_and_of_a_square_two():
    assert abs(slope_dimension(squared_distances(random_walk(400, 4000, random_state=0))) - 2) < 0.1
    assert abs(slope_dimension(squared_distances(np.arange(400.0)[:, None])) - 1) < 0.05
    square = np.random.default_rng(0).random((500, 2))
    assert abs(slope_dimension(squared_distances(square)) - 2) < 0.35


def test_slope_is_the_derivative_of_the_kernel_sum():
    rows = np.random.default_rng(0).standard_normal((40, 3))
    squared = squared_distances(rows)
    h = np.geomspace(1e-2, 30, 4001)
    sums = np.array([np.exp(-squared / (2 * x**2)).sum() for x in h])
    numeric = np.max(np.gradient(np.log(sums), np.log(h)))
    # The grid of the estimate is coarse, and its maximum a little lower.
    assert 0.98 * numeric < slope_dimension(squared) <= numeric * (1 + 1e-4)


def test_excluded_pairs_are_not_in_the_sum():
    rows = np.random.default_rng(0).standard_normal((40, 3))
    squared = squared_distances(rows)
    excluded = np.abs(np.subtract.outer(np.arange(40), np.arange(40))) <= 3
    spoilt = np.where(excluded, 1e9, squared)
    np.fill_diagonal(spoilt, 0.0)
    assert slope_dimension(spoilt, excluded) == slope_dimension(squared, excluded)
    assert slope_dimension(squared, excluded) != slope_dimension(squared)


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
    assert "Of 5 coordinates 2 are no functions" in found.summary()


def test_a_linear_function_is_fitted_exactly():
    x = np.random.default_rng(0).random(100)
    assert harmonic_residuals(np.column_stack([x, 3 * x])).residuals[1] < 1e-3


def test_each_fit_is_the_weighted_one_without_the_row_itself():
    values = np.random.default_rng(0).standard_normal((40, 3))
    before, target = values[:, :2], values[:, 2]
    distances = squareform(pdist(before))
    errors = []
    for i in range(40):
        weight = np.sqrt(np.exp(-((distances[i] * 3 / np.median(distances)) ** 2)))
        weight[i] = 0
        design = np.column_stack([np.ones(40), before - before[i]])
        fit = np.linalg.lstsq(design * weight[:, None], target * weight, rcond=None)[0]
        errors.append(target[i] - fit[0])
    expected = np.sqrt(np.sum(np.square(errors)) / np.sum(target**2))
    # The ridge of 1e-6 shows where a row has few neighbours.
    assert harmonic_residuals(values).residuals[2] == pytest.approx(expected, rel=1e-3)


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
