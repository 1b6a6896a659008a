"""Settings of an EmpiricalRisk -> checked values, before any work."""

import itertools
import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch

from ._modes import MODES, statistics_layers

__all__ = ["check_mode", "check_real", "check_settings", "resolve_device", "resolve_dtype"]

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def check_settings(module: Any, batch_size: Any, weight_decay: float) -> None:
    """Raise on a module that is none or holds no numbers, or a number out of range.

    Parameters
    ----------
    module : torch.nn.Module
        Its type is looked at, and whether its tensors hold numbers.
    batch_size : int or None
        At least 1.
    weight_decay : float
        Finite, at least 0.

    Raises
    ------
    TypeError
        If ``module`` is no module.
    ValueError
        If a tensor of the module is on the meta device, or a number is out of range.
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module={module!r} must be a torch.nn.Module. Pass the model itself.")
    _check_materialized(module)
    integral = isinstance(batch_size, Integral) and not isinstance(batch_size, bool)
    if batch_size is not None and not (integral and batch_size >= 1):
        raise ValueError(
            f"batch_size={batch_size!r} must be an integer >= 1, or None for all rows."
        )
    if not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise ValueError(
            f"weight_decay={weight_decay} must be finite and >= 0. Set it to 0 for the loss alone."
        )


def check_mode(mode: Any, module: Any, batch_size: int | None, alone: bool) -> None:
    """Raise on a mode that is none, or that the other settings do not go with.

    Parameters
    ----------
    mode : {"eval", "recalibrate", "train"}
        As the user gave it.
    module : torch.nn.Module
        Only its layers are looked at.
    batch_size : int or None
        As the user gave it.
    alone : bool
        Whether this process holds all rows.

    Raises
    ------
    ValueError
        If it is another, or if statistics of all rows are asked for that are in several batches.
    """
    if mode not in MODES:
        raise ValueError(
            f"mode={mode!r} must be one of {', '.join(map(repr, MODES))}. 'eval' is the network as "
            "it predicts."
        )
    if mode != "train" or not statistics_layers(module):
        return
    if batch_size is not None:
        raise ValueError(
            f"batch_size={batch_size} with mode='train': the batch statistics of BatchNorm need "
            "all rows in one batch. Set batch_size=None, or mode='recalibrate'."
        )
    if not alone:
        raise ValueError(
            "mode='train' with a process_group: the batch statistics of BatchNorm need all rows "
            "in one process. Set mode='recalibrate' or 'eval'."
        )


def _check_materialized(module: torch.nn.Module) -> None:
    """Raise on parameters or buffers that have a shape, but hold no numbers."""
    tensors = itertools.chain(module.named_parameters(), module.named_buffers())
    found = [name for name, tensor in tensors if tensor.is_meta]
    if found:
        names = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        raise ValueError(
            f"module has {names} on the meta device, where tensors hold no numbers. Call "
            "module.to_empty(device='cpu') and load a state_dict, or make it on another device."
        )


def check_real(module: torch.nn.Module, names: Sequence[str]) -> None:
    """Raise on complex parameters: the flat vector is real.

    Parameters
    ----------
    module : torch.nn.Module
        The model.
    names : sequence of str
        Of the parameters in the flat vector.

    Raises
    ------
    ValueError
        With the way out.
    """
    found = [name for name in names if module.get_parameter(name).is_complex()]
    if found:
        raise ValueError(
            f"module has complex parameters ({', '.join(found)}), must be real. Hold real and "
            "imaginary parts as parameters (torch.view_as_complex), or select others (parameters)."
        )


def resolve_dtype(dtype: Any) -> torch.dtype:
    """Return the torch.dtype that a name or a torch.dtype stands for.

    Parameters
    ----------
    dtype : {"float32", "float64"} or torch.dtype
        As the user gave it, or that of the module.

    Returns
    -------
    torch.dtype
        torch.float32 or torch.float64.

    Raises
    ------
    ValueError
        If it is another.

    Examples
    --------
    >>> from skdmap.hessian._settings import resolve_dtype
    >>> resolve_dtype("float64"), resolve_dtype(torch.float64)
    (torch.float64, torch.float64)
    """
    found: Any = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found not in _DTYPES.values():
        raise ValueError(
            f"dtype={dtype!r} must be torch.float32 or torch.float64, or 'float32' or 'float64': "
            "curvature is lost below that. Set dtype='float32'; the module is copied, not changed."
        )
    return found


def resolve_device(device: Any) -> torch.device:
    """Return the device, or raise where there is no such device.

    Parameters
    ----------
    device : str or torch.device
        As the user gave it.

    Returns
    -------
    torch.device
        One that holds tensors.

    Raises
    ------
    ValueError
        If torch cannot put numbers there.
    """
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device={device!r} cannot be used: {str(error).splitlines()[0]}. Pass None for the "
            "module's own device, 'cpu', or 'cuda' where there is a GPU for it."
        ) from error
    if found.type == "meta":
        raise ValueError(
            f"device={device!r} cannot be used: it holds no numbers. Pass None for the module's "
            "own device, or 'cpu'."
        )
    return found
