"""Functions and modules that the user passed: short names, and what they can be called with."""

import inspect
from typing import Any

from torch import nn


def short_name(function: Any) -> str:
    """Return a short name for messages."""
    function = getattr(function, "func", function)  # functools.partial
    return getattr(function, "__name__", type(function).__name__)


def signature_mismatch(function: Any, n_arguments: int) -> str | None:
    """Return why a function does not take so many positional arguments; None if it does."""
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
