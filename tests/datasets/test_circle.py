import numpy as np
import pytest

from skdmap.datasets import (
    circle_eigenfunctions,
    circle_eigenvalues,
    flat_torus_eigenvalues,
    make_circle,
    make_flat_torus,
)

ALPHAS = (0.0, 0.5, 1.0)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(("radius", "bandwidth"), [(1.0, 0.2), (1.0, 0.5), (3.0, 1.0), (1.0, 2.0)])
def test_markov_eigenvalues_on_equispaced_points(markov, alpha, radius, bandwidth):
    circle = make_circle(120, radius=radius)
    found = markov(circle.X, bandwidth, alpha).eigenvalues
    expected = circle_eigenvalues(bandwidth, 20, radius=radius)
    np.testing.assert_allclose(found[0], 1, atol=1e-13)
    np.testing.assert_allclose(found[1:21], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_eigenfunctions_satisfy_their_equation_and_are_orthonormal(markov, alpha):
    circle = make_circle(100)
    found = markov(circle.X, 0.4, alpha)
    psi = circle_eigenfunctions(circle.angle, 7)
    np.testing.assert_allclose(found.P @ psi, psi * circle_eigenvalues(0.4, 7), atol=1e-12)
    np.testing.assert_allclose((psi.T * found.pi) @ psi, np.eye(7), atol=1e-13)


def test_eigenfunctions_extend_to_points_between(markov):
    circle = make_circle(100)
    between = np.array([0.017, 1.234, 5.9])
    X = np.column_stack([np.cos(between), np.sin(between)])
    k = np.exp(-((X[:, None] - circle.X) ** 2).sum(2) / (2 * 0.4**2))
    p = k / k.sum(1, keepdims=True)
    extended = p @ circle_eigenfunctions(circle.angle, 6) / circle_eigenvalues(0.4, 6)
    np.testing.assert_allclose(extended, circle_eigenfunctions(between, 6), atol=1e-10)


def test_eigenvalues_tend_to_the_laplacians():
    h = 1e-2
    rates = (1 - circle_eigenvalues(h, 10, radius=2.0)) / (h**2 / 2)
    # The next term of lambda is of relative order eps m^2 / radius^2, which is 3e-4 at m = 5.
    np.testing.assert_allclose(rates, make_circle(radius=2.0).laplacian_eigenvalues, rtol=5e-4)


def test_noise_moves_points_but_not_angles():
    clean, noisy = (
        make_circle(4000, radius=2.0),
        make_circle(4000, radius=2.0, noise=0.1, random_state=0),
    )
    np.testing.assert_array_equal(clean.angle, noisy.angle)
    np.testing.assert_allclose(np.linalg.norm(clean.X, axis=1), 2, rtol=1e-14)
    # Standard error of a standard deviation over 8000 numbers: 1 / sqrt(16000) = 0.8 %.
    assert abs((noisy.X - clean.X).std() / 0.1 - 1) < 4 * 0.008


def test_drawn_angles_are_uniform_and_fit_the_points():
    circle = make_circle(10_000, equispaced=False, random_state=3)
    np.testing.assert_allclose(circle.X, np.exp(1j * circle.angle).view(float).reshape(-1, 2))
    assert circle.angle.min() >= 0
    assert circle.angle.max() < 2 * np.pi
    # Each harmonic has mean 0 and standard error 1 / sqrt(2 n) = 0.007.
    assert np.abs(np.exp(1j * np.outer([1, 2, 3], circle.angle)).mean(axis=1)).max() < 5 * 0.0071


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("radii", [(1.0, 1.0), (1.0, 0.6)])
def test_torus_eigenvalues_are_products(markov, alpha, radii):
    torus = make_flat_torus((40, 32), radii=radii)
    found = markov(torus.X, 0.4, alpha).eigenvalues
    expected = flat_torus_eigenvalues(0.4, 30, radii=radii)
    np.testing.assert_allclose(found[1:31], expected, rtol=0, atol=1e-12)


def test_torus_laplacian_is_the_limit_and_angles_fit_the_points():
    torus = make_flat_torus((12, 9), radii=(2.0, 1.0))
    h = 1e-2
    rates = (1 - flat_torus_eigenvalues(h, 10, radii=(2.0, 1.0))) / (h**2 / 2)
    np.testing.assert_allclose(rates, torus.laplacian_eigenvalues, rtol=5e-4)
    assert len(np.unique(torus.angles, axis=0)) == 108
    for axis, radius in enumerate((2.0, 1.0)):
        t = torus.angles[:, axis]
        np.testing.assert_allclose(torus.X[:, 2 * axis], radius * np.cos(t), atol=1e-15)
        np.testing.assert_allclose(torus.X[:, 2 * axis + 1], radius * np.sin(t), atol=1e-15)


def test_drawn_torus_angles_are_independent():
    torus = make_flat_torus((100, 50), equispaced=False, random_state=1)
    assert torus.X.shape == (5000, 4)
    products = np.exp(1j * torus.angles @ np.array([[1, 0, 1, 1], [0, 1, 1, -1]]))
    # Real and imaginary parts of the mean: standard error 1 / sqrt(2 n) = 0.01.
    assert np.abs(products.mean(axis=0)).max() < 5 * 0.01
