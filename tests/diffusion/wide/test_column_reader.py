"""Wide samples are read by blocks of columns, from arrays, slices and files."""

import mmap
import os

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
    release_pages,
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
    with pytest.raises(OSError, match=r"rows\.npy.*was written to.*20000 bytes instead of"):
        file.read(np.arange(30), slice(0, 500))


SLICES = [
    slice(None),
    slice(None, 16),
    slice(480, None),
    slice(490, 600),
    slice(600, 700),
    slice(-20, None),
    slice(-600, 5),
    slice(40, 20),
    slice(3, 90, 7),
    slice(None, None, -1),
    slice(90, 3, -8),
    slice(600, 480, -1),
]


@pytest.mark.parametrize("columns", SLICES)
@pytest.mark.parametrize(
    "view", [np.s_[:], np.s_[::2], np.s_[5:21, 7:], np.s_[:, ::3], np.s_[::-1]]
)
def test_slices_mean_what_they_mean_for_arrays(columns, view, walk, Slices, tmp_path):
    """Past either end, from the end, with steps: for maps and their views, arrays and slices."""
    rows = walk(30, 500)
    np.save(tmp_path / "rows.npy", rows)
    some = np.array([0, 9, 2, 2])
    for source in (np.load(tmp_path / "rows.npy", mmap_mode="r")[view], Slices(rows[view])):
        X = WideRows(source)
        np.testing.assert_array_equal(X[:, columns], rows[view][:, columns])
        np.testing.assert_array_equal(X[some][:, columns], rows[view][some][:, columns])
        np.testing.assert_array_equal(X[3:8][1:, columns], rows[view][4:8, columns])


def test_a_file_that_only_grew_is_read(tmp_path, walk):
    """As the file of a run that goes on does."""
    rows = walk(30, 500)
    np.save(tmp_path / "rows.npy", rows)
    file = mapped_file(np.load(tmp_path / "rows.npy", mmap_mode="r"))
    with (tmp_path / "rows.npy").open("ab") as opened:
        opened.write(rows[:3].tobytes())
    np.testing.assert_array_equal(file.read(np.array([4]), slice(0, 9)), rows[4:5, :9])


def test_a_map_is_read_where_the_system_reads_no_files_at_an_offset(monkeypatch, tmp_path, walk):
    """As on Windows: no preadv, and no advice about pages."""
    rows = walk(30, 500)
    np.save(tmp_path / "rows.npy", rows)
    X = np.load(tmp_path / "rows.npy", mmap_mode="r")
    monkeypatch.delattr(os, "preadv")
    monkeypatch.delattr(mmap, "MADV_DONTNEED")
    assert mapped_file(X) is None
    np.testing.assert_array_equal(WideRows(X)[:, 3:8], rows[:, 3:8])
    release_pages(X)
    np.testing.assert_array_equal(X, rows)
