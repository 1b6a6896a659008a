"""The one door to scikit-learn's private names, and the checks that several estimators share."""

from collections.abc import Mapping
from typing import Any

from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    InvalidParameterError,
    Options,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils.validation import validate_data

__all__ = [
    "HasMethods",
    "Interval",
    "InvalidParameterError",
    "Options",
    "StrOptions",
    "validate_data",
    "validate_parameters",
]


def validate_parameters(estimator: Any, remedies: Mapping[str, str] | None = None) -> None:
    """Check the parameters of an estimator against its ``_parameter_constraints``.

    Parameters
    ----------
    estimator : BaseEstimator
        Its class holds ``_parameter_constraints``, as in scikit-learn.
    remedies : mapping of str to str, default=None
        For a parameter's name, the sentence that says what to do; added to the message.

    Raises
    ------
    InvalidParameterError
        Names the parameter, its value and the range; a ValueError and a TypeError at once.
    """
    try:
        validate_parameter_constraints(
            estimator._parameter_constraints,
            estimator.get_params(deep=False),
            caller_name=type(estimator).__name__,
        )
    except InvalidParameterError as error:
        message = str(error)
        for name, remedy in (remedies or {}).items():
            if message.startswith(f"The '{name}' parameter"):
                raise InvalidParameterError(f"{message} {remedy}") from None
        raise
