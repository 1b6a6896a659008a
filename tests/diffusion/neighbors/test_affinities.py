"""Affinities that are given as distances are found, and distances are never taken for them."""

import contextlib

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import kneighbors_graph, radius_neighbors_graph

from skdmap import DiffusionMap
from skdmap.datasets import make_swiss_roll
from skdmap.diffusion._neighbors.affinities import looks_like_affinities, looks_like_distances
from skdmap.exceptions import SkdmapWarning

RNG = np.random.default_rng(1)
SAMPLES = {
    "iris": load_iris().data,
    "wine": load_wine().data,
    "cancer": load_breast_cancer().data[:200],
    "digits": load_digits().data[:200],
    "roll": make_swiss_roll(200, random_state=0).X,
    "normal in 1000 dimensions": RNG.standard_normal((200, 1000)),
    "outliers": RNG.standard_cauchy((200, 3)),
    "time series": np.cumsum(RNG.standard_normal((200, 30)), axis=0),
    "binary": (RNG.random((200, 30)) < 0.3).astype(float),
    "one-hot": np.eye(60),
    "few": RNG.uniform(size=(12, 2)),
}
METRICS = ["euclidean", "sqeuclidean", "correlation", "hamming", "chebyshev"]
# Affinities of these hold no more than noise.
NOISE = {"normal in 1000 dimensions", "one-hot", "few", "binary"}


def lists(X, n_neighbors, metric="euclidean"):
    graph = kneighbors_graph(X, n_neighbors, mode="distance", metric=metric)
    graph.data = np.maximum(graph.data, 5e-324)
    return graph


@pytest.mark.parametrize("name", SAMPLES)
def test_distances_are_never_taken_for_affinities(name):
    X = SAMPLES[name]
    for metric in METRICS:
        if metric == "correlation" and X.shape[1] < 3:
            continue
        assert not looks_like_affinities(np.nan_to_num(pairwise_distances(X, metric=metric)))
    for n_neighbors in (5, 11):
        graph = lists(X, n_neighbors)
        assert not looks_like_affinities(graph)
        assert not looks_like_affinities(graph.maximum(graph.T).tocsr())
    radius = np.quantile(pairwise_distances(X), 0.15)
    assert not looks_like_affinities(radius_neighbors_graph(X, radius, mode="distance"))


@pytest.mark.parametrize("name", [name for name in SAMPLES if name not in NOISE])
def test_affinities_are_found(name):
    X = SAMPLES[name]
    distances = pairwise_distances(X)
    for share in (0.1, 2.0):
        K = np.exp(-((distances / (share * np.median(distances))) ** 2))
        np.fill_diagonal(K, 0)
        assert looks_like_affinities(K), share
        assert not looks_like_distances(K), share
    near = np.sort(distances, axis=1)[:, 8]
    near = np.maximum(near, np.median(near) / 20)
    graph = lists(X, 15)
    graph = graph.maximum(graph.T).tocoo()
    scale = near[graph.row] * near[graph.col]
    graph.data = np.exp(-(graph.data**2) / (2 * scale))
    assert looks_like_affinities(graph.tocsr())
    assert looks_like_affinities(graph.toarray())


@pytest.mark.parametrize("name", SAMPLES)
def test_affinities_are_never_taken_for_distances(name):
    distances = pairwise_distances(SAMPLES[name])
    for share in (0.1, 0.3, 1.0, 2.0, 5.0):
        K = np.exp(-((distances / (share * np.median(distances))) ** 2))
        np.fill_diagonal(K, 0)
        assert not looks_like_distances(K), share
    K = kneighbors_graph(SAMPLES[name], 5)
    assert not looks_like_distances(K.maximum(K.T).toarray())


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "one-hot"])
def test_dense_distances_are_found_by_their_triangles(name):
    distances = pairwise_distances(SAMPLES[name])
    assert looks_like_distances(distances)
    assert looks_like_distances(distances.astype(np.float32))
    assert not looks_like_distances(distances + np.eye(len(distances)))
    assert not looks_like_distances(sp.csr_matrix(distances))
    assert not looks_like_distances(distances.max() - distances)
    # Smaller where samples are more alike, but no metric.
    assert not looks_like_distances(distances**8)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.LocalizedCoordinateWarning")
def test_distances_as_affinities_are_answered_with_the_parameter_that_takes_them():
    distances = pairwise_distances(SAMPLES["roll"])
    with pytest.warns(SkdmapWarning, match="looks like distances.*metric='precomputed'"):
        DiffusionMap(kernel="precomputed").fit(distances)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
def test_no_length_is_answered_with_the_parameter_that_takes_affinities():
    K = np.exp(-(pairwise_distances(SAMPLES["roll"]) ** 2) / 8)
    K[K < 0.1] = 0
    np.fill_diagonal(K, 0)
    with pytest.raises(ValueError, match=r"length 0,.*Pass affinities with kernel='precomputed'"):
        DiffusionMap(metric="precomputed", bandwidth="local").fit(K)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
@pytest.mark.parametrize("convert", [np.asarray, sp.csr_matrix])
def test_affinities_as_distances_are_answered_with_the_parameter_that_takes_them(convert):
    distances = pairwise_distances(SAMPLES["roll"])
    K = np.exp(-(distances**2) / 8)
    K[K < 0.01] = 0
    np.fill_diagonal(K, 0)
    with (
        pytest.warns(SkdmapWarning, match="looks like affinities.*kernel='precomputed'"),
        contextlib.suppress(ValueError),  # a median distance of 0
    ):
        DiffusionMap(metric="precomputed").fit(convert(K))
    np.fill_diagonal(K, 1)
    with pytest.raises(ValueError, match="kernel='precomputed'"):
        DiffusionMap(metric="precomputed").fit(convert(K))
