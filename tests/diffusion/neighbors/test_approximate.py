"""An index may return -1, repetitions and wrong distances: the graph is made of none of these."""

import copy
import pickle

import numpy as np
import pynndescent
import pytest
import scipy.sparse as sp
from sklearn.neighbors import KNeighborsTransformer, NearestNeighbors

from skdmap import DiffusionMap
from skdmap.diffusion._neighbors.approximate import (
    ApproximateNeighbors,
    PynndescentSearch,
    TransformerSearch,
)
from skdmap.diffusion._neighbors.kd_tree import KDTreeNeighbors


class FakeIndex:
    """Exact neighbours, then spoilt: -1, repetitions, and distances that are lies."""

    spoil = True

    def __init__(self, data, n_neighbors, metric, metric_kwds=None, random_state=None, n_jobs=None):
        assert data.dtype == np.float32
        self.search = NearestNeighbors(n_neighbors=n_neighbors + 6).fit(data)
        self.n_neighbors, self.n_train = n_neighbors, data.shape[0]
        self.neighbor_graph = self._answer(data, n_neighbors)

    def _answer(self, data, k):
        indices = self.search.kneighbors(data, n_neighbors=k + 6, return_distance=False)
        if self.spoil:
            indices[:, -1] = -1
            indices[:, -2] = indices[:, 1]
            indices[::7, -3] = indices[::7, 0]
            indices[::5, -4] = -1
        return indices.astype(np.int32), np.full(indices.shape, 3.5, dtype=np.float32)

    def query(self, data, k):
        assert data.dtype == np.float32
        return self._answer(data, k)


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(pynndescent, "NNDescent", FakeIndex)


@pytest.fixture(scope="module")
def sheet():
    """A two-dimensional sheet in 20 columns."""
    rng = np.random.default_rng(0)
    u = rng.uniform(size=(600, 2)) * [2.0, 1.0]
    frame = np.linalg.qr(rng.standard_normal((20, 3)))[0]
    return np.column_stack([u, 0.3 * np.sin(3 * u[:, 0])]) @ frame.T


def test_spoilt_answers_give_the_exact_graph(fake, sheet, relative):
    settings = {"n_neighbors": 40, "bandwidth": 0.06}
    exact = DiffusionMap(4, neighbors_algorithm="exact", **settings).fit(sheet)
    found = DiffusionMap(4, neighbors_algorithm="pynndescent", **settings).fit(sheet)
    np.testing.assert_allclose(found.eigenvalues_, exact.eigenvalues_, rtol=1e-12)
    assert relative(found.embedding_, exact.embedding_) < 1e-9
    assert found.n_neighbors_ == 40
    assert relative(found.transform(sheet), found.embedding_) < 1e-8
    new = sheet[:50] + 1e-3
    assert relative(found.transform(new), exact.transform(new)) < 1e-8


def test_an_index_that_finds_only_half_the_neighbours_is_no_error(monkeypatch, sheet):
    class Half(FakeIndex):
        def _answer(self, data, k):
            indices, distances = super()._answer(data, k)
            indices[:, ::2] = -1
            return indices, distances

    monkeypatch.setattr(pynndescent, "NNDescent", Half)
    model = DiffusionMap(
        2, neighbors_algorithm="pynndescent", n_neighbors=40, bandwidth=0.06, alpha=0.5
    ).fit(sheet)
    assert np.isfinite(model.embedding_).all()
    assert np.isfinite(model.transform(sheet + 1e-3)).all()


def test_distances_are_computed_from_the_rows(fake, sheet):
    graph = ApproximateNeighbors(PynndescentSearch(10, "euclidean", {}, seed=0)).build(sheet)
    rows = np.repeat(np.arange(600), np.diff(graph.distances.indptr))
    apart = np.linalg.norm(sheet[rows] - sheet[graph.distances.indices], axis=1)
    np.testing.assert_allclose(graph.distances.data, apart, rtol=1e-14, atol=1e-300)


