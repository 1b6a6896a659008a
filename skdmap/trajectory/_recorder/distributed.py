"""Which module a recording is of, and whether this process holds all of it."""

import os
import sys

import torch
from torch import nn


def check_whole(module: nn.Module) -> None:
    """Raise where parameters are sharded (FSDP, tensor parallelism, ZeRO-3) or still lazy."""
    for name, part in module.named_modules():
        if type(part).__name__ in ("FullyShardedDataParallel", "FSDPModule"):
            raise ValueError(_sharded(name or "module", type(part).__name__))
    tensor_module = sys.modules.get("torch.distributed.tensor")
    sharded = getattr(tensor_module, "DTensor", ())
    for name, parameter in module.named_parameters():
        if nn.parameter.is_lazy(parameter):
            raise ValueError(
                f"module has the lazy parameter {name!r}, whose shape is not known yet. Call the "
                "module on one batch before you record it."
            )
        if (sharded and isinstance(parameter, sharded)) or hasattr(parameter, "ds_tensor"):
            raise ValueError(_sharded(name, type(parameter).__name__))


def _sharded(name: str, kind: str) -> str:
    return (
        f"module has sharded parameters ({name}: {kind}); each process must hold every parameter "
        "whole. Record under DDP, or with a strategy that does not shard parameters (FSDP's "
        "NO_SHARD, ZeRO up to stage 2)."
    )


def is_follower() -> bool | None:
    """Return whether another process writes the rows; None where that is not known yet."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() != 0
    # A launcher may have given this process its rank before the process group exists.
    ranks = [os.environ.get(name, "0") for name in ("RANK", "LOCAL_RANK", "NODE_RANK")]
    return None if any(rank not in ("", "0") for rank in ranks) else False
