"""Memory budget of kept graphs and Krylov vectors, by what the system reports as resident."""

import math
import os
import sys
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_STATM, _MEMINFO = Path("/proc/self/statm"), Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_FALLBACK = 2**32  # free bytes, where the system does not tell


class MemoryBudget:
    """Bytes that may be used from now on; "auto" is a quarter of the memory that is free now.
    Counts resident memory (on a GPU what torch allocated): freed blocks often stay resident.
    """

    def __init__(self, n_bytes: Any = "auto", device: torch.device | str | None = None) -> None:
        self._device = torch.device("cpu" if device is None else device)
        automatic = isinstance(n_bytes, str) and n_bytes == "auto"
        number = isinstance(n_bytes, Real) and not isinstance(n_bytes, bool)
        if not automatic and not (number and n_bytes >= 1 and math.isfinite(n_bytes)):
            raise ValueError(
                f"memory_budget={n_bytes!r} must be a number of bytes >= 1, or 'auto' for a "
                "quarter of the free memory."
            )
        self.n_bytes = _free(self._device) // 4 if automatic else int(n_bytes)
        self._before = _used(self._device)

    def left(self) -> int:
        """Return the bytes left; negative where more than the budget is in use."""
        return self.n_bytes - (_used(self._device) - self._before)


def least_budget(loss: Any, theta: Any, n_pairs: int) -> int:
    """Return the bytes of n_pairs + 10 vectors in float64 and of three chunks of one sample."""
    chunk = loss.chunk_bytes(1) if hasattr(loss, "chunk_bytes") else 0
    return 8 * (n_pairs + 10) * len(theta) + 3 * chunk


def graph_bytes(make: Callable[[], object], known: tuple[torch.Tensor, ...]) -> tuple[int, int]:
    """Return the bytes and the number of distinct storages that a graph saves, without ``known``.
    The number is that of the operations in a product, up to a small factor.
    """
    held: dict[int, int] = {}
    there = {tensor.untyped_storage().data_ptr() for tensor in known}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    try:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            graph = make()
    except (RuntimeError, ValueError):  # torch.func in the module, or activation checkpointing
        with _Allocations() as allocations:
            graph = make()
        held = allocations.alive()
    del graph  # it had to live until here: a freed address would be used again
    sizes = [size for address, size in held.items() if address not in there]
    return sum(sizes), len(sizes)


class _Allocations(TorchDispatchMode):
    """Notes the storages of all results, whatever holds on to them."""

    def __init__(self) -> None:
        super().__init__()
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided:
                storage = tensor.untyped_storage()
                try:
                    address = storage.data_ptr()
                except RuntimeError:  # a wrapper of torch.func; what it wraps is seen itself
                    continue
                self._storages[address] = StorageWeakRef(storage), storage.nbytes()
        return result

    def alive(self) -> dict[int, int]:
        """Return the bytes of the storages that still exist, by address."""
        return {
            address: size
            for address, (reference, size) in self._storages.items()
            if not reference.expired()
        }


def _used(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    try:
        import resource
    except ImportError:  # Windows: nothing known, so nothing counted
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # never too small
    return peak if sys.platform == "darwin" else 1024 * peak


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if not _MEMINFO.exists():
        return _FALLBACK
    lines = _MEMINFO.read_text().splitlines()
    free = next((1024 * int(li.split()[1]) for li in lines if li.startswith("MemAvail")), _FALLBACK)
    try:  # a container may have less than the machine
        limit, used = ((_CGROUP / f"memory.{name}").read_text() for name in ("max", "current"))
        return max(0, min(free, int(limit) - int(used)))
    except (OSError, ValueError):
        return free
