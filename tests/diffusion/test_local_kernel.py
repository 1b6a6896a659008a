"""bandwidth="local": the self-tuning kernel of samples and lists, with weights and small groups.

tests/fuzz/test_diffusion_map_against_dense.py compares it with its definition.
"""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist
from sklearn import datasets
from sklearn.neighbors import KNeighborsTransformer, kneighbors_graph
from sklearn.preprocessing import StandardScaler

from skdmap import DiffusionMap
from skdmap.datasets import make_s_curve, make_swiss_roll
from skdmap.exceptions import (
    BandwidthWarning,
    DisconnectedGraphWarning,
    ExtrapolationWarning,
    LocalizedCoordinateWarning,
)

quiet = pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")


def local(n_components=2, **settings):
    return DiffusionMap(n_components, bandwidth="local", **settings)


def dense_kernel(X, n_neighbors, weight=None):
    """h, r and k of distinct samples without ties, all bounds wide enough."""
    D = cdist(X, X)
    ordered = np.sort(D, axis=1)
    h = ordered[:, min(7, n_neighbors)]
    r = ordered[:, n_neighbors]
    R, hh = np.maximum(r[:, None], r), np.outer(h, h)
    k = np.exp(-(D**2) / (2 * hh)) - np.exp(-(R**2) / (2 * hh))
    return h, r, np.where(D < R, k, 0.0)


# ---------------------------------------------------------------- the definition


@pytest.mark.parametrize("n_neighbors", [3, 7, 15])
def test_eigenpairs_are_those_of_the_kernels_own_markov_operator(n_neighbors, cloud, up_to_sign):
    model = local(3, n_neighbors=n_neighbors).fit(cloud)
    h, _, k = dense_kernel(cloud, n_neighbors)
    K = k / np.outer(k.mean(axis=1), k.mean(axis=1))
    P = K / K.sum(axis=1, keepdims=True)
    values, vectors = np.linalg.eig(P)
    order = np.argsort(-values.real)[1:4]
    np.testing.assert_allclose(model.eigenvalues_, values.real[order], atol=1e-12)
    psi = vectors[:, order].real
    pi = K.sum(axis=1) / K.sum()
    psi /= np.sqrt(pi @ psi**2)
    assert up_to_sign(model.eigenvectors_, psi) < 1e-9
    np.testing.assert_allclose(model.stationary_distribution_, pi, rtol=1e-11)
    np.testing.assert_allclose(model.bandwidth_, h, rtol=1e-12)


def test_over_all_pairs_nothing_is_subtracted(cloud, up_to_sign):
    model = local(2, n_neighbors=None).fit(cloud)
    D = cdist(cloud, cloud)
    h = np.sort(D, axis=1)[:, 7]
    k = np.exp(-(D**2) / (2 * np.outer(h, h)))
    K = k / np.outer(k.mean(axis=1), k.mean(axis=1))
    values = np.sort(np.linalg.eigvals(K / K.sum(axis=1, keepdims=True)).real)[::-1]
    np.testing.assert_allclose(model.eigenvalues_, values[1:3], atol=1e-12)
    assert model.n_neighbors_ is None


def test_attributes(cloud):
    model = local().fit(cloud)
    h, r, k = dense_kernel(cloud, 15)
    assert model.n_neighbors_ == 15
    assert model.bandwidth_curve_ is None
    assert isinstance(model.epsilon_, float)
    assert model.epsilon_ == pytest.approx((h**2).mean() / 2, rel=1e-12)
    np.testing.assert_array_equal(
        model.laplacian_eigenvalues_, (1 - model.eigenvalues_) / model.epsilon_
    )
    D = cdist(cloud, cloud)
    inner = (D > 0) & (r[:, None] > D)
    logs = np.log(np.broadcast_to(r[:, None], D.shape)[inner] / D[inner])
    assert model.intrinsic_dimension_ == pytest.approx(13 / 14 / logs.mean(), rel=1e-12)
    assert k.max() > 0


@pytest.mark.parametrize(("n", "found"), [(12, 11), (16, 15), (17, 15)])
def test_auto_is_fifteen_neighbours_or_all(n, found, cloud):
    model = local(1).fit(cloud[:n])
    assert model.n_neighbors_ == found


