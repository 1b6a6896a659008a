import numpy as np
import pytest

from skdmap.diagnostics import null_envelope, random_walk


def test_an_envelope_holds_a_walk_and_not_a_circle(make_path):
    inside = null_envelope(make_path("walk", 3), null="random_walk", random_state=0)
    assert np.mean((inside.lower <= inside.values) & (inside.values <= inside.upper)) >= 0.5
    outside = null_envelope(make_path("circle", 3), random_state=0, n_surrogates=39)
    assert np.sum((outside.values < outside.lower) | (outside.values > outside.upper)) >= 8
    assert f"{np.sum(outside.values > outside.upper)} lie above" in outside.summary()


def test_principal_shares_are_those_of_the_variance():
    rows = random_walk(80, 30, random_state=0)
    variance = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) ** 2
    found = null_envelope(rows, curve="principal", n_values=6, n_surrogates=2, random_state=0)
    np.testing.assert_allclose(found.values, variance[:6] / variance.sum(), rtol=1e-9)


def test_bad_input_of_the_envelope_is_named():
    with pytest.raises(ValueError, match="n_values=30 must be at most 29"):
        null_envelope(np.eye(30), n_values=30)
    with pytest.raises(ValueError, match="curve='pca' must be one of 'diffusion'"):
        null_envelope(np.eye(30), curve="pca")
