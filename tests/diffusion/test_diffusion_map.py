"""The estimator as its users meet it: pipelines, searches, frames, metrics, lists, clusters."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import sklearn
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import VALID_METRICS, KNeighborsTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdmap import DiffusionMap
from skdmap.datasets import make_swiss_roll

pytestmark = pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
METRICS = sorted({name for names in VALID_METRICS.values() for name in names} - {"precomputed"})
BOOLEAN = {
    "dice",
    "jaccard",
    "rogerstanimoto",
    "russellrao",
    "sokalmichener",
    "sokalsneath",
    "yule",
}


def rows_for(metric):
    rng = np.random.default_rng(0)
    if metric in BOOLEAN:
        return rng.random((80, 12)) < 0.5
    if metric == "haversine":
        return rng.uniform(-0.7, 0.7, (80, 2))
    return rng.integers(0, 4, (80, 6)) + rng.choice([0.0, 0.5], (80, 6))


def city_block(a, b):
    return float(np.abs(a - b).sum())


@pytest.mark.parametrize("settings", [{}, {"bandwidth": "auto"}], ids=str)
@pytest.mark.parametrize("n_neighbors", [None, 12])
@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_of_scikit_learns_neighbours(metric, n_neighbors, settings, relative):
    X = rows_for(metric)
    params = {"func": city_block} if metric == "pyfunc" else None
    model = DiffusionMap(
        2, metric=metric, metric_params=params, n_neighbors=n_neighbors, **settings
    ).fit(X)
    assert np.isfinite(model.embedding_).all()
    assert relative(model.transform(X), model.embedding_) < 1e-8
    assert relative(model.transform(X[3:4]), model.embedding_[3:4]) < 1e-8


@pytest.mark.parametrize("n_neighbors", [None, 12])
def test_a_callable_is_the_metric_it_computes(n_neighbors, cloud, relative):
    settings = {"n_neighbors": n_neighbors, "bandwidth": 0.6}
    own = DiffusionMap(2, metric=city_block, **settings).fit(cloud)
    named = DiffusionMap(2, metric="manhattan", **settings).fit(cloud)
    np.testing.assert_allclose(own.eigenvalues_, named.eigenvalues_, atol=1e-12)
    assert relative(own.transform(cloud + 0.1), named.transform(cloud + 0.1)) < 1e-9


def test_metric_params_reach_the_metric(cloud):
    w = np.array([1.0, 4.0, 0.25])
    weighted = DiffusionMap(2, bandwidth=0.5, metric="minkowski", metric_params={"p": 2, "w": w})
    plain = DiffusionMap(2, bandwidth=0.5).fit(cloud * np.sqrt(w))
    np.testing.assert_allclose(weighted.fit(cloud).eigenvalues_, plain.eigenvalues_, atol=1e-12)


def test_neighbours_in_front_of_precomputed_lists(relative):
    roll = make_swiss_roll(1500, random_state=0)
    way = make_pipeline(
        KNeighborsTransformer(mode="distance", n_neighbors=50),
        DiffusionMap(bandwidth="auto", metric="precomputed"),
    )
    embedding = way.fit_transform(roll.X)
    # A sample sees the pairs that it lists; the fit those of the samples that list it, too.
    assert relative(way.transform(roll.X), embedding) < 0.02
    new = make_swiss_roll(50, random_state=1)
    found = way.transform(new.X)
    near = cdist(new.X, roll.X).argmin(axis=1)
    assert found.shape == (50, 2)
    assert np.abs(found - embedding[near]).max() < 0.2 * np.abs(embedding).max()
    s = np.cos(np.pi * roll.arc_length)
    assert abs(np.corrcoef(embedding[:, 0], s)[0, 1]) > 0.99


def test_a_neighbour_transformer_as_algorithm(relative):
    roll = make_swiss_roll(600, random_state=0)
    transformer = KNeighborsTransformer(n_neighbors=50)
    model = DiffusionMap(neighbors_algorithm=transformer, bandwidth=2.0).fit(roll.X)
    exact = DiffusionMap(n_neighbors=50, bandwidth=2.0).fit(roll.X)
    np.testing.assert_allclose(model.eigenvalues_, exact.eigenvalues_, rtol=1e-9)
    assert relative(model.transform(roll.X), model.embedding_) < 1e-8
    assert relative(model.transform(roll.X + 0.05), exact.transform(roll.X + 0.05)) < 1e-3


@pytest.mark.parametrize("listed", [False, True])
def test_grid_search_over_distances(listed, cloud):
    """Pairwise splitting: the training part of rows and columns, rows of the test part."""
    X = cdist(cloud, cloud)
    if listed:
        X = KNeighborsTransformer(mode="distance", n_neighbors=60).fit_transform(cloud)
    grid = {"bandwidth": [0.1, 0.3, 1.0]}
    search = GridSearchCV(DiffusionMap(metric="precomputed"), grid, cv=3, error_score="raise")
    search.fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    train, test = next(iter(KFold(3).split(cloud)))
    by_hand = DiffusionMap(metric="precomputed", bandwidth=0.3).fit(X[np.ix_(train, train)])
    expected = by_hand.score(X[np.ix_(test, train)])
    assert search.cv_results_["split0_test_score"][1] == pytest.approx(expected, rel=1e-12)
    if not listed:
        rows = GridSearchCV(DiffusionMap(), grid, cv=3, error_score="raise").fit(cloud)
        np.testing.assert_allclose(
            rows.cv_results_["mean_test_score"], search.cv_results_["mean_test_score"], rtol=1e-9
        )


def test_sample_weight_is_routed_through_a_pipeline(cloud, weights, relative):
    with sklearn.config_context(enable_metadata_routing=True):
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        mapper = DiffusionMap(2, bandwidth=0.6).set_fit_request(sample_weight=True)
        way = make_pipeline(scaler, mapper).fit(cloud, sample_weight=weights)
        direct = DiffusionMap(2, bandwidth=0.6).fit(
            StandardScaler().fit_transform(cloud), sample_weight=weights
        )
        assert relative(way[-1].embedding_, direct.embedding_) < 1e-12
        np.testing.assert_array_equal(
            way.fit_transform(cloud, sample_weight=weights), way[-1].embedding_
        )
        without = make_pipeline(scaler, DiffusionMap(2, bandwidth=0.6)).fit(cloud)
        assert relative(without[-1].embedding_, direct.embedding_) > 1e-3


def test_frames_and_feature_names(cloud):
    names = ["a", "b", "c"]
    array = DiffusionMap(2, bandwidth=0.6).fit(cloud)
    frame = pd.DataFrame(cloud, columns=names, index=np.arange(150) + 7)
    model = DiffusionMap(2, bandwidth=0.6).set_output(transform="pandas")
    out = model.fit_transform(frame)
    np.testing.assert_array_equal(out.to_numpy(), array.embedding_)
    np.testing.assert_array_equal(out.index, frame.index)
    assert list(out.columns) == ["diffusionmap0", "diffusionmap1"]
    assert list(model.get_feature_names_out()) == ["diffusionmap0", "diffusionmap1"]
    assert list(model.feature_names_in_) == names
    with pytest.raises(ValueError, match="feature names"):
        model.transform(frame[["b", "a", "c"]])
    out = (
        DiffusionMap(2, bandwidth=0.6)
        .set_output(transform="polars")
        .fit_transform(pl.DataFrame(cloud, schema=names))
    )
    assert isinstance(out, pl.DataFrame)
    np.testing.assert_array_equal(out.to_numpy(), array.embedding_)


def test_a_memory_map_is_read_and_not_written(tmp_path, cloud, relative):
    np.save(tmp_path / "rows.npy", cloud)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    for n_neighbors in (None, 30):
        settings = {"bandwidth": 0.5, "n_neighbors": n_neighbors}
        model = DiffusionMap(2, **settings).fit(mapped)
        one = DiffusionMap(2, **settings).fit(cloud)
        np.testing.assert_array_equal(model.embedding_, one.embedding_)
        np.testing.assert_array_equal(model.transform(mapped), one.transform(cloud))


def test_array_likes_and_whole_numbers():
    rows = [[i, i % 3] for i in range(20)]
    model = DiffusionMap(2, bandwidth=3.0).fit(rows)
    same = DiffusionMap(2, bandwidth=3.0).fit(np.array(rows, dtype=float))
    np.testing.assert_array_equal(model.embedding_, same.embedding_)
    assert model.embedding_.dtype == np.float64


def two_clusters(sizes=(60, 40), apart=1e3):
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.standard_normal((n, 2)) + apart * i for i, n in enumerate(sizes)])
    y = np.repeat(np.arange(len(sizes)), sizes)
    order = rng.permutation(len(y))
    return X[order], y[order]


@pytest.mark.parametrize("bandwidth", [1.0, "auto", "local"])
@pytest.mark.parametrize("n_neighbors", [None, 15])
def test_two_far_clusters(bandwidth, n_neighbors, relative):
    X, y = two_clusters()
    model = DiffusionMap(3, bandwidth=bandwidth, n_neighbors=n_neighbors).fit(X)
    assert model.n_connected_components_ == 2
    # Label 0 is the component of more rows.
    sizes = np.bincount(model.component_labels_)
    assert sizes[0] > sizes[1]
    mass = np.bincount(model.component_labels_, weights=model.stationary_distribution_)
    assert len({*zip(model.component_labels_, y, strict=True)}) == 2
    assert model.eigenvalues_[0] == 1.0
    assert model.eigenvalues_[1] < 1.0
    first = model.eigenvectors_[:, 0]
    expected = np.where(
        model.component_labels_ == 0, np.sqrt(mass[1] / mass[0]), -np.sqrt(mass[0] / mass[1])
    )
    assert np.abs(np.abs(first) - np.abs(expected)).max() < 1e-9
    assert relative(model.transform(X), model.embedding_) < 1e-8
    assert LogisticRegression().fit(model.embedding_, y).score(model.embedding_, y) == 1.0
    pi, psi = model.stationary_distribution_, model.eigenvectors_
    np.testing.assert_allclose(psi.T @ (pi[:, None] * psi), np.eye(3), atol=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("n_neighbors", [None, 25])
def test_the_largest_cluster_alone(relative, alpha, n_neighbors):
    """The largest is that of more rows, whatever alpha; rates are those of the cluster alone."""
    X, y = two_clusters()
    settings = {"bandwidth": 0.5, "alpha": alpha, "n_neighbors": n_neighbors}
    model = DiffusionMap(2, disconnected="largest", **settings).fit(X)
    alone = DiffusionMap(2, **settings).fit(X[y == 0])
    np.testing.assert_allclose(
        model.laplacian_eigenvalues_, alone.laplacian_eigenvalues_, rtol=1e-9
    )
    assert relative(model.embedding_[y == 0], alone.embedding_) < 1e-10
    np.testing.assert_array_equal(model.stationary_distribution_[y == 1], 0)
    assert model.embedding_.shape == (100, 2)
    assert relative(model.embedding_, alone.transform(X)) < 1e-8
    assert relative(model.transform(X), model.embedding_) < 1e-8


def test_two_small_clusters_are_both_kept():
    """All pieces have fewer than ten rows: all count."""
    X, y = two_clusters((6, 4))
    model = DiffusionMap(3, bandwidth=1.0).fit(X)
    assert model.n_connected_components_ == 2
    assert set(model.component_labels_) == {0, 1}
    assert model.eigenvalues_[0] == 1.0
    assert LogisticRegression(C=100).fit(model.embedding_, y).score(model.embedding_, y) == 1.0


@pytest.mark.parametrize("n_components", [1, 2, 3])
def test_four_clusters_and_fewer_coordinates(n_components):
    X, _ = two_clusters((40, 30, 20, 12))
    model = DiffusionMap(n_components, bandwidth=1.0).fit(X)
    assert model.n_connected_components_ == 4
    np.testing.assert_array_equal(model.eigenvalues_, 1.0)
    assert np.isfinite(model.transform(X)).all()


@pytest.mark.parametrize("n_neighbors", [None, 8])
def test_as_many_components_as_there_can_be(n_neighbors, reference):
    X = np.random.default_rng(0).uniform(size=(30, 2))
    model = DiffusionMap(29, bandwidth=0.2, n_neighbors=n_neighbors).fit(X)
    exact = reference(X, 0.2, 1.0, n_neighbors=n_neighbors)
    np.testing.assert_allclose(model.eigenvalues_, exact.values[1:], atol=1e-12)
    assert model.embedding_.shape == (30, 29)
    assert np.isfinite(model.embedding_).all()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_sparse_fit_against_the_dense_definition(alpha, cloud, reference, up_to_sign):
    model = DiffusionMap(4, bandwidth=0.3, alpha=alpha, n_neighbors=40).fit(cloud)
    exact = reference(cloud, 0.3, alpha, n_neighbors=40)
    np.testing.assert_allclose(model.eigenvalues_, exact.values[1:5], atol=1e-12)
    np.testing.assert_allclose(model.stationary_distribution_, exact.pi, rtol=1e-10)
    assert up_to_sign(model.embedding_, exact.psi[:, 1:5] * exact.values[1:5]) < 1e-9
    assert model.n_neighbors_ == 40


def test_residuals_are_true(cloud, reference):
    model = DiffusionMap(4, bandwidth=0.5).fit(cloud)
    exact = reference(cloud, 0.5)
    v = model.eigenvectors_ * np.sqrt(exact.pi)[:, None]
    true = np.linalg.norm(exact.S @ v - v * model.eigenvalues_, axis=0)
    assert model.residuals_.max() < 1e-13
    np.testing.assert_allclose(true, model.residuals_, atol=1e-13)


def test_auto_neighbours_above_the_limit_of_all_pairs(monkeypatch, relative, angle):
    """With the limit lowered: a sparse kernel whose cut-off does not show, on an interval."""
    monkeypatch.setattr("skdmap.diffusion._bandwidth.ALL_PAIRS_ROWS", 500)
    X = np.random.default_rng(0).uniform(size=(1200, 1))
    sparse = DiffusionMap(3, bandwidth=0.02).fit(X)
    assert 32 <= sparse.n_neighbors_ <= 256
    full = DiffusionMap(3, n_neighbors=None, bandwidth=0.02).fit(X)
    assert full.n_neighbors_ is None
    assert angle(sparse.embedding_, full.embedding_) < 0.05
    np.testing.assert_allclose(
        sparse.laplacian_eigenvalues_, full.laplacian_eigenvalues_, rtol=0.05
    )


def test_parameters_are_left_alone(cloud):
    params = {"p": 3}
    model = DiffusionMap(metric="minkowski", metric_params=params, bandwidth=0.5)
    before = dict(model.get_params())
    model.fit(cloud)
    assert model.get_params() == before
    assert params == {"p": 3}


def test_labels_of_another_length_are_ignored(cloud):
    DiffusionMap(2, bandwidth=0.5).fit(cloud, y=np.zeros(7))
    assert sp.issparse(sp.csr_matrix(cloud))
