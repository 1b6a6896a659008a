"""Distances with rounding errors are taken as they are meant; missing values by nan_euclidean."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import pairwise_distances

from skdmap import DiffusionMap
from skdmap.exceptions import BandwidthWarning


def normal(n=120, p=30, shift=0.0):
    return np.random.default_rng(0).standard_normal((n, p)) + shift


def single_precision(X):
    """Distances of rows taken one at a time in single precision, in either order, as float64."""
    X = X.astype(np.float32)
    D = np.array([[np.sqrt(((a - b) ** 2).sum()) for b in X] for a in X], dtype=float)
    return D * (1 + 6e-8 * np.random.default_rng(1).standard_normal(D.shape))


def torch_distances(X, dtype):
    return torch.cdist(torch.tensor(X, dtype=dtype), torch.tensor(X, dtype=dtype)).numpy()


@pytest.mark.parametrize(
    "distances",
    [
        pytest.param(lambda X: np.sqrt(np.maximum(2 - 2 * np.corrcoef(X), 0)), id="correlation"),
        pytest.param(lambda X: np.arccos(np.clip(np.corrcoef(X), -1, 1)), id="angle"),
        pytest.param(lambda X: torch_distances(X, torch.float64), id="cdist double"),
        pytest.param(lambda X: torch_distances(X, torch.float32), id="cdist single"),
        pytest.param(lambda X: torch_distances(X + 10, torch.float32), id="cdist off the origin"),
        pytest.param(single_precision, id="single precision"),
    ],
)
def test_rounding_on_the_diagonal_and_between_the_triangles_is_taken_away(distances):
    D = distances(normal())
    given = D.copy()
    clean = 0.5 * (D + D.T)
    np.fill_diagonal(clean, 0.0)
    settings = {"n_components": 4, "bandwidth": np.median(D), "metric": "precomputed"}
    seen, wanted = DiffusionMap(**settings).fit(D), DiffusionMap(**settings).fit(clean)
    np.testing.assert_array_equal(seen.eigenvalues_, wanted.eigenvalues_)
    np.testing.assert_array_equal(seen.embedding_, wanted.embedding_)
    np.testing.assert_array_equal(D, given)  # the user's matrix is left alone


def test_similarities_and_asymmetric_matrices_are_still_refused():
    D = pairwise_distances(normal())
    with pytest.raises(ValueError, match=r"must be 0 with metric='precomputed'"):
        DiffusionMap(metric="precomputed").fit(np.exp(-D))
    D[3, 5] *= 1.01
    with pytest.raises(ValueError, match="not symmetric"):
        DiffusionMap(metric="precomputed").fit(D)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_missing_values_are_measured_by_nan_euclidean(dtype):
    X = normal(80, 4).astype(dtype)
    new = X[:5] + 0.1
    X[np.random.default_rng(1).random(X.shape) < 0.05] = np.nan
    new[0, 1] = np.nan
    given = X.copy()
    model = DiffusionMap(3, bandwidth=4.0, metric="nan_euclidean").fit(X)
    D = pairwise_distances(X, metric="nan_euclidean").astype(dtype)
    dense = DiffusionMap(3, bandwidth=4.0, metric="precomputed").fit(D)
    np.testing.assert_array_equal(model.eigenvalues_, dense.eigenvalues_)
    np.testing.assert_allclose(model.transform(X), model.embedding_, rtol=1e-5, atol=1e-6)
    wanted = dense.transform(pairwise_distances(new, X, metric="nan_euclidean").astype(dtype))
    np.testing.assert_array_equal(model.transform(new), wanted)
    np.testing.assert_allclose(model.transform(new[:1]), wanted[:1], rtol=1e-5)
    np.testing.assert_array_equal(X, given)
    assert model.embedding_.dtype == dtype
    assert model.n_features_in_ == 4
    assert model.__sklearn_tags__().input_tags.allow_nan
    assert not hasattr(model, "inverse_transform")
    assert np.isfinite(model.score(new))


@pytest.mark.parametrize("settings", [{}, {"bandwidth": "auto"}], ids=str)
def test_without_gaps_nan_euclidean_is_euclidean(settings):
    X = normal(60, 3)
    seen = DiffusionMap(metric="nan_euclidean", **settings).fit(X)
    wanted = DiffusionMap(**settings).fit(X)
    np.testing.assert_allclose(seen.eigenvalues_, wanted.eigenvalues_, rtol=1e-6)


def test_two_samples_without_a_common_feature_are_named():
    X = normal(20, 2)
    X[3, 0] = X[7, 1] = np.nan
    with pytest.raises(ValueError, match="sample 3 and training sample 7 have no feature"):
        DiffusionMap(metric="nan_euclidean").fit(X)


@pytest.mark.parametrize("metric", ["precomputed", "nan_euclidean"])
def test_what_a_matrix_of_distances_leaves_no_room_for_is_refused(metric):
    D = pairwise_distances(normal(20, 2))
    with pytest.raises(ValueError, match=r"metric_params=.* must be None"):
        DiffusionMap(metric=metric, metric_params={"p": 3}).fit(D)
    with pytest.raises(ValueError, match="neighbors_algorithm='pynndescent'"):
        DiffusionMap(metric=metric, neighbors_algorithm="pynndescent").fit(D)


def test_haversine_takes_radians_and_says_so_of_degrees():
    rng = np.random.default_rng(0)
    degrees = np.column_stack([rng.uniform(-80, 80, 60), rng.uniform(-180, 180, 60)])
    model = DiffusionMap(metric="haversine").fit(np.radians(degrees))
    with pytest.raises(ValueError, match=r"must be radians.*numpy\.radians"):
        DiffusionMap(metric="haversine").fit(degrees)
    with pytest.raises(ValueError, match="must be radians"):
        model.transform(degrees[:2])


def test_equal_samples_are_one_whatever_rounding_left_on_the_diagonal():
    X = normal(60, 3)
    D = pairwise_distances(np.vstack([X, X[:5]]))
    D[np.arange(5), 60 + np.arange(5)] = D[60 + np.arange(5), np.arange(5)] = 0.0
    clean = D.copy()
    np.fill_diagonal(clean, 0.0)
    np.fill_diagonal(D, np.linspace(1e-9, 2e-9, len(D)))
    settings = {"bandwidth": 2.0, "n_neighbors": 20, "metric": "precomputed"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BandwidthWarning)
        seen, wanted = DiffusionMap(**settings).fit(D), DiffusionMap(**settings).fit(clean)
    np.testing.assert_array_equal(seen.eigenvalues_, wanted.eigenvalues_)
    np.testing.assert_array_equal(seen.embedding_[:5], seen.embedding_[60:])
