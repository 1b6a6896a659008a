import numpy as np
import pytest
from sklearn.datasets import load_digits

from skdmap.datasets import make_rotated_digits
from skdmap.datasets._digits import _turned_images

IMAGE = load_digits().images[3] / 16


def test_no_turn_gives_back_the_pixels():
    # At 14 pixels the new grid is the old one with a margin of 3.
    same = _turned_images(IMAGE, np.array([0.0]), 14).reshape(14, 14)
    np.testing.assert_allclose(same, np.pad(IMAGE, 3), atol=1e-12)


@pytest.mark.parametrize("size", [14, 16, 25])
def test_quarter_turns_permute_the_pixels(size):
    turned = _turned_images(IMAGE, np.pi / 2 * np.arange(4), size).reshape(4, size, size)
    for quarters in range(4):
        np.testing.assert_allclose(turned[quarters], np.rot90(turned[0], quarters), atol=1e-12)


def test_a_full_turn_closes_the_curve_and_small_turns_move_little():
    angle = np.linspace(0, 2 * np.pi, 721)
    images = _turned_images(IMAGE, angle, 16)
    np.testing.assert_allclose(images[-1], images[0], atol=1e-12)
    steps = np.linalg.norm(np.diff(images, axis=0), axis=1)
    assert steps.max() < 1.1 * steps.min()
    assert steps.max() < 0.05 * np.linalg.norm(images[0])


def test_the_ink_stays_in_the_frame():
    ink = _turned_images(IMAGE, np.linspace(0, 6, 50), 32).sum(axis=1) * (14 / 32) ** 2
    np.testing.assert_allclose(ink, IMAGE.sum(), rtol=2e-2)


def test_rows_are_the_turned_images_of_their_angles():
    digits = make_rotated_digits(300, turn=0.25, image_size=20, random_state=0)
    assert digits.X.shape == (300, 400)
    assert digits.image_shape == (20, 20)
    np.testing.assert_array_equal(digits.X, _turned_images(IMAGE, digits.angle, 20))
    assert digits.angle.min() >= 0
    assert np.pi / 2 * 0.97 < digits.angle.max() < np.pi / 2


def test_another_index_shows_another_digit():
    digits = make_rotated_digits(5, index=17, random_state=0)
    assert digits.target == load_digits().target[17]
    other = make_rotated_digits(5, random_state=0)
    np.testing.assert_array_equal(digits.angle, other.angle)
    assert np.abs(digits.X - other.X).max() > 0.1


def test_noise_is_of_the_size_asked_for():
    clean = make_rotated_digits(100, random_state=0)
    noisy = make_rotated_digits(100, noise=0.3, random_state=0)
    # Standard error of a standard deviation over 25,600 numbers: 0.44 %.
    assert abs((noisy.X - clean.X).std() / 0.3 - 1) < 4 * 0.0044
