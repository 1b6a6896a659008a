"""Affinities in place of distances: a matrix, or a function of samples."""

import pickle
import re
import warnings
from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.linalg import eigh
from sklearn.base import clone
from sklearn.impute import SimpleImputer
from sklearn.metrics.pairwise import laplacian_kernel, rbf_kernel
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier, kneighbors_graph
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags

from skdmap import DiffusionMap
from skdmap.exceptions import (
    BandwidthWarning,
    DisconnectedGraphWarning,
    ExtrapolationWarning,
    LocalizedCoordinateWarning,
)

H = 0.45
gaussian = partial(rbf_kernel, gamma=1 / (2 * H**2))
FORMS = {"callable": None, "dense": np.asarray, "sparse": sp.csr_matrix}


def given(form, **settings):
    """Return a map with the Gaussian in a form, and what makes its X of samples and of training."""
    convert = FORMS[form]
    if convert is None:
        return DiffusionMap(3, kernel=gaussian, **settings), lambda X, Y: X
    model = DiffusionMap(3, kernel="precomputed", **settings)
    return model, lambda X, Y: convert(gaussian(X, Y))


def assert_equal_maps(own, reference, of_own, of_reference, relative):
    for name in ("eigenvalues_", "embedding_", "eigenvectors_", "stationary_distribution_"):
        assert relative(getattr(own, name), getattr(reference, name)) < 1e-10, name
    np.testing.assert_array_equal(own.component_labels_, reference.component_labels_)
    assert relative(own.transform(of_own), reference.transform(of_reference)) < 1e-10


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_gaussian_as_matrix_or_function_is_the_gaussian_kernel(
    form, alpha, weighted, cloud, weights, relative
):
    weight = weights if weighted else None
    new = np.random.default_rng(5).standard_normal((12, 3))
    settings = {"alpha": alpha, "diffusion_time": 2}
    reference = DiffusionMap(3, bandwidth=H, n_neighbors=None, **settings)
    reference.fit(cloud, sample_weight=weight)
    own, matrix = given(form, **settings)
    own.fit(matrix(cloud, cloud), sample_weight=weight)
    assert_equal_maps(own, reference, matrix(new, cloud), new, relative)
    assert relative(own.transform(matrix(cloud, cloud)), own.embedding_) < 1e-10
    alone = [own.transform(matrix(row[None], cloud)) for row in new]
    assert relative(np.concatenate(alone), own.transform(matrix(new, cloud))) < 1e-12


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", ["warn", "largest"])
def test_components_small_ones_and_weights_of_zero_are_those_of_the_gaussian(
    form, mode, cloud, relative
):
    # Groups 9 h and more apart: k = 2e-17 is no connection, but still an affinity for transform.
    groups = [cloud[:80] * 0.3, cloud[80:140] * 0.3 + [4.9, 0, 0], cloud[140:143] * 0.1 - 3.0]
    X, weight = np.vstack(groups), np.ones(143)
    weight[[3, 100]] = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DisconnectedGraphWarning)
        reference = DiffusionMap(3, bandwidth=H, n_neighbors=None, disconnected=mode)
        reference.fit(X, sample_weight=weight)
        own, matrix = given(form, disconnected=mode)
        own.fit(matrix(X, X), sample_weight=weight)
        warnings.simplefilter("ignore", ExtrapolationWarning)
        assert_equal_maps(own, reference, matrix(X + 0.1, X), X + 0.1, relative)
    assert reference.n_connected_components_ == 2
    assert set(reference.component_labels_) == {-1, 0, 1}


def closed_form(K):
    """Return eigenvalues and eigenvectors of scanpy's transition matrix, the trivial ones first."""
    K = K.toarray()
    q = K.sum(axis=0)
    T = K / np.outer(q, q)
    z = np.sqrt(T.sum(axis=0))
    values, vectors = eigh(T / np.outer(z, z))
    return values[::-1], vectors[:, ::-1]


def assert_is_map_of_scanpy(mapping, values, vectors, tolerance):
    k, pi = mapping.eigenvalues_.size, mapping.stationary_distribution_
    np.testing.assert_allclose(mapping.eigenvalues_, values[1 : k + 1], rtol=tolerance)
    psi = vectors[:, 1 : k + 1] / vectors[:, :1]
    psi = psi * (np.sign(pi @ psi**3) / np.sqrt(pi @ psi**2))
    np.testing.assert_allclose(mapping.eigenvectors_, psi, atol=10 * tolerance * abs(psi).max())


