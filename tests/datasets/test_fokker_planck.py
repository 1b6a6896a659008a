import itertools

import numpy as np
import pytest
from numpy.polynomial import hermite_e
from scipy.special import gammaln

from skdmap._sklearn_compat import InvalidParameterError
from skdmap.datasets import fokker_planck_rates
from skdmap.datasets._fokker_planck import summed_rates


def double_well(x):
    return 3 * (x**2 - 1) ** 2


def test_the_harmonic_potential_has_integer_rates():
    rates = fokker_planck_rates(lambda x: x**2 / 2, (-10, 10), 6).rates
    np.testing.assert_allclose(rates, np.arange(1, 7), rtol=1e-8)


def test_the_error_falls_as_the_square_of_the_cell():
    one, two, four = (
        fokker_planck_rates(double_well, (-2.5, 2.5), 4, n_cells=n).rates for n in (400, 800, 1600)
    )
    np.testing.assert_allclose((one - two) / (two - four), 4, rtol=0.02)


def test_a_flat_potential_has_the_neumann_spectrum():
    rates = fokker_planck_rates(np.zeros_like, (1.0, 3.0), 4, n_cells=2000).rates
    np.testing.assert_allclose(rates, (np.pi * np.arange(1, 5) / 2) ** 2, rtol=1e-5)


def test_harmonic_eigenfunctions_are_hermite_polynomials():
    found = fokker_planck_rates(lambda x: x**2 / 2, (-9, 9), 4, n_cells=4000)
    bulk = np.abs(found.grid) < 4
    expected = hermite_e.hermevander(found.grid[bulk], 4)[:, 1:]
    expected /= np.exp(gammaln(np.arange(2, 6)) / 2)
    np.testing.assert_allclose(found.eigenfunctions[bulk], expected, atol=2e-3)


def test_eigenfunctions_satisfy_the_weak_equation():
    # Dirichlet form: the integral of exp(-V) psi'^2 over that of exp(-V) psi^2 is the rate.
    found = fokker_planck_rates(double_well, (-2.5, 2.5), 3, n_cells=4000)
    dx = found.grid[1] - found.grid[0]
    mass = found.density * dx
    np.testing.assert_allclose(mass.sum(), 1, rtol=1e-12)
    gram = (found.eigenfunctions.T * mass) @ found.eigenfunctions
    np.testing.assert_allclose(gram, np.eye(3), atol=1e-9)
    slope = np.gradient(found.eigenfunctions, dx, axis=0)
    bulk = found.density > 1e-9
    form = (mass[bulk, None] * slope[bulk] ** 2).sum(axis=0)
    np.testing.assert_allclose(form, found.rates, rtol=1e-4)


def test_the_slow_rate_tends_to_that_of_kramers():
    # Kramers, Physica 7 (1940): the exchange between two wells relaxes at twice the escape rate
    # sqrt(V''(a) |V''(0)|) / (2 pi) exp(-barrier), up to a relative error of order 1 / barrier.
    for barrier in (6.0, 9.0):
        rate = fokker_planck_rates(
            lambda x, b=barrier: b * (x**2 - 1) ** 2, (-2.2, 2.2), 1, n_cells=4000
        ).rates[0]
        kramers = np.sqrt(8 * barrier * 4 * barrier) / np.pi * np.exp(-barrier)
        assert abs(rate / kramers - 1) < 1 / barrier


def test_rates_scale_as_one_over_length_squared_and_ignore_a_constant():
    plain = fokker_planck_rates(double_well, (-2.5, 2.5), 3).rates
    wide = fokker_planck_rates(lambda x: double_well(x / 10) + 900.0, (-25, 25), 3).rates
    np.testing.assert_allclose(wide * 100, plain, rtol=1e-7)


def test_summed_rates_are_the_smallest_of_all_sums():
    rng = np.random.default_rng(0)
    spectra = [np.append(0, np.sort(rng.uniform(0.1, 5, 6))) for _ in range(3)]
    every = sorted(sum(choice) for choice in itertools.product(*spectra))
    np.testing.assert_allclose(summed_rates(spectra, 6), every[1:7], rtol=1e-14)


@pytest.mark.parametrize(
    ("potential", "bounds", "message"),
    [
        (np.log, (-1.0, 1.0), "potential must return finite values"),
        (lambda x: 0.0, (-1.0, 1.0), "potential must return finite values of shape"),
        (np.square, (1.0, -1.0), r"bounds\[1\]=-1.0 .* two ascending numbers"),
        (np.square, 3.0, "bounds=3.0 must be a pair"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_bad_problems_are_named(potential, bounds, message):
    with pytest.raises(InvalidParameterError, match=message):
        fokker_planck_rates(potential, bounds)
