"""The dimension of increments: closed forms, intervals, lags, runs and sketches."""

from types import SimpleNamespace

import numpy as np
import pytest

from skdmap.diagnostics import effective_dimension, random_walk
from skdmap.diagnostics._effective_dimension import default_lags
from skdmap.trajectory._storage.sketch import sketch_vector

N_ROWS = 200
HARMONIC = 1 / np.arange(1, 1001.0)


def participation(variances):
    return variances.sum() ** 2 / np.sum(variances**2)


def steps_of(kind, generator, n_dimensions, n_rows=N_ROWS):
    noise = generator.standard_normal((n_rows, n_dimensions))
    if kind == "decaying":
        return noise * np.geomspace(1, 0.02, n_rows)[:, None]
    if kind == "momentum":
        for i in range(1, n_rows):
            noise[i] = 0.9 * noise[i - 1] + np.sqrt(0.19) * noise[i]
    return noise


def noisy_path(kind, n_dimensions, seed, variances=None):
    generator = np.random.default_rng(seed)
    steps = steps_of(kind, generator, n_dimensions)
    if variances is not None:
        steps = steps * np.sqrt(variances)
    if kind == "ornstein_uhlenbeck":
        rows = steps.copy()
        for i in range(1, N_ROWS):
            rows[i] += 0.95 * rows[i - 1]
        return rows
    return np.cumsum(steps, axis=0)


KINDS = ["walk", "ornstein_uhlenbeck", "decaying", "momentum"]


def covered(kind, n_dimensions, seeds, variances=None):
    """Return the share of seeds with the truth in the interval, relative widths, and dimensions."""
    truth = n_dimensions if variances is None else participation(variances)
    found = [
        effective_dimension(noisy_path(kind, n_dimensions, seed, variances), lags=[1])
        for seed in seeds
    ]
    inside = [one.lower[0] <= truth <= one.upper[0] for one in found]
    widths = np.array([(one.upper[0] - one.lower[0]) / truth for one in found])
    return np.mean(inside), widths, np.array([one.dimension[0] for one in found])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_dimensions", [2, 30])
def test_the_interval_covers_the_number_of_dimensions(kind, n_dimensions):
    # Ten intervals of at least 90 %: fewer than seven cover once in 80.
    share, widths, _ = covered(kind, n_dimensions, range(10))
    assert share >= 0.7
    assert np.median(widths) < 0.15


@pytest.mark.study
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_dimensions", [2, 5, 10, 30, 100])
def test_coverage_and_width(kind, n_dimensions):
    share, widths, found = covered(kind, n_dimensions, range(1000, 1040))
    print(
        f"{kind} {n_dimensions}: {share:.3f} covered, width {np.median(widths):.3f}, median d / "
        f"truth {np.median(found) / n_dimensions:.3f}"
    )
    assert share >= 0.9
    assert np.median(widths) <= 0.15


def least_scatter(variances, n_steps):
    """Return the Cramér-Rao bound on the standard deviation of log d, from Gaussian steps.

    It is that of known principal axes, too: the derivative of d by C is diagonal in them.
    """
    slopes = variances / variances.sum() - variances**2 / np.sum(variances**2)
    return np.sqrt(8 / n_steps * np.sum(slopes**2))


def test_the_bound_on_the_scatter_is_that_of_the_delta_method():
    # With known principal axes the sample variances have the relative variance 2 / n.
    generator = np.random.default_rng(0)
    variances = np.array([4.0, 2.0, 1.0, 0.5])
    sampled = variances * generator.chisquare(2000, (20_000, 4)) / 2000
    found = np.log(sampled.sum(axis=1) ** 2 / np.sum(sampled**2, axis=1))
    assert np.std(found) == pytest.approx(least_scatter(variances, 2000), rel=0.03)
    assert least_scatter(np.ones(5), 100) == pytest.approx(0, abs=1e-12)


