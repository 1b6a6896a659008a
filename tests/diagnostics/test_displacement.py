import numpy as np
import pytest

import skdmap.diagnostics._displacement as stage
from skdmap.diagnostics import displacement_share

EPS = np.finfo(np.float64).eps


def orthonormal(k, m, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((m, k)))[0].T


def test_the_share_is_the_one_that_was_built():
    # Displacement a along the directions and b off them: share a^2 / (a^2 + b^2).
    basis = orthonormal(4, 20)
    inside, outside = np.array([1.0, 2.0, 0.0]), np.array([0.0, 1.0, 5.0])
    start = np.random.default_rng(1).standard_normal(20)
    moves = inside[:, None] * basis[0] + outside[:, None] * basis[3]
    result = displacement_share(np.vstack([start, start + moves]), basis[:3])
    assert np.isnan(result.share[0])
    np.testing.assert_allclose(
        result.share[1:], inside**2 / (inside**2 + outside**2), atol=100 * EPS
    )
    np.testing.assert_allclose(
        result.squared_displacement[1:], inside**2 + outside**2, rtol=100 * EPS
    )


def test_a_full_basis_holds_the_whole_displacement():
    snapshots = np.random.default_rng(2).standard_normal((7, 9))
    result = displacement_share(snapshots, orthonormal(9, 9))
    np.testing.assert_allclose(result.share[1:], 1.0, atol=100 * EPS)
    assert result.chance == 1.0


def test_shares_of_complementary_directions_add_up_to_one():
    snapshots, basis = np.random.default_rng(3).standard_normal((7, 9)), orthonormal(9, 9)
    low = displacement_share(snapshots, basis[:4])
    high = displacement_share(snapshots, basis[4:])
    np.testing.assert_allclose(low.share[1:] + high.share[1:], 1.0, atol=100 * EPS)
    assert low.chance + high.chance == pytest.approx(1.0)


def test_random_displacements_have_the_chance_share():
    m, k, repeats = 60, 6, 4000
    rows = np.random.default_rng(4).standard_normal((repeats, m))
    result = displacement_share(rows, orthonormal(k, m), origin=np.zeros(m))
    # The share is Beta(k/2, (m-k)/2) with this variance.
    deviation = np.sqrt(2 * k * (m - k) / (m**2 * (m + 2)))
    assert result.chance == k / m
    assert abs(result.share.mean() - k / m) < 4 * deviation / np.sqrt(repeats)


def test_shift_rotation_and_scale_do_not_matter():
    snapshots, basis = np.random.default_rng(5).standard_normal((6, 8)), orthonormal(3, 8, 6)
    rotation = orthonormal(8, 8, 7)
    moved = displacement_share(3.0 * snapshots @ rotation + 11.0, basis @ rotation)
    np.testing.assert_allclose(
        moved.share[1:], displacement_share(snapshots, basis).share[1:], atol=1000 * EPS
    )


@pytest.mark.parametrize("origin", [2, -4])
def test_the_origin_is_a_row_or_the_same_point(origin):
    snapshots, basis = np.random.default_rng(8).standard_normal((6, 8)), orthonormal(3, 8)
    by_row = displacement_share(snapshots, basis, origin=origin)
    by_point = displacement_share(snapshots, basis, origin=snapshots[2])
    assert np.flatnonzero(np.isnan(by_row.share)).tolist() == [2]
    np.testing.assert_array_equal(by_row.share, by_point.share)


def test_blocks_do_not_change_the_result(monkeypatch):
    snapshots, basis = np.random.default_rng(9).standard_normal((11, 8)), orthonormal(3, 8)
    whole = displacement_share(snapshots, basis)
    monkeypatch.setattr(stage, "_BLOCK_BYTES", 8 * 8 * 3)
    np.testing.assert_allclose(
        displacement_share(snapshots, basis).share, whole.share, rtol=16 * EPS
    )


def test_float32_rows_are_differenced_in_float64():
    # A displacement of 1e-4 beside entries of 1: differences of float32 rows are exact in float64.
    rng = np.random.default_rng(10)
    snapshots = (1.0 + 1e-4 * rng.standard_normal((5, 40))).astype(np.float32)
    basis = orthonormal(4, 40)
    exact = displacement_share(snapshots.astype(np.float64), basis)
    np.testing.assert_array_equal(displacement_share(snapshots, basis).share, exact.share)


@pytest.mark.parametrize(
    ("snapshots", "components", "origin", "message"),
    [
        (np.ones(3), np.eye(3), 0, r"snapshots has shape \(3,\)"),
        (np.eye(3), np.ones(3), 0, r"components has shape \(3,\)"),
        (np.eye(3), np.eye(4), 0, "components has 4 columns and snapshots has 3"),
        (np.eye(3), 2 * np.eye(3), 0, "components must have orthonormal rows.*qr"),
        (np.eye(3), np.full((1, 3), np.nan), 0, "components must have orthonormal rows"),
        (np.eye(3), np.eye(3), 3, r"origin=3 must be an index in \[-3, 2\]"),
        (np.eye(3), np.eye(3), [1.0, 2.0], r"origin has shape \(2,\)"),
        ([[0.0, 1.0], [np.inf, 1.0]], np.eye(2), 0, "snapshots contains NaN or infinity in row 1"),
    ],
)
def test_bad_input_is_named(snapshots, components, origin, message):
    with pytest.raises(ValueError, match=message):
        displacement_share(snapshots, components, origin=origin)


def test_the_summary_says_whether_the_share_is_above_chance():
    points = [[0.0, 0.0], [3.0, 4.0]]
    assert "0.36" in displacement_share(points, [[1.0, 0.0]]).summary()
    assert "not above the 0.5" in displacement_share(points, [[1.0, 0.0]]).summary()
    assert ", above the 0.5" in displacement_share(points, [[0.0, 1.0]]).summary()
    assert "no displacement" in displacement_share(points[:1], [[0.0, 1.0]]).summary()
