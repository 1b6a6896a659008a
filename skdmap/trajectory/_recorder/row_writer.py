"""Steps of a loop that is not ours -> rows in a writer, each with the loss that belongs to it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from skdmap._parameters import parameter_layout
from skdmap._warning import warn
from skdmap.exceptions import DivergenceWarning, SkdmapWarning
from skdmap.trajectory._cadence import Displacement, due_by_step
from skdmap.trajectory._recorder.distributed import check_whole
from skdmap.trajectory._recorder.parameter_path import ParameterPath
from skdmap.trajectory._storage.manifest import setting
from skdmap.trajectory._storage.table import SnapshotTable
from skdmap.trajectory._storage.writer import make_coder, open_writer
from skdmap.trajectory._training.module_state import flatten_buffers
from skdmap.trajectory._training.observables import check_record, observer

# A hook sees steps, no passes over the data.
_NO_EPOCH = -1
_NONE = np.empty(0)
# Bytes of memory to set aside for rows: a loop does not tell how long it will be, pages that are
# never written cost nothing, and to move rows to a larger place costs as much as to write them.
_SET_ASIDE = 2**30


@dataclass(frozen=True)
class RecorderSettings:
    """What is recorded, when, and where it goes; as in ``TrajectoryRecorder``.

    Attributes
    ----------
    record_every, record, parameters, store : object
        As given.
    burn_in : int
        As given.
    sketch_dim : int or None
        As given.
    dtype : str
        Its name.
    """

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
        check_record(self.record)
        make_coder(layout, self.dtype, self.sketch_dim, 0)

    @property
    def manifest(self) -> dict[str, Any]:
        """What a resumed recording must share."""
        names = ("record_every", "burn_in", "record", "parameters")
        return {"recorder": True, **{name: setting(getattr(self, name)) for name in names}}


@dataclass(frozen=True)
class _Row:
    """A row that waits for its loss, which only the next step tells."""

    theta: np.ndarray
    buffers: np.ndarray
    step: int
    learning_rate: Any
    path_length: float


class RowWriter:
    """Counts steps, decides which become rows, and gives the writer each row with its loss.

    Parameters
    ----------
    module : torch.nn.Module
        Read only.
    settings : RecorderSettings
        What to do.
    first_step : int
        Number of the step that the module stands at.

    Attributes
    ----------
    step : int
        Steps counted.
    layout : ParameterLayout
        Of the parameters that are followed.
    """

    def __init__(self, module: nn.Module, settings: RecorderSettings, first_step: int) -> None:
        self._module, self._settings, self.step = module, settings, first_step
        every = settings.record_every
        self._displacement = every if isinstance(every, Displacement) else None
        keeps_mark = self._displacement is not None and self._displacement.along == "line"
        self._path = ParameterPath(module, settings.parameters, keeps_mark=keeps_mark)
        self.layout = self._path.layout
        self._observe = observer(check_record(settings.record))
        self._due: Callable[[int], bool] = due_by_step(settings.record_every)
        # To look for buffers where there are none costs a walk through the module at each row.
        self._has_buffers = any(True for _ in module.buffers())
        self._writer: Any = None
        self._pending: _Row | None = None
        self._kept_row: int | None = None
        self._last_step = -1
        self._way_is_known = True  # from the last row to here
        self._warned = False
        self._rate: Any = None
        self._here: _Row | None = self._read(math.nan, None)

    def check_in_place(self) -> None:
        """Raise where the module was changed since the last step that was counted."""
        before = self._path.theta.clone()
        self._path.restart()
        if not torch.allclose(before, self._path.theta, rtol=0, atol=0, equal_nan=True):
            raise ValueError(
                f"module was changed since the recording of step {self.step}, so that its rows "
                "would be no path any more. Use a new TrajectoryRecorder for what comes now."
            )

    def open(self, *, store: Any, resume: bool) -> None:
        """Open the writer and take the row to start from, if it is to be one."""
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
                n_expected=max(16, _SET_ASIDE // self._here.theta.nbytes),
            )
        try:
            self._take_up()
        except BaseException:
            self._writer.close()
            raise
        self._here = None

    def open_empty(self) -> None:
        """Open a writer that gets no rows: another process writes them."""
        width = self.layout if self._observe is None else len(self._observe(self._module))
        self._writer = open_writer(
            width, dtype=self._settings.dtype, sketch_dim=self._settings.sketch_dim
        )

    def follow(self, loss: Any, learning_rate: Any) -> None:
        """Take note of a step: the row before it gets its loss, the one after it may be kept."""
        self._settle(loss, learning_rate)
        self._path.follow()
        self.step += 1
        if self._is_due():
            self._take_row(learning_rate)
        self._rate = learning_rate

    def finish(self, learning_rate: Any, *, interrupted: bool, history: Any) -> None:
        """Keep the last step, and close; the loss of the last row is known to nobody."""
        rate = learning_rate if self._rate is None else self._rate
        try:
            if self.step != self._last_step and self.step >= self._settings.burn_in:
                self._take_row(rate)
            self._settle(None, learning_rate)
            if self._writer.n_rows and self._last_step == self.step:
                self._kept_row = self._writer.n_rows - 1
            if not interrupted:
                state = self._module.state_dict()
                tensors = {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}
                self._writer.save_module(0, tensors)
            self._writer.save_results(history=history, interrupted=interrupted)
        finally:
            self._writer.close()

    def table(self) -> SnapshotTable:
        """Return the rows kept."""
        return self._writer.table()

    def _take_up(self) -> None:
        """Go on after the rows that are there, and drop those after the step to begin at."""
        table = self._writer.table()
        n_kept = int(np.searchsorted(table.steps, self.step, side="right"))
        last = int(table.steps[n_kept - 1]) if n_kept else -1
        if last == self.step:
            self._check_same_row(table, n_kept - 1)
        elif n_kept:
            self._measure_from(table, n_kept - 1)
            self._warn_missing(last)
        self._writer.truncate(n_kept)
        if n_kept:
            self._last_step = last
        if last == self.step:
            self._kept_row = n_kept - 1
        elif self._is_due():
            self._take_row(None)

    def _check_same_row(self, table: SnapshotTable, row: int) -> None:
        if self._here is None or not self._keeps_rows_whole:
            return
        kept = np.asarray(table.snapshots[row])
        if not np.array_equal(kept, self._here.theta.astype(kept.dtype)):
            raise ValueError(
                f"first_step={self.step}: the module is not where row {row} of the store, the row "
                "of that step, has it. Load the checkpoint of that step before, or give the step "
                "that the loaded one was saved at."
            )

    def _measure_from(self, table: SnapshotTable, row: int) -> None:
        if self._observe is None and self._settings.sketch_dim is None:
            self._path.put_mark(torch.tensor(np.asarray(table.snapshots[row])))
        else:
            self._way_is_known = False

    @property
    def _keeps_rows_whole(self) -> bool:
        return self._settings.sketch_dim is None and self._settings.dtype != "float16"

    def _warn_missing(self, last: int) -> None:
        wanted = range(max(last + 1, self._settings.burn_in), self.step)
        missing = [step for step in wanted if self._due(step)]
        if missing:
            warn(
                f"first_step={self.step}: the store ends at step {last}, so that {len(missing)} "
                f"rows are missing, the first of step {missing[0]}. Resume from a checkpoint at or "
                f"before step {last} to have them.",
                SkdmapWarning,
            )

    def _is_due(self) -> bool:
        if self.step < self._settings.burn_in or self.step == self._last_step:
            return False
        if self._displacement is None:
            return self._due(self.step)
        if self._last_step < 0:
            return True
        distance, length = self._path.distance, self._path.length
        # What is not finite is said when it is to become a row; and a path that has led through it
        # would never reach anything.
        is_lost = math.isnan(distance if self._displacement.along == "line" else length)
        return is_lost or self._displacement.is_reached(distance=distance, path=length)

    def _take_row(self, learning_rate: Any) -> None:
        is_known = self._last_step >= 0 and self._way_is_known
        length = self._path.length if is_known else math.nan
        row = self._here if self._here is not None else self._read(length, learning_rate)
        if not _is_finite(row.theta):
            self._warn_diverged()
            return
        self._pending, self._last_step = row, self.step
        self._way_is_known = True
        self._path.mark()

    def _read(self, path_length: float, learning_rate: Any) -> _Row:
        values = self._path.theta if self._observe is None else self._observe(self._module)
        # The path moves on after the row is kept; what a callable returns may be the parameters
        # themselves, which the next step changes before that.
        copy = self._observe is not None
        dtype = torch.float64 if self._settings.dtype == "float64" else torch.float32
        theta = values.to("cpu", dtype, copy=copy).numpy()
        buffers = flatten_buffers(self._module).numpy() if self._has_buffers else _NONE
        return _Row(theta, buffers, self.step, learning_rate, path_length)

    def _settle(self, loss: Any, next_rate: Any) -> None:
        value = math.nan if loss is None else float(loss)
        row, self._pending = self._pending, None
        kept, self._kept_row = self._kept_row, None
        if row is not None:
            rate = next_rate if row.learning_rate is None else row.learning_rate
            self._writer.append(
                row.theta, row.buffers, step=row.step, epoch=_NO_EPOCH, loss=value,
                learning_rate=float(rate), path_length=row.path_length,
            )  # fmt: skip
            if self._writer.state_is_due or self._writer.n_rows == 1:
                # Without it a kill would lose the full first row that a sketch is measured from.
                self._writer.save_state({"step": row.step})
        elif kept is not None and not math.isnan(value):
            self._writer.set_loss(kept, value)

    def _warn_diverged(self) -> None:
        if not self._warned:
            self._warned = True
            warn(
                f"Training diverged: the row of step {self.step} is not finite. Rows that are not "
                "are left out. Lower the learning rate, or clip the gradients.",
                DivergenceWarning,
            )


def _is_finite(theta: np.ndarray) -> bool:
    # A sum is one pass without a temporary; torch's, because numpy warns when it overflows.
    values = torch.from_numpy(theta)
    return math.isfinite(values.sum().item()) or bool(torch.isfinite(values).all())
