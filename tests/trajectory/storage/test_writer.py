"""Rows in memory and on disk: the same columns, and files that are whole at every moment."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch

from skdmap._parameters import parameter_layout
from skdmap.trajectory._storage.files import checked_line
from skdmap.trajectory._storage.journal import RowLines
from skdmap.trajectory._storage.table import BASE_FIELDS
from skdmap.trajectory._storage.writer import open_writer

N_PARAMETERS, N_BUFFERS = 23, 3
LAYOUT = parameter_layout(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(3, 1, False),
                                              torch.nn.Linear(1, 2)))  # fmt: skip
KINDS = {
    "memory": {},
    "npy": {"store": "rows"},
    "zarr": {"store": "rows.zarr"},
    "sketch": {"store": "rows", "sketch_dim": 8},
    "sketch in memory": {"sketch_dim": 8},
    "float16": {"store": "rows", "dtype": "float16"},
    "float16 in memory": {"dtype": "float16"},
    "float64": {"store": "rows", "dtype": "float64"},
}
STORED = [name for name, kind in KINDS.items() if "store" in kind]


def opened(kind, tmp_path, **more):
    options = {**KINDS[kind], **more}
    if "store" in options:
        if options["store"].endswith("zarr"):
            pytest.importorskip("zarr")
        options["store"] = tmp_path / options["store"]
    return open_writer(LAYOUT, N_BUFFERS, seed=5, **options)


class Walk:
    """A walk of several runs that can go on from any row, since it is a function of the row."""

    def __init__(self, n_per_run=70):
        self.n_per_run = n_per_run

    def theta(self, row):
        run = row // self.n_per_run
        start = np.random.default_rng(run).normal(size=N_PARAMETERS)
        steps = np.random.default_rng([run, 1]).normal(size=(self.n_per_run, N_PARAMETERS))
        return (start + 0.01 * steps[: row % self.n_per_run].sum(axis=0)).astype(np.float32)

    def append(self, writer, first, last):
        for row in range(first, last):
            writer.append(
                self.theta(row), np.arange(3.0) + row, run=row // self.n_per_run,
                step=3 * (row % self.n_per_run), epoch=row // 5, loss=1 / (row + 1),
                learning_rate=0.1 * row, path_length=0.5 * row,
            )  # fmt: skip


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".pt"
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_holds_what_was_appended(kind, tmp_path):
    writer, walk = opened(kind, tmp_path), Walk()
    walk.append(writer, 0, 150)
    writer.close()
    table = writer.table()
    rows = np.arange(150)
    np.testing.assert_array_equal(table.run_ids, rows // 70)
    np.testing.assert_array_equal(table.steps, 3 * (rows % 70))
    np.testing.assert_array_equal(table.epochs, rows // 5)
    np.testing.assert_array_equal(table.losses, 1 / (rows + 1))
    np.testing.assert_array_equal(table.learning_rates, 0.1 * rows)
    np.testing.assert_array_equal(table.path_lengths, 0.5 * rows)
    np.testing.assert_array_equal(np.asarray(table.buffers), np.arange(3.0) + rows[:, None])
    exact = np.array([walk.theta(row) for row in rows])
    snapshots = np.asarray(table.snapshots)
    if "sketch" in kind:
        assert snapshots.shape == (150, 8)
        firsts = exact[[0, 70, 140]]
        lengths = np.linalg.norm(np.diff(exact.astype(float), axis=0, prepend=np.nan), axis=1)
        lengths[[0, 70, 140]] = np.nan
        np.testing.assert_allclose(table.step_lengths, lengths, rtol=1e-12)
        distances = np.linalg.norm(exact.astype(float) - firsts[rows // 70], axis=1)
        np.testing.assert_allclose(table.start_distances, distances, rtol=1e-12)
        sketched = np.square(np.diff(snapshots.astype(float), axis=0, prepend=np.nan)).sum(axis=1)
        np.testing.assert_allclose(table.sketch_error, sketched / lengths**2 - 1, atol=1e-6)
        for run, first in enumerate((0, 70, 140)):
            np.testing.assert_array_equal(table.endpoints[run][0], exact[first])
            np.testing.assert_array_equal(table.endpoints[run][1], exact[min(first + 69, 149)])
    elif "float16" in kind:
        # Eleven bits of the largest entry of the difference from the key row.
        assert snapshots.dtype == np.float32
        assert np.abs(snapshots - exact).max() <= 2**-11 * np.abs(exact - exact[0]).max()
        np.testing.assert_array_equal(snapshots[[0, 64, 70, 134]], exact[[0, 64, 70, 134]])
    else:
        np.testing.assert_array_equal(snapshots, exact)


def test_half_precision_keeps_squared_distances_of_neighbours():
    rng = np.random.default_rng(0)
    steps = 1e-7 * rng.normal(size=(200, 1000))  # float16 itself ends at 6e-8
    exact = (1e-3 * rng.normal(size=1000) + np.cumsum(steps, axis=0)).astype(np.float32)
    writer = open_writer(1000, dtype="float16")
    for step, theta in enumerate(exact):
        writer.append(theta, step=step, loss=0.0)
    rows = np.asarray(writer.table().snapshots, dtype=float)
    kept = np.square(np.diff(rows, axis=0)).sum(axis=1)
    truth = np.square(np.diff(exact.astype(float), axis=0)).sum(axis=1)
    # Each row is off by 2^-11 / sqrt(12) of its own step; and float32's own grid, 2e-10 of 1e-7.
    assert np.abs(kept / truth - 1).max() < 1e-3
    far = np.square(rows[64:] - rows[:-64]).sum(axis=1)
    truth = np.square(exact[64:].astype(float) - exact[:-64]).sum(axis=1)
    assert np.abs(far / truth - 1).max() < 1e-3


def test_decoded_rows_are_indexed_as_an_array_is():
    writer, walk = open_writer(LAYOUT, N_BUFFERS, dtype="float16"), Walk()
    walk.append(writer, 0, 80)
    rows = writer.table().snapshots
    whole = np.asarray(rows)
    for index in (3, -1, slice(2, 9, 3), [0, 70, 5], np.arange(80) % 3 == 0, (slice(4), 2)):
        np.testing.assert_array_equal(rows[index], whole[index])
    assert (len(rows), rows.ndim, rows.dtype, rows.shape) == (80, 2, whole.dtype, whole.shape)
    with pytest.raises(IndexError):
        rows[80]


def test_a_row_waits_for_its_loss(tmp_path):
    for kind in ("memory", "npy"):
        writer = opened(kind, tmp_path)
        theta = torch.zeros(N_PARAMETERS)
        for step in range(4):
            row = writer.append(theta, np.zeros(3), step=step)
            theta += 1  # what is appended is a copy
            assert (row, writer.n_rows) == (step, step)
            if step != 1:
                writer.set_loss(row, 0.5 * step)
        writer.append(theta, np.zeros(3), step=4)
        writer.close()
        table = writer.table()
        np.testing.assert_array_equal(table.losses, [0, np.nan, 1.0, 1.5, np.nan])
        np.testing.assert_array_equal(np.asarray(table.snapshots)[:, 0], np.arange(5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_tensors_of_every_type_are_rows(dtype):
    writer = open_writer(3)
    theta = torch.tensor([0.5, -1.25, 3.0], dtype=dtype, requires_grad=True)
    writer.append(theta, step=0, loss=0.0)
    np.testing.assert_array_equal(writer.table().snapshots, [[0.5, -1.25, 3.0]])


def test_more_rows_than_expected_are_kept():
    writer, walk = open_writer(LAYOUT, N_BUFFERS, n_expected=3), Walk()
    walk.append(writer, 0, 20)
    before = writer.table()
    walk.append(writer, 20, 40)
    assert len(before.snapshots) == 20
    np.testing.assert_array_equal(writer.table().snapshots[33], walk.theta(33))


@pytest.mark.parametrize("kind", ["npy", "sketch", "float16"])
def test_numpy_reads_the_files_at_any_moment(kind, tmp_path):
    writer, walk = opened(kind, tmp_path), Walk()
    names = ["differences"] if kind == "float16" else ["snapshots"]
    for row in range(5):
        for name in [*names, "buffers"]:
            mapped = np.load(
                tmp_path / "rows" / f"skdmap-{name}.npy", mmap_mode="r", allow_pickle=False
            )
            assert len(mapped) == row
        walk.append(writer, row, row + 1)
    writer.close()


@pytest.mark.parametrize("kind", STORED)
@pytest.mark.parametrize("n_kept", [0, 64, 65, 130])
def test_rows_that_are_dropped_and_appended_again_make_the_same_files(kind, n_kept, tmp_path):
    walk, undisturbed = Walk(), opened(kind, tmp_path)
    walk.append(undisturbed, 0, n_kept)
    undisturbed.save_state({"at": n_kept})
    walk.append(undisturbed, n_kept, 150)
    undisturbed.close()
    folder = tmp_path / KINDS[kind]["store"]
    expected = files_of(folder)
    again = opened(kind, tmp_path, resume=True)
    assert again.n_rows == 150
    assert again.load_state() == {"at": n_kept}
    assert again.n_rows == n_kept
    walk.append(again, n_kept, 150)
    again.close()
    assert files_of(folder) == expected


def test_without_a_state_a_run_begins_again(tmp_path):
    walk, writer = Walk(), opened("npy", tmp_path)
    walk.append(writer, 0, 10)
    writer.close()
    again = opened("npy", tmp_path, resume=True)
    assert again.load_state() is None
    assert again.n_rows == 0
    again.close()


def test_resume_begins_where_there_is_nothing_yet(tmp_path):
    writer = opened("npy", tmp_path, resume=True)
    assert writer.load_state() is None
    Walk().append(writer, 0, 3)
    writer.close()
    assert writer.table().snapshots.shape == (3, N_PARAMETERS)


@pytest.mark.parametrize("kind", ["npy", "zarr", "sketch"])
def test_another_loss_for_an_old_row_outlives_closing_and_dropping(kind, tmp_path):
    walk, writer = Walk(), opened(kind, tmp_path)
    walk.append(writer, 0, 10)
    writer.set_loss(3, 7.0)
    walk.append(writer, 10, 12)
    writer.close()
    again = opened(kind, tmp_path, resume=True)
    again.truncate(5)
    walk.append(again, 5, 8)
    losses = again.table().losses
    again.close()
    # The line of the change came after row 5, so that it is dropped with it.
    np.testing.assert_array_equal(losses, 1 / np.arange(1, 9))
    writer = opened(kind, tmp_path, resume=True)
    writer.set_loss(3, 7.0)
    writer.close()
    assert opened(kind, tmp_path, resume=True).table().losses[3] == 7.0


def test_the_map_is_read_only_and_pickles_as_its_path(tmp_path):
    walk, writer = Walk(), opened("npy", tmp_path)
    walk.append(writer, 0, 150)
    writer.close()
    rows = writer.table().snapshots
    assert isinstance(rows, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        rows[0, 0] = 1
    assert len(pickle.dumps(rows)) < 200 < rows.nbytes
    again = pickle.loads(pickle.dumps(rows))
    np.testing.assert_array_equal(again, rows)
    assert copy.deepcopy(rows) is rows
    part = pickle.loads(pickle.dumps(rows[3:5]))
    assert type(part) is np.ndarray
    np.testing.assert_array_equal(part, rows[3:5])
    # More rows later are none of the pickled ones.
    pickled = pickle.dumps(rows)
    writer = opened("npy", tmp_path, resume=True)
    walk.append(writer, 150, 160)
    assert pickle.loads(pickled).shape == rows.shape
    writer.truncate(20)
    writer.close()
    with pytest.raises(ValueError, match="too short for 150 rows"):
        pickle.loads(pickled)


def test_the_journal_tells_of_each_row_and_of_no_time(tmp_path):
    writer = opened("npy", tmp_path)
    Walk().append(writer, 0, 3)
    writer.close()
    lines = (tmp_path / "rows" / "skdmap-journal.jsonl").read_text().splitlines()
    head, *records = [json.loads(line) for line in lines]
    assert (head["synced"], len(lines[0])) == (3, 63)
    names = ["row", "run", "step", "epoch", "loss", "learning_rate", "path_length", "crc", "line"]
    assert [list(record) for record in records] == [names] * 3
    assert [record["row"] for record in records] == [0, 1, 2]


def test_a_state_holds_arrays_generators_and_nests(tmp_path):
    writer = opened("npy", tmp_path)
    state = {
        "order": np.arange(5),
        "rate": np.float32(0.5),
        "nested": {0: [torch.ones(2), (1, None, "a", True)]},
        "generator": torch.Generator().manual_seed(3).get_state(),
        "view": torch.arange(1000.0)[3:5],
    }
    writer.save_state(state)
    writer.save_module(2, {"weight": torch.ones(2, 2)})
    writer.close()
    assert (tmp_path / "rows" / "skdmap-state.bin").stat().st_size < 12_000
    again = opened("npy", tmp_path, resume=True)
    found = again.load_state()
    assert found["order"].tolist() == [0, 1, 2, 3, 4]
    assert found["rate"] == 0.5
    assert found["nested"][0][0].tolist() == [1, 1]
    assert found["nested"][0][1] == (1, None, "a", True)
    assert torch.equal(found["generator"], state["generator"])
    assert found["view"].tolist() == [3, 4]
    assert list(again.load_modules()) == [2]
    again.close()


def test_zarr_arrays_are_read_by_zarr(tmp_path):
    zarr = pytest.importorskip("zarr")
    writer, walk = opened("zarr", tmp_path), Walk()
    walk.append(writer, 0, 4)
    writer.close()
    group = zarr.open_group(tmp_path / "rows.zarr", mode="r")
    np.testing.assert_array_equal(group["snapshots"][3], walk.theta(3))
    assert np.isnan(group["snapshots"].fill_value)


@pytest.mark.parametrize("odd", [0.1, 1e-300, -2.5e17, float("nan"), float("inf"), -float("inf")])
def test_the_fast_line_of_a_row_is_the_line(odd):
    names = ("run", *BASE_FIELDS[1:], "sketch_error", "step_length", "start_distance", "exponent")
    values = (3, 2**40, -1, 0, odd, 0.25, odd, -0.0, 1 / 3, odd, -14, 2**32 - 1)
    fields = dict(zip(("row", *names, "crc"), values, strict=True))
    assert RowLines(names).line(values) == checked_line(fields)
