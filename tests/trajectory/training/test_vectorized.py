"""Runs trained together beside the same runs trained one after the other."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from skdmap._parameters import parameter_layout
from skdmap._random import resolve_seeds
from skdmap.exceptions import DivergenceWarning
from skdmap.trajectory._make_mlp import make_mlp
from skdmap.trajectory._training.config import RunTask, TrainingConfig
from skdmap.trajectory._training.factories import build_optimizer
from skdmap.trajectory._training.initialization import start_run
from skdmap.trajectory._training.loop import train
from skdmap.trajectory._training.vectorized import (
    ENTRYWISE,
    check_entrywise,
    stack_runs,
    train_vectorized,
)

N_ROWS, BATCH = 50, 16
CRITERION = nn.CrossEntropyLoss()


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = torch.tensor(rng.normal(size=(N_ROWS, 5)), dtype=torch.float32)
    return X, torch.tensor(rng.integers(0, 3, N_ROWS))


def fresh(data, n_runs=4, module=None, seed=0):
    module = module or partial(make_mlp, 5, 3, 8)
    return [
        start_run(
            run, resolve_seeds(seed), module, None,
            example=data[0][:2].numpy(), n_outputs=3, device=None,
        )
        for run in range(n_runs)
    ]  # fmt: skip


def settings(run, data, optimizer, params, last_step, criterion=CRITERION, **options):
    task = RunTask(
        X=data[0], y=data[1], criterion=criterion, layout=parameter_layout(run.module),
        observe=None, record_at=frozenset(range(last_step + 1)), last_step=last_step,
        batch_size=BATCH,
    )  # fmt: skip
    config = TrainingConfig(
        criterion=criterion, n_steps=last_step, optimizer=optimizer, optimizer_params=params,
        batch_size=BATCH, **options,
    )  # fmt: skip
    return task, config


def vectorized(runs, data, optimizer, params, last_step, **options):
    task, config = settings(runs[0], data, optimizer, params, last_step, **options)
    return [(run.index, snapshot) for run, snapshot in train_vectorized(runs, task, config)]


def one_by_one(runs, data, optimizer, params, last_step):
    rows = []
    for run in runs:
        task, config = settings(run, data, optimizer, params, last_step)
        built = build_optimizer(optimizer, params, run.module.parameters())
        rows.append(list(train(run, task, config, built)))
    return rows


# The step of Rprop depends on signs of gradients only, so that rounding may turn one round.
@pytest.mark.parametrize("optimizer", [name for name in ENTRYWISE if name != "Rprop"])
def test_the_first_hundred_steps_are_those_one_after_another(data, optimizer):
    params = {"lr": 0.05, "momentum": 0.9, "nesterov": True} if optimizer == "SGD" else {}
    runs = fresh(data)
    rows = vectorized(runs, data, optimizer, params, 100)
    expected = one_by_one(fresh(data), data, optimizer, params, 100)
    # Interleaved by step.
    assert [(run, row.step) for run, row in rows] == [(r, s) for s in range(101) for r in range(4)]
    for run, row in rows:
        want = expected[run][row.step]
        error = np.linalg.norm(row.theta - want.theta) / np.linalg.norm(want.theta)
        assert error <= 1e-5
        assert (row.step, row.epoch, row.learning_rate) == (
            want.step, want.epoch, want.learning_rate,
        )  # fmt: skip
        assert row.loss == pytest.approx(want.loss, rel=1e-4)


def test_every_name_of_the_list_is_an_optimizer_that_passes():
    for name in ENTRYWISE:
        check_entrywise(getattr(torch.optim, name)([torch.zeros(2, requires_grad=True)]))


def test_the_runs_are_left_as_training_one_by_one_leaves_them(data):
    runs, others = fresh(data), fresh(data)
    vectorized(runs, data, "Adam", {}, 10)
    one_by_one(others, data, "Adam", {}, 10)
    for run, other in zip(runs, others, strict=True):
        assert (run.step, run.epoch, run.recorded) == (other.step, other.epoch, other.recorded)
        assert torch.equal(run.batches, other.batches)
        for name, value in other.module.state_dict().items():
            torch.testing.assert_close(run.module.state_dict()[name], value, rtol=1e-5, atol=1e-6)
        assert [(p.epoch, p.n_rows) for p in run.passes] == [
            (p.epoch, p.n_rows) for p in other.passes
        ]
        for number, entries in other.optimizer[1]["state"].items():
            for key, value in entries.items():
                kept = run.optimizer[1]["state"][number][key]
                torch.testing.assert_close(kept, value, rtol=1e-4, atol=1e-6)


def test_a_second_call_goes_on_with_the_state_of_the_optimizer(data):
    whole = vectorized(fresh(data), data, "Adam", {}, 8)
    runs = fresh(data)
    # Passes of 50 rows in batches of 16 have four steps: a call begins with a pass.
    vectorized(runs, data, "Adam", {}, 4)
    rest = vectorized(runs, data, "Adam", {}, 8)
    last = {run: row.theta for run, row in whole if row.step == 8}
    for run, row in rest:
        if row.step == 8:
            np.testing.assert_allclose(row.theta, last[run], rtol=1e-5, atol=1e-6)


def test_a_run_that_diverges_ends_and_the_others_go_on(data):
    runs = fresh(data, n_runs=3)
    with torch.no_grad():
        for parameter in runs[1].module.parameters():
            parameter *= 1e4

    def quartic(outputs, targets):
        return (outputs**4).mean()

    with pytest.warns(DivergenceWarning, match="of run 1") as said:
        rows = vectorized(runs, data, "SGD", {"lr": 1e-3}, 6, criterion=quartic)
    steps = {index: [row.step for run, row in rows if run == index] for index in range(3)}
    assert steps[0] == steps[2] == list(range(7))
    assert len(steps[1]) < 7
    assert all(np.isfinite(row.theta).all() for _, row in rows)
    assert all(np.isfinite(row.loss) for _, row in rows)
    assert [run.diverged for run in runs] == [False, True, False]
    assert len(said) == 1


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.1)), "draws random numbers"),
        (lambda: nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)), "changes its buffers"),
    ],
)
def test_what_cannot_be_vectorised_is_an_error(data, module, message):
    with pytest.raises(ValueError, match=rf"vectorize=True: .*{message}.*vectorize=False"):
        stack_runs(fresh(data, module=module), *data, CRITERION)


def test_modules_that_differ_are_an_error(data):
    widths = iter(range(4, 10))
    runs = fresh(data, module=lambda: make_mlp(5, 3, next(widths)))
    with pytest.raises(ValueError, match="modules of runs 0 and 1 differ"):
        stack_runs(runs, *data, CRITERION)


def test_a_loss_that_is_not_finite_at_the_start_is_an_error(data):
    def bad(outputs, targets):
        return outputs.mean() / 0

    with pytest.raises(ValueError, match="must be finite"):
        vectorized(fresh(data), data, "SGD", {}, 3, criterion=bad)


def test_the_global_generator_is_left_alone(data):
    before = torch.get_rng_state()
    vectorized(fresh(data), data, "SGD", {}, 5)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_schedulers_step_after_each_step_or_pass(data, interval):
    rates = {"scheduler": "ExponentialLR", "scheduler_params": {"gamma": 0.5}}
    rows = vectorized(
        fresh(data, 1), data, "SGD", {"lr": 0.1}, 9, scheduler_interval=interval, **rates
    )
    # The rate of row s is that of step s, so the last step of a scheduler at step 9 is not in it.
    steps = [1 if s == 0 else s for s in range(10)]
    expected = [0.1 * 0.5 ** ((s - 1) if interval == "step" else (s - 1) // 4) for s in steps]
    np.testing.assert_allclose([row.learning_rate for _, row in rows], expected)


class Wrapped(nn.Module):
    """The same network, but none whose layers can be told from outside."""

    def __init__(self, bias=True):
        super().__init__()
        self.first, self.last = nn.Linear(5, 8, bias=bias), nn.Linear(8, 3, bias=bias)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_short_ways_give_what_vmap_gives(data, bias, smoothing):
    def chain():
        layers = Wrapped(bias)
        return nn.Sequential(layers.first, nn.Tanh(), layers.last)

    rows = torch.randint(0, N_ROWS, (4, 7), generator=torch.Generator().manual_seed(0))
    criterion = nn.CrossEntropyLoss(label_smoothing=smoothing)
    fast = stack_runs(fresh(data, module=chain), *data, CRITERION)
    slow = stack_runs(fresh(data, module=lambda: Wrapped(bias)), *data, criterion)
    assert (fast.is_chain, slow.is_chain) == (True, False)
    assert (fast.is_entropy, slow.is_entropy) == (True, smoothing == 0)
    if smoothing:
        fast = replace(fast, is_entropy=False, criterion=criterion)
    torch.testing.assert_close(fast.losses(rows), slow.losses(rows))
    each = [
        criterion(run.module(data[0][batch]), data[1][batch])
        for run, batch in zip(slow.runs, rows, strict=True)
    ]
    torch.testing.assert_close(slow.losses(rows), torch.stack(each))


@pytest.mark.parametrize(
    "criterion",
    [
        nn.CrossEntropyLoss(reduction="sum"),
        nn.CrossEntropyLoss(weight=torch.ones(3)),
        nn.CrossEntropyLoss(ignore_index=0),
        nn.NLLLoss(),
    ],
)
def test_the_short_way_is_taken_for_the_plain_cross_entropy_only(data, criterion):
    assert not stack_runs(fresh(data), *data, criterion).is_entropy


@pytest.mark.parametrize("kind", ["layer", "function"])
def test_a_chain_with_a_part_twice_is_no_chain(data, kind):
    layer, tanh = nn.Linear(5, 5), nn.Tanh()
    parts = [layer, tanh, layer] if kind == "layer" else [layer, tanh, tanh]
    twice = nn.Sequential(*parts, nn.Linear(5, 3))
    stack = stack_runs(fresh(data, module=lambda: twice), *data, CRITERION)
    assert not stack.is_chain
    rows = torch.arange(8).view(4, 2)
    expected = CRITERION(twice(data[0][rows[1]]), data[1][rows[1]])
    torch.testing.assert_close(stack.losses(rows)[1], expected)
