"""A fitted map is the same after pickle, joblib and skops, whatever searched the neighbours."""

import copy
import dataclasses
import io
import pickle

import joblib
import numpy as np
import pytest
import scipy.sparse as sp
import sklearn
from scipy.spatial.distance import cdist
from sklearn.neighbors import KNeighborsTransformer, RadiusNeighborsTransformer

from skdmap import DiffusionMap
from skdmap.diffusion._kernel import GaussianKernel, bandwidth_scales
from skdmap.diffusion._neighbors.brute_force import AllPairs
from skdmap.diffusion._neighbors.kd_tree import KDTreeNeighbors

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


def as_version_0_1(model):
    """The state of a map that version 0.1 pickled: no density of its own, fewer kernel fields."""
    state = copy.deepcopy(vars(model))
    kernel = vars(state["_extension"].kernel)
    for name in ("neighbor", "bounds", "is_generator"):
        del kernel[name]
    kernel["floor"] = 0.0
    state["_score_units"] = state.pop("_density").units
    return {**state, "_sklearn_version": sklearn.__version__}


@pytest.mark.parametrize("settings", [{}, {"n_neighbors": 25}, {"bandwidth_exponent": -0.5}])
def test_a_map_that_version_0_1_pickled_opens(settings, cloud):
    model = DiffusionMap(bandwidth=0.45, **settings).fit(cloud)
    state = as_version_0_1(model)
    kernel = GaussianKernel.__new__(GaussianKernel)
    kernel.__setstate__(vars(state["_extension"].kernel))
    state["_extension"] = dataclasses.replace(state["_extension"], kernel=kernel)
    opened = DiffusionMap.__new__(DiffusionMap)
    opened.__setstate__(state)
    np.testing.assert_array_equal(opened.transform(cloud), model.transform(cloud))
    assert opened.score(cloud) == model.score(cloud)
    again = through_pickle(opened)
    np.testing.assert_array_equal(again.transform(cloud), model.transform(cloud))


def test_the_local_kernel_of_version_0_1_keeps_its_rule(cloud):
    """The 9th nearest sample within a factor 2 of the geometric mean, and the generator."""
    ninth = np.sort(cdist(cloud, cloud), axis=1)[:, 8]
    mean = np.exp(np.log(ninth).mean())
    kernel = GaussianKernel.__new__(GaussianKernel)
    state = {"kind": "local", "epsilon": mean**2 / 2, "log_mean": np.log(mean), "floor": 0.0}
    kernel.__setstate__({**state, "train_scale": np.clip(ninth / mean, 0.5, 2)})
    assert kernel.is_generator
    for index in (AllPairs("euclidean", {}), KDTreeNeighbors(20, 2.0)):
        index.build(cloud)
        rho = bandwidth_scales(kernel, index.query(cloud))
        np.testing.assert_allclose(rho, np.clip(ninth / mean, 0.5, 2), rtol=1e-12)
