"""Each error names the parameter, its value and the way out; each warning carries numbers."""

import re
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.neighbors import KNeighborsTransformer, kneighbors_graph
from sklearn.preprocessing import scale

from skdmap import DiffusionMap
from skdmap.exceptions import (
    BandwidthWarning,
    DisconnectedGraphWarning,
    ExtrapolationWarning,
    LocalizedCoordinateWarning,
    SkdmapWarning,
)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_components": 0}, r"n_components.*\[1, inf\).*Got 0"),
        ({"n_components": 150}, r"n_components=150.*150: the range is 1 to 149"),
        ({"bandwidth": 0.0}, r"bandwidth.*\(0.*Got 0\.0.*length in the units"),
        ({"bandwidth": -1.0}, r"bandwidth.*Got -1"),
        ({"bandwidth": np.nan}, r"bandwidth.*Got nan"),
        ({"bandwidth": np.inf}, r"bandwidth"),
        ({"bandwidth": "scott"}, r"bandwidth.*'local'.*Got 'scott'"),
        ({"alpha": 2}, r"alpha.*\[0.*1.*Got 2.*Laplace-Beltrami"),
        ({"alpha": -0.1}, r"alpha.*Got -0\.1"),
        ({"diffusion_time": -1}, r"diffusion_time.*Got -1"),
        ({"n_neighbors": 0}, r"n_neighbors.*Got 0"),
        ({"n_neighbors": 2.5}, r"n_neighbors.*Got 2\.5"),
        ({"neighbors_algorithm": "annoy"}, r"neighbors_algorithm.*Got 'annoy'"),
        ({"metric": "euclid"}, r"metric.*Got 'euclid'"),
        ({"eigen_solver": "amg"}, r"eigen_solver.*Got 'amg'"),
        ({"tol": -1e-3}, r"tol.*Got -0\.001"),
        ({"disconnected": "ignore"}, r"disconnected.*Got 'ignore'"),
        ({"bandwidth": "local", "bandwidth_exponent": -0.5}, r"bandwidth_exponent=-0\.5 must be 0"),
        (
            {"metric": "precomputed", "neighbors_algorithm": "pynndescent"},
            r"neighbors_algorithm='pynndescent' must be 'auto' or 'exact'",
        ),
        ({"random_state": "seed"}, r"random_state.*Got 'seed'"),
    ],
    ids=str,
)
def test_parameters(settings, message, cloud):
    with pytest.raises(ValueError, match=message):
        DiffusionMap(**settings).fit(cloud)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(149), r"sample_weight has shape \(149,\); it must be \(150,\)"),
        (np.r_[np.ones(149), -1.0], r"sample_weight\[149\] = -1.0; it must be finite and >= 0"),
        (np.r_[np.nan, np.ones(149)], r"sample_weight\[0\] = nan"),
        (np.r_[np.inf, np.ones(149)], r"sample_weight\[0\] = inf"),
        (np.zeros(150), r"sample_weight is all zero"),
        (np.r_[1.0, np.zeros(149)], r"1 distinct sample of positive weight"),
        (
            np.r_[np.ones(2), np.zeros(148)],
            r"n_components=2 must be below.*weight in the fit, 2",
        ),
    ],
    ids=["short", "negative", "nan", "inf", "zero", "one row", "two rows"],
)
def test_weights(weight, message, cloud):
    with pytest.raises(ValueError, match=message):
        DiffusionMap().fit(cloud, sample_weight=weight)


