"""Checks of arguments. Each error names the argument, its value, the valid range and what to do."""

from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np

from skdmap._sklearn_compat import InvalidParameterError


def check_count(name: str, value: object, *, minimum: int = 1, maximum: int | None = None) -> int:
    """Return ``value`` as an int in [minimum, maximum], or raise InvalidParameterError."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if whole and value >= minimum and (maximum is None or value <= maximum):  # type: ignore[operator]
        return int(value)  # type: ignore[call-overload]
    ceiling = "" if maximum is None else f" and at most {maximum}"
    raise InvalidParameterError(
        f"{name}={value!r} must be an integer of at least {minimum}{ceiling}. "
        f"Pass an integer in that range."
    )


def check_number(
    name: str,
    value: object,
    *,
    low: float = 0.0,
    high: float = np.inf,
    closed: bool = False,
    remedy: str = "",
) -> float:
    """Return ``value`` as a finite float in (low, high), or in [low, high] if ``closed``, or raise.
    ``remedy`` replaces the last sentence of the message.
    """
    if isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
        inside = low < number < high or (closed and number in (low, high))
        if inside and np.isfinite(number):
            return number
    left, right = ("[", "]") if closed and np.isfinite(high) else ("[" if closed else "(", ")")
    raise InvalidParameterError(
        f"{name}={value!r} must be a finite number in {left}{low:g}, {high:g}{right}. "
        f"{remedy or 'Pass a number in that range.'}"
    )


def check_finite_array(name: str, value: object, *, ndim: int) -> np.ndarray:
    """Return ``value`` as a finite float64 array with ``ndim`` axes, or raise."""
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != ndim or array.size == 0 or not np.isfinite(array).all():
        raise InvalidParameterError(
            f"{name} must contain finite numbers in a non-empty array of {ndim} dimensions; its "
            f"shape is {array.shape}. Reshape it, or drop the entries that are not finite."
        )
    return array


def check_pair(name: str, value: Any) -> tuple[Any, Any]:
    """Return ``value`` as a tuple of two, or raise InvalidParameterError."""
    if np.ndim(value) != 1 or len(value) != 2:
        raise InvalidParameterError(
            f"{name}={value!r} must be a pair of numbers. Pass a tuple of length 2."
        )
    return value[0], value[1]


def check_choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """Return ``value`` if it is one of the ``choices``, or raise InvalidParameterError."""
    allowed = list(choices)
    if isinstance(value, str) and value in allowed:
        return value
    raise InvalidParameterError(
        f"{name}={value!r} must be one of {', '.join(map(repr, allowed))}. Pass one of them."
    )
