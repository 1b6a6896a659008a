"""The only module that imports scikit-learn's private names."""

from collections.abc import Mapping
from typing import Any

from sklearn.utils._param_validation import HasMethods as HasMethods
from sklearn.utils._param_validation import Interval as Interval
from sklearn.utils._param_validation import InvalidParameterError as InvalidParameterError
from sklearn.utils._param_validation import Options as Options
from sklearn.utils._param_validation import StrOptions as StrOptions
from sklearn.utils._param_validation import validate_parameter_constraints
from sklearn.utils.validation import validate_data as validate_data


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
        for name, remedy in (remedies or {}).items():
            if message.startswith(f"The '{name}' parameter"):
                raise InvalidParameterError(f"{message} {remedy}") from None
        raise
