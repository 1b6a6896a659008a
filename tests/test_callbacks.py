"""scikit-learn's callbacks follow a fit: each stage, product or step is a task."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdmap import DiffusionMap, HessianSpectrum, TrajectorySampler
from skdmap._progress import progress

callbacks = pytest.importorskip("sklearn.callback", reason="scikit-learn is older than 1.9")

X = np.random.default_rng(0).standard_normal((40, 3))
Y = np.arange(40) % 2


def bowl(theta):
    return (theta**2).sum() + (theta[0] * theta[1]) ** 2


class Recorder:
    """Write down what is begun and ended; fail at a task where asked to."""

    def __init__(self, fails_at=None):
        self.events, self.fails_at = [], fails_at

    def setup(self, estimator, context):
        self.events.append("setup")

    def teardown(self, estimator, context):
        self.events.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.events.append(f"begin {context.task_name}")
        self.subtasks = context.max_subtasks if context.parent is None else self.subtasks
        if context.task_name == self.fails_at:
            raise RuntimeError("as asked")

    def on_fit_task_end(self, estimator, context):
        self.events.append(f"end {context.task_name}")


def recorded(estimator, *arguments):
    recorder = Recorder()
    estimator.set_callbacks(recorder).fit(*arguments)
    assert recorder.events[:2] == ["setup", "begin fit"]
    assert recorder.events[-2:] == ["end fit", "teardown"]
    tasks = recorder.events[2:-2]
    assert [event.replace("begin", "end") for event in tasks[::2]] == tasks[1::2]
    return [event.removeprefix("begin ") for event in tasks[::2]], recorder.subtasks


def test_the_stages_of_a_map_are_tasks():
    names, total = recorded(DiffusionMap(), X)
    assert names == [
        "neighbour graph",
        "bandwidth",
        "kernel",
        "Markov operator",
        "eigenpairs",
        "coordinates",
        "extension",
    ]
    assert total == 7


def test_stages_that_are_done_twice_are_tasks_once():
    """A pair far away is left out, and the local bandwidths are computed anew."""
    samples = np.vstack([np.repeat(X, 2, axis=0), X[:2] + 50])
    samples[:80] += 1e-3 * np.random.default_rng(1).standard_normal((80, 3))
    with pytest.warns(UserWarning, match="fewer than 10"):
        names, _ = recorded(DiffusionMap(n_neighbors=5), samples)
    assert len(names) == len(set(names)) == 7


def test_the_products_of_a_spectrum_are_tasks():
    model = HessianSpectrum(bowl, n_components=2)
    names, total = recorded(model, X[:1])
    assert total is None
    assert names == ["products"] * model.n_matvecs_


@pytest.mark.parametrize("vectorize", [False, True])
def test_the_steps_of_training_are_tasks(vectorize):
    model = TrajectorySampler(max_epochs=2, n_runs=2, batch_size=10, vectorize=vectorize)
    names, total = recorded(model, X, Y)
    assert total == 16
    assert names == ["steps"] * 16


def test_many_steps_share_a_task():
    recorder = Recorder()
    model = DiffusionMap().set_callbacks(recorder)
    with progress(2500, "Training", verbose=False, unit="steps", fitted=model) as bar:
        for _ in range(1250):
            bar.update(2)
    assert recorder.subtasks == 834
    assert recorder.events.count("end steps") == 834
    assert recorder.events[-1] == "end fit"


def test_a_pipeline_passes_its_callbacks_on(capsys):
    pytest.importorskip("rich")
    pipeline = make_pipeline(StandardScaler(), DiffusionMap())
    pipeline.set_callbacks(callbacks.ProgressBar()).fit(X)
    shown = capsys.readouterr().out
    assert "DiffusionMap - fit" in shown
    assert "100%" in shown


def test_callbacks_change_no_result_and_stay_with_a_clone():
    plain = DiffusionMap().fit(X)
    recorder = Recorder()
    watched = clone(DiffusionMap().set_callbacks(recorder))
    np.testing.assert_array_equal(watched.fit_transform(X), plain.embedding_)
    assert "teardown" in recorder.events
    assert set(vars(watched)) - set(vars(plain)) == {"_skl_callbacks"}


def test_callbacks_are_taken_down_after_an_error():
    recorder = Recorder(fails_at="kernel")
    with pytest.raises(RuntimeError, match="as asked"):
        DiffusionMap().set_callbacks(recorder).fit(X)
    assert recorder.events[-2:] == ["begin kernel", "teardown"]
    with pytest.raises(ValueError, match="alpha"):
        DiffusionMap(alpha=2).set_callbacks(Recorder()).fit(X)
