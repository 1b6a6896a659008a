"""Block Lanczos: the largest eigenpairs, all copies of multiple ones, of any symmetric operator."""

import numpy as np
import pytest

from skdmap.diffusion._eigensolvers import block_lanczos as module
from skdmap.diffusion._eigensolvers.block_lanczos import block_lanczos

NOTHING = np.empty((300, 0))


def matrix_with(values, seed=0):
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))[0]
    return (Q * values) @ Q.T, Q


def solve(A, n_pairs, width=4, locked=None, **options):
    return block_lanczos(
        lambda V: A @ V,
        len(A),
        n_pairs,
        width=width,
        locked=np.empty((len(A), 0)) if locked is None else locked,
        rng=np.random.default_rng(1),
        **{"tolerance": lambda values: 1e-12, "max_products": 10**5, **options},
    )


@pytest.mark.parametrize("n_pairs", [1, 5, 12])
def test_pairs_solve_the_eigenproblem(n_pairs, angle):
    exact = np.sort(np.random.default_rng(2).uniform(-1, 1, 300))[::-1]
    A, Q = matrix_with(exact)
    values, vectors = solve(A, n_pairs)
    np.testing.assert_allclose(values, exact[:n_pairs], atol=1e-12)
    assert np.linalg.norm(A @ vectors - vectors * values, axis=0).max() < 1e-10
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(n_pairs), atol=1e-12)
    assert angle(vectors, Q[:, :n_pairs]) < 1e-6


def test_copies_up_to_the_width_are_all_found():
    exact = np.concatenate([np.full(4, 0.9), np.full(4, 0.7), np.linspace(0.5, -0.5, 292)])
    values, _ = solve(matrix_with(exact)[0], 8)
    np.testing.assert_allclose(values, exact[:8], atol=1e-12)


def test_restarts_lose_nothing(monkeypatch):
    """Slow convergence and a basis of few columns: thick restarts until it is there."""
    monkeypatch.setattr("skdmap.diffusion._eigensolvers.block_lanczos._BASIS_COLUMNS", 20)
    exact = 1 - np.linspace(0, 1, 300) ** 2 * 0.5
    values, _ = solve(matrix_with(exact)[0], 3, width=2)
    np.testing.assert_allclose(values, exact[:3], atol=1e-12)


def test_locked_vectors_are_left_out():
    exact = np.linspace(1, 0, 300)
    A, Q = matrix_with(exact)
    values, vectors = solve(A, 3, locked=Q[:, [0, 2]])
    np.testing.assert_allclose(values, exact[[1, 3, 4]], atol=1e-12)
    np.testing.assert_allclose(Q[:, [0, 2]].T @ vectors, 0, atol=1e-12)


def test_an_invariant_subspace_does_not_stop_it():
    """Rank 2: the Krylov space is spent after one block; the other eigenvalues are 0."""
    exact = np.concatenate([[0.9, 0.5], np.zeros(48)])
    values, vectors = solve(matrix_with(exact)[0], 6)
    np.testing.assert_allclose(values, exact[:6], atol=1e-13)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(6), atol=1e-12)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_the_whole_of_a_small_space(n):
    exact = np.linspace(1, -1, n)
    values, _ = solve(matrix_with(exact)[0], n)
    np.testing.assert_allclose(values, exact, atol=1e-13)


def test_it_stops_when_it_is_told_to():
    A = matrix_with(1 - np.linspace(0, 1, 300) ** 2)[0]
    count = []

    def product(V):
        count.append(V.shape[1])
        return A @ V

    block_lanczos(
        product,
        300,
        3,
        width=2,
        locked=NOTHING,
        tolerance=lambda values: 0.0,
        rng=np.random.default_rng(0),
        max_products=40,
    )
    assert 40 <= sum(count) <= 42


def test_it_ends_when_the_pairs_that_count_are_as_exact_as_asked():
    exact = 1 - np.linspace(0, 1, 300) ** 2
    A, _ = matrix_with(exact)
    asked = {"tolerance": lambda values: 1e-3 * (1.01 - values), "n_exact": 3, "width": 2}
    values, vectors = solve(A, 8, **asked)
    norms = np.linalg.norm(A @ vectors - vectors * values, axis=0)
    assert np.all(norms[:3] <= 1e-3 * (1.01 - values[:3]) + 1e-12)
    assert norms[:3].max() > 1e-9  # no more than was asked for


def test_many_pairs_by_single_columns_are_looked_at_a_few_times(monkeypatch):
    """A look at a large basis takes as long as dozens of its steps."""
    sizes, look = [], module.largest_eigh

    def counted(matrix, *args):
        sizes.append(len(matrix))
        return look(matrix, *args)

    monkeypatch.setattr(module, "largest_eigh", counted)
    A, _ = matrix_with(0.97 ** np.arange(400))
    values, _ = solve(A, 80, width=1)
    np.testing.assert_allclose(values, 0.97 ** np.arange(80), atol=1e-10)
    assert min(sizes) >= 80
    assert len(sizes) <= (max(sizes) - 80) / 10 + 2
