"""The study says what its numbers say: other numbers, other words."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import false_discovery_control, norm, ttest_1samp, ttest_ind

for name in ("plotly", "mnist1d"):
    pytest.importorskip(name)
STUDY = Path(__file__).parent.parent / "examples" / "study"
NULLS = (
    "random_walk", "ar1", "drift", "decaying_drift", "ornstein_uhlenbeck", "sign_flips",
    "shuffled_steps",
)  # fmt: skip


@pytest.fixture(scope="module")
def study():
    """The modules of the study; their short names are taken back afterwards."""
    names = ("comparisons", "curvature", "findings", "plan", "settings", "study", "tasks",
             "training", "verdicts")  # fmt: skip
    before = set(sys.modules)
    sys.path.insert(0, str(STUDY))
    try:
        yield SimpleNamespace(**{name: import_module(name) for name in names})
    finally:
        sys.path.remove(str(STUDY))
        for module in set(sys.modules) - before:
            if str(getattr(sys.modules[module], "__file__", "")).startswith(str(STUDY)):
                del sys.modules[module]


# Numbers


def test_holm_rejects_what_its_definition_rejects(study):
    p_values = np.array([0.021, 0.001, 0.02])
    adjusted = study.comparisons.holm(p_values)
    np.testing.assert_allclose(adjusted, [0.04, 0.003, 0.04])
    # Never below Benjamini and Hochberg's, never above Bonferroni's.
    assert np.all(adjusted >= false_discovery_control(p_values) - 1e-12)
    assert np.all(adjusted <= np.minimum(3 * p_values, 1) + 1e-12)


def test_a_comparison_is_the_t_test_of_its_kind(study):
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.5, 1, 6), rng.normal(0, 2, 6)
    paired = study.comparisons.compare(first, second, paired=True, n_tests=1)
    expected = ttest_1samp(first - second, 0)
    assert paired["p_value"] == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval()
    assert (paired["low"], paired["high"]) == (pytest.approx(low), pytest.approx(high))
    welch = study.comparisons.compare(first, second, paired=False, n_tests=1)
    expected = ttest_ind(first, second, equal_var=False)
    assert welch["p_value"] == pytest.approx(expected.pvalue)
    assert welch["high"] == pytest.approx(expected.confidence_interval().high)


def test_the_detectable_difference_has_its_power(study):
    # With many runs the t test is a normal test, whose power is known.
    expected = norm.ppf(0.975) + norm.ppf(0.8)
    assert study.comparisons.detectable(2.0, 1e6, 0.05) == pytest.approx(2 * expected, rel=1e-3)
    # With few runs: by simulation, within three standard errors of the share.
    shift = study.comparisons.detectable(1.0, 4, 0.05)
    draws = np.random.default_rng(0).standard_normal((20_000, 5)) + shift / np.sqrt(5)
    found = ttest_1samp(draws * np.sqrt(5), 0, axis=1).pvalue <= 0.05
    assert abs(found.mean() - 0.8) < 3 * (0.8 * 0.2 / 20_000) ** 0.5


def test_a_main_effect_is_found_within_blocks(study):
    levels = [{"a": a, "b": b} for a in (0, 1) for b in (0, 1)]
    # Runs differ far more from each other than the effect of 1; a block cancels that.
    blocks = np.array([0.0, 50.0, -80.0, 20.0])
    noise = np.random.default_rng(0).normal(0, 0.05, (4, 4))
    values = [blocks + level["a"] + own for level, own in zip(levels, noise, strict=True)]
    effects = study.comparisons.main_effects(levels, values)
    assert effects["a"]["difference"] == pytest.approx(1, abs=0.15)
    assert effects["a"]["holm"] <= 0.05 < effects["b"]["holm"]


def test_an_interaction_is_the_difference_of_two_effects(study):
    levels = [{"a": a, "b": b, "c": c} for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    noise = np.random.default_rng(0).normal(0, 0.05, (8, 5))
    # a has the effect 1 at b = 0 and 3 at b = 1.
    values = [
        own["a"] * (1 + 2 * own["b"]) + 7 * own["c"] + noise[i] for i, own in enumerate(levels)
    ]
    found = study.comparisons.interactions(levels, values)
    assert found["a with b"]["difference"] == pytest.approx(2, abs=0.15)
    assert found["a with b"]["holm"] <= 0.05
    assert min(found[pair]["holm"] for pair in ("a with c", "b with c")) > 0.05


def test_windows_are_corrected_over_windows(study):
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((300, 10, 99))
    values = rng.standard_normal((300, 10))
    pairs = zip(values, drawn, strict=True)
    least = [study.comparisons.simultaneous(v, d)[0].min() for v, d in pairs]
    # The level holds for all ten windows at once: binomial, three standard errors.
    assert np.mean(np.array(least) <= 0.05) < 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5
    values[0, 3] = -8
    p_values, line = study.comparisons.simultaneous(values[0], drawn[0])
    assert p_values[3] == 0.01
    assert values[0, 3] < line[3] < 0


def test_halves_of_a_drifting_chain_disagree(study):
    rng = np.random.default_rng(0)
    along = rng.standard_normal((2, 2000, 3))
    along[:, :, 1] += np.linspace(0, 5, 2000)
    along[:, 1000:, 2] *= 3
    assert study.curvature.halves_agree(along).tolist() == [True, False, False]


# Plan and cache


@pytest.mark.parametrize("quick", [True, False])
def test_equal_numbers_of_rows_and_enough_surrogates(study, quick):
    plan = study.plan.make_plan(quick=quick, seed=0)
    everything = [*plan.settings, *(cell for _, cell in plan.cells)]
    for setting in everything:
        rows = len(study.settings.load_data(setting.data, setting.rows)[0])
        assert study.training.n_steps(setting, rows) + 1 >= plan.n_rows
    # The least p-value survives Holm's correction over settings.
    assert len(plan.settings) / (plan.n_surrogates + 1) <= 0.05
    assert len({tuple(levels.values()) for levels, _ in plan.cells}) == 16


def test_runs_are_paired_where_they_share_their_start(study, tmp_path):
    base, *others = study.settings.study_settings(quick=True, seed=3)
    small = {"epochs": 1, "n_runs": 2, "rows": 100}

    def starts(setting):
        path = tmp_path / "trajectory"
        study.training.train(replace(setting, **small), path)
        found = study.training.read_trajectories(setting, path)
        return [found.of_run(run)[0].astype(float) for run in (0, 1)]

    first = starts(base)
    for setting in others:
        second = starts(setting)
        if study.settings.shared_start(setting, base):
            for a, b in zip(first, second, strict=True):
                np.testing.assert_allclose(b, setting.gain * a, rtol=1e-5)
        else:
            assert len(second[0]) != len(first[0])


def test_thinning_keeps_both_ends(study):
    base = study.settings.study_settings(quick=True, seed=0)[0]
    rows = np.arange(20.0)[:, None]
    ids = np.repeat([0, 1], 10)
    found = study.training.Trajectories(base, rows, np.tile(np.arange(10), 2), ids, rows[:, 0])
    thin = found.thinned(4)
    assert thin.snapshots[:, 0].tolist() == [0, 3, 6, 9, 10, 13, 16, 19]
    assert thin.steps.tolist() == [0, 3, 6, 9] * 2
    with pytest.raises(ValueError, match="n_rows=11 is more than the 10 rows"):
        found.thinned(11)


def test_a_result_is_kept_under_settings_arguments_and_code(study, tmp_path, monkeypatch):
    tasks = study.tasks
    base = study.settings.study_settings(quick=True, seed=0)[0]
    task = tasks.Task("x", study.curvature.noise_along, (base,), {"run": 0})
    path = task.path(tmp_path)
    assert path == tasks.Task("x", task.function, (base,), {"run": 0}).path(tmp_path)
    assert path != replace(task, arguments={"run": 1}).path(tmp_path)
    assert path != replace(task, of=(replace(base, seed=1),)).path(tmp_path)
    # An edit of the analysis gives another name; one of the sentences does not.
    copy = tmp_path / "study"
    copy.mkdir()
    for source in STUDY.glob("*.py"):
        (copy / source.name).write_bytes(source.read_bytes())
    monkeypatch.setattr(tasks, "STUDY", copy)
    monkeypatch.setattr(study.curvature, "__file__", str(copy / "curvature.py"))
    for name, changed in (("findings.py", False), ("curvature.py", True), ("training.py", True)):
        tasks.code_version.cache_clear()
        before = task.path(tmp_path)
        with (copy / name).open("a") as file:
            file.write("# edited\n")
        tasks.code_version.cache_clear()
        assert (task.path(tmp_path) != before) == changed
    tasks.code_version.cache_clear()


def test_what_is_finished_is_not_computed_again(study, tmp_path):
    task = study.tasks.Task("walk", study.plan.dimension.walk_as_seen, (), {"seed": 0})
    study.tasks.run_all([task], tmp_path, jobs=1, words="")
    kept = task.path(tmp_path)
    kept.write_text('{"result": {"kept": 1}, "warnings": []}')
    study.tasks.run_all([task], tmp_path, jobs=1, words="")
    assert study.tasks.result(task, tmp_path) == ({"kept": 1}, [])


def test_a_missing_package_is_named_at_once(study, monkeypatch, capsys):
    monkeypatch.setattr(study.study, "NEEDED", ("matplotlib", "no_such_package"))
    monkeypatch.setattr(sys, "argv", ["study.py", "--out", "x"])
    with pytest.raises(SystemExit):
        study.study.parse_arguments()
    message = capsys.readouterr().err
    assert "no_such_package cannot be imported" in message
    assert 'pip install "skdmap[study]"' in message


# Sentences


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [((0.95, 0.97), "as the paper says"), ((0.5, 0.6), "not found"), ((0.5, 0.95), "at some")],
)
def test_the_bulk_near_zero(study, shares, verdict):
    point = {"step": 1, "outliers": 9, "trace": 1.0, "trace_stderr": 0.1, "eigenvalues": [2.0]}
    points = [point | {"near_zero": share} for share in shares]
    run = {"points": points, "n_classes": 10, "n_parameters": 100}
    sentences = study.findings.about_hessian([run, run])
    assert verdict in sentences[-1]
    assert "in 2 of 2 runs" in sentences[1]


def noise_of(slopes):
    return [
        {"slope": slope, "share": 0.5, "chance_share": 0.01, "eigenvalues": [2.0, 1.0],
         "n_gradients": 7}
        for slope in slopes
    ]  # fmt: skip


def iterates_of(ratio, shuffled, stationary=(True, True)):
    return {
        "stationary": list(stationary), "predicted": [1.0, 2.0], "learning_rate": 0.1,
        "iterates": [[ratio, 2 * ratio]] * 2, "shuffled": [[shuffled, 2 * shuffled]] * 2,
        "weight_decay": 0.01, "burn_in": 10, "n_steps": 20,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("slopes", "verdict"),
    [
        ([0.9, 1.0, 1.1], "proportional to the Hessian"),
        ([1.5, 1.6, 1.55], "lies below"),
        ([0.5, 0.6, 0.55], "lies above"),
        ([-0.5, 0.9, 0.1], "was not shown"),
    ],
)
def test_the_noise(study, slopes, verdict):
    sentences = study.findings.about_noise(noise_of(slopes), iterates_of(1.0, 1.0))
    assert verdict in sentences[-1]


@pytest.mark.parametrize(
    ("iterates", "words"),
    [
        (iterates_of(1.1, 1.0), ("obey the prediction", "makes no difference")),
        (iterates_of(0.2, 0.5), ("does not describe", "cancels in part")),
        (iterates_of(1.0, 1.0, (False, False)), ("no equilibrium was reached",)),
    ],
)
def test_the_iterates(study, iterates, words):
    text = " ".join(study.findings.about_noise(noise_of([1.0, 1.1]), iterates))
    assert all(word in text for word in words)


def test_directions_that_are_not_stationary_are_left_out(study):
    iterates = iterates_of(1.0, 1.0, (True, False))
    iterates["iterates"] = [[1.0, 900.0]] * 2
    text = " ".join(study.findings.about_noise(noise_of([1.0, 1.1]), iterates))
    assert "along 1 of 2 directions" in text
    assert "obey the prediction" in text


@pytest.mark.parametrize(
    ("on", "off", "verdict"),
    [
        ((0.1, 0.11, 0.1), (1.0, 0.98, 1.0), "not those in the top space"),
        ((1.0, 0.98, 1.0), (0.1, 0.11, 0.1), "carries the learning"),
        ((0.9, 0.91, 0.9), (0.9, 0.91, 0.9), "either space"),
        ((0.1, 0.11, 0.1), (0.1, 0.11, 0.1), "neither space"),
        ((0.1, 0.9, 0.5), (0.9, 0.91, 0.9), "do not agree"),
    ],
)
def test_the_top_space(study, on, off, verdict):
    runs = [
        {
            "displacement": [0.0, 0.1], "moves": [0.2], "chance": 0.01, "n_directions": 10,
            "projected": {
                "SGD": [2.0, 1.0], "on the top space": [2.0, 2.0 - a],
                "off the top space": [2.0, 2.0 - b], "on a random space": [2.0, 1.99],
            },
        }
        for a, b in zip(on, off, strict=True)
    ]  # fmt: skip
    assert verdict in study.findings.about_top_space(runs)[-1]


@pytest.mark.parametrize(
    ("values", "verdict"),
    [([0.5, 0.3], "their decay alone says nothing"), ([0.5, 0.9], "number 2 of the eigenvalues")],
)
def test_the_map(study, values, verdict):
    envelope = {"diffusion": {"values": values, "lower": [0.4, 0.2], "upper": [0.6, 0.4]}}
    other = {"diffusion": {"values": values, "lower": [0.6, 0.2], "upper": [0.7, 0.4]}}
    found = {"independent": [0], "harmonic_residuals": [1.0, 0.1]}
    pooled = {"one_start": True, "components": 1}
    said = study.findings.about_map(
        found, pooled, 3, {"ar1": envelope, "drift": other}, study.verdicts.WORDS
    )
    assert verdict in said[-1]


@pytest.mark.parametrize(
    ("dimensions", "verdict"),
    [
        ((1.0, 1.0), "all along"),
        ((2.0, 2.0), "was not shown"),
        ((1.0, 2.0), "in 1 of 2 windows"),
    ],
)
def test_the_windows(study, dimensions, verdict):
    drawn = 2 + 0.01 * np.random.default_rng(0).standard_normal((2, 99))
    result = {
        "centers": [1, 2], "window": 20, "runs": [dimensions, dimensions], "drawn": drawn.tolist()
    }  # fmt: skip
    found = study.verdicts.windows_corrected({"ar1": result, "random_walk": result})
    assert verdict in study.verdicts.about_windows(found)[-1]


def test_one_null_model_that_explains_a_window_is_enough(study):
    rng = np.random.default_rng(0)
    result = {"centers": [1], "window": 20, "runs": [[1.0], [1.0]]}
    low, high = (
        result | {"drawn": (level + 0.01 * rng.standard_normal((1, 99))).tolist()}
        for level in (1, 2)
    )
    found = study.verdicts.windows_corrected({"ar1": high, "drift": low})
    assert "was not shown" in study.verdicts.about_windows(found)[-1]


def cells_of(study, change, spread):
    """Cells of a design in which the first factor changes all measures by a share of their mean."""
    factors = list(study.settings.FACTORS)
    rng = np.random.default_rng(0)
    levels = [dict(zip(factors, np.binary_repr(i, 4), strict=True)) for i in range(16)]
    levels = [{name: int(bit) for name, bit in own.items()} for own in levels]
    cells = [
        {
            measure: (10 + change * own[factors[0]] * 10 + rng.normal(0, spread, 8)).tolist()
            for measure in ("non_harmonic", "slope", "participation")
        }
        | {"independent": [1] * 8}
        for own in levels
    ]
    return levels, cells


@pytest.mark.parametrize(
    ("change", "spread", "verdict"),
    [
        (0.5, 0.1, "was not robust to batch size"),
        (0.03, 0.1, "batch size (128 to 16) changed it, by less than 10 %"),
        (0.0, 0.1, "it was robust to batch size"),
        (0.0, 20.0, "too few to tell for batch size"),
    ],
)
def test_the_factors(study, change, spread, verdict):
    found = study.verdicts.factorial(*cells_of(study, change, spread))
    sentences = study.verdicts.about_factors(found, 100)
    assert verdict in sentences[-1]
    assert "would have been found with probability 0.8" in sentences[1]
    assert any("in none of 6 pairs" in sentence for sentence in sentences)
    assert "is 1 in 128 of 128 runs" in sentences[-2]


def test_factors_that_act_together_are_named(study):
    levels, cells = cells_of(study, 0.0, 0.1)
    first, second = list(study.settings.FACTORS)[:2]
    for own, cell in zip(levels, cells, strict=True):
        cell["non_harmonic"] = [x + 5 * own[first] * own[second] for x in cell["non_harmonic"]]
    said = " ".join(study.verdicts.about_factors(study.verdicts.factorial(levels, cells), 100))
    assert f"in 1 of 6 pairs, in per cent of the mean: {first} with {second} (+4" in said


def test_single_settings_are_paired_only_where_their_start_is_shared(study):
    rng = np.random.default_rng(0)
    blocks = np.array([0.0, 3.0, -2.0, 5.0, 1.0])
    base = {"slope": blocks}
    moved = {"slope": blocks + 0.5 + rng.normal(0, 0.01, 5)}
    shared = {"base": True, "a": True, "b": False}
    found = study.verdicts.against_base({"base": base, "a": moved, "b": moved}, shared, "slope")
    assert found["a"]["holm"] <= 0.05 < found["b"]["holm"]
    said = study.verdicts.about_settings(found, 10.0)
    assert "1 differs in harmonic dimension: a (+5 %)" in said


def nulls_of(**p_values):
    return {null: {"p_value": p_values.get(null, 0.001), "fits": [0.02, 0.03]} for null in NULLS}


WALK = {"eigenvalues": [0.6, 0.3, 0.2, 0.1], "cosines": [0.99]}


@pytest.mark.parametrize(
    ("p_values", "verdict"),
    [
        ({}, "2 of 2 settings are more low-dimensional than every null model"),
        ({"drift": 0.6}, "1 of 2 settings are more low-dimensional than every null model: other"),
        # Kept for show: this one does not keep the length of each step in its place.
        ({"shuffled_steps": 0.6}, "2 of 2 settings are"),
        # At the level for one setting, not after the correction for two.
        ({"drift": 0.05}, "1 of 2 settings are"),
    ],
)
def test_every_null_model_must_be_rejected(study, p_values, verdict):
    tests = {"base": nulls_of(**p_values), "other": nulls_of()}
    if p_values.get("drift") == 0.05:
        tests["other"] = nulls_of(drift=0.02)
        assert study.verdicts.nulls_corrected(tests)["base"] == pytest.approx(0.05)
        tests["other"] = nulls_of(drift=0.6)
        assert study.verdicts.nulls_corrected(tests)["base"] == pytest.approx(0.1)
        return
    assert verdict in study.verdicts.about_nulls(tests, WALK, 99, 101)[-1]


def test_the_null_models_that_explain_a_setting_are_named(study):
    tests = {"base": nulls_of(drift=0.6, sign_flips=0.4), "other": nulls_of(sign_flips=0.3)}
    said = study.verdicts.about_nulls(tests, WALK, 99, 101)
    assert "Walks with a drift are not rejected in 1 of 2 settings (p > 0.05): base." in said
    assert "The steps turned round at random are rejected in none (p > 0.05)." in said
    assert "Plain walks are rejected in all (p <= 0.05)." in said
    # The shorter list is given.
    three = tests | {"third": nulls_of(drift=0.6)}
    said_of_three = study.verdicts.about_nulls(three, WALK, 99, 101)
    assert "Walks with a drift are rejected in 1 of 3 settings only (p <= 0.05): other." in (
        said_of_three
    )
    assert "no setting was shown to be more low-dimensional than every null model" in said[-1]
    assert "what the steps turned round at random show as well" in said[-1]
    assert "in the fewest settings (0 of 2)" in said[-1]


def test_runs_without_a_pull_are_counted(study):
    tests = {"base": nulls_of(), "other": nulls_of()}
    said = study.verdicts.about_pulls(tests, 101)
    assert "4 runs make a run 2 to 3 relaxation times long." in said
    tests["base"]["ornstein_uhlenbeck"]["fits"] = [0.0, 0.03]
    assert "1 of them show no pull" in study.verdicts.about_pulls(tests, 101)


def pair_of(rate=1.0, participation=0.3):
    return {"hessian": 1.0, "rate": rate, "correlation": 0.95, "participation": participation}


@pytest.mark.parametrize(
    ("auto", "raised", "verdict"),
    [
        ((1.0, 0.3), (1.05, 0.3), 'in 2 of 2 draws with "auto" and in 2 of 2'),
        ((1.0, 0.3), (1.5, 0.3), 'in 2 of 2 draws with "auto" and in 1 of 2'),
        ((1.0, 0.01), (1.0, 0.3), 'in 1 of 2 draws with "auto" and in 2 of 2'),
    ],
)
def test_the_known_answer(study, auto, raised, verdict):
    right = {"pairs": [pair_of()], "raised": [pair_of()], "n_rows": 100}
    first = right | {"of_lists": [pair_of()], "n_neighbors": 9}
    second = right | {"pairs": [pair_of(*auto)], "raised": [pair_of(*raised)]}
    sentences = study.findings.about_known_answer([first, second], 1.2)
    assert "off by at most 0 %." in sentences[0]
    assert verdict in sentences[-1]
    assert any("helps there" in said for said in sentences) == (auto[1] < 0.05)
    # What lists give is said beside it, and is not what the verdict is about.
    lists = first | {"of_lists": [pair_of(0.5)]}
    sentences = study.findings.about_known_answer([lists, second], 1.2)
    assert "does not give rates" in sentences[0]
    assert verdict in sentences[-1]


# The whole


def command_of(tmp_path):
    path = os.pathsep.join(filter(None, [str(STUDY.parent.parent), os.environ.get("PYTHONPATH")]))
    return {
        "args": [sys.executable, "-W", "ignore", str(STUDY / "study.py"), "--quick", "--out",
                 str(tmp_path)],
        "env": os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": path},
        "text": True,
    }  # fmt: skip


@pytest.mark.slow
def test_the_quick_report_is_one_file_and_goes_on_where_it_was_interrupted(tmp_path):
    command = command_of(tmp_path)
    first = subprocess.Popen(
        **command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        # A shell that runs tests in the background lets them ignore interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while first.poll() is None and len(list((tmp_path / "cache").glob("*.npz"))) < 3:
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    assert "the same command goes on from there" in first.communicate()[1]
    assert first.returncode == 130
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.npz")}
    assert len(kept) >= 3
    texts = []
    for _ in range(2):
        done = subprocess.run(**command, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        texts.append((tmp_path / "findings.json").read_text())
    assert texts[0] == texts[1]
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    page = Page()
    page.feed((tmp_path / "report.html").read_text())
    assert {f"R{number}" for number in range(1, 9)} <= page.names
    assert len(page.sources) == len(list(tmp_path.glob("R*.png")))
    # The scripts and pictures are in the file: nothing is fetched.
    assert all(source.startswith("data:") for source in page.sources)


class Page(HTMLParser):
    """What a page names, and where it takes things from; the text of scripts is no tag."""

    def __init__(self):
        super().__init__()
        self.names, self.sources = set(), []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.names.add(found.get("id"))
        if "src" in found:
            self.sources.append(found["src"])
