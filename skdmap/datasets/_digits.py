"""Rotated images of one handwritten digit: a closed curve in pixel space with a known angle."""

from typing import Any

import numpy as np
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.utils import Bunch

from skdmap._argument_checks import check_count, check_number
from skdmap._random import numpy_generator

# Side of the frame in old pixels: the corners of the 8 x 8 image lie 5.7 from the centre.
_SIDE = 14
# Zeros around the image. Ripples of the spline decay by 0.27 per pixel: to 1e-11 at the edge.
_MARGIN = 20


def make_rotated_digits(
    n_samples: int = 500,
    *,
    index: int = 3,
    turn: float = 1.0,
    image_size: int = 16,
    noise: float = 0.0,
    random_state: Any = None,
) -> Bunch:
    """Rotate the image of one handwritten digit by known random angles.

    The digit is one of scikit-learn's 8 x 8 images. A cubic spline through the image, padded with
    zeros, is evaluated on a rotated grid of pixels, so that the images are smooth in the angle.

    Parameters
    ----------
    n_samples : int, default=500
        Number of images.
    index : int, default=3
        Index of the image in ``sklearn.datasets.load_digits``, 0 to 1796; the first ten show the
        digits 0 to 9.
    turn : float, default=1.0
        Share of a full turn, in (0, 1], from which the angles are drawn uniformly.
    image_size : int, default=16
        Pixels along each side of the images.
    noise : float, default=0.0
        Standard deviation of the Gaussian noise added to each pixel; ink is 1.
    random_state : int, RandomState instance, Generator or None, default=None
        Seed of the angles and the noise.

    Returns
    -------
    Bunch
        ``X`` (n_samples, image_size^2), pixels row by row, paper 0 and ink 1 up to the overshoot
        of the spline; ``angle`` (n_samples,), in radians, counter-clockwise with row 0 on top;
        ``target``, the digit; ``image_shape``. The images lie on a curve, closed if ``turn`` is 1.
        Distances depend almost only on the difference of the angles, so the first eigenfunctions
        are close to cos(angle) and sin(angle); the spectrum has no closed form.

    Raises
    ------
    InvalidParameterError
        If an argument is out of range.

    Examples
    --------
    >>> from skdmap.datasets import make_rotated_digits
    >>> digits = make_rotated_digits(100, random_state=0)
    >>> digits.X.shape, digits.target
    ((100, 256), 3)
    """
    n_samples = check_count("n_samples", n_samples)
    index = check_count("index", index, minimum=0, maximum=1796)
    turn = check_number("turn", turn, high=np.nextafter(1.0, 2.0))
    image_size = check_count("image_size", image_size, minimum=4)
    noise = check_number("noise", noise, closed=True)
    generator = numpy_generator(random_state)
    digits = load_digits()
    angle = 2 * np.pi * turn * generator.uniform(size=n_samples)
    X = _turned_images(digits.images[index] / 16.0, angle, image_size)
    if noise:
        X += noise * generator.standard_normal(X.shape)
    return Bunch(
        X=X,
        angle=angle,
        target=int(digits.target[index]),
        image_shape=(image_size, image_size),
    )


def _turned_images(image: np.ndarray, angle: np.ndarray, size: int) -> np.ndarray:
    """Return ``image`` rotated counter-clockwise by each angle, (n, size^2)."""
    framed = np.pad(image, _MARGIN)
    coefficients = ndimage.spline_filter(framed, order=3, mode="mirror")
    centre = (framed.shape[0] - 1) / 2
    # Pixel centres of the new grid, relative to the image centre, in old pixels.
    offset = ((np.arange(size) + 0.5) / size - 0.5) * _SIDE
    down, right = (g.ravel() for g in np.meshgrid(offset, offset, indexing="ij"))
    turned = np.empty((len(angle), size**2))
    for row, theta in enumerate(angle):
        cosine, sine = np.cos(theta), np.sin(theta)
        source = np.stack([cosine * down + sine * right, cosine * right - sine * down])
        turned[row] = ndimage.map_coordinates(
            coefficients, source + centre, order=3, mode="mirror", prefilter=False
        )
    return turned
