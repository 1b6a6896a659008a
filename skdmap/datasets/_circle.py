"""Circles and flat tori: points, and the spectra of their Markov operators."""

from typing import Any

import numpy as np
from scipy.special import ive
from sklearn.utils import Bunch

from skdmap._argument_checks import check_count, check_finite_array, check_number, check_pair
from skdmap._random import numpy_generator
from skdmap._sklearn_compat import InvalidParameterError

# ive returns nan above about 2e9, and 1 - lambda is lost to rounding.
_MAX_KAPPA = 1e8


def make_circle(
    n_samples: int = 200,
    *,
    radius: float = 1.0,
    noise: float = 0.0,
    equispaced: bool = True,
    random_state: Any = None,
) -> Bunch:
    """Generate points on a circle in the plane.

    Parameters
    ----------
    n_samples : int, default=200
        Number of points.
    radius : float, default=1.0
        Radius of the circle.
    noise : float, default=0.0
        Standard deviation of the Gaussian noise added to each column of ``X``.
    equispaced : bool, default=True
        True places points at the angles 2 pi i / n_samples, False draws the angles uniformly.
    random_state : int, RandomState instance, Generator or None, default=None
        Seed of the angles and the noise.

    Returns
    -------
    Bunch
        ``X`` (n_samples, 2); ``angle`` (n_samples,), in radians, in [0, 2 pi), before noise;
        ``laplacian_eigenvalues`` (10,): m^2 / radius^2, m = 1, 2, ..., each twice. On equispaced
        points the eigenvalues of the Markov operator, for every alpha, are those of
        :func:`circle_eigenvalues`.

    Raises
    ------
    InvalidParameterError
        If ``n_samples`` is below 3, ``radius`` is not positive or ``noise`` is negative.

    Examples
    --------
    >>> from skdmap.datasets import make_circle
    >>> circle = make_circle(4)
    >>> circle.X.round(12) + 0.0
    array([[ 1.,  0.],
           [ 0.,  1.],
           [-1.,  0.],
           [ 0., -1.]])
    """
    n_samples = check_count("n_samples", n_samples, minimum=3)
    radius = check_number("radius", radius)
    noise = check_number("noise", noise, closed=True)
    generator = numpy_generator(random_state)
    if equispaced:
        angle = 2 * np.pi * np.arange(n_samples) / n_samples
    else:
        angle = generator.uniform(0, 2 * np.pi, n_samples)
    X = radius * np.column_stack([np.cos(angle), np.sin(angle)])
    if noise:
        X += noise * generator.standard_normal(X.shape)
    order = np.arange(10) // 2 + 1
    return Bunch(X=X, angle=angle, laplacian_eigenvalues=(order / radius) ** 2)


def make_flat_torus(
    n_samples: tuple[int, int] = (30, 30),
    *,
    radii: tuple[float, float] = (1.0, 1.0),
    equispaced: bool = True,
    random_state: Any = None,
) -> Bunch:
    """Generate points on a flat torus in R^4, the product of two circles.

    Parameters
    ----------
    n_samples : tuple of two ints, default=(30, 30)
        Points along each circle; their product is the number of samples.
    radii : tuple of two floats, default=(1.0, 1.0)
        Radii of the two circles.
    equispaced : bool, default=True
        True places points on a grid of angles 2 pi i / n, False draws both angles uniformly.
    random_state : int, RandomState instance, Generator or None, default=None
        Seed of the angles.

    Returns
    -------
    Bunch
        ``X`` (n, 4), n = n_samples[0] * n_samples[1], columns 0 and 1 on the first circle;
        ``angles`` (n, 2), in radians, in [0, 2 pi); ``laplacian_eigenvalues`` (10,): the smallest
        m^2 / radii[0]^2 + n^2 / radii[1]^2, with a factor 2 in multiplicity for each index above
        0. On a grid the eigenvalues of the Markov operator, for every alpha, are those of
        :func:`flat_torus_eigenvalues`.

    Raises
    ------
    InvalidParameterError
        If a count is below 3 or a radius is not positive.

    Examples
    --------
    >>> from skdmap.datasets import make_flat_torus
    >>> torus = make_flat_torus((20, 10), radii=(1.0, 0.5))
    >>> torus.X.shape, torus.laplacian_eigenvalues[:7]
    ((200, 4), array([1., 1., 4., 4., 4., 4., 5.]))
    """
    counts = [
        check_count(f"n_samples[{i}]", n, minimum=3)
        for i, n in enumerate(check_pair("n_samples", n_samples))
    ]
    lengths = np.array(
        [check_number(f"radii[{i}]", r) for i, r in enumerate(check_pair("radii", radii))]
    )
    if equispaced:
        grid = np.meshgrid(*(2 * np.pi * np.arange(n) / n for n in counts), indexing="ij")
        angles = np.stack([g.ravel() for g in grid], axis=1)
    else:
        angles = numpy_generator(random_state).uniform(0, 2 * np.pi, (counts[0] * counts[1], 2))
    turns = np.stack([np.cos(angles), np.sin(angles)], axis=2)
    X = (lengths[:, None] * turns).reshape(-1, 4)
    order = (np.arange(11) + 1) // 2
    sums = np.add.outer((order / lengths[0]) ** 2, (order / lengths[1]) ** 2)
    return Bunch(X=X, angles=angles, laplacian_eigenvalues=np.sort(sums, axis=None)[1:11])


