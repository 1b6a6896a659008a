"""All runs of one call, one after the other or in a batch -> one table, whatever ends them."""

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from skdmap._interrupt import deferred_interrupt
from skdmap._parameters import ParameterLayout
from skdmap._progress import progress
from skdmap._warning import warn
from skdmap.exceptions import SkdmapWarning
from skdmap.trajectory._storage.table import SnapshotTable
from skdmap.trajectory._storage.writer import SnapshotWriter, open_writer
from skdmap.trajectory._training.checkpoint import restore_run, run_state
from skdmap.trajectory._training.config import RunTask, TrainingConfig, make_task
from skdmap.trajectory._training.factories import check_length, continue_optimizer
from skdmap.trajectory._training.loop import never, train
from skdmap.trajectory._training.run_state import Run, Snapshot, pass_history
from skdmap.trajectory._training.targets import Targets
from skdmap.trajectory._training.vectorized import train_vectorized


@dataclass(frozen=True)
class Recording:
    """The rows and runs of one call."""

    table: SnapshotTable  # all rows stored, those of earlier calls included
    writer: SnapshotWriter | None  # to append to in memory; None with a store, which is reopened
    runs: list[Run]  # those begun; a run that Ctrl-C ended before its first row is left out
    layout: ParameterLayout  # of the parameters that make a row
    interrupted: bool


def record_runs(
    runs: Iterable[Run],
    X: np.ndarray,
    targets: Targets,
    config: TrainingConfig,
    writer: SnapshotWriter | None = None,
    fitted: Any = None,
) -> Recording:
    """Train the runs, each taken when its turn comes, and store their rows.
    ``writer``: of the rows of earlier calls, where they are in memory. ``fitted``: the estimator.
    """
    bar = progress(
        config.n_runs * config.n_steps,
        "TrajectorySampler",
        unit="steps",
        verbose=bool(config.verbose),
        fitted=fitted,
    )
    with deferred_interrupt() as stop, bar:
        session = _Session(X, targets, config, writer, stop, bar)
        try:
            if config.vectorize:
                session.record_vectorized(list(runs))
            else:
                for run in runs:
                    session.record(run)
                    if stop():
                        break
            return session.recording()
        finally:
            session.close()


