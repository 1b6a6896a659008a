"""How often dimension_test claims what is not there (size) and what is there (power)."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import binom

from skdmap.diagnostics import dimension_test
from skdmap.diagnostics._dense_diffusion_map import squared_distances
from skdmap.diagnostics._dimension_claims import _MOST_DIMENSIONS, CLAIMS, holm
from skdmap.diagnostics._dimension_test import surrogate_p_value, thin_runs
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
    products = inputs.T @ inputs
    theta = np.linalg.solve(products, inputs.T @ targets)
    rate = 0.05 * n_samples / np.linalg.eigvalsh(products)[-1]
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


def p_value(claim, run, n_columns, generator, batches=(9, 10, 20, 30, 30)):
    """Return the p-value of a claim with 99 surrogates; 1 once it is sure to be above .05.

    It is, when five surrogates of one null model are as extreme: noise needs about ten of them.
    """
    statistic, nulls = CLAIMS[claim]
    chosen = STATISTICS[statistic]
    value = chosen.compute(run.distances(), run.elapsed())
    found = []
    for null in nulls[::-1]:
        drawn = []
        for size in batches:
            for points in run_surrogates(run.gram, n_columns, null, size, generator):
                drawn.append(chosen.compute(squared_distances(points), run.elapsed()))
            p = surrogate_p_value(value, np.array(drawn), chosen.sign)
            if p * (len(drawn) + 1) > 5.5:
                return 1.0, value
        found.append(p)
    return max(found), value


def level_of(rows, seed):
    """Return the level of dimension_test with 99 surrogates, drawn in another order."""
    (run,), _, n_columns = thin_runs(rows, None, N_ROWS)
    generator = np.random.default_rng([seed, 7])
    beyond, _ = p_value("beyond_linear", run, n_columns, generator)
    if beyond <= 0.025:
        return "beyond_linear"  # whatever the other claim, of two
    fewer, dimension = p_value("fewer_dimensions", run, n_columns, generator)
    fewer, beyond = holm(np.array([fewer, beyond]))
    if beyond <= 0.05:
        return "beyond_linear"
    is_few = fewer <= 0.05 and dimension <= _MOST_DIMENSIONS * n_columns
    return "fewer_dimensions" if is_few else "noise"


def count(rows_of_seed, seeds):
    return Counter(level_of(rows_of_seed(seed), seed) for seed in seeds)


def most(n, share=0.05, risk=0.01):
    """Return the largest count that n draws of probability ``share`` exceed with at most risk."""
    return int(binom.ppf(1 - risk, n, share))


@pytest.mark.parametrize(
    "name",
    [
        "walk isotropic",
        "mean_reverting 1/i",
        pytest.param("momentum isotropic", marks=pytest.mark.slow),
    ],
)
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


@pytest.mark.slow
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
    found = count(lambda seed: noise(name, seed), range(1000, 1100))
    print(f"size | {name} | {dict(found)}", flush=True)
    assert found["beyond_linear"] <= most(100)
    if name.endswith("isotropic"):
        assert found["fewer_dimensions"] <= most(100)


@pytest.mark.study
@pytest.mark.parametrize("noise_per_column", [0.01, 0.03])
@pytest.mark.parametrize("name", CURVES)
def test_power_on_curves(name, noise_per_column):
    found = count(lambda seed: curve(name, noise_per_column, seed), range(1000, 1040))
    print(f"power | {name} | {noise_per_column} | {dict(found)}", flush=True)
    assert found["beyond_linear"] >= (36 if name in CLOSED else 0)


@pytest.mark.study
@pytest.mark.parametrize("n_dimensions", [2, 5, 10, 30])
def test_power_on_hidden_walks(n_dimensions):
    found = count(lambda seed: hidden_walk(n_dimensions, seed), range(1000, 1040))
    print(f"power | walk in {n_dimensions} | {dict(found)}", flush=True)
    # Walks are linear: the higher level is a false claim.
    assert found["noise"] <= 2
    assert found["beyond_linear"] <= most(40)


@pytest.mark.slow
def test_levels_with_and_without_stopping_agree():
    rows = noise("walk isotropic", 0)
    assert dimension_test(rows, n_surrogates=39, random_state=0).level == "noise"
    assert level_of(rows, 0) == "noise"
    assert level_of(curve("circle, 2 turns", 0.03, 0), 0) == "beyond_linear"
