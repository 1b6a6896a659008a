"""The only module that imports or overrides scikit-learn's private names."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from sklearn.utils._param_validation import HasMethods as HasMethods
from sklearn.utils._param_validation import Interval as _Interval
from sklearn.utils._param_validation import InvalidParameterError as InvalidParameterError
from sklearn.utils._param_validation import Options as Options
from sklearn.utils._param_validation import StrOptions as StrOptions
from sklearn.utils._param_validation import (
    validate_parameter_constraints as validate_parameter_constraints,
)
from sklearn.utils.metaestimators import available_if as _available_if
from sklearn.utils.validation import validate_data as _validate_data

try:
    from sklearn.callback import CallbackSupportMixin as CallbackSupportMixin
    from sklearn.callback import with_callbacks as _with_callbacks
except ImportError:  # before scikit-learn 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """No callbacks: there is no ``set_callbacks``."""

    _with_callbacks = None

_Method = TypeVar("_Method", bound=Callable[..., Any])


class Interval(_Interval):
    """An interval of numbers to which True and False do not belong."""

    def is_satisfied_by(self, val: Any) -> bool:
        """Whether ``val`` is a number of the interval."""
        return not isinstance(val, bool) and super().is_satisfied_by(val)


def with_callbacks(method: _Method) -> _Method:
    """Have scikit-learn set up callbacks for a ``fit`` and take them down, where it can."""
    return method if _with_callbacks is None else _with_callbacks(method)


class DocLinkMixin:
    """The HTML representation of an estimator links to its page of this documentation."""

    _doc_link_module = "skdmap"
    _doc_link_template = (
        "https://skdmap.readthedocs.io/en/stable/generated/skdmap.{estimator_name}.html"
    )


def available_if(check: Callable[[Any], bool]) -> Callable[[_Method], _Method]:
    """Return scikit-learn's decorator, with which a method keeps its type."""
    return _available_if(check)


def validate_data(
    estimator: Any, X: Any, *args: Any, remedy: str = "Drop or impute these samples.", **checks: Any
) -> Any:
    """Check input as scikit-learn does, with :func:`finite_or_named` for NaN and infinity."""
    with finite_or_named("X", X, remedy):
        return _validate_data(estimator, X, *args, **checks)


@contextmanager
def finite_or_named(name: str, X: Any, remedy: str) -> Iterator[None]:
    """Replace scikit-learn's text on NaN and infinity, which advises another estimator, by one with
    the first such entry and a remedy.
    """
    try:
        yield
    except ValueError as error:
        if not str(error).startswith((f"Input {name} contains NaN", f"Input {name} contains inf")):
            raise
        raise ValueError(f"{name} contains {_first_not_finite(X)}. {remedy}") from None


def _first_not_finite(X: Any) -> str:
    """Return what the first entry of X that is not finite is, and where."""
    try:
        values = np.asarray(X.toarray() if hasattr(X, "toarray") else X, dtype=np.float64)
        bad = ~np.isfinite(values)
        place = tuple(int(i) for i in np.argwhere(bad)[0])
    except (TypeError, ValueError, IndexError):
        return "NaN or infinity"
    where = f"row {place[0]}, column {place[1]}" if len(place) == 2 else f"entry {place}"
    n_rows = int(bad.reshape(len(bad), -1).any(axis=1).sum())
    kind = "NaN" if np.isnan(values[place]) else "infinity"
    return f"{kind} in {where} ({n_rows} of {len(values)} rows have NaN or infinity)"
