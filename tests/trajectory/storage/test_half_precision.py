"""Rows in half precision: neighbours stay as far apart as they were, however short their steps."""

import numpy as np
import pytest

from skdmap import open_trajectory
from skdmap.trajectory._storage.files import checked_line, parse_line
from skdmap.trajectory._storage.half_precision import DifferenceCoder, DifferenceRows
from skdmap.trajectory._storage.writer import open_writer

N_COLUMNS = 500


def path(lengths, *, straight, seed=0, n_columns=N_COLUMNS):
    """Return rows whose steps have the lengths given: along one line, or each its own way."""
    rng = np.random.default_rng(seed)
    rows, line = [0.1 * rng.normal(size=n_columns)], rng.normal(size=n_columns)
    for length in lengths:
        way = line if straight else rng.normal(size=n_columns)
        rows.append(rows[-1] + length * way / np.linalg.norm(way))
    return np.array(rows, dtype=np.float32)


def kept(rows, *, run_of=lambda step: 0, store=None):
    writer = open_writer(rows.shape[1], dtype="float16", store=store)
    for step, theta in enumerate(rows):
        writer.append(theta, step=step, run=run_of(step), loss=0.0)
    writer.close()
    return writer.table().snapshots


def squared_steps(rows):
    return np.square(np.diff(np.asarray(rows, dtype=float), axis=0)).sum(axis=1)


LENGTHS = {
    "equal": [0.01] * 200,
    "dying away": 0.5 * 0.9 ** np.arange(60),
    "slowly": 0.05 * 0.98 ** np.arange(200),
    "a tenth": [0.05] * 100 + [0.005] * 100,
    "halved": 0.05 * 0.5 ** (np.arange(160) // 20),
}


@pytest.mark.parametrize("straight", [True, False])
@pytest.mark.parametrize("kind", LENGTHS)
def test_squared_distances_of_neighbours(kind, straight):
    rows = path(LENGTHS[kind], straight=straight)
    error = np.abs(squared_steps(kept(rows)) / squared_steps(rows) - 1)
    assert error.max() <= 1.5e-3
    # Rounding of an entry is 2^-11 of it at most: two rows to a pair, the first off by a part of
    # the step before, which may be ten times as long.
    bound = 2 * 2.0**-11 * (1 + (10 if kind == "a tenth" else 2))
    assert error.max() <= bound + bound**2


def test_rounding_does_not_add_up_along_the_way():
    rows = path([0.01] * 63, straight=True)
    off = np.linalg.norm(np.asarray(kept(rows), dtype=float) - rows, axis=1)
    assert off[0] == 0
    assert off.max() <= 2.0**-11 * 0.01 * 1.1  # float32's grid beside it


def test_one_row_in_64_is_whole():
    rows = path([0.01] * 199, straight=False)
    whole = np.flatnonzero((np.asarray(kept(rows)) == rows).all(axis=1))
    assert whole.tolist() == [0, 64, 128, 192]
    coder = DifferenceCoder(N_COLUMNS)
    keys = [("key_rows" in coder.encode(row, 0)[0]) for row in rows]
    assert sum(keys) == 4


@pytest.mark.parametrize("n_runs", [1, 3])
def test_any_order_gives_the_same_bits(n_runs):
    rows = path([0.01] * 149, straight=False)
    decoded = kept(rows, run_of=lambda step: step % n_runs)
    whole = np.asarray(decoded)
    rng = np.random.default_rng(0)
    for index in (rng.permutation(150), rng.integers(150, size=40), slice(None, None, -1)):
        np.testing.assert_array_equal(decoded[index], whole[index])
    for i in (0, 1, 63, 64, 149, -2):
        np.testing.assert_array_equal(decoded[i], whole[i])
    for columns in (slice(3, 20), slice(-5, None), slice(None, None, 7), 4, [2, 9, 2]):
        np.testing.assert_array_equal(decoded[:, columns], whole[:, columns])
    np.testing.assert_array_equal(decoded[5:100:3, 10:30], whole[5:100:3, 10:30])


def test_differences_from_the_key_row_as_in_format_1():
    rows = path([0.01] * 99, straight=True)
    coder = DifferenceCoder(N_COLUMNS, chained=False)
    coded = [coder.encode(row, 0) for row in rows]
    for row, (parts, (key, exponent)) in zip(rows, coded, strict=True):
        exact = np.ldexp(row - rows[64 * key], exponent)
        np.testing.assert_array_equal(parts["differences"], exact.astype(np.float16))
    files = {
        "key_rows": rows[[0, 64]],
        "differences": np.array([parts["differences"] for parts, _ in coded]),
    }
    columns = dict(zip(coder.fields, np.array([fields for _, fields in coded]).T, strict=True))
    found = coder.decode(files, columns)["snapshots"]
    assert isinstance(found, DifferenceRows)
    distance = np.abs(rows - rows[np.arange(100) // 64 * 64]).max(axis=1)
    assert (np.abs(found[:] - rows).max(axis=1) <= 2.0**-11 * distance + 1e-7).all()


def test_a_later_format_is_refused(tmp_path):
    kept(path([0.01], straight=True), store=tmp_path)
    manifest = tmp_path / "skdmap-store.json"
    manifest.write_bytes(checked_line(parse_line(manifest.read_bytes()) | {"format": 4}))
    with pytest.raises(ValueError, match="has format 4; it must be at most 3"):
        open_trajectory(tmp_path)
