"""Sparse precomputed distances: which stored pairs count."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist
from sklearn.neighbors import KNeighborsTransformer

from skdmap import DiffusionMap
from skdmap.diffusion._neighbors.precomputed import StoredNeighbors

K = 7


def dense(graph):
    """Return the distances of pairs within their cut-off, beyond which the kernel is 0."""
    full = np.full(graph.distances.shape, np.nan)
    rows = np.repeat(np.arange(full.shape[0]), np.diff(graph.distances.indptr))
    counts = graph.distances.data <= graph.cutoffs()
    full[rows[counts], graph.distances.indices[counts]] = graph.distances.data[counts]
    return full


def test_stored_pairs_count_by_the_smaller_radius(cloud):
    lists = KNeighborsTransformer(mode="distance", n_neighbors=K).fit(cloud)
    L = lists.transform(cloud)
    index = StoredNeighbors()
    D = cdist(cloud, cloud)
    r = np.sort(D, axis=1)[:, K]
    expected = np.where(np.minimum(r[:, None], r[None, :]) * (1 + 1e-12) >= D, D, np.nan)
    graph = index.build(L)
    np.testing.assert_allclose(dense(graph), expected, rtol=1e-6, atol=1e-300)
    assert graph.rule == "min"
    assert index.n_neighbors == K
    np.testing.assert_allclose(dense(index.query(L)), dense(graph), rtol=1e-15, atol=0)


def test_an_asymmetric_list_counts_a_pair_that_one_row_stores():
    # Row 0 does not list row 2, whose distance 1 is within both radii.
    D = sp.csr_matrix(np.array([[0, 2.0, 0], [2.0, 0, 3.0], [1.0, 3.0, 0]]))
    found = dense(StoredNeighbors().build(D))
    assert found[0, 2] == found[2, 0] == 1.0
    # r = 2, 3, 3: all listed pairs within the smaller radius count.
    assert found[0, 1] == 2.0
    assert found[1, 2] == 3.0


def test_lists_of_single_precision_rows_may_put_a_row_away_from_itself():
    """As scikit-learn's brute search does: 1e-6 for 60 columns of float32."""
    steps = np.random.default_rng(0).standard_normal((80, 60))
    X = 30 + np.cumsum(0.1 * steps, axis=0).astype(np.float32)
    listed = KNeighborsTransformer(
        n_neighbors=20, mode="distance", algorithm="brute"
    ).fit_transform(X)
    assert listed.diagonal().max() > 0
    settings = {"metric": "precomputed", "bandwidth": 0.7, "n_components": 1}
    fitted = DiffusionMap(**settings).fit(listed)
    exact = listed.copy()
    exact.setdiag(0.0)
    expected = DiffusionMap(**settings).fit(exact)
    np.testing.assert_allclose(fitted.eigenvalues_, expected.eigenvalues_, rtol=1e-6)
    with pytest.raises(ValueError, match="must be 0 or not stored"):
        DiffusionMap(metric="precomputed").fit(
            KNeighborsTransformer(n_neighbors=20, mode="connectivity").fit_transform(X)
        )
