"""The relation of a Krylov basis, A V' = V' T + W' C', through products, restarts and takeovers."""

import numpy as np
import pytest

from skdmap.hessian._krylov.basis import KrylovBasis, number_per_end
from skdmap.hessian._krylov.verification import VerificationRun

SIZE = 60


@pytest.fixture
def matrix():
    noise = np.random.default_rng(0).standard_normal((SIZE, SIZE))
    return noise + noise.T


def basis_of(matrix, n_starts=1, n_products=12, max_rows=40):
    starts = np.random.default_rng(1).standard_normal((n_starts, SIZE))
    space = KrylovBasis(SIZE, max_rows, number_per_end("largest", 3), 1e-3, 2.3e-16, starts)
    for _ in range(n_products):
        space.extend(matrix.dot)
    space.solve()
    return space


def assert_relation(space, matrix, atol=1e-11):
    n, p = space.n_used, space.n_pending
    V, W = space.basis[:n], space.basis[n : n + p]
    rows = space.basis[: n + p]
    np.testing.assert_allclose(rows @ rows.T, np.eye(n + p), atol=1e-12)
    expected = space.projected[:n, :n] @ V + space.coupling[:n] @ W
    np.testing.assert_allclose(V @ matrix, expected, atol=atol)
    wanted = space.wanted()
    vectors = space.vectors(wanted)
    defect = vectors @ matrix - space.values[wanted, None] * vectors
    np.testing.assert_allclose(
        np.linalg.norm(defect, axis=1), space.residuals[wanted], atol=10 * atol
    )
    assert space.residual_norm() == pytest.approx(np.linalg.norm(defect, 2), abs=10 * atol)


@pytest.mark.parametrize("n_starts", [1, 3])
def test_products_and_restarts_keep_the_relation(matrix, n_starts):
    space = basis_of(matrix, n_starts)
    assert_relation(space, matrix)
    space.restart()
    assert_relation(space, matrix)
    for _ in range(5):
        space.extend(matrix.dot)
    space.solve()
    assert_relation(space, matrix)
    space.restart(space.wanted())
    assert space.n_used == 3
    assert_relation(space, matrix)


@pytest.mark.parametrize("n_starts", [1, 3])
def test_a_run_that_is_taken_over_keeps_the_relation(matrix, n_starts):
    space = basis_of(matrix, n_starts)
    for seed in (2, 3):
        space.restart(space.wanted())
        run = VerificationRun(space, np.random.default_rng(seed).standard_normal(SIZE))
        for _ in range(6):
            run.step(matrix.dot)
        run.absorb()
        space.solve()
        assert space.n_used == 3 + 6
        assert_relation(space, matrix)
        space.extend(matrix.dot)
        space.solve()
        assert_relation(space, matrix)


def test_what_is_dropped_is_in_the_residuals(matrix):
    space = basis_of(matrix, n_starts=3)
    space.restart(space.wanted())
    space.drop_pending(1)
    space.solve()
    assert space.n_pending == 1
    wanted = space.wanted()
    vectors = space.vectors(wanted)
    true = np.linalg.norm(vectors @ matrix - space.values[wanted, None] * vectors, axis=1)
    assert (space.residuals[wanted] >= true - 1e-11).all()
    assert (
        space.residual_norm()
        >= np.linalg.norm(vectors @ matrix - space.values[wanted, None] * vectors, 2) - 1e-11
    )


@pytest.mark.parametrize("n_restarts", [0, 2])
def test_the_quadrature_has_the_moments_of_the_matrix_at_its_start(matrix, n_restarts):
    space = basis_of(matrix, n_products=12)
    for _ in range(n_restarts):
        space.restart()
        for _ in range(5):
            space.extend(matrix.dot)
        space.solve()
    found = space.quadrature()
    start = found.start / np.linalg.norm(found.start)
    power = start
    for degree in range(12):  # a Gauss rule of 12 nodes is exact up to degree 23
        np.testing.assert_allclose(
            found.weights @ found.nodes**degree,
            start @ power,
            rtol=1e-8,
            atol=1e-10 * np.linalg.norm(power),
        )
        power = matrix @ power
