"""A confidence interval for the mean of a bounded quantity."""

import numpy as np
from scipy.special import expit
from scipy.stats import t as student

# Two draws leave one degree of freedom: Student's quantile is 12.7, too wide to be of use.
_FEWEST_DRAWS = 3


def mean_interval(values: np.ndarray, confidence: float, bounds: tuple[float, float]) -> np.ndarray:
    """Return a confidence interval (2,) for the mean of independent draws within bounds.
    The upper bound may be infinite, or both. The result is nan for fewer than three draws.
    """
    if len(values) < _FEWEST_DRAWS:
        return np.full(2, np.nan)
    # Student's interval for the logit of the mean, or its logarithm without an upper bound, by the
    # delta method: it stays within the bounds.
    mean, (low, high) = float(values.mean()), bounds
    error = float(values.std(ddof=1)) / np.sqrt(len(values))
    half = student.ppf((1 + confidence) / 2, len(values) - 1) * error
    if half == 0:
        return np.full(2, mean)
    if np.isinf(low):
        return np.array([mean - half, mean + half])
    below, above = mean - low, high - mean
    if below <= 0 or above <= 0:  # the mean equals a bound up to rounding
        return np.array([low, high], dtype=np.float64)
    sides = np.array([-1.0, 1.0])
    if np.isinf(high):
        return np.asarray(low + below * np.exp(np.minimum(sides * half / below, 700.0)))
    logit = np.log(below / above) + sides * half * (high - low) / (below * above)
    return np.asarray(low + (high - low) * expit(logit))
