"""Curves are drawn where the snapshots are, in their order, run by run."""

import sys

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from skdmap import DiffusionMap, TrajectorySampler
from skdmap.plotting import TrajectoryDisplay

# Fewer than 20 rows: a map of so few gives no warning about localized coordinates.
N_RUNS, N_STEPS = 3, 5


@pytest.fixture(scope="module")
def sampler():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 3))
    y = (X[:, 0] > 0).astype(int)
    return TrajectorySampler(
        n_runs=N_RUNS, max_steps=N_STEPS, max_epochs=None, batch_size=10, random_state=0
    ).fit(X, y)


def curve(line):
    data = line.get_data_3d() if hasattr(line, "get_data_3d") else line.get_data()
    return np.column_stack(data)


@pytest.mark.parametrize("components", [(0, 1), (2, 0), (0, 1, 2)])
def test_each_run_is_a_line_through_its_snapshots(sampler, components):
    model = DiffusionMap(n_components=3, bandwidth="median").fit(sampler.snapshots_)
    display = TrajectoryDisplay.from_estimator(model, sampler, components=components)
    assert len(display.lines_) == N_RUNS
    for run, line in enumerate(display.lines_):
        wanted = model.embedding_[sampler.run_ids_ == run][:, components]
        np.testing.assert_array_equal(curve(line), wanted)
    assert display.ax_.get_xlabel() == f"diffusion coordinate {components[0]}"
    if len(components) == 3:
        assert display.ax_.get_zlabel() == "diffusion coordinate 2"
    assert [t.get_text() for t in display.ax_.get_legend().get_texts()] == [
        "run 0",
        "run 1",
        "run 2",
    ]


def test_a_list_of_recordings_has_one_line_per_run(sampler):
    rows = np.concatenate([sampler.snapshots_, sampler.snapshots_ + 1])
    model = DiffusionMap(n_components=2, bandwidth="median").fit(rows)
    display = TrajectoryDisplay.from_estimator(model, [sampler, sampler], color="run")
    assert len(display.lines_) == 2 * N_RUNS
    starts = np.concatenate([sampler.run_ids_, N_RUNS + sampler.run_ids_])
    for run, line in enumerate(display.lines_):
        np.testing.assert_array_equal(curve(line), model.embedding_[starts == run])
    losses = TrajectoryDisplay.from_estimator(model, [sampler, sampler]).scatter_.get_array()
    np.testing.assert_array_equal(losses, np.tile(sampler.losses_, 2))
    shown = TrajectoryDisplay.from_estimator(PCA(2).fit(rows), [sampler, sampler])
    assert len(shown.lines_) == 2 * N_RUNS


