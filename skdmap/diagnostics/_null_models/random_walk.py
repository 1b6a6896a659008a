"""Random walks, and the isotropic directions they are made of."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.signal import lfilter

from skdmap._argument_checks import check_count, check_number
from skdmap._random import numpy_generator


def random_walk(
    n_steps: int,
    n_dimensions: int,
    *,
    step_norms: float | ArrayLike | None = None,
    lag_correlation: float = 0.0,
    drift: float = 0.0,
    random_state: Any = None,
) -> np.ndarray:
    r"""Draw a random walk, the simplest null model of a training run.

    The steps are s_i = l_i d_i with directions d_i = c e + sqrt(1 - c^2) a_i. Here e is a fixed
    random unit vector, c is the ``drift``, and a_i is a stationary AR(1) process,
    a_i = r a_(i-1) + sqrt(1 - r^2) g_i, with r the ``lag_correlation`` and g_i Gaussian of mean
    square norm 1.

    Parameters
    ----------
    n_steps : int
        Number of steps; row i is the position after i + 1 steps from the origin.
    n_dimensions : int
        Number of columns.
    step_norms : float or array-like of shape (n_steps,), default=None
        Exact length of each step. None draws Gaussian steps of mean square length
        ``n_dimensions``: unit variance in each column.
    lag_correlation : float, default=0.0
        Correlation r of successive steps, in (-1, 1); momentum 0.9 gives 0.9.
    drift : float, default=0.0
        Cosine c, in [0, 1], between each step and a constant direction.
    random_state : int, RandomState instance, Generator or None, default=None
        Seed of the draws.

    Returns
    -------
    ndarray of shape (n_steps, n_dimensions)
        Positions, in float64.

    Raises
    ------
    ValueError
        If an argument is out of range, or ``step_norms`` has the wrong shape or contains a negative
        length.

    See Also
    --------
    surrogate_trajectories : Walks with the step lengths of a recorded trajectory.

    References
    ----------
    Antognini, J. & Sohl-Dickstein, J. (2018). PCA of high dimensional random walks with comparison
    to neural network training. arXiv:1806.08805. https://doi.org/10.48550/arXiv.1806.08805

    Examples
    --------
    The principal components of every long walk explain 6 / (pi k)^2 of its variance, 60.8 %,
    15.2 %, 6.8 %, ..., although no direction is preferred:

    >>> import numpy as np
    >>> from skdmap.diagnostics import random_walk
    >>> walk = random_walk(200, 2000, random_state=0)
    >>> variances = np.linalg.svd(walk - walk.mean(axis=0), compute_uv=False) ** 2
    >>> (variances[:2] / variances.sum()).round(1)
    array([0.6, 0.2])
    """
    n_steps = check_count("n_steps", n_steps)
    n_dimensions = check_count("n_dimensions", n_dimensions)
    correlation = check_number("lag_correlation", lag_correlation, low=-1.0, high=1.0)
    drift = check_number("drift", drift, low=0.0, high=1.0, closed=True)
    norms = None if step_norms is None else _checked_norms(step_norms, n_steps)
    generator = numpy_generator(random_state)
    steps = correlated(generator.standard_normal((n_steps, n_dimensions)), correlation)
    if drift:
        direction = generator.standard_normal(n_dimensions)
        direction *= np.sqrt(n_dimensions) / np.linalg.norm(direction)
        steps = drift * direction + np.sqrt(1 - drift**2) * steps
    return np.cumsum(steps if norms is None else scaled_to(steps, norms), axis=0)


def isotropic_rows(
    n_rows: int, n_columns: int, n_fixed: int, generator: np.random.Generator
) -> np.ndarray:
    """Draw standard normal rows in n_columns dimensions, in (n_rows, n_fixed + n_rows) coordinates.
    Scalar products are distributed as in n_columns dimensions; the first n_fixed axes are kept.
    """
    # Scalar products of standard normal rows follow a Wishart distribution, whose triangular factor
    # has independent entries: n rows in a million columns are n (n + 1) / 2 numbers (Bartlett 1933,
    # https://doi.org/10.1017/S0370164600015637).
    free = n_columns - n_fixed
    if free <= n_rows:
        return generator.standard_normal((n_rows, n_columns))
    rows = np.zeros((n_rows, n_fixed + n_rows))
    rows[:, :n_fixed] = generator.standard_normal((n_rows, n_fixed))
    below = np.tril_indices(n_rows, -1)
    triangle = rows[:, n_fixed:]
    triangle[below] = generator.standard_normal(len(below[0]))
    np.fill_diagonal(triangle, np.sqrt(generator.chisquare(free - np.arange(n_rows))))
    return rows


def correlated(noise: np.ndarray, correlation: float) -> np.ndarray:
    """Return the stationary AR(1) process driven by white rows of noise."""
    if correlation == 0 or len(noise) < 2:
        return noise
    driven = noise * np.sqrt(1 - correlation**2)
    driven[0] = noise[0]
    return np.asarray(lfilter([1.0], [1.0, -correlation], driven, axis=0))


def scaled_to(rows: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Return the rows, scaled to the given norms."""
    lengths = np.linalg.norm(rows, axis=1)
    return rows * (norms / np.where(lengths > 0, lengths, 1.0))[:, None]


def _checked_norms(step_norms: float | ArrayLike, n_steps: int) -> np.ndarray:
    norms = np.asarray(step_norms, dtype=np.float64)
    if norms.ndim == 0:
        norms = np.full(n_steps, float(norms))
    if norms.shape != (n_steps,) or not (np.isfinite(norms) & (norms >= 0)).all():
        raise ValueError(
            f"step_norms has shape {norms.shape} and minimum {norms.min(initial=np.inf)}; it must "
            f"contain {n_steps} finite lengths >= 0. Pass one number for all steps, or "
            "numpy.linalg.norm(numpy.diff(snapshots, axis=0), axis=1)."
        )
    return norms
