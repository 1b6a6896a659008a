"""What must not matter: place, size, rotation, order, duplicates, format, number of rows."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist
from scipy.stats import ortho_group
from sklearn.base import clone

from skdmap import DiffusionMap

pytestmark = pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
KINDS = {
    "given": {"bandwidth": 0.45},
    "auto": {"bandwidth": "auto"},
    "median": {"bandwidth": "median"},
    "local": {"bandwidth": "local"},
    "variable": {"bandwidth": 0.45, "bandwidth_exponent": -0.5},
    "sparse": {"bandwidth": 0.3, "n_neighbors": 40},
    "sparse auto": {"bandwidth": "auto", "n_neighbors": 40},
    "sparse local": {"bandwidth": "local", "n_neighbors": 40},
}


def scaled(settings, factor):
    h = settings["bandwidth"]
    return {**settings, "bandwidth": h if isinstance(h, str) else h * factor}


def fitted(X, settings, **more):
    return DiffusionMap(3, **{**settings, **more}).fit(X)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [1e-100, 1e-8, 1e8, 1e100])
def test_scale(kind, factor, cloud, relative):
    one = fitted(cloud, KINDS[kind])
    other = fitted(cloud * factor, scaled(KINDS[kind], factor))
    np.testing.assert_allclose(other.eigenvalues_, one.eigenvalues_, atol=1e-11)
    assert relative(other.embedding_, one.embedding_) < 1e-9
    np.testing.assert_allclose(other.bandwidth_, np.multiply(one.bandwidth_, factor), rtol=1e-11)
    np.testing.assert_allclose(
        other.laplacian_eigenvalues_ * factor**2, one.laplacian_eigenvalues_, rtol=1e-9
    )
    assert relative(other.transform(cloud * factor), other.embedding_) < 1e-8


@pytest.mark.parametrize("kind", KINDS)
def test_translation(kind, cloud, relative):
    """Rows at 1e6 are known to 1e6 eps = 2e-10; coordinates to not much more."""
    one, other = fitted(cloud, KINDS[kind]), fitted(cloud + 1e6, KINDS[kind])
    np.testing.assert_allclose(other.eigenvalues_, one.eigenvalues_, atol=1e-8)
    assert relative(other.embedding_, one.embedding_) < 1e-7
    assert relative(other.transform(cloud + 1e6), other.embedding_) < 1e-8


@pytest.mark.parametrize("kind", KINDS)
def test_wide_rows_translated(kind, cloud, relative):
    """Above 16 columns distances come from a matrix product."""
    wide = cloud @ ortho_group.rvs(40, random_state=0)[:3]
    one, other = fitted(wide, KINDS[kind]), fitted(wide + 1e6, KINDS[kind])
    np.testing.assert_allclose(other.eigenvalues_, one.eigenvalues_, atol=1e-8)
    assert relative(np.abs(other.embedding_), np.abs(one.embedding_)) < 1e-7
    assert relative(other.transform(wide + 1e6), other.embedding_) < 1e-8


@pytest.mark.parametrize("n_features", [3, 40])
def test_float32_far_from_the_origin(n_features, cloud, relative):
    """The rows rounded to float32 are data: the map is that of the same numbers in float64."""
    frame = ortho_group.rvs(40, random_state=0)[:3] if n_features == 40 else np.eye(3)
    X = (cloud @ frame + 1e4).astype(np.float32)
    narrow, wide = fitted(X, KINDS["given"]), fitted(X.astype(np.float64), KINDS["given"])
    assert narrow.embedding_.dtype == np.float32
    assert narrow.transform(X).dtype == np.float32
    assert narrow.eigenvalues_.dtype == np.float64
    np.testing.assert_allclose(narrow.eigenvalues_, wide.eigenvalues_, atol=1e-12)
    assert relative(narrow.embedding_, wide.embedding_) < 4 * np.finfo(np.float32).eps


@pytest.mark.parametrize("kind", KINDS)
def test_rotation(kind, cloud, up_to_sign):
    turn = ortho_group.rvs(3, random_state=1)
    one, other = fitted(cloud, KINDS[kind]), fitted(cloud @ turn, KINDS[kind])
    np.testing.assert_allclose(other.eigenvalues_, one.eigenvalues_, atol=1e-12)
    assert up_to_sign(other.embedding_, one.embedding_) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_permutation(kind, cloud, weights, relative):
    order = np.random.default_rng(2).permutation(150)
    one = DiffusionMap(3, **KINDS[kind]).fit(cloud, sample_weight=weights)
    other = DiffusionMap(3, **KINDS[kind]).fit(cloud[order], sample_weight=weights[order])
    # Not up to sign: the sign does not depend on the order.
    assert relative(other.embedding_, one.embedding_[order]) < 1e-9
    np.testing.assert_allclose(
        other.stationary_distribution_, one.stationary_distribution_[order], rtol=1e-11
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_weight_two_is_two_equal_rows(kind, cloud, relative):
    repeats = np.random.default_rng(3).integers(1, 4, 150)
    one = DiffusionMap(3, **KINDS[kind]).fit(cloud, sample_weight=repeats)
    many = DiffusionMap(3, **KINDS[kind]).fit(np.repeat(cloud, repeats, axis=0))
    first = np.cumsum(repeats) - repeats
    np.testing.assert_allclose(many.eigenvalues_, one.eigenvalues_, atol=1e-13)
    assert relative(many.embedding_[first], one.embedding_) < 1e-10
    np.testing.assert_allclose(
        many.bandwidth_ if np.ndim(many.bandwidth_) == 0 else many.bandwidth_[first],
        one.bandwidth_,
        rtol=1e-13,
    )
    assert many.intrinsic_dimension_ == pytest.approx(one.intrinsic_dimension_, rel=1e-12)
    np.testing.assert_allclose(
        np.add.reduceat(many.stationary_distribution_, first),
        one.stationary_distribution_,
        rtol=1e-11,
    )
    np.testing.assert_array_equal(
        many.embedding_, np.repeat(many.embedding_[first], repeats, axis=0)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_duplicate_in_dense_distances_is_a_weight(kind, cloud, relative):
    repeats = np.random.default_rng(3).integers(1, 4, 150)
    many = np.repeat(cloud, repeats, axis=0)
    a = DiffusionMap(3, metric="precomputed", **KINDS[kind]).fit(cdist(many, many))
    b = DiffusionMap(3, **KINDS[kind]).fit(cloud, sample_weight=repeats)
    first = np.cumsum(repeats) - repeats
    np.testing.assert_allclose(a.eigenvalues_, b.eigenvalues_, atol=1e-11)
    assert relative(np.abs(a.embedding_[first]), np.abs(b.embedding_)) < 1e-8
    assert relative(a.transform(cdist(many, many)), a.embedding_) < 1e-8


@pytest.mark.parametrize("factor", [1e-200, 1e-3, 1e200])
@pytest.mark.parametrize("kind", KINDS)
def test_only_ratios_of_weights_matter(kind, factor, cloud, weights, relative):
    one = DiffusionMap(3, **KINDS[kind]).fit(cloud, sample_weight=weights)
    other = DiffusionMap(3, **KINDS[kind]).fit(cloud, sample_weight=weights * factor)
    assert relative(other.embedding_, one.embedding_) < 1e-10


def test_weights_are_quadrature(reference):
    """Half the density with twice the weight: the same operator, alpha = 1, in the limit."""
    x = np.linspace(0, 1, 401)
    thinned = np.concatenate([x[:200], x[200::2]])
    weight = np.concatenate([np.ones(200), np.full(101, 2.0)])
    one = DiffusionMap(3, bandwidth=0.05).fit(x[:, None])
    other = DiffusionMap(3, bandwidth=0.05).fit(thinned[:, None], sample_weight=weight)
    np.testing.assert_allclose(other.laplacian_eigenvalues_, one.laplacian_eigenvalues_, rtol=0.02)
    unweighted = DiffusionMap(3, bandwidth=0.05, alpha=0.0).fit(thinned[:, None])
    assert abs(unweighted.laplacian_eigenvalues_ / one.laplacian_eigenvalues_ - 1).max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_precomputed_distances_are_rows(kind, cloud, relative):
    D = cdist(cloud, cloud)
    one, other = fitted(cloud, KINDS[kind]), fitted(D, KINDS[kind], metric="precomputed")
    np.testing.assert_allclose(other.eigenvalues_, one.eigenvalues_, atol=1e-12)
    # Signs differ where only the columns of X tell: compare the outer products.
    assert relative(np.abs(other.embedding_), np.abs(one.embedding_)) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_sparse_rows_are_dense_rows(kind, relative):
    S = sp.random(120, 6, density=0.6, random_state=0, format="csr")
    one, other = fitted(S.toarray(), KINDS[kind]), fitted(S, KINDS[kind])
    np.testing.assert_allclose(other.eigenvalues_, one.eigenvalues_, atol=1e-11)
    assert relative(other.embedding_, one.embedding_) < 1e-8
    assert relative(other.transform(S[:9]), one.transform(S[:9].toarray())) < 1e-8
    assert (
        relative(other.inverse_transform(one.embedding_), one.inverse_transform(one.embedding_))
        < 1e-8
    )


@pytest.mark.parametrize(
    "make", [sp.csc_matrix, sp.coo_array, sp.csr_array], ids=lambda m: m.__name__
)
def test_any_sparse_format(make, relative):
    S = sp.random(80, 5, density=0.6, random_state=0, format="csr")
    one, other = fitted(S, KINDS["given"]), fitted(make(S), KINDS["given"])
    assert relative(other.transform(make(S)), one.embedding_) < 1e-10


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_column_does_nothing(kind, cloud, relative):
    one = fitted(cloud, KINDS[kind])
    other = fitted(np.column_stack([np.full(150, 7.0), cloud, np.zeros(150)]), KINDS[kind])
    assert relative(other.embedding_, one.embedding_) < 1e-10


def test_coordinates_do_not_depend_on_the_number_of_rows(relative):
    """Equispaced circles of 200 and 2000 rows at one h agree to 2 % after a rotation."""
    models = []
    for n in (200, 2000):
        angle = 2 * np.pi * np.arange(n) / n
        X = np.column_stack([np.cos(angle), np.sin(angle)])
        models.append(DiffusionMap(2, bandwidth=0.3).fit(X))
    small, large = models[0].embedding_, models[1].embedding_[::10]
    u, _, vt = np.linalg.svd(small.T @ large)
    assert relative(small @ (u @ vt), large) < 0.02
    np.testing.assert_allclose(models[0].eigenvalues_, models[1].eigenvalues_, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_bits(kind, cloud):
    for solver in ("dense", "arpack", "lobpcg"):
        one, other = (
            fitted(cloud, KINDS[kind], eigen_solver=solver, random_state=5) for _ in range(2)
        )
        np.testing.assert_array_equal(one.embedding_, other.embedding_)
        np.testing.assert_array_equal(one.transform(cloud + 0.1), other.transform(cloud + 0.1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickled_fit_and_a_clone_are_the_fit(kind, cloud):
    model = fitted(cloud, KINDS[kind], random_state=0)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.transform(cloud + 0.1), model.transform(cloud + 0.1))
    np.testing.assert_array_equal(
        again.inverse_transform(model.embedding_), model.inverse_transform(model.embedding_)
    )
    np.testing.assert_array_equal(clone(model).fit(cloud).embedding_, model.embedding_)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arguments_are_left_as_they_were(kind, dtype, order, cloud, weights):
    X = np.array(cloud, dtype=dtype, order=order)
    before = X.copy()
    X.setflags(write=False)
    weight = weights.copy()
    weight.setflags(write=False)
    model = DiffusionMap(3, **KINDS[kind]).fit(X, sample_weight=weight)
    model.transform(X)
    np.testing.assert_array_equal(X, before)
    D = cdist(X, X)
    D.setflags(write=False)
    copied = D.copy()
    DiffusionMap(3, metric="precomputed", **KINDS[kind]).fit(D, sample_weight=weight).transform(D)
    np.testing.assert_array_equal(D, copied)


def test_lists_are_left_as_they_were(cloud):
    D = cdist(cloud, cloud)
    L = sp.csr_matrix(np.where(np.sort(D, axis=1)[:, 30:31] >= D, D + (D == 0) * 1e-300, 0))
    L.data[L.data == 1e-300] = 0.0
    before = L.copy()
    DiffusionMap(2, metric="precomputed", bandwidth=0.3).fit(L).transform(L)
    np.testing.assert_array_equal(L.data, before.data)
    np.testing.assert_array_equal(L.indices, before.indices)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
def test_auto_and_score_do_not_depend_on_the_order_of_many_rows():
    """Above 5,000 rows sums over pairs come from a sample of rows."""
    X = np.random.default_rng(0).standard_normal((5200, 2))
    order = np.random.default_rng(1).permutation(len(X))
    held_out = np.random.default_rng(2).standard_normal((50, 2))
    first = DiffusionMap(2, bandwidth="auto", random_state=0).fit(X)
    second = DiffusionMap(2, bandwidth="auto", random_state=0).fit(X[order])
    assert first.bandwidth_ == pytest.approx(second.bandwidth_, rel=1e-9)
    assert first.n_neighbors_ == second.n_neighbors_
    assert first.score(held_out) == pytest.approx(second.score(held_out), rel=1e-9)
