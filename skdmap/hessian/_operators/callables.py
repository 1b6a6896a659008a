"""Functions and modules that the user gave: their names, and what they can be called with."""

import inspect
from typing import Any

from torch import nn


def title(function: Any) -> str:
    """Return a short name for messages.

    Examples
    --------
    >>> from torch import nn
    >>> from skdmap.hessian._operators.callables import title
    >>> title(nn.MSELoss()), title(nn.functional.mse_loss)
    ('MSELoss', 'mse_loss')
    """
    function = getattr(function, "func", function)  # functools.partial
    return getattr(function, "__name__", type(function).__name__)


def misfit(function: Any, n_arguments: int) -> str | None:
    """Return why a function does not take so many arguments by position; None where it does.

    Parameters
    ----------
    function : callable
        A module is known by its ``forward``.
    n_arguments : int
        How many.

    Returns
    -------
    str or None
        What Python says.

    Examples
    --------
    >>> from torch import nn
    >>> from skdmap.hessian._operators.callables import misfit
    >>> misfit(nn.MSELoss(), 1), misfit(nn.MSELoss(), 2)
    ("missing a required argument: 'target'", None)
    """
    target = function.forward if isinstance(function, nn.Module) else function
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # written in C, without a signature: the call itself will tell
        return None
    try:
        signature.bind(*(None,) * n_arguments)
    except TypeError as error:
        return str(error)
    return None