def concentration(bandwidth: float, radius: float, radius_name: str = "radius") -> float:
    """Return kappa = radius^2 / h^2 after checking both."""
    bandwidth = check_number("bandwidth", bandwidth)
    kappa = (check_number(radius_name, radius) / bandwidth) ** 2
    if not kappa <= _MAX_KAPPA:
        raise InvalidParameterError(
            f"bandwidth={bandwidth!r} must be at least 1e-4 times {radius_name}={radius!r}, or "
            "1 - lambda is lost to rounding. Pass a larger bandwidth."
        )
    return kappa


def _circle_orders(kappa: float, n_components: int) -> np.ndarray:
    """Return lambda_1, lambda_1, lambda_2, lambda_2, ... of one circle."""
    order = np.arange(n_components) // 2 + 1
    return ive(order, kappa) / ive(0, kappa)


def circle_eigenvalues(bandwidth: float, n_components: int, *, radius: float = 1.0) -> np.ndarray:
    """Compute the diffusion eigenvalues of equispaced points on a circle.

    With kappa = radius^2 / h^2 they are, for every alpha, lambda_m = I_m(kappa) / I_0(kappa),
    m = 1, 2, ..., each twice, where I_m is the modified Bessel function. The kernel between two
    points at an angle t is proportional to exp(kappa cos t), whose Fourier coefficients are I_m
    [1]_.

    Parameters
    ----------
    bandwidth : float
        Bandwidth h > 0, in the units of ``radius``.
    n_components : int
        Number of eigenvalues.
    radius : float, default=1.0
        Radius of the circle.

    Returns
    -------
    ndarray of shape (n_components,)
        Descending, without the trivial 1. They are the limit of many points; for n points the
        difference is about I_{n-m}(kappa) / I_0(kappa), below rounding from n = 20 radius / h on.

    Raises
    ------
    InvalidParameterError
        If ``bandwidth`` or ``radius`` is not positive, ``bandwidth`` is below 1e-4 ``radius``, or
        ``n_components`` is below 1.

    References
    ----------
    .. [1] NIST Digital Library of Mathematical Functions, equation 10.35.2,
       https://dlmf.nist.gov/10.35

    Examples
    --------
    >>> from skdmap.datasets import circle_eigenvalues
    >>> circle_eigenvalues(0.5, 4).round(4)
    array([0.8635, 0.8635, 0.5682, 0.5682])
    """
    kappa = concentration(bandwidth, radius)
    return _circle_orders(kappa, check_count("n_components", n_components))


def circle_eigenfunctions(angle: np.ndarray, n_components: int) -> np.ndarray:
    """Evaluate the eigenfunctions on a circle: sqrt(2) cos(m t), sqrt(2) sin(m t), m = 1, 2, ....

    Parameters
    ----------
    angle : array-like of shape (n_samples,)
        Angles t in radians, of any points on the circle.
    n_components : int
        Number of eigenfunctions, in the order of :func:`circle_eigenvalues`, cosines first.

    Returns
    -------
    ndarray of shape (n_samples, n_components)
        Mean square 1 over the circle. Each pair is determined up to a rotation.

    Raises
    ------
    InvalidParameterError
        If ``angle`` is not a finite vector or ``n_components`` is below 1.

    Examples
    --------
    >>> from skdmap.datasets import circle_eigenfunctions
    >>> circle_eigenfunctions([0.0], 2).round(4)
    array([[1.4142, 0.    ]])
    """
    angle = check_finite_array("angle", angle, ndim=1)
    column = np.arange(check_count("n_components", n_components))
    # A sine is a cosine a quarter of a turn later.
    return np.sqrt(2) * np.cos(np.outer(angle, column // 2 + 1) - np.pi / 2 * (column % 2))


def flat_torus_eigenvalues(
    bandwidth: float, n_components: int, *, radii: tuple[float, float] = (1.0, 1.0)
) -> np.ndarray:
    """Compute the diffusion eigenvalues of a grid on a flat torus in R^4.

    The kernel is the product of those of two circles. So the eigenvalues are, for every alpha, all
    products lambda_m(kappa_1) lambda_n(kappa_2), m, n = 0, 1, ..., of those of
    :func:`circle_eigenvalues`, with kappa_i = radii_i^2 / h^2 and a factor 2 in multiplicity for
    each index above 0.

    Parameters
    ----------
    bandwidth : float
        Bandwidth h > 0, in the units of ``radii``.
    n_components : int
        Number of eigenvalues.
    radii : tuple of two floats, default=(1.0, 1.0)
        Radii of the two circles.

    Returns
    -------
    ndarray of shape (n_components,)
        Descending, without the trivial 1.

    Raises
    ------
    InvalidParameterError
        If an argument is out of range, as for :func:`circle_eigenvalues`.

    Examples
    --------
    >>> from skdmap.datasets import flat_torus_eigenvalues
    >>> flat_torus_eigenvalues(0.5, 5).round(4)
    array([0.8635, 0.8635, 0.8635, 0.8635, 0.7457])
    """
    n_components = check_count("n_components", n_components)
    factors = []
    for i, radius in enumerate(check_pair("radii", radii)):
        kappa = concentration(bandwidth, radius, f"radii[{i}]")
        factors.append(np.append(1.0, _circle_orders(kappa, n_components)))
    # The n + 1 largest products need no more than the n + 1 largest of each factor.
    products = np.sort(np.outer(*factors), axis=None)[::-1]
    return products[1 : n_components + 1]
