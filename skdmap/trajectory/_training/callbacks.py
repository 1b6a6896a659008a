"""Functions of the user's that are called after each recorded step."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from skdmap._random import forked_torch
from skdmap._sklearn_compat import InvalidParameterError
from skdmap.trajectory._training.module_state import kept_buffers, kept_gradients

AfterRow = Callable[[int, float, nn.Module], bool]


def after_row(callbacks: Any) -> AfterRow | None:
    """Return the callbacks as one function, or None where there are none.

    Parameters
    ----------
    callbacks : callable, sequence of callable or None
        Each is called as f(step, loss, module).

    Returns
    -------
    callable or None
        Calls all of them, and is True when one of them is. Buffers, gradients, mode and random
        streams of the module are put back, so that looking at it does not change the run.

    Raises
    ------
    InvalidParameterError
        If one of them cannot be called.
    """
    if callbacks is None:
        return None
    given: Sequence[Any] = [callbacks] if callable(callbacks) else list(callbacks)
    for one in given:
        if not callable(one):
            raise InvalidParameterError(
                f"callbacks holds {one!r}, must hold functions f(step, loss, module). Pass a "
                "function, or a list of them."
            )
    if not given:
        return None

    def call_all(step: int, loss: float, module: nn.Module) -> bool:
        modes = [(part, part.training) for part in module.modules()]
        device = next(module.parameters()).device
        with forked_torch(device), kept_buffers(module), kept_gradients(module):
            try:
                # Called all, even where one of them ends the run.
                answers = [one(step, loss, module) for one in given]
            finally:
                for part, training in modes:
                    part.training = training
        return any(answer is not None and bool(answer) for answer in answers)

    return call_all
