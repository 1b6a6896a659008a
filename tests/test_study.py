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


@pytest.fixture(scope="module")
def study():
    """The modules of the study; their short names are taken back afterwards."""
    names = ("comparisons", "curvature", "dimension", "findings", "plan", "settings", "study",
             "tasks", "training", "verdicts")  # fmt: skip
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


def test_untrained_cells_leave_their_pairs_out(study):
    levels = [{"a": a, "b": b, "c": c} for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    noise = np.random.default_rng(0).normal(0, 0.05, (8, 5))
    values = np.array([[3.0 * own["a"] + own["b"]] * 5 for own in levels]) + noise
    kept = np.ones(8, dtype=bool)
    # A cell that is far off would decide every mean that it is part of.
    values[5] += 1000
    kept[5] = False
    found = study.comparisons.main_effects(levels, values, kept)
    assert found["a"]["difference"] == pytest.approx(3, abs=0.15)
    assert found["b"]["difference"] == pytest.approx(1, abs=0.15)
    pairs = study.comparisons.interactions(levels, values, kept)
    assert all(abs(own["difference"]) < 0.3 for own in pairs.values())
    # Without any pair there is no effect.
    kept[[0, 1, 2, 3]] = False
    assert set(study.comparisons.main_effects(levels, values, kept)) == {"b", "c"}


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
    # Equal numbers of rows are equally many steps apart, whatever the batch size.
    assert len({setting.n_steps for setting in everything}) == 1
    assert plan.row_counts[-1] == 1 + everything[0].n_steps
    assert max(plan.n_rows, len(set(plan.row_counts))) <= plan.row_counts[-1]
    # The least p-value survives Holm's correction over settings.
    assert len(plan.settings) / (plan.n_surrogates + 1) <= 0.05
    assert len({tuple(levels.values()) for levels, _ in plan.cells}) == 16


def test_runs_are_paired_where_they_share_their_start(study, tmp_path):
    base, *others = study.settings.study_settings(quick=True, seed=3)
    small = {"n_steps": 2, "n_runs": 2, "rows": 100}

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
    # The package counts at every depth.
    package = tmp_path / "package"
    (package / "diagnostics" / "_null_models").mkdir(parents=True)
    deep = package / "diagnostics" / "_null_models" / "models.py"
    deep.write_text("")
    monkeypatch.setattr(tasks, "PACKAGE", package)
    for source, changed in (
        (copy / "findings.py", False),
        (copy / "curvature.py", True),
        (copy / "training.py", True),
        (deep, True),
    ):
        tasks.code_version.cache_clear()
        before = task.path(tmp_path)
        with source.open("a") as file:
            file.write("# edited\n")
        tasks.code_version.cache_clear()
        assert (task.path(tmp_path) != before) == changed
    tasks.code_version.cache_clear()


def test_what_is_finished_is_not_computed_again(study, tmp_path):
    task = study.tasks.Task(
        "walk", study.plan.dimension.walk_as_seen, (), {"n_rows": 30, "seed": 0}
    )
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
    [
        ((0.95, 0.97), "at least 90 % of the eigenvalues lie near zero, as the paper says"),
        ((0.5, 0.6), "fewer than 90 % of the eigenvalues lie near zero, against the paper"),
        ((0.5, 0.95), "in 2 of 4 cases, and fewer in the others"),
    ],
)
def test_the_bulk_near_zero(study, shares, verdict):
    point = {"step": 1, "outliers": 9, "trace": 1.0, "trace_stderr": 0.1, "eigenvalues": [2.0]}
    points = [point | {"near_zero": share} for share in shares]
    run = {"points": points, "n_classes": 10, "n_parameters": 100}
    sentences = study.findings.about_hessian([run, run], "in [0, 1]")
    assert verdict in sentences[-1]
    # The limits stand in the sentence.
    limits = "with inputs in [0, 1] and up to 1 steps of training, at 2 points along each of 2 runs"
    assert limits in sentences[-1]
    assert "Other scales of the inputs and longer training were not tried" in sentences[-1]
    assert "in 2 of 2 runs it comes after the first 9" in sentences[1]


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
        ([0.9, 1.0, 1.1], "over 3 runs contains 1, noise in proportion to the Hessian"),
        ([1.5, 1.6, 1.55], "grows faster than the eigenvalue"),
        ([0.5, 0.6, 0.55], "grows slower than the eigenvalue"),
        ([-0.5, 0.9, 0.1], "was not shown"),
    ],
)
def test_the_noise(study, slopes, verdict):
    sentences = study.findings.about_noise(noise_of(slopes), iterates_of(1.0, 1.0))
    assert verdict in sentences[-1]


