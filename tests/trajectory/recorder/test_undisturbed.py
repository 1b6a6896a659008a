"""A recorder leaves the loop, the module and the random generators as they were."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.optimizer import _global_optimizer_post_hooks

from skdmap import TrajectoryRecorder

N_ROWS, N_FEATURES = 40, 5


def _numpy_state():
    return np.random.get_state()[1].copy()  # noqa: NPY002 - the global one must not move


@pytest.fixture(scope="module")
def tensors():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(45, 4)).astype(np.float32), rng.integers(0, 3, 45)
    return torch.tensor(X), torch.tensor(y)


def gradient(module):
    return np.concatenate([p.grad.numpy().ravel() for p in module.parameters()])


@pytest.mark.parametrize(
    "make",
    [
        lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9),
        lambda m: torch.optim.Adam(m.parameters(), lr=0.01),
    ],
)
def test_recording_changes_nothing_in_the_loop(data, make, new_module, theta, loop):
    plain, recorded = new_module(), new_module()
    first, second = make(plain), make(recorded)
    loop(plain, first, data, 9)
    with TrajectoryRecorder(recorded, second):
        loop(recorded, second, data, 9)
    np.testing.assert_array_equal(theta(plain), theta(recorded))
    states = [list(o.state_dict()["state"].values()) for o in (first, second)]
    for one, other in zip(*states, strict=True):
        for key, value in one.items():
            np.testing.assert_array_equal(np.asarray(value), np.asarray(other[key]))


def test_generators_modes_gradients_and_hooks_are_as_they_were_found(data, new_module):
    module = nn.Sequential(new_module(), nn.Dropout(0.5), nn.BatchNorm1d(2))
    module[2].eval()
    before = torch.get_rng_state(), _numpy_state(), random.getstate()
    hooks = dict(_global_optimizer_post_hooks)
    buffers = [b.clone() for b in module.buffers()]
    with TrajectoryRecorder(module, record=("outputs", data[0])) as recorder:
        pass
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(_numpy_state(), before[1])
    assert random.getstate() == before[2]
    assert [part.training for part in module] == [True, True, False]
    assert all(p.grad is None for p in module.parameters())
    for buffer, old in zip(module.buffers(), buffers, strict=True):
        assert torch.equal(buffer, old)
    assert dict(_global_optimizer_post_hooks) == hooks
    assert recorder.snapshots_.shape == (1, 2 * N_ROWS)


def test_a_function_of_the_recorder_leaves_the_gradients(tensors, loop):
    X, y = tensors

    def loop(module, n_steps=4):
        """Steps along gradients that are never put back to zero."""
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
        for _ in range(n_steps):
            F.cross_entropy(module(X), y).backward()
            optimizer.step()
        return gradient(module)

    def look(module):
        with torch.enable_grad():
            F.cross_entropy(module(X), y).backward()
        return module[0].bias

    plain = nn.Sequential(nn.Linear(4, 3))
    recorded = copy.deepcopy(plain)
    wanted = loop(plain)
    with TrajectoryRecorder(recorded, record=look) as recorder:
        np.testing.assert_array_equal(loop(recorded), wanted)
    assert recorder.snapshots_.shape == (5, 3)


@pytest.mark.parametrize("change", ["divide", "fill"])
def test_a_loss_may_be_changed_in_place_after_it_was_logged(tensors, change):
    module, seen = nn.Linear(4, 3), []
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    total = torch.zeros(())
    with TrajectoryRecorder(module) as recorder:
        for _ in range(3):
            optimizer.zero_grad()
            loss = F.cross_entropy(module(tensors[0]), tensors[1])
            seen.append(loss.item())
            if change == "divide":
                recorder.log(loss)
                loss /= 4
            else:  # a sum that is logged, and begun again
                total += loss.detach()
                recorder.log(total)
                total.zero_()
            loss.backward()
            optimizer.step()
    np.testing.assert_array_equal(recorder.losses_[:-1], np.float32(seen))
