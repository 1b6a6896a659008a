"""transform(X_train) is embedding_; one row alone is what it is in company; far rows go nearest."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import KNeighborsTransformer

from skdmap import DiffusionMap
from skdmap.diffusion._neighbors.brute_force import AllPairs, BruteForceNeighbors
from skdmap.diffusion._neighbors.kd_tree import KDTreeNeighbors
from skdmap.exceptions import ExtrapolationWarning

pytestmark = [
    pytest.mark.filterwarnings("ignore::skdmap.exceptions.BandwidthWarning"),
    pytest.mark.filterwarnings("ignore::skdmap.exceptions.LocalizedCoordinateWarning"),
    pytest.mark.filterwarnings("ignore::skdmap.exceptions.DisconnectedGraphWarning"),
]
BANDWIDTHS = {
    "fixed": {"bandwidth": 0.45},
    "local": {"bandwidth": "local"},
    "variable": {"bandwidth": 0.45, "bandwidth_exponent": -0.5},
}
INPUTS = ["euclidean", "manhattan", "precomputed", "listed"]


def symmetric(lists):
    """Return the union of neighbour lists, their stored zeros kept."""
    lists.data = np.maximum(lists.data, 5e-324)
    return lists.maximum(lists.T).tocsr()


def prepared(kind, X, new):
    if kind == "precomputed":
        return {"metric": kind}, cdist(X, X), cdist(new, X)
    if kind == "listed":
        # Symmetric: over other lists transform sees fewer pairs than the fit.
        lists = KNeighborsTransformer(mode="distance", n_neighbors=40).fit(X)
        return {"metric": "precomputed"}, symmetric(lists.transform(X)), lists.transform(new)
    return {"metric": kind}, X, new


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("n_neighbors", [None, 40])
def test_training_rows_get_their_coordinates(kind, bandwidth, alpha, n_neighbors, cloud, relative):
    new = np.random.default_rng(5).standard_normal((12, 3)) * [1.0, 0.7, 0.4]
    extra, X, Z = prepared(kind, cloud, new)
    model = DiffusionMap(
        3, alpha=alpha, n_neighbors=n_neighbors, **BANDWIDTHS[bandwidth], **extra
    ).fit(X)
    assert relative(model.transform(X), model.embedding_) < 1e-8
    together = model.transform(Z)
    alone = np.concatenate([model.transform(Z[i : i + 1]) for i in range(12)])
    assert relative(alone, together) < 1e-12
    backwards = model.transform(Z[::-1])
    assert relative(backwards[::-1], together) < 1e-12


@pytest.mark.parametrize("time", [0, 0.5, 1, 2.5, 4])
@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
def test_every_time_and_every_bandwidth(time, bandwidth, cloud, relative):
    model = DiffusionMap(3, diffusion_time=time, **BANDWIDTHS[bandwidth]).fit(cloud)
    assert relative(model.transform(cloud), model.embedding_) < 1e-8
    expected = model.eigenvectors_ * model.eigenvalues_**time
    assert relative(model.embedding_, expected) < 1e-8


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_extension_formula(alpha, cloud, weights, relative):
    """lambda^(t-1) sum_j p_j psi_j, p_j ~ k(y, x_j) w_j / q_j^alpha."""
    model = DiffusionMap(3, bandwidth=0.5, alpha=alpha, diffusion_time=2).fit(
        cloud, sample_weight=weights
    )
    new = np.random.default_rng(6).standard_normal((20, 3))
    w = weights / weights.sum()
    q = np.exp(-cdist(cloud, cloud, "sqeuclidean") / (2 * 0.5**2)) @ w
    p = np.exp(-cdist(new, cloud, "sqeuclidean") / (2 * 0.5**2)) * w / q**alpha
    p /= p.sum(axis=1, keepdims=True)
    expected = p @ model.eigenvectors_ * model.eigenvalues_
    assert relative(model.transform(new), expected) < 1e-11


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_sparse_extension_formula(alpha, cloud, relative):
    """The same with k less its value at R = max(r(y), r_j)."""
    h, k_nearest = 0.3, 30
    model = DiffusionMap(3, bandwidth=h, alpha=alpha, n_neighbors=k_nearest).fit(cloud)
    new = np.random.default_rng(6).standard_normal((20, 3)) * [1.0, 0.7, 0.4]

    def kernel(Z):
        D = cdist(Z, cloud)
        r = np.sort(cdist(cloud, cloud), axis=1)[:, k_nearest]
        R = np.maximum(np.sort(D, axis=1)[:, k_nearest][:, None], r)
        return np.where(D < R, np.exp(-(D**2) / (2 * h**2)) - np.exp(-(R**2) / (2 * h**2)), 0)

    q = kernel(cloud).mean(axis=1)
    p = kernel(new) / q**alpha
    p /= p.sum(axis=1, keepdims=True)
    assert relative(model.transform(new), p @ model.eigenvectors_) < 1e-10


@pytest.mark.parametrize("n_neighbors", [None, 20])
@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
def test_a_far_row_gets_the_coordinates_of_the_nearest(bandwidth, n_neighbors, cloud, relative):
    model = DiffusionMap(2, n_neighbors=n_neighbors, **BANDWIDTHS[bandwidth]).fit(cloud)
    far = np.array([[1e4, 0.0, 0.0], [0.0, -1e7, 3.0]])
    with pytest.warns(ExtrapolationWarning, match="2 of 2 samples.*samples 0, 1"):
        found = model.transform(far)
    distances = cdist(far, cloud)
    if bandwidth == "local":
        # Of the n_neighbors + 1 nearest: farther ones may have longer bandwidths.
        limit = np.sort(distances, axis=1)[:, [-1 if n_neighbors is None else n_neighbors]]
        distances = np.where(distances <= limit, distances**2 / model.bandwidth_, np.inf)
    nearest = distances.argmin(axis=1)
    if bandwidth != "variable":
        assert relative(found, model.eigenvectors_[nearest]) < 1e-6
        return
    # The same formula with its denominator at rho = 2, for the row of the largest kernel value.
    rate = model.laplacian_eigenvalues_ * model.epsilon_
    reached = model.eigenvectors_ * model.eigenvalues_ / (1 - 4 * rate)
    errors = np.abs(found[:, None] - reached[None]).max(axis=2).min(axis=1)
    assert errors.max() < 1e-6 * np.abs(found).max()


def test_transform_is_continuous_across_the_cut_off(cloud):
    """A move of 1e-6 changes a coordinate by about 1e-6, wherever neighbours change."""
    model = DiffusionMap(2, bandwidth=1.0, n_neighbors=8).fit(cloud)
    path = np.linspace([-1.0, -0.5, 0.2], [1.0, 0.5, -0.2], 2001)
    steps = np.abs(np.diff(model.transform(path), axis=0)).max(axis=1)
    finer = np.linspace(path[1000], path[1001], 2001)
    fine_steps = np.abs(np.diff(model.transform(finer), axis=0)).max(axis=1)
    # No jump: the largest step shrinks with the grid, 1e-3 to 5e-7.
    assert steps.max() < 0.05
    assert fine_steps.max() < 1e-4


def test_blocks_do_not_show(monkeypatch, cloud, relative):
    model = DiffusionMap(2, bandwidth=0.5).fit(cloud)
    new = cloud + 0.05
    whole = model.transform(new)
    monkeypatch.setattr("skdmap.diffusion._nystrom._BLOCK", 1000)
    assert relative(model.transform(new), whole) < 1e-13


@pytest.mark.parametrize("n_neighbors", [None, 40])
@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
def test_rows_of_weight_zero_get_what_transform_gives(bandwidth, n_neighbors, cloud, relative):
    weight = np.ones(150)
    weight[::6] = 0
    model = DiffusionMap(3, n_neighbors=n_neighbors, **BANDWIDTHS[bandwidth]).fit(
        cloud, sample_weight=weight
    )
    alone = DiffusionMap(3, n_neighbors=n_neighbors, **BANDWIDTHS[bandwidth]).fit(cloud[weight > 0])
    assert relative(model.embedding_[weight > 0], alone.embedding_) < 1e-10
    assert relative(model.embedding_, alone.transform(cloud)) < 1e-8
    assert relative(model.transform(cloud), model.embedding_) < 1e-8
    np.testing.assert_array_equal(model.stationary_distribution_[::6], 0)


@pytest.mark.parametrize("n_neighbors", [None, 5, 12])
def test_rows_of_small_pieces_are_never_zero(n_neighbors):
    """Five rows far away are left out, and get coordinates of the nearest rows that are not."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.standard_normal((60, 2)), 0.1 * rng.standard_normal((5, 2)) + 50])
    model = DiffusionMap(2, n_neighbors=n_neighbors, bandwidth=1.0).fit(X)
    np.testing.assert_array_equal(model.component_labels_[-5:], -1)
    nearest = cdist(X[-5:], X[:60])
    nearest[:, model.component_labels_[:60] < 0] = np.inf
    expected = model.eigenvectors_[nearest.argmin(axis=1)]
    np.testing.assert_allclose(model.embedding_[-5:], expected, rtol=1e-6)


