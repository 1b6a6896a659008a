"""Curved surfaces with known coordinates: rolls, and spheres with a part removed."""

from typing import Any

import numpy as np
from sklearn.utils import Bunch

from skdmap._argument_checks import check_count, check_number
from skdmap._random import numpy_generator
from skdmap.datasets._sphere import sphere_points

# Range of the angle t of the spiral r = t, as in scikit-learn's swiss roll.
_ROLL_START, _ROLL_END = 1.5 * np.pi, 4.5 * np.pi


def _spiral_length(t: np.ndarray | float) -> np.ndarray:
    """Return the arc length of the spiral r = t from its centre: the integral of sqrt(1 + t^2)."""
    return (t * np.sqrt(1 + np.square(t)) + np.arcsinh(t)) / 2


def _spiral_angle(length: np.ndarray) -> np.ndarray:
    """Invert :func:`_spiral_length` to rounding error."""
    t = np.sqrt(2 * length)
    # The length is convex in t and the start lies beyond the root, so Newton's steps only descend;
    # the error is below 2 at the start and at least squares in each step.
    for _ in range(6):
        t = t - (_spiral_length(t) - length) / np.sqrt(1 + t**2)
    return t


def _rectangle_eigenvalues(length: float, width: float, n_eigenvalues: int = 10) -> np.ndarray:
    """Return the first nontrivial Neumann eigenvalues pi^2 (j^2 / length^2 + k^2 / width^2)."""
    order = np.arange(n_eigenvalues + 1)
    sums = np.add.outer((np.pi * order / length) ** 2, (np.pi * order / width) ** 2)
    return np.sort(sums, axis=None)[1 : n_eigenvalues + 1]


def _with_noise(X: np.ndarray, noise: float, generator: np.random.Generator) -> np.ndarray:
    """Add isotropic Gaussian noise; nothing is drawn if ``noise`` is 0."""
    return X + noise * generator.standard_normal(X.shape) if noise else X


def make_swiss_roll(
    n_samples: int = 1000, *, height: float = 21.0, noise: float = 0.0, random_state: Any = None
) -> Bunch:
    """Sample a swiss roll uniformly over its surface.

    The roll is (t cos t, y, t sin t), t from 3 pi / 2 to 9 pi / 2, y from 0 to ``height``: the
    surface of ``sklearn.datasets.make_swiss_roll``, which samples uniformly in t and so more
    densely inside. Unrolled, it is a rectangle of width H = ``height`` and length
    L = s(9 pi / 2) - s(3 pi / 2) = 89.4, with s(t) = (t sqrt(1 + t^2) + arsinh t) / 2.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of points.
    height : float, default=21.0
        Width H of the rolled strip, in the units of ``X``.
    noise : float, default=0.0
        Standard deviation of the Gaussian noise added to each column of ``X``.
    random_state : int, RandomState instance, Generator or None, default=None
        Seed of the points and the noise.

    Returns
    -------
    Bunch
        ``X`` (n_samples, 3); before noise, each (n_samples,): ``arc_length``, scaled to [0, 1],
        ``height``, in [0, H], and ``angle`` t, in radians; ``length`` and ``width``: L and H;
        ``laplacian_eigenvalues`` (10,): the smallest pi^2 (j^2 / L^2 + k^2 / H^2), the Neumann
        spectrum without 0. The eigenfunctions are cos(pi j arc_length) cos(pi k height / H).

    Raises
    ------
    InvalidParameterError
        If ``n_samples`` is below 1, ``height`` is not positive or ``noise`` is negative.

    Examples
    --------
    >>> from skdmap.datasets import make_swiss_roll
    >>> roll = make_swiss_roll(500, noise=0.5, random_state=0)
    >>> roll.X.shape, round(roll.length, 4), roll.laplacian_eigenvalues[:2].round(5)
    ((500, 3), 89.3733, array([0.00124, 0.00494]))
    """
    n_samples = check_count("n_samples", n_samples)
    height = check_number("height", height)
    noise = check_number("noise", noise, closed=True)
    generator = numpy_generator(random_state)
    arc_length, y = generator.uniform(size=(2, n_samples))
    start, end = _spiral_length(_ROLL_START), _spiral_length(_ROLL_END)
    t = _spiral_angle(start + (end - start) * arc_length)
    X = np.column_stack([t * np.cos(t), height * y, t * np.sin(t)])
    return Bunch(
        X=_with_noise(X, noise, generator),
        arc_length=arc_length,
        height=height * y,
        angle=t,
        length=float(end - start),
        width=height,
        laplacian_eigenvalues=_rectangle_eigenvalues(end - start, height),
    )