def test_rows(cloud):
    with pytest.raises(ValueError, match=r"1 distinct sample.*X is not constant"):
        DiffusionMap().fit(np.ones((10, 3)))
    for bad in (np.nan, np.inf):
        X = cloud.copy()
        X[3, 1] = X[7, 0] = bad
        kind = "NaN" if np.isnan(bad) else "infinity"
        message = rf"X contains {kind} in row 3, column 1 \(2 of {len(X)} rows.*Drop or impute"
        for rows in (X, X.astype(np.float32), sp.csr_matrix(X)):
            with pytest.raises(ValueError, match=message):
                DiffusionMap().fit(rows)
        with pytest.raises(ValueError, match=message):
            DiffusionMap(bandwidth=0.5).fit(cloud).transform(X)
    with pytest.raises(ValueError, match="1 sample"):
        DiffusionMap().fit(cloud[:1])
    with pytest.raises(ValueError, match=r"X has 2 features.*3"):
        DiffusionMap(bandwidth=0.5).fit(cloud).transform(cloud[:, :2])
    with pytest.raises(ValueError, match=r"n_components=3 must be below.* 3"):
        DiffusionMap(3).fit(np.repeat(cloud[:3], 20, axis=0))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda D: D[:, :100], r"shape \(150, 100\); it must be square"),
        (lambda D: -D, r"distance -.*non-negative"),
        (
            lambda D: D + np.triu(np.ones_like(D), 1),
            r"not symmetric.*reaches 1.*0\.5 \* \(X \+ X\.T\)",
        ),
        (lambda D: D + np.eye(len(D)), r"X\[0, 0\] = 1; it must be 0"),
        (lambda D: sp.csr_matrix(D)[:, :100], r"shape \(150, 100\); it must be square"),
        (lambda D: sp.csr_matrix(-D), r"distance -.*non-negative"),
    ],
    ids=["oblong", "negative", "asymmetric", "diagonal", "lists oblong", "lists negative"],
)
def test_distances(spoil, message, cloud):
    with pytest.raises(ValueError, match=message):
        DiffusionMap(metric="precomputed").fit(spoil(cdist(cloud, cloud)))


def test_distances_of_new_rows(cloud):
    D = cdist(cloud, cloud)
    model = DiffusionMap(metric="precomputed", bandwidth=0.5).fit(D)
    with pytest.raises(ValueError, match="X has 100 features"):
        model.transform(D[:, :100])
    with pytest.raises(ValueError, match=r"X is sparse.*dense"):
        model.transform(sp.csr_matrix(D))
    with pytest.raises(ValueError, match="X contains the distance -1"):
        model.transform(D - 1)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.BandwidthWarning")
def test_lists_may_be_asymmetric(cloud):
    L = KNeighborsTransformer(mode="distance", n_neighbors=12).fit_transform(cloud)
    assert abs(L - L.T).max() > 0
    assert np.isfinite(DiffusionMap(metric="precomputed", bandwidth=0.3).fit(L).embedding_).all()


def test_as_many_neighbours_as_rows_are_cut_with_a_warning(cloud):
    with pytest.warns(BandwidthWarning, match=r"n_neighbors=500 must be below.*149 is used"):
        model = DiffusionMap(n_neighbors=500, bandwidth=0.3).fit(cloud)
    assert model.n_neighbors_ == 149


def test_a_cut_off_that_shows_is_named_with_numbers(cloud):
    r = np.sort(cdist(cloud, cloud), axis=1)[:, 10]
    left = np.median(np.exp(-(r**2) / (2 * 0.6**2)))
    with pytest.warns(BandwidthWarning, match="cut off") as caught:
        DiffusionMap(n_neighbors=10, bandwidth=0.6).fit(cloud)
    assert f"still {left:.2g} in" in str(caught[0].message)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.LocalizedCoordinateWarning")
def test_auto_with_given_neighbours_does_not_warn_of_the_cut_off():
    """The smaller bandwidth that the warning advises made eight of ten such maps worse."""
    X = scale(load_wine().data)
    lists = kneighbors_graph(X, 15, mode="distance")
    model = DiffusionMap(n_neighbors=15, bandwidth="auto").fit(X)
    DiffusionMap(metric="precomputed", bandwidth="auto").fit(lists.maximum(lists.T))
    with pytest.warns(BandwidthWarning, match="cut off"):
        DiffusionMap(n_neighbors=15, bandwidth=model.bandwidth_).fit(X)


