import numpy as np
import pytest
from scipy.special import lpmv

from skdmap.datasets import make_sphere, sphere_eigenfunctions, sphere_eigenvalues

ALPHAS = (0.0, 0.5, 1.0)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(("radius", "bandwidth"), [(1.0, 0.4), (1.0, 0.7), (2.0, 1.0)])
def test_markov_eigenvalues_on_the_quadrature(markov, alpha, radius, bandwidth):
    sphere = make_sphere((20, 40), radius=radius)
    found = markov(sphere.X, bandwidth, alpha, sphere.sample_weight).eigenvalues
    expected = sphere_eigenvalues(bandwidth, 24, radius=radius)
    np.testing.assert_allclose(found[1:25], expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_harmonics_satisfy_their_equation_and_are_orthonormal(markov, alpha):
    sphere = make_sphere((20, 40), radius=3.0)
    found = markov(sphere.X, 1.5, alpha, sphere.sample_weight)
    psi = sphere_eigenfunctions(sphere.X, 15)
    expected = psi * sphere_eigenvalues(1.5, 15, radius=3.0)
    np.testing.assert_allclose(found.P @ psi, expected, atol=1e-11)
    np.testing.assert_allclose((psi.T * found.pi) @ psi, np.eye(15), atol=1e-12)


def test_harmonics_extend_to_any_point():
    sphere = make_sphere((20, 40))
    new = make_sphere(7, design="random", random_state=0).X
    k = np.exp((new @ sphere.X.T) / 0.5**2) * sphere.sample_weight
    extended = (k / k.sum(1, keepdims=True)) @ sphere_eigenfunctions(sphere.X, 8)
    expected = sphere_eigenfunctions(new, 8) * sphere_eigenvalues(0.5, 8)
    np.testing.assert_allclose(extended, expected, atol=1e-12)


def test_first_harmonics_are_the_coordinates():
    X = make_sphere(50, design="random", random_state=1).X
    np.testing.assert_allclose(
        sphere_eigenfunctions(X, 3), np.sqrt(3) * X[:, [2, 0, 1]], atol=1e-14
    )


def test_harmonics_of_high_degree_obey_the_addition_theorem():
    X = make_sphere(2, design="random", random_state=2).X
    l = 60
    psi = sphere_eigenfunctions(X, (l + 1) ** 2 - 1)[:, l**2 - 1 :]
    assert psi.shape[1] == 2 * l + 1
    np.testing.assert_allclose((psi**2).sum(1), 2 * l + 1, rtol=1e-11)
    np.testing.assert_allclose(psi[0] @ psi[1], (2 * l + 1) * lpmv(0, l, X[0] @ X[1]), rtol=1e-9)


def test_quadrature_integrates_polynomials_exactly():
    sphere = make_sphere(2 * 6**2)
    assert sphere.X.shape == (72, 3)
    psi = sphere_eigenfunctions(sphere.X, 11**2 - 1)
    np.testing.assert_allclose(sphere.sample_weight.sum(), 1, rtol=1e-14)
    np.testing.assert_allclose(sphere.sample_weight @ psi[:, : 10**2 - 1], 0, atol=1e-13)


def test_eigenvalues_tend_to_the_laplacians():
    h = 1e-2
    rates = (1 - sphere_eigenvalues(h, 15, radius=2.0)) / (h**2 / 2)
    np.testing.assert_allclose(rates, make_sphere(radius=2.0).laplacian_eigenvalues, rtol=5e-4)


@pytest.mark.parametrize("design", ["quadrature", "random"])
def test_angles_fit_the_points(design):
    sphere = make_sphere(200, radius=2.0, design=design, random_state=0)
    t, f = sphere.colatitude, sphere.longitude
    expected = 2 * np.column_stack([np.sin(t) * np.cos(f), np.sin(t) * np.sin(f), np.cos(t)])
    np.testing.assert_allclose(sphere.X, expected, atol=1e-14)


def test_random_points_are_uniform():
    sphere = make_sphere(20_000, design="random", random_state=0)
    assert sphere.sample_weight is None
    means = sphere_eigenfunctions(sphere.X, 24).mean(axis=0)
    # Every harmonic has mean 0 and variance 1: standard error 1 / sqrt(n) = 0.0071.
    assert np.abs(means).max() < 5 * 0.0071
