"""The Jacobi-scaled operator: definition, spectral bound, and what smoothing does to residuals."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist

from skdmap.diffusion._eigensolvers.aggregation import coarse_levels
from skdmap.diffusion._eigensolvers.chebyshev import lower_bound, smoother_of
from skdmap.diffusion._eigensolvers.row_blocks import RowBlocks
from skdmap.diffusion._markov import normalize


def levels_of(alpha, uneven, n=2000, h=0.12):
    """Levels of a kernel so narrow that many rows have a large self-loop probability."""
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (n, 3))
    k = np.exp(-cdist(X, X, "sqeuclidean") / (2 * h**2))
    k[k < 1e-14] = 0.0
    weight = np.exp(uneven * rng.standard_normal(n))
    operator = normalize(sp.csr_matrix(k), weight / weight.sum(), alpha=alpha, dimension=3)
    levels = coarse_levels(operator.kernel.tocsr(), np.sqrt(operator.stationary), rng)
    return levels, lower_bound(RowBlocks(levels[0].matrix, 1), rng)


def jacobi_scaled(level):
    """H and D of a level, dense."""
    dense = level.matrix.toarray()
    D = np.clip(2.0 * (1.0 - np.diagonal(dense)), 1e-5, 1.0)
    return np.eye(len(D)) - (np.eye(len(D)) - dense) / np.sqrt(np.outer(D, D)), D


@pytest.mark.parametrize("uneven", [0.0, pytest.param(1.0, marks=pytest.mark.slow), 3.0])
@pytest.mark.parametrize("alpha", [pytest.param(0.0, marks=pytest.mark.slow), 1.0])
def test_the_jacobi_scaled_operator(alpha, uneven):
    """H = 1 - D^(-1/2) (1 - S) D^(-1/2), with eigenvalues between the lower bound and 1."""
    levels, lower = levels_of(alpha, uneven)
    assert len(levels) > 1
    for level in levels:
        smoother, (exact, D) = smoother_of(level, lower, 1), jacobi_scaled(level)
        assert D.min() < 1.0
        np.testing.assert_allclose(smoother.root_diagonal[:, 0] ** 2, D, rtol=1e-6)
        found = smoother.scaled @ np.eye(len(D), dtype=np.float32)
        np.testing.assert_allclose(found, exact, atol=1e-6)
        spectrum = np.linalg.eigvalsh(exact)
        assert smoother.lower < spectrum[0]
        assert spectrum[-1] < 1.0 + 1e-6


def test_without_large_self_loop_probabilities_nothing_is_scaled():
    levels, lower = levels_of(1.0, 0.0, n=800, h=0.5)
    smoother = smoother_of(levels[0], lower, 1)
    np.testing.assert_array_equal(smoother.root_diagonal, 1.0)
    found = smoother.scaled @ np.eye(800, dtype=np.float32)
    np.testing.assert_allclose(found, levels[0].matrix.toarray(), atol=1e-7)
    assert smoother.lower == lower


@pytest.fixture(scope="module")
def level_and_smoother():
    levels, lower = levels_of(0.0, 1.0)
    return levels[0], smoother_of(levels[0], lower, 1)


def test_residuals_after_a_correction(level_and_smoother):
    level, smoother = level_and_smoother
    rng = np.random.default_rng(1)
    correction = rng.standard_normal((2000, 3)).astype(np.float32)
    residuals, values = rng.standard_normal((2000, 3)), np.array([1.0, 0.9, 0.3])
    exact = residuals + level.matrix @ correction - correction * values
    found = smoother.residuals_after(correction, values, residuals)
    np.testing.assert_allclose(found, exact, atol=2e-5)


def test_a_long_polynomial_solves_for_the_correction(level_and_smoother):
    """(1 - S) z = r for r without a part along sqrt(pi), where a pair of eigenvalue 1 had it."""
    level, smoother = level_and_smoother
    residuals = np.random.default_rng(2).standard_normal((2000, 2))
    root = level.root[:, None] / np.linalg.norm(level.root)
    residuals -= root @ (root.T @ residuals)
    spectrum = np.linalg.eigvalsh(jacobi_scaled(level)[0])
    ones = np.ones(2)
    correction = smoother.correction(
        ones, residuals, degree=1500, unwanted=1.0 - 1e-12, upper=float(spectrum[-2])
    )
    left = smoother.residuals_after(correction, ones, residuals)
    assert np.linalg.norm(left) < 1e-2 * np.linalg.norm(residuals)