def test_more_neighbours_than_samples_are_clipped_with_a_warning(cloud):
    with pytest.warns(BandwidthWarning, match="n_neighbors=40 must be below .* 30; 29 is used"):
        model = local(1, n_neighbors=40).fit(cloud[:30])
    whole = local(1, n_neighbors=None).fit(cloud[:30])
    np.testing.assert_allclose(model.embedding_, whole.embedding_, atol=1e-12)


@quiet
def test_lengths_keep_within_a_factor_of_their_weighted_median():
    """Twenty times the smallest length whose cumulative weight reaches one half."""
    rng = np.random.default_rng(0)
    tight = 1e-6 * rng.standard_normal((60, 2)) + 5
    X = np.vstack([rng.uniform(size=(100, 2)), tight])
    weight = np.concatenate([np.full(100, 2.0), np.full(60, 1.0)])
    model = local(n_neighbors=None).fit(X, sample_weight=weight)
    h = np.sort(cdist(X, X), axis=1)[:, 7]
    order = np.argsort(h)
    total = np.cumsum(weight[order])
    median = h[order][np.argmax(total >= total[-1] / 2)]
    np.testing.assert_allclose(model.bandwidth_, np.clip(h, median / 20, 20 * median), rtol=1e-12)
    assert (model.bandwidth_ <= median / 20 * (1 + 1e-12)).sum() == 60


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.filterwarnings("ignore:alpha:skdmap.exceptions.BandwidthWarning")
def test_on_a_curve_the_walk_is_uniform_in_rank_for_every_alpha(alpha):
    """c h^2 / 2 (f'' - (log q)' f') with h ~ 1 / q is d^2 / du^2 of the cumulative density u."""
    rank = (np.arange(900) + 0.5) / 900
    angle = 2 * np.pi * rank + 0.6 * np.sin(2 * np.pi * rank)
    X = np.column_stack([np.cos(angle), np.sin(angle)])
    model = local(2, alpha=alpha).fit(X)
    waves = np.column_stack([np.cos(2 * np.pi * rank), np.sin(2 * np.pi * rank)])
    solution, *_ = np.linalg.lstsq(model.eigenvectors_, waves, rcond=None)
    left = waves - model.eigenvectors_ @ solution
    assert np.abs(left).max() < 0.02


@pytest.mark.parametrize(("n_columns", "low", "high"), [(1, 0.85, 1.05), (2, 1.7, 2.05)])
def test_dimension_of_a_cube(n_columns, low, high):
    X = np.random.default_rng(0).uniform(size=(3000, n_columns))
    assert low < local().fit(X).intrinsic_dimension_ < high


# ---------------------------------------------------------------- refusals and warnings


def test_an_exponent_is_refused_with_the_way_out(cloud):
    with pytest.raises(ValueError, match=r"bandwidth_exponent=-0\.5 must be 0 .*bandwidth='auto'"):
        local(bandwidth_exponent=-0.5).fit(cloud)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_alpha_other_than_one_warns_and_names_the_way_out(alpha, cloud):
    with pytest.warns(BandwidthWarning, match=rf"alpha={alpha} .*bandwidth='auto'"):
        local(alpha=alpha).fit(cloud)


STANDARD = ("wine", "breast_cancer")


