"""The filter on residuals is the filter, and its bounds bound."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.polynomial.chebyshev import Chebyshev

from skdmap.diffusion._eigensolvers.chebyshev import (
    chebyshev_correction,
    chebyshev_degree,
    lower_bound,
)
from skdmap.diffusion._eigensolvers.row_blocks import RowBlocks


@pytest.fixture(scope="module")
def matrix():
    A = sp.random(300, 300, density=0.05, random_state=0)
    A = (A + A.T).tocsr()
    return (A / np.abs(np.linalg.eigvalsh(A.toarray())).max()).tocsr()


@pytest.mark.parametrize("degree", [1, 2, 3, 9])
def test_it_is_the_polynomial_of_the_matrix(matrix, degree):
    """p(S) v = p(lambda) (v + z), p the Chebyshev polynomial on [-1, 0.5], from its definition."""
    S = matrix.toarray()
    values, vectors = np.linalg.eigh(S)
    rng = np.random.default_rng(1)
    v = vectors[:, -2:] + 0.1 * rng.standard_normal((300, 2))
    at = np.array([0.9, 0.7])
    p = Chebyshev.basis(degree, domain=[-1.0, 0.5])
    filtered = vectors @ (p(values)[:, None] * (vectors.T @ v))
    correction = chebyshev_correction(
        RowBlocks(matrix.astype(np.float32), 1),
        at,
        S @ v - v * at,
        lower=-1.0,
        upper=0.5,
        degree=degree,
    )
    assert correction.dtype == np.float32
    rounding = np.finfo(np.float32).eps * degree * np.abs(correction).max()
    np.testing.assert_allclose(v + correction, filtered / p(at), atol=rounding)


def test_its_error_is_relative_to_the_residual(matrix):
    """A vector that is right to 1e-9 gains in single precision too."""
    values, vectors = np.linalg.eigh(matrix.toarray())
    rng = np.random.default_rng(2)
    v = vectors[:, -1:] + 1e-9 * rng.standard_normal((300, 1))
    v /= np.linalg.norm(v)
    at = np.sum(v * (matrix @ v), axis=0)
    correction = chebyshev_correction(
        RowBlocks(matrix.astype(np.float32), 1),
        at,
        matrix @ v - v * at,
        lower=-1.0,
        upper=float(values[-2]),
        degree=40,
    )
    better = v + correction
    better /= np.linalg.norm(better)
    wrong = [np.linalg.norm(w - vectors[:, -1:] * (vectors[:, -1] @ w)) for w in (v, better)]
    assert wrong[1] < 1e-2 * wrong[0]


def test_the_degree_gives_the_gain():
    values, gain = np.array([0.99, 0.9]), np.array([1e3, 1e5])
    degree = chebyshev_degree(values, gain, lower=-1.0, upper=0.8)
    grows = [Chebyshev.basis(m, domain=[-1.0, 0.8])(values) for m in (degree - 1, degree)]
    assert np.all(grows[1] >= gain * (1 - 1e-12))
    assert np.any(grows[0] < gain)


@pytest.mark.parametrize("seed", range(5))
def test_the_lower_bound_is_below_the_spectrum(matrix, seed):
    least = np.linalg.eigvalsh(matrix.toarray())[0]
    bound = lower_bound(RowBlocks(matrix, 1), np.random.default_rng(seed))
    assert least - 1.0 < bound <= least


def test_a_column_near_the_edge_does_not_overflow(matrix):
    """T_200 at a leading eigenvalue far above the rest is beyond single precision."""
    rng = np.random.default_rng(3)
    v = rng.standard_normal((300, 2))
    v /= np.linalg.norm(v, axis=0)
    at = np.array([0.21, 0.1])
    correction = chebyshev_correction(
        RowBlocks(matrix.astype(np.float32), 1),
        at,
        matrix @ v - v * at,
        lower=-1.0,
        upper=0.2,
        degree=200,
    )
    assert np.isfinite(correction).all()
    assert np.isfinite(correction.T @ correction).all()
