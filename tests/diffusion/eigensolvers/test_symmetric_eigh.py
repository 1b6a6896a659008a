"""Dense eigenpairs are right where a LAPACK driver fails or gives too few of them."""

import numpy as np
import pytest
import scipy.linalg

from skdmap.diffusion._eigensolvers import symmetric_eigh
from skdmap.diffusion._eigensolvers.symmetric_eigh import largest_eigh


@pytest.fixture(scope="module")
def matrix():
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 40)))[0]
    values = np.concatenate([np.linspace(-1, 0.2, 30), np.full(8, 0.5), [0.7, 0.9]])
    return (Q * values) @ Q.T, values


@pytest.mark.parametrize("n_pairs", [None, 1, 5, 10, 39, 40])
def test_the_largest_pairs_ascending(matrix, n_pairs):
    A, exact = matrix
    values, vectors = largest_eigh(A, n_pairs)
    k = 40 if n_pairs is None else n_pairs
    np.testing.assert_allclose(values, exact[-k:], atol=1e-13)
    np.testing.assert_allclose(A @ vectors, vectors * values, atol=1e-13)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(k), atol=1e-13)


def _raises(values, vectors):
    raise np.linalg.LinAlgError("Internal Error.")


@pytest.mark.parametrize(
    "spoil",
    [
        _raises,
        lambda values, vectors: (values[:0], vectors[:, :0]),
        lambda values, vectors: (values[1:], vectors[:, 1:]),
        lambda values, vectors: (values + 1e-9, vectors),
        lambda values, vectors: (values, vectors[:, [0, 0, *range(2, values.size)]]),
        lambda values, vectors: (values, np.full_like(vectors, np.nan)),
    ],
)
@pytest.mark.parametrize("failing", [("evr",), ("evr", "evd")])
def test_a_driver_that_fails_is_followed_by_another(matrix, spoil, failing, monkeypatch):
    A, exact = matrix
    honest = scipy.linalg.eigh

    def eigh(a, driver, **options):
        found = honest(a, driver=driver, **options)
        if driver == "evr":
            return spoil(*found)
        return _raises(*found) if driver in failing else found

    monkeypatch.setattr(symmetric_eigh.scipy.linalg, "eigh", eigh)
    values, vectors = largest_eigh(A, 5)
    np.testing.assert_allclose(values, exact[-5:], atol=1e-13)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(5), atol=1e-13)
