"""Gradients that training goes on with, kept from whoever looks at a module."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["kept_gradients"]


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
