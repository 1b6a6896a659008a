"""The three estimators in one pipeline, on real data."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdmap import DiffusionMap, EmpiricalRisk, HessianSpectrum, TrajectorySampler, make_mlp


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


def to_embedding():
    return make_pipeline(
        StandardScaler(),
        TrajectorySampler(max_epochs=3, random_state=0),
        DiffusionMap(n_components=3, bandwidth="auto"),
    )


def through_curvature(X, y):
    scaled = StandardScaler().fit_transform(X).astype(np.float32)
    risk = EmpiricalRisk(make_mlp(64, 10), torch.nn.CrossEntropyLoss(), scaled, y)
    return make_pipeline(
        StandardScaler(),
        TrajectorySampler(max_epochs=3, random_state=0),
        HessianSpectrum(risk, n_components=5, random_state=0),
        DiffusionMap(n_components=3, bandwidth="auto"),
    )


# 1797 rows in batches of 128 are 15 steps an epoch, the last one smaller; row 0 is the start.
N_SNAPSHOTS = 3 * 15 + 1


def test_data_become_the_coordinates_of_a_training_run(digits):
    way = to_embedding()
    coordinates = way.fit_transform(*digits)
    assert coordinates.shape == (N_SNAPSHOTS, 3)
    assert np.isfinite(coordinates).all()
    np.testing.assert_array_equal(way["trajectorysampler"].steps_, np.arange(N_SNAPSHOTS))


def test_the_way_through_the_hessian(digits):
    way = through_curvature(*digits)
    coordinates = way.fit_transform(*digits)
    assert coordinates.shape == (N_SNAPSHOTS, 3)
    spectrum, snapshots = way["hessianspectrum"], way["trajectorysampler"].snapshots_
    np.testing.assert_array_equal(spectrum.point_, snapshots[-1])
    assert way["diffusionmap"].n_features_in_ == 5
    # The map has seen the snapshots in the coordinates of the top eigenvectors, and only those.
    alone = DiffusionMap(n_components=3, bandwidth="auto").fit_transform(
        spectrum.transform(snapshots)
    )
    np.testing.assert_array_equal(coordinates, alone)


@pytest.mark.parametrize("make", [lambda X, y: to_embedding(), through_curvature])
def test_the_way_repeats_clones_and_pickles(digits, make):
    way = make(*digits)
    coordinates = way.fit_transform(*digits)
    np.testing.assert_array_equal(clone(way).fit_transform(*digits), coordinates)
    back = pickle.loads(pickle.dumps(way))
    np.testing.assert_array_equal(back.transform(digits[0]), way.transform(digits[0]))
    np.testing.assert_array_equal(back[-1].embedding_, coordinates)


def test_transform_of_the_way_is_its_embedding(digits):
    way = to_embedding()
    coordinates = way.fit_transform(*digits)
    scale = np.abs(coordinates).max(axis=0)
    np.testing.assert_allclose(way.transform(digits[0]) / scale, coordinates / scale, atol=1e-6)


# The smaller bandwidths leave some digits weakly connected, which a warning says.
@pytest.mark.filterwarnings("ignore::skdmap.exceptions.LocalizedCoordinateWarning")
def test_a_grid_search_over_the_bandwidth_before_a_classifier(digits):
    X, y = load_digits(n_class=4, return_X_y=True)
    pipeline = make_pipeline(DiffusionMap(n_components=6), LogisticRegression(max_iter=1000))
    grid = {"diffusionmap__bandwidth": [15.0, 20.0, 40.0]}
    search = GridSearchCV(pipeline, grid, cv=3, error_score="raise").fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    # Three bandwidths are three maps: equal scores would mean that the parameter is not heard.
    assert len(set(search.cv_results_["mean_test_score"])) > 1
    # Four digits by six coordinates: far above the quarter that guessing gives.
    assert search.best_score_ > 0.8
    again = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(again.predict(X[:9]), search.predict(X[:9]))


def test_a_grid_search_without_labels(digits):
    X = digits[0][:300]
    search = GridSearchCV(DiffusionMap(), {"bandwidth": [5.0, 15.0, 60.0]}, cv=3).fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_parameters_reach_the_network_through_the_pipeline(digits):
    way = to_embedding().set_params(trajectorysampler__optimizer__lr=0.0)
    way["trajectorysampler"].fit(*digits)
    snapshots = way["trajectorysampler"].snapshots_
    np.testing.assert_array_equal(snapshots, np.broadcast_to(snapshots[0], snapshots.shape))
