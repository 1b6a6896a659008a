"""A run: what it carries from step to step and from call to call, and the rows that it gives."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn


class Snapshot(NamedTuple):
    """The state after ``step`` steps.

    Attributes
    ----------
    theta : ndarray of shape (n_columns,)
        Recorded parameters, or what is recorded in their place; always finite.
    buffers : ndarray of float64, shape (n_buffer_entries,)
        Beside them.
    step, epoch : int
        Steps made, and passes over the rows completed.
    loss : float
        At ``theta``, on the batch of the next step; finite.
    learning_rate : float
        Of the step that led here.
    path_length : float, default=nan
        Sum of the lengths of the steps since the row before, recorded or not; nan where there is
        no row before.
    """

    theta: np.ndarray
    buffers: np.ndarray
    step: int
    epoch: int
    loss: float
    learning_rate: float
    path_length: float = math.nan


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
    """What a run carries from one call of ``train`` to the next; plain data, so it pickles.

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
    label_seed : int
        Of the noise in its labels.
    optimizer, scheduler : tuple of (type, dict) or None
        Class and state_dict; an optimizer itself does not survive pickling (LBFGS).
    optimizer_params : dict
        As given when it was last trained.
    step, epoch : int
        Steps made, passes completed.
    passes : list of Pass
        One for each pass begun.
    order : Tensor or None
        Permutation of the rows in the pass under way; None before the first.
    cursor : int
        Rows of it used.
    learning_rate : float
        Of the last step.
    path : float
        Sum of the lengths of the steps since the last row; nan before there is one.
    reference : Tensor or None
        The parameters at the last row, where distances from it decide.
    waiting_loss, waiting_rows : float, int
        Sum of losses over rows, and rows, since the scheduler last stepped.
    recorded : int
        Step of the last row, -1 before there is one.
    row, row_step : int
        Number of the last row that was kept, and its step.
    captured : int
        Step at which optimizer, scheduler and generators were last written down.
    diverged, stopped : bool
        Whether the last call ended because something was not finite, or a callback said so.
    """

    index: int
    module: nn.Module
    batches: torch.Tensor
    dropout: list[torch.Tensor]
    label_seed: int = 0
    optimizer: tuple[type, dict[str, Any]] | None = None
    scheduler: tuple[type, dict[str, Any]] | None = None
    optimizer_params: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    epoch: int = 0
    passes: list[Pass] = field(default_factory=list)
    order: torch.Tensor | None = None
    cursor: int = 0
    learning_rate: float = math.nan
    path: float = math.nan
    reference: torch.Tensor | None = None
    waiting_loss: float = 0.0
    waiting_rows: int = 0
    recorded: int = -1
    row: int = -1
    row_step: int = -1
    captured: int = -1
    diverged: bool = False
    stopped: bool = False


def pass_history(runs: Sequence[Run]) -> dict[str, np.ndarray]:
    """Return one entry per pass over the rows, run after run.

    Parameters
    ----------
    runs : sequence of Run
        After training.

    Returns
    -------
    dict of ndarray, shape (n_passes,)
        "run", "epoch", "loss" and "learning_rate". The loss is the mean of what the criterion gave
        for the batches, a batch counted by its rows.
    """
    passes = [(run.index, one) for run in runs for one in run.passes if one.n_rows]
    return {
        "run": np.array([index for index, _ in passes], dtype=np.int64),
        "epoch": np.array([one.epoch for _, one in passes], dtype=np.int64),
        "loss": np.array([one.loss_sum / one.n_rows for _, one in passes]),
        "learning_rate": np.array([one.learning_rate for _, one in passes]),
    }
