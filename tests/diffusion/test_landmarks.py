"""Landmarks: the map of weighted landmarks, extended to all samples."""

import pickle
import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import KNeighborsTransformer
from threadpoolctl import threadpool_limits

from skdmap import DiffusionMap
from skdmap.datasets import make_sphere, make_swiss_roll, sphere_eigenfunctions
from skdmap.diagnostics import coordinate_gradients, coordinate_summary
from skdmap.diffusion import _landmarks
from skdmap.diffusion._landmarks import (
    choose_landmarks,
    drawn_rows,
    lloyd_steps,
    nearest,
    nearest_landmark,
)
from skdmap.exceptions import BandwidthWarning, ExtrapolationWarning, SkdmapWarning

BLOCK = 2**14
# Landmarks within twice the distance of the nearest: few lead to a tree, many to products.
FEW, MANY = 4.0, 1000.0


@pytest.fixture(scope="module")
def roll():
    return make_swiss_roll(20_000, random_state=0)


@pytest.fixture(scope="module")
def box():
    return np.random.default_rng(0).uniform(-1, 1, (3000, 3)) * [1.6, 1.1, 0.6]


class Lazy:
    """Rows that are read by slices only, and how many were read."""

    def __init__(self, rows, fail_at=None):
        self.rows, self.shape, self.dtype = rows, rows.shape, rows.dtype
        self.n_read, self.fail_at = 0, fail_at

    def __getitem__(self, key):
        block = self.rows[key]
        self.n_read += len(block)
        if self.fail_at is not None and self.n_read > self.fail_at:
            raise KeyboardInterrupt
        return block


# The choice


