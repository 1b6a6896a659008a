"""What every run of one call does, and what that means for one of them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from skdmap._parameters import ParameterLayout, parameter_layout
from skdmap.trajectory._cadence import Displacement, recorded_steps
from skdmap.trajectory._training.callbacks import AfterRow, after_row
from skdmap.trajectory._training.module_io import cast_inputs, cast_targets
from skdmap.trajectory._training.module_state import module_device
from skdmap.trajectory._training.observables import Observe, observer
from skdmap.trajectory._training.run_state import Run
from skdmap.trajectory._training.targets import (
    Targets,
    gives_log_probabilities,
    noisy_targets,
)

# Probe samples at a time, so that hidden layers of many need not be there at once.
_CHUNK = 4096
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Plan:
    """What every run of one call does.

    Attributes
    ----------
    X : ndarray of shape (n, n_features, ...)
        Rows to train on.
    targets : Targets
        Without noise.
    label_noise : float
        As in ``noisy_targets``.
    criterion : callable
        device -> the loss there.
    optimizer, optimizer_params, scheduler, scheduler_params, scheduler_interval : object
        As the user gave them.
    n_runs, n_steps : int
        Runs, and steps of each.
    goes_on : bool
        Whether the runs have been trained before, so that the steps count from there.
    batch_size : int or None
        Rows per step; None is all.
    record_every, burn_in : object
        As in ``recorded_steps``.
    record : "parameters", ndarray or callable
        As ``check_record`` returns it.
    parameters : str, sequence of str or None
        Patterns of what is recorded.
    dtype : str
        Of the rows.
    sketch_dim : int or None
        Columns of a sketch.
    store : path-like or None
        Folder.
    resume : bool
        Whether to take up what the folder holds.
    settings : mapping
        What a resumed recording must share.
    vectorize : bool
        Whether to train all runs at once.
    callbacks : object
        As the user gave them.
    verbose : int
        Above 0: a progress bar on a terminal.
    """

    X: np.ndarray
    targets: Targets
    label_noise: float
    criterion: Callable[[torch.device], Any]
    optimizer: Any
    optimizer_params: Mapping[str, Any] | None
    scheduler: Any
    scheduler_params: Mapping[str, Any] | None
    scheduler_interval: str
    n_runs: int
    n_steps: int
    goes_on: bool
    batch_size: int | None
    record_every: Any
    burn_in: int
    record: Any
    parameters: str | Sequence[str] | None
    dtype: str
    sketch_dim: int | None
    store: Any
    resume: bool
    settings: Mapping[str, Any]
    vectorize: bool
    callbacks: Any
    verbose: int


def steps_per_pass(n_rows: int, batch_size: int | None) -> int:
    """Return the number of batches in one pass, the smaller last one counted.

    Examples
    --------
    >>> steps_per_pass(1797, 128), steps_per_pass(1797, None)
    (15, 1)
    """
    return -(-n_rows // (batch_size or n_rows))


def last_step(run: Run, plan: Plan) -> int:
    """Return the step at which a run ends."""
    return plan.n_steps + (run.step if plan.goes_on else 0)


def n_scheduler_steps(plan: Plan) -> int:
    """Return how many times the scheduler of each run will be stepped in this call."""
    if plan.scheduler_interval == "step":
        return plan.n_steps
    return plan.n_steps // steps_per_pass(len(plan.X), plan.batch_size)


def never() -> bool:
    """Answer no to what is asked after each step."""
    return False


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
        Which parameters make a snapshot, and in which lengths are measured.
    batch_size : int
        Rows per step.
    record_at : collection of int
        Numbers of the steps to yield.
    last_step : int
        Number of the last step.
    burn_in : int
        No step before this one is yielded.
    dtype : torch.dtype
        Of the snapshots.
    displacement : Displacement or None, default=None
        What is to be yielded beside ``record_at``.
    observe : callable or None, default=None
        module -> vector that is recorded in place of the parameters.
    after_row : callable or None, default=None
        f(step, loss, module), called while the module holds the parameters of a recorded step;
        True ends the run there.
    steps_scheduler : {"epoch", "step"}, default="epoch"
        When the scheduler steps.
    should_stop, state_is_due : callable
        Asked after each step: whether to end here, and whether the caller wants to write the state
        of the run down.
    """

    X: torch.Tensor
    y: torch.Tensor
    criterion: Loss
    layout: ParameterLayout
    batch_size: int
    record_at: Collection[int]
    last_step: int
    burn_in: int
    dtype: torch.dtype
    displacement: Displacement | None = None
    observe: Observe | None = None
    after_row: AfterRow | None = None
    steps_scheduler: str = "epoch"
    should_stop: Callable[[], bool] = never
    state_is_due: Callable[[], bool] = never


def make_task(
    run: Run,
    plan: Plan,
    *,
    should_stop: Callable[[], bool],
    state_is_due: Callable[[], bool] = never,
) -> Task:
    """Return what one run trains on and records.

    Parameters
    ----------
    run : Run
        Its module tells device and type; it is left as found.
    plan : Plan
        Of all runs.
    should_stop, state_is_due : callable
        As in ``Task``.

    Returns
    -------
    Task
        With noisy labels of the run's own.

    Raises
    ------
    ValueError
        If the module does not take the rows, or its outputs do not fit y.
    """
    criterion = plan.criterion(module_device(run.module))
    inputs = cast_inputs(plan.X, run.module)
    values = noisy_targets(plan.targets, plan.label_noise, run.label_seed)
    end = last_step(run, plan)
    steps = recorded_steps(
        plan.record_every,
        first=run.step if plan.goes_on else 0,
        last=end,
        steps_per_epoch=steps_per_pass(len(plan.X), plan.batch_size),
        burn_in=plan.burn_in,
    )
    moves = isinstance(plan.record_every, Displacement)
    return Task(
        X=inputs,
        y=cast_targets(values, inputs, run.module, criterion),
        criterion=criterion,
        layout=parameter_layout(run.module, plan.parameters),
        batch_size=min(plan.batch_size or len(plan.X), len(plan.X)),
        record_at=frozenset(steps.tolist()),
        last_step=end,
        burn_in=plan.burn_in,
        # Half precision is for differences, which what keeps the rows makes of them.
        dtype=torch.float64 if plan.dtype == "float64" else torch.float32,
        displacement=plan.record_every if moves else None,
        observe=_observer(plan.record, run.module, criterion),
        after_row=after_row(plan.callbacks),
        steps_scheduler=plan.scheduler_interval,
        should_stop=should_stop,
        state_is_due=state_is_due,
    )


def _observer(record: Any, module: nn.Module, criterion: Loss) -> Observe | None:
    if isinstance(record, np.ndarray):
        probe = cast_inputs(record, module)
        return observer(probe, log_softmax=gives_log_probabilities(criterion), chunk=_CHUNK)
    return observer(record, with_gradients=True)