@pytest.mark.parametrize(("n_neighbors", "most"), [(40, 2e-2), (80, 5e-3), (149, 1e-6)])
def test_lists_of_new_rows_against_rows(n_neighbors, most, cloud, relative):
    """A new row sees the pairs that it lists, and not those of the training rows that list it."""
    lists = KNeighborsTransformer(mode="distance", n_neighbors=n_neighbors).fit(cloud)
    model = DiffusionMap(2, metric="precomputed", bandwidth=0.4).fit(lists.transform(cloud))
    new = lists.transform(cloud[:10] + 1e-9)
    assert sp.issparse(new)
    assert relative(model.transform(new), model.embedding_[:10]) < most


@pytest.mark.parametrize("n_neighbors", [15, None])
@pytest.mark.parametrize("far", [1e6, 1e7, 1e12, 1e300])
def test_in_the_taxicab_metric_all_columns_count_at_any_distance(far, n_neighbors):
    X = np.random.default_rng(0).uniform(-1, 1, (1200, 2))
    model = DiffusionMap(2, n_neighbors=n_neighbors, metric="manhattan", bandwidth=0.1).fit(X)
    # Of |far - x| + |.7 - y| the first is far - x: the nearest row has the largest x - |.7 - y|.
    nearest = np.argmax(X[:, 0] - np.abs(0.7 - X[:, 1]))
    with pytest.warns(ExtrapolationWarning):
        found = model.transform([[far, 0.7]])
    with pytest.warns(ExtrapolationWarning):
        near = model.transform([[1e3, 0.7]])
    np.testing.assert_allclose(found, near, rtol=1e-6)
    np.testing.assert_allclose(found[0], model.embedding_[nearest], rtol=1e-2)


