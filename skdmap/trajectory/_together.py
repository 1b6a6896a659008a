"""All runs of one call at once: what cannot be done so is refused, and the rest handed on."""

from collections.abc import Callable, Sequence
from contextlib import closing

from torch.optim.lr_scheduler import ReduceLROnPlateau

from skdmap._validation import InvalidParameterError
from skdmap.trajectory._build import build_optimizer
from skdmap.trajectory._plan import Plan, n_scheduler_steps
from skdmap.trajectory._run import Run, Snapshot
from skdmap.trajectory._schedulers import build_scheduler, check_length, step_scheduler
from skdmap.trajectory._stack import stack_runs
from skdmap.trajectory._task import Task
from skdmap.trajectory._vectorized import check_optimizer, load_optimizer, train_together

__all__ = ["record_together"]


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
