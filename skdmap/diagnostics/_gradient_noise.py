"""Gradients of many batches, and directions -> how much noise there is along each direction."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import chi2
from scipy.stats import t as student

from skdmap._argument_checks import check_number
from skdmap.diagnostics._displacement import check_orthonormal

__all__ = ["GradientNoise", "gradient_noise_along", "stationary_variance"]

_BLOCK_BYTES = 2**25


@dataclass(frozen=True)
class GradientNoise:
    """Variance of the gradient noise along some directions, against their eigenvalues.

    Attributes
    ----------
    variance : ndarray of shape (n_components,)
        Variance of a gradient along each direction, unbiased.
    variance_interval : ndarray of shape (n_components, 2)
        Its confidence interval, for independent, nearly Gaussian gradients.
    eigenvalues : ndarray of shape (n_components,)
        As given.
    total_variance : float
        Sum of the variances along all n_parameters axes.
    chance : float
        Variance along a uniformly random direction: total_variance / n_parameters.
    share : float
        Share of the total variance in the span of the directions.
    chance_share : float
        The same for random directions: n_components / n_parameters.
    slope : float
        Of log variance against log eigenvalue, by least squares over directions of positive
        eigenvalue and variance: 1 where the noise covariance is proportional to the Hessian, 0
        where it does not know of it. nan for fewer than three.
    slope_interval : ndarray of shape (2,)
        Its confidence interval by Student's t, the directions taken as independent draws.
    correlation : float
        Of the two logarithms.
    n_fitted : int
        Directions in the fit.
    n_gradients : int
        Gradients given.
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
    Along 4 directions that hold 100.0 % of the gradient noise (chance: 100.0 %), its variance
    grows as the eigenvalue to the power 0.99 (95 % interval 0.94 to 1.04, correlation 1.00).
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
        """Return the finding in a sentence.

        Returns
        -------
        str
            Computed from the attributes.
        """
        text = (
            f"Along {len(self.variance)} directions that hold {100 * self.share:.1f} % of the "
            f"gradient noise (chance: {100 * self.chance_share:.1f} %), its variance"
        )
        if self.n_fitted < 3:
            return (
                f"{text} is positive along {self.n_fitted} of positive eigenvalue, too few for a "
                "slope."
            )
        low, high = self.slope_interval
        return (
            f"{text} grows as the eigenvalue to the power {self.slope:.2f} "
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
        Gradients of independent batches, or of single rows of the data, all at one parameter
        vector. For batches of B rows the variance is that of single rows over B.
    components : array-like of shape (n_components, n_parameters)
        Orthonormal rows, such as ``HessianSpectrum().fit(...).components_``.
    eigenvalues : array-like of shape (n_components,)
        The eigenvalue of each; those that are not positive take no part in the slope.
    confidence : float, default=0.95
        Level of the intervals, in (0, 1).

    Returns
    -------
    GradientNoise
        Variances, their chance level, the slope; ``summary()`` says it in words.

    Raises
    ------
    ValueError
        If shapes do not fit, there are fewer than two gradients, an entry is not finite, the
        directions are not orthonormal, or ``confidence`` is out of its range.

    See Also
    --------
    stationary_variance : What the variance of the iterates should be.

    References
    ----------
    Xie, Z., Sato, I. & Sugiyama, M. (2021). A diffusion theory for deep learning dynamics.
    arXiv:2002.03495. https://doi.org/10.48550/arXiv.2002.03495

    Examples
    --------
    Noise that is alike in all directions does not follow any eigenvalues:

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
    """Return the variance of the iterates of plain SGD in equilibrium on a quadratic.

    Along an eigenvector of the Hessian with the eigenvalue H, the iterate follows
    x -> (1 - lr H) x + lr xi, xi of variance C / B. So its variance is
    lr C / (B H (2 - lr H)), which tends to lr C / (2 B H) for a small learning rate: flat over the
    directions where C is proportional to H.

    Parameters
    ----------
    noise_variance : array-like of shape (n_components,)
        C: variance of the gradient of single rows, or of batches with ``batch_size=1``.
    eigenvalues : array-like of shape (n_components,)
        H > 0.
    learning_rate : float
        Step size lr, below 2 / H for each H.
    batch_size : int, default=1
        Rows in a batch, drawn with replacement.

    Returns
    -------
    ndarray of shape (n_components,)
        In squared parameter units; nan where there is no equilibrium (H <= 0 or lr H >= 2).

    Raises
    ------
    ValueError
        If ``learning_rate`` or ``batch_size`` is not a positive number.

    See Also
    --------
    gradient_noise_along : Where C comes from.

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
            "at least two rows. Pass the gradients of several batches."
        )
    if components.ndim != 2 or components.shape[1] != gradients.shape[1]:
        columns = components.shape[-1] if components.ndim else 0
        raise ValueError(
            f"components has {columns} columns and gradients has {gradients.shape[1]}; both must "
            "be two-dimensional and have as many. Pass directions of the same parameters."
        )
    check_orthonormal(components)
    if eigenvalues.shape != (len(components),) or not np.isfinite(eigenvalues).all():
        raise ValueError(
            f"eigenvalues has shape {eigenvalues.shape}; it must hold {len(components)} finite "
            "numbers, one per direction. Pass eigenvalues_ beside components_."
        )


def _variances(gradients: np.ndarray, components: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the variance along each direction, and the sum over all axes."""
    mean = gradients.mean(axis=0, dtype=np.float64)
    if not np.isfinite(mean).all():
        raise ValueError(
            "gradients holds NaN or infinity; every entry must be finite. Take them before the "
            "run diverged."
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
