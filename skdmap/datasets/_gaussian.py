"""The normal distribution on the line: points, quadrature, and its Mehler spectrum."""

from typing import Any

import numpy as np
from numpy.polynomial import hermite_e
from scipy.special import gammaln, ndtri
from sklearn.utils import Bunch

from skdmap._argument_checks import check_count, check_finite_array, check_number
from skdmap._random import numpy_generator
from skdmap._sklearn_compat import InvalidParameterError

# Above it the weights of numpy's Gauss-Hermite rule underflow.
_MAX_NODES = 350


def make_gaussian(
    n_samples: int = 200, *, design: str = "quadrature", random_state: Any = None
) -> Bunch:
    """Generate points that represent the standard normal distribution on the line.

    Parameters
    ----------
    n_samples : int, default=200
        Number of points; at most 350 for a quadrature. 200 nodes suffice for h >= 0.3.
    design : {"quadrature", "quantiles", "random"}, default="quadrature"
        "quadrature": Gauss-Hermite nodes with weights; "quantiles": Phi^-1((i + 1/2) / n_samples),
        ascending; "random": independent draws.
    random_state : int, RandomState instance, Generator or None, default=None
        Seed of the random design.

    Returns
    -------
    Bunch
        ``X`` (n_samples, 1); ``sample_weight`` (n_samples,), the quadrature weights, which sum to
        1, or None; ``rates`` (10,): 1, 2, ..., 10, the spectrum of minus the Ornstein-Uhlenbeck
        generator f'' - x f', the limit at alpha = 1/2. For any alpha in [0, 1] the limit is
        2 (1 - alpha) m. At a finite bandwidth a quadrature gives :func:`gaussian_eigenvalues`.

    Raises
    ------
    InvalidParameterError
        If ``n_samples`` is out of range or ``design`` is unknown.

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
    """Return 2 eps = h^2 and tau = 1 - alpha / (1 + 2 eps) after checking the arguments."""
    squared = check_number("bandwidth", bandwidth) ** 2
    alpha = check_number("alpha", alpha, high=1.0, closed=True)
    return squared, 1 - alpha / (1 + squared)


def gaussian_eigenvalues(bandwidth: float, n_components: int, *, alpha: float = 1.0) -> np.ndarray:
    """Compute the diffusion eigenvalues of a standard normal distribution on the line.

    They are lambda_m = (1 + 2 eps tau)^(-m), m = 1, 2, ..., with 2 eps = h^2 and
    tau = 1 - alpha / (1 + 2 eps). The density estimate is N(0, 1 + 2 eps), so dividing by its power
    alpha leaves a Gaussian weight of precision tau. A step of the Markov operator from x is then
    N(x / (1 + 2 eps tau), 2 eps / (1 + 2 eps tau)), an autoregression with Mehler's kernel [1]_.

    Parameters
    ----------
    bandwidth : float
        Bandwidth h > 0, in units of the standard deviation.
    n_components : int
        Number of eigenvalues.
    alpha : float, default=1.0
        Exponent of the density normalisation, in [0, 1].

    Returns
    -------
    ndarray of shape (n_components,)
        Descending, without the trivial 1. (1 - lambda_m) / eps tends to 2 m (1 - alpha) as h tends
        to 0.

    Raises
    ------
    InvalidParameterError
        If ``bandwidth`` is not positive, ``alpha`` is outside [0, 1] or ``n_components`` is below
        1.

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
    """Evaluate the eigenfunctions for a standard normal distribution on the line.

    They are He_m(c x) / sqrt(m!), m = 1, 2, ..., with the Hermite polynomials He_m of weight
    exp(-x^2 / 2) and c^2 = tau (2 + 2 eps tau) / (1 + 2 eps tau), 2 eps = h^2,
    tau = 1 - alpha / (1 + 2 eps). The stationary distribution of the Markov operator is
    N(0, 1 / c^2).

    Parameters
    ----------
    x : array-like of shape (n_samples,)
        Any points on the line, in units of the standard deviation.
    bandwidth : float
        Bandwidth h > 0, in units of the standard deviation.
    n_components : int
        Number of eigenfunctions, in the order of :func:`gaussian_eigenvalues`.
    alpha : float, default=1.0
        Exponent of the density normalisation, in [0, 1].

    Returns
    -------
    ndarray of shape (n_samples, n_components)
        Mean square 1 under the stationary distribution.

    Raises
    ------
    InvalidParameterError
        If ``x`` is not a finite vector, or an argument is out of range as for
        :func:`gaussian_eigenvalues`.

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
