"""Conversion between a torch module's trainable parameters and one flat vector.

The layout is the order of ``named_parameters()``; tied parameters appear once, buffers do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch


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
            if not any(fnmatchcase(name, pattern) for name, _ in trainable):
                raise ValueError(
                    f"parameters={pattern!r} matches no trainable parameter. Trainable "
                    f"parameters are {', '.join(name for name, _ in trainable)}."
                )
        trainable = [(n, p) for n, p in trainable if any(fnmatchcase(n, w) for w in wanted)]
    slices, start = [], 0
    for _, parameter in trainable:
        slices.append(slice(start, start + parameter.numel()))
        start += parameter.numel()
    return ParameterLayout(
        names=tuple(name for name, _ in trainable),
        shapes=tuple(tuple(p.shape) for _, p in trainable),
        slices=tuple(slices),
    )


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
