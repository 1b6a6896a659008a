"""All runs of one small network at once: stacked parameters, one vectorised step for all."""

import copy
import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.optim.lr_scheduler import ReduceLROnPlateau

from skdmap._parameters import copy_module
from skdmap._random import forked_torch
from skdmap._sklearn_compat import InvalidParameterError
from skdmap.trajectory._cadence import Displacement, RowTimer
from skdmap.trajectory._training.config import RunTask, TrainingConfig
from skdmap.trajectory._training.factories import (
    Loss,
    build_optimizer,
    build_scheduler,
    check_length,
    step_scheduler,
)
from skdmap.trajectory._training.loop import warn_diverged
from skdmap.trajectory._training.module_state import module_device, module_tensors
from skdmap.trajectory._training.run_state import Pass, Run, Snapshot

# What is done to an entry depends on that entry's gradients and on the number of the step alone.
ENTRYWISE = (
    "SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "ASGD",
    "Rprop",
)  # fmt: skip
# Elementwise functions without parameters and randomness.
_ACTIVATIONS = (
    nn.Tanh, nn.ReLU, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.Softplus, nn.LeakyReLU, nn.Identity,
)  # fmt: skip


def train_vectorized(
    runs: Sequence[Run], task: RunTask, config: TrainingConfig
) -> Generator[tuple[Run, Snapshot], None, None]:
    """Train all runs, in place, and yield the rows to record, by step, then by run.
    ``task``: of the first run. A ValueError where the runs cannot be trained in a batch.
    """
    _refuse_settings(runs, task, config)
    stack = stack_runs(runs, task.X, task.y, task.criterion)
    optimizer = build_optimizer(
        config.optimizer, config.optimizer_params, stack.parameters.values()
    )
    check_entrywise(optimizer)
    load_optimizer(optimizer, runs)
    scheduler = build_scheduler(config.scheduler, config.scheduler_params, optimizer)
    if isinstance(scheduler, ReduceLROnPlateau):
        raise _unfit("scheduler=ReduceLROnPlateau", "each run has a loss of its own")
    check_length(scheduler, config.n_scheduler_steps(len(task.X)))
    loop = _Loop(stack, task, config, optimizer, scheduler)
    try:
        yield from loop.steps()
    finally:
        loop.unstack()


def check_entrywise(optimizer: torch.optim.Optimizer) -> None:
    """Raise unless the optimizer updates each entry independently."""
    known = tuple(getattr(torch.optim, name) for name in ENTRYWISE)
    if type(optimizer) not in known:
        raise InvalidParameterError(
            f"vectorize=True: optimizer={type(optimizer).__name__} does not update each entry "
            f"independently; it must be one of {', '.join(ENTRYWISE)}. Set vectorize=False."
        )


def load_optimizer(optimizer: torch.optim.Optimizer, runs: Sequence[Run]) -> None:
    """Give a stacked optimizer the states that the runs ended with, where all are of its class."""
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


