"""Whether a training step may draw random numbers from torch's global generators."""

from typing import Any

import torch
from torch import nn

from skdmap.trajectory._training.config import RunTask

# torch's own layers that draw in their forward, or may.
_RANDOM_LAYERS = (
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
    nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d, nn.MultiheadAttention,
    nn.TransformerEncoderLayer, nn.TransformerDecoderLayer, nn.RNNBase,
)  # fmt: skip


def draws_at_random(module: nn.Module, optimizer: torch.optim.Optimizer, task: RunTask) -> bool:
    """Return False only where everything that runs in a step is torch's own and deterministic."""
    if task.observe is not None:
        return True
    parts = list(module.modules())
    if isinstance(task.criterion, nn.Module):
        parts += task.criterion.modules()
    elif not _is_torchs(task.criterion, "torch.nn.functional"):
        return True
    return not _is_torchs(type(optimizer), "torch.optim") or any(map(_may_draw, parts))


def _may_draw(part: nn.Module) -> bool:
    if isinstance(part, _RANDOM_LAYERS):
        return True
    has_hooks = part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part)
    return bool(has_hooks) or not _is_torchs(type(part).forward, "torch.nn.modules")


def _is_torchs(what: Any, package: str) -> bool:
    return str(getattr(what, "__module__", "")).startswith(f"{package}.") or (
        getattr(what, "__module__", "") == package
    )
