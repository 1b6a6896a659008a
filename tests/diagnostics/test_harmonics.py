import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from skdmap.diagnostics import harmonic_residuals


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