@dataclass(frozen=True)
class Stack:
    """The runs of one network as tensors with a leading axis of runs."""

    runs: tuple[Run, ...]
    module: nn.Module  # a copy in training mode, for its forward only
    parameters: dict[str, nn.Parameter]  # trainable ones (n_runs, ...)
    fixed: dict[str, torch.Tensor]  # other parameters, and buffers (n_runs, ...)
    X: torch.Tensor  # (n_samples, ...)
    y: torch.Tensor
    criterion: Loss
    is_chain: bool  # linear layers and elementwise functions in a row, on vectors
    is_entropy: bool  # the plain mean cross-entropy of class indices

    def losses(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the loss of each run on its own batch of samples; rows: (n_runs, b)."""
        inputs, targets = _take(self.X, rows), _take(self.y, rows)
        tensors = {**self.parameters, **self.fixed}
        if self.is_chain:
            outputs = _chain_outputs(self.module, tensors, inputs)
        else:
            outputs = vmap(self._outputs)(tensors, inputs)
        if self.is_entropy:
            # vmap takes nll_loss apart into many small steps; and with the classes as channels
            # of one image torch is three times faster than with them as short rows.
            image = outputs.flatten(0, 1).T.unsqueeze(0)
            each = nn.functional.cross_entropy(image, targets.view(1, -1), reduction="none")
            return each.view(rows.shape).mean(1)
        return vmap(self.criterion)(outputs, targets)

    def _outputs(self, tensors: dict[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        return functional_call(self.module, tensors, (inputs,))


class _Loop:
    """One call of :func:`train_vectorized`."""

    def __init__(
        self,
        stack: Stack,
        task: RunTask,
        config: TrainingConfig,
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
    ) -> None:
        self.stack, self.task, self.config = stack, task, config
        self.optimizer, self.scheduler = optimizer, scheduler
        self.step, self.epoch = stack.runs[0].step, stack.runs[0].epoch
        self.timer = RowTimer(config.record_every, stack.runs[0].waited)
        self.theta = self._flat()
        self.path = [run.path for run in stack.runs]
        self.alive = list(range(len(stack.runs)))
        self.generators = [torch.Generator() for _ in stack.runs]
        for generator, run in zip(self.generators, stack.runs, strict=True):
            generator.set_state(run.batches)
            run.diverged = run.stopped = False
            run.order = None  # a pass that an earlier call left is not continued

    def steps(self) -> Iterator[tuple[Run, Snapshot]]:
        task, n_rows = self.task, len(self.stack.X)
        led_here = self._rate()
        rows = torch.empty(0)
        while self.step < task.last_step and self.alive:
            orders = [torch.randperm(n_rows, generator=g, device="cpu") for g in self.generators]
            totals = self._begin_pass()
            batches = torch.stack(orders).split(task.batch_size, dim=1)
            for number, rows in enumerate(batches):
                is_again = self.step == self.stack.runs[0].recorded
                is_due = self.timer.is_due and self.step >= self.config.burn_in
                table = self._read() if self.step in task.record_at or is_again or is_due else None
                if table is not None:
                    self.timer.restart()
                here, rate = (self.step, self.epoch, self.path), self._rate()
                values = self._step(rows, totals, led_here, is_row=table is not None)
                if not self.alive:
                    break
                self._count(is_end_of_pass=number + 1 == len(batches))
                if table is not None:
                    yield from self._snapshots(table, here, values, led_here)
                led_here = rate
                if self.step == task.last_step:
                    break
        if self.alive:
            with torch.no_grad():
                values = self.stack.losses(rows).tolist()
            self._drop_diverged(values, led_here)
            if self.step in task.record_at:
                here = self.step, self.epoch, self.path
                self.path = [0.0] * len(self.path)
                yield from self._snapshots(self._read(), here, values, led_here)

    def unstack(self) -> None:
        """Write parameters, buffers, optimizer and generators into the runs."""
        for place in self.alive:
            self._unstack_run(place)
        for generator, run in zip(self.generators, self.stack.runs, strict=True):
            run.batches = generator.get_state()
            run.module.eval()
        self.optimizer.zero_grad()

    def _step(
        self, rows: torch.Tensor, totals: list[Pass], led_here: float, *, is_row: bool
    ) -> list[float]:
        """Make one step and return the losses before it; rows: (n_runs, b)."""
        rate = self._rate()
        self.optimizer.zero_grad()
        losses = self.stack.losses(rows)
        values = losses.tolist()
        self._drop_diverged(values, led_here)
        if not self.alive:
            return values
        losses.sum().backward()
        self.optimizer.step()
        for place in self.alive:
            totals[place].loss_sum += values[place] * rows.shape[1]
            totals[place].n_rows += rows.shape[1]
            totals[place].learning_rate = rate
        self._follow(is_row=is_row)
        return values

    def _count(self, *, is_end_of_pass: bool) -> None:
        """Count a step, and step the scheduler where it is due."""
        self.step += 1
        self.epoch += is_end_of_pass
        if self.scheduler is None:
            return
        if is_end_of_pass or self.config.scheduler_interval == "step":
            step_scheduler(self.scheduler, math.nan)

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
        flat = torch.cat(buffers, 1) if buffers else torch.empty(n_runs, 0, dtype=torch.float64)
        return self.theta.to("cpu", self.config.row_dtype).numpy(), flat.numpy()

    def _flat(self) -> torch.Tensor:
        """Return what makes a row of each run, of shape (n_runs, n_columns)."""
        n_runs, parameters = len(self.stack.runs), self.stack.parameters
        parts = [parameters[name].detach().reshape(n_runs, -1) for name in self.task.layout.names]
        theta = torch.cat(parts, 1)
        return theta if theta.dtype == torch.float64 else theta.float()

    def _follow(self, *, is_row: bool) -> None:
        """Add the length of a step to the path since the last row."""
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
    ) -> Iterator[tuple[Run, Snapshot]]:
        # One pass over all rows, since all of them are finite but for rare exceptions.
        all_finite = bool(np.isfinite(table[0]).all())
        for place in list(self.alive):
            run = self.stack.runs[place]
            if not all_finite and not np.isfinite(table[0][place]).all():
                self._end_run(place, "parameters that are not finite", learning_rate)
                continue
            run.recorded = here[0]
            row = table[0][place], table[1][place]
            step, epoch, path = here
            yield run, Snapshot(*row, step, epoch, losses[place], learning_rate, path[place])

    def _drop_diverged(self, losses: list[float], learning_rate: float) -> None:
        for place in [place for place in self.alive if not math.isfinite(losses[place])]:
            if self.step == 0:
                raise ValueError(
                    f"criterion gives loss={losses[place]} at the initial parameters of run "
                    f"{self.stack.runs[place].index}; it must be finite. Check the scale of X and "
                    "y, and what module returns."
                )
            self._end_run(place, f"loss={losses[place]}", learning_rate)

    def _end_run(self, place: int, what: str, learning_rate: float) -> None:
        self._unstack_run(place)
        self.alive.remove(place)
        warn_diverged(self.stack.runs[place], what, learning_rate)

    def _rate(self) -> float:
        return float(self.optimizer.param_groups[0].get("lr", math.nan))

    def _unstack_run(self, place: int) -> None:
        run = self.stack.runs[place]
        stacked: dict[str, torch.Tensor] = {**self.stack.parameters, **self.stack.fixed}
        with torch.no_grad():
            for name, tensor in module_tensors(run.module).items():
                tensor.copy_(stacked[name][place])
        run.step, run.epoch, run.path = self.step, self.epoch, self.path[place]
        run.waited = self.timer.waited
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
        # The step counter of a parameter with one entry has its shape, but is not an entry.
        return first if key == "step" else stacked
    return first


def stack_runs(runs: Sequence[Run], X: torch.Tensor, y: torch.Tensor, criterion: Loss) -> Stack:
    """Return the runs, of modules of equal shapes at the same step, as one stack of copies.
    A ValueError where the modules differ or cannot be vectorised.
    """
    first = runs[0].module
    shapes = {name: t.shape for name, t in module_tensors(first).items()}
    for run in runs[1:]:
        if {name: t.shape for name, t in module_tensors(run.module).items()} != shapes:
            raise ValueError(
                f"vectorize=True: the modules of runs {runs[0].index} and {run.index} differ in "
                "their parameters or buffers; they must be alike. Set vectorize=False."
            )
    _refuse_state(first, X[:2])
    each = [module_tensors(run.module) for run in runs]
    stacked = {name: torch.stack([tensors[name] for tensors in each]) for name in shapes}
    trainable = [name for name, p in first.named_parameters() if p.requires_grad]
    stack = Stack(
        runs=tuple(runs),
        module=copy_module(first).train(),
        parameters={name: nn.Parameter(stacked.pop(name)) for name in trainable},
        fixed=stacked,
        X=X,
        y=y,
        criterion=criterion,
        is_chain=_is_chain(first, X),
        is_entropy=_is_plain_entropy(criterion, y),
    )
    try:
        with forked_torch(module_device(first)):
            stack.losses(torch.zeros(len(runs), min(2, len(X)), dtype=torch.int64))
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        raise ValueError(
            f"vectorize=True: module or criterion cannot be vectorised over runs: "
            f"{str(error).splitlines()[0]} Dropout and what draws random numbers, and steps that "
            "depend on values, need vectorize=False."
        ) from error
    return stack


def _take(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the samples of each run, shape (n_runs, b, ...); rows: (n_runs, b)."""
    taken = values.index_select(0, rows.flatten().to(values.device))
    return taken.view(*rows.shape, *values.shape[1:])


def _is_chain(module: nn.Module, X: torch.Tensor) -> bool:
    parts = list(module) if type(module) is nn.Sequential else []
    hooks = any(part._forward_hooks or part._forward_pre_hooks for part in (module, *parts))
    # A layer that occurs twice is listed under one name only.
    is_plain = len(parts) == len(set(parts)) and not hooks and X.ndim == 2
    names = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    is_untied = names == {name for name, _ in module.named_parameters()}
    known = all(type(part) in (nn.Linear, *_ACTIVATIONS) for part in parts)
    return bool(parts) and is_plain and is_untied and known


def _chain_outputs(
    module: nn.Module, tensors: dict[str, torch.Tensor], inputs: torch.Tensor
) -> torch.Tensor:
    """Return outputs, shape (n_runs, b, n_outputs), by one product a layer, without vmap."""
    values = inputs
    for name, part in module.named_children():
        if isinstance(part, nn.Linear):
            weight = tensors[f"{name}.weight"].transpose(1, 2)
            if part.bias is None:
                values = torch.bmm(values, weight)
            else:
                values = torch.baddbmm(tensors[f"{name}.bias"].unsqueeze(1), values, weight)
        else:
            values = part(values)
    return values


def _is_plain_entropy(criterion: Any, y: torch.Tensor) -> bool:
    return (
        type(criterion) is nn.CrossEntropyLoss
        and criterion.reduction == "mean"
        and criterion.weight is None
        and criterion.label_smoothing == 0
        and y.ndim == 1
        and not y.is_floating_point()
        and not bool((y == criterion.ignore_index).any())
    )


def _refuse_state(module: nn.Module, rows: torch.Tensor) -> None:
    """Refuse a module that changes its buffers, such as BatchNorm, or draws random numbers."""
    tried = copy_module(module).train()
    before = [buffer.clone() for buffer in tried.buffers()]
    with torch.no_grad(), forked_torch(module_device(module)):
        state = torch.get_rng_state()
        outputs = []
        # A module that fails on two rows fails with its own message when it is stacked.
        with suppress(RuntimeError, ValueError):
            outputs = [tried(rows.clone()) for _ in range(2)]
        drew = not torch.equal(state, torch.get_rng_state())
    changed = any(not torch.equal(a, b) for a, b in zip(before, list(tried.buffers()), strict=True))
    # numpy's generator, or one of the module's own, would give all runs the same noise.
    drew = drew or (not changed and len(outputs) == 2 and not _are_alike(*outputs))
    if drew or changed:
        what = "draws random numbers (dropout)" if drew else "changes its buffers (BatchNorm)"
        raise ValueError(
            f"vectorize=True: module={type(module).__name__} {what} in training mode, which runs "
            "trained in a batch cannot do. Set vectorize=False."
        )


def _are_alike(first: Any, second: Any) -> bool:
    if not isinstance(first, torch.Tensor) or not isinstance(second, torch.Tensor):
        return True
    return torch.allclose(first, second, equal_nan=True)


def _refuse_settings(runs: Sequence[Run], task: RunTask, config: TrainingConfig) -> None:
    """Raise where a setting is asked for that differs from run to run."""
    if isinstance(config.record_every, Displacement):
        raise _unfit(f"record_every={config.record_every!r}", "each run moves on its own")
    if task.observe is not None:
        raise _unfit("record", "only parameters can be recorded. Pass record='parameters'")
    if config.callbacks:
        raise _unfit("callbacks", "no module holds the parameters of a run while it is trained")
    if config.resume:
        raise _unfit("resume=True", "only runs one after the other repeat bit for bit")
    if config.is_continued and config.scheduler is not None:
        raise _unfit("scheduler", "its state is not carried from call to call")
    if config.label_noise and len({run.label_seed for run in runs}) > 1:
        raise _unfit(
            f"label_noise={config.label_noise}",
            "all runs share one y. Hold the noise fixed with "
            "random_state={'seed': 0, 'label_noise': 0}",
        )
    if len({run.step for run in runs}) > 1:
        raise _unfit("runs at different steps", "they are trained step by step in a batch")


def _unfit(what: str, why: str) -> Exception:
    return InvalidParameterError(
        f"vectorize=True does not work with {what}: {why}. Or set vectorize=False."
    )
