"""Scalar products of recorded steps -> what a null model keeps of them: a few numbers a run."""

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import brentq

# A pull below it is none: the path would not turn round within the longest of runs.
_LEAST_PULL = 1e-6
# Standard deviation of the window over which a drift is averaged, as a share of the run, and at
# least in steps: noise of single steps must not pass for a drift.
_WINDOW, _LEAST_WINDOW = 1 / 20, 5.0


def drift_cosine(gram: np.ndarray) -> float:
    """Return the cosine between a step and a drift that is an equal share of every step.

    Parameters
    ----------
    gram : ndarray of shape (n_steps, n_steps)
        Scalar products.

    Returns
    -------
    float
        In [0, 1]; its square is the mean cosine of two different steps. Steps of a walk without
        drift are orthogonal on average, so leaving out the squares makes it unbiased.
    """
    norms = np.sqrt(np.diag(gram))
    products = gram.sum() - np.trace(gram)
    lengths = norms.sum() ** 2 - np.sum(norms**2)
    return float(np.sqrt(np.clip(products / lengths, 0.0, 1.0))) if lengths > 0 else 0.0


def _mean_profile(gram: np.ndarray) -> float:
    return float(np.average(drift_profile(gram), weights=np.sqrt(np.diag(gram))))


def lag_correlation(gram: np.ndarray) -> float:
    """Return the mean cosine between successive steps, from their scalar products.

    Parameters
    ----------
    gram : ndarray of shape (n_steps, n_steps)
        Scalar products; pairs with a step of length 0 are left out.

    Returns
    -------
    float
        In [-1, 1]; 0 where no pair is left.
    """
    norms = np.sqrt(np.diag(gram))
    lengths = norms[:-1] * norms[1:]
    moving = lengths > 0
    if not moving.any():
        return 0.0
    return float(np.clip(np.mean(np.diag(gram, 1)[moving] / lengths[moving]), -1.0, 1.0))


def _pull(gram: np.ndarray) -> float:
    return mean_reversion(gram)[0]


# For each kind of null model that keeps a number: how to find it, and what it is.
FITS: dict[str, tuple[Callable[[np.ndarray], float], str]] = {
    "drift": (drift_cosine, "cosine of a step with the drift"),
    "decaying_drift": (_mean_profile, "mean cosine of a step with the drift"),
    "ar1": (lag_correlation, "mean cosine of successive steps"),
    "ornstein_uhlenbeck": (_pull, "pull per step"),
}


def drift_profile(gram: np.ndarray) -> np.ndarray:
    r"""Return the cosine between each step and a drift in one direction that may die away.

    For steps s_t = m_t e + noise, <s_t, s_u> is m_t m_u on average for t != u. So the sum over
    all others, divided by the root of the sum over all pairs, is m_t on average. It is smoothed
    along the run, as a share of the length of the step.

    Parameters
    ----------
    gram : ndarray of shape (n_steps, n_steps)
        Scalar products.

    Returns
    -------
    ndarray of shape (n_steps,)
        In [0, 1]; 0 throughout where the steps have no common direction.
    """
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


def mean_reversion(gram: np.ndarray) -> tuple[float, float]:
    """Return the pull to a centre per step, and the drift towards it at the start of the run.

    Steps are s_t = v - a y_t + noise, y_t being the way from the start, a the pull, and v / a
    the way from the start to the centre. Least squares give a too large by about 3 / n, because
    the mean of y holds a share of each noise. The expectation of this product is known where a
    is: (1/n) sum_t |noise_t|^2 (1 - (1 - a)^(n - 1 - t)) / a. Adding it to the equation for a
    makes its solution consistent as columns grow, whatever the place of the start; over 30 to 100
    steps in two columns a pull below 0.02 comes out several times too large.

    Parameters
    ----------
    gram : ndarray of shape (n_steps, n_steps)
        Scalar products.

    Returns
    -------
    tuple of float and float
        a in [0, 1], 0 where the path shows no pull, and the length of v, in units of a step.

    References
    ----------
    Nickell, S. (1981). Biases in dynamic models with fixed effects. Econometrica 49, 1417-1426.
    https://doi.org/10.2307/1911408

    Lancaster, T. (2002). Orthogonal parameters and panel data. Review of Economic Studies 69,
    647-666. https://doi.org/10.1111/1467-937X.t01-1-00025
    """
    n = len(gram)
    cross, places = np.zeros((n, n)), np.zeros((n, n))
    cross[1:] = gram.cumsum(axis=0)[:-1]
    places[:, 1:] = cross.cumsum(axis=1)[:, :-1]
    # Residuals are s + a y less their mean; these are the parts of their squares.
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
    """Return the largest root; a smaller one is the spurious one beside 0 (Lancaster, 2002).

    The two run into each other where the pull is weak, and may vanish by the noise: then it is
    where the equation comes nearest to a root.
    """
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
    """Return scalar products of vectors less their means, on both sides."""
    row, column = products.mean(axis=1, keepdims=True), products.mean(axis=0)
    return np.asarray(products - row - column + products.mean())
