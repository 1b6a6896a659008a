"""Sparse precomputed distances: which stored pairs count."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.neighbors import KNeighborsTransformer, RadiusNeighborsTransformer

from skdmap import DiffusionMap
from skdmap.diffusion._neighbors.precomputed import StoredNeighbors, with_dropped_zeros
from skdmap.exceptions import SkdmapWarning

K = 7


def dense(graph):
    """Return the distances of pairs within their cut-off, beyond which the kernel is 0."""
    full = np.full(graph.distances.shape, np.nan)
    rows = np.repeat(np.arange(full.shape[0]), np.diff(graph.distances.indptr))
    counts = graph.distances.data <= graph.cutoffs()
    full[rows[counts], graph.distances.indices[counts]] = graph.distances.data[counts]
    return full


def test_a_pair_counts_when_either_sample_stores_it(cloud):
    L = KNeighborsTransformer(mode="distance", n_neighbors=K).fit_transform(cloud)
    index = StoredNeighbors()
    D = cdist(cloud, cloud)
    r = np.sort(D, axis=1)[:, K]
    expected = np.where(np.maximum(r[:, None], r[None, :]) * (1 + 1e-12) >= D, D, np.nan)
    graph = index.build(L)
    np.testing.assert_allclose(dense(graph), expected, rtol=1e-6, atol=1e-300)
    assert index.n_neighbors == K
    own = index.query(L)
    np.testing.assert_array_equal(own.row_radii, graph.row_radii)
    assert own.distances.nnz == L.nnz
    assert graph.distances.nnz > L.nnz


def test_an_asymmetric_list_counts_a_pair_that_one_row_stores():
    # Row 0 does not store row 2, whose distance is 1.
    D = sp.csr_matrix(
        np.array([[0, 2.0, 0, 0], [2.0, 0, 3.0, 0], [1.0, 3.0, 0, 0], [9.0, 0, 0, 0]])
    )
    found = dense(StoredNeighbors().build(D))
    assert found[0, 2] == found[2, 0] == 1.0
    assert found[0, 1] == 2.0
    assert found[1, 2] == 3.0
    assert found[0, 3] == found[3, 0] == 9.0


def test_a_matrix_that_stores_every_pair_is_dense(cloud):
    D = cdist(cloud, cloud)
    graph = StoredNeighbors().build(sp.csr_matrix(D))
    assert not graph.is_sparse
    np.testing.assert_array_equal(graph.distances, D)


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
    listed.setdiag(1.0)
    with pytest.raises(ValueError, match="must be 0 or not stored"):
        DiffusionMap(metric="precomputed").fit(listed)


class Lists(TransformerMixin, BaseEstimator):
    """The lists of a radius search, changed by a function of them and of the radius."""

    def __init__(self, change, radius=0.5):
        self.change, self.radius = change, radius

    def fit(self, X, y=None):
        self.search_ = RadiusNeighborsTransformer(radius=self.radius).fit(X)
        return self

    def transform(self, X):
        return self.change(self.search_.transform(X).tocsr())


def _entry(value):
    def change(lists):
        lists.data[5] = value
        return lists

    return change


def _column_of_padding(lists):
    lists = lists.tolil()
    lists[:, 0] = 3.4e38
    return lists.tocsr()


def _loops(lists):
    lists.setdiag(1.0)
    return lists.tocsr()


WRONG = [
    (_entry(-0.1), "-0.1 in row 0 is negative"),
    (_entry(np.nan), "nan in row 0 is not finite"),
    (_entry(np.inf), "inf in row 0 is not finite"),
    (_entry(np.finfo(np.float32).max), r"3.40282e\+38 in row 0 is padding"),
    (_entry(1e35), r"1e\+35 in row 0 is padding, 1e\+30 times the median"),
    (_column_of_padding, r"3.4e\+38 in row 0 is padding"),
    (_loops, "distance of row 0 from itself is 1"),
    (lambda lists: lists[:, :-1], r"an array of shape \(150, 149\).*of shape \(150, 150\)"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_wrong_lists_of_a_transformer_are_refused(change, message, cloud):
    with pytest.raises(ValueError, match=rf"neighbors_algorithm=Lists\(\).*{message}"):
        DiffusionMap(bandwidth=0.3, neighbors_algorithm=Lists(change)).fit(cloud)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf, np.finfo(np.float32).max, 3.4e38])
def test_wrong_lists_of_new_samples_are_refused(value, cloud):
    later = []

    def change(lists):
        return _entry(value)(lists) if later else lists

    model = DiffusionMap(bandwidth=0.3, neighbors_algorithm=Lists(change)).fit(cloud)
    later.append(True)
    with pytest.raises(ValueError, match=r"neighbors_algorithm=Lists\(\): the stored distance"):
        model.transform(cloud[:20] + 0.01)


@pytest.mark.parametrize("value", [1e35, 3.4e38])
def test_padding_in_stored_distances_is_refused(value, cloud):
    stored = RadiusNeighborsTransformer(radius=0.5).fit_transform(cloud)
    stored.data[5] = value
    with pytest.raises(ValueError, match=r"X \(metric='precomputed'\).*in row 0 is padding"):
        DiffusionMap(bandwidth=0.3, metric="precomputed").fit(stored)


@pytest.mark.parametrize(
    "search", [KNeighborsTransformer(n_neighbors=25), RadiusNeighborsTransformer(radius=0.6)]
)
def test_zeros_that_were_dropped_are_put_in_with_a_warning(search, cloud):
    """Repeated samples at distance 0, whose zeros a sparse matrix has lost."""
    stored = search.fit_transform(np.concatenate([cloud, cloud[:30], cloud[:10]]))
    dropped = stored.copy()
    dropped.eliminate_zeros()
    assert dropped.nnz < stored.nnz
    model = DiffusionMap(bandwidth=0.2, metric="precomputed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkdmapWarning)
        expected = clone(model).fit(stored)
        with pytest.warns(SkdmapWarning, match="Zeros were probably dropped"):
            model.fit(dropped)
    np.testing.assert_allclose(model.eigenvalues_, expected.eigenvalues_, rtol=1e-12)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
def test_lists_without_repeated_samples_need_no_zeros():
    """Neither lists that leave the sample itself out, nor a lattice, whose lists are alike."""
    cloud = np.random.default_rng(0).uniform(size=(200, 2))
    side = np.arange(15.0)
    lattice = np.array(np.meshgrid(side, side)).reshape(2, -1).T
    for X in (cloud, lattice):
        stored = KNeighborsTransformer(n_neighbors=20).fit_transform(X)
        stored.eliminate_zeros()
        with_dropped_zeros(stored, "X")


def test_more_repeated_samples_than_a_list_has_room_for_are_no_dropped_zeros():
    X = np.repeat(np.random.default_rng(0).uniform(size=(30, 2)), 12, axis=0)
    stored = KNeighborsTransformer(n_neighbors=8).fit_transform(X)
    assert with_dropped_zeros(stored, "X") is stored
