"""Runs as plain values that a file can hold, and back; settings as a manifest describes them."""

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
from skdmap.trajectory._training.module_state import module_tensors
from skdmap.trajectory._training.run_state import Pass, Run

# Fields of a Run that are not saved as they are.
_CONVERTED = {"module", "dropout", "passes", "optimizer", "scheduler"}
_NOT_SAVED = {"optimizer_params", "captured"}


def run_state(run: Run, *, is_over: bool) -> dict[str, Any]:
    """Return a run as tensors, numbers and strings, for :func:`restore_run`.
    The module of a run that is over is saved on its own, once, and left out here.
    """
    state = {k: v for k, v in vars(run).items() if k not in _CONVERTED | _NOT_SAVED}
    state |= {"is_over": is_over, "dropout": list(run.dropout)}
    state["passes"] = [asdict(one) for one in run.passes]
    for name, pair in (("optimizer", run.optimizer), ("scheduler", run.scheduler)):
        state[name] = None if pair is None else {"kind": describe(pair[0]), "state": pair[1]}
    state["tensors"] = None if is_over else module_tensors(run.module)
    return state


def restore_run(
    run: Run,
    state: Mapping[str, Any],
    *,
    optimizer: type,
    scheduler: type | None,
    module_state: Mapping[str, Any] | None,
) -> None:
    """Bring a fresh run, in place, to where a saved one stood.
    ``module_state``: state_dict of the module of a run that is over.
    """
    for name in (vars(run).keys() & state.keys()) - _CONVERTED:  # earlier versions saved fewer
        setattr(run, name, state[name])
    run.dropout = list(state["dropout"])
    run.passes = [Pass(**one) for one in state["passes"]]
    run.optimizer = _saved_state(state["optimizer"], optimizer)
    run.scheduler = _saved_state(state["scheduler"], scheduler)
    if state["tensors"] is not None:
        _load_tensors(run.module, state["tensors"])
    elif module_state is not None:
        run.module.load_state_dict(module_state)
    if run.reference is not None:
        run.reference = run.reference.to(next(run.module.parameters()).device)
    run.captured = run.step


def stored_seeds(random_state: Any, store: Any) -> SeedStreams:
    """Return the seeds to resume with: the stored master where ``random_state`` leaves it open."""
    seeds = resolve_seeds(random_state)
    master = random_state.get("seed") if isinstance(random_state, Mapping) else random_state
    record = read_manifest(Path(store))
    if master is not None or record is None or "seeds" not in record["settings"]:
        return seeds
    return SeedStreams(int(record["settings"]["seeds"]["master"]), seeds.held)


def describe(value: Any) -> Any:
    """Return a setting as JSON values, alike in every process."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): describe(entry) for key, entry in value.items()}
    if isinstance(value, torch.Tensor):
        return checksum(value.detach().cpu().numpy())
    if isinstance(value, np.ndarray):
        return checksum(value)
    if isinstance(value, nn.Module):
        tensors = {name: describe(tensor) for name, tensor in module_tensors(value).items()}
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


def _load_tensors(module: nn.Module, saved: Mapping[str, torch.Tensor]) -> None:
    own = module_tensors(module)
    for name, value in saved.items():
        if own[name].dtype != value.dtype:
            raise ValueError(
                f"resume=True: {name} of the module is {own[name].dtype} here and {value.dtype} "
                "there, so the rows would not be those of an undisturbed fit. Build the module in "
                "that type; torch.set_default_dtype sets it for module=None."
            )
        with torch.no_grad():
            own[name].copy_(value)


def _saved_state(saved: Any, kind: type | None) -> tuple[type, dict[str, Any]] | None:
    """Return class and state; None where the class is another one now."""
    if saved is None or kind is None or saved["kind"] != describe(kind):
        return None
    return kind, saved["state"]
