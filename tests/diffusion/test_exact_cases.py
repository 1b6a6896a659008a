"""Point sets whose diffusion maps are known in closed form, at any bandwidth."""

import numpy as np
import pytest
from numpy.polynomial import hermite_e
from scipy.special import factorial, ive

from skdmap import DiffusionMap
from skdmap.datasets import (
    circle_eigenfunctions,
    flat_torus_eigenvalues,
    make_flat_torus,
    sphere_eigenfunctions,
)

pytestmark = pytest.mark.usefixtures("either_solver")

ALPHAS = [0.0, 0.5, 1.0]


def turned(found, exact, pi):
    """Return the rotation from found to exact eigenfunctions; both are pi-orthonormal."""
    turn = (found * pi[:, None]).T @ exact
    np.testing.assert_allclose(turn @ turn.T, np.eye(len(turn)), atol=1e-9)
    return turn


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("h", [0.5, 0.25])
def test_circle(alpha, h):
    """lambda_m = I_m(1/h^2) / I_0(1/h^2), each twice; cosines and sines at any angle."""
    angle = 2 * np.pi * np.arange(200) / 200
    X = np.column_stack([np.cos(angle), np.sin(angle)])
    model = DiffusionMap(6, bandwidth=h, alpha=alpha, diffusion_time=0).fit(X)
    order = np.array([1, 1, 2, 2, 3, 3])
    kappa = h**-2
    np.testing.assert_allclose(model.eigenvalues_, ive(order, kappa) / ive(0, kappa), atol=1e-12)
    np.testing.assert_allclose(
        model.laplacian_eigenvalues_, (1 - ive(order, kappa) / ive(0, kappa)) * 2 / h**2, rtol=1e-10
    )
    np.testing.assert_allclose(model.stationary_distribution_, 1 / 200, rtol=1e-12)
    turn = turned(model.embedding_, circle_eigenfunctions(angle, 6), model.stationary_distribution_)
    new = np.random.default_rng(0).uniform(0, 2 * np.pi, 50)
    found = model.transform(np.column_stack([np.cos(new), np.sin(new)])) @ turn
    np.testing.assert_allclose(found, circle_eigenfunctions(new, 6), atol=1e-8)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("h", [0.6, 0.35])
def test_sphere_with_quadrature_weights(alpha, h):
    """lambda_l = I_{l+1/2} / I_{1/2}, 2 l + 1 times each; spherical harmonics at any point."""
    nodes, node_weights = np.polynomial.legendre.leggauss(22)
    longitude = np.tile(2 * np.pi * np.arange(44) / 44, 22)
    cosine = np.repeat(nodes, 44)
    sine = np.sqrt(1 - cosine**2)
    X = np.column_stack([sine * np.cos(longitude), sine * np.sin(longitude), cosine])
    weight = np.repeat(node_weights, 44)
    model = DiffusionMap(15, bandwidth=h, alpha=alpha, diffusion_time=0).fit(
        X, sample_weight=weight
    )
    degree = np.repeat([1, 2, 3], [3, 5, 7])
    exact = ive(degree + 0.5, h**-2) / ive(0.5, h**-2)
    np.testing.assert_allclose(model.eigenvalues_, exact, atol=1e-10)
    np.testing.assert_allclose(
        model.stationary_distribution_, weight / weight.sum(), rtol=1e-10, atol=0
    )
    turn = turned(model.embedding_, sphere_eigenfunctions(X, 15), model.stationary_distribution_)
    new = np.random.default_rng(1).standard_normal((40, 3))
    new /= np.linalg.norm(new, axis=1, keepdims=True)
    np.testing.assert_allclose(
        model.transform(new) @ turn, sphere_eigenfunctions(new, 15), atol=1e-8
    )


# The higher Hermite functions do live in the tails: fewer than ten nodes carry them.
@pytest.mark.filterwarnings("ignore::skdmap.exceptions.LocalizedCoordinateWarning")
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("h", [0.5, 0.3])
def test_gaussian_with_quadrature_weights(alpha, h):
    """lambda_m = (1 + h^2 tau)^-m; Hermite polynomials at any point."""
    x, weight = hermite_e.hermegauss(200)
    tau = 1 - alpha / (1 + h**2)
    order = np.arange(1, 6)
    if 1 - (1 + h**2 * tau) ** -1 < 1e-2:
        order = order[:3]
    model = DiffusionMap(order.size, bandwidth=h, alpha=alpha, diffusion_time=0).fit(
        x[:, None], sample_weight=weight
    )
    np.testing.assert_allclose(
        model.eigenvalues_, (1 + h**2 * tau) ** -order.astype(float), atol=1e-10
    )
    scale = np.sqrt(tau * (2 + h**2 * tau) / (1 + h**2 * tau))

    def exact(points):
        return hermite_e.hermevander(scale * points, order[-1])[:, 1:] / np.sqrt(factorial(order))

    new = np.linspace(-2.5, 2.5, 41)
    found = model.transform(new[:, None])
    signs = np.sign(np.sum(found * exact(new), axis=0))
    np.testing.assert_allclose(found * signs, exact(new), atol=1e-8)


def test_flat_torus_is_a_product_of_circles():
    torus = make_flat_torus((36, 24), radii=(1.0, 0.6))
    model = DiffusionMap(8, bandwidth=0.45).fit(torus.X)
    np.testing.assert_allclose(
        model.eigenvalues_, flat_torus_eigenvalues(0.45, 8, radii=(1.0, 0.6)), atol=1e-12
    )


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.LocalizedCoordinateWarning")
def test_two_rows():
    """P = [[1, k], [k, 1]] / (1 + k): lambda = (1 - k) / (1 + k), psi = +-1."""
    k = np.exp(-(3.0**2) / (2 * 2.0**2))
    model = DiffusionMap(1, bandwidth=2.0).fit([[0.0], [3.0]])
    np.testing.assert_allclose(model.eigenvalues_, (1 - k) / (1 + k), rtol=1e-14)
    np.testing.assert_allclose(np.abs(model.eigenvectors_), 1.0, rtol=1e-14)
    # The rows lie at -1 and 1 times the standard deviation; the sign follows the column.
    assert model.eigenvectors_[1, 0] > 0
    np.testing.assert_allclose(model.participation_, 1.0, rtol=1e-14)