@pytest.mark.study
@pytest.mark.parametrize("kind", KINDS)
def test_unequal_variances_are_covered_by_intervals_as_narrow_as_any(kind):
    share, widths, found = covered(kind, 1000, range(1000, 1400), HARMONIC)
    scatter, bound = np.std(np.log(found)), least_scatter(HARMONIC, N_ROWS - 1)
    print(
        f"{kind} 1/i: {share:.3f} covered, width {np.median(widths):.3f}, median d / truth "
        f"{np.median(found) / participation(HARMONIC):.3f}, scatter {scatter:.4f}, "
        f"bound {bound:.4f}"
    )
    assert share >= 0.9
    # No estimate has intervals of 95 % that are 15 % wide.
    assert 2 * 1.96 * bound > 0.35
    assert scatter < 1.15 * bound
    assert np.median(widths) < 1.1 * 2 * 1.96 * bound


def test_the_dimension_has_no_bias_where_that_of_the_sample_covariance_has():
    # Forty steps span at most 40 dimensions; the participation ratio of the sample is about 29.
    found, of_sample = [], []
    for seed in range(20):
        steps = np.random.default_rng(seed).standard_normal((40, 100))
        values = np.linalg.eigvalsh(steps @ steps.T)
        of_sample.append(values.sum() ** 2 / np.sum(values**2))
        walk = np.concatenate([np.zeros((1, 100)), np.cumsum(steps, axis=0)])
        found.append(1 / effective_dimension(walk, lags=[1]).dimension[0])
    assert np.mean(of_sample) < 35
    assert abs(1 / np.mean(found) - 100) < 8


def test_a_noisy_circle_has_hundreds_of_dimensions_in_steps_and_two_in_long_displacements():
    angle = np.linspace(0, 6 * np.pi, N_ROWS)
    rows = 0.03 * np.random.default_rng(0).standard_normal((N_ROWS, 1000))
    rows[:, :2] += np.column_stack([np.cos(angle), np.sin(angle)])
    found = effective_dimension(rows)
    assert found.lags.tolist() == [1, 2, 4, 8, 16, 32]
    assert found.dimension[0] > 300
    # Half a turn is 33 rows: signal 2 against noise 1000 * .03^2 = .9.
    assert 2 < found.dimension[-1] < 6
    clean = effective_dimension(np.column_stack([np.cos(angle), np.sin(angle)]))
    np.testing.assert_allclose(clean.dimension, 2, atol=0.5)


def test_scale_rotation_and_place_do_not_matter():
    rows = random_walk(60, 12, random_state=0)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 12)))[0]
    first, second = effective_dimension(rows), effective_dimension(1e-4 * rows @ turn + 3.0)
    for name in ("dimension", "lower", "upper"):
        np.testing.assert_allclose(getattr(second, name), getattr(first, name), rtol=1e-6)


def test_runs_are_averaged_harmonically_and_three_of_them_show_how_they_differ():
    runs = [random_walk(100, d, random_state=d) for d in (5, 10, 20)]
    rows = np.concatenate([np.pad(run, ((0, 0), (0, 20 - run.shape[1]))) for run in runs])
    ids = np.repeat([4, 2, 9], 100)
    found = effective_dimension(rows, run_ids=ids, lags=[1])
    assert found.run_labels.tolist() == [4, 2, 9]
    np.testing.assert_allclose(found.dimension[0], 3 / np.sum(1 / found.per_run[:, 0]))
    np.testing.assert_allclose(found.per_run[:, 0], [5, 10, 20], rtol=0.1)
    alone = effective_dimension(rows[:100], lags=[1])
    assert alone.dimension[0] == pytest.approx(found.per_run[0, 0])
    # The runs differ by far more than each is uncertain.
    assert found.upper[0] / found.lower[0] > 2
    assert alone.upper[0] / alone.lower[0] < 1.3
    two = effective_dimension(rows[:200], run_ids=ids[:200], lags=[1])
    assert two.upper[0] / two.lower[0] < 1.3


def sketched(rows, width, seed=0):
    found = np.array(
        [sketch_vector(row, rows.shape[1], sketch_dim=width, seed=seed) for row in rows]
    )
    n = len(rows)
    return SimpleNamespace(
        snapshots_=found,
        run_ids_=np.zeros(n, dtype=int),
        steps_=np.arange(n),
        sketch_error_=np.zeros(n),
    )


