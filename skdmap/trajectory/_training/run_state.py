"""A run: what it carries from step to step and from call to call, and the rows that it yields."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn


class Snapshot(NamedTuple):
    """The state of a run after ``step`` steps."""

    theta: np.ndarray  # recorded parameters, or what is recorded in their place; finite
    buffers: np.ndarray  # float64 (n_buffer_entries,)
    step: int
    epoch: int  # passes completed
    loss: float  # at theta, on the batch of the next step; finite
    learning_rate: float  # of the step that led here
    path_length: float = math.nan  # sum of step lengths since the previous row


@dataclass
class Pass:
    """Totals of one pass over the data."""

    epoch: int  # from 1
    loss_sum: float = 0.0  # over samples seen, of the loss of their batch before its step
    n_rows: int = 0  # samples seen
    learning_rate: float = math.nan  # of the last step


@dataclass
class Run:
    """What a run carries from one call of ``train`` to the next; plain data, so it pickles."""

    index: int
    module: nn.Module  # trained in place
    batches: torch.Tensor  # state of the generator of the batch order
    dropout: list[torch.Tensor]  # states of the generators that the module draws from
    label_seed: int = 0  # of the label noise
    # Class and state_dict: an optimizer itself does not survive pickling (LBFGS).
    optimizer: tuple[type, dict[str, Any]] | None = None
    scheduler: tuple[type, dict[str, Any]] | None = None
    optimizer_params: dict[str, Any] = field(default_factory=dict)  # as given at the last call
    step: int = 0
    epoch: int = 0  # passes completed
    passes: list[Pass] = field(default_factory=list)
    order: torch.Tensor | None = None  # permutation of the samples in the pass under way
    cursor: int = 0  # samples of it used
    learning_rate: float = math.nan  # of the last step
    path: float = math.nan  # sum of step lengths since the last row; nan before there is one
    reference: torch.Tensor | None = None  # parameters at the last row, for Displacement
    waiting_loss: float = 0.0  # sum over samples since the scheduler last stepped
    waiting_rows: int = 0
    waited: float = 0.0  # seconds of training since the last row, for WallClock
    recorded: int = -1  # step of the last row yielded
    row: int = -1  # index of the last row stored
    row_step: int = -1  # its step
    captured: int = -1  # step at which optimizer, scheduler and generators were last written here
    diverged: bool = False
    stopped: bool = False  # by a callback


def pass_history(runs: Sequence[Run]) -> dict[str, np.ndarray]:
    """Return ``history_``: one entry per pass over the data, run after run."""
    passes = [(run.index, one) for run in runs for one in run.passes if one.n_rows]
    return {
        "run": np.array([index for index, _ in passes], dtype=np.int64),
        "epoch": np.array([one.epoch for _, one in passes], dtype=np.int64),
        "loss": np.array([one.loss_sum / one.n_rows for _, one in passes]),
        "learning_rate": np.array([one.learning_rate for _, one in passes]),
    }
