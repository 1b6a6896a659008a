import numpy as np
import pytest
from scipy.optimize import isotonic_regression

from skdmap.diagnostics import random_walk
from skdmap.diagnostics._dense_diffusion_map import (
    squared_distances,
)
from skdmap.diagnostics._statistics import STATISTICS, elapsed_variation, unexplained_by_time

EPS = np.finfo(np.float64).eps


def of(rows, name):
    norms = np.linalg.norm(np.diff(rows, axis=0), axis=1)
    return STATISTICS[name].compute(squared_distances(rows), elapsed_variation(norms))


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


def test_non_harmonic_coordinates_are_at_most_five_on_random_paths():
    # Walks, pulls to a centre, jumps of any size, stops: 1,000 paths.
    rng = np.random.default_rng(0)
    for _ in range(1000):
        n, width = rng.integers(6, 40), rng.integers(1, 60)
        steps = rng.standard_normal((n, width)) * np.exp(3 * rng.standard_normal((n, 1)))
        steps[rng.random(n) < 0.2 * rng.random()] = 0.0
        path = np.cumsum(steps, axis=0) if rng.random() < 0.5 else steps
        path[-1] += 1.0
        assert 1.0 <= of(path, "non_harmonic") <= 5.0
