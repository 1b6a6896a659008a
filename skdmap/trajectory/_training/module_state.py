"""A module's buffers, gradients and tensors: read, written, put back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from skdmap._parameters import (
    ParameterLayout,
    assign_parameters,
    copy_module,
    parameter_layout,
)


def flatten_buffers(module: nn.Module) -> torch.Tensor:
    """Return a copy of the buffers, float64 on the CPU, shape (n_buffer_entries,)."""
    # Asked each time, since a module may replace a buffer (self.mean = ...). float64 holds float32
    # statistics and counters up to 2^53 exactly.
    buffers = list(module.buffers())
    if not buffers:
        return torch.empty(0, dtype=torch.float64)
    return torch.cat([b.detach().to("cpu", torch.float64).reshape(-1) for b in buffers])


def assign_buffers(module: nn.Module, values: torch.Tensor) -> None:
    """Write a vector of :func:`flatten_buffers` into the buffers, in place."""
    start = 0
    for buffer in module.buffers():
        buffer.copy_(values[start : start + buffer.numel()].view(buffer.shape))
        start += buffer.numel()


@contextmanager
def kept_buffers(module: nn.Module) -> Iterator[None]:
    """Put the buffers back on leaving: the same tensors with the same values."""
    placed = [
        (part, name, buffer)
        for part in module.modules()
        for name, buffer in part.named_buffers(recurse=False)
    ]
    values = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for part, name, buffer in placed:
            setattr(part, name, buffer)
        with torch.no_grad():
            for buffer, before in values:
                buffer.copy_(before)


@contextmanager
def kept_gradients(module: nn.Module) -> Iterator[None]:
    """Put the gradients back on leaving; inside, the parameters hold copies of them."""
    # Copies, because backward() adds to what it finds, and the step must not see that.
    held = [(parameter, parameter.grad) for parameter in module.parameters()]
    for parameter, gradient in held:
        if gradient is not None:
            parameter.grad = gradient.clone()
    try:
        yield
    finally:
        for parameter, gradient in held:
            parameter.grad = gradient


def without_gradients(
    call: Callable[[torch.Tensor], torch.Tensor], samples: torch.Tensor
) -> torch.Tensor:
    """Return ``call(samples)``, detached, under no_grad unless that fails."""
    # Copies, because a module may change its input in place.
    try:
        with torch.no_grad():
            return call(samples.clone())
    except RuntimeError:  # a module that takes derivatives in its forward, as forces of an energy
        with torch.enable_grad():
            return call(samples.clone()).detach()


def module_device(module: nn.Module) -> torch.device:
    """Return the device of the first parameter."""
    return next(module.parameters()).device


def module_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers by name, detached; those that state_dict leaves out too."""
    named = (*module.named_parameters(), *module.named_buffers())
    return {name: tensor.detach() for name, tensor in named}


def restored_module(
    module: nn.Module, layout: ParameterLayout, theta: np.ndarray, buffers: np.ndarray
) -> nn.Module:
    """Return a copy of a module, in eval mode, with the parameters and buffers of a row."""
    missing = [name for name in parameter_layout(module).names if name not in layout.names]
    if missing:
        raise ValueError(
            f"The rows leave out the parameters {', '.join(missing)}, so no module can be built "
            "from one. Fit with parameters=None."
        )
    copied = copy_module(module)
    assign_parameters(copied, torch.tensor(theta), layout)
    assign_buffers(copied, torch.tensor(buffers))
    return copied.eval()
