import dataclasses

import numpy as np
import pytest
from scipy.special import logit
from scipy.stats import binom
from scipy.stats import t as student

from skdmap.diagnostics import dimension_test, random_walk
from skdmap.diagnostics._confidence_interval import mean_interval
from skdmap.diagnostics._dense_diffusion_map import squared_distances
from skdmap.diagnostics._dimension_test import surrogate_p_value, thin_runs
from skdmap.diagnostics._statistics import STATISTICS


def rejections(make_path, name, seeds, **options):
    found = [
        dimension_test(
            make_path(name, seed), random_state=seed, **{"null": "ar1"} | options
        ).p_value
        for seed in seeds
    ]
    return np.mean(np.array(found) <= 0.05), np.array(found)


@pytest.mark.parametrize("name", ["walk", "momentum", "decaying", "drifting"])
def test_walks_of_every_kind_are_seldom_rejected(make_path, name):
    # 19 surrogates: the least p is .05, and it comes in 5 % of cases. Of 12 cases more than 4
    # would come once in 6,000.
    share, _ = rejections(make_path, name, range(12), n_surrogates=19)
    assert share * 12 <= binom.ppf(1 - 1 / 6000, 12, 0.05)


@pytest.mark.parametrize("name", ["circle", "spiral", "sheet"])
def test_hidden_curves_and_surfaces_are_found(make_path, name):
    assert rejections(make_path, name, range(2))[1].max() == 0.01


def test_an_open_arc_is_not_rejected():
    angle = np.linspace(0, np.pi / 2, 100)
    arc = np.column_stack([np.cos(angle), np.sin(angle), np.zeros((100, 50))])
    assert dimension_test(arc, null="ar1", random_state=0).p_value > 0.05


def test_against_a_plain_walk_momentum_looks_low_dimensional(make_path):
    # Why the default null keeps the correlation of steps.
    path = make_path("momentum", 0)
    options = {"statistic": "participation", "n_surrogates": 39, "random_state": 0}
    assert dimension_test(path, null="random_walk", **options).p_value <= 0.05
    assert dimension_test(path, null="ar1", **options).p_value > 0.05


@pytest.mark.parametrize("statistic", ["participation", "non_harmonic"])
def test_other_statistics_find_a_circle(make_path, statistic):
    path = make_path("circle", 0)
    test = dimension_test(path, statistic=statistic, null="ar1", n_surrogates=19, random_state=0)
    assert test.p_value == 0.05
    low, high = test.envelope
    assert test.statistic < low if STATISTICS[statistic].sign < 0 else test.statistic > high


def test_the_p_value_counts_surrogates_on_the_side_of_a_low_dimension():
    surrogates = np.array([1.0, 2.0, 3.0, 4.0])
    assert surrogate_p_value(3.5, surrogates, 1) == 2 / 5
    assert surrogate_p_value(3.5, surrogates, -1) == 4 / 5
    assert surrogate_p_value(9.0, surrogates, 1) == 1 / 5
    # A tie, and what differs by rounding, speaks against a rejection.
    assert (
        surrogate_p_value(4.0, surrogates, 1)
        == surrogate_p_value(4.0 + 1e-15, surrogates, 1)
        == 2 / 5
    )
    assert surrogate_p_value(0.0, np.zeros(4), 1) == 1.0


def test_the_p_value_is_that_of_the_record():
    test = dimension_test(random_walk(60, 100, random_state=0), null="ar1", random_state=0)
    assert len(test.surrogate_statistics) == 99
    assert test.p_value == surrogate_p_value(test.statistic, test.surrogate_statistics, 1)
    assert test.run_p_values.tolist() == [test.p_value]
    assert np.isnan(test.confidence_interval).all()


def test_runs_are_tested_one_by_one_and_together(make_path):
    paths = [make_path("walk", 0), make_path("circle", 1), make_path("walk", 2)]
    ids = np.repeat([7, 3, 5], 200)
    options = {"null": "ar1", "n_surrogates": 19, "random_state": 0}
    test = dimension_test(np.concatenate(paths), run_ids=ids, **options)
    alone = [dimension_test(x, **options).statistic for x in paths]
    np.testing.assert_allclose(test.run_statistics, alone, rtol=1e-9)
    assert test.run_labels.tolist() == [7, 3, 5]
    assert test.run_p_values[1] == 0.05
    assert test.statistic == pytest.approx(np.mean(alone))
    half = student.ppf(0.975, 2) * np.std(alone, ddof=1) / np.sqrt(3)
    mean = np.mean(alone)
    np.testing.assert_allclose(
        logit(test.confidence_interval),
        logit(mean) + half / (mean * (1 - mean)) * np.array([-1, 1]),
        rtol=1e-9,
    )
    words = test.summary()
    assert "over 3 runs" in words
    assert f"Tested separately, {np.sum(test.run_p_values <= 0.05)} of 3 runs reject it" in words


def test_the_order_of_runs_and_where_they_lie_do_not_matter(make_path):
    rows = np.concatenate([make_path("walk", 0), make_path("drifting", 1) + 50.0])
    ids = np.repeat([0, 1], 200)
    interleaved = np.argsort(np.tile(np.arange(200), 2), kind="stable")
    options = {"null": "ar1", "n_surrogates": 5, "random_state": 0}
    first = dimension_test(rows, run_ids=ids, **options)
    second = dimension_test(rows[interleaved], run_ids=ids[interleaved], **options)
    np.testing.assert_allclose(second.run_statistics, first.run_statistics, rtol=1e-9)


