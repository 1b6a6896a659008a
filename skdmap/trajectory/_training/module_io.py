"""Data in the type that a module and its loss take, and errors where they do not fit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from skdmap._random import forked_torch
from skdmap.trajectory._training.factories import Loss
from skdmap.trajectory._training.module_state import kept_buffers, module_device
from skdmap.trajectory._training.targets import match_outputs

# What torch and modules raise on input that does not fit.
_INPUT_ERRORS = (RuntimeError, ValueError, TypeError, IndexError)


def cast_inputs(X: np.ndarray, module: nn.Module) -> torch.Tensor:
    """Return X on the module's device, in the type of its first floating-point parameter."""
    values = X if X.dtype in (np.float32, np.float64) else X.astype(np.float64)
    # Not the user's memory where torch would warn (read-only) or fail (negative strides).
    values = np.require(values, requirements=["C", "W"])
    return torch.from_numpy(values).to(module_device(module), _module_dtype(module))


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
            f"criterion returns {found}; it must return one number that can be differentiated by "
            "the module's parameters. Use reduction='mean', and no detach()."
        )
    return targets


def output_width(module: nn.Module, example: np.ndarray) -> int:
    """Return the number of columns that a module returns; 0 where that is not a 2-D tensor."""
    with torch.no_grad(), kept_buffers(module):
        outputs = _eval_outputs(module, cast_inputs(example, module))
    is_table = isinstance(outputs, torch.Tensor) and outputs.ndim >= 2
    return int(outputs.shape[1]) if is_table else 0


def mean_loss(
    module: nn.Module, criterion: Loss, inputs: torch.Tensor, targets: torch.Tensor, batch_size: int
) -> float:
    """Return the loss of all samples in eval mode; outputs are computed batch by batch."""
    with torch.no_grad(), forked_torch(inputs.device):
        parts = inputs.split(batch_size)
        outputs = _in_eval_mode(module, lambda m: torch.cat([m(part.clone()) for part in parts]))
        return float(criterion(outputs, targets))


def module_outputs(module: nn.Module, samples: torch.Tensor) -> Any:
    """Return what the module makes of some samples; a ValueError where it does not take them."""
    try:
        # A copy, because a module may change its input in place, and the memory may be the user's.
        return module(samples.clone())
    except torch.OutOfMemoryError:
        raise
    except _INPUT_ERRORS as error:
        shape = tuple(samples.shape[1:])
        raise ValueError(
            f"module={type(module).__name__} fails on samples of shape {shape}: {error}. Pass a "
            f"module that takes a batch of shape (n, {', '.join(map(str, shape))}), or reshape X."
        ) from error


def _eval_outputs(module: nn.Module, samples: torch.Tensor) -> Any:
    with forked_torch(samples.device):
        return _in_eval_mode(module, lambda m: module_outputs(m, samples))


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
