"""Data in the type that a module and its loss take, and errors where they do not fit."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from skdmap._random import forked_torch
from skdmap.trajectory._training.factories import Loss
from skdmap.trajectory._training.module_state import kept_buffers, module_device, without_gradients
from skdmap.trajectory._training.targets import match_outputs

# What torch and modules raise on input that does not fit.
_INPUT_ERRORS = (RuntimeError, ValueError, TypeError, IndexError)
# Layers that look rows of a table up by integers.
_LOOKUPS = (nn.Embedding, nn.EmbeddingBag)
# So many columns are searched for their extremes one by one; of more, the samples' extremes are.
_MAX_COLUMNS = 256


def cast_inputs(X: np.ndarray, module: nn.Module) -> torch.Tensor:
    """Return X on the module's device, floats in the type of its first floating-point parameter.
    Integers and booleans become such floats, or stay what they are: see ``_integer_dtype``.
    """
    dtype = _module_dtype(module)
    if X.dtype.kind in "biu" and int(X.max()) < 2**63:
        dtype = _integer_dtype(X, module, dtype)
    values = X
    if X.dtype not in (np.float32, np.float64):
        values = X.astype(np.float64 if dtype.is_floating_point else _kept_dtype(X))
    # Not the user's memory where torch would warn (read-only) or fail (negative strides).
    values = np.require(values, requirements=["C", "W"])
    return torch.from_numpy(values).to(module_device(module), dtype)


def cast_targets(
    values: np.ndarray, inputs: torch.Tensor, module: nn.Module, criterion: Loss
) -> torch.Tensor:
    """Return targets on the module's device, in the shape of its outputs; codes stay integers.
    A ValueError where module, targets and criterion, tried on two samples, do not fit.
    """
    targets = torch.from_numpy(values).to(inputs.device)
    if targets.is_floating_point():
        targets = targets.to(inputs.dtype)
    outputs = _eval_outputs(module, inputs[:2])
    if not isinstance(outputs, torch.Tensor):
        raise ValueError(
            f"module returns {type(outputs).__name__}; it must return one tensor. Wrap it in a "
            "module that selects the output."
        )
    targets = match_outputs(targets, outputs, criterion)
    with forked_torch(inputs.device):
        loss = _loss(criterion, outputs, targets[:2])
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
        found = f"shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss)
        raise ValueError(
            f"criterion returns {found} for {len(outputs)} samples; it must return one number that "
            "can be differentiated by the module's parameters. Use reduction='mean' "
            "(criterion_params={'reduction': 'mean'}), and no detach()."
        )
    return targets


def output_width(module: nn.Module, example: np.ndarray) -> int:
    """Return the number of columns that a module returns; 0 where that is not a 2-D tensor."""
    outputs = _eval_outputs(module, cast_inputs(example, module))
    is_table = isinstance(outputs, torch.Tensor) and outputs.ndim >= 2
    return int(outputs.shape[1]) if is_table else 0


def check_samples(inputs: torch.Tensor, module: nn.Module) -> None:
    """Raise a ValueError where the module does not take the samples; it is tried on two."""
    _eval_outputs(module, inputs[:2])


def mean_loss(
    module: nn.Module, criterion: Loss, inputs: torch.Tensor, targets: torch.Tensor, batch_size: int
) -> float:
    """Return the loss of all samples in eval mode; outputs are computed batch by batch."""
    parts = inputs.split(batch_size)

    def outputs(module: nn.Module) -> torch.Tensor:
        return torch.cat([without_gradients(module, part) for part in parts])

    with torch.no_grad(), forked_torch(inputs.device):
        return float(criterion(_in_eval_mode(module, outputs), targets))


def module_outputs(module: nn.Module, samples: torch.Tensor) -> Any:
    """Return what the module makes of some samples; a ValueError where it does not take them."""
    try:
        # A copy, because a module may change its input in place, and the memory may be the user's.
        return module(samples.clone())
    except torch.OutOfMemoryError:
        raise
    except _INPUT_ERRORS as error:
        shape = tuple(samples.shape[1:])
        remedy = f"Pass a module that takes a batch of shape (n, {', '.join(map(str, shape))})"
        if samples.is_floating_point() and any(isinstance(p, _LOOKUPS) for p in module.modules()):
            remedy = f"An embedding layer takes integers: pass X.astype(int). {remedy}"
        raise ValueError(
            f"module={type(module).__name__} fails on samples of shape {shape} and type "
            f"{str(samples.dtype).removeprefix('torch.')}: {error}. {remedy}, or reshape X."
        ) from error


def _integer_dtype(X: np.ndarray, module: nn.Module, floating: torch.dtype) -> torch.dtype:
    """Return the type in which a module is given integers or booleans: the first that it takes of
    ``floating`` and their own one, or the other way round.
    """
    # Networks of layers take floats, and a module that takes both computes the same from both,
    # unless it looks numbers up that floats cannot hold.
    own = torch.bool if X.dtype.kind == "b" else torch.int64
    looks_up = any(isinstance(part, _LOOKUPS) for part in module.modules())
    order = (own, floating) if looks_up or not _is_exact(X, floating) else (floating, own)
    errors = []
    samples = torch.from_numpy(X[_extreme_samples(X)].astype(_kept_dtype(X)))
    for dtype in order:
        try:
            _eval_outputs(module, samples.to(module_device(module), dtype))
            return dtype
        except ValueError as error:
            errors.append(error)
    causes = " ".join(f"As {dtype}: {e.__cause__}." for dtype, e in zip(order, errors, strict=True))
    raise ValueError(
        f"module={type(module).__name__} fails on samples of shape {X.shape[1:]} that hold "
        f"integers, given as floats and as they are. {causes} Pass a module that takes them, or "
        "reshape X."
    ) from errors[0]


def _kept_dtype(X: np.ndarray) -> type:
    return np.bool_ if X.dtype.kind == "b" else np.int64


def _extreme_samples(X: np.ndarray) -> np.ndarray:
    """Return the indices of two samples, and of those with the extremes of each column."""
    # A table that has rows for the extremes has rows for all.
    columns = X.reshape(len(X), -1)
    if columns.shape[1] > _MAX_COLUMNS:
        columns = np.stack([columns.min(1), columns.max(1)], axis=1)
    found = [np.arange(min(2, len(X))), columns.argmin(0), columns.argmax(0)]
    return np.unique(np.concatenate(found))


def _is_exact(X: np.ndarray, dtype: torch.dtype) -> bool:
    """Return whether a floating type holds all integers in X."""
    largest = max(abs(int(X.max())), abs(int(X.min())))
    return largest <= 2 / torch.finfo(dtype).eps


def _eval_outputs(module: nn.Module, samples: torch.Tensor) -> Any:
    """Return what the module makes of some samples in eval mode; it is left as found."""
    # A lazy module gets its parameters and buffers here, which cannot be put back.
    buffers = nullcontext() if _is_lazy(module) else kept_buffers(module)
    with forked_torch(samples.device), buffers:
        return _in_eval_mode(module, lambda m: module_outputs(m, samples))


def _is_lazy(module: nn.Module) -> bool:
    return any(is_lazy(tensor) for tensor in (*module.parameters(), *module.buffers()))


def _in_eval_mode(module: nn.Module, call: Callable[[nn.Module], Any]) -> Any:
    was_training = module.training
    try:
        return call(module.eval())
    finally:
        module.train(was_training)


def _loss(criterion: Loss, outputs: torch.Tensor, targets: torch.Tensor) -> Any:
    """Return the loss of some samples; a ValueError where the criterion does not take them."""
    try:
        return criterion(outputs, targets)
    except torch.OutOfMemoryError:
        raise
    except _INPUT_ERRORS as error:
        title = getattr(criterion, "__name__", type(criterion).__name__)
        raise ValueError(
            f"criterion={title} fails on outputs of shape {tuple(outputs.shape)} and targets of "
            f"shape {tuple(targets.shape)} and dtype {targets.dtype}: {error}. Change "
            "criterion_params, or what module returns; criterion=None chooses by the type of y."
        ) from error


def _module_dtype(module: nn.Module) -> torch.dtype:
    floating = (p.dtype for p in module.parameters() if p.is_floating_point())
    return next(floating, torch.get_default_dtype())