@pytest.mark.parametrize(
    ("trajectory", "message"),
    [
        ("runs", "trajectory is a path. Open"),
        (["a.pt"], "trajectory is a list of paths"),
        ([{"w": 1}], "trajectory is a list of mappings"),
        (3, r"trajectory has shape \(\)"),
        (np.eye(18), "trajectory=ndarray has no runs.*TrajectoryDisplay"),
        (PCA(2), "trajectory has shape"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_objects_are_answered_with_what_to_pass(sampler, trajectory, message):
    model = DiffusionMap(n_components=2, bandwidth="median").fit(sampler.snapshots_)
    with pytest.raises(ValueError, match=message):
        TrajectoryDisplay.from_estimator(model, trajectory)


def test_recordings_that_the_estimator_was_not_fitted_to_are_named(sampler):
    model = DiffusionMap(n_components=2, bandwidth="median").fit(sampler.snapshots_[:-1])
    with pytest.raises(ValueError, match="18 snapshots, but estimator has coordinates of 17"):
        TrajectoryDisplay.from_estimator(model, sampler)


def test_interleaved_runs_are_taken_apart():
    rows = np.arange(12.0).reshape(6, 2)
    display = TrajectoryDisplay(rows, run_ids=[7, 3, 7, 3, 7, 3]).plot(run_names={7: "a", 3: "b"})
    np.testing.assert_array_equal(curve(display.lines_[0]), rows[::2])
    np.testing.assert_array_equal(curve(display.lines_[1]), rows[1::2])
    assert [t.get_text() for t in display.ax_.get_legend().get_texts()] == ["a", "b"]
    assert display.plot(run_names={}).ax_.get_legend() is None


def test_the_first_snapshot_is_a_circle_and_the_last_a_square():
    rows = np.arange(12.0).reshape(6, 2)
    display = TrajectoryDisplay(rows).plot()
    marks = {line.get_marker(): curve(line) for line in display.ax_.get_lines()[1:]}
    np.testing.assert_array_equal(marks["o"], rows[:1])
    np.testing.assert_array_equal(marks["s"], rows[-1:])


def test_the_colour_is_the_loss_on_a_log_scale_or_the_step(sampler):
    display = TrajectoryDisplay.from_estimator(sampler)
    np.testing.assert_array_equal(display.scatter_.get_array(), sampler.losses_)
    assert type(display.scatter_.norm).__name__ == "LogNorm"
    assert display.figure_.axes[1].get_ylabel() == "loss"
    np.testing.assert_array_equal(
        np.asarray(display.scatter_.get_offsets()), sampler.snapshots_[:, :2]
    )
    assert display.ax_.get_xlabel() == "parameter 0"
    stepped = TrajectoryDisplay.from_estimator(sampler, color="step")
    np.testing.assert_array_equal(stepped.scatter_.get_array(), sampler.steps_)
    assert TrajectoryDisplay.from_estimator(sampler, color="run").scatter_ is None


def test_losses_that_are_not_known_are_grey_and_not_left_out():
    rows, losses = np.arange(8.0).reshape(4, 2), np.array([-1.0, 0.5, 0.25, np.nan])
    display = TrajectoryDisplay(rows, losses=losses).plot()
    assert type(display.scatter_.norm).__name__ == "Normalize"
    assert (display.scatter_.norm.vmin, display.scatter_.norm.vmax) == (-1.0, 0.5)
    display.figure_.canvas.draw()
    assert len(display.scatter_.get_offsets()) == 4
    np.testing.assert_allclose(display.scatter_.get_facecolor()[-1], [0.6, 0.6, 0.6, 1.0])
    assert TrajectoryDisplay(rows, losses=np.full(4, np.nan)).plot().scatter_ is None


def test_a_transformer_gives_the_coordinates_of_the_snapshots(sampler):
    model = PCA(2).fit(sampler.snapshots_)
    display = TrajectoryDisplay.from_estimator(model, sampler)
    wanted = model.transform(sampler.snapshots_)
    np.testing.assert_array_equal(np.asarray(display.scatter_.get_offsets()), wanted)
    assert display.ax_.get_ylabel() == "component 1"


def test_a_pipeline_brings_its_trajectory_along():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 3))
    pipeline = make_pipeline(
        TrajectorySampler(max_steps=12, random_state=0), DiffusionMap(bandwidth="median")
    ).fit(X, (X[:, 0] > 0).astype(int))
    display = TrajectoryDisplay.from_estimator(pipeline)
    np.testing.assert_array_equal(curve(display.lines_[0]), pipeline[-1].embedding_)
    np.testing.assert_array_equal(display.scatter_.get_array(), pipeline[0].losses_)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"components": (0,)}, r"components=\(0,\) must be 2 or 3 column indices"),
        ({"components": (0, 5)}, r"indices in \[0, 1\]"),
        ({"color": "epoch"}, "color='epoch' must be one of"),
        ({"color": "loss"}, "color='loss' needs losses="),
        ({"run_names": ["a"]}, "no name for run 1"),
    ],
)
def test_what_cannot_be_drawn_is_named(settings, message):
    display = TrajectoryDisplay(np.zeros((4, 2)), run_ids=[0, 0, 1, 1])
    with pytest.raises(ValueError, match=message):
        display.plot(**settings)


def test_columns_and_axes_that_do_not_fit_are_named():
    import matplotlib.pyplot as plt

    with pytest.raises(ValueError, match="run_ids has shape"):
        TrajectoryDisplay(np.zeros((4, 2)), run_ids=[0, 1]).plot()
    _, flat = plt.subplots()
    with pytest.raises(ValueError, match="does not match 3 components"):
        TrajectoryDisplay(np.zeros((4, 3))).plot(components=(0, 1, 2), ax=flat)
    solid = plt.figure().add_subplot(projection="3d")
    assert TrajectoryDisplay(np.zeros((4, 3))).plot(components=(0, 1, 2), ax=solid).ax_ is solid
    with pytest.raises(ValueError, match="does not match 2 components"):
        TrajectoryDisplay(np.zeros((4, 3))).plot(ax=solid)


def test_estimators_that_hold_no_trajectory_are_told_what_to_pass(sampler):
    with pytest.raises(ValueError, match="contains no trajectory"):
        TrajectoryDisplay.from_estimator(PCA(2).fit(np.eye(3)))
    with pytest.raises(NotFittedError):
        TrajectoryDisplay.from_estimator(DiffusionMap())
    with pytest.raises(NotFittedError):
        TrajectoryDisplay.from_estimator(PCA(2), sampler)

    class Bare(BaseEstimator):
        def fit(self, X):
            self.fitted_ = True
            return self

    with pytest.raises(ValueError, match="neither embedding_ nor transform"):
        TrajectoryDisplay.from_estimator(Bare().fit(None), sampler)


@pytest.mark.parametrize("components", [(0, 1), (0, 1, 2)])
def test_no_text_is_clipped(components, no_clipped_text):
    rows = np.random.default_rng(0).standard_normal((30, 3)) / 1000
    display = TrajectoryDisplay(
        rows, run_ids=np.repeat([0, 1], 15), losses=np.geomspace(1, 1e-3, 30), axis_name="component"
    ).plot(components=components, run_names=["SGD", "Adam"])
    display.ax_.set_title("A title")
    no_clipped_text(display.figure_)


def test_without_matplotlib_the_error_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'pip install "skdmap\[plot\]"'):
        TrajectoryDisplay(np.zeros((4, 2))).plot()
