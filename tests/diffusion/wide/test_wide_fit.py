"""A map of wide samples is that of the same samples in few columns."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist
from scipy.special import ive

from skdmap import DiffusionMap
from skdmap.diffusion._wide.column_reader import WIDE, WideRows
from skdmap.diffusion._wide.distances import cross_distances, find_pivots, own_distances
from skdmap.exceptions import ExtrapolationWarning

N_COLUMNS = WIDE + 37


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_entry_that_is_not_finite_is_found_in_the_one_pass_and_named(value, walk):
    X = walk(60, N_COLUMNS)
    spans = find_pivots(WideRows(X)).spans
    column = next(c for c in range(9000, N_COLUMNS) if not any(a <= c < b for a, b in spans))
    right = X[33, column]
    X[33, column] = value
    kind = "NaN" if np.isnan(value) else "infinity"
    with pytest.raises(ValueError, match=rf"Input X contains {kind}, in row 33, column {column}"):
        DiffusionMap().fit(X)
    X[33, column] = right
    fitted = DiffusionMap(n_neighbors=None, bandwidth=0.02).fit(X)
    new = X[:20].copy()
    new[4, column] = value
    with pytest.raises(ValueError, match=rf"Input X contains {kind}, in row 4, column {column}"):
        fitted.transform(new)


@pytest.mark.parametrize("n_neighbors", [None, 40])
def test_a_fit_on_wide_rows_is_the_fit_on_narrow_rows(narrow, n_neighbors, up_to_sign):
    rows, wide = narrow
    settings = {"n_components": 3, "bandwidth": 0.1, "n_neighbors": n_neighbors}
    one, other = DiffusionMap(**settings).fit(rows), DiffusionMap(**settings).fit(wide)
    np.testing.assert_allclose(other.eigenvalues_, one.eigenvalues_, rtol=1e-8)
    assert up_to_sign(other.embedding_, one.embedding_) < 1e-6
    assert other.n_features_in_ == N_COLUMNS
    np.testing.assert_allclose(other.transform(wide[::7]), other.embedding_[::7], rtol=1e-6)
    # The dimension of the score comes from a sample of the rows, not of the same ones.
    np.testing.assert_allclose(other.score(wide[::9]), one.score(rows[::9]), rtol=2e-2)
    # Coordinates give the narrow rows back, and so the wide ones.
    back, wanted = other.inverse_transform(other.embedding_[:5]), one.inverse_transform
    basis = np.linalg.lstsq(rows, wide - 1.0, rcond=None)[0]
    flip = np.sign((one.embedding_ * other.embedding_).sum(axis=0))
    np.testing.assert_allclose(back, wanted(flip * other.embedding_[:5]) @ basis + 1.0, atol=1e-5)


@pytest.mark.parametrize("bandwidth", ["auto", "median", "local"])
def test_bandwidths_are_those_of_the_narrow_rows(narrow, bandwidth):
    one, other = (DiffusionMap(bandwidth=bandwidth).fit(X).bandwidth_ for X in narrow)
    np.testing.assert_allclose(other, one, rtol=1e-7)


def test_slices_memory_map_and_array_give_the_same_map(narrow, tmp_path, Slices):
    wide = narrow[1].astype(np.float32)
    np.save(tmp_path / "rows.npy", wide)
    sources = [wide, np.load(tmp_path / "rows.npy", mmap_mode="r"), Slices(wide)]
    embeddings = [DiffusionMap(bandwidth=0.1).fit(X).embedding_ for X in sources]
    assert embeddings[0].dtype == np.float32
    # Spans that are looked at, and so groups, may differ between sources.
    np.testing.assert_allclose(embeddings[1], embeddings[0], atol=1e-4)
    np.testing.assert_allclose(embeddings[2], embeddings[0], atol=1e-4)


def test_equal_rows_are_merged_and_rows_of_weight_zero_are_extended(narrow):
    wide = narrow[1].astype(np.float32)
    weight = np.ones(300)
    weight[10], weight[20] = 2.0, 0.0
    settings = {"bandwidth": 0.1, "random_state": 0}
    one = DiffusionMap(**settings).fit(wide, sample_weight=weight)
    repeated = np.concatenate([wide, wide[[10]]])
    other = DiffusionMap(**settings).fit(
        repeated, sample_weight=np.append(np.minimum(weight, 1), 1)
    )
    np.testing.assert_allclose(other.embedding_[:-1], one.embedding_, rtol=2e-3, atol=1e-4)
    np.testing.assert_array_equal(other.embedding_[-1], other.embedding_[10])
    assert one.stationary_distribution_[20] == 0
    np.testing.assert_allclose(one.transform(wide[[20]])[0], one.embedding_[20], rtol=1e-4)
    copied = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(copied.transform(wide[:3]), one.transform(wide[:3]))


def test_more_rows_than_a_matrix_of_distances_has_room_for(narrow, monkeypatch):
    """Then equal rows are found by hashes and neighbours block by block; nothing else changes."""
    settings = {"bandwidth": 0.1, "n_neighbors": 40, "random_state": 0}
    wide = np.concatenate([narrow[1], narrow[1][:3]])
    whole = DiffusionMap(**settings).fit(wide)
    monkeypatch.setattr("skdmap.diffusion._training_set._GRAM_ROWS", 100)
    monkeypatch.setattr("skdmap.diffusion._neighbors.brute_force._WIDE_BLOCK", 100 * 300)
    blocks = DiffusionMap(**settings).fit(wide)
    np.testing.assert_allclose(blocks.eigenvalues_, whole.eigenvalues_, rtol=1e-8)
    np.testing.assert_array_equal(blocks.embedding_[-3:], blocks.embedding_[:3])


def test_another_metric_reads_the_rows_into_memory(narrow, Slices):
    class Readable(Slices):
        def __array__(self, dtype=None, copy=None):
            return np.asarray(self.rows, dtype=dtype)

    wide = narrow[1][:100]
    fitted = DiffusionMap(metric="manhattan").fit(Readable(wide))
    expected = DiffusionMap(metric="manhattan").fit(wide)
    np.testing.assert_array_equal(fitted.embedding_, expected.embedding_)


def test_a_wrong_number_of_columns_is_named(narrow):
    fitted = DiffusionMap(bandwidth=0.1).fit(narrow[1])
    with pytest.raises(ValueError, match=f"expecting {N_COLUMNS} features"):
        fitted.transform(narrow[1][:, :-1])


@pytest.fixture
def circle():
    """Equispaced points on a circle: each eigenvalue is double, so no column gives the signs."""
    angle = 2 * np.pi * np.arange(256) / 256
    X = np.zeros((256, N_COLUMNS), np.float32)
    X[:, 3], X[:, -1] = np.cos(angle), np.sin(angle)
    return X


@pytest.mark.parametrize(
    ("view", "n"), [(np.s_[:], 256), (np.s_[::2], 128), (np.s_[:, 1:], 256), (np.s_[::-1], 256)]
)
def test_equal_eigenvalues_of_a_map_and_its_views(view, n, circle, tmp_path):
    np.save(tmp_path / "rows.npy", circle)
    X = np.load(tmp_path / "rows.npy", mmap_mode="r")[view]
    model = DiffusionMap(4, bandwidth=0.5).fit(X)
    exact = ive([1, 1, 2, 2], 4) / ive(0, 4)
    np.testing.assert_allclose(model.eigenvalues_, exact, rtol=1e-5)
    in_memory = DiffusionMap(4, bandwidth=0.5).fit(np.array(X)).embedding_
    np.testing.assert_allclose(np.ptp(model.embedding_, 0), np.ptp(in_memory, 0), rtol=1e-3)
    np.testing.assert_allclose(model.transform(X[:9]), model.embedding_[:9], atol=1e-5)


@pytest.fixture
def mapped(narrow, tmp_path):
    """A map that was fitted on a file, the file, and its rows."""
    wide = narrow[1].astype(np.float32)
    np.save(tmp_path / "rows.npy", wide)
    X = np.load(tmp_path / "rows.npy", mmap_mode="r")
    return DiffusionMap(bandwidth=0.1).fit(X), tmp_path / "rows.npy", wide


def test_another_file_under_the_name_does_not_change_the_map(mapped):
    model, path, wide = mapped
    before = model.transform(wide[:9]), model.inverse_transform(model.embedding_[:3])
    np.save(path.with_name("new.npy"), wide[::-1] + 1)
    path.with_name("new.npy").replace(path)
    np.testing.assert_array_equal(model.transform(wide[:9]), before[0])
    np.testing.assert_array_equal(model.inverse_transform(model.embedding_[:3]), before[1])
    path.unlink()
    np.testing.assert_array_equal(model.transform(wide[:9]), before[0])


@pytest.mark.parametrize(
    "write",
    [
        lambda path, wide: np.save(path, wide + 1),
        lambda path, wide: np.save(path, wide[:100]),
        lambda path, wide: np.load(path, mmap_mode="r+").__setitem__((7, 9), 3.0),
    ],
)
def test_a_file_that_was_written_to_is_refused(mapped, write):
    model, path, wide = mapped
    write(path, wide)
    with pytest.raises(OSError, match=r"rows\.npy, the file behind.*was written to.*Fit again"):
        model.transform(wide[:9])
    with pytest.raises(OSError, match="was written to"):
        model.inverse_transform(model.embedding_[:3])


def test_a_file_that_grew_holds_the_same_samples_or_is_refused(mapped):
    model, path, wide = mapped
    before = model.transform(wide[:9])
    np.save(path, np.concatenate([wide, wide[:5] + 1]))
    np.testing.assert_array_equal(model.transform(wide[:9]), before)
    np.save(path, np.concatenate([wide[5:], wide[:9] + 1]))
    with pytest.raises(ValueError, match=r"training samples were changed after fit.*Fit again"):
        model.transform(wide[:9])


def test_an_array_that_was_changed_is_refused(narrow):
    wide = narrow[1].copy()
    model = DiffusionMap(bandwidth=0.1).fit(wide)
    new = wide[:9].copy()
    model.transform(new)
    wide += 1.0
    with pytest.raises(ValueError, match=r"training samples were changed after fit"):
        model.transform(new)
    with pytest.raises(ValueError, match=r"training samples were changed after fit"):
        model.inverse_transform(model.embedding_[:3])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["first column", "in a span", "last column"])
def test_an_entry_that_is_not_finite_is_named_wherever_it_stands(value, where, walk, tmp_path):
    X = walk(60, N_COLUMNS)
    spans = find_pivots(WideRows(X)).spans
    column = {"first column": 0, "in a span": spans[5][0] + 3, "last column": N_COLUMNS - 1}[where]
    right = X[33, column]
    fitted = DiffusionMap(n_neighbors=None, bandwidth=0.02).fit(X.copy())
    X[33, column], X[34, column] = value, np.inf
    kind = "NaN" if np.isnan(value) else "infinity"
    message = rf"Input X contains {kind}, in row 33, column {column};"
    np.save(tmp_path / "rows.npy", X)
    for rows in (X, np.load(tmp_path / "rows.npy", mmap_mode="r")):
        with pytest.raises(ValueError, match=message):
            DiffusionMap().fit(rows)
        with pytest.raises(ValueError, match=message):
            fitted.transform(rows)
    X[33, column] = right


@pytest.mark.parametrize("size", [1e25, 3e38])
def test_a_new_row_whose_squares_overflow_its_precision_is_named(size, walk):
    X = walk(50, N_COLUMNS)
    fitted = DiffusionMap(n_neighbors=None, bandwidth=0.02).fit(X)
    new = walk(50, N_COLUMNS)
    direction = np.sign(new[41])
    new[41] = np.float32(size) * direction
    with pytest.warns(ExtrapolationWarning, match="sample 41"):
        found = fitted.transform(new)[41]
    nearest = (X.astype(float) @ direction).argmax()
    np.testing.assert_allclose(found, fitted.eigenvectors_[nearest], rtol=1e-3)


@pytest.fixture(scope="module")
def box():
    """Samples of a box in three dimensions, in many columns."""
    t = np.random.default_rng(0).standard_normal((60, 3)) * [3, 2, 1]
    return t @ np.random.default_rng(1).standard_normal((3, N_COLUMNS))


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("far", [1e2, 1e4, 1e6, 1e9, 1e17, 1e30, 1e150, 1e290])
def test_far_new_samples_get_the_coordinates_of_the_nearest(far, dtype, box):
    """As narrow samples do; the nearest has the largest product with the direction."""
    if far > 1e30 and dtype == np.float32:
        pytest.skip("no such number in single precision")
    fitted = DiffusionMap(bandwidth=200.0).fit(box.astype(dtype))
    new = np.concatenate([far * box[7:9], box[:2], -far * box[30:31]]).astype(dtype)
    nearest = [(box @ row / far).argmax() for row in new[[0, 1, 4]].astype(float)]
    expected = fitted.embedding_[nearest] / fitted.eigenvalues_
    for rows in (new, new.astype(np.float64)):
        found = fitted.transform(rows)
        np.testing.assert_allclose(found[[0, 1, 4]], expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found[2:4], fitted.embedding_[:2], rtol=1e-3, atol=1e-4)
    one = fitted.transform(new[1:2])
    np.testing.assert_allclose(one, fitted.transform(new)[1:2], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("far", [1e2, 1e4, 1e6])
def test_distances_of_far_samples_in_single_precision(far, box):
    train, _ = own_distances(WideRows(box.astype(np.float32)))
    new = (far * box[7:10]).astype(np.float32)
    exact = cdist(new.astype(float), box.astype(np.float32).astype(float))
    found = cross_distances(WideRows(new), train)
    # To a share of what tells training samples apart, not of the distance.
    apart = np.ptp(exact, axis=1)[:, None]
    np.testing.assert_allclose((found - exact) / apart, 0.0, atol=1e-4)


@pytest.mark.parametrize("n_neighbors", [None, 40])
def test_sparse_new_samples_are_measured_as_dense_ones(n_neighbors, narrow):
    wide = narrow[1].astype(np.float32)
    model = DiffusionMap(bandwidth=0.1, n_neighbors=n_neighbors).fit(wide)
    new = wide[::20].copy()
    new[:, ::3] = 0.0
    with pytest.warns(ExtrapolationWarning):
        expected = model.transform(new)
    with pytest.warns(ExtrapolationWarning):
        found = model.transform(sp.csr_matrix(new))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(
        model.transform(sp.csr_matrix(wide[:9])), model.transform(wide[:9]), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("far", [1e6, 1e17, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_new_row_far_away_gets_the_coordinates_of_the_nearest(far, dtype):
    rng = np.random.default_rng(0)
    base = (rng.standard_normal((60, 3)) * [3, 2, 1]) @ rng.standard_normal((3, N_COLUMNS))
    fitted = DiffusionMap(bandwidth=200.0).fit(base.astype(dtype))
    new = np.stack([base[7], far * base[7], -far * base[3]]).astype(dtype)
    expected = [
        (fitted.embedding_ / fitted.eigenvalues_)[(base @ direction).argmax()]
        for direction in (base[7], -base[3])
    ]
    with pytest.warns(ExtrapolationWarning, match="2 of 3 samples"):
        together = fitted.transform(new)
    np.testing.assert_allclose(together[1:], expected, rtol=1e-3)
    np.testing.assert_allclose(together[0], fitted.embedding_[7], rtol=1e-3)
    with pytest.warns(ExtrapolationWarning):
        alone = fitted.transform(new[1:2])
    np.testing.assert_allclose(alone, together[1:2], rtol=1e-6)
