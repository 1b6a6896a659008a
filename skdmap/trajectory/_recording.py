"""All runs of one call, one after the other -> one table, whatever ends them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from skdmap._parameters import ParameterLayout, parameter_layout
from skdmap.trajectory._cadence import recorded_steps
from skdmap.trajectory._runs import cast_inputs, cast_targets, continue_optimizer
from skdmap.trajectory._table import SnapshotTable, Trajectory
from skdmap.trajectory._training import Run, Task, module_device, train

__all__ = ["Plan", "Recording", "record_runs", "steps_per_pass"]


@dataclass(frozen=True)
class Plan:
    """What every run of one call does.

    Attributes
    ----------
    X : ndarray of shape (n, n_features, ...)
        Rows to train on.
    targets : ndarray of shape (n,) or (n, n_outputs)
        int64 codes or float64 values.
    criterion : callable
        device -> the loss there.
    optimizer, optimizer_params : object
        As the user gave them.
    n_runs, n_steps : int
        Runs, and steps of each.
    batch_size : int or None
        Rows per step; None is all.
    record_every, burn_in : object
        As in ``recorded_steps``.
    parameters : str, sequence of str or None
        Patterns of what is recorded.
    dtype : str
        Of the rows.
    verbose : int
        Above 0: a progress bar on a terminal.
    """

    X: np.ndarray
    targets: np.ndarray
    criterion: Callable[[torch.device], Any]
    optimizer: Any
    optimizer_params: Mapping[str, Any] | None
    n_runs: int
    n_steps: int
    batch_size: int | None
    record_every: int | str
    burn_in: int
    parameters: str | Sequence[str] | None
    dtype: str
    verbose: int


@dataclass(frozen=True)
class Recording:
    """What came of it.

    Attributes
    ----------
    trajectory : Trajectory
        Rows of this call.
    runs : list of Run
        Those that were begun; one that Ctrl-C ended before its first row is none.
    layout : ParameterLayout
        Of the rows.
    interrupted : bool
        Whether Ctrl-C ended it.
    """

    trajectory: Trajectory
    runs: list[Run]
    layout: ParameterLayout
    interrupted: bool


def steps_per_pass(n_rows: int, batch_size: int | None) -> int:
    """Return the number of batches in one pass, the smaller last one counted.

    Examples
    --------
    >>> steps_per_pass(1797, 128), steps_per_pass(1797, None)
    (15, 1)
    """
    return -(-n_rows // (batch_size or n_rows))


def record_runs(runs: Iterable[Run], plan: Plan) -> Recording:
    """Train the runs in turn and stack their snapshots.

    Parameters
    ----------
    runs : iterable of Run
        Taken one by one, so that a run is built when its turn comes.
    plan : Plan
        What each of them does.

    Returns
    -------
    Recording
        All rows, or those before Ctrl-C.

    Raises
    ------
    KeyboardInterrupt
        If nothing had been recorded yet.
    """
    begun: list[Run] = []
    table = None
    interrupted = False
    # None means: on a terminal only.
    disable = None if plan.verbose else True
    with tqdm(total=plan.n_runs * plan.n_steps, unit="step", disable=disable) as bar:
        try:
            for run in runs:
                optimizer = continue_optimizer(plan.optimizer, plan.optimizer_params, run)
                task = _task(run, plan)
                if table is None:
                    table = _empty_table(run, task, plan)
                begun.append(run)
                steps_made = run.step
                with closing(train(run, optimizer, task)) as snapshots:
                    for snapshot in snapshots:
                        table.append(run.index, snapshot)
                        bar.update(snapshot.step - steps_made)
                        steps_made = snapshot.step
        except KeyboardInterrupt:
            if table is None or len(table) == 0:
                raise
            interrupted = True
            if begun[-1].recorded < 0 and not begun[-1].diverged:
                begun.pop()
    if table is None:
        raise ValueError("runs is empty, must hold at least one Run. Raise n_runs.")
    return Recording(table.trajectory(), begun, task.layout, interrupted)


def _task(run: Run, plan: Plan) -> Task:
    criterion = plan.criterion(module_device(run.module))
    inputs = cast_inputs(plan.X, run.module)
    steps = recorded_steps(
        plan.record_every,
        first=run.step,
        last=run.step + plan.n_steps,
        steps_per_epoch=steps_per_pass(len(plan.X), plan.batch_size),
        burn_in=plan.burn_in,
    )
    return Task(
        X=inputs,
        y=cast_targets(plan.targets, inputs, run.module, criterion),
        criterion=criterion,
        layout=parameter_layout(run.module, plan.parameters),
        batch_size=min(plan.batch_size or len(plan.X), len(plan.X)),
        record_at=frozenset(steps.tolist()),
        last_step=run.step + plan.n_steps,
        burn_in=plan.burn_in,
        dtype=getattr(torch, plan.dtype),
    )


def _empty_table(run: Run, task: Task, plan: Plan) -> SnapshotTable:
    # One more than is asked for: the row that an earlier call ended with comes again.
    capacity = plan.n_runs * (len(task.record_at) + 1)
    n_buffer_entries = sum(buffer.numel() for buffer in run.module.buffers())
    return SnapshotTable(task.layout.n_parameters, n_buffer_entries, plan.dtype, capacity)
