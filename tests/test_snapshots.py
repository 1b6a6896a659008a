"""What functions of snapshots take: arrays, recordings and lists of them; else, what to pass."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import make_regression

from skdmap import (
    DiffusionMap,
    HessianSpectrum,
    TrajectoryRecorder,
    TrajectorySampler,
    hessian_spectrum_path,
    open_trajectory,
)
from skdmap._snapshots import snapshots_of
from skdmap.diagnostics import (
    dimension_test,
    displacement_share,
    effective_dimension,
    local_dimension,
    null_envelope,
    random_walk,
    surrogate_trajectories,
)

FUNCTIONS = {
    "surrogate_trajectories": lambda x, **k: next(
        surrogate_trajectories(x, n_surrogates=1, random_state=0, **k)
    ),
    "dimension_test": lambda x, **k: (
        dimension_test(x, null="ar1", n_surrogates=3, random_state=0, **k).run_statistics
    ),
    "null_envelope": lambda x, **k: (
        null_envelope(x, n_values=3, n_surrogates=3, random_state=0, **k).values
    ),
    "local_dimension": lambda x, **k: (
        local_dimension(x, window=10, n_surrogates=3, random_state=0, **k).dimension
    ),
    "effective_dimension": lambda x, **k: effective_dimension(x, **k).per_run,
}


@pytest.fixture(scope="module")
def sampler(tmp_path_factory):
    X, y = make_regression(40, 5, random_state=0)
    store = tmp_path_factory.mktemp("store") / "runs"
    return TrajectorySampler(n_runs=2, max_epochs=3, batch_size=8, store=store, random_state=0).fit(
        X.astype(np.float32), y.astype(np.float32)
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_recording_stands_for_its_snapshots_and_runs(sampler, name):
    compute = FUNCTIONS[name]
    expected = compute(np.asarray(sampler.snapshots_), run_ids=sampler.run_ids_)
    for recording in (sampler, open_trajectory(sampler.store)):
        np.testing.assert_array_equal(compute(recording), expected)
    np.testing.assert_array_equal(
        compute(sampler, run_ids=np.zeros(len(sampler.run_ids_))),
        compute(np.asarray(sampler.snapshots_)),
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_list_holds_the_runs_of_each_one(sampler, name):
    compute = FUNCTIONS[name]
    rows = np.asarray(sampler.snapshots_)
    extra = random_walk(30, rows.shape[1], random_state=1)
    # Runs of the second recording are numbered on, although its own numbers begin at 0.
    ids = np.concatenate([sampler.run_ids_, sampler.run_ids_ + 2, np.full(30, 4)])
    expected = compute(np.concatenate([rows, rows, extra]), run_ids=ids)
    found = compute([sampler, open_trajectory(sampler.store), extra])
    np.testing.assert_array_equal(found, expected)


def test_steps_of_a_recording_are_those_of_the_windows(sampler):
    found = local_dimension(sampler, window=10, n_surrogates=3, random_state=0)
    named = local_dimension(
        sampler, steps=sampler.steps_ * 2, window=10, n_surrogates=3, random_state=0
    )
    assert found.centers[0] == np.mean(sampler.steps_[[0, 9]])
    np.testing.assert_array_equal(named.centers, 2 * found.centers)


def test_a_recorder_stands_for_its_rows():
    module = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    recorder = TrajectoryRecorder(module, optimizer)
    with pytest.raises(ValueError, match="TrajectoryRecorder holds no snapshots yet"):
        effective_dimension(recorder)
    with recorder:
        for _ in range(30):
            optimizer.zero_grad()
            module(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
    found, expected = effective_dimension(recorder), effective_dimension(recorder.snapshots_)
    np.testing.assert_array_equal(found.dimension, expected.dimension)
    with pytest.raises(ValueError, match="TrajectorySampler holds no snapshots yet"):
        effective_dimension(TrajectorySampler())


def test_a_sketch_is_known_from_its_recording():
    rows = random_walk(30, 8, random_state=0)
    parts = {"snapshots_": rows, "run_ids_": np.zeros(30), "steps_": np.arange(30)}
    sketch = SimpleNamespace(**parts, sketch_error_=np.zeros(30))
    full = SimpleNamespace(**parts, sketch_error_=None)
    assert snapshots_of(sketch).sketch_dim == 8
    assert snapshots_of(full).sketch_dim is None
    assert snapshots_of([sketch, sketch]).sketch_dim == 8
    with pytest.raises(ValueError, match="both sketches and full rows"):
        snapshots_of([sketch, full])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("runs/a", r"snapshots is a path. Open .*open_trajectory"),
        (Path("runs/a"), r"snapshots is a path. Open .*open_trajectory"),
        (["a.pt", "b.pt"], r"snapshots is a list of paths"),
        (torch.nn.Linear(2, 1).state_dict(), "snapshots is a mapping. Of state dicts, flatten"),
        ([torch.nn.Linear(2, 1).state_dict()] * 3, "snapshots is a list of mappings"),
        (torch.nn.Linear(2, 1), "snapshots is a module. Record its training"),
        ([torch.nn.Linear(2, 1)], "snapshots is a list of modules"),
        (None, r"snapshots has shape \(\) and dtype object"),
        ([[1, 2], [3]], "snapshots cannot be read as an array"),
        (np.zeros(5), r"snapshots has shape \(5,\); it must be"),
        (np.zeros((0, 3)), r"snapshots has shape \(0, 3\)"),
        ([np.zeros((6, 2)), np.zeros((6, 3))], "recordings of 2, 3 columns"),
        ([np.zeros((6, 2)), "a.pt"], r"snapshots\[1\] is a path"),
        ([np.zeros((6, 2)), None], r"snapshots\[1\] has shape \(\)"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else type(value).__name__,
)
@pytest.mark.parametrize("compute", FUNCTIONS.values(), ids=FUNCTIONS)
def test_anything_else_is_answered_with_what_to_pass(compute, source, message):
    with pytest.raises(ValueError, match=message):
        compute(source)


@pytest.mark.parametrize("compute", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_named(compute, value):
    rows = random_walk(40, 6, random_state=0)
    rows[12, 3] = rows[30] = value
    with pytest.raises(ValueError, match=r"NaN or infinity, first in row 12 \(2 of 40 rows\)"):
        compute(rows)
    with pytest.raises(ValueError, match="squares overflow"):
        compute(np.where(np.isfinite(rows), rows, 0.0) * 1e200)


def test_lists_of_numbers_are_arrays():
    rows = random_walk(30, 4, random_state=0)
    np.testing.assert_array_equal(
        effective_dimension(rows.tolist()).dimension, effective_dimension(rows).dimension
    )


ESTIMATES = {
    "DiffusionMap": lambda x: DiffusionMap(2, bandwidth="median").fit(x).embedding_,
    "DiffusionMap.transform": lambda x: (
        DiffusionMap(2, bandwidth="median").fit(np.arange(36.0).reshape(4, 9)).transform(x)
    ),
    "HessianSpectrum": lambda x: HessianSpectrum(lambda t: (t**4).sum(), 2).fit(x).eigenvalues_,
    "hessian_spectrum_path": lambda x: (
        hessian_spectrum_path(lambda t: (t**4).sum(), x, 2, random_state=0).eigenvalues
    ),
    "displacement_share": lambda x: displacement_share(x, np.eye(9)[:2]).share,
}


@pytest.mark.parametrize("name", ESTIMATES)
def test_estimators_take_recordings_and_lists_of_them(name):
    compute = ESTIMATES[name]
    recorders = []
    for seed in range(2):
        module = torch.nn.Linear(8, 1)
        with torch.no_grad(), TrajectoryRecorder(module) as recorder:
            for step in range(12):
                module.weight[0, step % 8] = 1.0 + 0.1 * step + seed
                module.bias[0] = 0.1 * step
                recorder.step()
        recorders.append(recorder)
    rows = [np.asarray(recorder.snapshots_) for recorder in recorders]
    np.testing.assert_array_equal(compute(recorders[0]), compute(rows[0]))
    np.testing.assert_array_equal(compute(recorders), compute(np.concatenate(rows)))
    for source in (["a.pt", "b.pt"], [module.state_dict()], module):
        with pytest.raises(ValueError, match=r"is a (list of|module).*(Open|latten|Record)"):
            compute(source)
