"""Warnings that point to the user's line, however deep in skdmap or scikit-learn they arise."""

import sys
import warnings

_INTERNAL = ("skdmap", "sklearn", "joblib")


def warn(message: str, category: type[Warning]) -> None:
    """Warn from the first stack frame outside skdmap, scikit-learn and joblib."""
    level, frame = 1, sys._getframe(0)
    while frame is not None and _is_internal(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1  # type: ignore[assignment]
    warnings.warn(message, category, stacklevel=level if frame is not None else 2)


def _is_internal(module: str) -> bool:
    return module.split(".")[0] in _INTERNAL
