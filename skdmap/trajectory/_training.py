"""Training: a run's module, loss, optimizer and batches -> one snapshot per recorded step.

Stores nothing: the caller keeps the snapshots and carries the :class:`Run` to the next call.
"""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from skdmap._parameters import ParameterLayout
from skdmap._random import forked_torch, get_torch_state, set_torch_state
from skdmap._warning import warn
from skdmap.exceptions import DivergenceWarning
from skdmap.trajectory._buffers import flatten_buffers, kept_buffers

__all__ = ["Pass", "Run", "Snapshot", "Task", "module_device", "train"]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Snapshot:
    """The state after ``step`` steps.

    Attributes
    ----------
    theta : ndarray of shape (n_parameters,)
        Recorded parameters; always finite.
    buffers : ndarray of float64, shape (n_buffer_entries,)
        Beside them.
    step, epoch : int
        Steps made, and passes over the rows completed.
    loss : float
        At ``theta``, on the batch of the next step.
    learning_rate : float
        Of the step that led here.
    """

    theta: np.ndarray
    buffers: np.ndarray
    step: int
    epoch: int
    loss: float
    learning_rate: float


@dataclass
class Pass:
    """What one pass over the rows has come to.

    Attributes
    ----------
    epoch : int
        Its number, from 1.
    loss_sum : float
        Sum over rows seen of what the criterion gave for their batch, before its step.
    n_rows : int
        Rows seen.
    learning_rate : float
        Of the last step.
    """

    epoch: int
    loss_sum: float = 0.0
    n_rows: int = 0
    learning_rate: float = math.nan


@dataclass
class Run:
    """What a run carries from one call of :func:`train` to the next; plain data, so it pickles.

    Attributes
    ----------
    index : int
        Number of the run.
    module : torch.nn.Module
        Trained in place.
    batches : Tensor
        State of the generator of the batch order.
    dropout : list of Tensor
        States of the generators that the module draws from.
    optimizer : tuple of (type, dict) or None
        Class and state_dict; an optimizer itself does not survive pickling (LBFGS).
    step, epoch : int
        Steps made, passes completed.
    passes : list of Pass
        One for each pass begun.
    recorded : int
        Step of the last row, -1 before there is one.
    diverged : bool
        Whether the last call ended because something was not finite.
    """

    index: int
    module: nn.Module
    batches: torch.Tensor
    dropout: list[torch.Tensor]
    optimizer: tuple[type, dict[str, Any]] | None = None
    step: int = 0
    epoch: int = 0
    passes: list[Pass] = field(default_factory=list)
    recorded: int = -1
    diverged: bool = False


class _NotFiniteError(Exception):
    """The first loss of a step is not finite; raised before the parameters are changed."""


@dataclass(frozen=True)
class Task:
    """What is to be trained on, and what is to be recorded.

    Attributes
    ----------
    X, y : Tensor of shape (n, ...)
        All rows, on the module's device.
    criterion : callable
        (outputs, targets) -> scalar.
    layout : ParameterLayout
        Which parameters make a snapshot.
    batch_size : int
        Rows per step.
    record_at : frozenset of int
        Numbers of the steps to yield.
    last_step : int
        Number of the last step.
    burn_in : int
        No step before this one is yielded, not even where training diverges.
    dtype : torch.dtype
        Of the snapshots.
    """

    X: torch.Tensor
    y: torch.Tensor
    criterion: Loss
    layout: ParameterLayout
    batch_size: int
    record_at: frozenset[int]
    last_step: int
    burn_in: int
    dtype: torch.dtype


def module_device(module: nn.Module) -> torch.device:
    """Return the device of the first parameter."""
    return next(module.parameters()).device


def train(
    run: Run, optimizer: torch.optim.Optimizer, task: Task
) -> Generator[Snapshot, None, None]:
    """Train up to step ``task.last_step`` and yield the steps that are to be recorded.

    Parameters
    ----------
    run : Run
        Changed in place; its counters are right whenever the caller has control.
    optimizer : torch.optim.Optimizer
        Of the run's module; stepped with a closure.
    task : Task
        Rows are indexed by one permutation per pass; the last batch of a pass may be smaller.

    Yields
    ------
    Snapshot
        In the order of steps. Where the loss is not finite, the last one, recorded or not, unless
        it lies before the burn-in. The first one may be the row that an earlier call ended with,
        now with the loss on the batch that did come next.

    Raises
    ------
    ValueError
        If the loss is not finite before the first step.

    Warns
    -----
    DivergenceWarning
        If it is not finite later, or the parameters are not.
    """
    generator = torch.Generator()
    generator.set_state(run.batches)
    run.diverged = False
    device = module_device(run.module)
    with forked_torch(device):
        set_torch_state(run.dropout, device)
        run.module.train()
        try:
            yield from _steps(run, optimizer, task, generator)
        finally:
            run.batches = generator.get_state()
            run.dropout = get_torch_state(device)
            run.optimizer = (type(optimizer), optimizer.state_dict())
            optimizer.zero_grad()
            run.module.eval()


