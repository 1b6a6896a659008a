"""A training loop that is not ours -> its snapshots, by hooks on the optimizer."""

from collections.abc import Sequence
from dataclasses import fields
from numbers import Integral
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from skdmap._parameters import ParameterLayout
from skdmap._sklearn_compat import InvalidParameterError
from skdmap.trajectory._cadence import Displacement, LogSpaced
from skdmap.trajectory._recorder.distributed import check_whole, inner_module, is_follower
from skdmap.trajectory._recorder.hooks import OptimizerStep, StepWatch, first_learning_rate
from skdmap.trajectory._recorder.row_writer import RecorderSettings, RowWriter
from skdmap.trajectory._training.module_state import restored_module

_CADENCES = "an integer >= 1, LogSpaced(n, total=T) or Displacement(delta)"


class TrajectoryRecorder:
    """Record the parameters that a training loop of your own passes.

    A context manager around the loop. It hooks the optimizer's ``step``, so that nothing in the
    loop changes, and works where a trainer makes its optimizer itself (Lightning, Hugging Face,
    skorch), with gradient accumulation, mixed precision and DistributedDataParallel (the process of
    rank 0 keeps the rows). Module, optimizer and all random generators are left as they were.

    Parameters
    ----------
    module : torch.nn.Module
        The module that is trained. A wrapper that replicates or compiles it is looked through.
    optimizer : torch.optim.Optimizer or None, default=None
        Whose steps count. None counts those of every optimizer that holds a parameter of the
        module.
    record_every : int, LogSpaced or Displacement, default=1
        When to keep a row. An integer: steps between rows, counted from step 0. ``LogSpaced`` needs
        its ``total``. The last step is always kept.
    burn_in : int, default=0
        No row before this step.
    record : "parameters", ("outputs", X_probe) or callable, default="parameters"
        What a row is: the parameters; the outputs of the module on the rows ``X_probe``, flattened
        rows first; or what a callable makes of the module, a 1-D tensor. The module is called in
        eval mode, without gradients. Outputs are taken as they are, because the recorder knows no
        loss: for log-probabilities pass
        ``lambda module: module(X).log_softmax(1).reshape(-1)``.
    parameters : str, sequence of str or None, default=None
        Patterns of names (``"layers.0.*"``): the parameters to record, and to measure lengths in.
    sketch_dim : int or None, default=None
        Keep a random sketch of so many columns of each row, a multiple of 4, instead of the row.
    store : path-like or None, default=None
        A folder to which each row is written as it comes. A kill loses at most the newest row.
    resume : bool, default=False
        Go on with the rows in ``store``. Your loop loads its own checkpoint; rows after
        ``first_step`` are dropped.
    first_step : int, default=0
        Number of the step that the module stands at when the block is entered.
    dtype : {"float32", "float64", "float16"}, default="float32"
        Of the rows. "float16" keeps float32 key rows and half-precision differences from row
        to row: each row is off by 2e-4 of its step.

    Attributes
    ----------
    snapshots_ : array of shape (n_snapshots, n_parameters)
        One row per recorded step; with ``store`` a read-only memory map. These attributes are there
        when the block is left, by an exception too. In processes of another rank than 0 there are
        no rows.
    buffers_ : ndarray of shape (n_snapshots, n_buffer_entries)
        Buffers (BatchNorm statistics) of the same moments.
    steps_ : ndarray of int64, shape (n_snapshots,)
        Steps made. A step that a GradScaler skips is none, and one of LBFGS is one.
    epochs_ : ndarray of int64, shape (n_snapshots,)
        -1: a hook sees no epochs.
    run_ids_ : ndarray of int64, shape (n_snapshots,)
        0: a recorder records one run.
    losses_ : ndarray of float64, shape (n_snapshots,)
        The loss at the row, on the batch of the next step: the mean of what was given to
        :meth:`log` before that step, else the first value of the step's closure, else nan. nan in
        the last row, which has no next step.
    learning_rates_ : ndarray of float64, shape (n_snapshots,)
        Of the first parameter group in the step that led to the row (row 0: in the next one).
    path_lengths_ : ndarray of float64, shape (n_snapshots,)
        Sum of the lengths of all steps since the row before, in parameter units. In the row after
        ``resume`` the way from the row before to ``first_step`` counts as straight; where rows are
        sketches or no parameters it is not known, and the length is nan.
    sketch_error_ : ndarray of float64, shape (n_snapshots,), or None
        Of a sketch: its squared distance from the row before over the exact one, minus 1.
    step_lengths_, start_distances_ : ndarray of float64, shape (n_snapshots,), or None
        Of a sketch: exact distances from the row before, and from the first row.
    endpoints_ : dict of int to ndarray of shape (2, n_parameters), or None
        Of a sketch: the full first and last row of run 0.
    parameter_layout_ : ParameterLayout or None
        Names, shapes and slices of a row; None where rows are no parameters.
    module_, modules_ : torch.nn.Module, list of it
        The module given, itself.
    history_ : dict of ndarray
        Empty columns: a hook sees no epochs.
    interrupted_ : bool
        Whether an exception ended the block.

    See Also
    --------
    TrajectorySampler : Trains by itself.
    open_trajectory : Reads a store.

    Notes
    -----
    The same recorder may be entered again: it goes on counting. The row that ended a block stays,
    whatever the cadence, also when it is resumed, and distances are then measured from it. Where
    rows are sketches or no parameters, a resumed recording measures them from ``first_step``.
    Recorders of different modules may be nested. With several optimizers on one module each step of
    each of them counts.

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
    sketch_error_: np.ndarray | None

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
        check_cadence(record_every)
        check_count(burn_in, "burn_in")
        check_count(first_step, "first_step")
        if resume and store is None:
            raise ValueError("resume=True needs store=, the folder to go on with.")
        self.module, self.optimizer = module, optimizer
        self.store, self.resume, self.first_step = store, resume, int(first_step)
        self._settings = RecorderSettings(
            record_every, int(burn_in), record, parameters, sketch_dim, store, check_dtype(dtype)
        )
        self._writer: RowWriter | None = None
        self._watch: StepWatch | None = None
        self._follows: bool | None = None
        # Looked at again when the block is entered; an error now is earlier.
        check_optimizer(optimizer, inner_module(module))
        self._settings.check(inner_module(module))

    def __enter__(self) -> Self:
        if self._watch is not None:
            raise RuntimeError(
                "This TrajectoryRecorder is recording already. Make another one to record twice."
            )
        inner = inner_module(self.module)
        check_whole(inner)
        check_optimizer(self.optimizer, inner)
        is_first = self._writer is None
        if self._writer is None:
            self._writer = RowWriter(inner, self._settings, self.first_step)
        else:
            self._writer.check_in_place()
        self._follows = is_follower()
        try:
            if self._follows is not None:
                self._open(self._writer, resume=self.resume or not is_first)
        except BaseException:
            self._writer = None if is_first else self._writer
            raise
        self._is_first, self._has_stepped = is_first, False
        self._watch = StepWatch(inner, self.optimizer, self._on_step)
        self._watch.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        try:
            self._finish(interrupted=error is not None)
        except Exception as second:
            # What ended the loop is what its author must see.
            if error is None:
                raise
            error.add_note(f"TrajectoryRecorder could not keep its last row: {second}")

    def log(self, loss: Any) -> None:
        """Tell the loss of the step to come; several before one step are averaged.

        Outside of the block nothing happens. A tensor is read only when its row is kept, so that
        no step waits for a GPU.

        Parameters
        ----------
        loss : float or Tensor with one element
            At the parameters as they are.

        Raises
        ------
        ValueError
            If it is not one number.
        """
        is_number = isinstance(loss, (int, float, np.number))
        if not is_number and not (isinstance(loss, torch.Tensor) and loss.numel() == 1):
            shape = getattr(loss, "shape", type(loss).__name__)
            raise ValueError(f"loss={shape} must be one number. Log loss.mean().")
        if self._watch is not None:
            self._watch.log(loss)

    def module_at(self, i: int) -> nn.Module:
        """Return a copy of the module with the parameters and buffers of row ``i``.

        Parameters
        ----------
        i : int
            Row of ``snapshots_``; negative ones count from the end.

        Returns
        -------
        torch.nn.Module
            In eval mode.

        Raises
        ------
        ValueError
            If the rows are no parameters, sketches, or only some of the parameters.
        """
        if self.parameter_layout_ is None or self.sketch_error_ is not None:
            what = "sketches" if self.sketch_error_ is not None else "no parameters"
            raise ValueError(
                f"The rows are {what}, so that no module can be made of one. Record parameters, "
                "without sketch_dim; of a sketch, endpoints_ holds the full first and last rows."
            )
        theta = np.array(self.snapshots_[i])
        inner = inner_module(self.module)
        return restored_module(inner, self.parameter_layout_, theta, self.buffers_[i])

    def _on_step(self, step: OptimizerStep) -> None:
        writer = self._writer
        if writer is None:
            return
        if not self._has_stepped:  # wrapping and process groups may come after the block is entered
            check_whole(inner_module(self.module))
            self._has_stepped = True
        if self._follows is None:
            self._follows = bool(is_follower())
            self._open(writer, resume=self.resume or not self._is_first)
        if self._follows:
            writer.step += 1
        else:
            writer.follow(step.loss, step.learning_rate)

    def _open(self, writer: RowWriter, *, resume: bool) -> None:
        if self._follows:
            writer.open_empty()
        else:
            writer.open(store=self.store, resume=resume and self.store is not None)

    def _finish(self, *, interrupted: bool) -> None:
        writer = self._writer
        if writer is None:
            return
        if self._follows is None:  # no step was made
            self._follows = False
            self._open(writer, resume=self.resume or not self._is_first)
        rate = float("nan") if self.optimizer is None else first_learning_rate(self.optimizer)
        self.history_ = {
            "run": np.empty(0, dtype=np.int64),
            "epoch": np.empty(0, dtype=np.int64),
            "loss": np.empty(0),
            "learning_rate": np.empty(0),
        }
        self.interrupted_ = interrupted
        try:
            if not self._follows:
                writer.finish(rate, interrupted=interrupted, history=self.history_)
        finally:
            self._bring_out(writer)

    def _bring_out(self, writer: RowWriter) -> None:
        table = writer.table()
        for column in fields(table):
            setattr(self, f"{column.name}_", getattr(table, column.name))
        if table.endpoints is not None:
            self.endpoints_ = {run: np.stack(pair) for run, pair in table.endpoints.items()}
        is_vector = isinstance(self._settings.record, str)
        self.parameter_layout_: ParameterLayout | None = writer.layout if is_vector else None
        self.module_, self.modules_ = self.module, [self.module]


def check_count(value: Any, name: str, least: int = 0) -> None:
    """Raise where a value is no integer >= ``least``."""
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < least:
        raise InvalidParameterError(f"{name}={value!r} must be an integer >= {least}.")


def check_dtype(dtype: Any) -> str:
    """Return the name of a type for rows."""
    name = str(dtype).removeprefix("torch.")
    if name not in ("float16", "float32", "float64"):
        raise InvalidParameterError(
            f"dtype={dtype!r} must be 'float32', 'float64' or 'float16' (float32 key rows, and "
            "half-precision differences from row to row)."
        )
    return name


def check_optimizer(optimizer: Any, module: nn.Module) -> None:
    """Raise where an optimizer is none, or of another module."""
    if optimizer is None:
        return
    if not hasattr(optimizer, "param_groups") or not hasattr(optimizer, "step"):
        raise InvalidParameterError(
            f"optimizer={type(optimizer).__name__} must be a torch.optim.Optimizer, or None for "
            "every optimizer that holds a parameter of the module."
        )
    own = {id(parameter) for parameter in module.parameters()}
    if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        raise InvalidParameterError(
            f"optimizer={type(optimizer).__name__} holds no parameter of "
            f"module={type(module).__name__}: no row would be recorded. Make it from "
            "module.parameters(), or pass None."
        )


def check_cadence(record_every: Any) -> None:
    """Raise where ``record_every`` is nothing that steps can be counted by."""
    if record_every == "epoch":
        raise InvalidParameterError(
            "record_every='epoch': the recorder sees steps, no epochs. Pass the number of steps in "
            f"an epoch, len(loader), as {_CADENCES}."
        )
    if isinstance(record_every, Displacement):
        return
    if isinstance(record_every, LogSpaced):
        if record_every.total is None:
            raise InvalidParameterError(
                f"record_every={record_every!r} has no total: the recorder cannot know how long "
                "your loop will run. Pass LogSpaced(n, total=T), T the number of its steps."
            )
    elif (
        not isinstance(record_every, Integral)
        or isinstance(record_every, bool)
        or int(record_every) < 1
    ):
        raise InvalidParameterError(f"record_every={record_every!r} must be {_CADENCES}.")
