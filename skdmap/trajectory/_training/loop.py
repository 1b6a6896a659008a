"""The training loop of one run: yields a snapshot per recorded step, stores nothing."""

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from skdmap._random import TorchStream, forked_torch, get_torch_state, set_torch_state
from skdmap._warning import warn
from skdmap.exceptions import DivergenceWarning
from skdmap.trajectory._cadence import Displacement, RowTimer
from skdmap.trajectory._flat_parameters import FlatPath
from skdmap.trajectory._training.callbacks import after_row
from skdmap.trajectory._training.config import RunTask, TrainingConfig
from skdmap.trajectory._training.factories import step_scheduler
from skdmap.trajectory._training.module_state import (
    assign_buffers,
    flatten_buffers,
    kept_buffers,
    module_device,
    without_gradients,
)
from skdmap.trajectory._training.randomness import draws_at_random
from skdmap.trajectory._training.run_state import Pass, Run, Snapshot

_NO_BUFFERS = np.empty(0)
# Data up to this size are put into the order of a pass at its beginning, as a second copy.
_SHUFFLED_BYTES = 2**26


class _NotFiniteError(Exception):
    """The first loss of a step is not finite; raised before the parameters are changed."""


class _StoppedError(Exception):
    """A callback ends the run; raised before the parameters are changed."""


def never() -> bool:
    """Return False: no interrupt, no state to save."""
    return False


def train(
    run: Run,
    task: RunTask,
    config: TrainingConfig,
    optimizer: torch.optim.Optimizer,
    scheduler: Any = None,
    *,
    should_stop: Callable[[], bool] = never,
    state_is_due: Callable[[], bool] = never,
) -> Generator[Snapshot | None, None, None]:
    """Train a run, in place, up to ``task.last_step`` and yield the steps to record, in order.
    Where ``state_is_due()`` and there is no row, yield None: the run can be saved then.
    """
    # The first snapshot may be the last row of an earlier call, now with the loss on the batch that
    # did follow. A pass under way is continued; run.order = None starts another one.
    loop = _Loop(run, task, config, optimizer, scheduler)
    run.diverged = run.stopped = False
    run.module.train()
    # Schedule-free optimizers have modes too, and refuse to step in another one.
    switch = getattr(optimizer, "train", None)
    if callable(switch):
        switch()
    try:
        yield from loop.steps(should_stop, state_is_due)
    finally:
        loop.capture()
        optimizer.zero_grad()
        run.module.eval()


