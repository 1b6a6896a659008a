"""Wide samples for tests: a random walk, rows behind slices, and a curve in many columns."""

import numpy as np
import pytest

from skdmap.diffusion._wide.column_reader import WIDE

N_COLUMNS = WIDE + 37


class _Slices:
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


def _walk(n_rows, n_columns, step=1e-4, dtype=np.float32, seed=0):
    """Return late training: a random walk of short steps from a far point."""
    rng = np.random.default_rng(seed)
    rows = np.empty((n_rows, n_columns), dtype)
    row = rng.standard_normal(n_columns).astype(dtype)
    for i in range(n_rows):
        rows[i] = row
        row = row + (step * rng.standard_normal(n_columns)).astype(dtype)
    return rows


@pytest.fixture(scope="session")
def Slices():
    return _Slices


@pytest.fixture(scope="session")
def walk():
    return _walk


@pytest.fixture(scope="module")
def narrow():
    """Rows on a curve, and the same rows after a rotation into many columns, nearly an isometry."""
    angle = np.sort(np.random.default_rng(4).uniform(0, 5, 300))
    rows = np.column_stack([np.cos(angle), np.sin(angle), 0.3 * angle])
    basis = np.linalg.qr(np.random.default_rng(5).standard_normal((N_COLUMNS, 3)))[0]
    return rows, rows @ basis.T + 1.0
