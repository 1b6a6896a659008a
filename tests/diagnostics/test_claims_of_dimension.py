"""How often dimension_test claims what is not there (size) and what is there (power)."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import binom

from skdmap.diagnostics import dimension_test
from skdmap.diagnostics._dense_diffusion_map import squared_distances
from skdmap.diagnostics._dimension_claims import CLAIMS
from skdmap.diagnostics._dimension_test import thin_runs
from skdmap.diagnostics._null_models.models import run_surrogates
from skdmap.diagnostics._statistics import STATISTICS

N_ROWS, N_COLUMNS = 200, 1000


def filtered(noise, memory):
    """Return the rows of a first-order filter that starts in equilibrium."""
    rows = noise.copy()
    rows[0] /= np.sqrt(1 - memory**2)
    for i in range(1, len(rows)):
        rows[i] += memory * rows[i - 1]
    return rows


def white(noise, scale, generator):
    return noise


def walk(noise, scale, generator):
    return np.cumsum(noise, axis=0)


def momentum(noise, scale, generator):
    return np.cumsum(filtered(noise, 0.9), axis=0)


def drift(noise, scale, generator):
    direction = scale * generator.standard_normal(N_COLUMNS)
    direction *= np.linalg.norm(scale) / np.linalg.norm(direction)
    return np.cumsum(0.3 * direction + np.sqrt(1 - 0.3**2) * noise, axis=0)


def decaying(noise, scale, generator):
    return np.cumsum(noise * np.geomspace(1, 0.02, N_ROWS)[:, None], axis=0)


def mean_reverting(noise, scale, generator):
    return filtered(noise, 0.95)


def many_pulls(noise, scale, generator):
    return filtered(noise, 1 - np.geomspace(0.5, 0.002, N_COLUMNS))


def regression(noise, scale, generator, n_samples=2000, batch=10, burn_in=500):
    """Return SGD on a linear regression, converged; inputs have the given scale."""
    inputs = generator.standard_normal((n_samples, N_COLUMNS)) * scale
    targets = inputs @ generator.standard_normal(N_COLUMNS) + generator.standard_normal(n_samples)
    theta = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    rate = 0.05 * n_samples / np.linalg.norm(inputs, 2) ** 2
    rows = np.empty((burn_in + N_ROWS, N_COLUMNS))
    for i in range(len(rows)):
        chosen = generator.integers(0, n_samples, batch)
        residuals = inputs[chosen] @ theta - targets[chosen]
        theta = theta - rate / batch * residuals @ inputs[chosen]
        rows[i] = theta
    return rows[burn_in:]


ISOTROPIC, HARMONIC = np.ones(N_COLUMNS), np.arange(1, N_COLUMNS + 1.0) ** -0.5
KINDS = {
    f"{kind.__name__} {name}": (kind, scale)
    for kind in (white, walk, momentum, drift, decaying, mean_reverting, regression)
    for name, scale in (("isotropic", ISOTROPIC), ("1/i", HARMONIC))
} | {"many_pulls isotropic": (many_pulls, ISOTROPIC)}


def noise(name, seed):
    kind, scale = KINDS[name]
    generator = np.random.default_rng(seed)
    return kind(generator.standard_normal((N_ROWS, N_COLUMNS)) * scale, scale, generator)


def turns(count):
    return np.linspace(0, 2 * np.pi * count, N_ROWS, endpoint=False)


def circle(t):
    return np.column_stack([np.cos(t), np.sin(t)])


def figure_eight(t):
    return np.column_stack([np.cos(t), np.sin(2 * t)])


def five_dimensions(t):
    waves = [np.cos(t), np.sin(t), np.cos(2 * t), np.sin(2 * t), np.cos(3 * t)]
    return np.column_stack(waves) / 1.5


def spiral(t):
    return np.linspace(1, 0.2, len(t))[:, None] * circle(t)


CURVES = {
    "circle, 2 turns": (circle, 2),
    "circle, 3 turns": (circle, 3),
    "figure eight, 2 turns": (figure_eight, 2),
    "curve in 5 dimensions, 2 turns": (five_dimensions, 2),
    "spiral, 3 turns": (spiral, 3),
    "figure eight, 1 turn": (figure_eight, 1),
}
CLOSED = list(CURVES)[:4]


def curve(name, noise_per_column, seed):
    shape, count = CURVES[name]
    points = shape(turns(count))
    generator = np.random.default_rng(seed)
    plane = np.linalg.qr(generator.standard_normal((N_COLUMNS, points.shape[1])))[0]
    return points @ plane.T + noise_per_column * generator.standard_normal((N_ROWS, N_COLUMNS))


def hidden_walk(n_dimensions, seed):
    generator = np.random.default_rng(seed)
    plane = np.linalg.qr(generator.standard_normal((N_COLUMNS, n_dimensions)))[0]
    return np.cumsum(generator.standard_normal((N_ROWS, n_dimensions)), axis=0) @ plane.T


def levels(rows_of_seed, seeds, n_surrogates=39):
    """Count the levels over seeds. With 39 surrogates the least corrected p-value is .05."""
    return Counter(
        dimension_test(rows_of_seed(seed), n_surrogates=n_surrogates, random_state=seed).level
        for seed in seeds
    )


def is_claimed(claim, rows, seed, n_surrogates=39, batch=3):
    """Whether all null models of a claim have p <= .05: with 39 surrogates, at most one as extreme.

    It stops at the second one, so that the many cases without a claim take little time. The
    correction for two claims can only lower the number of claims.
    """
    statistic, nulls = CLAIMS[claim]
    chosen = STATISTICS[statistic]
    (run,), _, n_columns = thin_runs(rows, None, N_ROWS)
    value = chosen.compute(run.distances(), run.elapsed())
    if claim == "fewer_dimensions" and value > n_columns / 4:
        return False
    generator = np.random.default_rng([seed, 1])
    for null in nulls[::-1]:
        n_extreme = 0
        for _ in range(n_surrogates // batch):
            for points in run_surrogates(run.gram, n_columns, null, batch, generator):
                drawn = chosen.compute(squared_distances(points), run.elapsed())
                n_extreme += chosen.sign * drawn >= chosen.sign * value
            if n_extreme > 1:
                return False
    return True


def count(claim, rows_of_seed, seeds):
    return sum(is_claimed(claim, rows_of_seed(seed), seed) for seed in seeds)


def most(n, share=0.05, risk=0.01):
    """Return the largest count that n draws of probability ``share`` exceed with at most risk."""
    return int(binom.ppf(1 - risk, n, share))


@pytest.mark.parametrize("name", ["walk isotropic", "mean_reverting 1/i", "momentum isotropic"])
def test_noise_is_seldom_more_than_linear(name):
    found = levels(lambda seed: noise(name, seed), range(3))
    assert found["beyond_linear"] <= 1
    if "isotropic" in name:
        assert found["noise"] >= 2
    else:
        assert found["fewer_dimensions"] >= 2


def test_sgd_with_isotropic_inputs_counts_as_noise():
    # Of 1000 dimensions a sample of 2000 leaves 1000 / (1 + 1000 / 2000) = 667: the test rejects
    # isotropic noise, and the claim is not made.
    claims = dimension_test(noise("regression isotropic", 0), n_surrogates=39, random_state=0)
    assert claims.level == "noise"
    assert claims.deciding("fewer_dimensions").p_value == 1 / 40
    assert claims.summary().startswith("Close to isotropic noise")


@pytest.mark.parametrize("name", CLOSED)
def test_closed_curves_are_beyond_linear(name):
    assert levels(lambda seed: curve(name, 0.03, seed), range(1)) == {"beyond_linear": 1}


def test_an_open_curve_is_not():
    # It does not come back.
    for name in set(CURVES) - set(CLOSED):
        assert levels(lambda seed: curve(name, 0.01, seed), range(1))["beyond_linear"] == 0  # noqa: B023


@pytest.mark.parametrize("n_dimensions", [2, 30])
def test_hidden_walks_have_fewer_dimensions(n_dimensions):
    found = levels(lambda seed: hidden_walk(n_dimensions, seed), range(2))
    assert found == {"fewer_dimensions": 2}


@pytest.mark.study
@pytest.mark.parametrize("name", KINDS)
def test_size(name):
    found = {
        claim: count(claim, lambda seed: noise(name, seed), range(1000, 1100)) for claim in CLAIMS
    }
    print(f"size | {name} | {found['fewer_dimensions']} | {found['beyond_linear']} |", flush=True)
    assert found["beyond_linear"] <= most(100)
    if name.endswith("isotropic"):
        assert found["fewer_dimensions"] <= most(100)


@pytest.mark.study
@pytest.mark.parametrize("noise_per_column", [0.01, 0.03])
@pytest.mark.parametrize("name", CURVES)
def test_power_on_curves(name, noise_per_column):
    found = count(
        "beyond_linear", lambda seed: curve(name, noise_per_column, seed), range(1000, 1040)
    )
    print(f"power | {name} | {noise_per_column} | {found} of 40 |", flush=True)
    assert found >= (36 if name in CLOSED else 0)


@pytest.mark.study
@pytest.mark.parametrize("n_dimensions", [2, 5, 10, 30])
def test_power_on_hidden_walks(n_dimensions):
    found = count(
        "fewer_dimensions", lambda seed: hidden_walk(n_dimensions, seed), range(1000, 1040)
    )
    print(f"power | walk in {n_dimensions} | {found} of 40 |", flush=True)
    assert found >= 38


def test_counts_with_and_without_stopping_agree():
    for name in ("walk isotropic", "white 1/i"):
        rows = noise(name, 0)
        level = dimension_test(rows, n_surrogates=39, random_state=0).level
        claims = [claim for claim in CLAIMS if is_claimed(claim, rows, 0)]
        assert claims == ([] if level == "noise" else [level])
