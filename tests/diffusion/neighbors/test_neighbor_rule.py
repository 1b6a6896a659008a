"""A pair counts when d <= max(r, r'), r the distance to the (k + 1)-th nearest training row.

Where the nearest third is within 1 % of r, r moves outwards.
"""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist
from sklearn.neighbors import KNeighborsTransformer

from skdmap import DiffusionMap
from skdmap.diffusion._neighbors.brute_force import BruteForceNeighbors
from skdmap.diffusion._neighbors.kd_tree import KDTreeNeighbors
from skdmap.exceptions import BandwidthWarning

K = 7


def by_definition(D, radii_of_columns):
    """Return the distances that count as a dense matrix with nan elsewhere, and r of the rows."""
    r = radii(D, K)
    counts = np.maximum(r[:, None], radii_of_columns[None, :]) >= D
    return np.where(counts, D, np.nan), r


def radii(D, n_neighbors):
    """Return r of each row, written row by row from the rule for ties."""
    found = []
    for row in np.sort(D, axis=1):

        def nth(k, row=row):
            return row[k - 1] if k <= row.size else 2 * row[-1]

        nearest, r = nth(int(np.ceil(n_neighbors / 3)) + 1), nth(n_neighbors + 1)
        for k in (2, 4, 8):
            ratio = nearest / r if r > 0 else 1.0
            r += min(max(1 - (1 - ratio) / 0.01, 0), 1) * (nth(k * n_neighbors + k) - r)
        found.append(r)
    return np.array(found)


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


TIED = {
    "lattice": np.array([(i, j) for i in range(15) for j in range(15)], float),
    "binary": np.unique(np.random.default_rng(0).integers(0, 2, (200, 9)), axis=0).astype(float),
    "nearly a lattice": np.array([(i, j) for i in range(12) for j in range(12)], float)
    + 2e-3 * np.random.default_rng(1).standard_normal((144, 2)),
}


@pytest.mark.parametrize("rows", TIED)
@pytest.mark.parametrize("name", ["tree", "brute", "fused"])
def test_ties_move_the_cut_off_for_training_and_new_rows_alike(name, rows):
    X, n_neighbors = TIED[rows], 4
    index = {
        "tree": KDTreeNeighbors(n_neighbors, 2.0),
        "brute": BruteForceNeighbors(n_neighbors, "minkowski", {"p": 2.0}),
        "fused": BruteForceNeighbors(n_neighbors, "euclidean", {}),
    }[name]
    D = cdist(X, X)
    r = radii(D, n_neighbors)
    assert (r > np.sort(D, axis=1)[:, n_neighbors] * 1.1).any()
    new = np.concatenate([X[::7], X[::7] + 0.25])
    for graph, distances, own in (
        (index.build(X), D, r),
        (index.query(new), cdist(new, X), radii(cdist(new, X), n_neighbors)),
    ):
        np.testing.assert_allclose(graph.row_radii, own, rtol=1e-10)
        # A pair at the cut-off itself weighs nothing, in or out.
        inside = distances < np.maximum(own[:, None], r) * (1 - 1e-9)
        np.testing.assert_allclose(dense(graph)[inside], distances[inside], rtol=1e-10, atol=1e-300)


@pytest.mark.parametrize("transformer", [False, True])
def test_no_sample_of_a_lattice_is_left_out(transformer, relative):
    """With 4 neighbours all of them lie at the cut-off, where the kernel is 0."""
    X = np.array([(i, j) for i in range(20) for j in range(20)], float)
    options = {"n_neighbors": 4}
    if transformer:
        options = {"neighbors_algorithm": KNeighborsTransformer(n_neighbors=4)}
    for bandwidth in ("auto", 5.0, 500.0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BandwidthWarning)
            model = DiffusionMap(2, bandwidth=bandwidth, **options).fit(X)
        assert model.n_connected_components_ == 1
        assert (model.component_labels_ == 0).all()
        assert relative(model.transform(X), model.embedding_) < 1e-10


def test_a_tied_row_alone_gets_what_it_gets_in_a_batch(relative):
    """Distances of one pair differ in the last digit; at the cut-off nothing else is left."""
    X = (np.random.default_rng(0).random((150, 40)) < 0.5).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = DiffusionMap(2, bandwidth="auto", n_neighbors=6, disconnected="largest").fit(X)
        together = model.transform(X)
        alone = np.concatenate([model.transform(X[i : i + 1]) for i in range(0, len(X), 5)])
    assert relative(together, model.embedding_) < 1e-9
    assert relative(alone, together[::5]) < 1e-9


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
def test_more_ties_than_a_sparse_graph_holds_are_named():
    with pytest.warns(BandwidthWarning, match="200 of 200 samples are equally far from more t"):
        model = DiffusionMap(1, n_neighbors=5, bandwidth=1.0).fit(np.eye(200))
    assert model.n_connected_components_ == 200


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
@pytest.mark.parametrize("bandwidth", [3.0, 6.0])
def test_all_pairs_given_as_neighbours_are_not_cut_off(bandwidth, cloud):
    D = cdist(cloud, cloud)
    whole = DiffusionMap(2, bandwidth=bandwidth, n_neighbors=None).fit(cloud)
    transformer = KNeighborsTransformer(n_neighbors=149)
    for X, options in (
        (cloud, {"n_neighbors": 149}),
        (cloud, {"neighbors_algorithm": transformer}),
        (D, {"metric": "precomputed", "n_neighbors": 149}),
        (sp.csr_matrix(D), {"metric": "precomputed"}),
        (transformer.fit_transform(cloud), {"metric": "precomputed"}),
    ):
        model = DiffusionMap(2, bandwidth=bandwidth, **options).fit(X)
        np.testing.assert_allclose(model.eigenvalues_, whole.eigenvalues_, rtol=1e-9)
        np.testing.assert_allclose(
            model.laplacian_eigenvalues_, whole.laplacian_eigenvalues_, rtol=1e-9
        )
        if not sp.issparse(X) or X.nnz == X.shape[0] ** 2:  # zeros of the diagonal are stored
            np.testing.assert_allclose(model.transform(X), model.embedding_, atol=1e-8)
