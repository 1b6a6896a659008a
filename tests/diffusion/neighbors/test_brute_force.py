"""Neighbours by projections are the exact ones, and projections are used only where they pay."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from skdmap import DiffusionMap
from skdmap.diffusion._neighbors import brute_force as _projected
from skdmap.diffusion._neighbors.brute_force import projected_lists


def surface(n_rows, n_columns, noise, dtype=np.float64, shift=0.0):
    """Return rows on a curved surface of three dimensions, with noise in all columns."""
    rng = np.random.default_rng(0)
    u = rng.uniform(-1, 1, (n_rows, 3))
    few = np.column_stack([u, np.cos(2 * u), u[:, :1] * u[:, 1:]])
    rows = few @ rng.standard_normal((few.shape[1], n_columns))
    return (rows + noise * rng.standard_normal(rows.shape) + shift).astype(dtype)


@pytest.fixture
def few_rows_are_enough(monkeypatch):
    monkeypatch.setattr(_projected, "_LEAST_ROWS", 100)
    monkeypatch.setattr(_projected, "_PRODUCT_PAIRS", 0.1)
    monkeypatch.setattr(_projected, "_ROWS_AT_ONCE", 300)


@pytest.mark.parametrize("noise", [0.0, 0.05, 1.0])
@pytest.mark.parametrize(
    ("dtype", "shift"), [(np.float64, 0.0), (np.float64, 1e4), (np.float32, 0)]
)
def test_lists_are_exact(few_rows_are_enough, noise, dtype, shift):
    """Also where noise fills all columns, and most rows have to be measured."""
    X = surface(1000, 40, noise, dtype, shift)
    indices, distances = projected_lists(X, 12)
    exact, expected = (
        NearestNeighbors(n_neighbors=12, algorithm="kd_tree")
        .fit(X.astype(np.float64))
        .kneighbors(X.astype(np.float64))
    )
    order = np.argsort(distances, axis=1)
    np.testing.assert_allclose(np.take_along_axis(distances, order, axis=1), exact, rtol=1e-12)
    np.testing.assert_array_equal(np.sort(indices, axis=1), np.sort(expected, axis=1))


def test_the_sample_says_where_it_pays():
    assert projected_lists(surface(5500, 40, 0.01), 8) is not None
    # Without a surface nearly every row is a candidate.
    noise = np.random.default_rng(1).standard_normal((5500, 40))
    assert projected_lists(noise, 8) is None
    assert projected_lists(surface(400, 40, 0.01), 8) is None


def test_a_map_does_not_depend_on_the_search(monkeypatch):
    X = surface(5500, 24, 0.01)
    settings = {"n_neighbors": 64, "bandwidth": 0.8, "random_state": 0}
    one = DiffusionMap(**settings).fit(X)
    monkeypatch.setattr(_projected, "_LEAST_ROWS", 10**9)
    other = DiffusionMap(**settings).fit(X)
    np.testing.assert_allclose(one.eigenvalues_, other.eigenvalues_, rtol=1e-9)
    np.testing.assert_allclose(one.transform(X[:50]), one.embedding_[:50], rtol=1e-7, atol=1e-9)