@pytest.mark.parametrize("variances", [np.ones(100), HARMONIC], ids=["100 equal", "1/i"])
def test_sketches_are_corrected_for_their_width(variances):
    truth = participation(variances)
    rows = np.zeros((N_ROWS, 1000))
    rows[:, : len(variances)] = noisy_path("walk", len(variances), 3, variances)
    full = effective_dimension(rows, lags=[1])
    sketch = sketched(rows, 256)
    found, raw = (effective_dimension(x, lags=[1]) for x in (sketch, sketch.snapshots_))
    assert (found.sketch_dim, raw.sketch_dim) == (256, None)
    assert found.lower[0] < truth < found.upper[0]
    assert found.lower[0] < full.upper[0]
    assert full.lower[0] < found.upper[0]
    # Without correction it is that of 1 / d + 1 / k.
    assert raw.dimension[0] == pytest.approx(1 / (1 / full.dimension[0] + 1 / 256), rel=0.1)
    assert raw.dimension[0] < 0.95 * found.dimension[0]


def test_momentum_is_taken_off_only_where_one_coefficient_explains_it():
    generator = np.random.default_rng(0)
    # In half of the directions steps are much more persistent, with ten times their variance.
    rates = np.repeat([0.5, 0.97], 10)
    steps = generator.standard_normal((2000, 20))
    for i in range(1, 2000):
        steps[i] += rates * steps[i - 1]
    variances = 1 / (1 - rates**2)
    found = effective_dimension(np.cumsum(steps, axis=0), lags=[1])
    assert found.lower[0] < participation(variances) < found.upper[0] < 19


def test_a_path_that_rests_has_a_dimension_where_it_moves():
    rows = random_walk(100, 8, random_state=0)
    rows[50:] = rows[50]
    assert effective_dimension(rows, lags=[1]).dimension[0] == pytest.approx(8, rel=0.3)
    # A period of four rows: no displacement over four.
    square = np.tile([[0.0, 0], [1, 0], [1, 1], [0, 1]], (8, 1))
    found = effective_dimension(square, lags=[1, 4])
    assert found.dimension[0] == pytest.approx(2, rel=0.2)
    assert np.isnan([found.dimension[1], found.lower[1], found.upper[1]]).all()
    assert "none of them moves" in found.summary()


def test_the_summary_names_dimension_interval_and_lag():
    found = effective_dimension(random_walk(200, 30, random_state=0))
    low, high = found.lower[0], found.upper[0]
    assert found.summary().startswith(
        f"Steps from row to row spread over {found.dimension[0]:.3g} dimensions "
        f"(95 % interval {low:.3g} to {high:.3g}). Displacements over 32 rows spread over "
    )
    only = effective_dimension(random_walk(200, 30, random_state=0), lags=[2])
    assert only.summary().startswith("Displacements over 2 rows spread over")


def test_intervals_end_at_one_and_at_the_number_of_columns():
    """A walk in five dimensions has four independent displacements over 64 of 300 rows."""
    walk = np.cumsum(np.random.default_rng(0).normal(size=(300, 5)), axis=0)
    turned = walk @ np.linalg.qr(np.random.default_rng(1).normal(size=(200, 5)))[0].T
    for rows in (walk, turned):
        found = effective_dimension(rows)
        assert min(found.lower.min(), found.dimension.min(), found.per_run.min()) >= 1
        assert (found.upper <= np.maximum(rows.shape[1], found.dimension)).all()
    assert found.upper[-1] > 10 * found.lower[-1]
    text = "over 64 rows spread over a number of dimensions that is not determined ("
    assert text in found.summary()


def test_default_lags_are_powers_of_two_up_to_a_quarter():
    assert default_lags(200).tolist() == [1, 2, 4, 8, 16, 32]
    assert default_lags(256).tolist() == [1, 2, 4, 8, 16, 32, 64]
    assert default_lags(5).tolist() == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lags": [0]}, "lags=0 must be an integer of at least 1 and at most 20"),
        ({"lags": [21]}, "lags=21 must be an integer of at least 1 and at most 20"),
        ({"lags": [2, 1]}, r"lags=\[2, 1\] must be ascending"),
        ({"lags": []}, r"lags=\[\] must be ascending"),
        ({"confidence": 1.0}, "confidence=1.0"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        effective_dimension(random_walk(60, 5, random_state=0), **options)
