"""The sketch is one linear map, the same everywhere, that keeps squared distances."""

import itertools

import numpy as np
import pytest
import torch

from skdmap import DiffusionMap
from skdmap._parameters import parameter_layout
from skdmap.trajectory._storage.sketch import _splitmix64, sketch_key, sketch_part, sketch_vector
from skdmap.trajectory._storage.writer import open_writer


def test_the_hash_is_splitmix64():
    # The first outputs of the published generator from seed 0.
    outputs = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert _splitmix64(0, 1, 3).tolist() == outputs
    # The counter wraps around at 2^64.
    assert _splitmix64(2**64 - 1, 2, 3).tolist() == outputs


def test_each_column_has_one_half_in_each_of_four_blocks():
    for dim in (4, 20, 64):
        matrix = np.array([sketch_part(row, key=11, sketch_dim=dim) for row in np.eye(300)])
        blocks = matrix.reshape(300, 4, dim // 4)
        np.testing.assert_array_equal(np.abs(blocks).sum(axis=2), 0.5)
        np.testing.assert_array_equal((blocks != 0).sum(axis=2), 1)


def test_sign_and_row_are_sixteen_bits_of_the_hash():
    key, dim, index = 12345, 40, 678
    z = (key + index) * 0x9E3779B97F4A7C15 % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    z ^= z >> 31
    expected = np.zeros((4, 10))
    for block in range(4):
        half, row = divmod((z >> (16 * block)) % 2**16 * 20 // 2**16, 10)
        expected[block, row] = -0.5 if half else 0.5
    found = sketch_part(np.ones(1), key=key, sketch_dim=dim, first=index)
    np.testing.assert_array_equal(found, expected.reshape(-1))


def test_signs_and_rows_are_evenly_drawn():
    n, dim = 4000, 40
    matrix = np.array([sketch_part(row, key=3, sketch_dim=dim) for row in np.eye(n)])
    # Each of 40 rows is hit with chance 1/10; five standard deviations.
    hits = (matrix != 0).sum(axis=0)
    assert np.abs(hits - n / 10).max() < 5 * np.sqrt(n * 0.09)
    assert np.abs(np.sign(matrix).sum(axis=0)).max() < 5 * np.sqrt(n / 10)
    signs = np.sign(matrix.reshape(n, 4, 10).sum(axis=2))
    # Signs of one column in two blocks have nothing to do with each other.
    assert np.abs(signs.T @ signs / n - np.eye(4)).max() < 5 / np.sqrt(n)


def test_stretches_add_up_to_the_whole():
    # Longer than what is hashed at a time, cut where no chunk ends.
    x = np.random.default_rng(0).normal(size=600_000)
    whole = sketch_part(x, key=7, sketch_dim=256)
    cuts = [0, 1, 262_144, 300_001, 600_000]
    parts = [
        sketch_part(x[a:b], key=7, sketch_dim=256, first=a) for a, b in itertools.pairwise(cuts)
    ]
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-10, atol=1e-9)


def test_the_map_is_linear():
    a, b = np.random.default_rng(0).normal(size=(2, 5000))
    options = {"key": 5, "sketch_dim": 128}
    expected = 2 * sketch_part(a, **options) - 3 * sketch_part(b, **options)
    np.testing.assert_allclose(sketch_part(2 * a - 3 * b, **options), expected, atol=1e-12)


def test_squared_lengths_are_kept_on_average_and_spread_as_they_should():
    x = np.random.default_rng(0).normal(size=5000)
    dim = 64
    sketches = [sketch_part(x, key=sketch_key(seed, "w"), sketch_dim=dim) for seed in range(2000)]
    errors = np.square(sketches).sum(axis=1) / (x @ x) - 1
    spread = np.sqrt(2 / dim)
    assert abs(errors.mean()) < 5 * spread / np.sqrt(2000)
    # Its own standard error is about 1 / sqrt(2 n) = 1.6 %.
    assert errors.std() == pytest.approx(spread, rel=0.08)


def test_a_row_is_sketched_parameter_by_parameter_by_name_and_seed():
    layout = parameter_layout(torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Linear(5, 2)))
    theta = np.random.default_rng(0).normal(size=layout.n_parameters)
    sketch = sketch_vector(theta, layout, sketch_dim=32, seed=1)
    parts = [
        sketch_part(theta[part], key=sketch_key(1, name), sketch_dim=32)
        for name, part in zip(layout.names, layout.slices, strict=True)
    ]
    np.testing.assert_allclose(sketch, sum(parts), rtol=1e-12, atol=1e-14)
    assert not np.allclose(sketch, sketch_vector(theta, layout, sketch_dim=32, seed=2))
    renamed = parameter_layout(torch.nn.Sequential(torch.nn.Identity(), *layout_modules()))
    assert not np.allclose(sketch, sketch_vector(theta, renamed, sketch_dim=32, seed=1))


