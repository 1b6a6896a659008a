"""The variance of the gradient noise along given directions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import chi2
from scipy.stats import t as student

from skdmap._argument_checks import check_number
from skdmap.diagnostics._displacement import check_orthonormal

_BLOCK_BYTES = 2**25


@dataclass(frozen=True)
class GradientNoise:
    """Variance of the gradient noise along given directions, compared with their eigenvalues.

    Attributes
    ----------
    variance : ndarray of shape (n_components,)
        Unbiased variance of the gradients along each direction.
    variance_interval : ndarray of shape (n_components, 2)
        Confidence interval, valid for independent, nearly Gaussian gradients.
    eigenvalues : ndarray of shape (n_components,)
        The eigenvalues passed.
    total_variance : float
        Sum of the variances along all n_parameters axes.
    chance : float
        Expected variance along a random direction: total_variance / n_parameters.
    share : float
        Share of the total variance in the span of the directions.
    chance_share : float
        Expected share of random directions: n_components / n_parameters.
    slope : float
        Least-squares slope of log variance against log eigenvalue, over directions with positive
        eigenvalue and variance. It is 1 if the noise covariance is proportional to the Hessian, 0
        if the two are unrelated, and nan for fewer than three directions.
    slope_interval : ndarray of shape (2,)
        Confidence interval by Student's t, with the directions as independent draws.
    correlation : float
        Correlation of the two logarithms.
    n_fitted : int
        Number of directions in the fit.
    n_gradients : int
        Number of gradients.
    confidence : float
        Level of the intervals.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.diagnostics import gradient_noise_along
    >>> scales = np.array([4.0, 2.0, 1.0, 0.5])
    >>> gradients = np.random.default_rng(0).standard_normal((2000, 4)) * scales
    >>> noise = gradient_noise_along(gradients, np.eye(4), scales**2)
    >>> print(noise.summary())
    The 4 directions contain 100.0 % of the gradient noise (100.0 % expected by chance). Its
    variance grows as the eigenvalue to the power 0.99 (95 % interval 0.94 to 1.04, correlation
    1.00).
    """

    variance: np.ndarray
    variance_interval: np.ndarray
    eigenvalues: np.ndarray
    total_variance: float
    chance: float
    share: float
    chance_share: float
    slope: float
    slope_interval: np.ndarray
    correlation: float
    n_fitted: int
    n_gradients: int
    confidence: float

    def summary(self) -> str:
        """Describe the result in words.

        Returns
        -------
        str
            Two sentences.
        """
        text = (
            f"The {len(self.variance)} directions contain {100 * self.share:.1f} % of the gradient "
            f"noise ({100 * self.chance_share:.1f} % expected by chance)."
        )
        if self.n_fitted < 3:
            return (
                f"{text} Only {self.n_fitted} of them have a positive eigenvalue and variance, too "
                "few for a slope."
            )
        low, high = self.slope_interval
        return (
            f"{text} Its variance grows as the eigenvalue to the power {self.slope:.2f} "
            f"({100 * self.confidence:g} % interval {low:.2f} to {high:.2f}, correlation "
            f"{self.correlation:.2f})."
        )


def gradient_noise_along(
    gradients: ArrayLike,
    components: ArrayLike,
    eigenvalues: ArrayLike,
    *,
    confidence: float = 0.95,
) -> GradientNoise:
    """Compare the gradient noise along Hessian eigenvectors with their eigenvalues.

    Parameters
    ----------
    gradients : array-like of shape (n_gradients, n_parameters)
        Gradients of independent batches or single samples, all at the same parameter vector. The
        variance for batches of B samples is that of single samples divided by B.
    components : array-like of shape (n_components, n_parameters)
        Orthonormal rows, such as ``HessianSpectrum().fit(...).components_``.
    eigenvalues : array-like of shape (n_components,)
        The eigenvalue of each direction; only positive ones enter the slope.
    confidence : float, default=0.95
        Level of the intervals, in (0, 1).

    Returns
    -------
    GradientNoise
        Variances, their values expected by chance, and the slope; ``summary()`` describes them.

    Raises
    ------
    ValueError
        If shapes do not match, there are fewer than two gradients, an entry is not finite, the
        directions are not orthonormal, or ``confidence`` is out of range.

    See Also
    --------
    stationary_variance : The variance of SGD iterates that this noise implies.

    References
    ----------
    Xie, Z., Sato, I. & Sugiyama, M. (2021). A diffusion theory for deep learning dynamics.
    arXiv:2002.03495. https://doi.org/10.48550/arXiv.2002.03495

    Examples
    --------
    Isotropic noise is unrelated to the eigenvalues:

    >>> import numpy as np
    >>> from skdmap.diagnostics import gradient_noise_along
    >>> gradients = np.random.default_rng(0).standard_normal((5000, 6))
    >>> noise = gradient_noise_along(gradients, np.eye(6), [32, 16, 8, 4, 2, 1])
    >>> bool(noise.slope_interval[0] < 0 < noise.slope_interval[1])
    True
    """
    gradients, components = np.asarray(gradients), np.asarray(components)
    values = np.asarray(eigenvalues, dtype=np.float64)
    confidence = check_number("confidence", confidence, low=0.0, high=1.0)
    _check(gradients, components, values)
    variance, total = _variances(gradients, components.astype(np.float64))
    n, k, n_columns = len(gradients), len(components), gradients.shape[1]
    tails = np.array([(1 + confidence) / 2, (1 - confidence) / 2])
    fitted = (values > 0) & (variance > 0)
    slope, interval, correlation = _line(
        np.log(values[fitted]), np.log(variance[fitted]), confidence
    )
    return GradientNoise(
        variance=variance,
        variance_interval=np.outer(variance, (n - 1) / chi2.ppf(tails, n - 1)),
        eigenvalues=values,
        total_variance=total,
        chance=total / n_columns,
        share=float(variance.sum() / total) if total > 0 else float("nan"),
        chance_share=k / n_columns,
        slope=slope,
        slope_interval=interval,
        correlation=correlation,
        n_fitted=int(fitted.sum()),
        n_gradients=n,
        confidence=confidence,
    )


def stationary_variance(
    noise_variance: ArrayLike, eigenvalues: ArrayLike, *, learning_rate: float, batch_size: int = 1
) -> np.ndarray:
    """Compute the stationary variance of plain SGD iterates on a quadratic.

    Along an eigenvector of the Hessian with eigenvalue H, the iterate follows
    x -> (1 - lr H) x + lr xi, xi of variance C / B. Its variance is lr C / (B H (2 - lr H)), about
    lr C / (2 B H) for a small learning rate: constant over the directions if C is proportional
    to H.

    Parameters
    ----------
    noise_variance : array-like of shape (n_components,)
        C: variance of the gradient of single samples, or of batches with ``batch_size=1``.
    eigenvalues : array-like of shape (n_components,)
        H > 0.
    learning_rate : float
        Step size lr, below 2 / H for each H.
    batch_size : int, default=1
        Samples per batch, drawn with replacement.

    Returns
    -------
    ndarray of shape (n_components,)
        In squared parameter units; nan where no stationary state exists (H <= 0 or lr H >= 2).

    Raises
    ------
    ValueError
        If ``learning_rate`` or ``batch_size`` is not a positive number.

    See Also
    --------
    gradient_noise_along : Estimates C.

    References
    ----------
    Mandt, S., Hoffman, M. D. & Blei, D. M. (2017). Stochastic gradient descent as approximate
    Bayesian inference. Journal of Machine Learning Research 18, 1-35. arXiv:1704.04289.
    https://doi.org/10.48550/arXiv.1704.04289

    Examples
    --------
    >>> from skdmap.diagnostics import stationary_variance
    >>> stationary_variance([2.0, 1.0], [2.0, 1.0], learning_rate=0.001).round(6)
    array([0.000501, 0.0005  ])
    """
    rate = check_number("learning_rate", learning_rate, low=0.0, high=np.inf)
    batch = check_number("batch_size", batch_size, low=0.0, high=np.inf)
    noise, curvature = np.asarray(noise_variance, float), np.asarray(eigenvalues, float)
    stable = (curvature > 0) & (rate * curvature < 2)
    divisor = np.where(stable, batch * curvature * (2 - rate * curvature), np.nan)
    return np.asarray(rate * noise / divisor)


def _check(gradients: np.ndarray, components: np.ndarray, eigenvalues: np.ndarray) -> None:
    if gradients.ndim != 2 or len(gradients) < 2 or gradients.size == 0:
        raise ValueError(
            f"gradients has shape {gradients.shape}; it must be (n_gradients, n_parameters) with "
            "at least two gradients. Pass those of several batches."
        )
    if components.ndim != 2 or components.shape[1] != gradients.shape[1]:
        columns = components.shape[-1] if components.ndim else 0
        raise ValueError(
            f"components has {columns} columns and gradients has {gradients.shape[1]}; both must "
            "be two-dimensional with equal numbers of columns. Pass directions of the same "
            "parameters."
        )
    check_orthonormal(components)
    if eigenvalues.shape != (len(components),) or not np.isfinite(eigenvalues).all():
        raise ValueError(
            f"eigenvalues has shape {eigenvalues.shape}; it must contain {len(components)} finite "
            "numbers, one per direction. Pass eigenvalues_ together with components_."
        )


def _variances(gradients: np.ndarray, components: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the variance along each direction, and the sum over all axes."""
    mean = gradients.mean(axis=0, dtype=np.float64)
    if not np.isfinite(mean).all():
        raise ValueError(
            "gradients contains NaN or infinity; every entry must be finite. Compute them before "
            "the run diverges."
        )
    along, total = np.zeros(len(components)), 0.0
    block = max(1, _BLOCK_BYTES // (8 * gradients.shape[1]))
    for first in range(0, len(gradients), block):
        noise = gradients[first : first + block].astype(np.float64) - mean
        total += float(np.sum(noise**2))
        along += np.sum((noise @ components.T) ** 2, axis=0)
    return along / (len(gradients) - 1), total / (len(gradients) - 1)


def _line(x: np.ndarray, y: np.ndarray, confidence: float) -> tuple[float, np.ndarray, float]:
    """Return the least-squares slope, its interval and the correlation."""
    n = len(x)
    x, y = x - x.mean() if n else x, y - y.mean() if n else y
    if n < 3 or not x.any():
        return float("nan"), np.full(2, np.nan), float("nan")
    slope = float(x @ y / (x @ x))
    error = np.sqrt(max(np.sum((y - slope * x) ** 2), 0.0) / (n - 2) / (x @ x))
    half = student.ppf((1 + confidence) / 2, n - 2) * error
    size = np.sqrt((x @ x) * (y @ y))
    correlation = float(x @ y / size) if size > 0 else float("nan")
    return slope, np.array([slope - half, slope + half]), correlation
