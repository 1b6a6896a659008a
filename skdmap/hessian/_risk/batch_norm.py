"""BatchNorm statistics: which layers have them, and what "recalibrate" makes of them at a point."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.func import functional_call

from skdmap._parameters import copy_module
from skdmap._random import forked_torch
from skdmap.hessian._operators.autodiff import exact_mode
from skdmap.hessian._operators.process_group import Group
from skdmap.hessian._risk.module_loss import ModuleLoss

MODES = ("eval", "recalibrate", "train")
_STATISTICS = ("running_mean", "running_var")
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def batch_norm_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return, by name, the layers that normalise by batch statistics in train mode."""
    return {
        name: part
        for name, part in module.named_modules()
        if hasattr(part, "running_mean") and hasattr(part, "track_running_stats")
        if part.track_running_stats or not isinstance(part, _INSTANCE_NORMS)
    }


def check_statistics(loss: ModuleLoss, batches: Sequence[slice], mode: str) -> None:
    """Raise if batch statistics are needed of a batch of one sample, which has no variance."""
    layers = batch_norm_layers(loss.module)
    single = next((rows.start for rows in batches if rows.stop - rows.start == 1), None)
    if mode == "eval" or not layers or single is None:
        return
    module = copy_module(loss.module)
    for layer in batch_norm_layers(module).values():
        layer.train()

    def takes(rows: list[int]) -> bool:
        try:
            with exact_mode(), forked_torch(loss.X.device):
                module(loss.X[rows])
        except ValueError:
            return False
        return True

    # One sample of many entries per channel, such as an image, has statistics.
    if takes([single]) or not takes([single, single]):
        return
    ways = "Pass more samples, or set mode='eval'."
    if mode == "recalibrate":
        ways = "Set batch_size=None or another number, drop_last of a DataLoader, or mode='eval'."
    raise ValueError(
        f"mode={mode!r} with a batch of 1 sample, number {single} of {len(loss.X)}: one sample has "
        f"no variance for the layers {', '.join(layers)}. {ways}"
    )


def recalibrated_statistics(
    loss: ModuleLoss, parts: tuple[torch.Tensor, ...], batches: Sequence[slice], group: Group
) -> dict[str, torch.Tensor]:
    """Return the running statistics, by buffer name, that one pass over the data gives at a point.
    Batch statistics are averaged with the numbers of samples, over all ranks of the group.
    """
    module = copy_module(loss.module)
    layers = {
        name: layer
        for name, layer in batch_norm_layers(module).items()
        if layer.running_mean is not None
    }
    names = [f"{name}.{kind}".lstrip(".") for name in layers for kind in _STATISTICS]
    if not names:
        return {}
    for layer in layers.values():
        layer.train()
        vars(layer)["momentum"] = 1.0  # the running value is then that of the last batch
    own = dict(module.named_buffers())
    totals = [torch.zeros_like(own[name], dtype=torch.float64) for name in names]
    for rows in batches:
        state = {name: buffer.clone() for name, buffer in own.items()}
        state.update(zip(loss.layout.names, parts, strict=True))
        with exact_mode():
            functional_call(module, state, (loss.X[rows].clone(),))
        for total, name in zip(totals, names, strict=True):
            total += (rows.stop - rows.start) * state[name].double()
    (n_rows,) = group.sums(float(len(loss.X)))
    return {
        name: (group.sum_(total) / n_rows).to(own[name].dtype)
        for name, total in zip(names, totals, strict=True)
    }
