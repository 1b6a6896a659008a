import numpy as np
import pytest
from scipy.linalg import expm

from skdmap._sklearn_compat import InvalidParameterError
from skdmap.datasets import make_ornstein_uhlenbeck

A = np.array([[2.0, 0.7, 0.0], [0.7, 1.0, -0.2], [0.0, -0.2, 4.0]])


def test_independent_points_have_the_stationary_covariance():
    n = 40_000
    X = make_ornstein_uhlenbeck(n, precision=A, random_state=0).X
    cov = np.linalg.inv(A)
    # Var of a sample covariance of a normal: (C_ii C_jj + C_ij^2) / n.
    error = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / n)
    assert (np.abs(X.T @ X / n - cov) < 4.5 * error).all()


def test_a_path_has_the_exact_transition_and_stays_stationary():
    n, dt = 40_000, 0.3
    path = make_ornstein_uhlenbeck(n, precision=A, time_step=dt, random_state=1)
    cov, decay = np.linalg.inv(A), expm(-A * dt)
    noise = path.X[1:] - path.X[:-1] @ decay.T
    expected = cov - decay @ cov @ decay.T
    error = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / n)
    assert (np.abs(noise.T @ noise / n - expected) < 4.5 * error).all()
    cross = noise.T @ path.X[:-1] / n
    error = np.sqrt(np.outer(np.diag(expected), np.diag(cov)) / n)
    assert (np.abs(cross) < 4.5 * error).all()
    np.testing.assert_allclose(np.diff(path.time), dt)


def test_paths_start_in_equilibrium():
    starts = [
        make_ornstein_uhlenbeck(2, precision=[4.0], time_step=0.01, random_state=s).X[:, 0]
        for s in range(2000)
    ]
    # Variance 1/4, standard error sqrt(2 / n) / 4.
    assert np.abs(np.square(starts).mean(axis=0) - 0.25).max() < 4.5 * np.sqrt(2 / 2000) / 4


def test_modes_diagonalise_the_drift():
    process = make_ornstein_uhlenbeck(500, precision=A, random_state=0)
    a = np.linalg.eigvalsh(A)
    np.testing.assert_allclose(process.axes @ A @ process.axes.T, np.diag(a), atol=1e-13)
    np.testing.assert_allclose(process.modes, process.X @ process.axes.T * np.sqrt(a), atol=1e-12)


def test_rates_are_multi_index_sums():
    a = np.linalg.eigvalsh(A)
    grid = np.stack(np.meshgrid(*[np.arange(12)] * 3), axis=-1).reshape(-1, 3)
    np.testing.assert_allclose(
        make_ornstein_uhlenbeck(5, precision=A, random_state=0).rates,
        np.sort(grid @ a)[1:11],
        rtol=1e-13,
    )


@pytest.mark.parametrize(
    "precision",
    [[1.0, -1.0], [[1.0, 2.0], [2.0, 1.0]], [[1.0, 0.1], [0.2, 1.0]], [np.nan], 3.0, []],
)
def test_a_precision_that_is_none_is_named(precision):
    with pytest.raises(InvalidParameterError, match=r"precision=.* positive"):
        make_ornstein_uhlenbeck(10, precision=precision)
