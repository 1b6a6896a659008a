"""Which index answers for which settings; all of them give the same graph."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist
from sklearn.neighbors import KNeighborsTransformer, RadiusNeighborsTransformer

from skdmap import DiffusionMap
from skdmap.diffusion._neighbors.approximate import ApproximateNeighbors
from skdmap.diffusion._neighbors.brute_force import AllPairs, BruteForceNeighbors
from skdmap.diffusion._neighbors.kd_tree import KDTreeNeighbors
from skdmap.diffusion._neighbors.precomputed import StoredNeighbors
from skdmap.diffusion._neighbors.search import SearchSettings, make_index


def settings(metric="euclidean", algorithm="auto"):
    return SearchSettings(metric=metric, params={}, algorithm=algorithm, n_jobs=None, seed=0)


@pytest.mark.parametrize(
    ("make", "n_neighbors", "chosen", "expected"),
    [
        (lambda X: X, None, settings(), AllPairs),
        (lambda X: X, 9, settings(), KDTreeNeighbors),
        (lambda X: X, 9, settings("cosine"), BruteForceNeighbors),
        (lambda X: np.hstack([X] * 8), 9, settings(), BruteForceNeighbors),
        (sp.csr_matrix, 9, settings(), BruteForceNeighbors),
        (lambda X: cdist(X, X), 9, settings("precomputed"), BruteForceNeighbors),
        (lambda X: sp.csr_matrix(cdist(X, X)), None, settings("precomputed"), StoredNeighbors),
        (
            lambda X: X,
            None,
            settings(algorithm=KNeighborsTransformer(n_neighbors=9)),
            ApproximateNeighbors,
        ),
    ],
)
def test_every_search_finds_the_same_neighbours(make, n_neighbors, chosen, expected, cloud):
    index = make_index(make(cloud), n_neighbors, chosen)
    assert type(index) is expected
    if chosen.metric == "euclidean" and index.n_neighbors == 9:
        rows = make(cloud)
        exact = KDTreeNeighbors(9, 2.0).build(cloud if rows.shape == cloud.shape else rows)
        np.testing.assert_allclose(
            index.build(rows).distances.toarray(), exact.distances.toarray(), rtol=1e-10
        )


def test_an_index_can_be_built_again(cloud):
    """Nothing is used up: a second build and a query give what the first build gave."""
    index = KDTreeNeighbors(9, 2.0)
    first = index.build(cloud).distances
    assert abs(index.build(cloud).distances - first).max() == 0
    assert abs(index.build(cloud).distances - first).max() == 0


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_neighbors": 25},
        {"n_neighbors": 25, "metric": "manhattan"},
        {"metric": "chebyshev"},
        {"metric": "cosine", "n_neighbors": 25},
        {"metric": "minkowski", "metric_params": {"p": 3}, "n_neighbors": 25},
        {"neighbors_algorithm": KNeighborsTransformer(n_neighbors=25)},
        {"neighbors_algorithm": KNeighborsTransformer(n_neighbors=149, metric="chebyshev")},
        {"neighbors_algorithm": RadiusNeighborsTransformer(radius=0.5)},
        {"disconnected": "largest", "bandwidth": "local"},
    ],
)
@pytest.mark.parametrize("columns", [3, 24])
def test_new_samples_may_be_sparse_after_a_fit_on_dense_ones(options, columns, cloud):
    X = np.hstack([cloud] * (columns // 3)) * (3 / columns) ** 0.5
    model = DiffusionMap(bandwidth=options.pop("bandwidth", 0.6), **options).fit(X)
    new = X[:40].copy()
    new[:, 1] = 0.0
    expected = model.transform(new)
    for sparse in (sp.csr_matrix(new), sp.coo_array(new), sp.csc_matrix(new)):
        np.testing.assert_allclose(model.transform(sparse), expected, rtol=1e-9, atol=1e-12)
    assert model.score(sp.csr_matrix(new)) == pytest.approx(model.score(new), rel=1e-9)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
@pytest.mark.parametrize("options", [{}, {"n_neighbors": 25}, {"metric": "cosine"}])
def test_new_samples_may_be_dense_after_a_fit_on_sparse_ones(options, cloud):
    model = DiffusionMap(bandwidth=0.6, **options).fit(sp.csr_matrix(cloud))
    new = cloud[:40] + 0.01
    expected = model.transform(sp.csr_matrix(new))
    np.testing.assert_allclose(model.transform(new), expected, rtol=1e-9, atol=1e-12)
