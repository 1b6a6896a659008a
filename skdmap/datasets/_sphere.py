"""The sphere: points, quadrature, and the spectrum of its Markov operator."""

from typing import Any

import numpy as np
from numpy.polynomial.legendre import leggauss
from scipy.special import gammaln, ive, lpmv
from sklearn.utils import Bunch

from skdmap._argument_checks import check_count, check_finite_array, check_number, check_pair
from skdmap._random import numpy_generator
from skdmap._sklearn_compat import InvalidParameterError
from skdmap.datasets._circle import concentration


def sphere_points(cosine: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Return points (n, 3) on the unit sphere from cos(colatitude) and longitude, each (n,)."""
    sine = np.sqrt(1 - cosine**2)
    return np.column_stack([sine * np.cos(longitude), sine * np.sin(longitude), cosine])


def make_sphere(
    n_samples: int | tuple[int, int] = (20, 40),
    *,
    radius: float = 1.0,
    design: str = "quadrature",
    random_state: Any = None,
) -> Bunch:
    """Generate points on a sphere in R^3.

    Parameters
    ----------
    n_samples : int or tuple of two ints, default=(20, 40)
        Number of points. For a quadrature, the numbers of latitudes and longitudes; an int 2 m^2
        means (m, 2 m).
    radius : float, default=1.0
        Radius of the sphere.
    design : {"quadrature", "random"}, default="quadrature"
        "quadrature": Gauss-Legendre nodes in cos(colatitude) times equispaced longitudes, exact for
        polynomials of degree min(2 latitudes, longitudes) - 1; "random": independent points.
    random_state : int, RandomState instance, Generator or None, default=None
        Seed of the random design.

    Returns
    -------
    Bunch
        ``X`` (n, 3); ``sample_weight`` (n,), the quadrature weights, which sum to 1, or None;
        ``colatitude`` in [0, pi] and ``longitude`` in [0, 2 pi), both (n,), in radians;
        ``laplacian_eigenvalues`` (15,): l (l + 1) / radius^2, l = 1, 2, 3, each 2 l + 1 times. On a
        fine quadrature with its weights the eigenvalues of the Markov operator, for every alpha,
        are those of :func:`sphere_eigenvalues`.

    Raises
    ------
    InvalidParameterError
        If ``n_samples`` does not suit the design, ``radius`` is not positive or ``design`` is
        unknown.

    Examples
    --------
    >>> from skdmap.datasets import make_sphere
    >>> sphere = make_sphere((10, 20))
    >>> sphere.X.shape, round(float(sphere.sample_weight @ sphere.X[:, 2] ** 2), 12)
    ((200, 3), 0.333333333333)
    """
    radius = check_number("radius", radius)
    if design == "quadrature":
        n_latitudes, n_longitudes = _grid_shape(n_samples)
        nodes, node_weights = leggauss(n_latitudes)
        cosine = np.repeat(nodes, n_longitudes)
        longitude = np.tile(2 * np.pi * np.arange(n_longitudes) / n_longitudes, n_latitudes)
        weight = np.repeat(node_weights / (2 * n_longitudes), n_longitudes)
    elif design == "random":
        n_points = check_count("n_samples", n_samples)
        generator = numpy_generator(random_state)
        # By Archimedes, cos(colatitude) is uniform on a uniform sphere.
        cosine = generator.uniform(-1, 1, n_points)
        longitude = generator.uniform(0, 2 * np.pi, n_points)
        weight = None
    else:
        raise InvalidParameterError(
            f"design={design!r} must be 'quadrature' or 'random'. Pass one of the two."
        )
    degree = _sphere_degrees(15)
    return Bunch(
        X=radius * sphere_points(cosine, longitude),
        sample_weight=weight,
        colatitude=np.arccos(cosine),
        longitude=longitude,
        laplacian_eigenvalues=degree * (degree + 1) / radius**2,
    )


def _grid_shape(n_samples: int | tuple[int, int]) -> tuple[int, int]:
    """Return (latitudes, longitudes)."""
    if not isinstance(n_samples, tuple):
        n_points = check_count("n_samples", n_samples, minimum=8)
        m = round((n_points / 2) ** 0.5)
        if 2 * m**2 != n_points:
            raise InvalidParameterError(
                f"n_samples={n_points} must be 2 m^2 for a quadrature. Pass {2 * m**2}, a pair "
                "(latitudes, longitudes), or design='random'."
            )
        return m, 2 * m
    latitudes, longitudes = check_pair("n_samples", n_samples)
    return (
        check_count("n_samples[0]", latitudes, minimum=2),
        check_count("n_samples[1]", longitudes, minimum=3),
    )


def _sphere_degrees(n_components: int) -> np.ndarray:
    """Return the degree l of each nontrivial harmonic: 1, 1, 1, 2, 2, 2, 2, 2, 3, ...."""
    return np.sqrt(np.arange(1, n_components + 1)).astype(int)


def sphere_eigenvalues(bandwidth: float, n_components: int, *, radius: float = 1.0) -> np.ndarray:
    """Compute the diffusion eigenvalues of a uniform sphere in R^3, for every alpha.

    With kappa = radius^2 / h^2 they are lambda_l = I_{l+1/2}(kappa) / I_{1/2}(kappa), l = 1, 2, ...,
    each 2 l + 1 times (Funk-Hecke theorem; [1]_). Those of the Laplacian are l (l + 1) / radius^2.

    Parameters
    ----------
    bandwidth : float
        Bandwidth h > 0, in the units of ``radius``.
    n_components : int
        Number of eigenvalues.
    radius : float, default=1.0
        Radius of the sphere.

    Returns
    -------
    ndarray of shape (n_components,)
        Descending, without the trivial 1; the limit of a fine quadrature.

    Raises
    ------
    InvalidParameterError
        If an argument is out of range, as for :func:`circle_eigenvalues`.

    References
    ----------
    .. [1] NIST Digital Library of Mathematical Functions, equation 10.60.8,
       https://dlmf.nist.gov/10.60

    Examples
    --------
    >>> from skdmap.datasets import sphere_eigenvalues
    >>> sphere_eigenvalues(0.5, 4).round(4)
    array([0.7507, 0.7507, 0.7507, 0.437 ])
    """  # noqa: E501 - the formula stays on one line
    kappa = concentration(bandwidth, radius)
    degree = _sphere_degrees(check_count("n_components", n_components))
    return ive(degree + 0.5, kappa) / ive(0.5, kappa)


def sphere_eigenfunctions(X: np.ndarray, n_components: int) -> np.ndarray:
    """Evaluate the real spherical harmonics, of mean square 1 over the sphere.

    Parameters
    ----------
    X : array-like of shape (n_samples, 3)
        Points other than the origin; only their directions matter.
    n_components : int
        Number of functions, at most 10,000, in the order of :func:`sphere_eigenvalues`; within a
        degree l: order 0, then cosine and sine of the orders 1 to l.

    Returns
    -------
    ndarray of shape (n_samples, n_components)
        The orthonormal real harmonics times sqrt(4 pi). As eigenfunctions, those of one degree are
        determined up to a rotation.

    Raises
    ------
    InvalidParameterError
        If ``X`` is not a finite matrix of three columns, a row is 0, or ``n_components`` is out of
        range.

    Examples
    --------
    >>> from skdmap.datasets import sphere_eigenfunctions
    >>> sphere_eigenfunctions([[0.0, 0.0, 1.0]], 3).round(4)
    array([[1.7321, 0.    , 0.    ]])
    """
    X = check_finite_array("X", X, ndim=2)
    length = np.linalg.norm(X, axis=1) if X.shape[1] == 3 else np.zeros(1)
    if not length.all():
        raise InvalidParameterError(
            f"X of shape {X.shape} must have 3 columns and no row equal to 0, which has no "
            "direction. Drop such rows."
        )
    cosine, longitude = np.clip(X[:, 2] / length, -1, 1), np.arctan2(X[:, 1], X[:, 0])
    # Legendre functions overflow from degree 150 on.
    degrees = _sphere_degrees(check_count("n_components", n_components, maximum=10_000))
    harmonics = np.empty((X.shape[0], len(degrees)))
    for column, l in enumerate(degrees):
        position = column + 1 - l**2
        m = (position + 1) // 2
        log_scale = np.log(2 * l + 1) + gammaln(l - m + 1) - gammaln(l + m + 1)
        # (-1)^m removes the Condon-Shortley phase, so that the first ones are x, y, z.
        polar = (-1) ** m * np.exp(log_scale / 2) * lpmv(m, l, cosine)
        turn = np.cos(m * longitude) if position % 2 else np.sin(m * longitude)
        harmonics[:, column] = polar * (np.sqrt(2) * turn if m else 1.0)
    return harmonics
