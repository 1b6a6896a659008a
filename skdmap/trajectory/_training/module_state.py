"""A module's buffers as one flat vector, and back: what goes with the parameters, but is none."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def flatten_buffers(module: nn.Module) -> torch.Tensor:
    """Return a copy of the buffers of a module as one vector.

    Parameters
    ----------
    module : torch.nn.Module
        Asked each time, in the order of ``module.buffers()``: a module may put a new tensor in
        place of a buffer (``self.mean = ...``), and a list of them would grow old.

    Returns
    -------
    Tensor of float64, shape (n_buffer_entries,), on the CPU
        float64 holds float32 statistics and counters up to 2^53 exactly.
    """
    buffers = list(module.buffers())
    if not buffers:
        return torch.empty(0, dtype=torch.float64)
    return torch.cat([b.detach().to("cpu", torch.float64).reshape(-1) for b in buffers])


def assign_buffers(module: nn.Module, values: torch.Tensor) -> None:
    """Write a vector of :func:`flatten_buffers` into the buffers of ``module``, in place."""
    start = 0
    for buffer in module.buffers():
        buffer.copy_(values[start : start + buffer.numel()].view(buffer.shape))
        start += buffer.numel()


@contextmanager
def kept_buffers(module: nn.Module) -> Iterator[None]:
    """Put the buffers back on leaving: the same tensors, with the values that they had."""
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
    """Put the gradients back on leaving: the same tensors, with the values that they had.

    Inside, the parameters hold copies of them: ``backward()`` adds to what it finds, and what a
    user's function adds must not become part of a step.

    Parameters
    ----------
    module : torch.nn.Module
        Whose parameters have them.

    Yields
    ------
    None
        Gradients may be read, added to and dropped inside.

    Examples
    --------
    >>> import torch
    >>> module = torch.nn.Linear(1, 1, bias=False)
    >>> module.weight.sum().backward()
    >>> with kept_gradients(module):
    ...     module.weight.sum().backward()
    ...     print(module.weight.grad)
    tensor([[2.]])
    >>> module.weight.grad
    tensor([[1.]])
    """
    held = [(parameter, parameter.grad) for parameter in module.parameters()]
    for parameter, gradient in held:
        if gradient is not None:
            parameter.grad = gradient.clone()
    try:
        yield
    finally:
        for parameter, gradient in held:
            parameter.grad = gradient


def module_device(module: nn.Module) -> torch.device:
    """Return the device of the first parameter."""
    return next(module.parameters()).device
