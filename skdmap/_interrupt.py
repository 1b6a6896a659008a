"""Ctrl-C -> a flag that is looked at between products, so that nothing is left half done."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["deferred_interrupt"]


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Let a first Ctrl-C set a flag; a second one raises KeyboardInterrupt at once.

    Only in the main thread, and only where Python's own handler is in place: another one stays.

    Yields
    ------
    callable
        Whether there has been one.

    Examples
    --------
    >>> import signal
    >>> from skdmap._interrupt import deferred_interrupt
    >>> with deferred_interrupt() as interrupted:
    ...     before = interrupted()
    ...     signal.raise_signal(signal.SIGINT)
    ...     before, interrupted()
    (False, True)
    """
    seen: list[int] = []

    def note(number: int, frame: Any) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    own = threading.current_thread() is threading.main_thread()
    if not own or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