@pytest.mark.parametrize("n", [5, BLOCK, 3 * BLOCK + 17])
def test_rows_are_drawn_once_each_and_evenly_over_blocks(n):
    size = n // 3
    rows = drawn_rows(n, size, seed=1)
    assert rows.size == size
    assert np.all(np.diff(rows) > 0)
    assert rows[-1] < n
    share = np.bincount(rows // BLOCK, minlength=-(-n // BLOCK))
    expected = size * np.bincount(np.arange(n) // BLOCK) / n
    assert np.abs(share - expected).max() <= 1
    np.testing.assert_array_equal(rows, drawn_rows(n, size, seed=1))
    assert n == 5 or not np.array_equal(rows, drawn_rows(n, size, seed=2))


def test_rows_of_weight_zero_are_never_drawn_and_all_others_are_if_there_are_few():
    weight = np.zeros(2 * BLOCK)
    weight[::7] = 3.0
    np.testing.assert_array_equal(
        drawn_rows(weight.size, weight.size, seed=0, weight=weight), np.flatnonzero(weight)
    )
    assert weight[drawn_rows(weight.size, 50, seed=0, weight=weight)].min() == 3.0


def test_lloyd_steps_end_at_the_means_of_their_samples_and_lower_the_mean_square():
    rng = np.random.default_rng(2)
    samples, weight = 100.0 + rng.uniform(size=(4000, 2)), rng.uniform(0.5, 2.0, 4000)
    chosen = rng.choice(4000, 200, replace=False)
    moved = lloyd_steps(samples, weight, chosen, FEW)

    def mean_square(centres):
        return weight @ np.square(cdist(samples, centres).min(axis=1))

    # Random landmarks have twice the mean square of the best ones in two dimensions.
    assert mean_square(moved) < 0.65 * mean_square(samples[chosen])
    # One centre moves to the mean of all samples, whatever it was.
    (centre,) = lloyd_steps(samples, weight, chosen[:1], FEW)
    np.testing.assert_allclose(centre, np.average(samples, axis=0, weights=weight), rtol=1e-12)


@pytest.mark.parametrize("crowd", [FEW, MANY])
def test_the_nearest_landmark_is_the_nearest_whatever_the_block(crowd):
    rng = np.random.default_rng(3)
    landmarks, Z = 1e4 + rng.standard_normal((300, 4)), 1e4 + rng.standard_normal((500, 4))
    found = nearest(Z, nearest_landmark(landmarks, crowd))
    np.testing.assert_array_equal(found, cdist(Z, landmarks).argmin(axis=1))


def test_ties_between_landmarks_go_to_the_first_one_in_every_block():
    side = np.arange(12) / 10
    landmarks = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    Z = landmarks[:-13] + 0.05  # as far from four landmarks
    search = nearest_landmark(landmarks, MANY)
    whole = nearest(Z, search)
    one_by_one = np.concatenate([nearest(z[None], search) for z in Z])
    np.testing.assert_array_equal(whole, one_by_one)
    near = np.abs(Z[:, None] - landmarks).max(axis=2) < 0.051
    assert np.all(near[np.arange(len(Z)), whole])


@pytest.mark.parametrize("weighted", [False, True])
def test_landmark_weights_are_those_of_the_samples_nearest(box, weighted):
    weight = np.random.default_rng(1).uniform(0, 2, len(box)) if weighted else None
    chosen = choose_landmarks(box, weight, 100, seed=0)
    group = cdist(box, chosen.samples).argmin(axis=1)
    expected = np.bincount(group, weights=weight, minlength=100)
    np.testing.assert_allclose(chosen.weight, expected, rtol=1e-12)
    assert chosen.weight.min() > 0


def test_few_columns_get_lloyd_steps_and_many_dimensions_keep_samples():
    rng = np.random.default_rng(4)
    flat, full = rng.uniform(size=(3000, 2)), rng.standard_normal((3000, 12))
    for X, kept in ((flat, False), (full, True)):
        landmarks = choose_landmarks(X, None, 200, seed=0).samples
        assert bool((cdist(landmarks, X).min(axis=1) == 0).all()) is kept


# The map


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bandwidth": "auto", "n_neighbors": 40},
        {"bandwidth": 0.4, "alpha": 0.5, "n_neighbors": None},
        {"bandwidth": 0.4, "alpha": 0.0, "bandwidth_exponent": -0.5, "n_neighbors": 60},
    ],
)
@pytest.mark.filterwarnings("ignore::skdmap.exceptions.BandwidthWarning")
def test_the_map_is_that_of_the_weighted_landmarks_extended(box, settings):
    weight = np.random.default_rng(5).uniform(0.5, 2.0, len(box))
    mapping = DiffusionMap(3, n_landmarks=400, random_state=0, **settings)
    mapping.fit(box, sample_weight=weight)
    expected = DiffusionMap(3, random_state=0, **settings)
    expected.fit(mapping.landmarks_, sample_weight=mapping.landmark_weights_)
    np.testing.assert_allclose(mapping.eigenvalues_, expected.eigenvalues_, rtol=1e-10)
    np.testing.assert_allclose(mapping.eigenvectors_, expected.eigenvectors_, atol=1e-7)
    np.testing.assert_allclose(mapping.embedding_, expected.transform(box), atol=1e-7)
    np.testing.assert_array_equal(mapping.transform(box), mapping.embedding_)
    Z = mapping.embedding_[:5]
    np.testing.assert_allclose(mapping.inverse_transform(Z), expected.inverse_transform(Z))
    assert mapping.score(box) == pytest.approx(expected.score(box), rel=1e-12)
    assert mapping.embedding_.shape == (len(box), 3)
    assert mapping.landmarks_.shape == (400, 3)
    lengths = {"landmark_weights_", "eigenvectors_", "stationary_distribution_"}
    lengths |= {"component_labels_"} | ({"bandwidth_"} if not settings else set())
    assert {name: len(getattr(mapping, name)) for name in lengths} == dict.fromkeys(lengths, 400)


def test_all_samples_as_landmarks_give_the_map_of_the_samples(box):
    X = box[:400]
    plain = DiffusionMap(3, random_state=0).fit(X)
    assert plain.landmarks_ is None
    mapping = DiffusionMap(3, n_landmarks=400, random_state=0).fit(X)
    np.testing.assert_array_equal(mapping.landmarks_, X)
    np.testing.assert_allclose(mapping.embedding_, plain.embedding_, atol=1e-10)
    np.testing.assert_array_equal(mapping.landmark_weights_, 1.0)