def table(name):
    if name == "s-curve":
        return make_s_curve(1000, random_state=0).X
    if name == "swiss roll":
        return make_swiss_roll(1000, random_state=0).X
    if name == "moons":
        return datasets.make_moons(300, noise=0.05, random_state=0)[0]
    if name == "circles":
        return datasets.make_circles(300, noise=0.05, factor=0.5, random_state=0)[0]
    X = getattr(datasets, f"load_{name}")().data
    return StandardScaler().fit_transform(X) if name in STANDARD else X


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(
    "name", ["wine", "breast_cancer", "digits", "diabetes", "s-curve", "swiss roll"]
)
def test_no_warning_on_usual_tables(name, raw):
    X = getattr(datasets, f"load_{name}")().data if raw and name in STANDARD else table(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        local().fit(X)


@pytest.mark.parametrize("name", ["iris", "moons", "circles"])
def test_components_at_most_are_warned_of(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DisconnectedGraphWarning)
        local().fit(table(name))


# ---------------------------------------------------------------- new samples


def one_hot(rng):
    return np.eye(9)[rng.integers(9, size=250)] + np.eye(9)[rng.integers(9, size=250)]


def far_clusters(rng):
    return np.vstack([rng.standard_normal((80, 3)) + shift for shift in (0, 1e3, 1e6)])


def ring(rng):
    angle = 2 * np.pi * np.arange(200) / 200
    return np.column_stack([np.cos(angle), np.sin(angle)])


SETS = {
    "iris": lambda rng: datasets.load_iris().data,
    "wine": lambda rng: datasets.load_wine().data,
    "cancer": lambda rng: datasets.load_breast_cancer().data,
    "diabetes": lambda rng: datasets.load_diabetes().data,
    "digits": lambda rng: datasets.load_digits().data,
    "linnerud": lambda rng: datasets.load_linnerud().data,
    "blobs": lambda rng: datasets.make_blobs(300, random_state=0)[0],
    "moons": lambda rng: datasets.make_moons(300, noise=0.1, random_state=0)[0],
    "circles": lambda rng: datasets.make_circles(300, noise=0.05, random_state=0)[0],
    "friedman": lambda rng: datasets.make_friedman1(300, random_state=0)[0],
    "swiss roll": lambda rng: datasets.make_swiss_roll(500, random_state=0)[0],
    "one-hot": one_hot,
    "binary": lambda rng: (rng.random((300, 12)) < 0.4).astype(float),
    "ordinal": lambda rng: rng.integers(0, 5, size=(400, 4)).astype(float),
    "lattice": lambda rng: np.argwhere(np.ones((18, 18))).astype(float),
    "even ring": ring,
    "far outlier": lambda rng: np.vstack([rng.standard_normal((200, 3)), [[1e7, 0, 0]]]),
    "far clusters": far_clusters,
    "duplicates": lambda rng: np.repeat(rng.standard_normal((120, 2)), 3, axis=0),
    "wide": lambda rng: rng.standard_normal((200, 3)) @ rng.standard_normal((3, 2**14)),
    "sparse": lambda rng: sp.random(200, 40, density=0.2, format="csr", random_state=0),
    "heavy tails": lambda rng: rng.standard_t(1.5, size=(300, 2)),
}


@quiet
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", SETS)
def test_training_samples_as_new_ones_get_their_coordinates(name, weighted):
    rng = np.random.default_rng(0)
    X = SETS[name](rng)
    weight = None
    if weighted:
        weight = rng.integers(0, 4, size=X.shape[0]).astype(float)
    n_components = min(5, X.shape[0] // 4)
    model = local(n_components, random_state=0).fit(X, sample_weight=weight)
    known = np.abs(model.eigenvalues_) > 1e-6
    scale = np.abs(model.embedding_[:, known]).max()
    found = model.transform(X)[:, known]
    np.testing.assert_allclose(found, model.embedding_[:, known], rtol=1e-8, atol=1e-8 * scale)
    some = [0, X.shape[0] // 2, X.shape[0] - 1]
    for row in some:
        alone = model.transform(X[[row]])[:, known]
        np.testing.assert_allclose(alone, found[[row]], rtol=1e-9, atol=1e-9 * scale)


@quiet
@pytest.mark.parametrize(
    "algorithm",
    [
        pytest.param("pynndescent", marks=pytest.mark.slow),  # compiles for half a minute
        KNeighborsTransformer(n_neighbors=15),
    ],
)
def test_approximate_neighbours_give_training_samples_back(algorithm, relative):
    if algorithm == "pynndescent":
        pytest.importorskip("pynndescent")
    X = datasets.load_digits().data[:600]
    model = local(4, neighbors_algorithm=algorithm, random_state=0).fit(X)
    assert relative(model.transform(X), model.embedding_) < 1e-8
    exact = local(4, neighbors_algorithm="exact").fit(X)
    np.testing.assert_allclose(model.eigenvalues_, exact.eigenvalues_, atol=1e-3)


def test_symmetric_lists_give_training_samples_back(cloud, relative):
    lists = kneighbors_graph(cloud, 15, mode="distance")
    lists = lists.maximum(lists.T).tocsr()
    own = (lists + sp.diags(np.full(len(cloud), 5e-324))).tocsr()
    model = local(4, metric="precomputed").fit(own)
    assert relative(model.transform(own), model.embedding_) < 1e-8


def test_lists_that_name_every_pair_are_all_pairs(cloud):
    whole = sp.csr_matrix(np.maximum(cdist(cloud, cloud), 5e-324))
    model = local(3, metric="precomputed").fit(whole)
    dense = local(3, metric="precomputed", n_neighbors=None).fit(cdist(cloud, cloud))
    np.testing.assert_allclose(model.eigenvalues_, dense.eigenvalues_, atol=1e-12)


def test_dense_distances_are_cut_as_samples_are(cloud, up_to_sign):
    from_distances = local(3, metric="precomputed").fit(cdist(cloud, cloud))
    from_samples = local(3).fit(cloud)
    assert from_distances.n_neighbors_ == 15
    assert up_to_sign(from_distances.embedding_, from_samples.embedding_) < 1e-9


@pytest.mark.parametrize("distance", [100.0, 1e4, 1e7, 1e12])
def test_far_samples_go_to_one_of_the_nearest(distance, cloud, relative):
    model = local(2).fit(cloud)
    far = distance * np.array([[1.0, 0.2, 0.0], [-0.3, -1.0, 0.4]])
    with pytest.warns(ExtrapolationWarning, match="2 of 2 samples"):
        found = model.transform(far)
    D = cdist(far, cloud)
    for row, own in zip(found, D, strict=True):
        nearest = np.argsort(own)[:16]
        best = nearest[np.argmin(own[nearest] ** 2 / model.bandwidth_[nearest])]
        errors = np.abs(model.eigenvectors_[nearest] - row).max(axis=1)
        assert errors.min() < 1e-4 * np.abs(row).max()
        assert distance > 1e10 or nearest[errors.argmin()] == best


# ---------------------------------------------------------------- weights and small groups


@quiet
@pytest.mark.parametrize("n_neighbors", [None, 5, "auto"])
def test_weight_two_is_two_samples(n_neighbors, cloud, up_to_sign):
    weight = np.where(np.arange(len(cloud)) % 3 == 0, 2.0, 1.0)
    weighted = local(4, n_neighbors=n_neighbors).fit(cloud, sample_weight=weight)
    doubled = np.vstack([cloud, cloud[weight == 2]])
    twice = local(4, n_neighbors=n_neighbors).fit(doubled)
    np.testing.assert_allclose(weighted.eigenvalues_, twice.eigenvalues_, atol=1e-11)
    assert up_to_sign(weighted.embedding_, twice.embedding_[: len(cloud)]) < 1e-9
    np.testing.assert_allclose(weighted.bandwidth_, twice.bandwidth_[: len(cloud)], rtol=1e-12)
    assert weighted.epsilon_ == pytest.approx(twice.epsilon_, rel=1e-12)
    assert weighted.intrinsic_dimension_ == pytest.approx(twice.intrinsic_dimension_, rel=1e-12)
    assert weighted.score(cloud) == pytest.approx(twice.score(cloud), rel=1e-12)


def test_a_sample_of_weight_zero_takes_no_part(cloud):
    """Not in neighbour counts, bounds or sums; its length is that of a new sample."""
    extra = np.vstack([cloud, cloud[:5] + 1e-3, [[40.0, 0, 0]]])
    weight = np.concatenate([np.ones(len(cloud)), np.zeros(6)])
    with_zeros = local(3).fit(extra, sample_weight=weight)
    plain = local(3).fit(cloud)
    np.testing.assert_allclose(with_zeros.embedding_[: len(cloud)], plain.embedding_, atol=1e-12)
    near = np.sort(cdist(extra[len(cloud) :], cloud), axis=1)[:, 7]
    bound = 20 * np.sort(plain.bandwidth_)[74]
    np.testing.assert_allclose(
        with_zeros.bandwidth_[len(cloud) :], np.minimum(near, bound), rtol=1e-12
    )
    assert (with_zeros.stationary_distribution_[len(cloud) :] == 0).all()


def cloud_and_groups():
    """A cloud, and groups of four and of five samples far off."""
    rng = np.random.default_rng(3)
    groups = [rng.uniform(size=(150, 2))]
    for shift, size in [(1e4, 4), (1e8, 5)]:
        groups.append(rng.uniform(size=(size, 2)) + shift)
    return np.vstack(groups)


@pytest.mark.parametrize("n_neighbors", [None, "auto"])
@pytest.mark.parametrize("given", ["samples", "distances", "lists"])
def test_small_components_are_left_out_until_none_is_left(n_neighbors, given):
    """As if they had weight 0 from the start."""
    X = cloud_and_groups()
    settings, data = {"n_neighbors": n_neighbors}, X
    if given == "distances":
        settings["metric"], data = "precomputed", cdist(X, X)
    elif given == "lists":
        settings["metric"], k = "precomputed", 15 if n_neighbors else len(X) - 2
        data = KNeighborsTransformer(mode="distance", n_neighbors=k).fit_transform(X)
    with pytest.warns(DisconnectedGraphWarning, match=r"9 sample\(s\) .*samples 150, 151"):
        model = local(3, **settings).fit(data)
    weight = np.where(np.arange(len(X)) < 150, 1.0, 0.0)
    plain = local(3, **settings).fit(data, sample_weight=weight)
    np.testing.assert_allclose(model.embedding_, plain.embedding_, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(model.bandwidth_, plain.bandwidth_, rtol=1e-12)
    assert model.epsilon_ == pytest.approx(plain.epsilon_, rel=1e-12)
    assert model.n_connected_components_ == 1
    assert (model.component_labels_ == np.where(weight > 0, 0, -1)).all()
    if given == "samples":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolationWarning)
            np.testing.assert_allclose(model.transform(X), model.embedding_, atol=1e-9)


def test_leaving_out_a_group_may_disconnect_another(cloud):
    """Where lists end in the first group: at its own radius a pair weighs nothing."""
    lists = np.zeros((159, 159))
    lists[:150, :150] = kneighbors_graph(cloud, 15, mode="distance").toarray()
    second, first = np.arange(150, 155), np.arange(155, 159)
    for group in (first, second):
        lists[np.ix_(group, group)] = 1.0 + 0.1 * np.abs(group[:, None] - group)
    lists[second, 0], lists[second, first[0]] = 10.0, 12.0
    np.fill_diagonal(lists, 0.0)
    given = sp.csr_matrix(lists)
    with pytest.warns(DisconnectedGraphWarning, match=r"^9 sample\(s\)"):
        model = local(2, metric="precomputed").fit(given)
    inside = local(2, metric="precomputed").fit(given[:150, :150])
    np.testing.assert_allclose(model.embedding_[:150], inside.embedding_, atol=1e-9)
    # With the first group alone of weight 0 the second is the only one to go.
    weight = np.where(np.isin(np.arange(159), first), 0.0, 1.0)
    with pytest.warns(DisconnectedGraphWarning, match=r"^5 sample\(s\)"):
        local(2, metric="precomputed").fit(given, sample_weight=weight)


def test_groups_of_ten_are_components(cloud):
    X = np.vstack([cloud, cloud[:10] + 1e5])
    with pytest.warns(DisconnectedGraphWarning, match="2 connected components, of 150, 10"):
        model = local(2).fit(X)
    assert model.eigenvalues_[0] == 1.0
    assert (model.component_labels_[150:] == 1).all()


def test_small_groups_of_much_weight_stay(cloud):
    X = np.vstack([cloud, cloud[:9] + 1e5])
    weight = np.concatenate([np.ones(150), np.full(9, 3.0)])
    with pytest.warns(DisconnectedGraphWarning, match="2 connected components, of 150, 9"):
        model = local(2).fit(X, sample_weight=weight)
    assert model.n_connected_components_ == 2


def test_raise_refuses_small_groups_too(cloud):
    with pytest.raises(ValueError, match=r"disconnected='raise'.*Raise n_neighbors"):
        local(2, disconnected="raise").fit(np.vstack([cloud, cloud[:3] + 1e5]))


def test_samples_are_connected_where_the_kernel_is_positive():
    """All pairs: as far as the Gaussian is no zero in double precision."""
    rng = np.random.default_rng(0)
    X = np.vstack([rng.uniform(size=(60, 2)), rng.uniform(size=(60, 2)) + np.array([10, 0])])
    h = np.sort(cdist(X, X), axis=1)[:, 7]
    k = np.exp(-(cdist(X, X) ** 2) / (2 * np.outer(h, h)))[:60, 60:]
    assert 0 < k.max() < 1e-100
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert local(1, n_neighbors=None).fit(X).n_connected_components_ == 1


# ---------------------------------------------------------------- what it is for


@pytest.mark.parametrize(("n_samples", "noise"), [(600, 0.0), (600, 0.5)])
def test_swiss_rolls_are_unrolled(n_samples, noise):
    check_rolls(n_samples, noise)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("n_samples", [800, 1000, 1400, 2000])
def test_larger_swiss_rolls_are_unrolled(n_samples, noise):
    check_rolls(n_samples, noise)


def check_rolls(n_samples, noise):
    found = []
    for seed in range(10):
        roll = make_swiss_roll(n_samples, noise=noise, random_state=seed)
        first = local(1).fit(roll.X).embedding_[:, 0]
        found.append(abs(np.corrcoef(first, np.cos(np.pi * roll.arc_length))[0, 1]))
    assert np.median(found) >= 0.98
    assert min(found) >= 0.94


# ---------------------------------------------------------------- what warnings name and advise


def test_the_warning_of_components_counts_all_equal_samples():
    """As many as component_labels_ has: equal samples are one in the fit, not in X."""
    rng = np.random.default_rng(0)
    near = [rng.standard_normal((60, 2)) + shift for shift in (0.0, 1e3)]
    X = np.vstack([near[0], near[1][:30], near[0][:8], np.full((3, 2), -1e4)])
    with pytest.warns(DisconnectedGraphWarning) as caught:
        model = local().fit(X)
    assert np.bincount(model.component_labels_ + 1).tolist() == [3, 68, 30]
    message = str(caught[0].message)
    assert "2 connected components, of 68, 30 samples" in message
    assert "3 sample(s) in components" in message
    assert "samples 98, 99, 100." in message


def test_over_all_pairs_no_warning_advises_more_neighbours():
    X = np.vstack([cloud_and_groups()[:150], cloud_and_groups()[:20] + 1e3])
    with pytest.warns(DisconnectedGraphWarning, match="Set bandwidth to 'auto' or a larger"):
        local(n_neighbors=None).fit(X)
    with pytest.warns(DisconnectedGraphWarning, match="Raise n_neighbors or set bandwidth="):
        local(n_neighbors=5).fit(X)


@pytest.mark.parametrize("times", [1, 3])
def test_weight_zero_for_weakly_connected_samples_and_their_equals_ends_the_warning(times):
    X = np.vstack([np.random.default_rng(0).standard_normal((200, 2)), [[9.0, 0.0]]])
    X = np.repeat(X, times, axis=0)
    with pytest.warns(LocalizedCoordinateWarning) as caught:
        local().fit(X)
    message = str(caught[0].message)
    assert f"sample {200 * times})" in message
    assert ("all samples equal to them, the sample_weight 0" in message) == (times > 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        local().fit(X, sample_weight=np.any(X[-1] != X, axis=1))


@pytest.mark.parametrize("n", [20, 25, 30])
def test_few_samples_of_one_cloud_rarely_warn_and_one_far_sample_among_them_does(n):
    clouds = [np.random.default_rng(seed).standard_normal((n, 3)) for seed in range(20)]
    assert sum(warns_of_weak_samples(X) for X in clouds) <= 3
    far = [np.vstack([X[:-1], [[9.0, 0, 0]]]) for X in clouds]
    assert sum(warns_of_weak_samples(X) for X in far) >= 17


def warns_of_weak_samples(X):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        local().fit(X)
    return any(item.category is LocalizedCoordinateWarning for item in caught)