def _steps(
    run: Run, optimizer: torch.optim.Optimizer, task: Task, generator: torch.Generator
) -> Iterator[Snapshot]:
    named = dict(run.module.named_parameters())
    parameters = [named[name] for name in task.layout.names]
    steps_per_pass = -(-len(task.X) // task.batch_size)
    begin, passes_before = run.step, run.epoch
    led_here = _learning_rate(optimizer)
    while run.step < task.last_step:
        totals = Pass(run.epoch + 1)
        run.passes.append(totals)
        for rows in torch.randperm(len(task.X), generator=generator).split(task.batch_size):
            batch = _take(task.X, rows), _take(task.y, rows)
            # The row that an earlier call ended with comes again: its loss is known only now.
            wanted = run.step in task.record_at or run.step == run.recorded
            row = _read(run.module, parameters, task.dtype) if wanted else None
            if row is not None and not _is_finite(row[0]):
                _warn_diverged(run, "parameters that are not finite", led_here)
                return
            rate = _learning_rate(optimizer)
            loss = _step(run.module, optimizer, task.criterion, *batch)
            totals.loss_sum += loss * len(rows)
            totals.n_rows += len(rows)
            totals.learning_rate = rate
            here = run.step, run.epoch, loss, led_here
            if not math.isfinite(loss):
                row = row or _read(run.module, parameters, task.dtype)
                yield from _last_before_divergence(run, row, here, task.burn_in)
                return
            run.step += 1
            run.epoch = passes_before + (run.step - begin) // steps_per_pass
            led_here = rate
            if row is not None:
                yield _snapshot(run, row, here)
            if run.step == task.last_step:
                break
    row = _read(run.module, parameters, task.dtype)
    loss = _loss_again(run.module, task.criterion, *batch)
    here = run.step, run.epoch, loss, led_here
    if not (math.isfinite(loss) and _is_finite(row[0])):
        yield from _last_before_divergence(run, row, here, task.burn_in)
    elif run.step in task.record_at:
        yield _snapshot(run, row, here)


def _take(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return values.index_select(0, rows.to(values.device))


def _read(
    module: nn.Module, parameters: Sequence[torch.Tensor], dtype: torch.dtype
) -> tuple[np.ndarray, np.ndarray]:
    theta = torch.cat([p.detach().reshape(-1) for p in parameters])
    return theta.to("cpu", dtype).numpy(), flatten_buffers(module).numpy()


def _snapshot(
    run: Run, row: tuple[np.ndarray, np.ndarray], here: tuple[int, int, float, float]
) -> Snapshot:
    run.recorded = here[0]
    return Snapshot(row[0], row[1], *here)


def _step(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    criterion: Loss,
    inputs: torch.Tensor,
    targets: torch.Tensor,
) -> float:
    """Make one step and return the loss before it; without the step where that is not finite."""
    losses: list[float] = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = criterion(module(inputs), targets)
        if not losses:
            losses.append(loss.item())
            if not math.isfinite(losses[0]):
                raise _NotFiniteError
        loss.backward()
        return loss

    step: Any = optimizer.step  # its annotation wants a closure that returns a float
    with suppress(_NotFiniteError):
        step(closure)
    return losses[0]


def _loss_again(
    module: nn.Module, criterion: Loss, inputs: torch.Tensor, targets: torch.Tensor
) -> float:
    """Return the loss in training mode, leaving no trace in buffers and generators."""
    with torch.no_grad(), forked_torch(inputs.device), kept_buffers(module):
        return criterion(module(inputs), targets).item()


def _last_before_divergence(
    run: Run,
    row: tuple[np.ndarray, np.ndarray],
    here: tuple[int, int, float, float],
    burn_in: int,
) -> Iterator[Snapshot]:
    step, _, loss, learning_rate = here
    if step == 0:
        raise ValueError(
            f"criterion gives loss={loss} at the initial parameters of run {run.index}, must be "
            "finite. Check the scale of X and y, and what module returns."
        )
    if _is_finite(row[0]) and step >= burn_in:
        yield _snapshot(run, row, here)
    _warn_diverged(run, f"loss={loss}", learning_rate)


def _warn_diverged(run: Run, what: str, learning_rate: float) -> None:
    run.diverged = True
    warn(
        f"Training diverged: {what} after step {run.step} of run {run.index}, at a learning rate "
        f"of {learning_rate:g}. Rows are recorded up to there. Lower optimizer_params['lr'], or "
        "scale X and y.",
        DivergenceWarning,
    )


def _learning_rate(optimizer: torch.optim.Optimizer) -> float:
    return float(optimizer.param_groups[0].get("lr", math.nan))


def _is_finite(theta: np.ndarray) -> bool:
    # A sum is one pass without a temporary; torch's, because numpy warns when it overflows.
    values = torch.from_numpy(theta)
    return math.isfinite(values.sum().item()) or bool(torch.isfinite(values).all())
