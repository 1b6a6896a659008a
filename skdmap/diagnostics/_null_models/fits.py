"""What null models preserve of a run, estimated from the Gram matrix of its steps."""

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import brentq

# A weaker pull would not bring a path back within the longest of runs.
_LEAST_PULL = 1e-6
# Standard deviation of the window over which a drift is averaged, as a share of the run, and at
# least in steps: noise of single steps must not pass for a drift.
_WINDOW, _LEAST_WINDOW = 1 / 20, 5.0


def drift_cosine(gram: np.ndarray) -> float:
    """Return the cosine, in [0, 1], between a step and a drift of constant share."""
    # Its square is the mean cosine of two different steps. Steps of a walk without drift are
    # orthogonal on average, so leaving out the squares makes it unbiased.
    norms = np.sqrt(np.diag(gram))
    products = gram.sum() - np.trace(gram)
    lengths = norms.sum() ** 2 - np.sum(norms**2)
    return float(np.sqrt(np.clip(products / lengths, 0.0, 1.0))) if lengths > 0 else 0.0


def lag_correlation(gram: np.ndarray) -> float:
    """Return the mean cosine of successive steps; 0 if no two successive steps move."""
    norms = np.sqrt(np.diag(gram))
    lengths = norms[:-1] * norms[1:]
    moving = lengths > 0
    if not moving.any():
        return 0.0
    return float(np.clip(np.mean(np.diag(gram, 1)[moving] / lengths[moving]), -1.0, 1.0))


def drift_profile(gram: np.ndarray) -> np.ndarray:
    """Return the cosine (n_steps,) of each step with a drift in one direction that may decay."""
    # For steps s_t = m_t e + noise, <s_t, s_u> is m_t m_u on average for t != u. So the sum over
    # all others, divided by the root of the sum over all pairs, is m_t on average.
    squared = np.diag(gram)
    products = gram.sum() - squared.sum()
    if products <= 0:
        return np.zeros(len(gram))
    along = (gram.sum(axis=1) - squared) / np.sqrt(products)
    width = max(_LEAST_WINDOW, _WINDOW * len(gram))
    drift, length = (
        gaussian_filter1d(values, width, mode="nearest") for values in (along, np.sqrt(squared))
    )
    return np.clip(drift / np.where(length > 0, length, 1.0), 0.0, 1.0)


def mean_drift_cosine(gram: np.ndarray) -> float:
    """Return the mean of :func:`drift_profile`, weighted by the length of the steps."""
    return float(np.average(drift_profile(gram), weights=np.sqrt(np.diag(gram))))


def mean_reversion(gram: np.ndarray) -> tuple[float, float]:
    """Return the pull a, in [0, 1], to a centre per step, and the drift towards it at the start.
    The drift is |v| in the model s_t = v - a y_t + noise, y_t the displacement from the start.
    """
    # Least squares overestimate a by about 3 / n, since the mean of y contains a share of each
    # noise term: the bias of dynamic panels (Nickell 1981, https://doi.org/10.2307/1911408). The
    # expectation of that product, given a, is
    # (1/n) sum_t |noise_t|^2 (1 - (1 - a)^(n - 1 - t)) / a. Adding it to the equation for a makes
    # the solution consistent as the number of columns grows (Lancaster 2002,
    # https://doi.org/10.1111/1467-937X.t01-1-00025). Over 30 to 100 steps in two columns a pull
    # below 0.02 is still overestimated several times.
    n = len(gram)
    cross, places = np.zeros((n, n)), np.zeros((n, n))
    cross[1:] = gram.cumsum(axis=0)[:-1]
    places[:, 1:] = cross.cumsum(axis=1)[:, :-1]
    # Residuals are s + a y minus their mean; these are the terms of their squares.
    parts = [np.diag(_centred(products)) for products in (gram, cross, places)]
    left = n - 1 - np.arange(n)

    def squares(pull: float) -> np.ndarray:
        residual = parts[0] + 2 * pull * parts[1] + pull**2 * parts[2]
        return np.asarray(np.maximum(residual, 0.0) * n / (n - 1))

    def equation(pull: float) -> float:
        shared = np.sum(squares(pull) * (1 - (1 - pull) ** left)) / (n * pull)
        return float(parts[1].sum() + pull * parts[2].sum() + shared)

    pull = _last_crossing(equation)
    mean = gram.mean() + 2 * pull * cross.mean() + pull**2 * places.mean()
    return pull, float(np.sqrt(max(mean - squares(pull).sum() / n**2, 0.0)))


def _last_crossing(equation: Callable[[float], float]) -> float:
    """Return the largest root; a smaller one is the spurious root near 0 (Lancaster, 2002)."""
    # For a weak pull the two roots merge and may vanish in the noise; the minimum is used then.
    grid = np.geomspace(_LEAST_PULL, 1.0, 61)
    values = np.array([equation(pull) for pull in grid])
    if values[-1] < 0:
        return 1.0
    below = np.flatnonzero(values < 0)
    if len(below) > 0:
        return float(brentq(equation, grid[below[-1]], grid[below[-1] + 1]))
    least = int(np.argmin(values))
    return float(grid[least]) if least > 0 else 0.0


def _centred(products: np.ndarray) -> np.ndarray:
    """Return scalar products of vectors minus their means, on both sides."""
    row, column = products.mean(axis=1, keepdims=True), products.mean(axis=0)
    return np.asarray(products - row - column + products.mean())
