"""Checks of arguments. Each error names the argument, its value, the valid range and what to do."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

import numpy as np

from skdmap._sklearn_compat import (
    InvalidParameterError,
    StrOptions,
    validate_parameter_constraints,
)


def is_integer(value: Any) -> bool:
    """Whether ``value`` is an integer; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_count(name: str, value: object, *, minimum: int = 1, maximum: int | None = None) -> int:
    """Return ``value`` as an int in [minimum, maximum], or raise InvalidParameterError."""
    if is_integer(value):
        number = int(value)  # type: ignore[call-overload]
        if number >= minimum and (maximum is None or number <= maximum):
            return number
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


def validate_parameters(estimator: Any, remedies: Mapping[str, str] | None = None) -> None:
    """Check an estimator's parameters against its ``_parameter_constraints``.
    ``remedies`` maps a parameter to the sentence, added to the message, that says what to do.
    """
    try:
        validate_parameter_constraints(
            estimator._parameter_constraints,
            estimator.get_params(deep=False),
            caller_name=type(estimator).__name__,
        )
    except InvalidParameterError as error:
        message = str(error)
        name = message.removeprefix("The '").partition("'")[0]
        value = estimator.get_params(deep=False).get(name)
        hints = [_nearest_option(value, estimator._parameter_constraints.get(name, []))]
        hints.append((remedies or {}).get(name, ""))
        raise InvalidParameterError(" ".join([message, *filter(None, hints)])) from None


def _nearest_option(value: Any, constraints: Iterable[Any]) -> str:
    """Return ``Did you mean 'x'?`` for a string that is near an option; else an empty string."""
    options = [o for c in constraints if isinstance(c, StrOptions) for o in c.options]
    near = get_close_matches(value, options, n=1) if isinstance(value, str) else []
    return f"Did you mean {near[0]!r}?" if near else ""


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Return ``Did you mean 'x'?`` for the option nearest to ``name``, else the list of options."""
    options = list(options)
    close = get_close_matches(str(name), options, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Options: {', '.join(options)}."
