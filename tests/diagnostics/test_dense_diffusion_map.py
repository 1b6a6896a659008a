import numpy as np
from scipy.spatial.distance import pdist, squareform

from skdmap import DiffusionMap
from skdmap.diagnostics import random_walk
from skdmap.diagnostics._dense_diffusion_map import (
    diffusion_pairs,
    distances_from_steps,
    slope_dimension,
    squared_distances,
)

EPS = np.finfo(np.float64).eps


def test_it_agrees_with_the_estimator():
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


def test_distances_from_the_products_of_steps_are_those_of_the_rows():
    rows = random_walk(30, 5, random_state=0)
    steps = np.diff(rows, axis=0)
    expected = squareform(pdist(rows)) ** 2
    gram = steps @ steps.T
    np.testing.assert_allclose(distances_from_steps(gram), expected, rtol=1e-9)
    kept = np.array([0, 4, 29])
    np.testing.assert_allclose(
        distances_from_steps(gram, kept), expected[np.ix_(kept, kept)], rtol=1e-9
    )
