import numpy as np
import pytest

from skdmap.diagnostics import subspace_overlap

EPS = np.finfo(np.float64).eps


def random_rows(k, m, seed):
    return np.random.default_rng(seed).standard_normal((k, m))


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.0, np.pi / 2])
def test_one_direction_gives_the_squared_cosine_of_the_angle(angle):
    result = subspace_overlap([[1.0, 0.0, 0.0]], [[np.cos(angle), np.sin(angle), 0.0]])
    assert result.overlap == pytest.approx(np.cos(angle) ** 2, abs=8 * EPS)


def test_cosines_are_those_of_the_planes_that_were_built():
    # Planes span(e1, e3) and span(cos a e1 + sin a e2, cos b e3 + sin b e4).
    a, b = 0.2, 1.1
    A = np.array([[1.0, 0, 0, 0, 0], [0, 0, 1, 0, 0]])
    B = np.array([[np.cos(a), np.sin(a), 0, 0, 0], [0, 0, np.cos(b), np.sin(b), 0]])
    result = subspace_overlap(A, B)
    np.testing.assert_allclose(result.cosines, [np.cos(a), np.cos(b)], atol=8 * EPS)
    assert result.overlap == pytest.approx((np.cos(a) ** 2 + np.cos(b) ** 2) / 2, abs=8 * EPS)


def test_the_basis_does_not_matter():
    A, B = random_rows(4, 30, 0), random_rows(3, 30, 1)
    mixed = random_rows(4, 4, 2) @ A * np.array([[1e-6], [1.0], [1e6], [3.0]])
    before, after = subspace_overlap(A, B), subspace_overlap(mixed, B)
    # The mixing matrix has a condition number near 10; 1e-10 leaves room for it.
    np.testing.assert_allclose(after.cosines, before.cosines, atol=1e-10)


def test_rows_of_very_different_length_are_not_called_dependent():
    A = np.array([[1e-12, 0, 0], [0, 1e12, 0]])
    assert subspace_overlap(A, np.eye(3)[:2]).overlap == pytest.approx(1.0, abs=8 * EPS)


def test_a_space_inside_a_larger_one_overlaps_fully_both_ways():
    A = random_rows(5, 40, 3)
    assert subspace_overlap(A[:2], A).overlap == pytest.approx(1.0, abs=64 * EPS)
    assert subspace_overlap(A, A[:2]).overlap == pytest.approx(1.0, abs=64 * EPS)


def test_random_spaces_overlap_at_the_chance_level():
    k_a, k_b, m, repeats = 6, 3, 50, 400
    results = [
        subspace_overlap(random_rows(k_a, m, i), random_rows(k_b, m, 10_000 + i))
        for i in range(repeats)
    ]
    values = np.array([result.overlap for result in results])
    assert results[0].chance == k_a / m
    standard_error = values.std() / np.sqrt(repeats)
    assert abs(values.mean() - k_a / m) < 4 * standard_error


@pytest.mark.parametrize(
    ("A", "B", "message"),
    [
        (np.ones(3), np.eye(3), r"A has shape \(3,\).*A\[None, :\]"),
        (np.eye(3), np.empty((0, 3)), r"B has shape \(0, 3\)"),
        (np.eye(3), np.eye(4), "A has 3 columns and B has 4"),
        ([[1.0, np.nan]], np.eye(2), "A contains NaN"),
        ([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0]], np.eye(3), "A has 2 rows of rank 1"),
        ([[0.0, 0.0]], np.eye(2), "A has 1 rows of rank 0"),
        (np.eye(2), [[1.0, 0], [0, 1], [1, 1]], "B has 3 rows of rank 2"),
    ],
)
def test_bad_input_is_named(A, B, message):
    with pytest.raises(ValueError, match=message):
        subspace_overlap(A, B)


def test_the_summary_says_whether_the_overlap_is_above_chance():
    first = np.eye(3)[:1]
    assert ", above the 0.333" in subspace_overlap(first, first).summary()
    assert "not above the 0.333" in subspace_overlap(first, np.eye(3)[1:2]).summary()
