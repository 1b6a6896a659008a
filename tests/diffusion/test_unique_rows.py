"""Equal rows are one row with the sum of their weights."""

import numpy as np
import pytest
import scipy.sparse as sp

from skdmap import DiffusionMap
from skdmap.diffusion import _unique_rows as _rows
from skdmap.diffusion._unique_rows import (
    in_local_order,
    merge_zero_distances,
    separate_rows,
    unique_distances,
    unique_rows,
)
from skdmap.diffusion._wide.row_hashing import row_hashes


def brute_groups(X):
    """Map each row to the first row equal to it."""
    return np.array([np.flatnonzero((row == X).all(axis=1))[0] for row in X])


@pytest.fixture(params=[np.float64, np.float32])
def repeated(request):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 3)).astype(request.param)
    X = X[rng.integers(0, 40, 100)]
    X[7, 1], X[8] = -0.0, X[7]
    X[8, 1] = 0.0
    return X


@pytest.mark.parametrize("sparse", [False, True])
def test_groups_are_those_of_a_comparison_of_all_pairs(repeated, sparse):
    weight = np.random.default_rng(1).uniform(0.5, 2, 100)
    rows = unique_rows(sp.csr_matrix(repeated) if sparse else repeated, weight)
    first = brute_groups(repeated)
    np.testing.assert_array_equal(rows.index[rows.group], first)
    np.testing.assert_array_equal(rows.index, np.unique(first))
    sums = np.array([weight[first == i].sum() for i in rows.index])
    np.testing.assert_allclose(rows.weight, sums / weight.sum(), rtol=1e-14)
    np.testing.assert_allclose(rows.share * sums[rows.group], weight, rtol=1e-14)


def test_rows_without_weight_are_in_no_group():
    X = np.array([[1.0], [2.0], [1.0], [3.0]])
    rows = unique_rows(X, np.array([0.0, 1.0, 2.0, 0.0]))
    np.testing.assert_array_equal(rows.index, [0, 1])
    np.testing.assert_array_equal(rows.group, [0, 1, 0, -1])
    np.testing.assert_allclose(rows.share, [0, 1, 1, 0])


def test_a_collision_of_hashes_does_not_merge_different_rows(monkeypatch):
    monkeypatch.setattr(_rows, "row_hashes", lambda X: np.zeros(X.shape[0], np.uint64))
    X = np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    rows = unique_rows(X, np.ones(3))
    np.testing.assert_array_equal(rows.index[rows.group], [0, 1, 0])


def test_a_column_swap_changes_the_hash():
    X = np.random.default_rng(2).standard_normal((50, 4))
    assert not np.isin(row_hashes(X), row_hashes(X[:, [1, 0, 2, 3]])).any()


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1.0, 1e200, 1e300])
def test_only_ratios_of_weights_matter(scale):
    X = np.arange(5.0)[:, None]
    weight = np.array([1.0, 2.0, 3.0, 0.0, 5.0])
    one, other = unique_rows(X, weight), unique_rows(X, weight * scale)
    np.testing.assert_array_equal(one.index, other.index)
    np.testing.assert_allclose(one.weight, other.weight, rtol=1e-14)


def test_rows_at_distance_zero_are_one_row():
    x = np.array([0.0, 1.0, 0.0, 2.0, 1.0])
    D = np.abs(x[:, None] - x)
    rows = merge_zero_distances(D, np.ones(5))
    np.testing.assert_array_equal(rows.index[rows.group], [0, 1, 0, 3, 1])
    np.testing.assert_allclose(rows.weight, [0.4, 0.4, 0.2])
    assert separate_rows(np.ones(5)).index.size == 5


def test_a_local_order_changes_nothing_else(repeated):
    weight = np.random.default_rng(1).uniform(0.5, 2, 100)
    weight[[3, 4, 5]] = 0.0
    rows = unique_rows(repeated, weight)
    ordered = in_local_order(rows, repeated)
    np.testing.assert_array_equal(np.sort(ordered.index), rows.index)
    counted = ordered.group >= 0
    np.testing.assert_array_equal(counted, rows.group >= 0)
    here, there = ordered.group[counted], rows.group[counted]
    np.testing.assert_array_equal(ordered.index[here], rows.index[there])
    np.testing.assert_array_equal(ordered.weight[here], rows.weight[there])
    np.testing.assert_array_equal(ordered.share, rows.share)


def test_rows_of_a_local_order_are_near_each_other():
    X = np.random.default_rng(0).uniform(0, 1, (5000, 2))
    rows = in_local_order(unique_rows(X, np.ones(5000)), X)
    apart = np.linalg.norm(np.diff(X[rows.index], axis=0), axis=1)
    # Rows of one leaf: 16 of 5000 lie in a square of side 0.06.
    assert np.median(apart) < 0.06


def test_distance_zero_alone_does_not_make_samples_equal():
    """Not a metric: each is at distance 0 from the next, and the ends are 4 apart."""
    x = np.arange(5.0)
    D = np.abs(x[:, None] - x)
    D[D <= 1] = 0
    assert unique_distances(D, np.ones(5)).index.size == 5
    h = 2.0
    k = np.exp(-(D**2) / (2 * h**2))
    k /= np.outer(k.sum(axis=1), k.sum(axis=1))
    d = k.sum(axis=1)
    value = np.linalg.eigvalsh(k / np.sqrt(np.outer(d, d)))[-2]
    fitted = DiffusionMap(1, bandwidth=h, metric="precomputed").fit(D)
    assert fitted.eigenvalues_[0] == pytest.approx(value, abs=1e-12)


def test_samples_with_equal_distances_to_all_others_are_one():
    x = np.array([0.0, 1.0, 0.0, 2.5, 1.0])
    rows = unique_distances(np.abs(x[:, None] - x), np.ones(5))
    np.testing.assert_array_equal(rows.index[rows.group], [0, 1, 0, 3, 1])
    np.testing.assert_allclose(rows.weight, [0.4, 0.4, 0.2])
