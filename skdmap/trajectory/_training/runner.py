"""All runs of one call, one after the other -> one table, whatever ends them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from skdmap._interrupt import deferred_interrupt
from skdmap._parameters import ParameterLayout
from skdmap._random import SeedStreams
from skdmap._warning import warn
from skdmap.exceptions import SkdmapWarning
from skdmap.trajectory._storage.table import SnapshotTable
from skdmap.trajectory._storage.writer import SnapshotWriter, open_writer
from skdmap.trajectory._training.checkpoint import restore_run, run_state
from skdmap.trajectory._training.config import Plan, Task, make_task, n_scheduler_steps
from skdmap.trajectory._training.factories import check_length
from skdmap.trajectory._training.loop import train
from skdmap.trajectory._training.module_io import (
    continue_optimizer,
    output_width,
    resolve_device,
    start_run,
)
from skdmap.trajectory._training.run_state import Run, Snapshot, pass_history
from skdmap.trajectory._training.targets import Targets, settle_classes
from skdmap.trajectory._training.vectorized import record_together


@dataclass(frozen=True)
class Recording:
    """What came of it.

    Attributes
    ----------
    table : SnapshotTable
        All rows kept, those of earlier calls among them.
    writer : SnapshotWriter or None
        To go on with in memory; None with a store, which is opened again.
    runs : list of Run
        Those that were begun; one that was ended before its first row is none.
    layout : ParameterLayout
        Of the parameters that make a row.
    interrupted : bool
        Whether Ctrl-C ended it.
    """

    table: SnapshotTable
    writer: SnapshotWriter | None
    runs: list[Run]
    layout: ParameterLayout
    interrupted: bool


def record_runs(runs: Iterable[Run], plan: Plan, writer: SnapshotWriter | None = None) -> Recording:
    """Train the runs and keep their snapshots.

    Parameters
    ----------
    runs : iterable of Run
        Taken one by one, so that a run is built when its turn comes.
    plan : Plan
        What each of them does.
    writer : SnapshotWriter or None, default=None
        What holds the rows of earlier calls, where they are in memory.

    Returns
    -------
    Recording
        All rows, or those before Ctrl-C.

    Raises
    ------
    KeyboardInterrupt
        At the second Ctrl-C; at the first, if nothing had been recorded yet.
    ValueError, OSError
        As ``open_writer`` and ``train`` raise them.

    Warns
    -----
    SkdmapWarning
        If Ctrl-C ended it.
    """
    # None means: on a terminal only.
    disable = None if plan.verbose else True
    total = plan.n_runs * plan.n_steps
    with deferred_interrupt() as stop, tqdm(total=total, unit="step", disable=disable) as bar:
        recorder = _Recorder(plan, writer, stop, bar)
        try:
            if plan.vectorize:
                recorder.record_together(list(runs))
            else:
                for run in runs:
                    recorder.record(run)
                    if stop():
                        break
            return recorder.recording()
        finally:
            recorder.close()


class _Recorder:
    """One call of :func:`record_runs`: what is kept so far, and of which runs."""

    def __init__(
        self, plan: Plan, writer: SnapshotWriter | None, stop: Callable[[], bool], bar: Any
    ) -> None:
        self.plan, self.writer, self.stop, self.bar = plan, writer, stop, bar
        self.begun: list[Run] = []
        self.over: set[int] = set()
        self.layout: ParameterLayout | None = None
        self.states: dict[int, dict[str, Any]] = {}
        self.modules: dict[int, dict[str, Any]] = {}
        self.n_new = 0

    def record(self, run: Run) -> None:
        """Train one run to its end and keep its rows."""
        task = self._begin(run)
        optimizer, scheduler = self._optimizer(run)
        state = self.states.get(run.index)
        if state is None:
            run.order = None  # a pass that an earlier call left is not gone on with
            check_length(scheduler, n_scheduler_steps(self.plan))
        else:
            self._restore(run, state, optimizer, scheduler)
            optimizer, scheduler = self._optimizer(run)
            self.bar.update(run.step)
        self.begun.append(run)
        if state is not None and state["is_over"]:
            self.over.add(run.index)
            return
        before = run.step
        with closing(train(run, optimizer, task, scheduler)) as snapshots:
            for snapshot in snapshots:
                if snapshot is not None:
                    self.keep(run, snapshot)
                if run.captured == run.step and self._state_is_due():
                    self._save_state()
                self.bar.update(run.step - before)
                before = run.step
        self._end(run, task)

    def record_together(self, runs: list[Run]) -> None:
        """Train all runs at once and keep their rows."""
        task = self._begin(runs[0])
        for run in runs:
            run.order = None
        self.begun = runs
        record_together(runs, task, self.plan, self.keep, self._is_interrupted)
        for run in runs:
            self._end(run, task)

    def keep(self, run: Run, snapshot: Snapshot) -> None:
        """Keep a row, or only its loss where it is the row that an earlier call ended with."""
        writer = self._opened_writer()
        self.n_new += 1
        if run.row_step == snapshot.step and 0 <= run.row < writer.n_rows:
            writer.set_loss(run.row, snapshot.loss)
            return
        run.row = writer.append(
            snapshot.theta,
            snapshot.buffers,
            run=run.index,
            step=snapshot.step,
            epoch=snapshot.epoch,
            loss=snapshot.loss,
            learning_rate=snapshot.learning_rate,
            path_length=snapshot.path_length,
        )
        run.row_step = snapshot.step

    def recording(self) -> Recording:
        """Return what came of it."""
        interrupted = self.stop()
        if interrupted:
            self._say_interrupted()
        writer = self._opened_writer()
        if self.layout is None:
            raise ValueError("runs is empty, must hold at least one Run. Raise n_runs.")
        writer.save_results(history=pass_history(self.begun), interrupted=interrupted)
        writer.close()
        in_memory = None if self.plan.store is not None else writer
        return Recording(writer.table(), in_memory, self.begun, self.layout, interrupted)

    def close(self) -> None:
        """Close the files, whatever has happened."""
        if self.writer is not None:
            self.writer.close()

    def _begin(self, run: Run) -> Task:
        # In memory no state is written, and not to ask for it is cheaper than to be told so.
        asks = {} if self.plan.store is None else {"state_is_due": self._state_is_due}
        task = make_task(run, self.plan, should_stop=self._is_interrupted, **asks)
        if self.layout is None:
            self.layout = task.layout
            if self.writer is None:
                self._open(run, task)
        return task

    def _open(self, run: Run, task: Task) -> None:
        plan = self.plan
        with_store = plan.store is not None
        self.writer = open_writer(
            task.layout if task.observe is None else len(task.observe(run.module)),
            sum(buffer.numel() for buffer in run.module.buffers()),
            dtype=plan.dtype,
            sketch_dim=plan.sketch_dim,
            store=plan.store,
            resume=plan.resume or (plan.goes_on and with_store),
            manifest=plan.settings,
            # One more than is asked for: runs that stand at different steps differ by one.
            n_expected=plan.n_runs * (len(task.record_at) + 1),
        )
        if not with_store or not (plan.resume or plan.goes_on):
            return
        saved = self.writer.load_state()
        if saved is not None and not plan.goes_on:
            self.states = {state["index"]: state for state in saved["runs"]}
            self.modules = self.writer.load_modules()

    def _restore(
        self, run: Run, state: dict[str, Any], optimizer: torch.optim.Optimizer, scheduler: Any
    ) -> None:
        restore_run(
            run,
            state,
            optimizer=type(optimizer),
            scheduler=None if scheduler is None else type(scheduler),
            module_state=self.modules.get(run.index),
        )

    def _optimizer(self, run: Run) -> tuple[torch.optim.Optimizer, Any]:
        plan = self.plan
        return continue_optimizer(
            run, plan.optimizer, plan.optimizer_params, plan.scheduler, plan.scheduler_params
        )

    def _end(self, run: Run, task: Task) -> None:
        writer = self._opened_writer()
        if run.step >= task.last_step or run.diverged or run.stopped:
            self.over.add(run.index)
            if self.plan.store is not None:
                writer.save_module(run.index, run.module.state_dict())
        self._save_state()

    def _save_state(self) -> None:
        if self.plan.store is not None:
            runs = [run_state(run, is_over=run.index in self.over) for run in self.begun]
            self._opened_writer().save_state({"runs": runs})

    def _opened_writer(self) -> SnapshotWriter:
        if self.writer is None:  # interrupted before the first run was there
            raise KeyboardInterrupt
        return self.writer

    def _say_interrupted(self) -> None:
        if self.n_new == 0 and not self.states:
            raise KeyboardInterrupt
        last = self.begun[-1]
        warn(
            f"Ctrl-C ended training after step {last.step} of run {last.index}. What was recorded "
            "is kept; warm_start=True goes on, or resume=True with the same store.",
            SkdmapWarning,
        )
        if last.recorded < 0 and not last.diverged:
            self.begun.pop()

    def _is_interrupted(self) -> bool:
        return self.stop()

    def _state_is_due(self) -> bool:
        return self.writer is not None and self.writer.state_is_due


def fresh_runs(
    example: np.ndarray,
    targets: Targets,
    criterion: Any,
    *,
    module: Any,
    module_params: Mapping[str, Any] | None,
    n_runs: int,
    device: Any,
    seeds: SeedStreams,
) -> tuple[Iterable[Run], Targets]:
    """Return runs at step 0, and the targets for them.

    Parameters
    ----------
    example : ndarray of shape (n, n_features, ...)
        Some rows of X.
    targets : Targets
        Labels in sorted order, or values.
    criterion : callable or None
        As built; None leaves the targets as they are.
    module, module_params, n_runs, device : object
        As the user gave them.
    seeds : SeedStreams
        Of all runs.

    Returns
    -------
    runs : iterable of Run
        Each is built when its turn comes.
    targets : Targets
        As ``settle_classes`` makes them, with the width of the first module.

    Raises
    ------
    ValueError
        If the module cannot be built, or y does not fit it.
    """
    # Without a module of the user's the labels decide on the width, not the width on them.
    if module is None:
        targets = settle_classes(targets, criterion, None)
    where = resolve_device(device)

    def one_by_one() -> Iterator[Run]:
        for index in range(n_runs):
            yield start_run(
                index,
                seeds,
                module,
                module_params,
                example=example,
                n_outputs=targets.n_outputs,
                device=where,
            )

    runs = one_by_one()
    if module is None or criterion is None:
        return runs, targets
    first = next(runs)
    width = output_width(first.module, example)
    if width:  # else the outputs are none that any target fits, which training says
        targets = settle_classes(targets, criterion, width)
    return chain([first], runs), targets
