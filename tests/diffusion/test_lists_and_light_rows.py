"""Neighbour lists against a dense reference, outlying rows, and rows of almost no mass."""

import warnings

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.neighbors import KNeighborsTransformer, RadiusNeighborsTransformer

from skdmap import DiffusionMap
from skdmap.datasets import make_gaussian
from skdmap.exceptions import BandwidthWarning, ExtrapolationWarning, SkdmapWarning

pytestmark = pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")


def uneven(seed=0):
    rng = np.random.default_rng(seed)
    return np.vstack([rng.standard_normal((200, 2)), 0.2 * rng.standard_normal((100, 2)) + 2])


@pytest.mark.parametrize("k", [30, 100])
def test_local_lengths_are_those_of_the_lists(k):
    """The 9th distance of each list, also where the min rule leaves the pair out."""
    X = uneven()
    lists = KNeighborsTransformer(mode="distance", n_neighbors=k).fit_transform(X)
    model = DiffusionMap(2, metric="precomputed", bandwidth="local").fit(lists)
    ninth = np.sort(cdist(X, X), axis=1)[:, 8]
    mean = np.exp(np.log(ninth).mean())
    np.testing.assert_allclose(model.epsilon_, mean**2 / 2, rtol=1e-9)
    np.testing.assert_allclose(model.bandwidth_, np.clip(ninth, mean / 2, 2 * mean), rtol=1e-9)


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
    assert stray.epsilon_ == pytest.approx(without.epsilon_, rel=0.05)


def test_rows_at_distance_zero_do_not_pull_the_local_lengths():
    """Collinear rows are at cosine distance 0 from each other."""
    X = np.random.default_rng(0).standard_normal((150, 3))
    plain = DiffusionMap(2, metric="cosine", bandwidth="local").fit(X)
    ray = np.vstack([X, np.outer(np.arange(1, 11), X[0])])
    with_ray = DiffusionMap(2, metric="cosine", bandwidth="local").fit(ray)
    assert np.sqrt(with_ray.epsilon_ / plain.epsilon_) > 0.6


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


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_no_coordinate_lives_on_rows_without_mass(alpha):
    """Nodes far in the tail hang at h = 0.1, but have weights of 1e-100 and less."""
    data = make_gaussian(200)
    model = DiffusionMap(6, bandwidth=0.1, alpha=alpha).fit(
        data.X, sample_weight=data.sample_weight
    )
    pi, psi = model.stationary_distribution_, model.eigenvectors_
    np.testing.assert_allclose(pi @ psi**2, 1, rtol=1e-6)
    assert np.all(model.participation_ <= 1 + 1e-9)
    assert np.all(model.participation_ > 1e-6)
    if alpha < 1:
        # Fourth moments of Hermite functions: 3, 15, 93, ...
        np.testing.assert_allclose(model.participation_[:3], [1 / 3, 1 / 15, 1 / 93], rtol=0.2)


def test_a_component_without_mass_takes_no_part():
    rng = np.random.default_rng(0)
    X = np.vstack([rng.standard_normal((60, 2)), rng.standard_normal((60, 2)) + 100])
    weight = np.repeat([1.0, 1e-10], 60)
    model = DiffusionMap(2, bandwidth=0.7, alpha=0.0).fit(X, sample_weight=weight)
    assert model.eigenvalues_[0] < 1
    np.testing.assert_array_equal(model.stationary_distribution_[60:], 0)
    np.testing.assert_array_equal(model.component_labels_[60:], -1)
    assert np.isfinite(model.embedding_).all()


@pytest.mark.parametrize("n_neighbors", [None, 20])
def test_signs_do_not_depend_on_the_order_of_rows(n_neighbors, relative):
    """On a grid cos cos has neither a third moment nor a covariance with a column."""
    a, b = np.meshgrid(np.linspace(0, 1.6, 16), np.linspace(0, 1, 10))
    X = np.column_stack([a.ravel(), b.ravel()])
    settings = {"bandwidth": 0.1, "n_neighbors": n_neighbors}
    model = DiffusionMap(4, **settings).fit(X)
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(len(X))
        again = DiffusionMap(4, **settings).fit(X[order])
        assert relative(again.embedding_, model.embedding_[order]) < 1e-9


def test_auto_and_score_do_not_depend_on_the_order_of_many_rows():
    """Above 5,000 rows sums over pairs come from a sample of rows."""
    X = np.random.default_rng(0).standard_normal((5200, 2))
    order = np.random.default_rng(1).permutation(len(X))
    held_out = np.random.default_rng(2).standard_normal((50, 2))
    first = DiffusionMap(2, random_state=0).fit(X)
    second = DiffusionMap(2, random_state=0).fit(X[order])
    assert first.bandwidth_ == pytest.approx(second.bandwidth_, rel=1e-9)
    assert first.n_neighbors_ == second.n_neighbors_
    assert first.score(held_out) == pytest.approx(second.score(held_out), rel=1e-9)


def test_local_lengths_need_eight_neighbours():
    X = uneven()
    with pytest.warns(BandwidthWarning, match="n_neighbors=3 must be >= 8"):
        model = DiffusionMap(2, bandwidth="local", n_neighbors=3).fit(X)
    assert model.n_neighbors_ == 8


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "minkowski", "metric_params": {"q": 3}}, "metric_params=.*'q'"),
        ({"metric": "euclidean", "metric_params": {"q": 3}}, "metric_params"),
        ({"metric": lambda a, b: a @ b}, "must be"),
        ({"metric": lambda a, b: (a - b).clip(0).sum()}, "symmetric"),
        ({"metric": lambda a, b: -1.0}, "must be >= 0"),
    ],
)
def test_a_metric_that_is_none_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        DiffusionMap(**options).fit(uneven())


def test_connectivity_is_no_distance():
    lists = KNeighborsTransformer(mode="connectivity", n_neighbors=10).fit_transform(uneven())
    with pytest.raises(ValueError, match="mode='distance'"):
        DiffusionMap(metric="precomputed").fit(lists)


def test_distances_without_a_square_are_named():
    with pytest.raises(ValueError, match="Rescale X"):
        DiffusionMap().fit(1e160 * uneven())


def test_a_bandwidth_far_beyond_the_data_is_named():
    with pytest.warns(BandwidthWarning, match="Lower bandwidth"):
        DiffusionMap(bandwidth=1e9).fit(uneven())


def test_warnings_point_to_the_line_of_the_user():
    X = np.vstack([uneven(), uneven() + 1000])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SkdmapWarning)
        DiffusionMap().fit(X)
        DiffusionMap().fit_transform(X)
    assert len(caught) >= 2
    assert {entry.filename for entry in caught} == {__file__}


def test_coordinates_far_outside_the_embedding_are_named():
    model = DiffusionMap(2, bandwidth=0.5).fit(uneven())
    with pytest.warns(ExtrapolationWarning, match=r"1 of 2 .* row 1"):
        model.inverse_transform(np.array([[0.0, 0.0], [100.0, 0.0]]))
