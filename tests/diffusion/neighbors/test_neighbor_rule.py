"""A pair counts when d <= max(r, r'), r the distance to the (k + 1)-th nearest training row."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist
from sklearn.neighbors import KNeighborsTransformer

from skdmap.diffusion._neighbors.brute_force import BruteForceNeighbors
from skdmap.diffusion._neighbors.kd_tree import KDTreeNeighbors, tree_order
from skdmap.diffusion._neighbors.precomputed import StoredNeighbors

K = 7


def by_definition(D, radii_of_columns):
    """Return the distances that count as a dense matrix with nan elsewhere, and r of the rows."""
    r = np.sort(D, axis=1)[:, K]
    counts = np.maximum(r[:, None], radii_of_columns[None, :]) >= D
    return np.where(counts, D, np.nan), r


def dense(graph):
    """Return the distances of pairs within their cut-off, beyond which the kernel is 0."""
    full = np.full(graph.distances.shape, np.nan)
    rows = np.repeat(np.arange(full.shape[0]), np.diff(graph.distances.indptr))
    counts = graph.distances.data <= graph.cutoffs()
    full[rows[counts], graph.distances.indices[counts]] = graph.distances.data[counts]
    return full


SEARCHES = {
    "tree": lambda: KDTreeNeighbors(K, 2.0),
    "brute": lambda: BruteForceNeighbors(K, "minkowski", {"p": 2.0}),
    "fused": lambda: BruteForceNeighbors(K, "euclidean", {}),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_training_graph_and_new_rows_follow_the_definition(name, cloud):
    search = SEARCHES[name]()
    D = cdist(cloud, cloud)
    r = np.sort(D, axis=1)[:, K]
    expected, _ = by_definition(D, r)
    graph = search.build(cloud)
    np.testing.assert_allclose(dense(graph), expected, rtol=1e-13, atol=1e-300)
    np.testing.assert_allclose(graph.row_radii, r, rtol=1e-13)
    # A row far out is in nobody's radius, but has neighbours of its own.
    new = np.concatenate([np.random.default_rng(3).standard_normal((30, 3)), [[50.0, 0.0, 0.0]]])
    expected, radii = by_definition(cdist(new, cloud), r)
    graph = search.query(new)
    np.testing.assert_allclose(dense(graph), expected, rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(graph.row_radii, radii, rtol=1e-12)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_training_row_given_as_new_gets_its_own_row(name, cloud):
    """But for ties at the cut-off R, which weigh nothing: R^2 - d^2 is what a pair weighs."""
    search = SEARCHES[name]()
    graph = search.build(cloud)
    R2 = np.maximum.outer(search.radii, search.radii) ** 2
    weight = [np.nan_to_num(R2 - dense(found) ** 2) for found in (graph, search.query(cloud))]
    np.testing.assert_allclose(weight[1], weight[0], rtol=1e-13, atol=1e-14 * R2.max())


@pytest.mark.parametrize("order", [1.0, 3.0, np.inf])
def test_trees_know_other_orders(order, cloud):
    name = {1.0: "cityblock", np.inf: "chebyshev"}.get(order, "minkowski")
    params = {"p": order} if name == "minkowski" else {}
    D = cdist(cloud, cloud, name, **params)
    expected, _ = by_definition(D, np.sort(D, axis=1)[:, K])
    found = dense(KDTreeNeighbors(K, order).build(cloud))
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-300)


def test_wide_rows_in_two_tight_clusters_far_apart():
    """The fused search confuses rows whose distance is 1e-18 of the norms; the graph must not."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.standard_normal((40, 20)) * 1e-3 + s for s in (0.0, 2e5)])
    graph = BruteForceNeighbors(K, "euclidean", {}).build(X)
    D = np.array([[np.sqrt(((a - b) ** 2).sum()) for b in X] for a in X])
    expected, _ = by_definition(D, np.sort(D, axis=1)[:, K])
    # Rows at 2e5 are known to 2e5 eps, 1e-7 of the distances: only the centring rounds.
    np.testing.assert_allclose(dense(graph), expected, rtol=1e-6, atol=1e-300)


def test_which_metrics_a_tree_takes(cloud):
    assert tree_order(cloud, "euclidean", {}) == 2.0
    assert tree_order(cloud, "manhattan", {}) == 1.0
    assert tree_order(cloud, "minkowski", {"p": 3}) == 3.0
    assert tree_order(cloud, "minkowski", {"p": 3, "w": [1, 1, 1]}) is None
    assert tree_order(cloud, "cosine", {}) is None
    assert tree_order(np.zeros((5, 40)), "euclidean", {}) is None
    assert tree_order(sp.csr_matrix(cloud), "euclidean", {}) is None


def test_listed_pairs_count_by_the_smaller_radius(cloud):
    lists = KNeighborsTransformer(mode="distance", n_neighbors=K).fit(cloud)
    L = lists.transform(cloud)
    search = StoredNeighbors()
    D = cdist(cloud, cloud)
    r = np.sort(D, axis=1)[:, K]
    expected = np.where(np.minimum(r[:, None], r[None, :]) * (1 + 1e-12) >= D, D, np.nan)
    graph = search.build(L)
    np.testing.assert_allclose(dense(graph), expected, rtol=1e-6, atol=1e-300)
    assert graph.rule == "min"
    assert search.n_neighbors == K
    np.testing.assert_allclose(dense(search.query(L)), dense(graph), rtol=1e-15, atol=0)


def test_an_asymmetric_list_counts_a_pair_that_one_row_stores():
    # Row 0 does not list row 2, whose distance 1 is within both radii.
    D = sp.csr_matrix(np.array([[0, 2.0, 0], [2.0, 0, 3.0], [1.0, 3.0, 0]]))
    found = dense(StoredNeighbors().build(D))
    assert found[0, 2] == found[2, 0] == 1.0
    # r = 2, 3, 3: all listed pairs within the smaller radius count.
    assert found[0, 1] == 2.0
    assert found[1, 2] == 3.0
