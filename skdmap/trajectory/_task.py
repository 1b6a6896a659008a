"""What one run trains on and records: a record that :func:`train` reads and never changes."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import nn

from skdmap._parameters import ParameterLayout
from skdmap.trajectory._cadence import Displacement
from skdmap.trajectory._callbacks import AfterRow

__all__ = ["Loss", "Observe", "Task", "never"]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Observe = Callable[[nn.Module], torch.Tensor]


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