class _Session:
    """One call of :func:`record_runs`: the rows stored so far, and the runs they belong to."""

    def __init__(
        self,
        X: np.ndarray,
        targets: Targets,
        config: TrainingConfig,
        writer: SnapshotWriter | None,
        stop: Callable[[], bool],
        bar: Any,
    ) -> None:
        self.X, self.targets, self.config = X, targets, config
        self.writer, self.stop, self.bar = writer, stop, bar
        self.begun: list[Run] = []
        self.over: set[int] = set()
        self.layout: ParameterLayout | None = None
        self.states: dict[int, dict[str, Any]] = {}  # of the runs of a resumed store
        self.modules: dict[int, dict[str, Any]] = {}
        self.n_new = 0

    def record(self, run: Run) -> None:
        """Train one run to its end and store its rows."""
        task = self._begin(run)
        optimizer, scheduler = self._optimizer(run)
        state = self.states.get(run.index)
        if state is None:
            run.order = None  # a pass that an earlier call left is not continued
            check_length(scheduler, self.config.n_scheduler_steps(len(self.X)))
        else:
            self._restore(run, state, optimizer, scheduler)
            optimizer, scheduler = self._optimizer(run)
            self.bar.update(run.step)
        self.begun.append(run)
        if state is not None and state["is_over"]:
            self.over.add(run.index)
            return
        before = run.step
        # In memory no state is saved, and not to ask for it is faster.
        due = never if self.config.store is None else self._state_is_due
        steps = train(
            run, task, self.config, optimizer, scheduler, should_stop=self.stop, state_is_due=due
        )
        with closing(steps) as snapshots:
            for snapshot in snapshots:
                if snapshot is not None:
                    self.append(run, snapshot)
                if run.captured == run.step and self._state_is_due():
                    self._save_state()
                self.bar.update(run.step - before)
                before = run.step
        self._end(run, task)

    def record_vectorized(self, runs: list[Run]) -> None:
        """Train all runs in a batch and store their rows."""
        task = self._begin(runs[0])
        self.begun = runs
        with closing(train_vectorized(runs, task, self.config)) as snapshots:
            step, before = -1, {run.index: run.step for run in runs}
            for run, snapshot in snapshots:
                if self.stop() and snapshot.step != step and step >= 0:
                    break
                step = snapshot.step
                self.bar.update(step - before[run.index])
                before[run.index] = step
                self.append(run, snapshot)
        for run in runs:
            self._end(run, task)

    def append(self, run: Run, snapshot: Snapshot) -> None:
        """Store a row, or only its loss where it is the row that an earlier call ended with."""
        writer = self._open_writer()
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
        """Close the writer and return what was recorded."""
        interrupted = self.stop()
        if interrupted:
            self._warn_interrupted()
        writer = self._open_writer()
        if self.layout is None:
            raise ValueError("runs is empty; it must contain at least one Run. Raise n_runs.")
        writer.save_results(history=pass_history(self.begun), interrupted=interrupted)
        writer.close()
        in_memory = None if self.config.store is not None else writer
        return Recording(writer.table(), in_memory, self.begun, self.layout, interrupted)

    def close(self) -> None:
        """Close the files, whatever has happened."""
        if self.writer is not None:
            self.writer.close()

    def _begin(self, run: Run) -> RunTask:
        task = make_task(run, self.X, self.targets, self.config)
        if self.layout is None:
            self.layout = task.layout
            if self.writer is None:
                self._open(run, task)
        return task

    def _open(self, run: Run, task: RunTask) -> None:
        """Open the writer, and load the states of the runs of a resumed store."""
        config = self.config
        with_store = config.store is not None
        self.writer = open_writer(
            task.layout if task.observe is None else len(task.observe(run.module)),
            sum(buffer.numel() for buffer in run.module.buffers()),
            dtype=config.dtype,
            sketch_dim=config.sketch_dim,
            store=config.store,
            resume=config.resume or (config.is_continued and with_store),
            manifest=config.manifest,
            # One more than is asked for: runs that stand at different steps differ by one.
            n_expected=config.n_runs * (len(task.record_at) + 1),
        )
        if not with_store or not (config.resume or config.is_continued):
            return
        saved = self.writer.load_state()
        if saved is not None and not config.is_continued:
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
        config = self.config
        return continue_optimizer(
            run,
            config.optimizer,
            config.optimizer_params,
            config.scheduler,
            config.scheduler_params,
        )

    def _end(self, run: Run, task: RunTask) -> None:
        if run.step >= task.last_step or run.diverged or run.stopped:
            self.over.add(run.index)
            if self.config.store is not None:
                self._open_writer().save_module(run.index, run.module.state_dict())
        self._save_state()

    def _save_state(self) -> None:
        if self.config.store is not None:
            runs = [run_state(run, is_over=run.index in self.over) for run in self.begun]
            self._open_writer().save_state({"runs": runs})

    def _open_writer(self) -> SnapshotWriter:
        if self.writer is None:  # interrupted before the first run was built
            raise KeyboardInterrupt
        return self.writer

    def _warn_interrupted(self) -> None:
        if self.n_new == 0 and not self.states:
            raise KeyboardInterrupt
        last = self.begun[-1]
        warn(
            f"Ctrl-C ended training after step {last.step} of run {last.index}. The recorded rows "
            "are kept. warm_start=True continues training, as does resume=True with the same "
            "store.",
            SkdmapWarning,
        )
        if last.recorded < 0 and not last.diverged:
            self.begun.pop()

    def _state_is_due(self) -> bool:
        return self.writer is not None and self.writer.state_is_due
