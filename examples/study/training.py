"""Settings -> trajectories, kept in a folder so that a second call goes on where one stopped."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from settings import Setting, load_data, make_network

from skdmap import EmpiricalRisk, TrajectorySampler

N_ROWS = 300


@dataclass(frozen=True)
class Trajectories:
    """All runs of one setting."""

    setting: Setting
    snapshots: np.ndarray
    steps: np.ndarray
    run_ids: np.ndarray
    losses: np.ndarray

    @property
    def runs(self) -> np.ndarray:
        return np.unique(self.run_ids)

    def of_run(self, run: int) -> np.ndarray:
        return self.snapshots[self.run_ids == run]


def make_sampler(setting: Setting, n_features: int, n_outputs: int, n_rows: int, **changes: Any):
    """Return a TrajectorySampler of a setting that records about N_ROWS rows a run."""
    n_steps = setting.epochs * -(-n_rows // setting.batch_size)
    options: dict[str, Any] = {
        "module": make_network,
        "module_params": {
            "n_features": n_features,
            "n_outputs": n_outputs,
            "model": setting.model,
            "hidden": setting.hidden,
            "gain": setting.gain,
        },
        "criterion": torch.nn.CrossEntropyLoss(),
        "optimizer": setting.optimizer,
        "optimizer_params": setting.optimizer_params,
        "max_epochs": setting.epochs,
        "batch_size": setting.batch_size,
        "record_every": max(1, n_steps // N_ROWS),
        "n_runs": setting.n_runs,
        "label_noise": setting.label_noise,
        "random_state": setting.seed,
    }
    return TrajectorySampler(**(options | changes))


def train(setting: Setting, folder: Path) -> Trajectories:
    """Train, or read what an earlier call has trained."""
    path = folder / f"trajectory-{setting.key}.npz"
    names = ("snapshots", "steps", "run_ids", "losses")
    if not path.exists():
        X, y = load_data(setting.data, setting.rows)
        sampler = make_sampler(setting, X.shape[1], len(np.unique(y)), len(X)).fit(X, y)
        if sampler.interrupted_:
            raise KeyboardInterrupt
        fitted = {name: np.asarray(getattr(sampler, f"{name}_")) for name in names}
        unfinished = path.with_suffix(".part")
        with unfinished.open("wb") as file:
            np.savez(file, **fitted)
        os.replace(unfinished, path)
    with np.load(path, allow_pickle=False) as stored:
        return Trajectories(setting, *(stored[name] for name in names))


def risk_of(setting: Setting, **options: Any) -> EmpiricalRisk:
    """Return the loss of a setting on clean labels, as a function of a snapshot."""
    X, y = load_data(setting.data, setting.rows)
    with torch.random.fork_rng():
        module = make_network(
            X.shape[1], len(np.unique(y)), setting.model, setting.hidden, setting.gain
        )
    return EmpiricalRisk(module, torch.nn.CrossEntropyLoss(), X, y, **options)


def kept(folder: Path, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return a result as JSON has it, computed only if no earlier call has kept it."""
    path = folder / f"{name}.json"
    if not path.exists():
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(compute()), encoding="utf-8")
        os.replace(unfinished, path)
    return json.loads(path.read_text(encoding="utf-8"))
