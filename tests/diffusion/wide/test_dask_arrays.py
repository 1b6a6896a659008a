"""Dask arrays: wide ones by their chunks of columns, tall ones block by block, nothing gathered."""

import sys
import threading

import numpy as np
import pytest

from skdmap import DiffusionMap
from skdmap.diffusion._wide.column_reader import WIDE

da = pytest.importorskip("dask.array")
dask = pytest.importorskip("dask")

N_COLUMNS = WIDE + 37


@pytest.fixture(scope="module")
def wide():
    angle = np.sort(np.random.default_rng(4).uniform(0, 5, 120))
    rows = np.column_stack([np.cos(angle), np.sin(angle), 0.3 * angle])
    basis = np.linalg.qr(np.random.default_rng(5).standard_normal((N_COLUMNS, 3)))[0]
    return rows @ basis.T + 1.0


@pytest.fixture(scope="module")
def tall():
    rng = np.random.default_rng(6)
    return rng.uniform(-1, 1, (200, 3)), rng.uniform(-1, 1, (1000, 3))


@pytest.mark.parametrize("chunks", [(120, 4000), (50, 3000), (120, N_COLUMNS)])
def test_a_fit_on_chunks_of_columns_is_the_fit_on_the_array(wide, chunks):
    settings = {"bandwidth": 0.2, "n_components": 3}
    expected = DiffusionMap(**settings).fit(wide)
    chunked = da.from_array(wide, chunks=chunks)
    fitted = DiffusionMap(**settings).fit(chunked)
    np.testing.assert_allclose(fitted.eigenvalues_, expected.eigenvalues_, rtol=1e-9)
    np.testing.assert_allclose(fitted.embedding_, expected.embedding_, atol=1e-7)
    new = fitted.transform(chunked[::7])
    np.testing.assert_allclose(new, expected.embedding_[::7], atol=1e-7)
    np.testing.assert_allclose(fitted.transform(wide[::7]), expected.embedding_[::7], atol=1e-7)
    back = fitted.inverse_transform(expected.embedding_[:3])
    np.testing.assert_allclose(back, expected.inverse_transform(expected.embedding_[:3]), atol=1e-9)


def test_work_is_done_where_the_chunks_are_and_no_chunk_comes_back(wide):
    """What reaches the caller is no larger than sums over columns and a sample of them."""
    chunked = da.from_array(wide, chunks=(120, 2000))
    largest = []

    def watching(dsk, keys, **options):
        result = dask.get(dsk, keys, **options)
        largest.append(max(getattr(part, "size", 0) for part in _leaves(result)))
        return result

    with dask.config.set(scheduler=watching):
        DiffusionMap(bandwidth=0.2).fit(chunked)
    assert largest
    assert max(largest) < wide.size / 10


def _leaves(result):
    if isinstance(result, (list, tuple)):
        for part in result:
            yield from _leaves(part)
    else:
        yield result


def test_nan_in_a_chunk_is_named(wide):
    broken = wide.copy()
    broken[17, 9001] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN, in row 17, column 9001"):
        DiffusionMap(bandwidth=0.2).fit(da.from_array(broken, chunks=(120, 4000)))


def test_a_row_is_named_by_its_number_in_the_whole_array(wide, monkeypatch):
    """New samples are taken block by block, each a part of the dask array."""
    fitted = DiffusionMap(bandwidth=0.2).fit(wide)
    monkeypatch.setattr("skdmap.diffusion._nystrom._BLOCK", 120 * 25)
    broken = wide.copy()
    broken[97, 9001] = np.inf
    with pytest.raises(ValueError, match="Input X contains infinity, in row 97, column 9001"):
        fitted.transform(da.from_array(broken, chunks=(120, 4000)))