def far_clusters(sizes):
    rng = np.random.default_rng(0)
    return np.concatenate([rng.standard_normal((n, 2)) + 1e3 * i for i, n in enumerate(sizes)])


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.LocalizedCoordinateWarning")
def test_disconnected_rows_warn_raise_or_are_left_out():
    X = far_clusters((60, 40))
    with pytest.warns(DisconnectedGraphWarning, match=r"2 connected components, of 60, 40 samples"):
        DiffusionMap(2, bandwidth=1.0, alpha=0.0).fit(X)
    with pytest.raises(ValueError, match=r"disconnected='raise'.*Raise bandwidth"):
        DiffusionMap(2, bandwidth=1.0, disconnected="raise").fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DisconnectedGraphWarning)
        DiffusionMap(2, bandwidth=1.0, disconnected="largest").fit(X)


def test_samples_of_small_components_are_named_by_their_place_in_x():
    X = far_clusters((60, 3))[::-1]
    X = np.concatenate([X[:2], X[:1], X[2:]])
    with pytest.warns(DisconnectedGraphWarning, match="4 sample.*: samples 0, 1, 2, 3"):
        model = DiffusionMap(2, bandwidth=1.0).fit(X)
    np.testing.assert_array_equal(np.flatnonzero(model.component_labels_ < 0), [0, 1, 2, 3])
    with pytest.raises(ValueError, match="disconnected='raise'"):
        DiffusionMap(2, bandwidth=1.0, disconnected="raise").fit(X)


def test_more_coordinates_than_samples_in_the_fit():
    X = far_clusters((60, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkdmapWarning)
        with pytest.raises(ValueError, match=r"n_components=60.*in the fit, 60"):
            DiffusionMap(60, bandwidth=1.0).fit(X)


def test_weakly_connected_samples_are_named_by_their_place_in_x():
    """Weights of 0 and repetitions move places; the sample in the message is that of X."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(0, 1, 300), [1.42]])
    X = np.concatenate([np.zeros(20), np.repeat(x[:50], 2), x[50:]])[:, None]
    weight = np.concatenate([np.zeros(20), np.ones(len(X) - 20)])
    with pytest.warns(LocalizedCoordinateWarning, match=f"sample {len(X) - 1}\\)"):
        model = DiffusionMap(1, bandwidth=0.06, n_neighbors=None).fit(X, sample_weight=weight)
    mass = model.stationary_distribution_ * model.eigenvectors_[:, 0] ** 2
    assert mass.argmax() == len(X) - 1


def test_far_new_rows_are_named(cloud):
    model = DiffusionMap(2, bandwidth=0.5).fit(cloud)
    new = np.concatenate([cloud[:2], [[99.0, 0, 0]], cloud[2:4]])
    with pytest.warns(ExtrapolationWarning, match="1 of 5 samples.*sample 2"):
        found = model.transform(new)
    assert np.abs(found).min() > 0
    # k = 1e-14 is at 8.03 h.
    edge = cloud[[cloud[:, 0].argmax()]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.transform(edge + np.array([0.5 * 7.9, 0, 0]))


def test_a_small_eigenvalue_at_a_short_time_is_named(cloud):
    with pytest.warns(BandwidthWarning, match=r"Eigenvalue \d+ is .*diffusion_time=0.*accurate to"):
        DiffusionMap(20, bandwidth=5.0, diffusion_time=0).fit(cloud)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.LocalizedCoordinateWarning")
def test_a_vanishing_denominator_of_a_variable_bandwidth_is_named(cloud):
    with pytest.warns(BandwidthWarning, match=r"1 - eps mu rho\^2.*n_components <= \d"):
        DiffusionMap(8, bandwidth=0.5, bandwidth_exponent=-0.5).fit(cloud)


@pytest.mark.parametrize("settings", [{}, {"bandwidth": "auto"}], ids=str)
def test_no_warning_where_nothing_is_wrong(settings, cloud):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = DiffusionMap(2, **settings).fit(cloud)
        model.transform(cloud)
        model.inverse_transform(model.embedding_)
        model.score(cloud)


def test_methods_before_fit():
    model = DiffusionMap()
    for method in (model.transform, model.inverse_transform, model.score):
        with pytest.raises(Exception, match="not fitted"):
            method(np.zeros((3, 2)))


def uneven(seed=0):
    rng = np.random.default_rng(seed)
    return np.vstack([rng.standard_normal((200, 2)), 0.2 * rng.standard_normal((100, 2)) + 2])


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
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
def test_a_callable_that_is_not_a_metric_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        DiffusionMap(**options).fit(uneven())


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
@pytest.mark.parametrize("bandwidth", ["local", "auto"])
@pytest.mark.parametrize("settings", [{}, {"n_neighbors": None}, {"metric": "precomputed"}])
@pytest.mark.parametrize("scale", [1e-170, 1e160])
def test_distances_without_a_square_are_named(scale, settings, bandwidth):
    X = scale * uneven()
    if "metric" in settings:
        X = scale * cdist(uneven(), uneven())
    with pytest.raises(ValueError, match=r"[Rr]escale X"):
        DiffusionMap(bandwidth=bandwidth, **settings).fit(X)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
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


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
def test_coordinates_far_outside_the_embedding_are_named():
    model = DiffusionMap(2, bandwidth=0.5).fit(uneven())
    with pytest.warns(ExtrapolationWarning, match=r"1 of 2 samples.* sample 1"):
        model.inverse_transform(np.array([[0.0, 0.0], [100.0, 0.0]]))


@pytest.mark.parametrize(("columns", "far"), [(2, 6.0), (3, 8.0)])
def test_one_sample_that_carries_a_coordinate_is_named_with_a_setting_that_cures_it(columns, far):
    """At alpha = 1 an outlier has the mass of many: its share of the coordinate tells it."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((1000, columns))
    X = X[np.linalg.norm(X, axis=1) < 2.5 * columns**0.3]
    X = np.vstack([X, far * np.eye(columns)[:1]])
    with pytest.warns(LocalizedCoordinateWarning, match=f"sample {len(X) - 1}\\)") as caught:
        DiffusionMap(3, bandwidth="auto", random_state=0).fit(X)
    assert "Set bandwidth='local'" in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LocalizedCoordinateWarning)
        cured = DiffusionMap(3, bandwidth="local").fit(X)
        assert (cured.component_labels_ == 0).all()


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.DisconnectedGraphWarning")
@pytest.mark.parametrize("seed", range(4))
def test_the_setting_cures_heavy_tails(seed):
    X = np.random.default_rng(seed).exponential(size=(400, 3))
    with pytest.warns(LocalizedCoordinateWarning, match="Set bandwidth='local'"):
        DiffusionMap(3, bandwidth=0.3, n_neighbors=None).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LocalizedCoordinateWarning)
        DiffusionMap(3, bandwidth="local").fit(X)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.DisconnectedGraphWarning")
