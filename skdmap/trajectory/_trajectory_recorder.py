"""TrajectoryRecorder: the snapshots of a training loop, by hooks on its optimizer."""

import math
from collections.abc import Sequence
from dataclasses import fields
from types import TracebackType
from typing import Any, Self

import numpy as np
from torch import nn

from skdmap._argument_checks import check_count, is_integer
from skdmap._parameters import ParameterLayout, inner_module
from skdmap._sklearn_compat import InvalidParameterError
from skdmap._warning import warn
from skdmap.exceptions import SkdmapWarning
from skdmap.trajectory._cadence import Displacement, LogSpaced, WallClock, explicit_steps
from skdmap.trajectory._recorder.distributed import check_whole, is_follower
from skdmap.trajectory._recorder.hooks import OptimizerStep, StepWatch, first_learning_rate
from skdmap.trajectory._recorder.losses import check_loss
from skdmap.trajectory._recorder.row_writer import PathState, RecorderSettings, RowWriter
from skdmap.trajectory._recorder.wrappers import is_optimizer, optimizers_within
from skdmap.trajectory._training.module_state import restored_module

_CADENCES = (
    "an integer >= 1, a sequence of steps, LogSpaced(n, total=T), Displacement(delta) or "
    "WallClock(seconds)"
)


class TrajectoryRecorder:
    """Record the parameters along a training loop.

    A context manager around the loop. It hooks the optimizer's ``step``, so the loop itself does
    not change. It works where a trainer makes the optimizer (Lightning, Hugging Face, skorch), with
    gradient accumulation, mixed precision and DistributedDataParallel (the process of rank 0 keeps
    the rows). Module, optimizer and random generators are left as they were.

    Parameters
    ----------
    module : torch.nn.Module
        The module that is trained. Wrappers that replicate or compile it are looked through.
    optimizer : torch.optim.Optimizer, sequence of them or None, default=None
        The optimizer whose steps count; an object with ``param_groups`` and ``step`` will do. Of
        several, a step of each makes one step (Muon with AdamW, the two of a GAN); one that a
        GradScaler skips for one of them alone makes one step with the next. None counts each
        step of every torch optimizer that holds a parameter of the module: where several make one
        step together, pass them.
    record_every : int, sequence of int, LogSpaced, Displacement or WallClock, default=1
        When to keep a row. An integer is the number of steps between rows, counted from step 0.
        A sequence holds the steps, ascending. ``LogSpaced`` needs its ``total``. The last step is
        always kept.
    burn_in : int, default=0
        No row is kept before this step.
    record : "parameters", ("outputs", X_probe) or callable, default="parameters"
        What a row is: the parameters; the outputs of the module on the samples ``X_probe``,
        flattened sample by sample; or the 1-D tensor that a callable returns for the module. The
        module is called in eval mode, without gradients. Outputs are kept as they are, because the
        recorder does not know the loss; for log-probabilities pass
        ``lambda module: module(X).log_softmax(1).reshape(-1)``.
    parameters : str, sequence of str or None, default=None
        Patterns of names (``"layers.0.*"``) of the parameters to record. Lengths are measured in
        these parameters.
    sketch_dim : int or None, default=None
        Keep a random sketch of each row with this many columns, a multiple of 4, instead of the
        row.
    store : path-like or None, default=None
        Folder to which each row is written at once. If the process is killed, at most the newest
        row is lost.
    resume : bool, default=False
        Continue the rows in ``store``. Your loop restores its own checkpoint; rows after
        ``first_step`` are dropped, with a warning if it is 0.
    first_step : int, default=0
        Number of steps that the module has made when the block is entered.
    dtype : {"float32", "float64", "float16"}, default="float32"
        Type of the rows. "float16" keeps float32 key rows and half-precision differences from row
        to row: the error of each row is 2e-4 of its step.

    Attributes
    ----------
    snapshots_ : array of shape (n_snapshots, n_parameters)
        One row per recorded step; with ``store`` a read-only memory map. The attributes are set
        when the block ends, by an exception too. Processes other than rank 0 have no rows.
    buffers_ : ndarray of shape (n_snapshots, n_buffer_entries)
        Buffers (BatchNorm statistics) at each row.
    steps_ : ndarray of int64, shape (n_snapshots,)
        Number of steps made. A step that a GradScaler skips does not count; one step of LBFGS
        counts once.
    epochs_ : ndarray of int64, shape (n_snapshots,)
        -1: a hook does not see epochs.
    run_ids_ : ndarray of int64, shape (n_snapshots,)
        0: a recorder records one run.
    losses_ : ndarray of float64, shape (n_snapshots,)
        Loss at the row, on the batch of the next step: what was given to :meth:`log` before or
        after that step, else the first value of the step's closure, else nan. nan in the last row,
        which has no next step.
    learning_rates_ : ndarray of float64, shape (n_snapshots,)
        Learning rate of the first parameter group in the step that led to the row; in row 0, and in
        a row that is taken where a recording is resumed, in the next step. Of several optimizers
        given, that of the first one.
    path_lengths_ : ndarray of float64, shape (n_snapshots,)
        Sum of the lengths of all steps since the previous row; nan in row 0 and where rows are
        missing. A store saves the length since the last row when the block ends and every ten
        seconds. If a kill loses it, the path from the last row to ``first_step`` counts as
        straight; for sketches, outputs and callables it is nan.
    sketch_error_ : ndarray of float64, shape (n_snapshots,), or None
        Of a sketch: its squared distance from the previous row, divided by the exact one, minus 1.
    step_lengths_, start_distances_ : ndarray of float64, shape (n_snapshots,), or None
        Of a sketch: exact distances from the previous row and from the first row; nan where that
        row is not known in full after a resume.
    endpoints_ : dict of int to ndarray of shape (2, n_parameters), or None
        Of a sketch: the full first and last row of run 0.
    parameter_layout_ : ParameterLayout or None
        Names, shapes and slices of a row; None where rows are not parameters.
    module_, modules_ : torch.nn.Module, list of it
        The module given, itself.
    history_ : dict of ndarray
        Empty columns: a hook does not see epochs.
    interrupted_ : bool
        Whether an exception ended the block.

    See Also
    --------
    TrajectorySampler : Trains a module and records it.
    open_trajectory : Reads a store.

    Notes
    -----
    The same recorder may be entered again and continues to count. The last row of a block stays,
    whatever ``record_every`` is, also when the recording is resumed; distances are then measured
    from it. For sketches, outputs and callables a resumed recording measures them from
    ``first_step``. Recorders may be nested.

    A row is the end of the optimizer's step, or of the outermost step where one optimizer wraps
    another (schedule-free wrappers, Lookahead). What the loop changes after it (weight clipping,
    averages) belongs to the next step, unless :meth:`step` is called.

    A resumed recording compares the module with the stored row, in every format, or with what is
    kept of the steps between rows; a module at another step is an error before a row is touched.

    Parameters that are sharded over processes (FSDP, ZeRO-3) are an error, and so is a module whose
    parameters change their names or shapes while it is recorded. Rows that are not finite are left
    out, with a warning.

    Examples
    --------
    >>> import torch
    >>> from skdmap import TrajectoryRecorder
    >>> module = torch.nn.Linear(2, 1, bias=False)
    >>> optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    >>> with TrajectoryRecorder(module) as recorder:
    ...     for _ in range(3):
    ...         loss = module.weight.square().sum() / 2
    ...         optimizer.zero_grad()
    ...         loss.backward()
    ...         recorder.log(loss)
    ...         optimizer.step()
    >>> recorder.steps_
    array([0, 1, 2, 3])

    On this loss, half the sum of w^2, a step of gradient descent multiplies w by 0.9:

    >>> import numpy as np
    >>> np.allclose(recorder.snapshots_[1:], 0.9 * recorder.snapshots_[:-1])
    True
    """

    snapshots_: Any
    buffers_: np.ndarray
    steps_: np.ndarray
    epochs_: np.ndarray
    run_ids_: np.ndarray
    losses_: np.ndarray
    learning_rates_: np.ndarray
    path_lengths_: np.ndarray
    sketch_error_: np.ndarray | None
    step_lengths_: np.ndarray | None
    start_distances_: np.ndarray | None
    endpoints_: dict[int, np.ndarray] | None

    def __init__(
        self,
        module: nn.Module,
        optimizer: Any = None,
        *,
        record_every: Any = 1,
        burn_in: int = 0,
        record: Any = "parameters",
        parameters: str | Sequence[str] | None = None,
        sketch_dim: int | None = None,
        store: Any = None,
        resume: bool = False,
        first_step: int = 0,
        dtype: Any = "float32",
    ) -> None:
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"module={type(module).__name__} must be a torch.nn.Module: an instance, the one "
                "that is trained."
            )
        _check_cadence(record_every)
        burn_in = check_count("burn_in", burn_in, minimum=0)
        if is_integer(first_step) and int(first_step) < 0:
            raise InvalidParameterError(f"first_step={first_step!r} must not be negative.")
        first_step = check_count("first_step", first_step, minimum=0)
        if resume and store is None:
            raise ValueError("resume=True needs store=, the folder to go on with.")
        self.module, self.optimizer = module, optimizer
        self.store, self.resume, self.first_step = store, resume, first_step
        record_every = explicit_steps(record_every) or record_every
        self._settings = RecorderSettings(
            record_every, burn_in, record, parameters, sketch_dim, store, _check_dtype(dtype)
        )
        self._writer: RowWriter | None = None
        self._watch: StepWatch | None = None
        self._follows: bool | None = None
        # Set by callbacks of trainers; the second is how to have the trainer load a checkpoint.
        self._resumed: PathState | None = None
        self._trainer_call: str | None = None
        self._step_is_open = False  # an optimizer step has been seen, and no step() since
        # Checked again when the block is entered; here errors come earlier.
        _check_optimizers(optimizer, inner_module(module))
        self._settings.check(inner_module(module))

    def __getattr__(self, name: str) -> Any:
        # Reached only by names that are not set, such as what the end of the block sets.
        if name not in _RECORDED:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        raise AttributeError(
            f"{name} is there once the recording has ended: train in `with recorder:`, and read it "
            "after that block has been left."
        )

    def __enter__(self) -> Self:
        if self._watch is not None:
            raise RuntimeError(
                "This TrajectoryRecorder is already recording. Make another one to record twice."
            )
        inner = inner_module(self.module)
        check_whole(inner)
        optimizers = _check_optimizers(self.optimizer, inner)
        is_first = self._writer is None
        if self._writer is None:
            self._writer = RowWriter(inner, self._settings, self.first_step)
            self._writer.resumed = self._resumed
            self._writer.trainer_call = self._trainer_call
        else:
            self._writer.check_in_place()
        self._follows = is_follower()
        try:
            if self._follows is not None:
                self._open(self._writer, resume=self.resume or not is_first)
        except BaseException:
            self._writer = None if is_first else self._writer
            raise
        self._is_first, self._has_stepped, self._step_is_open = is_first, False, False
        writer = self._writer
        self._watch = StepWatch(
            inner, optimizers, self._on_step, writer.has_moved, self._check_start
        )
        self._watch.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        watch, self._watch = self._watch, None
        try:
            late_loss = None
            if watch is not None:
                watch.stop()
                late_loss = watch.losses.late_loss
            self._finish(interrupted=error is not None, late_loss=late_loss)
            if watch is not None and error is None and not self._has_stepped:
                self._warn_no_step(watch)
        except Exception as second:
            # The exception that ended the loop must not be replaced.
            if error is None:
                raise
            error.add_note(f"TrajectoryRecorder could not keep its last row: {second}")

    def log(self, loss: Any) -> None:
        """Log the loss of a step, before or after it.

        What comes first in a block, a loss or a step, decides; where steps come first, but
        gradients were computed since the last of them, the loss is that of the next one. Before:
        several losses before one step, as with accumulated gradients, are averaged. After: one loss
        after each step. Outside the block nothing happens. A tensor is read only when its row is
        kept, so no step waits for a GPU.

        Parameters
        ----------
        loss : float or Tensor with one element
            Loss at the parameters before the step, as the loop computes it.

        Raises
        ------
        ValueError
            If ``loss`` is not a single number, or if losses come before the steps first and after
            them later, or the other way round.
        """
        check_loss(loss)
        if self._watch is None:
            return
        self._watch.log(loss)
        if self.store is not None and self._writer is not None and not self._follows:
            # On disk at once: the row of the previous step is.
            self._writer.set_late_loss(self._watch.losses.late_loss)

    def step(self, *, always: bool = True) -> None:
        """Take a row of the parameters as they are now.

        After a step of the optimizer the row replaces that step's row: call it where the loop
        changes parameters after the step (weight clipping, projections, averages). Without one it
        counts as a step: call it after each update in a loop without a torch optimizer. Outside the
        block nothing happens.

        Parameters
        ----------
        always : bool, default=True
            Take the row whatever ``record_every`` is. False lets ``record_every`` decide.
        """
        watch, writer = self._watch, self._writer
        if watch is None or writer is None:
            return
        watch.settle()
        if self._step_is_open:
            self._step_is_open = False
            if not self._follows:
                writer.follow_again(always=always)
            return
        optimizers = _as_list(self.optimizer)
        rate = first_learning_rate(optimizers[0]) if optimizers else math.nan
        loss, late_loss = watch.end_by_hand()
        self._count(OptimizerStep(loss, late_loss, rate), always=always)

    def module_at(self, i: int) -> nn.Module:
        """Return a copy of the module with the parameters and buffers of row ``i``.

        Parameters
        ----------
        i : int
            Index of a row of ``snapshots_``; negative ones count from the end.

        Returns
        -------
        torch.nn.Module
            In eval mode.

        Raises
        ------
        ValueError
            If the rows are not parameters, are sketches, or hold only some of the parameters.
        """
        if self.parameter_layout_ is None or self.sketch_error_ is not None:
            what = "are sketches" if self.sketch_error_ is not None else "are not parameters"
            raise ValueError(
                f"The rows {what}, so a module cannot be made from one. Record parameters without "
                "sketch_dim; with it, endpoints_ holds the full first and last rows."
            )
        theta = np.array(self.snapshots_[i])
        inner = inner_module(self.module)
        return restored_module(inner, self.parameter_layout_, theta, self.buffers_[i])

    def _path_state(self) -> PathState | None:
        """Return what a trainer's checkpoint is to hold of the path; None outside of the block."""
        return None if self._watch is None or self._writer is None else self._writer.path_state()

    def _on_step(self, step: OptimizerStep) -> None:
        self._count(step)
        self._step_is_open = True

    def _count(self, step: OptimizerStep, *, always: bool = False) -> None:
        writer = self._writer
        if writer is None:
            return
        if not self._has_stepped:  # trainers wrap late
            check_whole(inner_module(self.module))
            self._has_stepped = True
        if self._follows is None:
            self._follows = bool(is_follower())
            self._open(writer, resume=self.resume or not self._is_first)
        if self._follows:
            writer.step += 1
        else:
            writer.follow(step.loss, step.learning_rate, late_loss=step.late_loss, always=always)

    def _check_start(self) -> None:
        """Warn where the parameters were changed in the block before its first step."""
        writer = self._writer
        follows = is_follower() if self._follows is None else self._follows
        if writer is None or follows or self._has_stepped or not writer.has_moved():
            return
        warn(
            f"The parameters of module were changed after the block was entered and before its "
            f"first step: row {writer.step} and the first step are not of one path. Load or "
            "initialize the module before the block, with first_step= its step. Where a trainer "
            "loads a checkpoint, use HuggingFaceCallback or LightningCallback of "
            "skdmap.integrations.",
            SkdmapWarning,
        )

    def _warn_no_step(self, watch: StepWatch) -> None:
        if self._writer is None or self._follows:
            return
        try:
            has_moved = self._writer.has_moved()
        except ValueError:  # other names or shapes
            has_moved = True
        if has_moved:
            what = "the parameters of module changed, but no step of an optimizer was seen"
        elif watch.saw_lookalike:
            what = "only an optimizer of other parameters, of the same shapes, made steps"
        else:
            return
        warn(
            f"TrajectoryRecorder recorded no step: {what}. Without a torch optimizer, or for a "
            "copy of the trained module (AveragedModel, EMA), call recorder.step() after each "
            "update. If optimizer= is given, pass the one that makes the steps, or None. If "
            "training makes a new module (skorch's fit), record that one: initialize(), then "
            "partial_fit().",
            SkdmapWarning,
        )

    def _open(self, writer: RowWriter, *, resume: bool) -> None:
        if self._follows:
            writer.open_empty()
        else:
            writer.open(store=self.store, resume=resume and self.store is not None)

    def _finish(self, *, interrupted: bool, late_loss: Any) -> None:
        writer = self._writer
        if writer is None:
            return
        if self._follows is None:  # no step was made
            self._follows = False
            self._open(writer, resume=self.resume or not self._is_first)
        optimizers = _as_list(self.optimizer)
        rate = first_learning_rate(optimizers[0]) if optimizers else math.nan
        self.history_ = {
            "run": np.empty(0, dtype=np.int64),
            "epoch": np.empty(0, dtype=np.int64),
            "loss": np.empty(0),
            "learning_rate": np.empty(0),
        }
        self.interrupted_ = interrupted
        try:
            if not self._follows:
                writer.finish(
                    rate, interrupted=interrupted, history=self.history_, late_loss=late_loss
                )
        finally:
            self._set_attributes(writer)

    def _set_attributes(self, writer: RowWriter) -> None:
        table = writer.table()
        for column in fields(table):
            if column.name != "scalars":  # a recorder has none
                setattr(self, f"{column.name}_", getattr(table, column.name))
        if table.endpoints is not None:
            self.endpoints_ = {run: np.stack(pair) for run, pair in table.endpoints.items()}
        is_vector = isinstance(self._settings.record, str)
        self.parameter_layout_: ParameterLayout | None = writer.layout if is_vector else None
        self.module_, self.modules_ = self.module, [self.module]