def test_connectivities_give_the_map_of_scanpy(graph):
    """P = z^-1 (K / q q') z^-1, its eigenvectors divided by the trivial one."""
    assert graph.diagonal().max() == 0
    mapping = DiffusionMap(5, kernel="precomputed").fit(graph)
    assert_is_map_of_scanpy(mapping, *closed_form(graph), 1e-10)
    single = DiffusionMap(5, kernel="precomputed").fit(graph.astype(np.float32))
    assert single.embedding_.dtype == np.float32
    np.testing.assert_allclose(single.eigenvalues_, mapping.eigenvalues_, rtol=1e-6)


def test_real_cells_give_the_map_of_scanpy():
    scanpy = pytest.importorskip("scanpy", reason="scanpy is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells = scanpy.datasets.pbmc68k_reduced()
        scanpy.tl.diffmap(cells)
    affinities = cells.obsp["connectivities"]
    mapping = DiffusionMap(14, kernel="precomputed").fit(affinities)
    coordinates = cells.obsm["X_diffmap"]
    assert_is_map_of_scanpy(mapping, cells.uns["diffmap_evals"], coordinates, 1e-5)
    np.testing.assert_allclose(mapping.transform(affinities), mapping.embedding_, atol=1e-10)


@pytest.fixture(scope="module")
def graph():
    """A sparse affinity of 200 samples of a strip, with a diagonal of 0."""
    X = np.random.default_rng(0).uniform(0, 1, (200, 2)) * [2.5, 1]
    K = rbf_kernel(X, gamma=40)
    np.fill_diagonal(K, 0)
    K[K < 0.02] = 0
    K = (K + K.T) / 2
    return sp.csr_matrix(K)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.LocalizedCoordinateWarning")
@pytest.mark.parametrize("diagonal", [0.0, 0.3, 5.0])
def test_the_diagonal_is_used_as_given(diagonal, graph):
    """P_ii = K_ii / d_i with alpha = 0, and the trace of P is the sum of its eigenvalues."""
    K = graph[:40, :40].toarray() + 0.1
    np.fill_diagonal(K, diagonal)
    mapping = DiffusionMap(39, kernel="precomputed", alpha=0, diffusion_time=0).fit(K)
    trace = (np.diagonal(K) / K.sum(axis=1)).sum()
    assert 1 + mapping.eigenvalues_.sum() == pytest.approx(trace, rel=1e-10)


def test_what_is_left_of_asymmetry_is_averaged(graph):
    K = graph.toarray()
    K[3, 5] = K[5, 3] = 0.5
    skew = K.copy()
    skew[3, 5] += 4e-7
    K[3, 5] = K[5, 3] = 0.5 + 2e-7
    before = skew.copy()
    for convert in (np.asarray, sp.csr_matrix):
        of_skew = DiffusionMap(3, kernel="precomputed").fit(convert(skew))
        of_mean = DiffusionMap(3, kernel="precomputed").fit(convert(K))
        np.testing.assert_allclose(of_skew.embedding_, of_mean.embedding_, rtol=0, atol=1e-13)
    np.testing.assert_array_equal(skew, before)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.LocalizedCoordinateWarning")
@pytest.mark.parametrize("convert", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize(("share", "n_components"), [(1e-15, 1), (1e-16, 2)])
def test_samples_are_connected_from_rounding_of_the_largest_affinity_on(
    convert, share, n_components
):
    K = np.kron(np.eye(2), np.full((12, 12), 7.0)) + 0.1 * np.eye(24)
    K[3, 15] = K[15, 3] = 7.1 * share
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DisconnectedGraphWarning)
        mapping = DiffusionMap(2, kernel="precomputed").fit(convert(K))
    assert mapping.n_connected_components_ == n_components


@pytest.mark.parametrize("convert", [np.asarray, sp.csr_matrix])
def test_samples_without_affinity_have_no_place_and_are_named(convert, graph):
    K = graph.toarray()
    K[[5, 17]] = K[:, [5, 17]] = 0
    rest = np.setdiff1d(np.arange(200), [5, 17])
    alone = DiffusionMap(3, kernel="precomputed").fit(K[np.ix_(rest, rest)])
    with pytest.warns(DisconnectedGraphWarning, match="2 of 200 .* samples 5, 17") as caught:
        mapping = DiffusionMap(3, kernel="precomputed").fit(convert(K))
    assert len(caught) == 1
    assert mapping.n_connected_components_ == 1
    np.testing.assert_array_equal(mapping.component_labels_[[5, 17]], -1)
    np.testing.assert_array_equal(mapping.stationary_distribution_[[5, 17]], 0)
    assert np.isnan(mapping.embedding_[[5, 17]]).all()
    np.testing.assert_allclose(mapping.embedding_[rest], alone.embedding_, atol=1e-12)
    with pytest.warns(ExtrapolationWarning, match="1 of 3 samples have no affinity .* sample 1"):
        new = mapping.transform(convert(K[[4, 5, 6]]))
    assert np.isnan(new[1]).all()
    np.testing.assert_allclose(new[[0, 2]], mapping.embedding_[[4, 6]], atol=1e-12)
    with pytest.raises(ValueError, match=r"samples 5, 17.*disconnected='raise'"):
        DiffusionMap(3, kernel="precomputed", disconnected="raise").fit(convert(K))


def test_other_components_have_no_place_beside_the_largest(graph):
    """Nothing leads from them to it; their labels tell them apart all the same."""
    K = sp.block_diag([graph, graph[:60, :60] + 0.1 * sp.eye(60)], format="csr")
    with pytest.warns(DisconnectedGraphWarning, match="60 of 260 .* probability 0: samples 200"):
        mapping = DiffusionMap(3, kernel="precomputed", disconnected="largest").fit(K)
    alone = DiffusionMap(3, kernel="precomputed").fit(graph)
    np.testing.assert_allclose(mapping.embedding_[:200], alone.embedding_, atol=1e-12)
    assert np.isnan(mapping.embedding_[200:]).all()
    assert (mapping.component_labels_[:200] == 0).all()
    assert (mapping.component_labels_[200:] != 0).all()


def test_far_samples_get_the_nearest_coordinates_and_those_beyond_all_affinity_nan(cloud):
    mapping = DiffusionMap(2, kernel=gaussian).fit(cloud)
    far = cloud[0] + [[0, 4, 0], [0, 400, 0]]
    with (
        pytest.warns(ExtrapolationWarning, match="below 1e-14 of the largest: sample 0"),
        pytest.warns(ExtrapolationWarning, match="nan coordinates: sample 1"),
    ):
        coordinates = mapping.transform(far)
    assert np.isfinite(coordinates[0]).all()
    assert np.isnan(coordinates[1]).all()


def test_far_samples_are_told_of_stored_distances_only_if_there_are_some(cloud):
    far = cloud[:1] + 400.0
    for settings in ({"n_neighbors": 10}, {"bandwidth": H, "n_neighbors": None}):
        mapping = DiffusionMap(2, **settings).fit(cloud)
        with pytest.warns(ExtrapolationWarning, match=r"nearest training samples\. Check"):
            mapping.transform(far)
    stored = kneighbors_graph(cloud, 10, mode="distance")
    mapping = DiffusionMap(2, metric="precomputed").fit(stored)
    with pytest.warns(ExtrapolationWarning, match="0 where no stored distance leads to one"):
        mapping.transform(stored[:1] * 1e4)


def test_small_components_are_named_once_with_a_way_out(graph):
    K = sp.block_diag([graph, np.ones((4, 4))]).toarray()
    K[:, 7] = K[7] = 0
    with pytest.warns(DisconnectedGraphWarning) as caught:
        mapping = DiffusionMap(3, kernel="precomputed").fit(K)
    small, isolated = (str(warning.message) for warning in caught)
    assert re.search(r"4 sample\(s\) in components of fewer than 10 .* nan .*: samples 200", small)
    assert re.search("1 of 204 .* no affinity above 0 .*: sample 7", isolated)
    assert "SimpleImputer" in small
    assert "SimpleImputer" in isolated
    assert np.isnan(mapping.embedding_[200:]).all()
    filled = SimpleImputer().fit_transform(mapping.embedding_)
    assert np.isfinite(filled).all()


def test_the_advice_for_correlations_holds_beyond_1():
    C = np.array([[1 + 4e-16, -1 - 4e-16]])
    with pytest.raises(ValueError, match="affinity -1") as raised:
        DiffusionMap(kernel="precomputed").fit(np.vstack([C, C[:, ::-1]]))
    advice = re.search(r"1 - numpy\.arccos.* / numpy\.pi", str(raised.value)).group()
    np.testing.assert_array_equal(eval(advice, {"numpy": np, "C": C}), [[1, 0]])


@pytest.mark.parametrize("factor", [1e-310, 1e-30, 1e30, 1e307])
def test_only_ratios_of_affinities_matter(factor, graph, relative):
    mapping = DiffusionMap(3, kernel="precomputed").fit(graph)
    scaled = DiffusionMap(3, kernel="precomputed").fit(graph * factor)
    dense = DiffusionMap(3, kernel="precomputed").fit(graph.toarray() * factor)
    assert relative(dense.embedding_, mapping.embedding_) < 1e-10
    assert relative(scaled.embedding_, mapping.embedding_) < 1e-10
    assert relative(scaled.transform(graph * factor), mapping.embedding_) < 1e-10


@pytest.mark.parametrize("form", FORMS)
def test_fitted_attributes_without_a_length(form, cloud):
    own, matrix = given(form)
    own.fit(matrix(cloud, cloud))
    for name in ("bandwidth_", "epsilon_", "intrinsic_dimension_"):
        assert isinstance(getattr(own, name), float)
        assert np.isnan(getattr(own, name))
    assert own.bandwidth_curve_ is None
    assert own.n_neighbors_ is None
    np.testing.assert_array_equal(own.laplacian_eigenvalues_, 1 - own.eigenvalues_)
    assert not hasattr(own, "score")
    assert hasattr(own, "inverse_transform") == (form == "callable")
    with pytest.raises(AttributeError, match="no attribute 'score'") as raised:
        own.score(matrix(cloud, cloud))
    assert "is not 'gaussian'" in str(raised.value.__cause__)
    tags = get_tags(own).input_tags
    assert tags.pairwise == tags.positive_only == (form != "callable")
    assert own.n_features_in_ == (3 if form == "callable" else 150)


def test_inverse_transform_with_a_function(cloud, relative):
    own = DiffusionMap(3, kernel=gaussian).fit(cloud)
    reference = DiffusionMap(3, bandwidth=H, n_neighbors=None).fit(cloud)
    Z = own.embedding_[:20]
    assert relative(own.inverse_transform(Z), reference.inverse_transform(Z)) < 1e-8


def test_equal_samples_are_merged_for_a_function(cloud, relative):
    twice = np.vstack([cloud, cloud[:30]])
    weight = np.repeat([2.0, 1.0], [30, 120])
    once = DiffusionMap(3, kernel=gaussian).fit(cloud, sample_weight=weight)
    mapping = DiffusionMap(3, kernel=gaussian).fit(twice)
    assert relative(mapping.embedding_[:150], once.embedding_) < 1e-10
    # Of a matrix the merged samples differ in the number of eigenvalues 0 only.
    matrix = DiffusionMap(3, kernel="precomputed").fit(gaussian(twice))
    assert relative(matrix.embedding_, mapping.embedding_) < 1e-10


@pytest.mark.parametrize("time", [0, 0.5, 3])
def test_every_time(time, graph, relative):
    K = graph @ graph.T  # positive semidefinite
    mapping = DiffusionMap(3, kernel="precomputed", diffusion_time=time).fit(K)
    expected = mapping.eigenvectors_ * mapping.eigenvalues_**time
    assert relative(mapping.embedding_, expected) < 1e-10
    assert relative(mapping.transform(K), mapping.embedding_) < 1e-10


def test_functions_get_sparse_samples_and_may_return_sparse_affinities(cloud, relative):
    def linear(X, Y):
        assert sp.issparse(X)
        return X @ Y.T

    X = sp.csr_matrix(np.abs(cloud))
    mapping = DiffusionMap(2, kernel=linear).fit(X)
    dense = DiffusionMap(2, kernel="precomputed").fit((X @ X.T).toarray())
    assert relative(mapping.embedding_, dense.embedding_) < 1e-10


def test_cross_validation_takes_rows_and_columns(cloud):
    """Scores over affinities are those over samples, fold by fold."""
    y = (cloud[:, 0] + 0.4 * cloud[:, 1] > 0).astype(int)
    scores = []
    for form in ("callable", "dense"):
        own, matrix = given(form)
        pipeline = make_pipeline(own, KNeighborsClassifier(3))
        scores.append(cross_val_score(pipeline, matrix(cloud, cloud), y, cv=5))
        grid = {"diffusionmap__alpha": [0.0, 1.0], "diffusionmap__n_components": [1, 3]}
        search = GridSearchCV(pipeline, grid, cv=3).fit(matrix(cloud, cloud), y)
        scores.append(search.cv_results_["mean_test_score"])
    np.testing.assert_array_equal(scores[0], scores[2])
    np.testing.assert_array_equal(scores[1], scores[3])
    assert min(scores[0]) > 0.8


@pytest.mark.parametrize("convert", [np.array, sp.csr_matrix])
def test_the_affinities_are_left_as_they_were(convert, graph):
    K = convert(graph.toarray())
    DiffusionMap(3, kernel="precomputed").fit(K).transform(K)
    np.testing.assert_array_equal(K if convert is np.array else K.toarray(), graph.toarray())


def test_clone_and_pickle(graph):
    model = DiffusionMap(3, kernel=partial(laplacian_kernel, gamma=0.1))
    assert clone(model).kernel is not None
    mapping = DiffusionMap(3, kernel="precomputed").fit(graph)
    again = pickle.loads(pickle.dumps(mapping))
    np.testing.assert_array_equal(again.transform(graph), mapping.transform(graph))


def test_localized_coordinates_are_named_with_a_cure_that_exists(graph):
    K = graph.toarray()
    K[0] = K[:, 0] = 0
    K[0, 1] = K[1, 0] = 1e-9
    K[0, 0] = 1
    with pytest.warns(LocalizedCoordinateWarning, match=r"sample 0.*sample_weight 0"):
        DiffusionMap(1, kernel="precomputed").fit(K)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.LocalizedCoordinateWarning")
def test_affinities_without_structure_warn():
    K = np.ones((30, 30))
    with pytest.warns(BandwidthWarning, match="rows of the affinities are all alike"):
        DiffusionMap(1, kernel="precomputed").fit(K)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bandwidth", 1.0),
        ("bandwidth", "auto"),
        ("n_neighbors", 5),
        ("n_neighbors", None),
        ("metric", "manhattan"),
        ("metric", "precomputed"),
        ("metric_params", {}),
        ("neighbors_algorithm", "exact"),
        ("bandwidth_exponent", -0.5),
    ],
)
@pytest.mark.parametrize("kernel", ["precomputed", gaussian])
def test_parameters_about_distances_stand_at_their_defaults(name, value, kernel, graph):
    with pytest.raises(ValueError, match=rf"{name}=.*kernel=.*Leave out {name}"):
        DiffusionMap(kernel=kernel, **{name: value}).fit(graph)


