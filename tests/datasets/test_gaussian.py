import numpy as np
import pytest
from scipy.special import ndtr

from skdmap.datasets import gaussian_eigenfunctions, gaussian_eigenvalues, make_gaussian

ALPHAS = (0.0, 0.25, 0.5, 1.0)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("bandwidth", [0.3, 0.5, 1.0])
def test_markov_eigenvalues_on_the_quadrature(markov, alpha, bandwidth):
    normal = make_gaussian(200)
    found = markov(normal.X, bandwidth, alpha, normal.sample_weight).eigenvalues
    expected = gaussian_eigenvalues(bandwidth, 6, alpha=alpha)
    np.testing.assert_allclose(found[1:7], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("bandwidth", [0.5, 1.0])
def test_eigenfunctions_satisfy_their_equation_and_are_orthonormal(markov, alpha, bandwidth):
    normal = make_gaussian(200)
    found = markov(normal.X, bandwidth, alpha, normal.sample_weight)
    psi = gaussian_eigenfunctions(normal.X[:, 0], bandwidth, 6, alpha=alpha)
    expected = psi * gaussian_eigenvalues(bandwidth, 6, alpha=alpha)
    bulk = np.abs(normal.X[:, 0]) < 4
    np.testing.assert_allclose((found.P @ psi)[bulk], expected[bulk], rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose((psi.T * found.pi) @ psi, np.eye(6), atol=1e-11)


def test_eigenvalues_tend_to_the_generators():
    h = 1e-2
    normal = make_gaussian()
    for alpha in (0.0, 0.5):
        rates = (1 - gaussian_eigenvalues(h, 10, alpha=alpha)) / (h**2 / 2)
        # The next term is of relative order eps m tau <= 1e-3.
        np.testing.assert_allclose(rates, 2 * (1 - alpha) * normal.rates, rtol=1e-3)


def test_quadrature_has_the_moments_of_the_normal():
    normal = make_gaussian(60)
    x, w = normal.X[:, 0], normal.sample_weight
    np.testing.assert_allclose([w @ x**k for k in (0, 2, 4, 6, 8)], [1, 1, 3, 15, 105], rtol=1e-12)


def test_quantiles_cut_the_distribution_into_equal_parts():
    normal = make_gaussian(999, design="quantiles")
    np.testing.assert_allclose(ndtr(normal.X[:, 0]) * 999, np.arange(999) + 0.5, rtol=1e-12)
    assert normal.sample_weight is None


def test_random_points_have_the_moments_of_the_normal():
    x = make_gaussian(40_000, design="random", random_state=0).X[:, 0]
    # Standard errors: 1, sqrt(2) and sqrt(96) over sqrt(n) = 200.
    assert abs(x.mean()) < 4 / 200
    assert abs((x**2).mean() - 1) < 4 * 2**0.5 / 200
    assert abs((x**4).mean() - 3) < 4 * 96**0.5 / 200
