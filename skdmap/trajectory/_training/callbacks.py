"""The user's functions that are called after each recorded step."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from skdmap._random import forked_torch
from skdmap._sklearn_compat import InvalidParameterError
from skdmap.trajectory._training.module_state import kept_buffers, kept_gradients, module_device

AfterRow = Callable[[int, float, nn.Module], bool]


def after_row(callbacks: Any) -> AfterRow | None:
    """Return the callbacks as one function f(step, loss, module) -> whether the run ends.
    The module is put back as found. None where there are no callbacks.
    """
    if callbacks is None:
        return None
    given: Sequence[Any] = [callbacks] if callable(callbacks) else list(callbacks)
    for one in given:
        if not callable(one):
            raise InvalidParameterError(
                f"callbacks contains {one!r}; it must contain functions f(step, loss, module). "
                "Pass a function, or a list of functions."
            )
    if not given:
        return None

    def call_all(step: int, loss: float, module: nn.Module) -> bool:
        modes = [(part, part.training) for part in module.modules()]
        with forked_torch(module_device(module)), kept_buffers(module), kept_gradients(module):
            try:
                # All are called, even where one of them ends the run.
                answers = [one(step, loss, module) for one in given]
            finally:
                for part, training in modes:
                    part.training = training
        return any(answer is not None and bool(answer) for answer in answers)

    return call_all
