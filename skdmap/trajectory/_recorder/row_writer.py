"""Which steps of a recorded loop become rows, and the metadata of each row."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from skdmap._parameters import check_real, parameter_layout
from skdmap._warning import warn
from skdmap.exceptions import DivergenceWarning, SkdmapWarning
from skdmap.trajectory._cadence import (
    Displacement,
    RowTimer,
    WallClock,
    due_by_step,
    explicit_steps,
)
from skdmap.trajectory._recorder.distributed import check_whole
from skdmap.trajectory._recorder.parameter_path import ParameterPath
from skdmap.trajectory._recorder.resume_check import StepPrints, is_off_path, is_row
from skdmap.trajectory._storage.manifest import setting
from skdmap.trajectory._storage.table import SnapshotTable, counted
from skdmap.trajectory._storage.writer import make_coder, open_writer
from skdmap.trajectory._training.module_state import flatten_buffers
from skdmap.trajectory._training.observables import check_record, observer

_NO_EPOCH = -1  # a hook sees steps, not epochs
_NO_BUFFERS = np.empty(0)
# Bytes reserved for rows in memory. The length of the loop is not known, pages that are never
# written cost nothing, and moving rows to a larger array costs as much as writing them.
_RESERVED = 2**30


@dataclass(frozen=True)
class RecorderSettings:
    """What is recorded, when, and where it goes; as in ``TrajectoryRecorder``."""

    record_every: Any
    burn_in: int
    record: Any
    parameters: Any
    sketch_dim: int | None
    store: Any
    dtype: str

    def check(self, module: nn.Module) -> None:
        """Raise where a setting is out of range or does not fit the module."""
        check_whole(module)
        layout = parameter_layout(module, self.parameters)
        check_real(module, layout.names)
        check_record(self.record)
        make_coder(layout, self.dtype, self.sketch_dim, 0)

    @property
    def manifest(self) -> dict[str, Any]:
        """Settings that a resumed recording must share."""
        names = ("record_every", "burn_in", "record", "parameters")
        return {"recorder": True, **{name: setting(getattr(self, name)) for name in names}}


@dataclass(frozen=True)
class _Row:
    """A row whose loss is not known before the next step."""

    theta: np.ndarray
    buffers: np.ndarray
    step: int
    learning_rate: Any
    path_length: float


@dataclass(frozen=True)
class PathState:
    """What a trainer keeps in its checkpoint, so that a resumed path is as it would have been."""

    step: int
    row: int  # the step of the last row, -1 if there was no row
    length: float  # of the path from there
    learning_rate: float  # of the last step


class RowWriter:
    """Count steps, decide which become rows, and write each row with its loss.
    ``step`` is the number of steps counted, ``layout`` that of the parameters followed.
    """

    def __init__(self, module: nn.Module, settings: RecorderSettings, first_step: int) -> None:
        self._module, self._settings, self.step = module, settings, first_step
        every = settings.record_every
        self._displacement = every if isinstance(every, Displacement) else None
        keeps_mark = self._displacement is not None and self._displacement.along == "line"
        self._path = ParameterPath(module, settings.parameters, keeps_mark=keeps_mark)
        self.layout = self._path.layout
        self._observe = observer(check_record(settings.record))
        self._due: Callable[[int], bool] = due_by_step(every)
        self._timer = RowTimer(every)
        # Looking for buffers walks through the module, at each row.
        self._has_buffers = any(True for _ in module.buffers())
        self._writer: Any = None
        self._pending: _Row | None = None
        self._last_row: int | None = None  # of the present step, written without its loss
        self._previous_row: int | None = None  # of the previous step, if that was recorded
        self._last_step = self._step_before = -1  # of the last row, and of the one before it
        self._length_is_known = True  # of the path from the last row to here
        self._has_warned = False
        self._rate: Any = None
        self._here: _Row | None = self._read(math.nan, None)
        self._prints = StepPrints(self.layout.n_parameters)
        self.resumed: PathState | None = None  # of a trainer's checkpoint
        self.trainer_call: str | None = None  # that loads one; None in a loop of the user's own

    def check_in_place(self) -> None:
        """Raise where the module was changed since the last step that was counted."""
        before = self._path.theta.clone()
        self._path.restart()
        if not torch.allclose(before, self._path.theta, rtol=0, atol=0, equal_nan=True):
            raise ValueError(
                f"module was changed since the recording of step {self.step}: its rows would not "
                "be one path. Use a new TrajectoryRecorder for the steps to come."
            )

    def open(self, *, store: Any, resume: bool) -> None:
        """Open the writer, and take the first row if it is due."""
        self._timer.restart()
        if self._writer is None or store is not None:
            if self._here is None:
                self._here = self._read(math.nan, None)
            self._writer = open_writer(
                self.layout if self._observe is None else len(self._here.theta),
                len(self._here.buffers),
                dtype=self._settings.dtype,
                sketch_dim=self._settings.sketch_dim,
                store=store,
                resume=resume,
                manifest=self._settings.manifest,
                n_expected=max(16, _RESERVED // self._here.theta.nbytes),
                to_continue=f"{self._to_continue} (later rows are dropped)",
            )
        try:
            self._resume(warns=resume)
        except BaseException:
            self._writer.close()
            raise
        self._here = None

    def open_empty(self) -> None:
        """Open a writer that gets no rows, because another process writes them."""
        width = self.layout if self._observe is None else len(self._observe(self._module))
        self._writer = open_writer(
            width, dtype=self._settings.dtype, sketch_dim=self._settings.sketch_dim
        )

    def follow(
        self, loss: Any, learning_rate: Any, *, late_loss: Any = None, always: bool = False
    ) -> None:
        """Count a step: the row before it gets its loss, and the row after it is taken if due.
        ``late_loss`` belongs to the row before the previous step; ``always`` takes a row anyway.
        """
        self.set_late_loss(late_loss)
        self._write_pending(loss, learning_rate)
        self._path.follow()
        self.step += 1
        if (always and self.step >= self._settings.burn_in) or self._is_due():
            self._take_row(learning_rate)
        if self._last_step != self.step and self._settings.store is not None:
            self._note_step()
        self._rate = learning_rate

    def follow_again(self, *, always: bool) -> None:
        """Let the last step end at the parameters as they are now; its row becomes theirs."""
        length = self._path.follow_again()
        taken, self._pending = self._pending, None
        if taken is None:
            if (always and self.step >= self._settings.burn_in) or self._is_due():
                self._take_row(self._rate)
            elif self._settings.store is not None:
                self._note_step()
            return
        length = math.nan if math.isnan(taken.path_length) else length
        row = self._read(length, taken.learning_rate)
        self._path.mark()
        if _is_finite(row.theta):
            self._pending = row
        else:
            self._last_step, self._length_is_known = self._step_before, False
            self._warn_diverged()

    def _note_step(self) -> None:
        length = self._path.lazy_length if self._length_is_known else math.nan
        self._prints.add(self.step, self._path.theta, self._last_step, length)

    def path_state(self) -> PathState:
        """Return what a resumed recording needs to know of the path from the last row."""
        length = self._path.length if self._length_is_known else math.nan
        rate = math.nan if self._rate is None else float(self._rate)
        return PathState(self.step, self._last_step, length, rate)

    def set_late_loss(self, loss: Any) -> None:
        """Give the row of the previous step a loss that was logged after the last step."""
        if loss is not None and self._previous_row is not None:
            self._writer.set_loss(self._previous_row, float(loss))

    def has_moved(self) -> bool:
        """Return whether the parameters are others than after the last step."""
        return self._path.has_moved()

    def finish(
        self, learning_rate: Any, *, interrupted: bool, history: Any, late_loss: Any = None
    ) -> None:
        """Take a row at the last step, which has no loss, and close the writer."""
        rate = learning_rate if self._rate is None else self._rate
        try:
            self.set_late_loss(late_loss)
            if self.step != self._last_step and self.step >= self._settings.burn_in:
                self._take_row(rate)
            self._write_pending(None, learning_rate)
            if self._writer.n_rows and self._last_step == self.step:
                self._last_row = self._writer.n_rows - 1
            if not interrupted:
                state = self._module.state_dict()
                tensors = {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}
                self._writer.save_module(0, tensors)
            if self._settings.store is not None and (prints := self._prints.state())["steps"]:
                self._writer.save_state({"step": self.step, **prints})
            self._writer.save_results(history=history, interrupted=interrupted)
        finally:
            self._writer.close()

    def table(self) -> SnapshotTable:
        """Return the rows written so far."""
        return self._writer.table()

    def _resume(self, *, warns: bool) -> None:
        """Continue after the stored rows, and drop those after the present step."""
        table = self._writer.table()
        n_kept = int(np.searchsorted(table.steps, self.step, side="right"))
        last = int(table.steps[n_kept - 1]) if n_kept else -1
        saved = self._writer.saved_state()
        if self._here is not None:
            self._prints.restore(saved or {}, last=self.step)
            self._check_place(table, n_kept - 1, last)
        if warns:
            self._warn_of_start(table.steps)
        before = int(table.steps[n_kept - 2]) if n_kept > 1 else -1
        state, self.resumed = self.resumed, None
        if state is not None and last == self.step == state.step and before == state.row:
            # The last row of a run that goes on now: it was not due.
            n_kept, last = n_kept - 1, before
        if n_kept and last != self.step:
            self._measure_from(table, n_kept - 1)
            length = self._prints.length(self.step, last)
            if length is not None:
                self._path.set_length(length)
                self._length_is_known = True
            elif self._missing(last):
                self._length_is_known = False
        if state is not None and last == state.row and state.step == self.step:
            self._path.set_length(state.length)
            self._length_is_known = not math.isnan(state.length)
        self._writer.truncate(n_kept, {"step": self.step, **self._prints.state()})
        if n_kept:
            self._last_step = last
        if last == self.step:
            self._last_row = n_kept - 1
            if self._here is not None:  # it was compared with that row
                self._writer.restore_last(self._here.theta)
        elif self._is_due():
            rate = None if state is None or state.step != self.step else state.learning_rate
            self._take_row(None if rate is None or math.isnan(rate) else rate)

    def _check_place(self, table: SnapshotTable, row: int, last: int) -> None:
        """Raise where the module does not stand at the step to resume from, before any change."""
        if self._here is None:
            return
        if last == self.step:
            layout = self.layout if self._observe is None else len(self._here.theta)
            if not is_row(self._here.theta, table, row, layout, self._settings.sketch_dim):
                raise self._place_error(f"differ from those stored for step {last} (row {row})")
            return
        matches = self._prints.matches(self.step, self._path.theta)
        is_vector = self._observe is None and self._settings.sketch_dim is None
        if matches is False:
            raise self._place_error("are not those that the recorded run had at that step")
        if row < 0:
            return
        if matches is None and is_vector and is_off_path(self._here.theta, table, row):
            after = int(table.steps[row + 1])
            raise self._place_error(f"are not on the path from step {last} to step {after}")
        if not self._warn_missing(last, is_checked=matches is not None) and matches is None:
            warn(
                f"first_step={self.step} is not a row of the store, and what the parameters were "
                "at that step is not known: it could not be checked that the loaded checkpoint is "
                f"that of step {self.step}. Resume from a step that is a row to have it checked.",
                SkdmapWarning,
            )

    @property
    def _to_continue(self) -> str:
        if self.trainer_call is not None:
            return f"call {self.trainer_call}"
        return "load your checkpoint and pass resume=True, first_step=its step"

    def _warn_of_start(self, steps: np.ndarray) -> None:
        """Warn where a resumed recording begins anew, or lacks its beginning, before any change."""
        first = self._settings.burn_in
        store = f"store={str(self._settings.store)!r}"
        n_dropped = int((steps > self.step).sum())
        if self.step == 0 and n_dropped:
            are = "is" if n_dropped == 1 else "are"
            warn(
                f"{store}: {counted(n_dropped, 'row')} after step 0 {are} dropped: recording "
                f"begins at step 0. To continue instead, {self._to_continue}. To keep them, use "
                "another folder.",
                SkdmapWarning,
            )
        explicit = explicit_steps(self._settings.record_every) or ()
        kept = set(steps[steps <= self.step].tolist())
        gone = [step for step in explicit if first <= step < max(kept, default=0)]
        gone = [step for step in gone if step not in kept]
        if gone:
            are = "is" if len(gone) == 1 else "are"
            warn(
                f"{store}: {counted(len(gone), 'row')} of record_every {are} missing, the first at "
                f"step {gone[0]}; recording continues at step {self.step}. Resume from a "
                f"checkpoint at or before step {gone[0]} to record them.",
                SkdmapWarning,
            )
        if not len(steps) and self.step > first:
            by_step = not isinstance(self._settings.record_every, (Displacement, WallClock))
            if not by_step or any(self._due(step) for step in range(first, self.step)):
                warn(
                    f"{store} holds no rows: rows begin at step {self.step}. If this is not what "
                    "you want, pass the folder of the recording to continue.",
                    SkdmapWarning,
                )

    def _place_error(self, what: str) -> ValueError:
        if self.trainer_call is not None and self.step == 0:
            return ValueError(
                "the trainer loaded no checkpoint, and its module is not that of the run in "
                f"store={str(self._settings.store)!r}: the parameters {what}. To continue that "
                f"run, call {self.trainer_call}; for a new one, use another store."
            )
        if self.trainer_call is not None:
            return ValueError(
                f"the trainer's checkpoint of step {self.step} is not from the run in "
                f"store={str(self._settings.store)!r}: the parameters of the module {what}. Resume "
                "that run's checkpoint, or use another store."
            )
        return ValueError(
            f"first_step={self.step}: the parameters of the module {what}. Load the checkpoint of "
            "that step first, or pass the step at which the loaded one was saved. Where a trainer "
            "loads it, use HuggingFaceCallback or LightningCallback of skdmap.integrations."
        )

    def _measure_from(self, table: SnapshotTable, row: int) -> None:
        if self._observe is None and self._settings.sketch_dim is None:
            self._path.put_mark(torch.tensor(np.asarray(table.snapshots[row])))
        else:
            self._length_is_known = False

    def _warn_missing(self, last: int, *, is_checked: bool) -> bool:
        """Warn of rows between the last one and the step to resume from, and say if there are."""
        missing = self._missing(last)
        if missing:
            are = "is" if len(missing) == 1 else "are"
            unchecked = (
                "The path to it is unknown (nan in path_lengths_), and it could not be checked "
                f"that the module is that of step {self.step}. "
            )
            warn(
                f"first_step={self.step}: the store ends at step {last}. "
                f"{counted(len(missing), 'row')} {are} missing, the first at step {missing[0]}. "
                f"{'' if is_checked else unchecked}Resume from a checkpoint at or before "
                f"step {last} to record them.",
                SkdmapWarning,
            )
        return bool(missing)

    def _missing(self, last: int) -> list[int]:
        """Return the steps after the last row, before the present step, that should be rows."""
        skipped = range(max(last + 1, self._settings.burn_in), self.step)
        return [step for step in skipped if self._due(step)]

    def _is_due(self) -> bool:
        if self.step < self._settings.burn_in or self.step == self._last_step:
            return False
        if isinstance(self._settings.record_every, WallClock):
            return self._last_step < 0 or self._timer.is_due
        if self._displacement is None:
            return self._due(self.step)
        if self._last_step < 0:
            return True
        distance, length = self._path.distance, self._path.length
        # A row that is not finite is due so that it is warned of, and so that the path starts anew:
        # nan would never reach ``delta``.
        is_nan = math.isnan(distance if self._displacement.along == "line" else length)
        return is_nan or self._displacement.is_reached(distance=distance, path=length)

    def _take_row(self, learning_rate: Any) -> None:
        self._timer.restart()
        is_known = self._last_step >= 0 and self._length_is_known
        length = self._path.length if is_known else math.nan
        if self._here is None:
            row = self._read(length, learning_rate)
        else:
            row = replace(self._here, learning_rate=learning_rate, path_length=length)
        if not _is_finite(row.theta):
            self._warn_diverged()
            return
        self._pending, self._step_before, self._last_step = row, self._last_step, self.step
        self._length_is_known = True
        self._path.mark()

    def _read(self, path_length: float, learning_rate: Any) -> _Row:
        values = self._path.theta if self._observe is None else self._observe(self._module)
        # The row is written at the next step. Until then the path does not change, but what a
        # callable returned may be the parameters themselves.
        copy = self._observe is not None
        dtype = torch.float64 if self._settings.dtype == "float64" else torch.float32
        theta = values.to("cpu", dtype, copy=copy).numpy()
        buffers = flatten_buffers(self._module).numpy() if self._has_buffers else _NO_BUFFERS
        return _Row(theta, buffers, self.step, learning_rate, path_length)

    def _write_pending(self, loss: Any, next_rate: Any) -> None:
        value = math.nan if loss is None else float(loss)
        row, self._pending = self._pending, None
        kept, self._last_row = self._last_row, None
        self._previous_row = kept
        if row is not None:
            rate = next_rate if row.learning_rate is None else row.learning_rate
            self._writer.append(
                row.theta, row.buffers, step=row.step, epoch=_NO_EPOCH, loss=value,
                learning_rate=float(rate), path_length=row.path_length,
            )  # fmt: skip
            self._previous_row = self._writer.n_rows - 1
            if self._writer.state_is_due or self._writer.n_rows == 1:
                # The first state holds the full first row, which sketches are measured from.
                self._writer.save_state({"step": row.step, **self._prints.state()})
        elif kept is not None and not math.isnan(value):
            self._writer.set_loss(kept, value)

    def _warn_diverged(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            warn(
                f"Training diverged: the row of step {self.step} is not finite. Such rows are left "
                "out. Lower the learning rate, or clip the gradients.",
                DivergenceWarning,
            )


def _is_finite(theta: np.ndarray) -> bool:
    # A sum is one pass without a temporary array; numpy's would warn when it overflows.
    values = torch.from_numpy(theta)
    return math.isfinite(values.sum().item()) or bool(torch.isfinite(values).all())
