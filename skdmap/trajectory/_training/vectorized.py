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
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.optim.lr_scheduler import ReduceLROnPlateau

from skdmap._parameters import ParameterLayout
from skdmap._random import forked_torch
from skdmap._sklearn_compat import InvalidParameterError
from skdmap._warning import warn
from skdmap.exceptions import DivergenceWarning
from skdmap.trajectory._training.config import Plan, Task, n_scheduler_steps
from skdmap.trajectory._training.factories import (
    build_optimizer,
    build_scheduler,
    check_length,
    step_scheduler,
)
from skdmap.trajectory._training.module_state import module_device
from skdmap.trajectory._training.run_state import Pass, Run, Snapshot

# What is done to an entry depends on that entry's gradients and on the number of the step alone.
ENTRYWISE = (
    "SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "ASGD",
    "Rprop",
)  # fmt: skip
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
# Functions of each entry by itself, without parameters and without chance.
_ACTIVATIONS = (
    nn.Tanh, nn.ReLU, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.Softplus, nn.LeakyReLU, nn.Identity,
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


@dataclass(frozen=True)
class Stack:
    """The runs of one network as tensors with a leading axis of runs.

    Attributes
    ----------
    runs : tuple of Run
        Those that are trained; brought up to date when training ends.
    module : torch.nn.Module
        A copy in training mode, for its forward only.
    parameters : dict of Parameter
        Trainable ones, of shape (n_runs, ...).
    fixed : dict of Tensor
        Other parameters, and buffers, of shape (n_runs, ...).
    X, y : Tensor of shape (n, ...)
        Rows to train on.
    criterion : callable
        (outputs, targets) -> scalar.
    is_chain : bool
        Whether the module is linear layers and entrywise functions in a row, on rows of numbers.
    is_entropy : bool
        Whether the criterion is the plain mean cross-entropy of class indices.
    """

    runs: tuple[Run, ...]
    module: nn.Module
    parameters: dict[str, nn.Parameter]
    fixed: dict[str, torch.Tensor]
    X: torch.Tensor
    y: torch.Tensor
    criterion: Loss
    is_chain: bool
    is_entropy: bool

    def losses(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the loss of each run on its own batch; ``rows`` has shape (n_runs, b)."""
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


def stack_runs(runs: Sequence[Run], X: torch.Tensor, y: torch.Tensor, criterion: Loss) -> Stack:
    """Return the runs as one stack.

    Parameters
    ----------
    runs : sequence of Run
        With modules of one class and equal shapes, at the same step.
    X, y : Tensor of shape (n, ...)
        Rows to train on.
    criterion : callable
        (outputs, targets) -> scalar.

    Returns
    -------
    Stack
        Copies of the modules' tensors.

    Raises
    ------
    ValueError
        If the modules differ, draw random numbers or change their buffers in training mode, or
        cannot be vectorised.
    """
    first = runs[0].module
    shapes = {name: t.shape for name, t in module_tensors(first).items()}
    for run in runs[1:]:
        if {name: t.shape for name, t in module_tensors(run.module).items()} != shapes:
            raise ValueError(
                f"vectorize=True: the modules of runs {runs[0].index} and {run.index} differ in "
                "their parameters or buffers, must be alike. Set vectorize=False."
            )
    _refuse_state(first, X[:2])
    each = [module_tensors(run.module) for run in runs]
    stacked = {name: torch.stack([tensors[name] for tensors in each]) for name in shapes}
    trainable = [name for name, p in first.named_parameters() if p.requires_grad]
    stack = Stack(
        runs=tuple(runs),
        module=copy.deepcopy(first).train(),
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


def module_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers by name, detached."""
    return {n: p.detach() for n, p in (*module.named_parameters(), *module.named_buffers())}


def _take(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the rows of each run, of shape (n_runs, b, ...)."""
    taken = values.index_select(0, rows.flatten().to(values.device))
    return taken.view(*rows.shape, *values.shape[1:])


def _is_chain(module: nn.Module, X: torch.Tensor) -> bool:
    parts = list(module) if type(module) is nn.Sequential else []
    hooks = any(part._forward_hooks or part._forward_pre_hooks for part in (module, *parts))
    # A layer that is there twice is there under one name only.
    is_plain = len(parts) == len(set(parts)) and not hooks and X.ndim == 2
    names = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    is_untied = names == {name for name, _ in module.named_parameters()}
    known = all(type(part) in (nn.Linear, *_ACTIVATIONS) for part in parts)
    return bool(parts) and is_plain and is_untied and known


def _chain_outputs(
    module: nn.Module, tensors: dict[str, torch.Tensor], inputs: torch.Tensor
) -> torch.Tensor:
    """Return outputs of shape (n_runs, b, n_outputs); one product a layer, without vmap."""
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
    tried = copy.deepcopy(module).train()
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
            "that are trained together cannot do. Set vectorize=False."
        )


def _are_alike(first: Any, second: Any) -> bool:
    if not isinstance(first, torch.Tensor) or not isinstance(second, torch.Tensor):
        return True
    return torch.allclose(first, second, equal_nan=True)


def record_together(
    runs: Sequence[Run],
    task: Task,
    plan: Plan,
    keep: Callable[[Run, Snapshot], None],
    is_interrupted: Callable[[], bool],
) -> None:
    """Train all runs at once and hand on their rows, by step, then by run.

    Parameters
    ----------
    runs : sequence of Run
        At the same step.
    task : Task
        Of the first of them.
    plan : Plan
        Of all.
    keep : callable
        Given a run and its row.
    is_interrupted : callable
        Asked after each recorded step.

    Raises
    ------
    ValueError
        If something is asked for that differs from run to run, or the module or optimizer cannot
        be vectorised.
    """
    _refuse(runs, task, plan)
    stack = stack_runs(runs, task.X, task.y, task.criterion)
    optimizer = build_optimizer(plan.optimizer, plan.optimizer_params, stack.parameters.values())
    check_optimizer(optimizer)
    load_optimizer(optimizer, runs)
    scheduler = build_scheduler(plan.scheduler, plan.scheduler_params, optimizer)
    if isinstance(scheduler, ReduceLROnPlateau):
        raise _unfit("scheduler=ReduceLROnPlateau", "each run has a loss of its own")
    check_length(scheduler, n_scheduler_steps(plan))

    def after_step(step: int, pass_is_over: bool) -> None:
        if scheduler is not None and (pass_is_over or plan.scheduler_interval == "step"):
            step_scheduler(scheduler, float("nan"))

    by_index = {run.index: run for run in runs}
    rows = train_together(
        stack,
        optimizer,
        layout=task.layout,
        record_at=task.record_at,
        last_step=task.last_step,
        batch_size=task.batch_size,
        dtype=task.dtype,
        after_step=after_step,
    )
    with closing(rows):
        step = -1
        for index, snapshot in rows:
            if is_interrupted() and snapshot.step != step and step >= 0:
                return
            step = snapshot.step
            keep(by_index[index], snapshot)


def _refuse(runs: Sequence[Run], task: Task, plan: Plan) -> None:
    if task.displacement is not None:
        raise _unfit(f"record_every={plan.record_every!r}", "each run moves by itself")
    if task.observe is not None:
        raise _unfit("record", "only parameters are read off together. Pass record='parameters'")
    if task.after_row is not None:
        raise _unfit("callbacks", "no module holds a run while it is trained")
    if plan.resume:
        raise _unfit("resume=True", "only runs one after the other repeat bit for bit")
    if plan.goes_on and plan.scheduler is not None:
        raise _unfit("scheduler", "its state is not carried from call to call")
    if plan.label_noise and len({run.label_seed for run in runs}) > 1:
        raise _unfit(
            f"label_noise={plan.label_noise}",
            "all runs see the same rows. Hold the noise alike with "
            "random_state={'seed': 0, 'label_noise': 0}",
        )
    if len({run.step for run in runs}) > 1:
        raise _unfit("runs at different steps", "they are trained step by step together")


def _unfit(what: str, why: str) -> Exception:
    return InvalidParameterError(
        f"vectorize=True does not go with {what}: {why}. Or set vectorize=False."
    )