@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "chebyshev"])
def test_a_transformer_gives_the_graph_of_trees(metric, cloud):
    order = {"euclidean": 2.0, "manhattan": 1.0, "chebyshev": np.inf}[metric]
    transformer = KNeighborsTransformer(n_neighbors=9, metric=metric)
    found = ApproximateNeighbors(TransformerSearch(transformer, metric, {}))
    exact = KDTreeNeighbors(9, order)
    difference = found.build(cloud).distances - exact.build(cloud).distances
    assert abs(difference).max() < 1e-12
    np.testing.assert_allclose(found.radii, exact.radii, rtol=1e-12)
    assert not hasattr(transformer, "n_samples_fit_")


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
def test_settings_of_a_transformer_win(cloud, relative):
    transformer = KNeighborsTransformer(n_neighbors=30, metric="manhattan")
    model = DiffusionMap(2, n_neighbors=5, bandwidth=0.4, neighbors_algorithm=transformer).fit(
        cloud
    )
    exact = DiffusionMap(2, n_neighbors=30, bandwidth=0.4, metric="manhattan").fit(cloud)
    assert model.n_neighbors_ == 30
    np.testing.assert_allclose(model.eigenvalues_, exact.eigenvalues_, rtol=1e-12)
    assert relative(model.transform(cloud), model.embedding_) < 1e-8


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
def test_connectivity_lists_are_measured(cloud):
    """A transformer whose stored values are ones says who is near, not how near."""
    settings = {"bandwidth": 0.3, "n_components": 2}
    ones = KNeighborsTransformer(n_neighbors=29, mode="connectivity")
    far = KNeighborsTransformer(n_neighbors=30, mode="distance")
    a = DiffusionMap(neighbors_algorithm=ones, **settings).fit(cloud)
    b = DiffusionMap(neighbors_algorithm=far, **settings).fit(cloud)
    assert sp.issparse(ones.fit_transform(cloud))
    assert abs(a.eigenvalues_ - b.eigenvalues_).max() < 2e-2
    assert np.isfinite(a.transform(cloud + 0.01)).all()


@pytest.mark.slow
def test_real_pynndescent_on_a_surface_in_64_columns(angle):
    """20,000 rows: the first five coordinates span the space of the exact ones to 1e-2 rad."""
    rng = np.random.default_rng(0)
    u = rng.uniform(size=(20_000, 2)) * [3.0, 1.0]
    waves = np.column_stack([u, 0.3 * np.sin(2 * u[:, 0]), 0.3 * np.cos(2 * u[:, 1])])
    frame = np.linalg.qr(rng.standard_normal((64, 4)))[0]
    X = waves @ frame.T
    settings = {"n_neighbors": 32, "bandwidth": 0.014, "random_state": 0}
    exact = DiffusionMap(5, neighbors_algorithm="exact", **settings).fit(X)
    found = DiffusionMap(5, neighbors_algorithm="pynndescent", **settings).fit(X)
    assert angle(found.eigenvectors_, exact.eigenvectors_, exact.stationary_distribution_) < 1e-2
    assert angle(found.transform(X), found.embedding_) < 1e-2


class Forgetful(FakeIndex):
    """Exact for the training samples; queries find other samples than the nearest."""

    def query(self, data, k):
        indices, distances = super().query(data, k)
        return (indices + 7) % self.n_train, distances


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
@pytest.mark.parametrize("sparse", [False, True])
def test_training_samples_get_their_embedding_whatever_a_query_finds(sparse, monkeypatch, sheet):
    monkeypatch.setattr(pynndescent, "NNDescent", Forgetful)
    X = sp.csr_matrix(np.maximum(sheet, 0)) if sparse else sheet
    if sparse:
        monkeypatch.setattr(FakeIndex, "spoil", False)
    model = DiffusionMap(3, neighbors_algorithm="pynndescent", n_neighbors=40, bandwidth=0.1)
    model.fit(X)
    scale = np.abs(model.embedding_).max()
    np.testing.assert_allclose(model.transform(X), model.embedding_, atol=1e-8 * scale)
    # Among new samples too, in any order.
    mixed = X[[5, 3, 5]].toarray() if sparse else np.vstack([X[5], X[3] + 1e-3, X[5]])
    found = model.transform(mixed)
    np.testing.assert_allclose(found[[0, 2]], model.embedding_[[5, 5]], atol=1e-8 * scale)


def test_an_index_is_made_again_after_a_round_trip(fake, sheet):
    settings = {"n_neighbors": 40, "bandwidth": 0.06, "random_state": 0}
    model = DiffusionMap(4, neighbors_algorithm="pynndescent", **settings).fit(sheet)
    new = sheet[:50] + 1e-3
    expected = model.transform(new)
    for copied in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(copied.transform(new), expected)


@pytest.mark.slow
def test_real_pynndescent_after_a_round_trip(sheet):
    skops = pytest.importorskip("skops.io")
    model = DiffusionMap(
        2, bandwidth="auto", neighbors_algorithm="pynndescent", n_neighbors=40, random_state=0
    )
    model.fit(sheet)
    new = sheet[:50] + 1e-3
    data = skops.dumps(model)
    copied = skops.loads(data, trusted=skops.get_untrusted_types(data=data))
    np.testing.assert_array_equal(copied.transform(new), model.transform(new))
    np.testing.assert_allclose(model.transform(sheet), model.embedding_, atol=1e-8)
