"""Learning rates of every schedule are those of a loop by hand, whole, cut off and gone on with."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

from skdmap import TrajectorySampler
from skdmap.trajectory._storage import store as _store

N_ROWS, BATCH, N_STEPS = 45, 16, 14


def by_parts(optimizer):
    parts = [
        lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3),
        lr_scheduler.CosineAnnealingLR(optimizer, T_max=4),
        lr_scheduler.ExponentialLR(optimizer, 0.7),
    ]
    return lr_scheduler.SequentialLR(optimizer, parts, milestones=[2, 5])


def by_root(optimizer):
    return lr_scheduler.LambdaLR(optimizer, lambda n: (1 + n) ** -0.5)


def one_cycle(optimizer):
    return lr_scheduler.OneCycleLR(optimizer, max_lr=0.3, total_steps=N_STEPS)


def cosine(optimizer):
    return lr_scheduler.CosineAnnealingLR(optimizer, T_max=5, eta_min=1e-3)


def plateau(optimizer):
    return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.02)


SCHEDULES = [by_parts, by_root, one_cycle, cosine, plateau]


class CutError(Exception):
    """What a kill is to the code that runs."""


class Cutting(nn.Module):
    """Cross-entropy that ends the process' work at one of its calls."""

    calls, at = 0, None

    def forward(self, outputs, targets):
        Cutting.calls += 1
        if Cutting.calls == Cutting.at:
            raise CutError
        return F.cross_entropy(outputs, targets)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N_ROWS, 4)).astype(np.float32), rng.integers(0, 3, N_ROWS)


def new_optimizer(parameters):
    first, *rest = parameters
    groups = [{"params": [first], "lr": 0.2}, {"params": rest}]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


def sampler(scheduler, interval, **params):
    Cutting.calls, Cutting.at = 0, None
    settings = {
        "module": lambda: nn.Linear(4, 3), "criterion": Cutting(), "optimizer": new_optimizer,
        "scheduler": scheduler, "scheduler_interval": interval, "max_epochs": None,
        "max_steps": N_STEPS, "batch_size": BATCH, "random_state": 0,
    }  # fmt: skip
    return TrajectorySampler(**{**settings, **params})


def by_hand(data, module, make_scheduler, interval):
    """Return rates, of the step that led to each row, and parameters of each row."""
    X, y = map(torch.tensor, data)
    seed = np.random.SeedSequence(0, spawn_key=(1, 0)).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(seed))
    optimizer = new_optimizer(list(module.parameters()))
    scheduler = make_scheduler(optimizer)
    rates, rows, waiting, batches = [optimizer.param_groups[0]["lr"]], [], [], []
    for step in range(N_STEPS + 1):
        rows.append(torch.cat([p.detach().reshape(-1) for p in module.parameters()]).numpy())
        if step == N_STEPS:
            break
        batches = batches or list(torch.randperm(N_ROWS, generator=generator).split(BATCH))
        batch = batches.pop(0)
        optimizer.zero_grad()
        loss = F.cross_entropy(module(X[batch]), y[batch])
        loss.backward()
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        waiting.append((loss.item() * len(batch), len(batch)))
        if interval == "step" or not batches:
            total, n_rows = np.sum(waiting, axis=0)
            args = [total / n_rows] if make_scheduler is plateau else []
            scheduler.step(*args)
            waiting = []
    return np.array(rates), np.array(rows)


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("scheduler", SCHEDULES)
def test_rates_and_rows_are_those_of_a_loop_by_hand(data, scheduler, interval):
    fitted = sampler(scheduler, interval).fit(*data)
    rates, rows = by_hand(data, fitted.module_at(0).train(), scheduler, interval)
    np.testing.assert_array_equal(fitted.learning_rates_, rates)
    np.testing.assert_array_equal(fitted.snapshots_, rows)
    assert len(np.unique(rates)) > 2


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("scheduler", SCHEDULES)
def test_a_run_cut_off_within_a_pass_has_the_same_rates(
    data, scheduler, interval, tmp_path, monkeypatch
):
    monkeypatch.setattr(_store, "_STATE_EVERY", 0.0)
    first = sampler(scheduler, interval, store=tmp_path)
    Cutting.at = 6
    with pytest.raises(CutError):
        first.fit(*data)
    resumed = sampler(scheduler, interval, store=tmp_path, resume=True).fit(*data)
    rates, rows = by_hand(data, resumed.module_at(0).train(), scheduler, interval)
    np.testing.assert_array_equal(resumed.learning_rates_, rates)
    np.testing.assert_array_equal(resumed.snapshots_, rows)


@pytest.mark.parametrize("scheduler", [s for s in SCHEDULES if s is not plateau])
def test_runs_trained_together_have_the_same_rates(data, scheduler):
    for interval in ("epoch", "step"):
        alone = sampler(scheduler, interval, n_runs=2).fit(*data)
        together = sampler(scheduler, interval, n_runs=2, vectorize=True).fit(*data)
        order = np.lexsort((together.steps_, together.run_ids_))
        np.testing.assert_array_equal(together.learning_rates_[order], alone.learning_rates_)


@pytest.mark.parametrize("vectorize", [False, True])
@pytest.mark.parametrize(("interval", "needed"), [("step", N_STEPS), ("epoch", N_STEPS // 3)])
def test_a_schedule_that_would_end_before_the_run_is_an_error_before_it(
    data, interval, needed, vectorize
):
    def cycle(total_steps):
        params = {"max_lr": 0.1, "total_steps": total_steps}
        return sampler(
            "OneCycleLR", interval, optimizer="SGD", scheduler_params=params, vectorize=vectorize
        )

    with pytest.raises(ValueError, match=rf"total_steps={needed - 1} .*stepped {needed} times"):
        cycle(needed - 1).fit(*data)
    assert Cutting.calls <= 2  # tried on two rows, and stacked
    assert cycle(needed).fit(*data).steps_[-1] == N_STEPS


def test_a_schedule_that_would_end_in_the_next_call_is_an_error(data):
    settings = {"max_lr": 0.1, "total_steps": 9}
    warm = sampler("OneCycleLR", "step", scheduler_params=settings, max_steps=6, warm_start=True)
    warm.fit(*data)
    with pytest.raises(ValueError, match="would be stepped 12 times"):
        warm.fit(*data)
    warm.set_params(max_steps=3).fit(*data)
    assert warm.steps_[-1] == 9
