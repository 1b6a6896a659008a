"""Checks that what is passed to a display holds what it draws."""

from typing import Any

from sklearn.utils.validation import check_is_fitted

from skdmap._sklearn_compat import InvalidParameterError

# For each estimator, attributes that together identify it, and its displays.
_DISPLAYS = {
    "DiffusionMap": (
        ("stationary_distribution_", "eigenvalues_"),
        "EigenvalueDisplay, EmbeddingDisplay or BandwidthDisplay",
    ),
    "HessianSpectrum": (("point_", "eigenvalues_", "residuals_"), "SpectrumDisplay"),
}


def check_holds(estimator: Any, kind: str, *attributes: str) -> None:
    """Raise if an estimator is not fitted or lacks an attribute; name what to pass instead."""
    check_is_fitted(estimator)
    missing = [name for name in attributes if not hasattr(estimator, name)]
    if missing:
        raise InvalidParameterError(
            f"estimator={type(estimator).__name__} has no {', '.join(missing)}; it must be a "
            f"fitted {kind}. {_remedy(estimator, kind, attributes)}"
        )


def check_result(result: Any, function: str, *attributes: str) -> None:
    """Raise if ``result`` is not the record that a function of ``skdmap.diagnostics`` returns."""
    missing = [name for name in attributes if not hasattr(result, name)]
    if missing:
        raise InvalidParameterError(
            f"result={type(result).__name__} has no {', '.join(missing)}; it must be the result of "
            f"skdmap.diagnostics.{function}. Pass what {function}(...) returns."
        )


def _remedy(estimator: Any, kind: str, attributes: tuple[str, ...]) -> str:
    steps = getattr(estimator, "steps", None)
    if steps:
        for position, (name, step) in enumerate(steps):
            if all(hasattr(step, attribute) for attribute in attributes):
                last = position == len(steps) - 1
                return f"Pass pipeline[{'-1' if last else repr(name)}]."
        return f"No step of this pipeline is a {kind}. Add one, fit, and pass pipeline[-1]."
    if hasattr(estimator, "best_estimator_"):
        return "Pass search.best_estimator_, or its step: search.best_estimator_[-1]."
    for other, (marks, display) in _DISPLAYS.items():
        if other != kind and all(hasattr(estimator, mark) for mark in marks):
            return f"Use {display} for a {other}."
    return f"Fit a {kind} and pass it."
