"""The Ornstein-Uhlenbeck process: equilibrium samples, exact paths, and relaxation rates."""

from typing import Any

import numpy as np
from sklearn.utils import Bunch

from skdmap._argument_checks import check_count, check_number
from skdmap._random import numpy_generator
from skdmap._sklearn_compat import InvalidParameterError
from skdmap.datasets._fokker_planck import summed_rates

_N_RATES = 10


def make_ornstein_uhlenbeck(
    n_samples: int = 2000,
    *,
    precision: Any = (1.0, 3.0),
    time_step: float | None = None,
    random_state: Any = None,
) -> Bunch:
    """Sample the Ornstein-Uhlenbeck process dx = -A x dt + sqrt(2) dW in equilibrium.

    The potential is V = x' A x / 2 and the stationary distribution N(0, A^-1). The rates are the
    sums m_1 a_1 + ... + m_d a_d, m_i = 0, 1, 2, ..., of the eigenvalues a_i of A. The
    eigenfunctions are products of Hermite polynomials He_{m_i} of the modes.

    Parameters
    ----------
    n_samples : int, default=2000
        Number of points.
    precision : array-like of shape (d,) or (d, d), default=(1.0, 3.0)
        Drift matrix A, symmetric and positive definite, or its diagonal; in 1 / length^2.
    time_step : float, default=None
        Time between the points of a path, which starts in equilibrium and follows the exact
        transition N(exp(-A t) x, A^-1 (1 - exp(-2 A t))). None draws independent points.
    random_state : int, RandomState instance, Generator or None, default=None
        Seed of the draws.

    Returns
    -------
    Bunch
        ``X`` (n_samples, d); ``modes`` (n_samples, d), the coordinates along the eigenvectors of
        A, slowest first, scaled to variance 1; the first is the slowest eigenfunction; ``axes``
        (d, d), the eigenvectors of A as rows, in that order; ``precision`` (d, d); ``rates`` (10,),
        the smallest without the trivial 0; ``time`` (n_samples,), or None.

    Raises
    ------
    InvalidParameterError
        If ``precision`` is not symmetric and positive definite, or a number is out of range.

    Examples
    --------
    >>> from skdmap.datasets import make_ornstein_uhlenbeck
    >>> make_ornstein_uhlenbeck(100, precision=[1.0, 3.0], random_state=0).rates[:5]
    array([1., 2., 3., 3., 4.])
    """
    n_samples = check_count("n_samples", n_samples)
    matrix, eigenvalues, axes = _checked_precision(precision)
    generator = numpy_generator(random_state)
    if time_step is None:
        modes = generator.standard_normal((n_samples, len(eigenvalues)))
    else:
        time_step = check_number("time_step", time_step)
        modes = stationary_path(eigenvalues, n_samples, time_step, generator)
    spectra = [a * np.arange(_N_RATES + 1) for a in eigenvalues]
    return Bunch(
        X=(modes / np.sqrt(eigenvalues)) @ axes,
        modes=modes,
        axes=axes,
        precision=matrix,
        rates=summed_rates(spectra, _N_RATES),
        time=None if time_step is None else time_step * np.arange(n_samples),
    )


def stationary_path(
    rates: np.ndarray, n: int, time_step: float, generator: np.random.Generator
) -> np.ndarray:
    """Return a path (n, d) of d independent stationary processes of unit variance."""
    decay = np.exp(-rates * time_step)
    spread = np.sqrt(-np.expm1(-2 * rates * time_step))
    path = generator.standard_normal((n, len(rates)))
    for i in range(1, n):
        path[i] = decay * path[i - 1] + spread * path[i]
    return path


def _checked_precision(precision: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the matrix A, its eigenvalues in ascending order and its eigenvectors as rows."""
    matrix = np.asarray(precision, dtype=np.float64)
    if matrix.ndim == 1:
        matrix = np.diag(matrix)
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] and matrix.size > 0
    if square and np.isfinite(matrix).all() and np.allclose(matrix, matrix.T, rtol=1e-12, atol=0):
        eigenvalues, vectors = np.linalg.eigh(matrix)
        if eigenvalues[0] > 0:
            return matrix, eigenvalues, vectors.T
    raise InvalidParameterError(
        f"precision={precision!r} must be a vector of positive numbers or a symmetric positive "
        "definite matrix. Pass the diagonal of A, or A symmetrised as (A + A') / 2."
    )