def test_the_kernel_of_landmarks_is_sparse_unless_all_pairs_are_asked_for(box):
    settings = {"n_landmarks": 500, "bandwidth": 0.15, "random_state": 0}
    n_neighbors = DiffusionMap(**settings).fit(box).n_neighbors_
    assert 32 <= n_neighbors < 250
    assert DiffusionMap(n_neighbors=None, **settings).fit(box).n_neighbors_ is None
    # Where 256 neighbours are too few for the bandwidth, a warning says so.
    with pytest.warns(BandwidthWarning, match="cut off at the neighbours' distance"):
        DiffusionMap(**{**settings, "n_landmarks": 1000, "bandwidth": 0.6}).fit(box)


def test_samples_of_weight_zero_have_no_influence_and_get_coordinates(box):
    weight = np.ones(len(box))
    weight[::3] = 0.0
    moved = box.copy()
    moved[::3] *= 0.5
    settings = {"n_landmarks": 300, "bandwidth": 0.3, "random_state": 0}
    first = DiffusionMap(**settings).fit(box, sample_weight=weight)
    second = DiffusionMap(**settings).fit(moved, sample_weight=weight)
    np.testing.assert_array_equal(first.eigenvectors_, second.eigenvectors_)
    np.testing.assert_allclose(first.transform(moved[::3]), second.embedding_[::3], atol=1e-12)
    assert np.isfinite(second.embedding_).all()


def test_a_kernel_of_the_users_own_takes_landmarks(box):
    def kernel(X, Y):
        return rbf_kernel(X, Y, gamma=1 / (2 * 0.4**2))

    own = DiffusionMap(3, kernel=kernel, n_landmarks=300, random_state=0).fit(box)
    gaussian = DiffusionMap(
        3, bandwidth=0.4, n_neighbors=None, n_landmarks=300, random_state=0
    ).fit(box)
    np.testing.assert_allclose(own.embedding_, gaussian.embedding_, atol=1e-8)


# What is known in closed form


def canonical_correlations(first, second):
    bases = [np.linalg.qr(A - A.mean(axis=0))[0] for A in (first, second)]
    return np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)


def test_landmarks_on_a_sphere_have_the_laplacian_and_the_harmonics():
    X = make_sphere(60_000, design="random", random_state=0).X
    mapping = DiffusionMap(8, n_landmarks=1000, bandwidth=0.15, alpha=1.0, random_state=0).fit(X)
    harmonics = sphere_eigenfunctions(X, 8)
    for part, expected in ((slice(0, 3), 2.0), (slice(3, 8), 6.0)):
        np.testing.assert_allclose(mapping.laplacian_eigenvalues_[part], expected, rtol=0.05)
        found = canonical_correlations(mapping.embedding_[:, part], harmonics[:, part])
        assert found.min() > 0.999


@pytest.mark.parametrize(("bandwidth", "least"), [("local", 0.9995), ("auto", 0.998)])
def test_landmarks_on_a_roll_have_its_arc_length(roll, bandwidth, least):
    mapping = DiffusionMap(1, n_landmarks=2000, bandwidth=bandwidth, random_state=0).fit(roll.X)
    wave = np.cos(np.pi * roll.arc_length)
    assert abs(np.corrcoef(mapping.embedding_[:, 0], wave)[0, 1]) > least


# What X may be


