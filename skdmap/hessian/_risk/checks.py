"""Raise, on at most 64 rows, on what would spoil every later use of a loss."""

import itertools
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from numbers import Integral
from typing import Any

import torch

from skdmap.hessian._operators.callables import title
from skdmap.hessian._operators.hessian import HessianOperator, check_deterministic, tried_operator
from skdmap.hessian._risk.batch_norm import MODES, statistics_layers
from skdmap.hessian._risk.batch_weights import Rows, check_shares, spread_rows
from skdmap.hessian._risk.criterion import check_targets
from skdmap.hessian._risk.module_loss import ModuleLoss

# What torch and modules raise on input that does not fit.
_MISFITS = (RuntimeError, ValueError, TypeError, IndexError)
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def check_calls(loss: ModuleLoss) -> None:
    """Raise on rows that the module does not take, or targets that the criterion does not take.

    Parameters
    ----------
    loss : ModuleLoss
        Called once at the module's own parameters.

    Raises
    ------
    ValueError
        If the parameters are not finite, or module or criterion fails; with torch's own message.
    """
    own = loss.own_point()
    if not torch.isfinite(own).all():
        raise ValueError(
            "module has parameters that are NaN or infinite. Load finite parameters first, from "
            "before training diverged."
        )
    rows = spread_rows(torch.ones(len(loss.X)))
    with torch.no_grad(), _kept_generators(own):
        try:
            outputs = loss.outputs(loss.parts(own), rows)
        except torch.OutOfMemoryError:
            raise
        except _MISFITS as error:
            shape, kind = tuple(loss.X.shape[1:]), loss.X.dtype
            raise ValueError(
                f"module={type(loss.module).__name__} fails on rows of shape {shape} and dtype "
                f"{kind}: {error}. Pass a module that takes such rows, or reshape X; X.astype(float"
                ") where a layer wants floats, integers where it wants indices."
            ) from error
        check_targets(loss.criterion, loss.y, outputs)
        try:
            loss.of_outputs(outputs, rows)
        except torch.OutOfMemoryError:
            raise
        except _MISFITS as error:
            raise _criterion_fails(loss, outputs, error) from error


def _criterion_fails(loss: ModuleLoss, outputs: Any, error: Exception) -> ValueError:
    shape = getattr(outputs, "shape", None)
    found = type(outputs).__name__ if shape is None else f"rows of shape {tuple(shape[1:])}"
    if loss.y is None:
        targets, remedy = "", "Pass a criterion that takes what the module returns."
    else:
        targets = f" and y of shape {tuple(loss.y.shape)} and dtype {loss.y.dtype}"
        remedy = "Pass labels as integers of shape (n,), values as floats of the outputs' shape."
    return ValueError(
        f"criterion={title(loss.criterion)} fails on outputs of {found}{targets}: {error}. {remedy}"
    )


def _kept_generators(point: torch.Tensor) -> AbstractContextManager[None]:
    """Find out a loss that draws at random without a step of the global generator."""
    return torch.random.fork_rng(devices=[point.device] if point.is_cuda else [])


def check_loss(loss: ModuleLoss, weights: torch.Tensor, *, batched: bool) -> bool:
    """Raise on a loss that has no Hessian, or that is not the sum of its batches.

    Parameters
    ----------
    loss : ModuleLoss
        Tried at the module's own parameters.
    weights : Tensor of shape (n_rows,)
        From :func:`row_weights`.
    batched : bool
        Whether the rows go through the module in several batches.

    Returns
    -------
    bool
        Whether the loss is the sum of its parts, as it must be where ``batched``.

    Raises
    ------
    ValueError
        If the loss there is not finite, scalar, differentiable twice, deterministic, or the sum of
        its parts.
    """
    own, rows = loss.own_point(), spread_rows(weights, loss.y)
    with _kept_generators(own):
        HessianOperator([lambda theta: loss.of_flat(theta, rows)], own).close()
        few, rows_of_few = _in_double(loss, rows)
        _check_on(few, rows_of_few)
        if len(rows) == 1:
            return True
        try:
            _check_parts(few, rows_of_few, weights[rows])
        except ValueError:
            if batched:
                raise
            return False
    return True


def _in_double(loss: ModuleLoss, rows: torch.Tensor) -> tuple[ModuleLoss, torch.Tensor]:
    """Return a loss and rows of it for comparisons.

    In float64 the rounding of large outputs neither hides nor feigns a difference of small losses;
    but something in the criterion, the module or the device may insist on its own dtype.
    """
    try:
        double = loss.on_rows(rows, torch.float64)
        everything = torch.arange(len(rows))
        with torch.no_grad():
            double.of_flat(double.own_point(), everything)
    except (RuntimeError, TypeError):
        return loss, rows
    return double, everything


def _check_on(loss: ModuleLoss, rows: torch.Tensor) -> None:
    own = loss.own_point()
    terms = [lambda theta: loss.of_flat(theta, rows)]
    tried_operator(lambda: HessianOperator(terms, own)).close()
    away = _away_from(own)
    if _is_finite(loss, away, rows):
        with HessianOperator(terms, away) as hessian:
            check_deterministic(hessian, terms, away)


def _away_from(own: torch.Tensor) -> torch.Tensor:
    """Return a point at which outputs differ from row to row, though they may be all alike here.

    They are where a last layer starts at zero: whatever the rows do then, the loss is the same.
    """
    generator = torch.Generator().manual_seed(0)  # its own: the global one is not advanced
    step = torch.randn(len(own), generator=generator, dtype=torch.float64)
    return own + 0.05 * step.to(own.device, own.dtype)


def _is_finite(loss: ModuleLoss, point: torch.Tensor, rows: torch.Tensor) -> bool:
    """Return whether there is a loss: a module may leave where it is defined."""
    try:
        with torch.no_grad():
            return bool(torch.isfinite(loss.of_flat(point, rows)).all())
    except (RuntimeError, ValueError):
        return False


def _check_parts(loss: ModuleLoss, rows: torch.Tensor, weights: torch.Tensor) -> None:
    own = loss.own_point()
    away = _away_from(own)
    points = [own, away] if _is_finite(loss, away, rows) else [own]
    with torch.no_grad():
        for point in points:

            def loss_of(part: Rows, point: torch.Tensor = point) -> float:
                return float(loss.of_flat(point, rows[part]))

            check_shares(loss.criterion, loss_of, weights, torch.finfo(own.dtype).eps)


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
    >>> from skdmap.hessian._risk.checks import resolve_dtype
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
