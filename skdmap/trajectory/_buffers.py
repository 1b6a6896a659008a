"""A module's buffers as one flat vector, and back: what goes with the parameters, but is none."""

from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["assign_buffers", "flatten_buffers"]


def flatten_buffers(buffers: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return a copy of buffers as one vector.

    Parameters
    ----------
    buffers : sequence of Tensor
        All of a module's, in the order of ``module.buffers()``.

    Returns
    -------
    Tensor of float64, shape (n_buffer_entries,), on the CPU
        float64 holds float32 statistics and counters up to 2^53 exactly.
    """
    if not buffers:
        return torch.empty(0, dtype=torch.float64)
    return torch.cat([b.detach().to("cpu", torch.float64).reshape(-1) for b in buffers])


def assign_buffers(module: nn.Module, values: torch.Tensor) -> None:
    """Write a vector of :func:`flatten_buffers` into the buffers of ``module``, in place."""
    start = 0
    for buffer in module.buffers():
        buffer.copy_(values[start : start + buffer.numel()].view(buffer.shape))
        start += buffer.numel()
