"""Distances hold to the last digits, for close rows far from the origin too."""

from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist

from skdmap.diffusion._neighbors.metrics import canonical_metric, paired_distances, pairwise

EPS = np.finfo(float).eps


def exact_euclid(x, y):
    """Return |x - y| from exact rational arithmetic."""
    return (
        float(
            sum((Fraction(float(a)) - Fraction(float(b))) ** 2 for a, b in zip(x, y, strict=True))
        )
        ** 0.5
    )


@pytest.mark.parametrize("n_features", [3, 16, 17, 300])
@pytest.mark.parametrize("shift", [0.0, 1e6])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_euclidean_against_differences(n_features, shift, dtype):
    X = (np.random.default_rng(0).standard_normal((60, n_features)) + shift).astype(dtype)
    D = pairwise(X, X, "euclidean", {})
    exact = cdist(X.astype(np.float64), X.astype(np.float64))
    np.testing.assert_allclose(D, exact, rtol=1e-12, atol=0)
    assert D.dtype == np.float64
    np.testing.assert_array_equal(D, D.T)
    np.testing.assert_array_equal(np.diagonal(D), 0)


def test_two_tight_clusters_far_apart():
    """Within a cluster d^2 is 1e-20 of the squared norms: a matrix product knows nothing of it."""
    rng = np.random.default_rng(1)
    X = np.concatenate(
        [1e-4 * rng.standard_normal((20, 40)), 1e-4 * rng.standard_normal((20, 40)) + 1e6]
    )
    D = pairwise(X, X, "euclidean", {})
    for i, j in [(0, 1), (5, 19), (20, 21), (22, 39), (0, 30)]:
        assert D[i, j] == pytest.approx(exact_euclid(X[i], X[j]), rel=20 * EPS)


@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "cosine"])
def test_sparse_rows_have_the_distances_of_dense_rows(metric):
    X = sp.random(40, 30, density=0.2, random_state=0, format="csr") + sp.eye(40, 30, format="csr")
    Y = X[:15]
    dense = pairwise(X.toarray(), Y.toarray(), metric, {})
    np.testing.assert_allclose(pairwise(X, Y, metric, {}), dense, rtol=1e-11, atol=1e-15)


def test_paired_distances_are_the_diagonal_of_all_pairs(cloud):
    np.testing.assert_allclose(
        paired_distances(cloud[:70], cloud[70:140]),
        np.diagonal(cdist(cloud[:70], cloud[70:140])),
        rtol=4 * EPS,
    )


@pytest.mark.parametrize(
    ("metric", "params", "name"),
    [
        ("l1", None, "manhattan"),
        ("cityblock", None, "manhattan"),
        ("l2", None, "euclidean"),
        ("infinity", None, "chebyshev"),
        ("p", None, "euclidean"),
        ("minkowski", {"p": 1}, "manhattan"),
        ("minkowski", {"p": np.inf}, "chebyshev"),
    ],
)
def test_one_name_per_metric(metric, params, name, cloud):
    assert canonical_metric(metric, params, cloud, np.full(150, 1 / 150)) == (name, {})


def test_weighted_variances_are_those_of_repeated_rows(cloud):
    repeats = np.random.default_rng(2).integers(1, 4, 150)
    many = np.repeat(cloud, repeats, axis=0)
    for metric, key in [("seuclidean", "V"), ("mahalanobis", "VI")]:
        _, one = canonical_metric(metric, None, cloud, repeats / repeats.sum())
        _, other = canonical_metric(metric, None, many, np.full(len(many), 1 / len(many)))
        np.testing.assert_allclose(one[key], other[key], rtol=1e-11)


def test_mahalanobis_whitens(cloud):
    weight = np.full(150, 1 / 150)
    _, params = canonical_metric("mahalanobis", None, cloud, weight)
    centred = cloud - cloud.mean(axis=0)
    white = centred @ np.linalg.inv(np.linalg.cholesky(centred.T @ centred / 150)).T
    np.testing.assert_allclose(
        pairwise(cloud, cloud, "mahalanobis", params), cdist(white, white), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("metric", ["russellrao", "cosine", "braycurtis", "yule", "dice"])
def test_equal_rows_are_at_distance_zero(metric):
    """Russell-Rao and cosine put a row of zeros away from itself; Bray-Curtis says 0 / 0."""
    X = (np.random.default_rng(3).random((30, 9)) < 0.5).astype(float)
    X[4] = 0
    new = X[[4, 11]].copy()
    D = pairwise(new, X, metric, {})
    same = (new[:, None, :] == X[None]).all(axis=2)
    assert same.sum() >= 2
    np.testing.assert_array_equal(D[same], 0.0)


def test_an_undefined_distance_names_metric_and_row():
    X = np.random.default_rng(4).standard_normal((20, 4))
    X[13] = 2.0
    with pytest.raises(ValueError, match=r"metric='correlation'.*row 13 of X"):
        pairwise(X, X, "correlation", {})


def test_a_callable_that_is_not_quite_symmetric_gives_a_symmetric_matrix(cloud):
    def metric(a, b):
        return float(np.abs(a - b).sum() * (1 + 1e-15 * (a[0] > b[0])))

    D = pairwise(cloud[:30], cloud[:30], metric, {})
    assert D.shape == (30, 30)
    Y = cloud[:30]
    D = pairwise(Y, Y, metric, {})
    np.testing.assert_array_equal(D, D.T)


@pytest.mark.parametrize("metric", ["chebyshev", "seuclidean", "mahalanobis", "minkowski"])
def test_a_metric_that_does_not_accept_sparse_rows_says_so(metric):
    X = sp.random(20, 5, density=0.5, random_state=0, format="csr")
    params = {"p": 3} if metric == "minkowski" else None
    with pytest.raises(ValueError, match=r"metric='.*sparse X.*toarray"):
        canonical_metric(metric, params, X, np.full(20, 1 / 20))


def test_pyfunc_without_a_function_says_what_is_missing(cloud):
    with pytest.raises(ValueError, match="metric='pyfunc' needs a function"):
        canonical_metric("pyfunc", None, cloud, np.full(150, 1 / 150))


@pytest.mark.parametrize("n_jobs", [None, 2])  # two jobs evaluate both halves of the matrix
def test_a_callable_that_differs_in_the_last_digit_gives_a_symmetric_matrix(n_jobs):
    def rounded(x, y):
        return float(np.abs(x - y).sum()) * (1.0 + EPS * (x[0] > y[0]))

    X = np.random.default_rng(0).standard_normal((30, 3))
    D = pairwise(X, X, rounded, {}, n_jobs=n_jobs)
    np.testing.assert_array_equal(D, D.T)
    np.testing.assert_allclose(D, cdist(X, X, "cityblock"), rtol=4 * EPS)