@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer])
def test_the_setting_cures_real_tables(load):
    X = scale(load().data)
    with pytest.warns(LocalizedCoordinateWarning, match="Set bandwidth='local'"):
        DiffusionMap(4, bandwidth="auto").fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LocalizedCoordinateWarning)
        DiffusionMap(4, bandwidth="local").fit(X)


def log_normal():
    return np.exp(1.5 * np.random.default_rng(4).standard_normal((700, 4)))


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.DisconnectedGraphWarning")
def test_with_local_lengths_weights_of_zero_end_the_warning():
    X = log_normal()
    weight = np.ones(len(X))
    for _ in range(10):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", LocalizedCoordinateWarning)
            DiffusionMap(5, bandwidth="local").fit(X, sample_weight=weight)
        text = " ".join(str(w.message) for w in caught)
        named = re.findall(r"samples? ([\d, ]+)\)", text)
        if not named:
            break
        weight[[int(row) for rows in named for row in rows.split(", ")]] = 0
    assert not named
    assert 0 < (weight == 0).sum() < 15


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.LocalizedCoordinateWarning")
def test_small_components_stay_where_they_hold_a_tenth_of_the_weight():
    X = far_clusters((60, 5, 5))
    with pytest.warns(DisconnectedGraphWarning, match="3 connected components, of 60, 5, 5"):
        model = DiffusionMap(3, bandwidth=1.0).fit(X)
    assert (model.component_labels_ >= 0).all()
    with pytest.warns(DisconnectedGraphWarning, match="5 sample"):
        model = DiffusionMap(3, bandwidth=1.0).fit(X[:65])
    np.testing.assert_array_equal(np.flatnonzero(model.component_labels_ < 0), np.arange(60, 65))
