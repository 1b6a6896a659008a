"""A number of each run -> an interval for its mean that stays in the range of the number."""

import numpy as np
from scipy.special import expit
from scipy.stats import t as student

__all__ = ["interval_over_runs"]

# Two runs leave one degree of freedom: Student's quantile is 12.7, an interval says nothing.
_FEWEST_RUNS = 3


def interval_over_runs(
    values: np.ndarray, confidence: float, bounds: tuple[float, float]
) -> np.ndarray:
    """Return an interval for the mean of a number that lies between bounds.

    Parameters
    ----------
    values : ndarray of shape (n_runs,)
        Independent draws.
    confidence : float
        Level.
    bounds : tuple of float and float
        Least and largest possible value; the largest may be infinite.

    Returns
    -------
    ndarray of shape (2,)
        nan for fewer than three runs. On the scale of logit((m - low) / (high - low)), or of
        log(m - low), the mean m has about the standard error of the values' mean times the
        derivative of the scale, and Student's quantile.
    """
    if len(values) < _FEWEST_RUNS:
        return np.full(2, np.nan)
    mean, (low, high) = float(values.mean()), bounds
    error = float(values.std(ddof=1)) / np.sqrt(len(values))
    half = student.ppf((1 + confidence) / 2, len(values) - 1) * error
    if half == 0:
        return np.full(2, mean)
    below, above = mean - low, high - mean
    if below <= 0 or above <= 0:  # a bound, up to rounding: nothing can be said on that scale
        return np.array([low, high], dtype=np.float64)
    sides = np.array([-1.0, 1.0])
    if np.isinf(high):
        return np.asarray(low + below * np.exp(np.minimum(sides * half / below, 700.0)))
    logit = np.log(below / above) + sides * half * (high - low) / (below * above)
    return np.asarray(low + (high - low) * expit(logit))
