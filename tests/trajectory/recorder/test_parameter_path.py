"""Which parameters a row holds, and how far the module has moved since the last one."""

import numpy as np
import pytest
import torch
from torch import nn

from skdmap import Displacement, TrajectoryRecorder
from skdmap.exceptions import SkdmapWarning

N_ROWS, N_FEATURES = 40, 5


def test_path_lengths_add_up_over_steps_that_are_not_recorded(data, new_module, loop, sgd):
    module, seen = new_module(), []
    with TrajectoryRecorder(module, record_every=4) as recorder:
        loop(module, sgd(module), data, 10, seen=seen)
    moves = np.diff(np.stack([row for row, _ in seen]).astype(float), axis=0)
    lengths = np.linalg.norm(moves, axis=1)
    wanted = [lengths[:4].sum(), lengths[4:8].sum(), lengths[8:].sum()]
    np.testing.assert_allclose(recorder.path_lengths_[1:], wanted, rtol=1e-5)
    assert np.isnan(recorder.path_lengths_[0])


@pytest.mark.parametrize("along", ["line", "path"])
def test_displacement_records_when_the_distance_is_reached_and_not_before(
    data, along, new_module, loop, sgd
):
    module, seen, delta = new_module(), [], 0.3
    cadence = Displacement(delta, along)
    with TrajectoryRecorder(module, record_every=cadence) as recorder:
        loop(module, sgd(module), data, 25, seen=seen)
    rows = np.stack([row for row, _ in seen]).astype(float)
    moves = np.linalg.norm(np.diff(rows, axis=0), axis=1)
    steps, mark = [0], 0
    for step in range(1, 26):
        line, path = np.linalg.norm(rows[step] - rows[mark]), moves[mark:step].sum()
        if (line if along == "line" else path) >= delta:
            steps.append(step)
            mark = step
    assert recorder.steps_.tolist() == sorted({*steps, 25})
    assert 3 < len(recorder.steps_) < 26


def test_patterns_select_the_parameters_of_a_row(data, new_module, theta, loop, sgd):
    module = new_module()
    with TrajectoryRecorder(module, parameters="2.*") as recorder:
        loop(module, sgd(module), data, 3)
    assert recorder.snapshots_.shape == (4, 18)
    np.testing.assert_array_equal(recorder.snapshots_[-1], theta(module[2]))
    with pytest.raises(ValueError, match=r"leave out the parameters 0\.weight"):
        recorder.module_at(0)


def test_many_parameters_are_followed_as_few_are(data, theta, loop, sgd):
    # Above 2^16 parameters the path is measured chunk by chunk.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(N_FEATURES, 9000), nn.ReLU(), nn.Linear(9000, 2))
    assert len(theta(module)) > 2**16
    seen = []
    with TrajectoryRecorder(module, record_every=2) as recorder:
        loop(module, sgd(module), data, 6, log=recorder.log, seen=seen)
    rows = np.stack([row for row, _ in seen])
    np.testing.assert_array_equal(recorder.snapshots_, rows[::2])
    lengths = np.linalg.norm(np.diff(rows.astype(float), axis=0), axis=1)
    np.testing.assert_allclose(
        recorder.path_lengths_[1:], lengths.reshape(3, 2).sum(axis=1), rtol=1e-4
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda module: setattr(module, "2", nn.Linear(8, 3)),
        lambda module: module.append(nn.Linear(2, 2)),
        lambda module: module.__delitem__(2),
    ],
)
def test_a_module_whose_parameters_change_is_an_error_that_keeps_the_rows(
    data, change, new_module, loop, sgd
):
    module = new_module()
    optimizer = sgd(module)
    recorder = TrajectoryRecorder(module)
    message = "other parameters than when its recording began"
    with pytest.raises(ValueError, match=message), recorder:  # noqa: PT012 - as a user writes it
        loop(module, optimizer, data, 3)
        change(module)
        optimizer.step()
    assert recorder.steps_.tolist() == [0, 1, 2, 3]


def test_frozen_parameters_that_are_trained_later_are_named(data, new_module, loop, sgd):
    module = new_module()
    module[0].requires_grad_(False)
    optimizer = sgd(module)
    with (  # noqa: PT031 - the loop is what warns
        pytest.warns(SkdmapWarning, match=r"0\.bias, 0\.weight"),
        TrajectoryRecorder(module) as recorder,
    ):
        loop(module, optimizer, data, 1)
        module[0].requires_grad_(True)
        loop(module, optimizer, data, 2)
    assert recorder.snapshots_.shape == (4, 18)


def test_tied_parameters_come_once(data):
    module = nn.Sequential(nn.Linear(N_FEATURES, N_FEATURES), nn.Linear(N_FEATURES, N_FEATURES))
    module[1].weight = module[0].weight
    with TrajectoryRecorder(module) as recorder:
        pass
    assert recorder.snapshots_.shape == (1, N_FEATURES**2 + 2 * N_FEATURES)


def test_complex_parameters_are_an_error_unless_others_are_selected():
    module = nn.Linear(3, 1)
    module.angles = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"complex parameters .angles.; they must be real"):
        TrajectoryRecorder(module)
    with TrajectoryRecorder(module, parameters=["weight", "bias"]) as recorder:
        pass
    assert recorder.snapshots_.shape == (1, 4)
