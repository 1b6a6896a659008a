"""Progress of long work: a bar in terminals and notebooks, lines in logs."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

_SECONDS_BETWEEN_LINES = 10.0
# scikit-learn keeps a record of each task of a fit.
_MOST_TASKS = 1000


def progress(
    total: int | None,
    description: str,
    *,
    verbose: bool | None = True,
    unit: str = "it",
    delay: float = 0.0,
    fitted: Any = None,
) -> Any:
    """Return a tqdm bar in terminals and notebooks, and an object that writes lines in logs.
    ``verbose=False`` shows nothing; None shows a bar that goes away at the end, but no lines.
    """
    # Each unit is a task for scikit-learn's callbacks of the estimator that is ``fitted``.
    bar = _bar(total, description, verbose, unit, delay)
    return _WithTasks(bar, fitted, total, unit) if _has_callbacks(fitted) else bar


def _bar(total: int | None, description: str, verbose: bool | None, unit: str, delay: float) -> Any:
    if verbose is False or (verbose is None and not _has_bar()):
        return _Nothing()
    if _has_bar():
        from tqdm.auto import tqdm

        leave = verbose is True
        return tqdm(total=total, desc=description, unit=unit, leave=leave, delay=delay)
    return _Lines(total, description, unit)


@contextmanager
def stages(total: int, fitted: Any) -> Iterator[Callable[[str], None]]:
    """Yield a function to call with the name of each of ``total`` stages before it begins.
    Each is a task of the estimator that is ``fitted``, for its callbacks of scikit-learn.
    """
    description, verbose = type(fitted).__name__, bool(fitted.verbose)
    tasks = _Tasks(fitted, total) if _has_callbacks(fitted) else None
    with progress(total, description, verbose=verbose, unit="stages") as bar:
        names: list[str] = []

        def begin(name: str) -> None:
            if name not in names:  # a stage may be done twice
                bar.update(min(1, len(names)))
                names.append(name)
                if tasks is not None:
                    tasks.begin(name)
            bar.set_postfix_str(name)

        yield begin
        bar.update()
    if tasks is not None:
        tasks.close()


def _has_bar() -> bool:
    """Whether stderr is a terminal or this process a notebook's. Imports tqdm only then."""
    if sys.stderr.isatty():
        return True
    if "ipykernel" not in sys.modules:
        return False
    from tqdm.autonotebook import tqdm as notebook_or_text
    from tqdm.std import tqdm as text

    return notebook_or_text is not text


class _Nothing:
    """The part of the interface of a tqdm bar that is used here, without effect."""

    def update(self, n: int = 1) -> None:
        pass

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        pass

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self.close()


def _has_callbacks(fitted: Any) -> bool:
    return bool(getattr(fitted, "_skl_callbacks", None))


class _Tasks:
    """The tasks of a fit, one after the other, that scikit-learn's callbacks are told of."""

    def __init__(self, fitted: Any, total: int | None) -> None:
        self.fitted = fitted
        self.task: Any = None
        self.root = fitted._init_callback_context(max_subtasks=total)
        self.root.call_on_fit_task_begin(estimator=fitted)

    def begin(self, name: str) -> None:
        """End the task before, and begin one of this name."""
        self.end()
        self.task = self.root.subcontext(task_name=name)
        self.task.call_on_fit_task_begin(estimator=self.fitted)

    def end(self) -> None:
        if self.task is not None:
            self.task.call_on_fit_task_end(estimator=self.fitted)
            self.task = None

    def close(self) -> None:
        """End the last task and the fit; not where an error ended it."""
        self.end()
        self.root.call_on_fit_task_end(estimator=self.fitted)


class _WithTasks(_Nothing):
    """A bar whose units are tasks of a fit: each, or so many that there are 1000 at most."""

    def __init__(self, bar: Any, fitted: Any, total: int | None, unit: str) -> None:
        self.bar, self.unit, self.done = bar, unit, 0
        self.size = 1 if total is None else max(1, math.ceil(total / _MOST_TASKS))
        n_tasks = None if total is None else math.ceil(total / self.size)
        self.tasks, self.n_told = _Tasks(fitted, n_tasks), 0

    def update(self, n: int = 1) -> None:
        self.bar.update(n)
        self.done += n
        self._tell(self.done // self.size)

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        self.bar.set_postfix_str(text, refresh)

    def __enter__(self) -> Self:
        self.bar.__enter__()
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self.bar.__exit__(kind, error, traceback)
        if kind is None:
            self._tell(math.ceil(self.done / self.size))
            self.tasks.close()

    def _tell(self, n_done: int) -> None:
        """Begin and end tasks: what is counted has no names, and is told when it is done."""
        for _ in range(self.n_told, n_done):
            self.tasks.begin(self.unit)
            self.tasks.end()
        self.n_told = n_done


class _Lines(_Nothing):
    """A line on stderr every ten seconds, and one at the end."""

    def __init__(self, total: int | None, description: str, unit: str) -> None:
        self.n, self.total, self.description, self.unit = 0, total, description, unit
        self.stage = ""
        self.started = self.last = time.monotonic()

    def update(self, n: int = 1) -> None:
        self.n += n
        if time.monotonic() - self.last >= _SECONDS_BETWEEN_LINES:
            self._write()

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        self.stage = text

    def close(self) -> None:
        self._write()

    def _write(self) -> None:
        self.last = time.monotonic()
        of = "" if self.total is None else f" of {self.total}"
        stage = f", {self.stage}" if self.stage else ""
        seconds = self.last - self.started
        print(
            f"{self.description}: {self.n}{of} {self.unit}{stage}, {seconds:.0f} s", file=sys.stderr
        )
