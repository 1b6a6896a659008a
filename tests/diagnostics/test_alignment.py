"""Alignment of two embeddings: the rotation is recovered, and nothing else is done."""

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from scipy.stats import ortho_group

from skdmap import DiffusionMap
from skdmap.diagnostics import align_embeddings


@pytest.fixture
def reference():
    return np.random.default_rng(0).normal(size=(80, 4)) * [3.0, 2.0, 1.0, 0.5]


@pytest.mark.parametrize("seed", range(5))
def test_a_rotated_embedding_is_turned_back(reference, seed):
    rotation = ortho_group.rvs(4, random_state=seed)
    result = align_embeddings(reference, reference @ rotation)
    np.testing.assert_allclose(result.aligned, reference, atol=1e-12)
    np.testing.assert_allclose(result.rotation, rotation.T, atol=1e-12)
    assert result.disparity < 1e-24
    assert result.scale == 1.0


def test_the_rotation_is_the_best_orthogonal_matrix(reference):
    other = reference + np.random.default_rng(1).normal(size=reference.shape)
    result = align_embeddings(reference, other)
    np.testing.assert_allclose(
        result.rotation, orthogonal_procrustes(other, reference)[0], atol=1e-12
    )
    best = np.sum((result.aligned - reference) ** 2)
    assert result.disparity == pytest.approx(best / np.sum(reference**2), rel=1e-12)
    for seed in range(20):
        turned = other @ ortho_group.rvs(4, random_state=seed)
        assert np.sum((turned - reference) ** 2) >= best


def test_a_scale_is_found_only_when_asked_for(reference):
    for factor in (1e-200, 0.1, 1e100):
        found = align_embeddings(reference, reference / factor, scale=True)
        assert found.scale == pytest.approx(factor, rel=1e-12)
        assert found.disparity < 1e-24
    assert align_embeddings(reference, reference / 2).disparity == pytest.approx(0.25)


def test_mixing_is_none_for_permuted_signs_and_half_for_a_turn_of_45_degrees(reference):
    permuted = reference[:, [1, 0, 3, 2]] * [1, -1, -1, 1]
    np.testing.assert_allclose(align_embeddings(reference, permuted).mixing, 0, atol=1e-12)
    turn = np.eye(4)
    turn[:2, :2] = np.array([[1, 1], [-1, 1]]) / np.sqrt(2)
    result = align_embeddings(reference, reference @ turn)
    np.testing.assert_allclose(result.mixing, [0.5, 0.5, 0, 0], atol=1e-12)
    assert "Coordinate 0 mixes several (mixing 0.50)" in result.summary()


def test_mixing_is_of_the_reference_coordinates(reference):
    """Coordinate k of the reference is made of those of the embedding by column k of the turn."""
    turn = ortho_group.rvs(4, random_state=3)
    mixing = align_embeddings(reference, reference @ turn.T).mixing
    np.testing.assert_allclose(mixing, [1 - max(turn[:, k] ** 2) for k in range(4)], atol=1e-12)
    assert not np.allclose(mixing, [1 - max(turn[k] ** 2) for k in range(4)], atol=0.01)


def test_samples_with_nan_are_left_out(reference):
    rotation = ortho_group.rvs(4, random_state=0)
    turned, given = reference @ rotation, reference.copy()
    given[3], turned[7, 1] = np.nan, np.nan
    before = turned.copy()
    result = align_embeddings(given, turned)
    assert result.n_samples == 78
    np.testing.assert_allclose(result.rotation, rotation.T, atol=1e-12)
    np.testing.assert_allclose(result.aligned[3], reference[3], atol=1e-12)
    assert np.isnan(result.aligned[7]).any()
    np.testing.assert_array_equal(turned, before)


def test_single_precision_stays_single(reference):
    values = reference.astype(np.float32)
    assert align_embeddings(values, values).aligned.dtype == np.float32


@pytest.mark.parametrize(
    ("reference", "embedding", "message"),
    [
        (np.ones((3, 2)), np.ones((4, 2)), r"shape \(3, 2\) and embedding \(4, 2\)"),
        (DiffusionMap(), DiffusionMap(), "of a map pass its embedding_"),
        (np.ones(3), np.ones(3), "must be"),
        (np.full((3, 2), np.inf), np.ones((3, 2)), "reference contains infinity"),
        (np.full((3, 2), np.nan), np.ones((3, 2)), "0 samples without NaN are left"),
        (np.zeros((3, 2)), np.ones((3, 2)), "not all 0"),
    ],
)
def test_bad_input_is_named(reference, embedding, message):
    with pytest.raises(ValueError, match=message):
        align_embeddings(reference, embedding)
