"""The settings of one call of ``fit``, and what they mean for one of its runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from skdmap._parameters import ParameterLayout, check_real, parameter_layout
from skdmap.trajectory._cadence import recorded_steps
from skdmap.trajectory._training.factories import Loss, build_criterion
from skdmap.trajectory._training.module_io import cast_inputs, cast_targets, check_samples
from skdmap.trajectory._training.module_state import module_device
from skdmap.trajectory._training.observables import Observe, observer
from skdmap.trajectory._training.run_state import Run
from skdmap.trajectory._training.targets import Targets, gives_log_probabilities, noisy_targets

# Probe samples at a time, so that the hidden layers of many need not be in memory at once.
_PROBE_CHUNK = 4096


@dataclass(frozen=True)
class TrainingConfig:
    """How each run of one call is trained and recorded; names as in TrajectorySampler."""

    criterion: Any
    n_steps: int  # of each run in this call
    criterion_params: Mapping[str, Any] | None = None
    optimizer: Any = "SGD"
    optimizer_params: Mapping[str, Any] | None = None
    scheduler: Any = None
    scheduler_params: Mapping[str, Any] | None = None
    scheduler_interval: str = "epoch"
    batch_size: int | None = None  # None is all samples
    record_every: Any = 1
    burn_in: int = 0
    record: Any = "parameters"  # or the probe samples, or a function: see check_record
    parameters: str | Sequence[str] | None = None
    n_runs: int = 1
    is_continued: bool = False  # the runs have been trained before; n_steps is added to theirs
    label_noise: float = 0.0
    sketch_dim: int | None = None
    dtype: str = "float32"  # of the rows
    store: Any = None
    resume: bool = False
    manifest: Mapping[str, Any] | None = None  # what a resumed recording must share
    vectorize: bool = False
    callbacks: Any = None
    verbose: int = 0

    def last_step(self, run: Run) -> int:
        """Return the step at which a run ends."""
        return self.n_steps + (run.step if self.is_continued else 0)

    def n_scheduler_steps(self, n_samples: int) -> int:
        """Return how many times the scheduler of each run is stepped in this call."""
        if self.scheduler_interval == "step":
            return self.n_steps
        return self.n_steps // steps_per_pass(n_samples, self.batch_size)

    @property
    def row_dtype(self) -> torch.dtype:
        """Type of the rows before they are stored: float16 stores differences of float32 rows."""
        return torch.float64 if self.dtype == "float64" else torch.float32


@dataclass(frozen=True)
class RunTask:
    """What one run trains on, on the device of its module, and which steps become rows."""

    X: torch.Tensor  # (n_samples, ...)
    y: torch.Tensor  # (n_samples, ...), label noise added
    criterion: Loss
    layout: ParameterLayout  # of the parameters that make a row and in which lengths are measured
    observe: Observe | None  # makes a row of the module in place of the parameters
    record_at: frozenset[int]  # steps
    last_step: int
    batch_size: int  # at most n_samples


def make_task(run: Run, X: np.ndarray, targets: Targets, config: TrainingConfig) -> RunTask:
    """Return what a run trains on and records; a ValueError where module, X and y do not fit."""
    criterion = build_criterion(
        config.criterion, config.criterion_params, module_device(run.module)
    )
    inputs = cast_inputs(X, run.module)
    values = noisy_targets(targets, config.label_noise, run.label_seed)
    last_step = config.last_step(run)
    steps = recorded_steps(
        config.record_every,
        first=run.step if config.is_continued else 0,
        last=last_step,
        steps_per_epoch=steps_per_pass(len(X), config.batch_size),
        burn_in=config.burn_in,
    )
    layout = parameter_layout(run.module, config.parameters)
    check_real(run.module, layout.names)
    return RunTask(
        X=inputs,
        y=cast_targets(values, inputs, run.module, criterion),
        criterion=criterion,
        layout=layout,
        observe=_observer(config.record, run, criterion),
        record_at=frozenset(steps.tolist()),
        last_step=last_step,
        batch_size=min(config.batch_size or len(X), len(X)),
    )


def steps_per_pass(n_samples: int, batch_size: int | None) -> int:
    """Return the number of batches in one pass, a smaller last one included."""
    return -(-n_samples // (batch_size or n_samples))


def _observer(record: Any, run: Run, criterion: Loss) -> Observe | None:
    if not isinstance(record, np.ndarray):
        return observer(record, with_gradients=True)
    probe = cast_inputs(record, run.module)
    check_samples(probe, run.module)
    log_softmax = gives_log_probabilities(criterion)
    return observer(probe, log_softmax=log_softmax, chunk=_PROBE_CHUNK)