def layout_modules():
    return [torch.nn.Linear(7, 5), torch.nn.Linear(5, 2)]


def test_distances_from_a_first_row_that_is_not_known_are_unknown(tmp_path):
    """Endpoints and state are lost: the sketch of row 0 is not row 0."""
    rows = np.random.default_rng(0).normal(size=(4, 20))
    writer = open_writer(20, sketch_dim=8, store=tmp_path / "s")
    for step in (0, 1):
        writer.append(rows[step], step=step, loss=0.0)
    writer.close()
    for path in (tmp_path / "s").glob("*.bin"):
        path.unlink()
    again = open_writer(20, sketch_dim=8, store=tmp_path / "s", resume=True)
    for step in (2, 3):
        again.append(rows[step], step=step, loss=0.0)
    again.save_state({})
    found = again.table()
    again.close()
    assert np.flatnonzero(np.isnan(found.start_distances)).tolist() == [2, 3]
    np.testing.assert_allclose(found.step_lengths[3], np.linalg.norm(rows[3] - rows[2]))
    assert np.flatnonzero(np.isnan(found.step_lengths)).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("n", "n_rows", "dim"),
    [
        (20_000, 60, 1024),
        pytest.param(1_000_000, 200, 4096, marks=pytest.mark.slow),
        pytest.param(10_000_000, 200, 4096, marks=pytest.mark.slow),
    ],
)
def test_distances_and_leading_coordinates_of_a_walk_come_out(n, n_rows, dim):
    """Made stretch by stretch: at 10^7 columns the rows would take 8 GB."""
    d_exact, sketch = np.zeros((n_rows, n_rows)), np.zeros((n_rows, dim))
    for first, rows in stretches_of_a_walk(n, n_rows):
        sketch += [
            sketch_part(row, key=sketch_key(0, "w"), sketch_dim=dim, first=first) for row in rows
        ]
        d_exact += squared_distances(rows)
    d_sketch = squared_distances(sketch.astype(np.float32))
    pairs = np.triu_indices(n_rows, 1)
    errors = np.abs(d_sketch[pairs] / d_exact[pairs] - 1) / np.sqrt(2 / dim)
    assert errors.max() < 6
    assert (errors < 3).mean() >= 0.99
    for coordinates in (principal_coordinates, diffusion_coordinates):
        assert largest_angle(coordinates(d_exact), coordinates(d_sketch)) < 0.05


def stretches_of_a_walk(n, n_rows, width=2**17):
    """Yield rows of a curve in few directions with noise, as a trajectory is, column by column."""
    t = np.linspace(0, 1, n_rows)
    curve = np.stack([3 * t, np.cos(3 * t), 0.5 * np.sin(9 * t)], axis=1).astype(np.float32)
    for first in range(0, n, width):
        rng = np.random.default_rng([0, first])
        here = min(width, n - first)
        rows = rng.standard_normal((n_rows, here), dtype=np.float32)
        rows *= 0.02
        np.cumsum(rows, axis=0, out=rows)
        rows += curve @ rng.standard_normal((3, here), dtype=np.float32)
        yield first, rows


def squared_distances(rows):
    # From the mean row on: what is subtracted below is then no larger than the distances are.
    centred = rows.astype(np.float64)
    centred -= centred.mean(axis=0)
    gram = centred @ centred.T
    norms = np.diag(gram)
    return norms[:, None] + norms - 2 * gram


def principal_coordinates(squared):
    """Classical scaling: the left singular vectors of the centred rows."""
    centring = np.eye(len(squared)) - 1 / len(squared)
    return np.linalg.eigh(-0.5 * centring @ squared @ centring)[1][:, -3:]


def diffusion_coordinates(squared):
    distances = np.sqrt(np.maximum(squared, 0))
    np.fill_diagonal(distances, 0)
    return DiffusionMap(3, bandwidth="auto", metric="precomputed").fit(distances).embedding_


def largest_angle(a, b):
    """Radians between the spaces that the columns span."""
    a, b = np.linalg.qr(a)[0], np.linalg.qr(b)[0]
    # By the sine: the arc cosine of a number near 1 has half of its digits.
    return np.arcsin(np.clip(np.linalg.norm(b - a @ (a.T @ b), ord=2), 0, 1))
