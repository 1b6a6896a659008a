"""Runs as plain values that a file can hold, and back; and how a store says what it was made by."""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from skdmap._random import SeedStreams, resolve_seeds
from skdmap.trajectory._storage.manifest import public_name, read_manifest
from skdmap.trajectory._training.run_state import Pass, Run

# Plain values, saved and restored as they are.
_PLAIN = (
    "label_seed", "step", "epoch", "cursor", "learning_rate", "path", "waiting_loss",
    "waiting_rows", "recorded", "row", "row_step", "diverged", "stopped",
)  # fmt: skip
_TENSORS = ("batches", "order", "reference")


def run_state(run: Run, *, is_over: bool) -> dict[str, Any]:
    """Return a run as tensors, numbers and strings.

    Parameters
    ----------
    run : Run
        Up to date: ``run.captured == run.step``, or between two calls of ``train``.
    is_over : bool
        The module of a run that is over is saved once, on its own, and left out here.

    Returns
    -------
    dict
        For :func:`restore_run`.
    """
    state: dict[str, Any] = {name: getattr(run, name) for name in (*_PLAIN, *_TENSORS)}
    state |= {"index": run.index, "is_over": is_over, "dropout": list(run.dropout)}
    state["passes"] = [asdict(one) for one in run.passes]
    for name in ("optimizer", "scheduler"):
        pair = getattr(run, name)
        state[name] = None if pair is None else {"kind": describe(pair[0]), "state": pair[1]}
    # state_dict leaves out buffers that are not persistent.
    state["tensors"] = None if is_over else _tensors(run.module)
    return state


def restore_run(
    run: Run,
    state: Mapping[str, Any],
    *,
    optimizer: type,
    scheduler: type | None,
    module_state: Mapping[str, Any] | None,
) -> None:
    """Bring a fresh run to where a saved one stood, in place.

    Parameters
    ----------
    run : Run
        At step 0, with a module of the same layout.
    state : mapping
        From :func:`run_state`.
    optimizer, scheduler : type
        What they are now; a state of another class is not used.
    module_state : mapping or None
        ``state_dict`` of the module of a run that is over.
    """
    for name in (*_PLAIN, *_TENSORS):
        setattr(run, name, state[name])
    run.dropout = list(state["dropout"])
    run.passes = [Pass(**one) for one in state["passes"]]
    for name, kind in (("optimizer", optimizer), ("scheduler", scheduler)):
        saved = state[name]
        is_same = saved is not None and kind is not None and saved["kind"] == describe(kind)
        setattr(run, name, (kind, saved["state"]) if is_same else None)
    if state["tensors"] is not None:
        own = _tensors(run.module)
        with torch.no_grad():
            for name, value in state["tensors"].items():
                own[name].copy_(value)
    elif module_state is not None:
        run.module.load_state_dict(module_state)
    if run.reference is not None:
        run.reference = run.reference.to(next(run.module.parameters()).device)
    run.captured = run.step


def stored_seeds(random_state: Any, store: Any) -> SeedStreams:
    """Return the seeds that a resumed recording goes on with.

    Parameters
    ----------
    random_state : object
        As the user gave it. Where it leaves the master seed open, the stored one is taken.
    store : path-like
        The folder.

    Returns
    -------
    SeedStreams
        Those of ``random_state`` where the folder is new.
    """
    seeds = resolve_seeds(random_state)
    master = random_state.get("seed") if isinstance(random_state, Mapping) else random_state
    record = read_manifest(Path(store))
    if master is not None or record is None or "seeds" not in record["settings"]:
        return seeds
    return SeedStreams(int(record["settings"]["seeds"]["master"]), seeds.held)


def describe(value: Any) -> Any:
    """Return a setting as JSON knows it, alike in every process.

    Examples
    --------
    >>> describe({"lr": 0.1, "kind": dict})
    {'lr': 0.1, 'kind': 'builtins.dict'}
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): describe(entry) for key, entry in value.items()}
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return checksum(np.asarray(value.detach().cpu() if hasattr(value, "detach") else value))
    if isinstance(value, nn.Module):
        tensors = {name: describe(tensor) for name, tensor in _tensors(value).items()}
        return {"class": describe(type(value)), "text": str(value), "tensors": tensors}
    if isinstance(value, functools.partial):
        return [describe(value.func), describe(value.args), describe(value.keywords)]
    if isinstance(value, (torch.dtype, torch.device, Path)):
        return str(value)
    if hasattr(value, "__qualname__"):  # classes and functions; a repr would hold an address
        return public_name(f"{value.__module__}.{value.__qualname__}")
    if hasattr(value, "__dataclass_fields__"):
        return [describe(type(value)), describe(vars(value))]
    if isinstance(value, Sequence):
        return [describe(entry) for entry in value]
    return describe(type(value))


def checksum(values: np.ndarray) -> str:
    """Return shape, type and a hash of the bytes of an array."""
    content = hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=8).hexdigest()
    return f"{values.dtype}{list(values.shape)}:{content}"


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    named = (*module.named_parameters(), *module.named_buffers())
    return {name: tensor.detach() for name, tensor in named}
