"""Wide samples are read by blocks of columns, from arrays, slices and files."""

import numpy as np
import pytest

from skdmap.diffusion._wide import memory_limit
from skdmap.diffusion._wide.column_reader import (
    WIDE,
    WideRows,
    column_blocks,
    is_lazy,
    mapped_file,
    reads_by_columns,
)


def test_what_is_read_by_columns(Slices):
    wide = np.zeros((3, WIDE), np.float32)
    assert reads_by_columns(wide)
    assert reads_by_columns(Slices(wide))
    assert not reads_by_columns(wide[:, 1:])
    assert not reads_by_columns(wide.astype(int))
    assert is_lazy(Slices(wide))
    assert not is_lazy(wide)
    assert not is_lazy([[1.0, 2.0]])


def test_column_blocks_keep_chunks_whole(monkeypatch, Slices):
    source = Slices(np.zeros((10, 1000), np.float32))
    source.chunks = (10, 300)
    monkeypatch.setattr(memory_limit, "BLOCK_BYTES", 10 * 4 * 400)
    assert [(c.start, c.stop) for c in column_blocks(WideRows(source))] == [
        (0, 300),
        (300, 600),
        (600, 900),
        (900, 1000),
    ]


def test_the_file_behind_a_map_is_read(tmp_path, walk):
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


def test_a_file_that_was_cut_is_an_error(tmp_path, walk):
    np.save(tmp_path / "rows.npy", walk(30, 500))
    X = np.load(tmp_path / "rows.npy", mmap_mode="r")
    file = mapped_file(X)
    with (tmp_path / "rows.npy").open("r+b") as opened:
        opened.truncate(20_000)
    with pytest.raises(OSError, match=r"rows\.npy ends before row 9 of X"):
        file.read(np.arange(30), slice(0, 500))
