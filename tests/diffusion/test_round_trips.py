"""A fitted map is the same after pickle, joblib and skops, whatever searched the neighbours."""

import io
import pickle

import joblib
import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist
from sklearn.neighbors import KNeighborsTransformer, RadiusNeighborsTransformer

from skdmap import DiffusionMap

pytestmark = pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")


def through_pickle(model):
    return pickle.loads(pickle.dumps(model))


def through_joblib(model):
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    buffer.seek(0)
    return joblib.load(buffer)


def through_skops(model):
    skops = pytest.importorskip("skops.io")
    data = skops.dumps(model)
    return skops.loads(data, trusted=skops.get_untrusted_types(data=data))


SETTINGS = {
    "all pairs": {"bandwidth": "auto"},
    "tree": {"n_neighbors": 25},
    "tree, chebyshev": {"n_neighbors": 25, "metric": "chebyshev"},
    "blocks of products": {"n_neighbors": 25, "metric": "cosine"},
    "local bandwidth": {"bandwidth": "local"},
    "variable bandwidth": {"bandwidth": "auto", "bandwidth_exponent": -0.5},
    "named solver": {"eigen_solver": "arpack", "random_state": 0},
    "random state": {"random_state": np.random.RandomState(0)},
    "transformer": {"neighbors_algorithm": KNeighborsTransformer(n_neighbors=25)},
    "radius transformer": {"neighbors_algorithm": RadiusNeighborsTransformer(radius=0.5)},
    "minkowski": {"metric": "minkowski", "metric_params": {"p": 3}, "n_neighbors": 25},
    "seuclidean": {"metric": "seuclidean", "n_neighbors": 25},
    "precomputed": {"metric": "precomputed"},
    "stored distances": {"metric": "precomputed"},
    "sparse": {"n_neighbors": 25},
    "wide": {},
}


@pytest.mark.parametrize("through", [through_pickle, through_joblib, through_skops])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_fitted_map_after_a_round_trip(name, through, cloud):
    X, Z = cloud, cloud[:20] + 0.01
    if name == "precomputed":
        X, Z = cdist(X, X), cdist(Z, X)
    elif name == "stored distances":
        search = KNeighborsTransformer(n_neighbors=25).fit(X)
        X, Z = search.transform(X), search.transform(Z)
    elif name == "sparse":
        X, Z = sp.csr_matrix(X), sp.csr_matrix(Z)
    elif name == "wide":
        basis = np.random.default_rng(0).standard_normal((3, 2**14))
        X, Z = X @ basis, Z @ basis
    model = DiffusionMap(**SETTINGS[name]).fit(X)
    copied = through(model)
    np.testing.assert_array_equal(copied.embedding_, model.embedding_)
    np.testing.assert_array_equal(copied.transform(Z), model.transform(Z))
    assert copied.score(Z) == model.score(Z)
    again = through(copied)
    np.testing.assert_array_equal(again.transform(Z), model.transform(Z))
    if name not in ("precomputed", "stored distances"):
        back = model.inverse_transform(model.embedding_[:5])
        np.testing.assert_array_equal(copied.inverse_transform(model.embedding_[:5]), back)


@pytest.mark.parametrize("through", [through_pickle, through_joblib, through_skops])
def test_a_map_that_is_not_fitted(through):
    model = DiffusionMap(3, bandwidth=0.4)
    assert through(model).get_params() == model.get_params()
