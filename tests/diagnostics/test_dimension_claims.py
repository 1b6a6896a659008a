"""The record of two claims: table, correction, level and sentence."""

import dataclasses

import numpy as np
import pytest

from skdmap.diagnostics import dimension_test, effective_dimension, random_walk
from skdmap.diagnostics._dimension_claims import CLAIMS, dimension_claims, holm
from skdmap.diagnostics._dimension_test import thin_runs
from skdmap.plotting import DimensionTestDisplay


def hidden(points, n_columns, noise, seed):
    generator = np.random.default_rng(seed)
    rows = noise * generator.standard_normal((len(points), n_columns))
    rows[:, : points.shape[1]] += points
    return rows


def circle(seed, turns=3):
    angle = np.linspace(0, 2 * np.pi * turns, 80, endpoint=False)
    return hidden(np.column_stack([np.cos(angle), np.sin(angle)]), 60, 0.02, seed)


def low_walk(seed):
    return hidden(random_walk(80, 5, random_state=seed), 60, 0.0, seed)


NOISE = {seed: random_walk(80, 60, random_state=seed) for seed in (0, 1)}
OPTIONS = {"n_surrogates": 39, "random_state": 0}


@pytest.fixture(scope="module")
def claims():
    """Return the claims of two runs of each level."""
    ids = np.repeat([5, 3], 80)
    paths = {
        "noise": np.concatenate([NOISE[0], NOISE[1]]),
        "fewer_dimensions": np.concatenate([low_walk(0), low_walk(1)]),
        "beyond_linear": np.concatenate([circle(0), circle(1)]),
    }
    return {level: dimension_test(rows, run_ids=ids, **OPTIONS) for level, rows in paths.items()}


@pytest.mark.parametrize("level", ["noise", "fewer_dimensions", "beyond_linear"])
def test_each_path_has_its_level(claims, level):
    assert claims[level].level == level


@pytest.mark.parametrize("level", ["noise", "fewer_dimensions", "beyond_linear"])
def test_the_table_is_that_of_the_tests(claims, level):
    found = claims[level]
    nulls = [null for _, of_claim in CLAIMS.values() for null in of_claim]
    assert [row["null"] for row in found.table] == [test.null for test in found.tests] == nulls
    for row, test in zip(found.table, found.tests, strict=True):
        assert (row["statistic"], row["value"]) == (test.statistic_name, test.statistic)
        assert row["p_value"] == test.p_value
        assert row["run_p_values"].shape == (2,)
        assert row["p_value"] <= row["corrected_p_value"] <= 2 * row["p_value"]
    largest = [
        max(row["p_value"] for row in found.table if row["claim"] == claim) for claim in CLAIMS
    ]
    corrected = [
        max(row["corrected_p_value"] for row in found.table if row["claim"] == claim)
        for claim in CLAIMS
    ]
    np.testing.assert_allclose(corrected, holm(np.array(largest)))


def test_the_dimension_is_that_of_all_rows(claims):
    ids = np.repeat([5, 3], 80)
    expected = effective_dimension(np.concatenate([circle(0), circle(1)]), run_ids=ids)
    found = claims["beyond_linear"].dimension
    for name in ("lags", "dimension", "lower", "upper", "run_labels"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_the_sentence_states_the_level_its_figures_and_what_is_left_open(claims):
    words = {level: found.summary() for level, found in claims.items()}
    assert words["noise"].startswith("Not distinguishable from isotropic noise (null '")
    assert "never finds more" in words["noise"]
    assert words["fewer_dimensions"].startswith("Fewer dimensions than isotropic noise (p = 0.05)")
    assert "A linear process with the recorded covariance explains" in words["fewer_dimensions"]
    assert words["beyond_linear"].startswith("Beyond linear processes: the path returns")
    assert "average over 2 runs, of which 2 show it alone" in words["beyond_linear"]
    assert "oscillates" in words["beyond_linear"]
    for level, text in words.items():
        low, high = claims[level].dimension.lower[0], claims[level].dimension.upper[0]
        assert "n 60 columns, steps from row to row spread over" in text
        assert f"(harmonic mean of 2 runs, 95 % interval {low:.3g} to {high:.3g})" in text


def test_a_rejection_with_many_dimensions_is_no_claim(claims):
    tests = tuple(
        dataclasses.replace(test, statistic=16.0)
        if test.null in CLAIMS["fewer_dimensions"][1]
        else test
        for test in claims["fewer_dimensions"].tests
    )
    dimension = claims["fewer_dimensions"].dimension
    assert dimension_claims(tests, dimension, 64).level == "fewer_dimensions"
    found = dimension_claims(tests, dimension, 63)
    assert found.level == "noise"
    assert found.summary().startswith("Close to isotropic noise")


def test_one_null_that_is_not_rejected_stops_a_claim(claims):
    for null in CLAIMS["beyond_linear"][1]:
        tests = tuple(
            dataclasses.replace(test, p_value=0.06) if test.null == null else test
            for test in claims["beyond_linear"].tests
        )
        found = dimension_claims(tests, claims["beyond_linear"].dimension, 60)
        assert found.level != "beyond_linear"
        assert found.deciding("beyond_linear").null == null


def test_holm_multiplies_by_what_is_left_and_keeps_the_order():
    # Holm (1979): p-values .01, .02, .03 of three become .03, .04, .04.
    np.testing.assert_allclose(holm(np.array([0.02, 0.01, 0.03])), [0.04, 0.03, 0.04])
    np.testing.assert_allclose(holm(np.array([0.9, 0.6])), [1.0, 1.0])


def test_the_same_seed_gives_the_same_table(claims):
    again = dimension_test(
        np.concatenate([NOISE[0], NOISE[1]]), run_ids=np.repeat([5, 3], 80), **OPTIONS
    )
    for first, second in zip(claims["noise"].tests, again.tests, strict=True):
        np.testing.assert_array_equal(first.surrogate_statistics, second.surrogate_statistics)


def test_steps_between_the_snapshots_kept_are_those_of_the_thinned_run():
    rows = random_walk(101, 7, random_state=0)
    (run,), _, _ = thin_runs(rows, None, 21)
    thin = run.of_kept_steps()
    steps = np.diff(rows[::5], axis=0)
    np.testing.assert_allclose(thin.gram, steps @ steps.T, atol=1e-9)
    np.testing.assert_allclose(thin.distances(), run.distances(), atol=1e-9)


def test_the_display_draws_the_deciding_test_or_the_one_named(claims):
    for level, claim in (("beyond_linear",) * 2, ("noise", "fewer_dimensions")):
        test = claims[level].deciding(claim)
        display = DimensionTestDisplay.from_result(claims[level])
        assert display.line_.get_xdata() == [test.statistic] * 2
        assert repr(test.statistic_name) in display.ax_.get_xlabel()
        (p,) = [r["corrected_p_value"] for r in claims[level].table if r["null"] == test.null]
        assert display.line_.get_label() == f"trajectory, corrected p = {p:.3g}"
        assert p > test.p_value or p == 1
    named = DimensionTestDisplay.from_result(claims["noise"], null="linear")
    assert "(linear)" in named.null_label
    with pytest.raises(ValueError, match="null='drift' must be one of 'decaying_drift'"):
        DimensionTestDisplay.from_result(claims["noise"], null="drift")


def test_one_named_null_says_what_its_rejection_leaves_open():
    found = dimension_test(NOISE[0], null="ar1", n_surrogates=5, random_state=0)
    assert "A rejection of this null may also come from a pull to a centre" in found.summary()
    assert "this statistic does not see open paths" in found.summary()