@pytest.mark.parametrize(
    "convert",
    [
        pytest.param(lambda X, path: X.tolist(), id="list"),
        pytest.param(lambda X, path: sp.csr_matrix(X), id="sparse"),
        pytest.param(lambda X, path: Lazy(X), id="stored in chunks"),
        pytest.param(lambda X, path: np.load(path, mmap_mode="r"), id="memory map"),
    ],
)
def test_forms_of_the_same_samples_give_the_same_map(convert, tmp_path):
    X = np.random.default_rng(6).integers(0, 40, (1500, 2)) / 8
    np.save(tmp_path / "rows.npy", X)
    # So few landmarks on a lattice are samples: a sparse matrix has no Lloyd steps.
    settings = {"n_landmarks": len(np.unique(X, axis=0)), "random_state": 0, "n_neighbors": 20}
    expected = DiffusionMap(2, **settings).fit(X)
    mapping = DiffusionMap(2, **settings).fit(convert(X, tmp_path / "rows.npy"))
    np.testing.assert_allclose(mapping.embedding_, expected.embedding_, atol=1e-8)
    np.testing.assert_array_equal(mapping.landmark_weights_, expected.landmark_weights_)
    assert pickle.loads(pickle.dumps(mapping)).transform(X[:9]) == pytest.approx(
        expected.embedding_[:9], abs=1e-8
    )


def test_single_precision_stays_and_integers_are_converted_block_by_block(box):
    X = np.round(box * 100)
    single = DiffusionMap(n_landmarks=200, random_state=0).fit(X.astype(np.float32))
    assert single.embedding_.dtype == single.landmarks_.dtype == np.float32
    settings = {"n_landmarks": 200, "random_state": 0}
    whole = DiffusionMap(**settings).fit(X.astype(np.int16))
    assert whole.embedding_.dtype == np.float64
    np.testing.assert_array_equal(whole.embedding_, DiffusionMap(**settings).fit(X).embedding_)


def test_x_is_read_twice_after_the_draw_and_not_kept(box):
    X = np.tile(box, (20, 1)) + np.random.default_rng(7).normal(0, 0.01, (60_000, 3))
    lazy = Lazy(X)
    mapping = DiffusionMap(n_landmarks=200, random_state=0).fit(lazy)
    assert lazy.n_read == 3 * len(X)  # one of them to draw rows, where rows cannot be picked
    assert len(pickle.dumps(mapping)) < mapping.embedding_.nbytes + 1_000_000


def test_memory_beside_the_embedding_does_not_grow_with_the_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(_landmarks, "_PASS_ROWS", 2**12)
    peaks = []
    for n in (20_000, 60_000):
        path = tmp_path / f"{n}.npy"
        along = np.random.default_rng(8).uniform(0, 3, (n, 1))
        X = np.cos(along + np.arange(14) / 5).astype(np.float32)
        np.save(path, X)
        del X
        rows = np.load(path, mmap_mode="r")
        with threadpool_limits(1):  # what threads hold at once varies
            tracemalloc.start()
            mapping = DiffusionMap(n_landmarks=100, random_state=0).fit(rows)
            peaks.append(tracemalloc.get_traced_memory()[1] - mapping.embedding_.nbytes)
            tracemalloc.stop()
    assert peaks[1] < peaks[0] + 500_000  # 40,000 more samples are 2.2 MB


def test_a_frame_and_names_of_coordinates(box):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(box, columns=list("abc"))
    mapping = DiffusionMap(2, n_landmarks=100, random_state=0).set_output(transform="pandas")
    out = mapping.fit_transform(frame)
    assert list(out.columns) == list(mapping.get_feature_names_out())
    assert list(mapping.feature_names_in_) == ["a", "b", "c"]
    np.testing.assert_array_equal(out.to_numpy(), mapping.embedding_)


def test_diagnostics_of_the_map_take_its_landmarks(roll):
    mapping = DiffusionMap(6, n_landmarks=1000, random_state=0).fit(roll.X)
    assert coordinate_summary(mapping).words[:2] == ("new direction", "function of 0")
    with pytest.raises(ValueError, match="pass its landmarks_ as X"):
        coordinate_gradients(mapping, roll.X)
    assert coordinate_gradients(mapping, mapping.landmarks_).explained[0] > 0.9


# Interrupts, progress, errors


def test_an_interrupted_fit_leaves_the_map_before_it(box):
    mapping = DiffusionMap(n_landmarks=100, random_state=0).fit(box)
    before = mapping.embedding_.copy()
    # In the last pass.
    with pytest.raises(KeyboardInterrupt):
        mapping.fit(Lazy(box[:2000], fail_at=3 * 2000 - 1))
    np.testing.assert_array_equal(mapping.embedding_, before)
    assert mapping.landmark_weights_.sum() == len(box)


