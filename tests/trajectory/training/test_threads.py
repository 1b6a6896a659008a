"""Fits in several threads give the rows of each fit alone, and leave the global generator alone."""

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from skdmap import TrajectoryRecorder, TrajectorySampler, _random
from skdmap._random import TorchStream, forked_torch, seed_torch, seeded_states

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


class Dropped(nn.Sequential):
    """Layers of torch's own, one of them random."""

    def __init__(self):
        super().__init__(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 2))


class Jittered(nn.Module):
    """A forward of its own that draws."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, x):
        return self.layer(x + 0.1 * torch.randn_like(x))


class Langevin(torch.optim.SGD):
    """An optimizer that draws."""

    def step(self, closure):
        loss = super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.add_(0.01 * torch.randn_like(parameter))
        return loss


def noisy_loss(outputs, targets):
    return nn.functional.cross_entropy(outputs + 0.1 * torch.randn_like(outputs), targets)


CASES = {
    "default network": {},
    "dropout": {"module": Dropped},
    "forward": {"module": Jittered},
    "optimizer": {"optimizer": Langevin, "optimizer_params": {"lr": 0.1}},
    "loss": {"criterion": noisy_loss},
    "callback": {"callbacks": lambda step, loss, module: bool(torch.rand(1) > 2)},
    "function": {"record": lambda module: module(torch.randn(2, 6)).reshape(-1)},
    "outputs": {"module": Dropped, "record": "outputs"},
    "batch": {"vectorize": True, "n_runs": 2},
    "noise": {"label_noise": 0.2, "n_runs": 2, "module": Dropped},
    "plateau": {"module": Dropped, "scheduler": "ReduceLROnPlateau"},
}


def fit(seed, case):
    params = {"max_epochs": 2, "batch_size": 8, **CASES[case]}
    return TrajectorySampler(random_state=seed, **params).fit(X, Y).snapshots_


@pytest.mark.parametrize("case", CASES)
def test_rows_in_threads_are_those_alone(case):
    alone = [fit(seed, case) for seed in range(4)]
    before = torch.get_rng_state()
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda seed: fit(seed, case), range(4)))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
    assert torch.equal(before, torch.get_rng_state())


def test_samplers_of_every_kind_share_the_threads():
    jobs = [(seed, case) for case in CASES for seed in range(2)]
    alone = [fit(*job) for job in jobs]
    before = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda job: fit(*job), jobs))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
    assert torch.equal(before, torch.get_rng_state())


STEPS = {
    "default network": ({}, False),
    "layers": (
        {"module": lambda: nn.Sequential(nn.Linear(6, 4), nn.GELU(), nn.Linear(4, 2))},
        False,
    ),
    "adam": ({"optimizer": "Adam", "optimizer_params": {"weight_decay": 0.1}}, False),
    "weights": ({"criterion": nn.CrossEntropyLoss, "criterion__label_smoothing": 0.1}, False),
    "plateau": ({"scheduler": "ReduceLROnPlateau"}, False),
    "dropout": (CASES["dropout"], True),
    "forward": (CASES["forward"], True),
    "optimizer": (CASES["optimizer"], True),
    "loss": (CASES["loss"], True),
}


@pytest.mark.parametrize("case", STEPS)
def test_only_steps_that_may_draw_take_the_global_generator(case, monkeypatch):
    taken = []

    class Counting(type(_random._GENERATORS)):
        def __enter__(self):
            taken.append(1)
            super().__enter__()

    monkeypatch.setattr(_random, "_GENERATORS", Counting())
    params, may_draw = STEPS[case]
    counts = []
    for max_steps in (1, 50):
        taken.clear()
        sampler = TrajectorySampler(max_epochs=None, max_steps=max_steps, random_state=0)
        sampler.set_params(**params).fit(X, Y)
        counts.append(len(taken))
    assert counts[1] - counts[0] == (0 if not may_draw else pytest.approx(49, abs=50))
    assert (counts[1] > counts[0]) == may_draw


def test_a_recorder_in_another_thread_sees_its_own_loop():
    modules = [nn.Linear(6, 2), nn.Linear(6, 2)]
    modules[1].load_state_dict(modules[0].state_dict())

    def loop(module):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        record = ("outputs", X[:3])
        with TrajectoryRecorder(module, optimizer, record=record) as recorder:
            for _ in range(20):
                optimizer.zero_grad()
                nn.functional.cross_entropy(module(torch.tensor(X)), torch.tensor(Y)).backward()
                optimizer.step()
        return recorder.snapshots_

    alone = loop(modules[0]), fit(1, "dropout")
    with ThreadPoolExecutor(2) as pool:
        both = pool.submit(loop, modules[1]), pool.submit(fit, 1, "dropout")
    assert all(np.array_equal(a, b.result()) for a, b in zip(alone, both, strict=True))


def test_seeded_states_are_those_of_the_seeded_generator():
    cpu = torch.device("cpu")
    with forked_torch(cpu):
        seed_torch(7, cpu)
        assert torch.equal(seeded_states(7, cpu)[0], torch.get_rng_state())


def test_a_stream_goes_on_where_it_was_left():
    cpu = torch.device("cpu")
    stream, drawn, before = TorchStream(seeded_states(7, cpu), cpu), [], torch.get_rng_state()
    for _ in range(3):
        with stream:
            drawn.append(torch.rand(2))
        assert torch.equal(torch.get_rng_state(), before)
    expected = torch.rand(6, generator=torch.Generator().manual_seed(7))
    assert torch.equal(torch.cat(drawn), expected)


def test_an_error_in_a_stream_frees_the_generator():
    with pytest.raises(RuntimeError, match="mine"), TorchStream(
        seeded_states(7, torch.device("cpu")), torch.device("cpu")
    ):  # fmt: skip
        raise RuntimeError("mine")
    with ThreadPoolExecutor(1) as pool:
        assert len(pool.submit(fit, 0, "dropout").result(timeout=60)) == 17


def _draw_in_child(queue):
    with forked_torch(torch.device("cpu")):
        seed_torch(7, torch.device("cpu"))
        queue.put(torch.rand(2).tolist())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_process_forked_while_another_thread_holds_the_generator_can_draw():
    inside, over = threading.Event(), threading.Event()

    def hold():
        with forked_torch(torch.device("cpu")):
            inside.set()
            over.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(60)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_draw_in_child, args=(queue,))
    try:
        child.start()
        expected = torch.rand(2, generator=torch.Generator().manual_seed(7)).tolist()
        assert queue.get(timeout=60) == expected
        child.join()
    finally:
        over.set()
        thread.join()
