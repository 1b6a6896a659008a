"""Names such as ``optimizer__lr`` that reach into the dicts among an estimator's parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

from skdmap._argument_checks import did_you_mean
from skdmap._sklearn_compat import InvalidParameterError


def with_nested_names(params: Mapping[str, Any], prefixes: Sequence[str]) -> dict[str, Any]:
    """Return parameters, with a name ``prefix__key`` for each key of each ``<prefix>_params``."""
    found = dict(params)
    for prefix in prefixes:
        nested = params[f"{prefix}_params"]
        if isinstance(nested, Mapping):
            found |= {f"{prefix}__{key}": value for key, value in nested.items()}
    return found


def without_nested_names(
    changes: Mapping[str, Any], params: Mapping[str, Any], prefixes: Sequence[str], estimator: str
) -> dict[str, Any]:
    """Return changes of parameters by their own names: ``prefix__key`` becomes a new dict.
    ``params``: the present values; ``estimator``: its name, for the message on an unknown name.
    """
    plain: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        prefix, delimiter, key = name.partition("__")
        if delimiter and prefix in prefixes:
            nested.setdefault(f"{prefix}_params", {})[key] = value
        elif name in params:
            plain[name] = value
        else:
            options = [f"{p}__{key}" for p in prefixes] if delimiter else params
            raise InvalidParameterError(
                f"Invalid parameter {name!r} for estimator {estimator}. "
                f"{did_you_mean(name, options)}"
            )
    for name, extra in nested.items():
        value = plain.get(name, params[name])
        if value is not None and not isinstance(value, Mapping):
            raise InvalidParameterError(
                f"{name}={value!r} must be a dict or None before a key of it can be set."
            )
        plain[name] = {**(value or {}), **extra}
    return plain
