"""Rayleigh-Ritz: the pairs are those of the span, whatever the number of threads."""

import numpy as np
import pytest
import scipy.sparse as sp

from skdmap._threads import blas_threads
from skdmap.diffusion._eigensolvers import row_blocks as _products
from skdmap.diffusion._eigensolvers.rayleigh_ritz import inner, lobpcg_step, rayleigh_ritz
from skdmap.diffusion._eigensolvers.row_blocks import RowBlocks, row_slices

N = 9000  # three slices of rows


@pytest.fixture(scope="module")
def matrix():
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(N, size=(2, 9 * N))
    A = sp.csr_matrix((rng.random(9 * N), (rows, columns)), shape=(N, N))
    return (A + A.T + sp.diags(np.linspace(0, 5, N))).tocsr()


def by_definition(A, basis, k):
    Q = np.linalg.qr(basis)[0]
    values, turn = np.linalg.eigh(Q.T @ (A @ Q))
    return values[::-1][:k], (Q @ turn[:, ::-1])[:, :k]


@pytest.fixture(scope="module")
def blocks():
    rng = np.random.default_rng(1)
    return [rng.standard_normal((N, 4)) for _ in range(3)]


def check(A, pairs, span, locked, angle):
    values, vectors = by_definition(A, span - locked @ (locked.T @ span), 4)
    np.testing.assert_allclose(pairs.values, values, rtol=1e-11)
    assert angle(pairs.vectors, vectors) < 1e-6
    np.testing.assert_allclose(pairs.vectors.T @ pairs.vectors, np.eye(4), atol=1e-11)
    np.testing.assert_allclose(locked.T @ pairs.vectors, 0, atol=1e-12)
    residuals = A @ pairs.vectors - pairs.vectors * pairs.values
    np.testing.assert_allclose(pairs.residuals, residuals, atol=1e-11)
    np.testing.assert_allclose(pairs.norms, np.linalg.norm(residuals, axis=0), rtol=1e-9)


def test_the_pairs_of_spans(matrix, blocks, angle):
    """Of a block; of block and corrections; of block, corrections and last directions."""
    locked = np.zeros((N, 1))
    locked[7] = 1.0
    rows = RowBlocks(matrix, 2)
    first = rayleigh_ritz(rows, blocks[0], locked)
    check(matrix, first, blocks[0], locked, angle)
    second = lobpcg_step(rows, first, blocks[1], locked)
    check(matrix, second, np.hstack([first.vectors, blocks[1]]), locked, angle)
    third = lobpcg_step(rows, second, blocks[2], locked)
    span = np.hstack([second.vectors, blocks[2], second.directions[0]])
    check(matrix, third, span, locked, angle)
    # What a step adds and its product are kept as they are.
    np.testing.assert_allclose(third.directions[1], matrix @ third.directions[0], atol=1e-10)


def test_dependent_corrections_do_no_harm(matrix, blocks, angle):
    rows, locked = RowBlocks(matrix, 1), np.empty((N, 0))
    first = rayleigh_ritz(rows, blocks[0], locked)
    corrections = np.hstack([blocks[1][:, :2], blocks[1][:, :2]])
    pairs = lobpcg_step(rows, first, corrections, locked)
    check(matrix, pairs, np.hstack([first.vectors, corrections[:, :2]]), locked, angle)


def test_products_and_sums_do_not_depend_on_threads(matrix, blocks):
    one, three = (RowBlocks(matrix, threads) for threads in (1, 3))
    np.testing.assert_array_equal(one @ blocks[0], three @ blocks[0])
    np.testing.assert_allclose(one @ blocks[0], matrix @ blocks[0], rtol=1e-13)
    np.testing.assert_array_equal(inner(*blocks[:2], 1), inner(*blocks[:2], 3))
    np.testing.assert_allclose(inner(*blocks[:2], 2), blocks[0].T @ blocks[1], rtol=1e-11)


def test_dense_products_do_not_depend_on_threads(monkeypatch):
    monkeypatch.setattr(_products, "BLOCK_ROWS", 64)
    rng = np.random.default_rng(0)
    dense, block = rng.standard_normal((300, 300)), rng.standard_normal((300, 5))
    one, three = (RowBlocks(dense, threads) @ block for threads in (1, 3))
    np.testing.assert_array_equal(one, three)
    np.testing.assert_allclose(one, dense @ block, atol=1e-12)


def test_slices_cover_the_rows_once():
    covered = np.concatenate([np.arange(s.start, s.stop) for s in row_slices(N)])
    np.testing.assert_array_equal(covered, np.arange(N))


def test_blas_threads_follow_the_limit():
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        assert blas_threads() == 1