class _Loop:
    """One call of :func:`train`: what lives longer than a step and shorter than the run."""

    def __init__(
        self,
        run: Run,
        task: RunTask,
        config: TrainingConfig,
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
    ) -> None:
        self.run, self.task, self.config = run, task, config
        self.optimizer, self.scheduler = optimizer, scheduler
        self.after_row = after_row(config.callbacks)
        every = config.record_every
        self.displacement = every if isinstance(every, Displacement) else None
        self.timer = RowTimer(every, run.waited)
        self.device = module_device(run.module)
        # What draws no random numbers leaves torch's global generators, which threads share, alone.
        self.stream: TorchStream | nullcontext[None] = nullcontext()
        if self.after_row is not None or draws_at_random(run.module, optimizer, task):
            self.stream = TorchStream(run.dropout, self.device)
        named = dict(run.module.named_parameters())
        parameters = [named[name] for name in task.layout.names]
        self.is_double = any(p.dtype == torch.float64 for p in parameters)
        self.path = FlatPath(parameters)
        self.batches: list[tuple[torch.Tensor, torch.Tensor]] | None = None
        self.is_large = task.X.nbytes > _SHUFFLED_BYTES
        self.generator = torch.Generator()
        self.generator.set_state(run.batches)
        # A module that begins without buffers is not asked for them at each row.
        self.has_buffers = any(True for _ in run.module.buffers())
        self.is_finite = True

    def capture(self) -> None:
        """Write into the run the states of optimizer, scheduler and generators."""
        run = self.run
        run.batches = self.generator.get_state()
        if isinstance(self.stream, TorchStream):
            run.dropout = self.stream.states
        run.optimizer = (type(self.optimizer), self.optimizer.state_dict())
        if self.scheduler is not None:
            run.scheduler = (type(self.scheduler), self.scheduler.state_dict())
        run.waited = self.timer.waited
        run.captured = run.step

    def steps(
        self, should_stop: Callable[[], bool], state_is_due: Callable[[], bool]
    ) -> Iterator[Snapshot | None]:
        run, task = self.run, self.task
        self.is_finite = _is_finite(self.path.theta)
        if run.step == 0:
            run.learning_rate = self._rate()
        while run.step < task.last_step:
            batch = self._next_batch()
            row = self._read() if self._is_wanted() else None
            here = run.step, run.epoch, run.learning_rate, run.path
            loss = self._step(*batch, row)
            if run.stopped:
                yield self._snapshot(row, here, loss)
                return
            if not self._may_go_on(row, loss):
                return
            self._count(len(batch[0]), loss)
            if row is not None:
                snapshot = self._snapshot(row, here, loss)
                self._mark()
            length = self.path.follow()
            # A finite step from finite parameters leads to finite ones; a long one may overflow.
            self.is_finite = math.isfinite(length) or _is_finite(self.path.theta)
            run.path += length
            is_due = state_is_due()
            if is_due:
                self.capture()
            if row is not None:
                yield snapshot
            elif is_due:
                yield None
            if run.step < task.last_step and should_stop():
                return
        yield from self._last_row()

    def _last_row(self) -> Iterator[Snapshot]:
        run, task = self.run, self.task
        # The batch that led here, once more; afresh, because a module may change it in place.
        self.batches = None
        batch = self._batch((run.cursor - 1) // task.batch_size * task.batch_size)
        row = self._read()
        loss = self._loss_again(*batch, with_gradient=self.after_row is not None)
        if not self._may_go_on(row, loss) or run.step not in task.record_at:
            return
        here = run.step, run.epoch, run.learning_rate, run.path
        if self.after_row is not None:
            with self.stream:
                run.stopped = self.after_row(run.step, loss, run.module)
        snapshot = self._snapshot(row, here, loss)
        self._mark()
        yield snapshot

    def _next_batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        run, n_rows = self.run, len(self.task.X)
        if run.order is None or run.cursor >= n_rows:
            run.order = torch.randperm(n_rows, generator=self.generator, device="cpu")
            run.cursor = 0
            run.passes.append(Pass(run.epoch + 1))
            self.batches = None
        return self._batch(run.cursor)

    def _batch(self, begin: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the batch of the present pass whose first sample is number ``begin`` of it."""
        task, order = self.task, self.run.order
        if order is None:
            raise RuntimeError("A run at its last step must have a pass under way.")
        if self.is_large:
            rows = order[begin : begin + task.batch_size]
            return _take(task.X, rows), _take(task.y, rows)
        if self.batches is None:
            # Slices of shuffled data cost a tenth of an index_select per batch.
            parts = (_take(values, order).split(task.batch_size) for values in (task.X, task.y))
            self.batches = list(zip(*parts, strict=True))
        return self.batches[begin // task.batch_size]

    def _is_wanted(self) -> bool:
        run, task = self.run, self.task
        # The row that an earlier call ended with comes again: its loss is known only now.
        if run.step in task.record_at or run.step == run.recorded:
            return True
        if run.step < self.config.burn_in or self.timer.is_due:
            return run.step >= self.config.burn_in
        if self.displacement is None:
            return False
        if run.reference is None:
            return True
        distance = torch.dist(self.path.theta, run.reference).item()
        return self.displacement.is_reached(distance=distance, path=run.path)

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        observe, dtype = self.task.observe, self.config.row_dtype
        self.timer.restart()
        if observe is None:
            values = self.path.row(dtype)
        else:
            # Those of the step before; a function that calls backward() would add to them.
            self.optimizer.zero_grad()
            with self.stream:
                values = observe(self.run.module).to("cpu", dtype).numpy()
        buffers = flatten_buffers(self.run.module).numpy() if self.has_buffers else _NO_BUFFERS
        return values, buffers

    def _rate(self) -> float:
        return float(self.optimizer.param_groups[0].get("lr", math.nan))

    def _step(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        row: tuple[np.ndarray, np.ndarray] | None,
    ) -> float:
        """Make one step and return the loss before it; no step where that is not finite,
        or a callback ends the run.
        """
        run, optimizer, criterion = self.run, self.optimizer, self.task.criterion
        is_new = row is not None and run.step != run.recorded
        after_row = self.after_row if is_new else None
        losses: list[float] = []

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = criterion(run.module(inputs), targets)
            if losses:
                loss.backward()
                return loss
            losses.append(loss.item())
            if not math.isfinite(losses[0]):
                raise _NotFiniteError
            loss.backward()
            if after_row is not None and row is not None:
                with kept_buffers(run.module):
                    # The forward above has moved them on.
                    assign_buffers(run.module, torch.from_numpy(row[1]))
                    is_stopped = after_row(run.step, losses[0], run.module)
                if is_stopped:
                    raise _StoppedError
            return loss

        step: Any = optimizer.step  # its annotation wants a closure that returns a float
        with self.stream:
            before = None if after_row is None else get_torch_state(self.device)
            try:
                step(closure)
            except _NotFiniteError:
                pass
            except _StoppedError:
                # As if this batch had never been used.
                run.stopped = True
                if row is not None and before is not None:
                    assign_buffers(run.module, torch.from_numpy(row[1]))
                    set_torch_state(before, self.device)
        if not losses:
            raise ValueError(
                f"optimizer={type(optimizer).__name__} does not call the closure that its step() "
                "is given, so no gradient is computed. Pass an optimizer whose step(closure) does."
            )
        return losses[0]

    def _may_go_on(self, row: tuple[np.ndarray, np.ndarray] | None, loss: float) -> bool:
        run = self.run
        if not math.isfinite(loss):
            what = f"loss={loss}"
        elif row is not None and not (self.is_finite and self._is_proper(row[0])):
            what = "parameters that are not finite"
        else:
            return True
        if run.step == 0:
            raise ValueError(
                f"criterion gives loss={loss} at the initial parameters of run {run.index}; it "
                "must be finite. Check the scale of X and y, and what module returns."
            )
        warn_diverged(run, what, run.learning_rate)
        return False

    def _loss_again(
        self, inputs: torch.Tensor, targets: torch.Tensor, *, with_gradient: bool
    ) -> float:
        """Return the loss in training mode; buffers and generators are left as found."""
        module = self.run.module
        self.optimizer.zero_grad()

        def loss_of(samples: torch.Tensor) -> torch.Tensor:
            return self.task.criterion(module(samples), targets)

        with self.stream, self._fork(), kept_buffers(module):
            if not with_gradient:
                return float(without_gradients(loss_of, inputs).item())
            loss = loss_of(inputs)
            loss.backward()
            return float(loss.item())

    def _fork(self) -> AbstractContextManager[None]:
        """Return what puts the generators back where they may be drawn from."""
        return forked_torch(self.device) if isinstance(self.stream, TorchStream) else nullcontext()

    def _is_proper(self, row: np.ndarray) -> bool:
        """Return whether the row recorded for finite parameters is finite too."""
        if self.task.observe is None and not (self.is_double and row.dtype != np.float64):
            return True
        return bool(np.isfinite(row).all())

    def _count(self, n_rows: int, loss: float) -> None:
        """Count a step, and step the scheduler where it is due."""
        run, totals = self.run, self.run.passes[-1]
        run.learning_rate = self._rate()
        totals.loss_sum += loss * n_rows
        totals.n_rows += n_rows
        totals.learning_rate = run.learning_rate
        run.step += 1
        run.cursor += n_rows
        is_over = run.cursor >= len(self.task.X)
        run.epoch += is_over
        if self.scheduler is None:
            return
        run.waiting_loss += loss * n_rows
        run.waiting_rows += n_rows
        if is_over or self.config.scheduler_interval == "step":
            with self.stream:
                step_scheduler(self.scheduler, run.waiting_loss / run.waiting_rows)
            run.waiting_loss, run.waiting_rows = 0.0, 0

    def _snapshot(
        self,
        row: tuple[np.ndarray, np.ndarray] | None,
        here: tuple[int, int, float, float],
        loss: float,
    ) -> Snapshot:
        if row is None:
            raise RuntimeError("A run ends at a step that is recorded.")
        step, epoch, learning_rate, path = here
        self.run.recorded = step
        return Snapshot(*row, step, epoch, loss, learning_rate, path)

    def _mark(self) -> None:
        """Begin to measure lengths from a recorded row."""
        self.run.path = 0.0
        if self.displacement is not None:
            self.run.reference = self.path.theta.clone()


def warn_diverged(run: Run, what: str, learning_rate: float) -> None:
    """Mark a run as diverged, with a warning."""
    run.diverged = True
    warn(
        f"Training diverged: {what} after step {run.step} of run {run.index}, at a learning rate "
        f"of {learning_rate:g}. Rows are recorded up to there. Lower optimizer_params['lr'], or "
        "scale X and y.",
        DivergenceWarning,
    )


def _take(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return values.index_select(0, rows.to(values.device))


def _is_finite(theta: torch.Tensor) -> bool:
    # A sum is one pass without a temporary.
    return math.isfinite(theta.sum().item()) or bool(torch.isfinite(theta).all())