def test_tall_rows_are_transformed_block_by_block(tall):
    train, new = tall
    fitted = DiffusionMap(bandwidth=0.3).fit(train)
    expected = fitted.transform(new)
    threads = set()

    def reading(block):
        threads.add(threading.get_ident())
        return block

    chunked = da.from_array(new, chunks=(300, 2)).map_blocks(reading, dtype=float)
    threads.clear()
    lazy = fitted.transform(chunked)
    assert threads == set()
    assert lazy.chunks == ((300, 300, 300, 100), (2,))
    assert lazy.dtype == np.float64
    np.testing.assert_allclose(lazy.compute(), expected, rtol=1e-12)
    assert threads
    single = fitted.transform(da.from_array(new.astype(np.float32), chunks=(500, 3)))
    assert single.dtype == single.compute().dtype == np.float32


def test_tall_rows_are_read_for_a_fit(tall):
    train, _ = tall
    fitted = DiffusionMap(bandwidth=0.3).fit(da.from_array(train, chunks=(50, 3)))
    np.testing.assert_array_equal(
        fitted.embedding_, DiffusionMap(bandwidth=0.3).fit(train).embedding_
    )


def test_a_wrong_number_of_columns_is_an_error_at_once(tall):
    fitted = DiffusionMap(bandwidth=0.3).fit(tall[0])
    with pytest.raises(ValueError, match="expecting 3 features"):
        fitted.transform(da.zeros((10, 4), chunks=(5, 4)))


@pytest.fixture(scope="module")
def many():
    """More rows than are drawn in one block."""
    return np.random.default_rng(7).uniform(-1, 1, (20_000, 3)) * [1.6, 1.1, 0.6]


@pytest.mark.parametrize(
    ("chunks", "weighted"), [((20_000, 3), False), ((3001, 2), False), ((7000, 1), True)]
)
def test_landmarks_of_chunks_of_rows_are_those_of_the_array(many, chunks, weighted):
    weight = np.random.default_rng(8).uniform(0, 2, len(many)) if weighted else None
    settings = {"n_landmarks": 300, "random_state": 0}
    expected = DiffusionMap(**settings).fit(many, sample_weight=weight)
    chunked = da.from_array(many, chunks=chunks)
    fitted = DiffusionMap(**settings).fit(chunked, sample_weight=weight)
    np.testing.assert_array_equal(fitted.landmarks_, expected.landmarks_)
    np.testing.assert_allclose(fitted.landmark_weights_, expected.landmark_weights_, rtol=1e-12)
    assert isinstance(fitted.embedding_, da.Array)
    assert fitted.embedding_.chunks == (chunked.chunks[0], (2,))
    scale = np.abs(expected.embedding_).max()
    np.testing.assert_allclose(fitted.embedding_, expected.embedding_, atol=1e-8 * scale)
    single = DiffusionMap(**settings).fit(chunked.astype(np.float32))
    assert single.embedding_.dtype == single.embedding_[:5].compute().dtype == np.float32


def test_a_fit_by_landmarks_gathers_drawn_rows_and_weights_only(many):
    chunked = da.from_array(many, chunks=(5000, 3))
    largest = []

    def watching(dsk, keys, **options):
        result = dask.get(dsk, keys, **options)
        largest.append(max(getattr(part, "size", 0) for part in _leaves(result)))
        return result

    with dask.config.set(scheduler=watching):
        DiffusionMap(n_landmarks=100, random_state=0).fit(chunked)
    assert len(largest) == 2  # rows to choose by, and weights
    assert max(largest) <= 10 * 100 * 3


def test_landmarks_take_chunks_of_columns_too(wide):
    settings = {"n_landmarks": 40, "bandwidth": 0.5, "random_state": 0}
    expected = DiffusionMap(**settings).fit(wide)
    assert expected.landmarks_.shape == (40, N_COLUMNS)
    assert expected.landmark_weights_.sum() == len(wide)
    fitted = DiffusionMap(**settings).fit(da.from_array(wide, chunks=(50, 3000)))
    np.testing.assert_allclose(fitted.embedding_, expected.embedding_, atol=1e-7)


