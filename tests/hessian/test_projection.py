"""Coordinates along directions, and signs."""

import numpy as np
import pytest

from skdmap.hessian._projection import lift, orient_like, orient_rows, project


def test_the_largest_entry_of_each_row_becomes_positive():
    rows = np.array([[0.6, -0.8], [0.8, 0.6]])
    np.testing.assert_array_equal(orient_rows(rows), [[-0.6, 0.8], [0.8, 0.6]])


def test_signs_follow_the_rows_before():
    rows, before = np.array([[0.6, -0.8], [1.0, 0.0]]), np.array([[0.0, 1.0], [0.0, 1.0]])
    np.testing.assert_array_equal(orient_like(rows, before), [[-0.6, 0.8], [1.0, 0.0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_coordinates_are_relative_to_the_origin_and_lead_back(dtype):
    X, directions = np.array([[3.0, 5.0]], dtype=dtype), np.array([[0.0, 1.0]])
    origin = np.array([1.0, 1.0])
    Z = project(X, directions, origin)
    assert Z.dtype == dtype
    np.testing.assert_array_equal(Z, [[4.0]])
    np.testing.assert_array_equal(project(X, directions, None), [[5.0]])
    assert lift(Z, directions, origin).dtype == dtype
    np.testing.assert_array_equal(lift(Z, directions, origin), [[1.0, 5.0]])
    np.testing.assert_array_equal(lift(Z, directions, None), [[0.0, 4.0]])


def test_small_differences_of_large_float32_snapshots_are_kept():
    origin = np.full(3, 1e4)
    X = (origin + np.array([[0.0, 0.0, 1 / 1024]])).astype(np.float32)
    assert project(X, np.eye(3)[2:], origin)[0, 0] == np.float32(1 / 1024)
