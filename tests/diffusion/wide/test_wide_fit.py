"""Wide rows: distances from one pass over blocks of columns, and fits that never copy X."""

import pickle

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.neighbors import KNeighborsTransformer

from skdmap import DiffusionMap
from skdmap.diffusion._wide import column_reader as _wide
from skdmap.diffusion._wide.column_reader import (
    WIDE,
    WideRows,
    column_blocks,
    is_lazy,
    mapped_file,
    reads_by_columns,
)
from skdmap.diffusion._wide.distances import (
    cross_distances,
    framed,
    own_distances,
    recompute_close_pairs,
    squares_from_references,
)
from skdmap.diffusion._wide.pivots import find_groups

N_COLUMNS = WIDE + 37
# What the module promises of squared distances.
PROMISE = {np.float32: 1e-5, np.float64: 1e-9}


class Slices:
    """Rows behind two-dimensional slices, as zarr has them; counts what is read."""

    def __init__(self, rows):
        self.rows = rows
        self.shape, self.dtype = rows.shape, rows.dtype
        self.read = 0

    def __getitem__(self, key):
        rows, columns = key
        assert isinstance(rows, slice)
        assert isinstance(columns, slice)
        block = self.rows[key]
        self.read += block.size
        return block


def walk(n_rows, n_columns, step=1e-4, dtype=np.float32, seed=0):
    """Return late training: a random walk of short steps from a far point."""
    rng = np.random.default_rng(seed)
    rows = np.empty((n_rows, n_columns), dtype)
    row = rng.standard_normal(n_columns).astype(dtype)
    for i in range(n_rows):
        rows[i] = row
        row = row + (step * rng.standard_normal(n_columns)).astype(dtype)
    return rows


