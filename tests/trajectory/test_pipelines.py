"""TrajectorySampler in pipelines and grid searches."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from skdmap import TrajectorySampler


def test_the_whole_pipeline_clones_pickles_and_takes_nested_names():
    X, y = load_digits(return_X_y=True)
    way = make_pipeline(StandardScaler(), TrajectorySampler(max_epochs=1, random_state=0), PCA(2))
    way.set_params(
        trajectorysampler__optimizer__lr=0.05, trajectorysampler__scheduler="StepLR",
        trajectorysampler__scheduler__step_size=1,
    )  # fmt: skip
    embedding = clone(way).fit_transform(X, y)
    assert embedding.shape == (16, 2)
    loaded = pickle.loads(pickle.dumps(way.fit(X, y)))
    assert np.array_equal(loaded[1].snapshots_, way[1].snapshots_)
    np.testing.assert_allclose(loaded.transform(X), way.transform(X), atol=1e-5)
    assert loaded[1].learning_rates_[0] == 0.05
    assert way[1].scheduler_params == {"step_size": 1}


def test_a_grid_search_chooses_by_the_held_out_loss():
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X / 16, y, random_state=0)
    rates = [1e-4, 0.2]
    search = GridSearchCV(
        TrajectorySampler(max_epochs=5, random_state=0), {"optimizer__lr": rates}, cv=2
    ).fit(X_train, y_train)
    assert search.best_params_ == {"optimizer__lr": 0.2}
    with torch.no_grad():
        outputs = search.best_estimator_.module_(torch.tensor(X_test, dtype=torch.float32))
    expected = -F.cross_entropy(outputs, torch.tensor(y_test)).item()
    assert search.score(X_test, y_test) == pytest.approx(expected, rel=1e-6)
