"""A pair counts when d <= max(r, r'), r the distance to the (k + 1)-th nearest training row."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from skdmap.diffusion._neighbors.brute_force import BruteForceNeighbors
from skdmap.diffusion._neighbors.kd_tree import KDTreeNeighbors

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


INDICES = {
    "tree": lambda: KDTreeNeighbors(K, 2.0),
    "brute": lambda: BruteForceNeighbors(K, "minkowski", {"p": 2.0}),
    "fused": lambda: BruteForceNeighbors(K, "euclidean", {}),
}


@pytest.mark.parametrize("name", INDICES)
def test_training_graph_and_new_rows_follow_the_definition(name, cloud):
    index = INDICES[name]()
    D = cdist(cloud, cloud)
    r = np.sort(D, axis=1)[:, K]
    expected, _ = by_definition(D, r)
    graph = index.build(cloud)
    np.testing.assert_allclose(dense(graph), expected, rtol=1e-13, atol=1e-300)
    np.testing.assert_allclose(graph.row_radii, r, rtol=1e-13)
    # A row far out is within no radius, but has neighbours of its own.
    new = np.concatenate([np.random.default_rng(3).standard_normal((30, 3)), [[50.0, 0.0, 0.0]]])
    expected, radii = by_definition(cdist(new, cloud), r)
    graph = index.query(new)
    np.testing.assert_allclose(dense(graph), expected, rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(graph.row_radii, radii, rtol=1e-12)


@pytest.mark.parametrize("name", INDICES)
def test_a_training_row_given_as_new_gets_its_own_row(name, cloud):
    """But for ties at the cut-off R, which weigh nothing: R^2 - d^2 is what a pair weighs."""
    index = INDICES[name]()
    graph = index.build(cloud)
    R2 = np.maximum.outer(index.radii, index.radii) ** 2
    weight = [np.nan_to_num(R2 - dense(found) ** 2) for found in (graph, index.query(cloud))]
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
