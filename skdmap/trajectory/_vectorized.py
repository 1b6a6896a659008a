"""Many runs of one small network at once: parameters stacked, one vectorised step for all of them.

For the caller, in order::

    stack = stack_runs(runs, X, y, criterion)        errors of vectorize=True come here
    optimizer = build_optimizer(..., stack.parameters.values())
    check_optimizer(optimizer)                       and here
    load_optimizer(optimizer, runs)                  where the runs are to go on
    for index, snapshot in train_together(stack, optimizer, layout=..., ...): ...
"""

import copy
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from skdmap._parameters import ParameterLayout
from skdmap._warning import warn
from skdmap.exceptions import DivergenceWarning
from skdmap.trajectory._run import Pass, Run, Snapshot
from skdmap.trajectory._stack import Stack, module_tensors

__all__ = [
    "ENTRYWISE",
    "check_optimizer",
    "load_optimizer",
    "train_together",
]

# What is done to an entry depends on that entry's gradients and on the number of the step alone.
ENTRYWISE = (
    "SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "ASGD",
    "Rprop",
)  # fmt: skip


def check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Raise a ValueError unless the optimizer treats each entry by itself.

    Examples
    --------
    >>> check_optimizer(torch.optim.LBFGS([torch.zeros(2, requires_grad=True)]))
    Traceback (most recent call last):
        ...
    ValueError: vectorize=True: optimizer=LBFGS is not one that treats each entry by itself, ...
    """
    known = tuple(getattr(torch.optim, name) for name in ENTRYWISE)
    if type(optimizer) not in known:
        raise ValueError(
            f"vectorize=True: optimizer={type(optimizer).__name__} is not one that treats each "
            f"entry by itself, must be one of {', '.join(ENTRYWISE)}. Set vectorize=False."
        )


def load_optimizer(optimizer: torch.optim.Optimizer, runs: Sequence[Run]) -> None:
    """Give a stacked optimizer the states that the runs ended with, where all have one of it."""
    kept = [run.optimizer for run in runs]
    if any(pair is None or pair[0] is not type(optimizer) for pair in kept):
        return
    states = [pair[1]["state"] for pair in kept if pair is not None]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    stacked = {
        place: {
            key: _stack_state(key, [state[place] for state in states], parameters[place])
            for key in states[0][place]
        }
        for place in states[0]
    }
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": stacked, "param_groups": groups})


def train_together(
    stack: Stack,
    optimizer: torch.optim.Optimizer,
    *,
    layout: ParameterLayout,
    record_at: Any,
    last_step: int,
    batch_size: int,
    dtype: torch.dtype = torch.float32,
    after_step: Callable[[int, bool], None] | None = None,
) -> Generator[tuple[int, Snapshot], None, None]:
    """Train all runs up to a step and yield the steps that are to be recorded.

    Parameters
    ----------
    stack : Stack
        Its runs are brought up to date when the generator ends or is closed.
    optimizer : torch.optim.Optimizer
        Of the parameters of the stack.
    layout : ParameterLayout
        Which parameters make a snapshot.
    record_at : container of int
        Numbers of the steps to yield.
    last_step, batch_size : int
        As in ``Task``.
    dtype : torch.dtype, default=torch.float32
        Of the snapshots.
    after_step : callable, default=None
        Called with the number of steps made and whether a pass has ended: where schedulers step.

    Yields
    ------
    run : int
        Number of the run.
    snapshot : Snapshot
        By step, then by run.

    Raises
    ------
    ValueError
        If a loss is not finite before the first step.

    Warns
    -----
    DivergenceWarning
        If the loss of a run is not finite later; the other runs go on.
    """
    loop = _Loop(stack, optimizer, layout, dtype)
    try:
        yield from loop.steps(record_at, last_step, batch_size, after_step)
    finally:
        loop.unstack()


class _Loop:
    """Where training stands: what lives longer than a step and shorter than a call."""

    def __init__(
        self,
        stack: Stack,
        optimizer: torch.optim.Optimizer,
        layout: ParameterLayout,
        dtype: torch.dtype,
    ) -> None:
        self.stack, self.optimizer, self.layout, self.dtype = stack, optimizer, layout, dtype
        self.step, self.epoch = stack.runs[0].step, stack.runs[0].epoch
        self.theta = self._flat()
        self.path = [run.path for run in stack.runs]
        self.alive = list(range(len(stack.runs)))
        self.generators = [torch.Generator() for _ in stack.runs]
        for generator, run in zip(self.generators, stack.runs, strict=True):
            generator.set_state(run.batches)
            run.diverged = False

    def steps(
        self, record_at: Any, last_step: int, batch_size: int, after_step: Any
    ) -> Iterator[tuple[int, Snapshot]]:
        n_rows = len(self.stack.X)
        led_here = _learning_rate(self.optimizer)
        rows = torch.empty(0)
        while self.step < last_step and self.alive:
            orders = [torch.randperm(n_rows, generator=g) for g in self.generators]
            totals = self._begin_pass()
            batches = torch.stack(orders).split(batch_size, dim=1)
            for number, rows in enumerate(batches):
                is_again = self.step == self.stack.runs[0].recorded
                table = self._read() if self.step in record_at or is_again else None
                rate = _learning_rate(self.optimizer)
                self.optimizer.zero_grad()
                losses = self.stack.losses(rows)
                values = losses.tolist()
                self._drop_diverged(values, led_here)
                if not self.alive:
                    break
                losses.sum().backward()
                self.optimizer.step()
                for place in self.alive:
                    totals[place].loss_sum += values[place] * rows.shape[1]
                    totals[place].n_rows += rows.shape[1]
                    totals[place].learning_rate = rate
                here = self.step, self.epoch, self.path
                self._follow(is_row=table is not None)
                self.step += 1
                self.epoch += number + 1 == len(batches)
                if after_step is not None:
                    after_step(self.step, number + 1 == len(batches))
                if table is not None:
                    yield from self._snapshots(table, here, values, led_here)
                led_here = rate
                if self.step == last_step:
                    break
        if self.alive:
            with torch.no_grad():
                values = self.stack.losses(rows).tolist()
            self._drop_diverged(values, led_here)
            if self.step in record_at:
                here = self.step, self.epoch, self.path
                self.path = [0.0] * len(self.path)
                yield from self._snapshots(self._read(), here, values, led_here)

    def unstack(self) -> None:
        """Write parameters, buffers, optimizer and generators into the runs that are alive."""
        for place in self.alive:
            self._unstack_run(place)
        for generator, run in zip(self.generators, self.stack.runs, strict=True):
            run.batches = generator.get_state()
            run.module.eval()
        self.optimizer.zero_grad()

    def _begin_pass(self) -> list[Pass]:
        totals = [Pass(self.epoch + 1) for _ in self.stack.runs]
        for place in self.alive:
            self.stack.runs[place].passes.append(totals[place])
        return totals

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        n_runs = len(self.stack.runs)
        names = [name for name, _ in self.stack.module.named_buffers()]
        buffers = [
            self.stack.fixed[n].detach().to("cpu", torch.float64).reshape(n_runs, -1) for n in names
        ]
        beside = torch.cat(buffers, 1) if buffers else torch.empty(n_runs, 0, dtype=torch.float64)
        return self.theta.to("cpu", self.dtype).numpy(), beside.numpy()

    def _flat(self) -> torch.Tensor:
        """Return what makes a row of each run, of shape (n_runs, n_columns)."""
        n_runs, parameters = len(self.stack.runs), self.stack.parameters
        parts = [parameters[name].detach().reshape(n_runs, -1) for name in self.layout.names]
        theta = torch.cat(parts, 1)
        return theta if theta.dtype == torch.float64 else theta.float()

    def _follow(self, *, is_row: bool) -> None:
        """Take note of a step: how far it went, from the last row on."""
        before, self.theta = self.theta, self._flat()
        lengths = torch.linalg.vector_norm(self.theta - before, dim=1).tolist()
        path = [0.0] * len(lengths) if is_row else self.path
        self.path = [so_far + length for so_far, length in zip(path, lengths, strict=True)]

    def _snapshots(
        self,
        table: tuple[np.ndarray, np.ndarray],
        here: tuple[int, int, list[float]],
        losses: list[float],
        learning_rate: float,
    ) -> Iterator[tuple[int, Snapshot]]:
        # One pass over all rows; which of them is not finite matters once in a lifetime.
        all_finite = bool(np.isfinite(table[0]).all())
        for place in list(self.alive):
            run = self.stack.runs[place]
            if not all_finite and not np.isfinite(table[0][place]).all():
                self._end_run(place, "parameters that are not finite", learning_rate)
                continue
            run.recorded = here[0]
            row = table[0][place], table[1][place]
            step, epoch, path = here
            yield (
                run.index,
                Snapshot(*row, step, epoch, losses[place], learning_rate, path_length=path[place]),
            )

    def _drop_diverged(self, losses: list[float], learning_rate: float) -> None:
        for place in [place for place in self.alive if not math.isfinite(losses[place])]:
            if self.step == 0:
                raise ValueError(
                    f"criterion gives loss={losses[place]} at the initial parameters of run "
                    f"{self.stack.runs[place].index}, must be finite. Check the scale of X and y, "
                    "and what module returns."
                )
            self._end_run(place, f"loss={losses[place]}", learning_rate)

    def _end_run(self, place: int, what: str, learning_rate: float) -> None:
        self._unstack_run(place)
        self.alive.remove(place)
        run = self.stack.runs[place]
        run.diverged = True
        warn(
            f"Training diverged: {what} after step {self.step} of run {run.index}, at a learning "
            f"rate of {learning_rate:g}. Rows are recorded up to there. Lower "
            "optimizer_params['lr'], or scale X and y.",
            DivergenceWarning,
        )

    def _unstack_run(self, place: int) -> None:
        run = self.stack.runs[place]
        stacked: dict[str, torch.Tensor] = {**self.stack.parameters, **self.stack.fixed}
        with torch.no_grad():
            for name, tensor in module_tensors(run.module).items():
                tensor.copy_(stacked[name][place])
        run.step, run.epoch, run.path = self.step, self.epoch, self.path[place]
        state = self.optimizer.state_dict()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        own = {
            number: {
                key: value[place].clone() if _is_stacked(key, value, parameters[number]) else value
                for key, value in entries.items()
            }
            for number, entries in state["state"].items()
        }
        run.optimizer = type(self.optimizer), {**copy.deepcopy(state), "state": own}


def _is_stacked(key: str, value: Any, parameter: torch.Tensor) -> bool:
    is_entry = isinstance(value, torch.Tensor) and value.shape == parameter.shape
    return is_entry and key != "step"


def _stack_state(key: str, entries: list[dict[str, Any]], parameter: torch.Tensor) -> Any:
    first = entries[0][key]
    if isinstance(first, torch.Tensor) and first.shape == parameter.shape[1:]:
        stacked = torch.stack([entry[key] for entry in entries])
        # A counter of steps beside a parameter that is one number has its shape; it is no entry.
        return first if key == "step" else stacked
    return first


def _learning_rate(optimizer: torch.optim.Optimizer) -> float:
    return float(optimizer.param_groups[0].get("lr", math.nan))