# What is set at the end of the block.
_RECORDED = {name for name in TrajectoryRecorder.__annotations__ if name.endswith("_")} | {
    "parameter_layout_", "module_", "modules_", "history_", "interrupted_",
}  # fmt: skip


def _check_dtype(dtype: Any) -> str:
    """Return the name of a type of rows, or raise."""
    name = str(dtype).removeprefix("torch.")
    if name not in ("float16", "float32", "float64"):
        raise InvalidParameterError(
            f"dtype={dtype!r} must be 'float32', 'float64' or 'float16'. 'float16' keeps float32 "
            "key rows and half-precision differences from row to row."
        )
    return name


def _as_list(optimizer: Any) -> list[Any]:
    if optimizer is None:
        return []
    return list(optimizer) if isinstance(optimizer, (list, tuple)) else [optimizer]


def _check_optimizers(optimizer: Any, module: nn.Module) -> list[Any]:
    """Return the optimizers given, or raise where one has no steps or no parameter of module."""
    given = _as_list(optimizer)
    if optimizer is not None and not given:
        raise InvalidParameterError(
            "optimizer=[] must not be empty. Pass the optimizers of the module, or None for every "
            "optimizer that holds a parameter of it."
        )
    own = {id(parameter) for parameter in module.parameters()}
    for one in given:
        if not is_optimizer(one):
            raise InvalidParameterError(
                f"optimizer={type(one).__name__} must be a torch.optim.Optimizer, a sequence of "
                "them, or None for every optimizer that holds a parameter of the module."
            )
        held = [
            p for each in optimizers_within(one) for g in each.param_groups for p in g["params"]
        ]
        if not any(id(parameter) in own for parameter in held):
            raise InvalidParameterError(
                f"optimizer={type(one).__name__} holds no parameter of "
                f"module={type(module).__name__}: no row would be recorded. Create it from "
                "module.parameters(), or pass None."
            )
    return given


def _check_cadence(record_every: Any) -> None:
    """Raise where ``record_every`` is not a cadence of the recorder."""
    if isinstance(record_every, str) and record_every == "epoch":
        raise InvalidParameterError(
            "record_every='epoch': the recorder sees steps, not epochs. Pass the number of steps "
            f"in an epoch, len(loader), as {_CADENCES}."
        )
    if isinstance(record_every, (Displacement, WallClock)) or explicit_steps(record_every):
        return
    if isinstance(record_every, LogSpaced):
        if record_every.total is None:
            raise InvalidParameterError(
                f"record_every={record_every!r} has no total: the recorder does not know how "
                "long your loop runs. Pass LogSpaced(n, total=T), with T its number of steps."
            )
    elif not is_integer(record_every) or int(record_every) < 1:
        raise InvalidParameterError(f"record_every={record_every!r} must be {_CADENCES}.")
