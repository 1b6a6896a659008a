"""Conversion between a torch module's trainable parameters and one flat vector.

The layout is the order of ``named_parameters()``; tied parameters appear once, buffers do not.
"""

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch


def inner_module(module: torch.nn.Module) -> torch.nn.Module:
    """Return the module without wrappers that replicate it (DataParallel, DDP) or compile it."""
    # Its names are those of a run on one process, and calling it waits for no other process.
    while True:
        compiled = getattr(module, "_orig_mod", None)  # torch.compile
        if isinstance(module, torch.nn.parallel.DistributedDataParallel | torch.nn.DataParallel):
            module = module.module
        elif isinstance(compiled, torch.nn.Module):
            module = compiled
        else:
            return module


def copy_module(module: torch.nn.Module) -> torch.nn.Module:
    """Return a deep copy, also of a module whose weight is computed (weight_norm, prune).
    Tensors that are results of a computation are copied as values; forward computes them again.
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        for tensor in _tensors(vars(part)):
            if not tensor.is_leaf:
                memo[id(tensor)] = tensor.detach().clone()
    return copy.deepcopy(module, memo)


def _tensors(value: Any, depth: int = 0) -> Iterator[torch.Tensor]:
    """Yield the tensors in a value and in containers inside it, three levels deep."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple) and depth < 3:
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _tensors(entry, depth + 1)


@dataclass(frozen=True)
class ParameterLayout:
    """Names, shapes and slices of the parameters in the flat vector."""

    names: tuple[str, ...]  # as module.named_parameters() gives them
    shapes: tuple[tuple[int, ...], ...]
    slices: tuple[slice, ...]  # of the flat vector

    @property
    def n_parameters(self) -> int:
        """Length of the flat vector."""
        return self.slices[-1].stop if self.slices else 0


def parameter_layout(
    module: torch.nn.Module, patterns: str | Sequence[str] | None = None
) -> ParameterLayout:
    """Return the layout of a module's trainable parameters.
    ``patterns``: shell patterns such as "layers.0.*"; a parameter is kept if one of them matches.
    """
    trainable = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if not trainable:
        raise ValueError(
            f"module={type(module).__name__} has no trainable parameters. Pass a module with at "
            "least one parameter that has requires_grad=True."
        )
    if patterns is not None:
        wanted = [patterns] if isinstance(patterns, str) else list(patterns)
        for pattern in wanted:
            if not any(_matches(name, pattern) for name, _ in trainable):
                raise ValueError(
                    f"parameters={pattern!r} matches no trainable parameter. Trainable "
                    f"parameters are {', '.join(name for name, _ in trainable)}."
                )
        trainable = [(n, p) for n, p in trainable if any(_matches(n, w) for w in wanted)]
    slices, start = [], 0
    for _, parameter in trainable:
        slices.append(slice(start, start + parameter.numel()))
        start += parameter.numel()
    return ParameterLayout(
        names=tuple(name for name, _ in trainable),
        shapes=tuple(tuple(p.shape) for _, p in trainable),
        slices=tuple(slices),
    )


def check_real(module: torch.nn.Module, names: Sequence[str]) -> None:
    """Raise on complex parameters among ``names``: the flat vector is real."""
    parameters = dict(module.named_parameters())
    found = [name for name in names if parameters[name].is_complex()]
    if found:
        raise ValueError(
            f"module has complex parameters ({', '.join(found)}); they must be real. Hold real and "
            "imaginary parts as parameters (torch.view_as_complex), or select others (parameters)."
        )


def _matches(name: str, pattern: str) -> bool:
    # torch.compile inserts "_orig_mod" into the names of a module and of those inside it.
    plain = re.sub(r"(^|\.)_orig_mod\.", r"\1", name)
    return fnmatchcase(name, pattern) or fnmatchcase(plain, pattern)


def flatten_parameters(module: torch.nn.Module, layout: ParameterLayout) -> torch.Tensor:
    """Return a detached copy of the parameters as one vector of shape (n_parameters,)."""
    parameters = dict(module.named_parameters())
    return torch.cat([parameters[name].detach().reshape(-1) for name in layout.names])


def unflatten_parameters(theta: torch.Tensor, layout: ParameterLayout) -> dict[str, torch.Tensor]:
    """Return views of ``theta`` by parameter name, for ``torch.func.functional_call``."""
    parts = zip(layout.names, layout.shapes, layout.slices, strict=True)
    return {name: theta[part].view(shape) for name, shape, part in parts}


def assign_parameters(
    module: torch.nn.Module, theta: torch.Tensor, layout: ParameterLayout
) -> None:
    """Write the vector ``theta`` into the parameters of ``module``, in place."""
    parameters = dict(module.named_parameters())
    with torch.no_grad():
        for name, value in unflatten_parameters(theta, layout).items():
            parameters[name].copy_(value)
