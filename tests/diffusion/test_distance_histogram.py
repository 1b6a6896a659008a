"""Sums over the kernel, read from histograms, against the sums themselves."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist

from skdmap.diffusion._distance_histogram import (
    bandwidth_curve,
    distance_histogram,
    representative_sample,
    sample_histogram,
    sample_size,
)
from skdmap.diffusion._neighbors.brute_force import AllPairs
from skdmap.diffusion._neighbors.search import SearchSettings


def histogram_of(X, weight=None):
    n = len(X)
    weight = np.full(n, 1 / n) if weight is None else weight / weight.sum()
    return distance_histogram(np.arange(n), cdist(X, X), weight)


def test_curve_is_the_kernel_sum_and_its_slope(cloud, weights):
    """Bins of 0.05 in log d^2, shared linearly, bend exp(-x) by at most 0.05^2 / 8."""
    curve = bandwidth_curve(histogram_of(cloud, weights))
    w = weights / weights.sum()
    d2 = cdist(cloud, cloud, "sqeuclidean")
    for position in range(0, curve.bandwidths.size, 7):
        h = curve.bandwidths[position]
        k = np.exp(-d2 / (2 * h**2))
        total = w @ k @ w
        assert curve.log_kernel_sum[position] == pytest.approx(np.log(total), abs=2e-3)
        slope = w @ (k * d2) @ w / (h**2 * total)
        assert curve.slope[position] == pytest.approx(slope, abs=5e-3)
    assert (np.diff(curve.log_kernel_sum) >= -1e-12).all()


def test_slope_is_the_derivative_of_the_curve(cloud):
    curve = bandwidth_curve(histogram_of(cloud))
    derivative = np.gradient(curve.log_kernel_sum, np.log(curve.bandwidths))
    np.testing.assert_allclose(curve.slope[2:-2], derivative[2:-2], atol=5e-3)


@pytest.mark.parametrize("scale", [1e-100, 1e-8, 1e8, 1e100])
def test_histogram_scales_with_the_data(cloud, scale):
    one, other = bandwidth_curve(histogram_of(cloud)), bandwidth_curve(histogram_of(cloud * scale))
    size = min(one.bandwidths.size, other.bandwidths.size)
    np.testing.assert_allclose(other.bandwidths[:size], scale * one.bandwidths[:size], rtol=1e-10)
    np.testing.assert_allclose(other.slope[:size], one.slope[:size], atol=1e-7)


def test_integer_weights_are_repetitions(cloud):
    """Linear shares of a bin bend exp(-x) by x^2 0.05^2 / 8, x = d^2 / 2h^2, below 3 here."""
    repeats = np.random.default_rng(0).integers(1, 4, 150)
    one = histogram_of(cloud, repeats.astype(float))
    grid = np.array([0.8, 1.5])
    k = np.exp(-cdist(cloud, cloud, "sqeuclidean")[:, :, None] / (2 * grid**2))
    k[np.arange(150), np.arange(150)] = 0
    relative = repeats * 150 / repeats.sum()
    expected = np.einsum("ijh,j->ih", k, relative)
    np.testing.assert_allclose(one.kernel_sums(grid), expected, rtol=2e-3)


def test_listed_and_dense_distances_agree_where_all_are_listed(cloud):
    D = cdist(cloud, cloud)
    stored = sp.csr_matrix(np.where(D == 0, 5e-324, D))
    weight = np.full(150, 1 / 150)
    dense = distance_histogram(np.arange(150), D, weight)
    listed = distance_histogram(np.arange(150), stored, weight)
    np.testing.assert_allclose(listed.counts, dense.counts, atol=1e-10)


def test_blocks_of_rows_are_the_rows(cloud):
    D = cdist(cloud, cloud)
    weight = np.full(150, 1 / 150)
    rows = np.array([3, 77, 140])
    some = distance_histogram(rows, D[rows], weight)
    total = some.counts.sum(axis=1)
    # A row meets all others once, and not itself.
    np.testing.assert_allclose(total, 149, rtol=1e-12)
    np.testing.assert_array_equal(some.weight, 1.0)


def test_distances_that_are_all_zero_are_an_error():
    with pytest.raises(ValueError, match="X: the squared distances"):
        distance_histogram(np.arange(3), np.zeros((3, 3)), np.full(3, 1 / 3))


def settings(metric="euclidean", algorithm="auto"):
    return SearchSettings(metric=metric, params={}, algorithm=algorithm, n_jobs=None, seed=0)


def test_a_sample_stands_for_all_rows():
    """The same rows whatever their order, scale, place and rotation."""
    rng = np.random.default_rng(0)
    X, weight = rng.standard_normal((3000, 3)), np.full(3000, 1 / 3000)
    rows = representative_sample(X, weight, settings(), 200)
    assert rows.size == np.unique(rows).size == 200
    order = rng.permutation(3000)
    shuffled = order[representative_sample(X[order], weight, settings(), 200)]
    np.testing.assert_array_equal(np.sort(shuffled), rows)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    moved = representative_sample(1e8 * (X @ turn) + 7, weight, settings(), 200)
    np.testing.assert_array_equal(moved, rows)
    sparse = representative_sample(sp.csr_matrix(X), weight, settings(), 200)
    np.testing.assert_array_equal(sparse, rows)
    every = representative_sample(X, weight, settings(), 5000)
    np.testing.assert_array_equal(every, np.arange(3000))
    assert sample_size(200_000) == 256
    assert sample_size(300) == 300


@pytest.mark.parametrize("known", [False, True])
def test_a_histogram_of_some_samples_measures_them(known, cloud):
    rows = np.array([4, 90])
    weight = np.full(150, 1 / 150)
    graph = AllPairs("euclidean", {}).build(cloud) if known else None
    found = sample_histogram(rows, cloud, weight, settings(), graph)
    expected = distance_histogram(rows, cdist(cloud, cloud)[rows], weight)
    np.testing.assert_allclose(found.counts, expected.counts, atol=1e-9)