def late_training(n_rows, n_columns, seed=1):
    """Return rows that come to rest geometrically: distances over six orders of magnitude."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((3, n_columns))
    rates = 0.9 ** np.arange(n_rows)[:, None] * [1.0, 0.3, 0.1]
    return 1.0 + rates @ directions


def clusters(n_rows, n_columns, seed=2):
    """Return tight groups far from each other, in an order that mixes them."""
    rng = np.random.default_rng(seed)
    centres = 100.0 * rng.standard_normal((5, n_columns))
    return centres[rng.integers(0, 5, n_rows)] + 1e-3 * rng.standard_normal((n_rows, n_columns))


def last_layer_only(n_rows, n_columns, seed=3):
    """Return rows that differ in a few columns only, which a sample of the columns misses."""
    rows = np.ones((n_rows, n_columns))
    rows[:, 5000:5004] += walk(n_rows, 4, 1e-3, np.float64, seed)
    return rows


def squared(X, Y=None):
    X = X.astype(np.float64)
    return cdist(X, X if Y is None else Y.astype(np.float64)) ** 2


def worst(found, exact):
    positive = exact > 0
    assert (found[~positive] == 0).all()
    return float(np.abs(found[positive] / exact[positive] - 1).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", [walk, late_training, clusters, last_layer_only])
def test_squared_distances_are_right_to_what_is_promised(make, dtype):
    X = make(150, N_COLUMNS).astype(dtype)
    _, D = own_distances(WideRows(X))
    assert worst(D**2, squared(X)) < PROMISE[dtype]
    np.testing.assert_array_equal(D, D.T)
    np.testing.assert_array_equal(np.diagonal(D), 0)


@pytest.mark.parametrize("factor", [2.0**-60, 2.0**60])
def test_scale_and_place_do_not_matter(factor):
    """Squares of such entries do not fit single precision; a power of two is exact."""
    X = walk(80, N_COLUMNS)
    _, D = own_distances(WideRows(X))
    _, scaled = own_distances(WideRows(X * np.float32(factor)))
    np.testing.assert_allclose(scaled, D * factor, rtol=PROMISE[np.float32])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_new_rows_are_measured_as_training_rows_are(dtype):
    X = walk(180, N_COLUMNS, dtype=dtype)
    train, D = own_distances(WideRows(X[::2].copy()))
    new = cross_distances(WideRows(X), train)
    assert worst(new**2, squared(X, X[::2])) < PROMISE[dtype]
    np.testing.assert_allclose(new[::2], D, rtol=PROMISE[dtype])
    one = cross_distances(WideRows(X[7:8].copy()), train)
    np.testing.assert_allclose(one[0], new[7], rtol=PROMISE[dtype])
    part = cross_distances(train[np.array([5, 2, 60])], train)
    np.testing.assert_allclose(part, D[[5, 2, 60]], rtol=PROMISE[dtype])


def test_most_close_pairs_need_no_second_reading():
    """On a walk in order, groups of rows catch all but a few: X is read once, and a sample."""
    X = Slices(walk(400, N_COLUMNS))
    own_distances(WideRows(X))
    assert X.read < 1.2 * X.rows.size


def test_close_pairs_are_what_makes_the_promise_hold(monkeypatch):
    """Without them tight clusters have wrong distances: the second look is needed and taken."""
    X = last_layer_only(150, N_COLUMNS).astype(np.float32)
    exact = squared(X)
    monkeypatch.setattr(
        "skdmap.diffusion._wide.distances.recompute_close_pairs", lambda *arguments: None
    )
    _, D = own_distances(WideRows(X))
    assert worst(D**2, exact) > PROMISE[np.float32]
    train, product = framed(WideRows(X))
    assert product.shape == (150, 150)
    values = D**2 * train.frame.scale**2
    recompute_close_pairs(values, train, train)
    assert worst(values / train.frame.scale**2, exact) < PROMISE[np.float32]


def test_groups_are_small_and_their_references_are_members():
    groups = find_groups(WideRows(clusters(300, N_COLUMNS).astype(np.float32)))
    counts = np.bincount(groups.labels)
    assert counts.max() <= 48
    np.testing.assert_array_equal(groups.labels[groups.centres], np.arange(counts.size))


def test_how_far_out_a_row_lies_is_known_without_reading_it():
    X = walk(90, N_COLUMNS, dtype=np.float64)
    weight = np.random.default_rng(0).uniform(0.5, 2, 90)
    weight /= weight.sum()
    train, _ = own_distances(WideRows(X))
    mass = np.bincount(train.frame.labels, weights=weight)
    mean = mass @ X[train.frame.centres]
    expected = ((X - mean) ** 2).sum(axis=1)
    np.testing.assert_allclose(squares_from_references(train, weight), expected, rtol=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_entry_that_is_not_finite_is_found_in_the_one_pass_and_named(value):
    X = walk(60, N_COLUMNS)
    spans = find_groups(WideRows(X)).spans
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


def test_values_too_large_for_single_precision_say_so():
    X = walk(50, N_COLUMNS)
    spans = find_groups(WideRows(X)).spans
    column = next(c for c in range(N_COLUMNS) if not any(a <= c < b for a, b in spans))
    X[:, column] = np.linspace(0, 1e30, 50)
    with pytest.raises(ValueError, match=r"squared differences do not fit.*Rescale X"):
        own_distances(WideRows(X))


def test_what_is_read_by_columns():
    wide = np.zeros((3, WIDE), np.float32)
    assert reads_by_columns(wide)
    assert reads_by_columns(Slices(wide))
    assert not reads_by_columns(wide[:, 1:])
    assert not reads_by_columns(wide.astype(int))
    assert is_lazy(Slices(wide))
    assert not is_lazy(wide)
    assert not is_lazy([[1.0, 2.0]])


def test_column_blocks_keep_chunks_whole(monkeypatch):
    source = Slices(np.zeros((10, 1000), np.float32))
    source.chunks = (10, 300)
    monkeypatch.setattr(_wide, "BLOCK_BYTES", 10 * 4 * 400)
    assert [(c.start, c.stop) for c in column_blocks(WideRows(source))] == [
        (0, 300),
        (300, 600),
        (600, 900),
        (900, 1000),
    ]


@pytest.fixture(scope="module")
def narrow():
    """Rows on a curve, and the same rows after a rotation into many columns, nearly an isometry."""
    angle = np.sort(np.random.default_rng(4).uniform(0, 5, 300))
    rows = np.column_stack([np.cos(angle), np.sin(angle), 0.3 * angle])
    basis = np.linalg.qr(np.random.default_rng(5).standard_normal((N_COLUMNS, 3)))[0]
    return rows, rows @ basis.T + 1.0


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


def test_slices_memory_map_and_array_give_the_same_map(narrow, tmp_path):
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


def test_another_metric_reads_the_rows_into_memory(narrow):
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


def test_lists_of_single_precision_rows_may_put_a_row_away_from_itself():
    """As scikit-learn's brute search does: 1e-6 for 60 columns of float32."""
    X = walk(80, 60, step=0.1) + np.float32(30)
    listed = KNeighborsTransformer(
        n_neighbors=20, mode="distance", algorithm="brute"
    ).fit_transform(X)
    assert listed.diagonal().max() > 0
    settings = {"metric": "precomputed", "bandwidth": 0.7, "n_components": 1}
    fitted = DiffusionMap(**settings).fit(listed)
    exact = listed.copy()
    exact.setdiag(0.0)
    expected = DiffusionMap(**settings).fit(exact)
    np.testing.assert_allclose(fitted.eigenvalues_, expected.eigenvalues_, rtol=1e-6)
    with pytest.raises(ValueError, match="must be 0 or not listed"):
        DiffusionMap(metric="precomputed").fit(
            KNeighborsTransformer(n_neighbors=20, mode="connectivity").fit_transform(X)
        )


def test_the_file_behind_a_map_is_read(tmp_path):
    rows = walk(30, 500)
    np.save(tmp_path / "rows.npy", rows)
    X = np.load(tmp_path / "rows.npy", mmap_mode="r")
    for view in (X, X[3:], X[::2, 7:], np.asarray(X)[5:9]):
        file = mapped_file(view)
        found = file.read(np.array([0, 3, 1]), slice(20, 31))
        np.testing.assert_array_equal(found, view[[0, 3, 1], 20:31])
    assert mapped_file(rows) is None
    assert mapped_file(X[:, ::2]) is None
    assert mapped_file(np.load(tmp_path / "rows.npy", mmap_mode="c")) is None
    # Another file under the name: the map still has the old rows, and they are what counts.
    np.save(tmp_path / "other.npy", rows + 1)
    (tmp_path / "other.npy").replace(tmp_path / "rows.npy")
    assert mapped_file(X) is None
    np.testing.assert_array_equal(WideRows(X)[:, 3:8], rows[:, 3:8])


def test_a_file_that_was_cut_is_an_error(tmp_path):
    np.save(tmp_path / "rows.npy", walk(30, 500))
    X = np.load(tmp_path / "rows.npy", mmap_mode="r")
    file = mapped_file(X)
    with (tmp_path / "rows.npy").open("r+b") as opened:
        opened.truncate(20_000)
    with pytest.raises(OSError, match=r"rows\.npy ends before row 9 of X"):
        file.read(np.arange(30), slice(0, 500))