def test_long_passes_show_their_progress(box, capsys):
    DiffusionMap(n_landmarks=100, random_state=0, verbose=1).fit(box)
    written = capsys.readouterr().err
    assert "landmark weights: 3000 of 3000 samples" in written
    assert "coordinates: 3000 of 3000 samples" in written


def test_a_sample_far_from_all_landmarks_is_named(box, monkeypatch):
    monkeypatch.setattr(_landmarks, "_PASS_ROWS", 1000)
    X = box.copy()
    X[1234] = 50.0
    weight = np.ones(len(X))
    weight[1234] = 0.0  # so that it cannot be a landmark
    mapping = DiffusionMap(n_landmarks=200, bandwidth=0.3, random_state=0)
    with pytest.warns(ExtrapolationWarning, match="X: 1 of 3000 samples .* sample 1234"):
        mapping.fit(X, sample_weight=weight)


def test_warnings_of_the_map_name_landmarks(box):
    X = np.concatenate([box, box[:2000] + 20.0])
    with pytest.warns(SkdmapWarning, match="2 connected components, of 31., 18. landmarks"):
        mapping = DiffusionMap(n_landmarks=500, random_state=0).fit(X)
    side = mapping.embedding_[:, 0] > 0
    assert side[:3000].all() != side[3000:].all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_landmarks": 1}, "n_landmarks.*>= 2|n_landmarks.*\\[2"),
        ({"n_landmarks": 2.5}, "n_landmarks"),
        ({"n_landmarks": 2}, "n_components=2 must be below n_landmarks=2"),
        ({"metric": "manhattan"}, "metric='manhattan' must be 'euclidean' with n_landmarks=50"),
        ({"metric": "precomputed"}, "metric='precomputed' must be 'euclidean'"),
        ({"metric": "nan_euclidean"}, "metric='nan_euclidean' must be 'euclidean'"),
        ({"metric": "minkowski", "metric_params": {"p": 3}}, "metric='minkowski' with metric_par"),
        ({"kernel": "precomputed"}, "kernel='precomputed' must be 'gaussian' or a function with"),
        (
            {"neighbors_algorithm": KNeighborsTransformer(metric="manhattan")},
            "must have the Euclidean metric with n_landmarks=50",
        ),
    ],
)
def test_what_landmarks_cannot_do_is_an_error_before_any_work(box, settings, message):
    mapping = DiffusionMap(**{"n_landmarks": 50, **settings})
    lazy = Lazy(box)
    with pytest.raises(ValueError, match=message):
        mapping.fit(lazy)
    assert lazy.n_read == 0


def test_more_landmarks_than_samples_are_as_many_with_a_warning(box):
    X = np.concatenate([box[:100], box[:50]])
    with pytest.warns(SkdmapWarning, match="n_landmarks=200 is above .*, 100 among 150; 100 are"):
        mapping = DiffusionMap(n_landmarks=200, random_state=0).fit(X)
    assert mapping.landmarks_.shape == (100, 3)
    assert sorted(mapping.landmark_weights_) == [1.0] * 50 + [2.0] * 50


@pytest.mark.parametrize(
    ("value", "kind"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")]
)
def test_an_entry_that_is_not_finite_is_named_by_row_and_column(box, value, kind):
    X = box.copy()
    X[2345, 1] = value
    with pytest.raises(ValueError, match=f"{kind}, in row 2345, column 1"):
        DiffusionMap(n_landmarks=50, random_state=0).fit(X)
    with pytest.raises(ValueError, match=f"{kind}, in row 2345, column 1"):
        DiffusionMap(n_landmarks=50, random_state=0).fit(sp.csr_matrix(X))


def test_constant_samples_are_an_error():
    with pytest.raises(ValueError, match="n_samples = 30, but only 1 distinct sample"):
        DiffusionMap(n_landmarks=5).fit(np.ones((30, 2)))