def test_long_runs_are_thinned_evenly_after_matching_all_steps():
    rows = random_walk(501, 40, random_state=0)
    (run,), _, n_columns = thin_runs(rows, None, 101)
    assert run.kept.tolist() == list(range(0, 501, 5))
    np.testing.assert_allclose(run.distances(), squared_distances(rows[::5]), atol=1e-8)
    steps = np.diff(rows, axis=0)
    np.testing.assert_allclose(run.elapsed()[-1], np.sum(steps**2))
    assert (len(run.gram), n_columns) == (500, 40)


def test_the_same_seed_gives_the_same_test_and_the_words_follow_the_finding(make_path):
    path = make_path("walk", 1)
    options = {"null": "ar1", "n_surrogates": 19, "random_state": 3}
    first, again = dimension_test(path, **options), dimension_test(path, **options)
    np.testing.assert_array_equal(first.surrogate_statistics, again.surrogate_statistics)
    assert "is not rejected" in first.summary()
    found = dimension_test(make_path("circle", 1), **options)
    assert "The null model is rejected (p = 0.05)" in found.summary()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"statistic": "dimension"}, "statistic='dimension' must be one of 'isotonic'"),
        ({"null": "noise"}, "null='noise' must be one of 'all', 'random_walk'"),
        ({"statistic": "gap"}, "statistic='gap' needs one null model; null='all' has statistics"),
        ({"n_rows": 5}, "n_rows=5 must be an integer of at least 20"),
        ({"confidence": 95}, r"confidence=95 must be a finite number in \(0, 1\)"),
        ({"n_surrogates": 1.5}, "n_surrogates=1.5"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        dimension_test(np.eye(30), **options)


def test_two_runs_have_no_interval(make_path):
    assert np.isnan(mean_interval(np.array([0.1, 0.2]), 0.95, (0.0, 1.0))).all()
    rows = np.concatenate([make_path("walk", 0), make_path("walk", 1)])
    options = {"null": "ar1", "n_surrogates": 5, "random_state": 0}
    test = dimension_test(rows, run_ids=np.repeat([0, 1], 200), **options)
    assert np.isnan(test.confidence_interval).all()
    assert "interval" not in test.summary()
    assert "of 2 runs" in test.summary()


def test_the_summary_names_what_the_surrogates_share(make_path):
    path = make_path("momentum", 0)
    options = {"n_surrogates": 3, "random_state": 0}
    matched = dimension_test(path, null="ar1", **options)
    assert abs(matched.null_fits[0] - 0.9) < 0.02
    assert f"(mean cosine of successive steps: {matched.null_fits[0]:.2g})" in matched.summary()
    free = dimension_test(make_path("walk", 0), null="ornstein_uhlenbeck", **options)
    assert f"(pull per step: {free.null_fits[0]:.2g})" in free.summary()
    plain = dimension_test(path, null="random_walk", **options)
    assert np.isnan(plain.null_fits).all()
    assert "step lengths give" in plain.summary()


@pytest.mark.study
@pytest.mark.parametrize(
    ("name", "repeats", "most"),
    [
        ("walk", 200, 0.09),
        ("momentum", 100, 0.12),
        ("decaying", 100, 0.12),
        ("drifting", 100, 0.12),
    ],
)
def test_size(make_path, name, repeats, most):
    share, _ = rejections(make_path, name, range(1000, 1000 + repeats))
    print(f"{name}: {share:.3f}")
    assert share <= most
    if name == "walk":
        assert share >= 0.01


@pytest.mark.study
@pytest.mark.parametrize("name", ["circle", "spiral", "sheet"])
def test_power(make_path, name):
    _, found = rejections(make_path, name, range(1000, 1020))
    print(f"{name}: largest p {found.max():.3f}")
    assert found.max() <= 0.01


def test_shuffled_steps_are_seen_at_the_times_of_their_own_order():
    # Independent steps of falling length in many dimensions: a path of the same steps in random
    # order is as well explained by the time that goes by along it.
    steps = np.diff(random_walk(151, 3000, random_state=0), axis=0)
    steps *= np.geomspace(1, 0.01, 150)[:, None]
    walk = np.concatenate([np.zeros((1, 3000)), np.cumsum(steps, axis=0)])
    test = dimension_test(walk, null="shuffled_steps", n_surrogates=39, random_state=0)
    assert test.envelope[1] < 0.01


def test_the_summary_says_when_the_value_lies_on_the_other_side():
    found = dimension_test(random_walk(60, 40, random_state=0), null="ar1", random_state=0)
    low = found.envelope[0]
    beyond = dataclasses.replace(found, statistic=low / 2, p_value=1.0)
    inside = dataclasses.replace(found, statistic=float(np.mean(found.envelope)), p_value=0.5)
    assert "one-sided" in beyond.summary()
    assert "one-sided" not in inside.summary()


# A path of each kind that has one more number than its step lengths, against its own kind.
OWN_KINDS = {
    "falling": "ornstein_uhlenbeck",
    "resting": "ornstein_uhlenbeck",
    "fading": "decaying_drift",
    "walk": "decaying_drift",
}


@pytest.mark.study
@pytest.mark.parametrize("name", OWN_KINDS)
def test_size_of_a_null_model_on_its_own_kind(make_path, name):
    share, _ = rejections(make_path, name, range(1000, 1100), null=OWN_KINDS[name])
    print(f"{name}: {share:.3f}")
    assert share <= 0.12


@pytest.mark.study
@pytest.mark.parametrize("null", ["decaying_drift", "ornstein_uhlenbeck"])
@pytest.mark.parametrize("name", ["circle", "spiral", "sheet"])
def test_power_against_other_null_models(make_path, name, null):
    _, found = rejections(make_path, name, range(1000, 1020), null=null)
    print(f"{name}, {null}: largest p {found.max():.3f}")
    assert found.max() <= 0.01