@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "chebyshev"])
@pytest.mark.parametrize("n_columns", [2, 40])
@pytest.mark.parametrize("far", [1e12, 1e16, 1e155, 1e300])
def test_rows_far_away_get_what_the_nearest_row_has(far, n_columns, metric):
    """Over all pairs and by brute force too: neither a mean of all rows nor nan."""
    X = np.random.default_rng(1).uniform(-1, 1, (300, n_columns))
    direction = np.linspace(1, 0.3, n_columns)[None]
    if metric == "chebyshev":
        direction[0, 1:] = 0.0  # one column decides
    for n_neighbors in (20, None):
        model = DiffusionMap(2, metric=metric, n_neighbors=n_neighbors, bandwidth=0.8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = model.fit(X).transform(far * direction)
            expected = model.transform(1e7 * direction)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "chebyshev"])
@pytest.mark.parametrize("far", [1.0, 5.0, 1e3, 1e5])
def test_distances_from_outside_are_those_of_the_metric(far, metric):
    X = np.random.default_rng(0).uniform(-1, 1, (50, 3)) + 7
    Z = far * np.array([[1.0, -0.5, 0.2], [0.1, 1.0, 0.0]])
    exact = pairwise_distances(Z, X, metric)
    order = {"euclidean": 2, "manhattan": 1, "chebyshev": np.inf}[metric]
    for search in (
        KDTreeNeighbors(5, order),
        BruteForceNeighbors(5, metric, {}),
        AllPairs(metric, {}),
    ):
        search.build(X)
        np.testing.assert_allclose(search.all_distances(Z), exact, rtol=1e-12)


@pytest.mark.parametrize("far", [1e20, 1e154, 1e200, 1e308])
@pytest.mark.parametrize("order", [1, 2])
def test_rows_whose_squares_overflow_are_as_far_as_others(far, order, cloud):
    """In a tree's search; from far away only the direction counts."""
    model = DiffusionMap(
        2, n_neighbors=20, bandwidth=0.45, metric="minkowski", metric_params={"p": order}
    ).fit(cloud)
    directions = np.array([[1.0, 0.5, 0.0], [-1.0, 0.0, 0.25]])
    with pytest.warns(ExtrapolationWarning):
        near = model.transform(1e5 * directions)
    with pytest.warns(ExtrapolationWarning):
        found = model.transform(far * directions)
    np.testing.assert_allclose(found, near, rtol=1e-9)
    np.testing.assert_allclose(model.score(far * directions), model.score(1e5 * directions))
    beside = model.transform(cloud[:1])
    with pytest.warns(ExtrapolationWarning):
        together = model.transform(np.vstack([far * directions, cloud[:1]]))
    np.testing.assert_allclose(together[2:], beside, rtol=1e-12)
