"""The normal distribution on the line: points, quadrature, and its Mehler spectrum."""

from typing import Any

import numpy as np
from numpy.polynomial import hermite_e
from scipy.special import gammaln, ndtri
from sklearn.utils import Bunch

from skdmap._argument_checks import check_count, check_finite_array, check_number
from skdmap._random import numpy_generator
from skdmap._sklearn_compat import InvalidParameterError

# Beyond it the weights of numpy's Gauss-Hermite rule underflow.
_MAX_NODES = 350


def make_gaussian(
    n_samples: int = 200, *, design: str = "quadrature", random_state: Any = None
) -> Bunch:
    """Place points that stand for the standard normal distribution on the line.

    Parameters
    ----------
    n_samples : int, default=200
        Number of points; a quadrature has at most 350. 200 nodes suffice for h >= 0.3.
    design : {"quadrature", "quantiles", "random"}, default="quadrature"
        Gauss-Hermite nodes with weights; the quantiles Phi^-1((i + 1/2) / n_samples), ascending;
        or independent draws.
    random_state : int, RandomState instance, Generator or None, default=None
        Used by the random design.

    Returns
    -------
    Bunch
        ``X`` (n_samples, 1); ``sample_weight`` (n_samples,), the quadrature weights, which sum to
        1, or None; ``rates`` (10,): 1, 2, ..., 10, the spectrum of minus the Ornstein-Uhlenbeck
        generator f'' - x f', to which alpha = 1/2 tends. For any alpha in [0, 1] the limit has
        2 (1 - alpha) m, and at a finite bandwidth a quadrature gives :func:`gaussian_eigenvalues`.

    Raises
    ------
    InvalidParameterError
        If ``n_samples`` is out of its range or ``design`` unknown.

    Examples
    --------
    >>> from skdmap.datasets import make_gaussian
    >>> make_gaussian(3, design="quantiles").X.round(4).ravel()
    array([-0.9674,  0.    ,  0.9674])
    """
    if design not in ("quadrature", "quantiles", "random"):
        raise InvalidParameterError(
            f"design={design!r} must be 'quadrature', 'quantiles' or 'random'. Pass one of them."
        )
    maximum = _MAX_NODES if design == "quadrature" else None
    n_samples = check_count("n_samples", n_samples, minimum=2, maximum=maximum)
    weight = None
    if design == "quadrature":
        x, weight = hermite_e.hermegauss(n_samples)
        weight = weight / weight.sum()
    elif design == "quantiles":
        x = ndtri((np.arange(n_samples) + 0.5) / n_samples)
    else:
        x = numpy_generator(random_state).standard_normal(n_samples)
    return Bunch(X=x[:, None], sample_weight=weight, rates=np.arange(1.0, 11.0))


def _gaussian_tau(bandwidth: float, alpha: float) -> tuple[float, float]:
    """Return 2 eps = h^2 and tau = 1 - alpha / (1 + 2 eps), checked."""
    squared = check_number("bandwidth", bandwidth) ** 2
    alpha = check_number("alpha", alpha, high=1.0, closed=True)
    return squared, 1 - alpha / (1 + squared)


def gaussian_eigenvalues(bandwidth: float, n_components: int, *, alpha: float = 1.0) -> np.ndarray:
    """Return the eigenvalues of the diffusion map of a standard normal distribution on the line.

    lambda_m = (1 + 2 eps tau)^(-m), m = 1, 2, ..., with 2 eps = h^2 and
    tau = 1 - alpha / (1 + 2 eps): the density estimate is N(0, 1 + 2 eps), so dividing by its power
    alpha leaves a Gaussian weight of precision tau, and a step of the Markov operator from x is
    N(x / (1 + 2 eps tau), 2 eps / (1 + 2 eps tau)), an autoregression with Mehler's kernel [1]_.

    Parameters
    ----------
    bandwidth : float
        Bandwidth h > 0, in units of the standard deviation.
    n_components : int
        How many eigenvalues.
    alpha : float, default=1.0
        Exponent of the density normalisation, in [0, 1].

    Returns
    -------
    ndarray of shape (n_components,)
        Descending, the trivial 1 left out. (1 - lambda_m) / eps tends to 2 m (1 - alpha) as h tends
        to 0.

    Raises
    ------
    InvalidParameterError
        If ``bandwidth`` is not positive, ``alpha`` outside [0, 1] or ``n_components`` below 1.

    References
    ----------
    .. [1] NIST Digital Library of Mathematical Functions, equation 18.18.28,
       https://dlmf.nist.gov/18.18

    Examples
    --------
    >>> from skdmap.datasets import gaussian_eigenvalues
    >>> gaussian_eigenvalues(0.5, 3, alpha=0.0)
    array([0.8  , 0.64 , 0.512])
    """
    squared, tau = _gaussian_tau(bandwidth, alpha)
    order = np.arange(1, check_count("n_components", n_components) + 1)
    return (1 + squared * tau) ** (-order.astype(float))


def gaussian_eigenfunctions(
    x: np.ndarray, bandwidth: float, n_components: int, *, alpha: float = 1.0
) -> np.ndarray:
    """Return the eigenfunctions for a standard normal distribution on the line.

    They are He_m(c x) / sqrt(m!), m = 1, 2, ...; He_m are the Hermite polynomials of weight
    exp(-x^2 / 2). The scale is c^2 = tau (2 + 2 eps tau) / (1 + 2 eps tau), 2 eps = h^2,
    tau = 1 - alpha / (1 + 2 eps): the stationary distribution of the Markov operator is
    N(0, 1 / c^2).

    Parameters
    ----------
    x : array-like of shape (n_samples,)
        Any points of the line, in units of the standard deviation.
    bandwidth : float
        Bandwidth h > 0, in units of the standard deviation.
    n_components : int
        How many, in the order of :func:`gaussian_eigenvalues`.
    alpha : float, default=1.0
        Exponent of the density normalisation, in [0, 1].

    Returns
    -------
    ndarray of shape (n_samples, n_components)
        Mean square 1 under the stationary distribution.

    Raises
    ------
    InvalidParameterError
        If ``x`` is not a finite vector, or as for :func:`gaussian_eigenvalues`.

    Examples
    --------
    >>> from skdmap.datasets import gaussian_eigenfunctions
    >>> gaussian_eigenfunctions([0.0, 1.0], 0.5, 2, alpha=0.0).round(4)
    array([[ 0.    , -0.7071],
           [ 1.3416,  0.5657]])
    """
    x = check_finite_array("x", x, ndim=1)
    squared, tau = _gaussian_tau(bandwidth, alpha)
    degree = check_count("n_components", n_components)
    scale = np.sqrt(tau * (2 + squared * tau) / (1 + squared * tau))
    values = hermite_e.hermevander(scale * x, degree)
    return (values / np.exp(gammaln(np.arange(degree + 1) + 1.0) / 2))[:, 1:]
