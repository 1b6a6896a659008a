"""Callbacks that record a run inside the trainers of other libraries.

A trainer that resumes loads its checkpoint itself, after a :class:`~skdmap.TrajectoryRecorder`
around it has looked at the module. These callbacks begin to record once the checkpoint is loaded.
Each imports its library on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["HuggingFaceCallback", "LightningCallback"]

_MODULES = {
    "HuggingFaceCallback": "skdmap.integrations._huggingface",
    "LightningCallback": "skdmap.integrations._lightning",
}

if TYPE_CHECKING:
    from skdmap.integrations._huggingface import HuggingFaceCallback
    from skdmap.integrations._lightning import LightningCallback

if not TYPE_CHECKING:  # type checkers would take any misspelt name for Any

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module 'skdmap.integrations' has no attribute {name!r}")
        value = getattr(importlib.import_module(_MODULES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
