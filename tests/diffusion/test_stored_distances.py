"""Precomputed distances and transformers: lengths, short lists, outlying samples, symmetry."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist
from sklearn.neighbors import (
    KNeighborsTransformer,
    RadiusNeighborsTransformer,
    kneighbors_graph,
)

from skdmap import DiffusionMap
from skdmap.exceptions import SkdmapWarning

pytestmark = pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")


def uneven(seed=0):
    rng = np.random.default_rng(seed)
    return np.vstack([rng.standard_normal((200, 2)), 0.2 * rng.standard_normal((100, 2)) + 2])


@pytest.mark.parametrize("k", [4, 15, 100])
@pytest.mark.parametrize("own", [True, False])
def test_local_lengths_are_those_of_the_lists(k, own):
    """A list without the sample itself gets it at distance 0; new lists count as they are."""
    X = uneven()
    search = KNeighborsTransformer(mode="distance", n_neighbors=k).fit(X)
    lists = search.transform(X) if own else kneighbors_graph(X, k, mode="distance")
    model = DiffusionMap(2, metric="precomputed", bandwidth="local").fit(lists)
    near = np.sort(cdist(X, X), axis=1)[:, min(7, k)]
    np.testing.assert_allclose(model.bandwidth_, near, rtol=1e-12)
    np.testing.assert_allclose(model.epsilon_, (near**2).mean() / 2, rtol=1e-12)


def test_a_stray_row_does_not_pull_the_local_lengths():
    X = np.random.default_rng(0).uniform(size=(200, 2))
    transformer = KNeighborsTransformer(mode="distance", n_neighbors=30)
    without = DiffusionMap(2, metric="precomputed", bandwidth="local").fit(
        transformer.fit_transform(X)
    )
    stray = DiffusionMap(2, metric="precomputed", bandwidth="local").fit(
        transformer.fit_transform(np.vstack([X, [[1.6, 0.5]]]))
    )
    assert stray.n_connected_components_ == without.n_connected_components_
    np.testing.assert_allclose(stray.bandwidth_[:-1], without.bandwidth_, rtol=1e-12)


def test_rows_at_distance_zero_do_not_pull_the_local_lengths():
    """Collinear rows are at cosine distance 0 from each other."""
    X = np.random.default_rng(0).standard_normal((150, 3))
    plain = DiffusionMap(2, metric="cosine", bandwidth="local").fit(X)
    ray = np.vstack([X, np.outer(np.arange(1, 11), X[0])])
    with_ray = DiffusionMap(2, metric="cosine", bandwidth="local").fit(ray)
    assert 0.9 < with_ray.epsilon_ / plain.epsilon_ < 1.1
    assert with_ray.bandwidth_.min() > plain.bandwidth_.min() / 20


def test_an_outlying_list_gets_the_gaussian_mean_of_what_it_lists(relative):
    """No listed pair counts by the min rule; the rows named all lie at the right edge."""
    X = np.random.default_rng(0).uniform(size=(500, 2))
    transformer = KNeighborsTransformer(mode="distance", n_neighbors=50).fit(X)
    model = DiffusionMap(2, metric="precomputed", bandwidth=0.08).fit(transformer.transform(X))
    new = np.array([[1.2, 0.5], [1.25, 0.45]])
    lists = transformer.transform(new)
    found = model.transform(lists)
    assert np.all(np.abs(found) > 1e-3)
    for i in range(2):
        named = lists[i].indices
        k = np.exp(-(lists[i].data ** 2) / (2 * 0.08**2))
        near = model.embedding_[named]
        assert np.all(found[i] >= near.min(axis=0) - 1e-9)
        assert np.all(found[i] <= near.max(axis=0) + 1e-9)
        assert k.max() > 0
    assert relative(model.transform(lists[:1]), found[:1]) < 1e-12


@pytest.mark.parametrize("mode", ["distance", "connectivity"])
@pytest.mark.parametrize("bandwidth", [0.3, "local"])
def test_short_lists_of_a_transformer_give_training_rows_back(mode, bandwidth, relative):
    """Connectivity lists hold one entry less than distance lists."""
    X = uneven()
    transformer = KNeighborsTransformer(n_neighbors=30, mode=mode)
    model = DiffusionMap(3, bandwidth=bandwidth, neighbors_algorithm=transformer).fit(X)
    assert relative(model.transform(X), model.embedding_) < 1e-8


def test_a_transformer_by_radius_works(relative):
    X = uneven()
    transformer = RadiusNeighborsTransformer(mode="distance", radius=1.0)
    model = DiffusionMap(2, bandwidth=0.3, neighbors_algorithm=transformer).fit(X)
    assert relative(model.transform(X), model.embedding_) < 1e-8


def test_dense_distances_are_not_kept():
    X = uneven()
    model = DiffusionMap(2, metric="precomputed", bandwidth=0.5).fit(cdist(X, X))
    kept = [v for v in vars(model._extension.index).values() if isinstance(v, np.ndarray)]
    assert all(v.size < X.shape[0] ** 2 for v in kept)


def test_nearly_symmetric_distances_are_made_symmetric():
    X = uneven()
    distances = cdist(X, X).astype(np.float32)
    distances[0, 1] *= 1 + 1e-5
    model = DiffusionMap(2, metric="precomputed", bandwidth=0.5).fit(distances)
    assert model.residuals_.max() < 1e-12


@pytest.mark.parametrize("bandwidth", ["auto", 0.5, 100.0])
def test_a_connectivity_graph_is_a_graph_of_equal_distances(bandwidth):
    """Loops of 1, as scikit-learn stores them, are no distances from a sample to itself."""
    X = uneven()
    graph = kneighbors_graph(X, 15)
    loops = KNeighborsTransformer(mode="connectivity", n_neighbors=15).fit_transform(X)
    models = []
    for given in (graph, loops):
        with pytest.warns(SkdmapWarning, match="all stored distances are 1, so it is treated as"):
            models.append(DiffusionMap(2, metric="precomputed", bandwidth=bandwidth).fit(given))
    n_pieces = sp.csgraph.connected_components(graph + graph.T)[0]
    assert models[0].n_connected_components_ == n_pieces
    assert (models[0].component_labels_ >= 0).all()
    # A radius of twice the common distance: k = exp(-1 / 2h^2) - exp(-4 / 2h^2).
    h = models[0].bandwidth_
    either = (graph + graph.T).toarray() > 0
    k = np.where(either, np.exp(-1 / (2 * h**2)) - np.exp(-4 / (2 * h**2)), 0.0)
    np.fill_diagonal(k, 1 - np.exp(-4 / (2 * h**2)))
    k /= np.outer(k.sum(axis=1), k.sum(axis=1))
    d = k.sum(axis=1)
    values = np.linalg.eigvalsh(k / np.sqrt(np.outer(d, d)))[::-1]
    np.testing.assert_allclose(models[0].eigenvalues_, values[1:3], atol=1e-10)