def spoiled(graph, entry, value):
    K = graph.toarray()
    K[entry] = K[entry[::-1]] = value
    return K


@pytest.mark.parametrize("convert", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize(
    ("value", "message"),
    [(-0.1, "affinity -0.1.*clip.*arccos"), (np.nan, "NaN"), (np.inf, "infinity")],
)
def test_negative_and_missing_affinities_are_errors(convert, value, message, graph):
    K = convert(spoiled(graph, (2, 7), value))
    with pytest.raises(ValueError, match=message):
        DiffusionMap(kernel="precomputed").fit(K)
    mapping = DiffusionMap(kernel="precomputed").fit(graph)
    with pytest.raises(ValueError, match=message):
        mapping.transform(K[:4])


@pytest.mark.parametrize("convert", [np.asarray, sp.csr_matrix])
def test_affinities_of_a_wrong_shape_or_symmetry_are_errors(convert, graph):
    fit = DiffusionMap(kernel="precomputed").fit
    with pytest.raises(ValueError, match=r"shape \(200, 50\); it must be square"):
        fit(convert(graph[:, :50].toarray()))
    skew = graph.toarray()
    skew[0, 1] += 1e-3
    with pytest.raises(ValueError, match=r"not symmetric: .* 0\.001.*\(K \+ K\.T\) / 2"):
        fit(convert(skew))
    with pytest.raises(ValueError, match="no affinity above 0"):
        fit(convert(np.zeros((20, 20))))
    with pytest.raises(ValueError, match="200 features"):
        fit(graph).transform(convert(graph[:3, :50].toarray()))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda X, Y: rbf_kernel(X, Y)[:, 0], r"shape \(150,\).*\(150, 150\)"),
        (lambda X, Y: rbf_kernel(X, Y)[:-1], r"shape \(149, 150\)"),
        (lambda X, Y: rbf_kernel(X, Y).astype(str), r"dtype <U"),
        (lambda X, Y: -rbf_kernel(X, Y), "kernel returned contains the affinity -1"),
        (lambda X, Y: rbf_kernel(X, Y) * np.nan, "kernel returned contains NaN"),
        (lambda X, Y: rbf_kernel(X, Y) * X[:, :1] ** 2, "kernel returned is not symmetric"),
    ],
)
def test_functions_that_return_something_else_are_errors(function, message, cloud):
    with pytest.raises(ValueError, match=message):
        DiffusionMap(kernel=function).fit(cloud)


def test_a_kernel_is_one_of_two_names_or_a_function(cloud):
    with pytest.raises(ValueError, match=r"'kernel' parameter.*Did you mean 'gaussian'"):
        DiffusionMap(kernel="gausian").fit(cloud)
