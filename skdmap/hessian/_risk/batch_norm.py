"""The mode of a module with statistics over batches -> what its buffers are at a point."""

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.func import functional_call

from skdmap._random import forked_torch
from skdmap.hessian._operators.process_group import Group
from skdmap.hessian._risk.module_loss import ModuleLoss

MODES = ("eval", "recalibrate", "train")
_KINDS = ("running_mean", "running_var")
_ROW_BY_ROW = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def statistics_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that normalise by batches in train mode, by name, as BatchNorm does.

    Parameters
    ----------
    module : torch.nn.Module
        The model.

    Returns
    -------
    dict of str to torch.nn.Module
        Those with running statistics, and those that would have them.

    Examples
    --------
    >>> from torch import nn
    >>> from skdmap.hessian._risk.batch_norm import statistics_layers
    >>> list(statistics_layers(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))))
    ['1']
    """
    return {
        name: part
        for name, part in module.named_modules()
        if hasattr(part, "running_mean") and hasattr(part, "track_running_stats")
        if part.track_running_stats or not isinstance(part, _ROW_BY_ROW)
    }


def check_statistics(loss: ModuleLoss, batches: Sequence[slice], mode: str) -> None:
    """Raise where statistics of a single row are wanted that it does not have.

    Parameters
    ----------
    loss : ModuleLoss
        Its module is copied.
    batches : sequence of slice
        Of which statistics are taken.
    mode : {"eval", "recalibrate", "train"}
        "eval" takes none.

    Raises
    ------
    ValueError
        With the layers and the ways out.
    """
    layers = statistics_layers(loss.module)
    single = next((rows.start for rows in batches if rows.stop - rows.start == 1), None)
    if mode == "eval" or not layers or single is None:
        return
    module = copy.deepcopy(loss.module)
    for layer in statistics_layers(module).values():
        layer.train()

    def takes(rows: list[int]) -> bool:
        try:
            with torch.no_grad(), forked_torch(loss.X.device):
                module(loss.X[rows])
        except ValueError:
            return False
        return True

    # One row of many entries a channel, as an image, has statistics.
    if takes([single]) or not takes([single, single]):
        return
    ways = "Pass more rows, or set mode='eval'."
    if mode == "recalibrate":
        ways = "Set batch_size=None or another number, drop_last of a DataLoader, or mode='eval'."
    raise ValueError(
        f"mode={mode!r} with a batch of 1 row, row {single} of {len(loss.X)}: it has no variance "
        f"that layers {', '.join(layers)} could take. {ways}"
    )


def recalibrated(
    loss: ModuleLoss,
    parts: tuple[torch.Tensor, ...],
    batches: Sequence[slice],
    group: Group,
) -> dict[str, torch.Tensor]:
    """Return the running statistics that one pass over the data gives at a point.

    Parameters
    ----------
    loss : ModuleLoss
        Its module is copied; of the copy the layers with statistics are in train mode.
    parts : tuple of Tensor
        The point, in parts.
    batches : sequence of slice
        Their statistics are averaged, each with the number of its rows.
    group : Group
        The average goes over all of its ranks.

    Returns
    -------
    dict of str to Tensor
        Buffers by name; empty for a module without running statistics.
    """
    module = copy.deepcopy(loss.module)
    layers = {
        name: layer
        for name, layer in statistics_layers(module).items()
        if layer.running_mean is not None
    }
    names = [f"{name}.{kind}".lstrip(".") for name in layers for kind in _KINDS]
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
        with torch.no_grad():
            functional_call(module, state, (loss.X[rows].clone(),))
        for total, name in zip(totals, names, strict=True):
            total += (rows.stop - rows.start) * state[name].double()
    (n_rows,) = group.sums(float(len(loss.X)))
    return {
        name: (group.sum_(total) / n_rows).to(own[name].dtype)
        for name, total in zip(names, totals, strict=True)
    }
