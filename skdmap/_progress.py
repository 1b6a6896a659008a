"""Progress of long work: a bar in terminals and notebooks, lines in logs."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

_SECONDS_BETWEEN_LINES = 10.0


def progress(
    total: int | None,
    description: str,
    *,
    verbose: bool | None = True,
    unit: str = "it",
    delay: float = 0.0,
) -> Any:
    """Return a tqdm bar in terminals and notebooks, and an object that writes lines in logs.
    ``verbose=False`` shows nothing; None shows a bar that goes away at the end, but no lines.
    """
    if verbose is False or (verbose is None and not _has_bar()):
        return _Nothing()
    if _has_bar():
        from tqdm.auto import tqdm

        leave = verbose is True
        return tqdm(total=total, desc=description, unit=unit, leave=leave, delay=delay)
    return _Lines(total, description, unit)


@contextmanager
def stages(total: int, description: str, *, verbose: bool) -> Iterator[Callable[[str], None]]:
    """Yield a function to call with the name of each of ``total`` stages before it begins."""
    with progress(total, description, verbose=verbose, unit="stages") as bar:
        names: list[str] = []

        def begin(name: str) -> None:
            if name not in names:  # a stage may be done twice
                bar.update(min(1, len(names)))
                names.append(name)
            bar.set_postfix_str(name)

        yield begin
        bar.update()


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
