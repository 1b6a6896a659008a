import numpy as np
import pytest
from scipy.integrate import quad

from skdmap.datasets import fokker_planck_rates, make_double_well, make_double_well_trajectory


def moments(barrier, a):
    """Return the second and fourth moment of exp(-V), by quadrature."""

    def integral(k):
        return quad(lambda x: x**k * np.exp(-barrier * ((x / a) ** 2 - 1) ** 2), -5 * a, 5 * a)[0]

    return integral(2) / integral(0), integral(4) / integral(0), integral(8) / integral(0)


@pytest.mark.parametrize(("barrier", "a"), [(1.0, 1.0), (3.0, 2.0)])
def test_samples_have_the_moments_of_the_density(barrier, a):
    n = 40_000
    x = make_double_well(n, barrier=barrier, well_position=a, random_state=0).slow_coordinate
    second, fourth, eighth = moments(barrier, a)
    assert abs(x.mean()) < 4 * np.sqrt(second / n)
    assert abs((x**2).mean() - second) < 4 * np.sqrt((fourth - second**2) / n)
    assert abs((x**4).mean() - fourth) < 4 * np.sqrt((eighth - fourth**2) / n)


def test_samples_invert_the_distribution_function():
    def mass(x):
        return quad(lambda y: np.exp(-3 * (y**2 - 1) ** 2), -4, x, epsabs=1e-12, points=[-1, 0])[0]

    x = make_double_well(30, n_features=1, random_state=5).slow_coordinate
    # The trapezoid rule and linear interpolation on cells of 2e-4 leave errors of order 1e-8.
    expected = np.random.default_rng(5).uniform(size=30)
    np.testing.assert_allclose([mass(xi) / mass(4.0) for xi in x], expected, atol=1e-7)


def test_samples_are_independent():
    x = make_double_well(20_000, random_state=1).slow_coordinate
    assert abs(np.corrcoef(x[1:], x[:-1])[0, 1]) < 4 / np.sqrt(20_000)


def test_other_columns_are_normal_with_the_scale_asked_for():
    well = make_double_well(20_000, n_features=3, nuisance_scale=0.7, random_state=0)
    np.testing.assert_array_equal(well.X[:, 0], well.slow_coordinate)
    # Standard error of a standard deviation over 40,000 numbers: 0.35 %.
    assert abs(well.X[:, 1:].std() / 0.7 - 1) < 4 * 0.0035


def test_rates_are_those_of_the_well_and_the_nuisance_together():
    well = make_double_well(10, n_features=2, nuisance_scale=0.5, random_state=0)
    # A solution on another interval and a finer grid, extrapolated from two.
    coarse, fine = (
        fokker_planck_rates(lambda x: 3 * (x**2 - 1) ** 2, (-2.3, 2.3), 10, n_cells=n).rates
        for n in (2000, 4000)
    )
    one = np.append(0, (4 * fine - coarse) / 3)
    sums = np.sort(np.add.outer(one, 4.0 * np.arange(11)), axis=None)
    np.testing.assert_allclose(well.rates, sums[1:11], rtol=1e-5)
    alone = make_double_well(10, n_features=1, random_state=0)
    np.testing.assert_allclose(alone.rates, one[1:], rtol=1e-4)


def test_the_slow_eigenfunction_increases_with_mean_square_one():
    well = make_double_well(20_000, random_state=0)
    order = np.argsort(well.slow_coordinate)
    assert (np.diff(well.slow_eigenfunction[order]) >= 0).all()
    square = well.slow_eigenfunction**2
    assert abs(square.mean() - 1) < 4 * square.std() / np.sqrt(20_000)


def test_a_path_relaxes_at_the_known_rate_and_keeps_the_equilibrium():
    n, dt = 20_000, 0.1
    path = make_double_well_trajectory(n, n_features=3, barrier=1.0, time_step=dt, random_state=0)
    slowest = path.rates[0]
    # The mean of psi(0) psi(t) is exp(-rate t); its standard error over a run of length T is about
    # sqrt(2 / (rate T)) times the standard deviation, which is about 1.
    error = np.sqrt(2 / (slowest * n * dt))
    psi = path.slow_eigenfunction
    for lag in (0, 5, 10, 20):
        found = (psi[: n - lag] * psi[lag:]).mean()
        assert abs(found - np.exp(-slowest * lag * dt)) < 4 * error
    second = moments(1.0, 1.0)[0]
    assert abs((path.slow_coordinate**2).mean() - second) < 4 * error
    np.testing.assert_allclose(path.time, dt * np.arange(n))


def test_nuisance_of_a_path_follows_its_own_transition():
    n = 20_000
    path = make_double_well_trajectory(n, n_features=2, nuisance_scale=0.5, random_state=0)
    y = (path.X @ path.rotation)[:, 1] / 0.5
    decay = np.exp(-0.1 / 0.25)
    error = np.sqrt((1 + decay**2) / (1 - decay**2) / n)
    assert abs((y**2).mean() - 1) < 4 * np.sqrt(2) * error
    assert abs((y[1:] * y[:-1]).mean() - decay) < 4 * np.sqrt(2) * error


def test_a_fine_recording_has_the_diffusivity_of_the_noise():
    # The mean squared step tends to 2 dt; its relative standard error is sqrt(2 / n).
    n, dt = 20_000, 1e-4
    path = make_double_well_trajectory(n, n_features=1, time_step=dt, random_state=4)
    step = np.diff(path.slow_coordinate)
    assert abs(np.square(step).mean() / (2 * dt) - 1) < 4 * np.sqrt(2 / n)
    assert abs(np.corrcoef(step[1:], step[:-1])[0, 1]) < 4 / np.sqrt(n)


def test_the_rotation_is_orthogonal_and_gives_back_the_slow_coordinate():
    path = make_double_well_trajectory(100, random_state=0)
    assert path.X.shape == (100, 50)
    np.testing.assert_allclose(path.rotation.T @ path.rotation, np.eye(50), atol=1e-13)
    np.testing.assert_allclose((path.X @ path.rotation)[:, 0], path.slow_coordinate, atol=1e-12)
    assert np.abs(path.rotation).max() < 0.9
