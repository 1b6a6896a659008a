import numpy as np
import pytest

from skdmap import DiffusionMap
from skdmap.diagnostics import random_walk
from skdmap.diagnostics._null_models.random_walk import isotropic_rows

EPS = np.finfo(np.float64).eps


def test_a_walk_has_the_diffusion_eigenvalues_of_a_beautiful_gap():
    values = []
    for seed in range(5):
        rows = random_walk(200, 2000, random_state=seed)
        squared = ((rows**2).sum(1)[:, None] + (rows**2).sum(1) - 2 * rows @ rows.T)[
            np.triu_indices(200, 1)
        ]
        fitted = DiffusionMap(4, bandwidth=float(np.sqrt(np.median(squared) / 2)), alpha=1.0)
        values.append(fitted.fit(rows).eigenvalues_)
    # The spread over seeds is .007 at most: four standard errors of the mean of five.
    np.testing.assert_allclose(np.mean(values, axis=0), [0.595, 0.285, 0.157, 0.094], atol=0.012)


def test_principal_components_of_a_walk_hold_six_over_pi_k_squared():
    shares = []
    for seed in range(5):
        rows = random_walk(400, 4000, random_state=seed)
        variance = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) ** 2
        shares.append(variance[:3] / variance.sum())
    np.testing.assert_allclose(
        np.mean(shares, axis=0), 6 / (np.pi * np.arange(1, 4)) ** 2, atol=0.01
    )


def test_steps_have_the_norms_asked_for():
    norms = np.geomspace(3, 0.01, 30)
    rows = random_walk(30, 40, step_norms=norms, lag_correlation=0.5, drift=0.2, random_state=0)
    steps = np.diff(rows, axis=0, prepend=0.0)
    # Differences of places carry the rounding of places of size 10.
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), norms, atol=1000 * EPS)


def test_successive_steps_have_the_correlation_asked_for():
    steps = np.diff(random_walk(4000, 50, lag_correlation=0.7, random_state=0), axis=0)
    # Unit variance in each column: 200,000 values, of which (1 - r^2) / (1 + r^2) count.
    assert abs(np.mean(steps**2) - 1) < 5 * np.sqrt(2 / 200_000 * 1.49 / 0.51)
    for lag in (1, 2, 3):
        found = np.mean(np.sum(steps[lag:] * steps[:-lag], axis=1)) / np.mean(steps**2) / 50
        # Bartlett's formula: variance of an autocorrelation (1 + r^2) / (1 - r^2) / N at most.
        error = np.sqrt((1 + 0.49) / (1 - 0.49) / (4000 * 50))
        assert abs(found - 0.7**lag) < 5 * error


def test_a_drift_is_the_cosine_between_step_and_direction():
    rows = random_walk(20_000, 100, step_norms=1.0, drift=0.3, random_state=0)
    direction = rows[-1] / np.linalg.norm(rows[-1])
    cosines = np.diff(rows, axis=0) @ direction
    # What is left of the isotropic part is 1 / sqrt(100 * 20000) per component.
    assert abs(cosines.mean() - 0.3) < 0.01


def test_the_dimension_one_and_one_step_work():
    assert random_walk(1, 1, random_state=0).shape == (1, 1)


@pytest.mark.parametrize(("n_columns", "n_fixed"), [(3, 0), (8, 2), (500, 0), (500, 3)])
def test_compact_rows_have_the_scalar_products_of_gaussian_rows(n_columns, n_fixed):
    generator = np.random.default_rng(0)
    n_rows, repeats = 6, 4000
    products = np.empty((repeats, n_rows, n_rows))
    along = np.empty((repeats, n_rows, n_fixed))
    for i in range(repeats):
        rows = isotropic_rows(n_rows, n_columns, n_fixed, generator)
        products[i], along[i] = rows @ rows.T, rows[:, :n_fixed]
    assert rows.shape[1] == min(n_columns, n_fixed + n_rows)
    # Wishart: mean m on the diagonal, variance m off it and 2 m on it.
    mean, variance = products.mean(axis=0), products.var(axis=0)
    identity = np.eye(n_rows)
    error = np.sqrt(2 * n_columns / repeats)
    np.testing.assert_allclose(mean, n_columns * identity, atol=5 * error)
    np.testing.assert_allclose(variance / n_columns, 1 + identity, atol=0.45)
    np.testing.assert_allclose(along.var(axis=0), 1.0, atol=0.15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 0}, "n_steps=0 must be an integer of at least 1"),
        ({"n_dimensions": 2.5}, "n_dimensions=2.5 must be"),
        ({"lag_correlation": 1.0}, r"lag_correlation=1.0 must be a finite number in \(-1, 1\)"),
        ({"drift": 1.1}, r"drift=1.1 must be a finite number in \[0, 1\]"),
        ({"step_norms": [1.0, 2.0]}, "step_norms has shape"),
        ({"step_norms": -1.0}, "step_norms .* minimum -1.0"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        random_walk(**({"n_steps": 5, "n_dimensions": 3} | options))