def make_s_curve(
    n_samples: int = 1000, *, height: float = 2.0, noise: float = 0.0, random_state: Any = None
) -> Bunch:
    """Sample an S-shaped sheet uniformly over its surface.

    The sheet is (sin t, y, sign(t) (cos t - 1)), t from -3 pi / 2 to 3 pi / 2, y from 0 to
    ``height``: the surface of ``sklearn.datasets.make_s_curve``. It consists of arcs of unit
    circles, so t is the arc length. Unrolled, it is a rectangle of length L = 3 pi and width
    H = ``height``.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of points.
    height : float, default=2.0
        Width H of the sheet, in the units of ``X``.
    noise : float, default=0.0
        Standard deviation of the Gaussian noise added to each column of ``X``.
    random_state : int, RandomState instance, Generator or None, default=None
        Seed of the points and the noise.

    Returns
    -------
    Bunch
        ``X`` (n_samples, 3); before noise, each (n_samples,): ``arc_length``, scaled to [0, 1], and
        ``height``, in [0, H]; ``length`` and ``width``: L and H; ``laplacian_eigenvalues`` (10,):
        the smallest pi^2 (j^2 / L^2 + k^2 / H^2), the Neumann spectrum without 0.

    Raises
    ------
    InvalidParameterError
        If ``n_samples`` is below 1, ``height`` is not positive or ``noise`` is negative.

    Examples
    --------
    >>> from skdmap.datasets import make_s_curve
    >>> make_s_curve(500, random_state=0).laplacian_eigenvalues[:3].round(4)
    array([0.1111, 0.4444, 1.    ])
    """
    n_samples = check_count("n_samples", n_samples)
    height = check_number("height", height)
    noise = check_number("noise", noise, closed=True)
    generator = numpy_generator(random_state)
    arc_length, y = generator.uniform(size=(2, n_samples))
    t = 3 * np.pi * (arc_length - 0.5)
    X = np.column_stack([np.sin(t), height * y, np.sign(t) * (np.cos(t) - 1)])
    return Bunch(
        X=_with_noise(X, noise, generator),
        arc_length=arc_length,
        height=height * y,
        length=3 * np.pi,
        width=height,
        laplacian_eigenvalues=_rectangle_eigenvalues(3 * np.pi, height),
    )


def make_severed_sphere(
    n_samples: int = 1000,
    *,
    cap_angle: float = 0.4,
    gap_angle: float = 0.55,
    noise: float = 0.0,
    random_state: Any = None,
) -> Bunch:
    """Sample uniformly a unit sphere without its polar caps and a slice between them.

    The remaining surface can be unrolled; its spectrum has no closed form.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of points.
    cap_angle : float, default=0.4
        Angular radius of the cap removed at each pole, in radians, in (0, pi / 2).
    gap_angle : float, default=0.55
        Width in longitude of the slice removed, in radians, in (0, 2 pi).
    noise : float, default=0.0
        Standard deviation of the Gaussian noise added to each column of ``X``.
    random_state : int, RandomState instance, Generator or None, default=None
        Seed of the points and the noise.

    Returns
    -------
    Bunch
        ``X`` (n_samples, 3); before noise, each (n_samples,) and in radians: ``longitude`` in
        [0, 2 pi - gap_angle) and ``colatitude`` in [cap_angle, pi - cap_angle].

    Raises
    ------
    InvalidParameterError
        If ``n_samples`` is below 1, an angle is out of range or ``noise`` is negative.

    Examples
    --------
    >>> from skdmap.datasets import make_severed_sphere
    >>> sphere = make_severed_sphere(500, random_state=0)
    >>> bool(sphere.longitude.max() < 5.74), bool(sphere.colatitude.min() > 0.39)
    (True, True)
    """
    n_samples = check_count("n_samples", n_samples)
    cap_angle = check_number("cap_angle", cap_angle, high=np.pi / 2)
    gap_angle = check_number("gap_angle", gap_angle, high=2 * np.pi)
    noise = check_number("noise", noise, closed=True)
    generator = numpy_generator(random_state)
    cosine = np.cos(cap_angle) * generator.uniform(-1, 1, n_samples)
    longitude = generator.uniform(0, 2 * np.pi - gap_angle, n_samples)
    return Bunch(
        X=_with_noise(sphere_points(cosine, longitude), noise, generator),
        longitude=longitude,
        colatitude=np.arccos(cosine),
    )


def make_punctured_sphere(
    n_samples: int = 1000,
    *,
    cap_angle: float = 0.5,
    noise: float = 0.0,
    random_state: Any = None,
) -> Bunch:
    """Sample uniformly a unit sphere without a cap at the north pole.

    The remaining surface is a curved disc; its spectrum has no closed form.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of points.
    cap_angle : float, default=0.5
        Angular radius of the cap, in radians, in (0, pi).
    noise : float, default=0.0
        Standard deviation of the Gaussian noise added to each column of ``X``.
    random_state : int, RandomState instance, Generator or None, default=None
        Seed of the points and the noise.

    Returns
    -------
    Bunch
        ``X`` (n_samples, 3); before noise: ``colatitude`` in [cap_angle, pi] and ``longitude`` in
        [0, 2 pi), each (n_samples,), in radians, and ``plane`` (n_samples, 2), the stereographic
        projection from the north pole, with the south pole at 0 and the rim at distance
        cot(cap_angle / 2).

    Raises
    ------
    InvalidParameterError
        If ``n_samples`` is below 1, ``cap_angle`` is out of range or ``noise`` is negative.

    Examples
    --------
    >>> from skdmap.datasets import make_punctured_sphere
    >>> make_punctured_sphere(500, random_state=0).plane.shape
    (500, 2)
    """
    n_samples = check_count("n_samples", n_samples)
    cap_angle = check_number("cap_angle", cap_angle, high=np.pi)
    noise = check_number("noise", noise, closed=True)
    generator = numpy_generator(random_state)
    cosine = generator.uniform(-1, np.cos(cap_angle), n_samples)
    longitude = generator.uniform(0, 2 * np.pi, n_samples)
    X = sphere_points(cosine, longitude)
    return Bunch(
        X=_with_noise(X, noise, generator),
        colatitude=np.arccos(cosine),
        longitude=longitude,
        plane=X[:, :2] / (1 - cosine)[:, None],
    )
