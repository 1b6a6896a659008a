"""Threads of BLAS and torch: held to one while small work runs, and then as they were."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import threadpoolctl


@contextmanager
def one_thread() -> Iterator[int]:
    """Hold BLAS in this process, and torch in this thread, to one thread; yield torch's own count.
    Threads may do so at once, and blocks may be nested: the last one out puts the counts back.
    """
    # Small operations take longer on several threads, which wait for each other after each one.
    if "n_torch" in vars(_INSIDE):
        yield _INSIDE.n_torch or 1
        return
    _INSIDE.n_torch = _HELD.take()
    try:
        yield _INSIDE.n_torch or 1
    finally:
        _HELD.give_back(vars(_INSIDE).pop("n_torch"))


def blas_threads() -> int:
    """Return how many threads BLAS may use now, by environment, container and threadpoolctl."""
    counts = [library.num_threads for library in _blas().lib_controllers]
    return max(1, min(counts, default=1))


def idle_threads() -> int:
    """Return how many threads of torch :func:`one_thread` keeps from this thread, itself included.
    1 outside of it.
    """
    return vars(_INSIDE).get("n_torch") or 1


class _Held:
    """How many threads are inside of :func:`one_thread`, and the counts before the first."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._n_users, self._n_torch, self._blas = 0, _torch_threads(), None

    def take(self) -> int | None:
        """Hold the counts; return how many threads torch is to have in this thread afterwards."""
        with self.lock:
            own = _torch_threads()
            if self._n_users == 0:
                self._n_torch = own
                with _control_of_blas():
                    self._blas = _blas().limit(limits=1)
            elif own == 1:  # a thread that began while the count was held
                own = self._n_torch
            self._n_users += 1
            _set_torch_threads(1)
        return own

    def give_back(self, n_torch: int | None) -> None:
        """Put torch's count back in this thread, and BLAS's after the last one."""
        with self.lock:
            _set_torch_threads(n_torch)
            self._n_users -= 1
            if self._n_users == 0:
                blas: Any = self._blas
                with _control_of_blas():
                    blas.restore_original_limits()


@contextmanager
def _control_of_blas() -> Iterator[None]:
    """Let this thread set OpenBLAS's count, which threadpoolctl (3.8) leaves to the first one."""
    library = getattr(threadpoolctl, "OpenBLASController", None)
    clear = getattr(library, "clear_controlling_thread", lambda force=False: None)
    clear(force=True)
    try:
        yield
    finally:
        clear()


# Modules that bring a BLAS along.
_LINKED = ("numpy", "scipy.linalg", "torch")


def _blas() -> threadpoolctl.ThreadpoolController:
    """Return the BLAS libraries of this process."""
    return _search(tuple(name in sys.modules for name in _LINKED))


@lru_cache(maxsize=4)
def _search(loaded: tuple[bool, ...]) -> threadpoolctl.ThreadpoolController:
    """Look for BLAS libraries, which takes milliseconds; another module may bring one along."""
    return threadpoolctl.ThreadpoolController().select(user_api="blas")


def _torch_threads() -> int | None:
    """Return torch's count in this thread; None where torch is not imported."""
    return sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None


def _set_torch_threads(n: int | None) -> None:
    if n is not None and _torch_threads() not in (None, n):
        sys.modules["torch"].set_num_threads(n)


_HELD, _INSIDE = _Held(), threading.local()


def _after_fork() -> None:
    # Another thread may have held it, and does not exist here.
    _HELD.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
