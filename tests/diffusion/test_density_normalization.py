"""K = k / (q^alpha q^alpha), P = K w / d, S its symmetric form, pi its stationary distribution."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist

from skdmap.diffusion._markov import normalize

ALPHAS = [0.0, 0.3, 0.5, 1.0]


def kernel_of(X, h=0.5, rho=None):
    scale = 2 * h**2 * (1.0 if rho is None else np.outer(rho, rho))
    return np.exp(-cdist(X, X, "sqeuclidean") / scale)


def full_matrix(operator):
    return operator.matmat(np.eye(operator.n_rows))


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("sparse", [False, True])
def test_symmetric_form_and_stationary_distribution(alpha, sparse, cloud, weights, reference):
    k = kernel_of(cloud)
    w = weights / weights.sum()
    operator = normalize(sp.csr_matrix(k) if sparse else k, w, alpha=alpha)
    exact = reference(cloud, 0.5, alpha, weights)
    np.testing.assert_allclose(full_matrix(operator), exact.S, rtol=1e-11, atol=1e-16)
    np.testing.assert_allclose(operator.stationary, exact.pi, rtol=1e-12)
    # sqrt(pi) is the trivial eigenvector, exactly.
    root = np.sqrt(operator.stationary)
    np.testing.assert_allclose(operator.matmat(root), root, atol=1e-15)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_column_weights_give_the_rows_of_p(alpha, cloud, weights, reference):
    """p_j = k(y, x_j) w_j / q_j^alpha, normalised: q(y)^alpha cancels."""
    k = kernel_of(cloud)
    w = weights / weights.sum()
    operator = normalize(k.copy(), w, alpha=alpha)
    p = k * np.exp(operator.log_column_weight)
    p /= p.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(p, reference(cloud, 0.5, alpha, weights).P, rtol=1e-11)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("sparse", [False, True])
def test_variable_bandwidth_in_general_form(alpha, dimension, sparse, cloud, weights, reference):
    rho = np.random.default_rng(0).uniform(0.5, 2, 150)
    w = weights / weights.sum()
    k = kernel_of(cloud, rho=rho)
    given = sp.csr_matrix(k) if sparse else k.copy()
    operator = normalize(given, w, alpha=alpha, scale=rho, dimension=dimension)
    exact = reference(cloud, 0.5, alpha, weights, rho=rho, dimension=dimension)
    np.testing.assert_allclose(full_matrix(operator), exact.S, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(operator.stationary, exact.pi, rtol=1e-12)
    root = np.sqrt(operator.stationary)
    np.testing.assert_allclose(operator.matmat(root), root, atol=1e-14)
    assert exact.values.min() >= operator.lower_bound - 1e-12


def test_alpha_at_the_exponents_of_berry_and_harlim(cloud, reference):
    """With rho = q^beta exactly, K = k / (q q)^(alpha + d beta / 2 + beta) up to rho^d in q."""
    w = np.full(150, 1 / 150)
    pilot = np.exp(-cdist(cloud, cloud, "sqeuclidean") / (2 * 0.5**2)) @ w
    beta, d, alpha = -0.5, 2, 0.25
    rho = pilot**beta
    k = kernel_of(cloud, rho=rho)
    operator = normalize(k.copy(), w, alpha=alpha, scale=rho, dimension=d)
    q = (k @ w) / rho**d
    g = q**alpha * pilot ** (beta + d * beta / 2)
    K = k / np.outer(g, g)
    np.testing.assert_allclose(
        operator.stationary, K @ w * rho**2 / (w @ (K @ w * rho**2)) * w, rtol=1e-12
    )


@pytest.mark.parametrize("sparse", [False, True])
def test_restriction_to_a_component_is_its_own_operator(sparse):
    X = np.concatenate([np.random.default_rng(1).standard_normal((30, 2)) + s for s in (0, 1e3)])
    k = kernel_of(X)
    w = np.full(60, 1 / 60)
    whole = normalize(sp.csr_matrix(k) if sparse else k.copy(), w, alpha=0.5)
    part = whole.restricted(np.arange(30))
    alone = normalize(kernel_of(X[:30]), np.full(30, 1 / 30), alpha=0.5)
    np.testing.assert_allclose(full_matrix(part), full_matrix(alone), rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(part.stationary, alone.stationary, rtol=1e-12)