@pytest.mark.parametrize(
    ("iterates", "words"),
    [
        (iterates_of(1.1, 1.0), ("agree with the prediction within 25 %", "within 25 %, too")),
        (iterates_of(0.2, 0.5), ("differ from the prediction by more", "cancels in part")),
        (iterates_of(1.0, 1.5), ("1.50 times the prediction, which is more than 25 % above",)),
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
    assert "Along 1 of 2 directions" in text
    assert "agree with the prediction" in text


@pytest.mark.parametrize(
    ("on", "off", "verdict"),
    [
        ((0.1, 0.11, 0.1), (1.0, 0.98, 1.0), "not those in the top space"),
        ((1.0, 0.98, 1.0), (0.1, 0.11, 0.1), "lower the loss and the others do not"),
        ((0.9, 0.91, 0.9), (0.9, 0.91, 0.9), "each make at least half"),
        ((0.1, 0.11, 0.1), (0.1, 0.11, 0.1), "neither steps in the top space"),
        ((0.1, 0.9, 0.5), (0.9, 0.91, 0.9), "3 runs do not agree"),
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
    [
        ([0.5, 0.3], "So each of the 2 eigenvalues lies in the range of at least one of 2"),
        (
            [0.5, 0.9],
            "So 1 of 2 eigenvalues (number 1, counted from 0) is outside the range of each of 2",
        ),
    ],
)
def test_the_map(study, values, verdict):
    curve = {"values": values, "lower": [0.4, 0.2], "median": [0.5, 0.3], "upper": [0.6, 0.4]}
    runs = {"n_runs": 5, "n_surrogates": 99}
    other = curve | {"lower": [0.6, 0.2], "median": [1.0, 0.3], "upper": [1.1, 0.4]}
    found = {"independent": [0], "harmonic_residuals": [1.0, 0.1]}
    pooled = {"one_start": True, "components": 1}
    said = study.findings.about_map(
        found,
        pooled,
        3,
        {"ar1": runs | {"diffusion": curve}, "drift": runs | {"diffusion": other}},
        study.verdicts.WORDS,
    )
    assert verdict in said[-1]
    # Significance and size: the median of the second one is twice the value.
    assert "the mean over 5 runs" in said[2]
    size = (200 * (values[1] / 0.3 - 1)) / 4
    assert f"walks with correlated steps differ from the runs by {size:.3g} %" in said[3]
    assert f"those of walks with a drift by {50 + size:.3g} %" in said[3]


def test_successive_numbers_are_spoken_as_a_range(study):
    assert study.findings.numbered([9, 4, 5, 6, 1]) == "1, 4 to 6 and 9"
    assert study.findings.numbered([0, 1]) == "0 and 1"


@pytest.mark.parametrize(
    ("dimensions", "verdict"),
    [
        ((1.0, 1.0), "in the mean over 2 runs, the local dimension is below that of every"),
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
            measure: [
                (10 + change * own[factors[0]] * 10 + rng.normal(0, spread, 8)).tolist()
                for _ in range(3)
            ]
            for measure in study.dimension.MEASURES
        }
        | {"independent": [1] * 8, "final_loss": [0.1] * 8, "guess": 2.3, "entropy": 0.0}
        for own in levels
    ]
    for cell in cells:
        # The same runs at three numbers of rows.
        for measure in study.dimension.MEASURES:
            cell[measure] = [cell[measure][0]] * 3
    return levels, cells


def said_of(study, levels, cells):
    found = study.verdicts.factorial(levels, cells, [161, 241, 481])
    names = [f"cell {i}" for i in range(16)]
    return study.verdicts.about_factors(found, names, {"non_harmonic": 1.02})


@pytest.mark.parametrize(
    ("change", "spread", "verdict"),
    [
        (0.5, 0.1, "; it changes by more than 10 % with batch size (128 to 16)."),
        (0.03, 0.1, "changes by less than 10 % of its mean with batch size (128 to 16), label"),
        (0.0, 0.1, "changes by less than 10 % of its mean with batch size (128 to 16), label"),
        (0.0, 20.0, "dimension may or may not change by 10 % with batch size"),
    ],
)
def test_the_factors(study, change, spread, verdict):
    sentences = said_of(study, *cells_of(study, change, spread))
    assert verdict in sentences[-1]
    assert "So, with 8 runs a cell and 480 steps, the harmonic dimension" in sentences[-1]
    assert "All 128 networks are trained: their loss over the last ten batches" in sentences[1]
    assert sentences[1].endswith("the least has come 95.7 %.")
    assert "a plain random walk of as many steps has 1.02" in sentences[2]
    assert (
        "from 161, 241 and 481 rows of the same runs (a row every 3, 2 and 1 steps)" in sentences[3]
    )
    assert "The harmonic dimension does not depend on the number of rows" in sentences[3]
    effects = " ".join(sentences[4:8])
    assert effects.count("95 % interval over 8 runs") == 4
    assert "would have been found with probability 0.8" in effects
    assert any("in 0 of 6 pairs" in sentence for sentence in sentences)
    assert "is 1 in 128 of 128 runs" in sentences[-2]


def test_a_dimension_that_depends_on_the_number_of_rows_is_not_interpreted(study):
    levels, cells = cells_of(study, 0.5, 0.1)
    for cell in cells:
        cell["non_harmonic"] = [
            (scale * np.array(cell["non_harmonic"][0])).tolist() for scale in (1.7, 1.3, 1.0)
        ]
    sentences = said_of(study, levels, cells)
    assert "So nothing is said of the harmonic dimension: it depends on the number" in sentences[-1]
    # An effect that is there from few rows only is none, whatever the mean.
    levels, cells = cells_of(study, 0.0, 0.1)
    first = next(iter(study.settings.FACTORS))
    for own, cell in zip(levels, cells, strict=True):
        cell["slope"][0] = [value + 0.4 * (own[first] - 0.5) for value in cell["slope"][0]]
    said = " ".join(said_of(study, levels, cells))
    assert "The largest slope dimension over all bandwidths, or an effect on it, depends on" in said
    assert "each number of rows gives the dimension at another scale" in said
    assert "The participation number does not depend on the number of rows" in said


def test_untrained_networks_are_named_and_do_not_count(study):
    levels, cells = cells_of(study, 0.0, 0.1)
    cells[3]["final_loss"][5] = 1.3
    cells[3]["non_harmonic"] = [[900.0] * 8] * 3
    sentences = said_of(study, levels, cells)
    assert "1 of 16 cells is left out" in sentences[1]
    assert "has not come 50 % of the way from the loss of a guess" in sentences[1]
    assert sentences[1].endswith("the entropy of the labels: cell 3 (43.5 %).")
    assert "changes by less than 10 %" in sentences[-1]
    # Where labels are noise, less can be learned: the same loss counts as trained.
    cells[3]["entropy"] = study.verdicts.entropy_of_labels(0.2, np.log(10))
    assert cells[3]["entropy"] == pytest.approx(0.8 * np.log(1 / 0.8) + 0.2 * np.log(9 / 0.2))
    assert "All 128 networks are trained" in said_of(study, levels, cells)[1]
    for cell in cells:
        cell["final_loss"] = [2.0] * 8
    assert "no network of the design is trained" in said_of(study, levels, cells)[-1]


def test_factors_that_act_together_are_named(study):
    levels, cells = cells_of(study, 0.0, 0.1)
    first, second = list(study.settings.FACTORS)[:2]
    for own, cell in zip(levels, cells, strict=True):
        shift = 5 * own[first] * own[second]
        cell["non_harmonic"] = [[x + shift for x in values] for values in cell["non_harmonic"]]
    said = " ".join(said_of(study, levels, cells))
    assert "in 1 of 6 pairs (p <= 0.05 over 8 runs, Holm)" in said
    assert f"most for {first} with {second}, by 4" in said


def test_single_settings_are_paired_only_where_their_start_is_shared(study):
    rng = np.random.default_rng(0)
    blocks = np.array([0.0, 3.0, -2.0, 5.0, 1.0])
    trained = {"final_loss": [0.1] * 5, "guess": 2.3, "entropy": 0.0}
    base = trained | {"slope": [blocks, blocks]}
    moved = blocks + 0.5 + rng.normal(0, 0.01, 5)
    moved = trained | {"slope": [moved + 1, moved]}
    shared = {"base": True, "a": True, "b": False, "c": True}
    untrained = moved | {"final_loss": [0.1] * 4 + [1.4]}
    measured = {"base": base, "a": moved, "b": moved, "c": untrained}
    found = study.verdicts.against_base(measured, shared, "slope")
    assert found["a"]["holm"] <= 0.05 < found["b"]["holm"]
    np.testing.assert_allclose(found["a"]["by_count"], [1.5, 0.5], atol=0.05)
    said = study.verdicts.about_settings(found, 10.0, 5, ["c"])
    assert "2 single settings, 5 runs each, were compared with the base" in said
    assert "(c left out: not trained): 1 differs in harmonic dimension" in said
    assert "a the most, by +5" in said
    assert said.endswith("more than 10 % is shown for none; the intervals leave it open for b.")


WALK = {"eigenvalues": [0.6, 0.3, 0.2, 0.1], "cosines": [0.99]}
NULLS = {
    "decaying_drift": "fewer_dimensions",
    "ar1": "fewer_dimensions",
    "anisotropic_ou": "beyond_linear",
    "linear": "beyond_linear",
}


def claims_of(dimension=20.0, **p_values):
    """What is claimed of a setting: both claims, unless a null model has another p-value."""
    tests = {
        null: {"claim": claim, "p_value": p_values.get(null, 0.001), "statistic": dimension}
        for null, claim in NULLS.items()
    }
    spread = [[dimension, 3.0], [dimension - 1, 2.5], [dimension + 1, 3.5]]
    return {"tests": tests, "dimension": spread, "lags": [1, 64], "n_columns": 100, "n_runs": 5}


@pytest.mark.parametrize(
    ("own", "level"),
    [
        ({}, "beyond_linear"),
        ({"linear": 0.2}, "fewer_dimensions"),
        # One null model that is not rejected is enough.
        ({"linear": 0.2, "ar1": 0.2}, "noise"),
        # At the level for one setting, not after the correction for two.
        ({"linear": 0.04}, "fewer_dimensions"),
        # The variances of nearly any noise differ a little.
        ({"linear": 0.2, "dimension": 30.0}, "noise"),
    ],
)
def test_a_claim_needs_every_null_model_rejected(study, own, level):
    claims = {"base": claims_of(**own), "other": claims_of(linear=0.6)}
    found = study.verdicts.claims_corrected(claims)
    assert found["base"]["level"] == level
    assert found["other"]["level"] == "fewer_dimensions"
    assert found["other"]["beyond_linear"] == pytest.approx(0.6)
    # The least of two p-values is multiplied by two.
    assert found["other"]["fewer_dimensions"] == pytest.approx(0.002)


def test_the_claims_are_spoken_with_their_limits(study):
    claims = {
        "base": claims_of(linear=0.5),
        "other": claims_of(),
        "third": claims_of(ar1=0.5, linear=0.5),
    }
    said = study.verdicts.about_claims(claims, WALK, 599, 121)
    text = " ".join(said)
    assert "3 settings, 5 runs and 121 rows a run, with 599 surrogates" in text
    assert "corrected (Holm) over the settings" in text
    assert "A path that never comes back is not found to be more" in text
    assert "In the 3 settings the steps are spread over 20 dimensions of 100 parameters" in text
    assert "displacements over 64 steps over 3." in text
    few, beyond = said[-3], said[-2]
    assert "fewer dimensions than isotropic noise are rejected (p <= 0.05) in 2 of 3" in few
    assert few.endswith("settings: base and other.")
    assert "more than a linear process are rejected (p <= 0.05) in 1 of 3" in beyond
    assert said[-1] == (
        "So, with 5 runs each: 1 of 3 settings cannot be told from isotropic noise with a drift, a "
        "pull or correlated steps; 1 of 3 has fewer dimensions than such noise, and a linear "
        "process with the recorded covariance explains the path; 1 of 3 is more than a linear "
        "process."
    )
    # Rejected, and no claim: the steps are spread over more than a quarter of the dimensions.
    claims["third"] = claims_of(linear=0.5, dimension=30.0)
    assert said[-1].startswith("So, with 5 runs each: 1 of 3 settings cannot be told")
    said = study.verdicts.about_claims(claims, WALK, 599, 121)
    assert said[-1].startswith("So, with 5 runs each: 1 of 3 differs from isotropic noise, with")


def pair_of(rate=1.0, participation=0.3):
    return {"hessian": 1.0, "rate": rate, "correlation": 0.95, "participation": participation}


@pytest.mark.parametrize(
    ("auto", "raised", "verdict"),
    [
        ((1.0, 0.3), (1.14, 0.3), 'in 2 of 2 draws with "auto" and in 2 of 2'),
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
    # A draw in which the recommended bandwidth is worse is shown, whether within what is tolerated
    # or not.
    assert study.findings.worst_draw([first, second]) == (1 if raised[0] > 1 else 0)
    said = [sentence for sentence in sentences if "does not always help" in sentence]
    off = round(100 * (raised[0] - 1))
    assert len(said) == (off > 0)
    assert not said or f"in draw 1 a rate is off by {off} % with it and by 0 %" in said[0]
    # What lists give is said beside it, and is not what the verdict is about.
    lists = first | {"of_lists": [pair_of(0.5)]}
    sentences = study.findings.about_known_answer([lists, second], 1.2)
    assert "the neighbours cut off a kernel of this width" in sentences[0]
    assert verdict in sentences[-1]


def test_the_slope_at_one_bandwidth_does_not_depend_on_the_number_of_rows(study):
    """A line with steps of noise: the finer the rows, the more the largest slope sees the noise."""
    rng = np.random.default_rng(0)
    rows = np.cumsum(rng.standard_normal((433, 500)), axis=0) / 500**0.5
    rows[:, 0] += 0.15 * np.arange(433)
    thin = [rows[::step] for step in (12, 3, 1)]
    fixed = [study.dimension.slope_at_bandwidth(own) for own in thin]
    largest = [study.dimension._measured(own, None, "slope", 433, 0)[0] for own in thin]
    assert max(fixed) / min(fixed) < 1.05
    assert largest[2] / largest[0] > 1.15
    # Against the derivative of the kernel sum.
    squared = ((thin[0][:, None] - thin[0][None]) ** 2).sum(-1)[np.triu_indices(len(thin[0]), 1)]
    h = np.sqrt(np.median(squared) / 2)
    sums = [np.exp(-squared / (2 * at**2)).sum() for at in (h * 0.9999, h * 1.0001)]
    assert fixed[0] == pytest.approx(np.diff(np.log(sums))[0] / 2e-4, rel=1e-6)


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


def test_every_null_model_of_the_study_has_words(study):
    assert set(study.dimension.NULLS) <= set(study.verdicts.WORDS)
