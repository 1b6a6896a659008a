"""k = exp(-d^2 / 2h^2), less its value at the cut-off over a sparse graph; all in logarithms."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from skdmap.diffusion._kernel import (
    gaussian,
    gaussian_affinity,
    largest_in_rows,
    log_affinity,
    log_gaussian,
    row_log_sums,
)
from skdmap.diffusion._neighbors.graph import DistanceGraph
from skdmap.diffusion._neighbors.kd_tree import KDTreeNeighbors

H = 0.4
EPSILON = H**2 / 2


@pytest.fixture
def sparse_graph(cloud):
    return KDTreeNeighbors(12, 2.0).build(cloud)


def test_epsilon_is_half_the_squared_bandwidth(cloud):
    D = cdist(cloud, cloud)
    k = gaussian_affinity(DistanceGraph(D), epsilon=EPSILON)
    np.testing.assert_allclose(k, np.exp(-(D**2) / (2 * H**2)), rtol=1e-13)
    np.testing.assert_allclose(gaussian(D**2, H), k, rtol=1e-13)
    # The standard deviation of k as a density is h.
    x = np.linspace(-8 * H, 8 * H, 4001)
    density = gaussian_affinity(DistanceGraph(np.abs(x)[None]), epsilon=EPSILON)[0]
    assert np.sqrt(np.average(x**2, weights=density)) == pytest.approx(H, rel=1e-9)


def test_local_scales_multiply_epsilon(cloud):
    D = cdist(cloud, cloud)
    rho = np.random.default_rng(0).uniform(0.5, 2, 150)
    scales = {"row_scale": rho, "column_scale": rho}
    k = gaussian_affinity(DistanceGraph(D), epsilon=EPSILON, **scales)
    np.testing.assert_allclose(k, np.exp(-(D**2) / (2 * H**2 * np.outer(rho, rho))), rtol=1e-12)


@pytest.mark.parametrize("variable", [False, True])
def test_the_value_at_the_cut_off_is_taken_off(sparse_graph, variable):
    rho = np.random.default_rng(1).uniform(0.5, 2, 150) if variable else None
    scales = {"epsilon": EPSILON, "row_scale": rho, "column_scale": rho}
    k = gaussian_affinity(sparse_graph, **scales).toarray()
    log_k = log_affinity(sparse_graph, **scales)
    log_k.data = np.exp(log_k.data)
    np.testing.assert_allclose(log_k.toarray(), k, rtol=1e-12)
    d = sparse_graph.distances.toarray()
    R = np.maximum.outer(sparse_graph.row_radii, sparse_graph.column_radii)
    scale = 2 * H**2 * (np.outer(rho, rho) if variable else 1.0)
    expected = np.where(d > 0, np.exp(-(d**2) / scale) - np.exp(-(R**2) / scale), 0.0)
    np.testing.assert_allclose(k, expected, rtol=1e-10, atol=1e-16)
    assert (k >= 0).all()
    np.testing.assert_array_equal(k, k.T)


@pytest.mark.parametrize("h", [1e-3, 1e8])
def test_the_difference_keeps_its_digits_where_both_terms_are_close_or_tiny(h):
    """(R^2 - d^2) / 2h^2 for large h; exp(-d^2/2h^2) for small h, of which exp is 0."""
    graph = DistanceGraph(
        sp.csr_matrix(np.array([[1.0, 2.0]])), np.array([2.5]), np.array([1.0, 2.0])
    )
    log_k = log_affinity(graph, epsilon=h**2 / 2).data
    d2 = np.array([1.0, 4.0])
    # np.expm1 in extended form: log k = -d^2/2h^2 + log(1 - exp(-(R^2 - d^2)/2h^2)).
    exact = -d2 / (2 * h**2) + np.log(-np.expm1(-(6.25 - d2) / (2 * h**2)))
    np.testing.assert_allclose(log_k, exact, rtol=1e-13)


def test_ties_weigh_nothing(sparse_graph):
    at_cutoff = np.isclose(sparse_graph.distances.data, sparse_graph.cutoffs(), rtol=1e-14)
    assert at_cutoff.any()
    k = gaussian_affinity(sparse_graph, epsilon=EPSILON)
    assert k.data[at_cutoff].max() < 1e-15


def test_sums_are_those_of_logsumexp_where_exp_underflows(cloud, sparse_graph):
    log_w = np.log(np.random.default_rng(2).uniform(0.1, 1, 150))
    log_k = log_affinity(DistanceGraph(cdist(cloud + 100, cloud)), epsilon=EPSILON)
    assert np.exp(log_k).max() == 0
    expected = logsumexp(log_k + log_w, axis=1)
    np.testing.assert_allclose(row_log_sums(log_k, log_w), expected, rtol=1e-13)
    log_k = log_affinity(sparse_graph, epsilon=EPSILON)
    stored = np.full((150, 150), -np.inf)
    rows = np.repeat(np.arange(150), np.diff(log_k.indptr))
    stored[rows, log_k.indices] = log_k.data
    np.testing.assert_allclose(
        row_log_sums(log_k, log_w), logsumexp(stored + log_w, axis=1), rtol=1e-12
    )


def test_a_row_without_weight_has_log_sum_minus_infinity():
    log_k = sp.csr_matrix((np.array([-1.0]), np.array([0]), np.array([0, 1, 1])), shape=(2, 2))
    np.testing.assert_array_equal(row_log_sums(log_k, np.array([-np.inf, 0.0])), -np.inf)
    dense = np.array([[-1.0, -2.0]])
    np.testing.assert_array_equal(row_log_sums(dense, np.full(2, -np.inf)), -np.inf)


def test_nearest_gaussian_takes_nothing_off(cloud, sparse_graph):
    expected = np.zeros(150)
    every = np.ones(150, bool)
    found = largest_in_rows(log_gaussian(sparse_graph.distances, epsilon=EPSILON), every)
    np.testing.assert_allclose(found, expected, atol=1e-300)
    new = cloud[:9] + np.array([0, 0, 5.0])
    search = KDTreeNeighbors(12, 2.0)
    search.build(cloud)
    d = cdist(new, cloud).min(axis=1)
    log_k = log_gaussian(search.query(new).distances, epsilon=EPSILON)
    found = largest_in_rows(log_k, every)
    assert np.all(np.isneginf(largest_in_rows(log_k, ~every)))
    np.testing.assert_allclose(found, -(d**2) / (2 * H**2), rtol=1e-12)
