import numpy as np
import pytest
from scipy.integrate import quad

from skdmap.datasets import (
    make_punctured_sphere,
    make_s_curve,
    make_severed_sphere,
    make_swiss_roll,
)

MAKERS = (make_swiss_roll, make_s_curve, make_severed_sphere, make_punctured_sphere)


def assert_uniform(x, low, high):
    """Moments of a uniform variable, within five standard errors."""
    u = (x - low) / (high - low)
    assert u.min() >= 0
    assert u.max() <= 1
    assert abs(u.mean() - 1 / 2) < 5 / np.sqrt(12 * len(u))
    assert abs((u**2).mean() - 1 / 3) < 5 * np.sqrt(4 / 45 / len(u))


def assert_uncorrelated(x, y):
    assert abs(np.corrcoef(x, y)[0, 1]) < 5 / np.sqrt(len(x))


def test_swiss_roll_arc_length_is_the_integral_of_the_speed():
    roll = make_swiss_roll(20, random_state=0)

    def length(t):
        return quad(lambda s: np.hypot(1, s), 1.5 * np.pi, t, epsabs=1e-13, epsrel=1e-13)[0]

    assert roll.length == pytest.approx(length(4.5 * np.pi), rel=1e-13)
    expected = [length(t) / roll.length for t in roll.angle]
    np.testing.assert_allclose(roll.arc_length, expected, atol=1e-13)


def test_swiss_roll_coordinates_are_those_of_the_points():
    roll = make_swiss_roll(5000, height=10.0, random_state=0)
    np.testing.assert_allclose(np.hypot(roll.X[:, 0], roll.X[:, 2]), roll.angle, rtol=1e-13)
    np.testing.assert_allclose(roll.X[:, 0], roll.angle * np.cos(roll.angle), atol=1e-13)
    np.testing.assert_array_equal(roll.X[:, 1], roll.height)
    assert_uniform(roll.arc_length, 0, 1)
    assert_uniform(roll.height, 0, 10)
    assert_uncorrelated(roll.arc_length, roll.height)


def test_swiss_roll_distances_between_neighbours_are_arc_lengths():
    roll = make_swiss_roll(20_000, random_state=1)
    order = np.argsort(roll.arc_length)
    chord = np.linalg.norm(np.diff(roll.X[order][:, [0, 2]], axis=0), axis=1)
    # A chord of length s falls short of its arc by a share s^2 / (24 r^2), r > 4.7.
    step = np.diff(roll.arc_length[order]) * roll.length
    near = step > 1e-6
    np.testing.assert_allclose(chord[near], step[near], rtol=1e-4)


def test_rectangle_spectra_satisfy_the_neumann_problem():
    # Second differences of cos(pi j i / n) at cell centres: exact eigenvectors of the discrete
    # Neumann Laplacian, whose eigenvalues (2 n sin(pi j / 2 n) / L)^2 tend to the continuous ones.
    n = 4000
    for surface in (
        make_swiss_roll(1, height=30.0, random_state=0),
        make_s_curve(1, random_state=0),
    ):
        one = [
            (2 * n * np.sin(np.pi * np.arange(40) / (2 * n)) / side) ** 2
            for side in (surface.length, surface.width)
        ]
        sums = np.sort(np.add.outer(*one), axis=None)[1:11]
        np.testing.assert_allclose(surface.laplacian_eigenvalues, sums, rtol=1e-4)


def test_s_curve_is_traversed_at_unit_speed():
    curve = make_s_curve(20_000, height=3.0, random_state=0)
    assert_uniform(curve.arc_length, 0, 1)
    assert_uniform(curve.height, 0, 3)
    np.testing.assert_array_equal(curve.X[:, 1], curve.height)
    order = np.argsort(curve.arc_length)
    chord = np.linalg.norm(np.diff(curve.X[order][:, [0, 2]], axis=0), axis=1)
    step = np.diff(curve.arc_length[order]) * curve.length
    near = step > 1e-6
    np.testing.assert_allclose(chord[near], step[near], rtol=1e-4)
    assert curve.length == pytest.approx(3 * np.pi)


def test_severed_sphere_is_uniform_on_what_is_left():
    sphere = make_severed_sphere(10_000, cap_angle=0.5, gap_angle=1.0, random_state=0)
    np.testing.assert_allclose(np.linalg.norm(sphere.X, axis=1), 1, rtol=1e-14)
    np.testing.assert_allclose(np.cos(sphere.colatitude), sphere.X[:, 2], atol=1e-14)
    turn = np.arctan2(sphere.X[:, 1], sphere.X[:, 0]) % (2 * np.pi)
    np.testing.assert_allclose(turn, sphere.longitude, atol=1e-13)
    assert_uniform(sphere.X[:, 2], -np.cos(0.5), np.cos(0.5))
    assert_uniform(sphere.longitude, 0, 2 * np.pi - 1)
    assert_uncorrelated(sphere.X[:, 2], sphere.longitude)


def test_punctured_sphere_is_uniform_and_its_plane_maps_back():
    sphere = make_punctured_sphere(10_000, cap_angle=0.7, random_state=0)
    assert_uniform(sphere.X[:, 2], -1, np.cos(0.7))
    assert_uniform(sphere.longitude, 0, 2 * np.pi)
    squared = (sphere.plane**2).sum(axis=1)[:, None]
    back = np.hstack([2 * sphere.plane, squared - 1]) / (squared + 1)
    np.testing.assert_allclose(back, sphere.X, atol=1e-14)
    assert np.sqrt(squared.max()) <= 1 / np.tan(0.35)
    np.testing.assert_allclose(np.cos(sphere.colatitude), sphere.X[:, 2], atol=1e-14)


@pytest.mark.parametrize("make", MAKERS)
def test_noise_moves_the_points_but_no_coordinate(make):
    clean = make(5000, random_state=7)
    noisy = make(5000, noise=0.2, random_state=7)
    for name in clean.keys() - {"X"}:
        np.testing.assert_array_equal(clean[name], noisy[name])
    moved = noisy.X - clean.X
    # Standard error of a standard deviation over 15000 numbers: 0.58 %.
    assert abs(moved.std() / 0.2 - 1) < 4 * 0.0058