def test_nan_in_a_chunk_of_rows_is_named_by_its_row_in_the_whole_array(many):
    broken = many.copy()
    broken[13_456, 1] = np.nan
    with pytest.raises(ValueError, match="NaN, in row 13456, column 1"):
        DiffusionMap(n_landmarks=50, random_state=0).fit(da.from_array(broken, chunks=(7000, 3)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore:Sending large graph:UserWarning")
@pytest.mark.skipif(sys.platform == "win32", reason="worker processes are forked from a script")
def test_two_workers_of_a_local_cluster(wide, tall, many):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        chunked = client.persist(da.from_array(wide, chunks=(120, 3000)))
        with distributed.get_task_stream(client) as stream:
            fitted = DiffusionMap(bandwidth=0.2).fit(chunked)
        expected = DiffusionMap(bandwidth=0.2).fit(wide)
        np.testing.assert_allclose(fitted.embedding_, expected.embedding_, atol=1e-7)
        assert len({task["worker"] for task in stream.data}) == 2
        train, new = tall
        mapping = DiffusionMap(bandwidth=0.3).fit(train)
        with distributed.get_task_stream(client) as stream:
            lazy = mapping.transform(da.from_array(new, chunks=(250, 3))).compute()
        np.testing.assert_allclose(lazy, mapping.transform(new), rtol=1e-12)
        assert len({task["worker"] for task in stream.data}) == 2
        settings = {"n_landmarks": 300, "bandwidth": 0.3, "random_state": 0}
        with distributed.get_task_stream(client) as stream:
            fitted = DiffusionMap(**settings).fit(da.from_array(many, chunks=(5000, 3)))
        assert len({task["worker"] for task in stream.data}) == 2
        expected = DiffusionMap(**settings).fit(many).embedding_
        scale = np.abs(expected).max()
        np.testing.assert_allclose(fitted.embedding_.compute(), expected, atol=1e-8 * scale)


def test_empty_blocks_give_empty_blocks(tall):
    train, new = tall
    fitted = DiffusionMap(bandwidth=0.3).fit(train)
    new = np.sort(new, axis=0)
    chunked = da.from_array(new, chunks=(250, 3))
    some = chunked[chunked[:, 0] > new[300, 0]]
    np.testing.assert_allclose(
        fitted.transform(some).compute(), fitted.transform(new[301:]), rtol=1e-12
    )
    assert fitted.transform(chunked[chunked[:, 0] > 2]).compute().shape == (0, 2)


def test_wide_rows_that_are_not_counted_are_counted(wide):
    chunked = da.from_array(wide, chunks=(40, 5000))
    some = chunked[chunked[:, 0] > np.median(wide[:, 0])]
    rows = wide[wide[:, 0] > np.median(wide[:, 0])]
    found, expected = (DiffusionMap(bandwidth=0.2).fit(X) for X in (some, rows))
    np.testing.assert_allclose(found.eigenvalues_, expected.eigenvalues_, rtol=1e-9)
    np.testing.assert_allclose(found.transform(some), expected.embedding_, atol=1e-7)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_dask_frame_is_taken_as_a_frame_in_memory(tall):
    pandas = pytest.importorskip("pandas")
    frames = pytest.importorskip("dask.dataframe")
    train, new = (pandas.DataFrame(X, columns=list("abc")) for X in tall)
    expected = DiffusionMap(bandwidth=0.3).fit(train)
    fitted = DiffusionMap(bandwidth=0.3).fit(frames.from_pandas(train, npartitions=3))
    np.testing.assert_array_equal(fitted.embedding_, expected.embedding_)
    np.testing.assert_array_equal(fitted.feature_names_in_, list("abc"))
    lazy = frames.from_pandas(new, npartitions=4)
    np.testing.assert_array_equal(fitted.transform(lazy), expected.transform(new))
    assert fitted.score(lazy) == expected.score(new)
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.transform(lazy[["b", "a", "c"]])
