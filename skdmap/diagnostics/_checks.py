"""Checks of arguments that the diagnostics share; they name the argument, value and range."""

from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np

__all__ = ["check_choice", "check_count", "check_number"]


def check_count(name: str, value: Any, *, minimum: int = 1) -> int:
    """Return ``value`` as an int of at least ``minimum``, or raise ValueError."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if whole and int(value) >= minimum:
        return int(value)
    raise ValueError(
        f"{name}={value!r} must be an integer of at least {minimum}. Pass a whole number in that "
        "range."
    )


def check_number(name: str, value: Any, low: float, high: float, *, closed: bool = True) -> float:
    """Return ``value`` as a finite float in [low, high], or (low, high); else ValueError."""
    if isinstance(value, Real) and not isinstance(value, bool) and np.isfinite(float(value)):
        number = float(value)
        if low < number < high or (closed and number in (low, high)):
            return number
    left, right = "[]" if closed else "()"
    raise ValueError(
        f"{name}={value!r} must be a finite number in {left}{low:g}, {high:g}{right}. Pass a "
        "number in that range."
    )


def check_choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """Return ``value`` if it is one of the ``choices``, or raise ValueError."""
    known = list(choices)
    if isinstance(value, str) and value in known:
        return value
    raise ValueError(f"{name}={value!r} must be one of {', '.join(map(repr, known))}. Pass one.")
