"""Settings of a recording by hooks, checked, and what follows from them at each step."""

import copy
import os
from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import nn

from skdmap._validation import InvalidParameterError
from skdmap.trajectory._cadence import Displacement, LogSpaced
from skdmap.trajectory._observables import as_row, undisturbed

__all__ = [
    "check_cadence",
    "check_count",
    "check_dtype",
    "check_optimizer",
    "due_by_step",
    "is_follower",
    "observable",
    "setting",
]

_CADENCES = "an integer >= 1, LogSpaced(n, total=T) or Displacement(delta)"


def check_count(value: Any, name: str, least: int = 0) -> None:
    """Raise where a value is no integer >= ``least``."""
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < least:
        raise InvalidParameterError(f"{name}={value!r} must be an integer >= {least}.")


def check_dtype(dtype: Any) -> str:
    """Return the name of a type for rows."""
    name = str(dtype).removeprefix("torch.")
    if name not in ("float16", "float32", "float64"):
        raise InvalidParameterError(
            f"dtype={dtype!r} must be 'float32', 'float64' or 'float16' (float32 key rows, and "
            "half-precision differences from row to row)."
        )
    return name


def check_optimizer(optimizer: Any, module: nn.Module) -> None:
    """Raise where an optimizer is none, or of another module."""
    if optimizer is None:
        return
    if not hasattr(optimizer, "param_groups") or not hasattr(optimizer, "step"):
        raise InvalidParameterError(
            f"optimizer={type(optimizer).__name__} must be a torch.optim.Optimizer, or None for "
            "every optimizer that holds a parameter of the module."
        )
    own = {id(parameter) for parameter in module.parameters()}
    if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        raise InvalidParameterError(
            f"optimizer={type(optimizer).__name__} holds no parameter of "
            f"module={type(module).__name__}: no row would be recorded. Make it from "
            "module.parameters(), or pass None."
        )


def check_cadence(record_every: Any) -> None:
    """Raise where ``record_every`` is nothing that steps can be counted by."""
    if record_every == "epoch":
        raise InvalidParameterError(
            "record_every='epoch': the recorder sees steps, no epochs. Pass the number of steps in "
            f"an epoch, len(loader), as {_CADENCES}."
        )
    if isinstance(record_every, Displacement):
        return
    if isinstance(record_every, LogSpaced):
        if record_every.total is None:
            raise InvalidParameterError(
                f"record_every={record_every!r} has no total: the recorder cannot know how long "
                "your loop will run. Pass LogSpaced(n, total=T), T the number of its steps."
            )
    elif (
        not isinstance(record_every, Integral)
        or isinstance(record_every, bool)
        or int(record_every) < 1
    ):
        raise InvalidParameterError(f"record_every={record_every!r} must be {_CADENCES}.")


def due_by_step(record_every: Any) -> Callable[[int], bool]:
    """Return what says whether a step is to be recorded; never where distance decides.

    Examples
    --------
    >>> due = due_by_step(4)
    >>> [step for step in range(10) if due(step)]
    [0, 4, 8]
    """
    if isinstance(record_every, Displacement):
        return lambda step: False
    if isinstance(record_every, LogSpaced):
        return {0, *record_every.steps().tolist()}.__contains__
    every = int(record_every)
    return lambda step: step % every == 0


def setting(value: Any) -> Any:
    """Return what a manifest can say of a setting: the same in every process."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [setting(part) for part in value]
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return f"array of shape {tuple(value.shape)}"
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return {"kind": type(value).__name__, **{k: setting(v) for k, v in vars(value).items()}}


def is_follower() -> bool | None:
    """Say whether another process writes the rows; None where that is not known yet.

    A launcher may have told this process its rank before the process group exists.
    """
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() != 0
    ranks = [os.environ.get(name, "0") for name in ("RANK", "LOCAL_RANK", "NODE_RANK")]
    return None if any(rank not in ("", "0") for rank in ranks) else False


def observable(record: Any, module: nn.Module) -> Callable[[], torch.Tensor] | None:
    """Return what reads a row off a module; None where rows are its parameters.

    Parameters
    ----------
    record : "parameters", ("outputs", X_probe) or callable
        As the user gave it.
    module : torch.nn.Module
        Called in eval mode without gradients; left as found, as are torch's generators.

    Returns
    -------
    callable or None
        () -> Tensor of shape (n_columns,).

    Raises
    ------
    InvalidParameterError
        If ``record`` is none of these.
    """
    if isinstance(record, str) and record == "parameters":
        return None
    if isinstance(record, str) and record == "outputs":
        raise InvalidParameterError(
            "record='outputs': the recorder does not see your rows. Pass ('outputs', X_probe) with "
            "the rows to follow."
        )
    if isinstance(record, tuple) and len(record) == 2 and record[0] == "outputs":
        probe = torch.as_tensor(copy.copy(record[1]))

        def outputs() -> torch.Tensor:
            first = next(module.parameters())
            dtype = first.dtype if probe.is_floating_point() else probe.dtype
            with torch.no_grad():
                return _flat_outputs(module(probe.to(first.device, dtype).clone()))

        return lambda: undisturbed(module, outputs)
    if callable(record):

        def said() -> torch.Tensor:
            with torch.no_grad():
                return as_row(record(module), record)

        return lambda: undisturbed(module, said)
    raise InvalidParameterError(
        f"record={setting(record)!r} must be 'parameters', ('outputs', X_probe), or a callable "
        "module -> 1-D tensor."
    )


def _flat_outputs(values: Any) -> torch.Tensor:
    if not isinstance(values, torch.Tensor):
        raise ValueError(
            f"record=('outputs', X_probe): module returns {type(values).__name__}, must return a "
            "tensor. Pass a function that picks it: module -> 1-D tensor."
        )
    return values.detach().reshape(-1)
