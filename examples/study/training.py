"""Settings -> trajectories of their runs, and networks at a point of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from settings import Setting, load_data, make_network

from skdmap import EmpiricalRisk, TrajectorySampler

RECORDED = ("snapshots", "steps", "run_ids", "losses")


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

    def thinned(self, n_rows: int) -> "Trajectories":
        """Return n_rows of each run, evenly spaced from its first row to its last."""
        kept = []
        for run in self.runs:
            own = np.flatnonzero(self.run_ids == run)
            if len(own) < n_rows:
                raise ValueError(
                    f"n_rows={n_rows} is more than the {len(own)} rows of run {run} of setting "
                    f"{self.setting.name!r}. Pass at most that many."
                )
            kept.append(own[np.linspace(0, len(own) - 1, n_rows).round().astype(int)])
        rows = np.concatenate(kept)
        return Trajectories(self.setting, *(getattr(self, name)[rows] for name in RECORDED))


def make_sampler(setting: Setting, n_features: int, n_outputs: int, **changes: Any) -> Any:
    """Return a TrajectorySampler of a setting."""
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
        "max_epochs": None,
        "max_steps": setting.n_steps,
        "batch_size": setting.batch_size,
        "n_runs": setting.n_runs,
        "label_noise": setting.label_noise,
        "random_state": setting.seed,
    }
    return TrajectorySampler(**(options | changes))


def train(setting: Setting, path: Path) -> None:
    """Train all runs, record a row at each step, and write them."""
    X, y = load_data(setting.data, setting.rows)
    sampler = make_sampler(setting, X.shape[1], len(np.unique(y))).fit(X, y)
    if sampler.interrupted_:
        raise KeyboardInterrupt
    with path.open("wb") as file:
        np.savez(
            file,
            **{name: np.asarray(getattr(sampler, f"{name}_")) for name in RECORDED},
        )


def read_trajectories(setting: Setting, path: Path) -> Trajectories:
    with np.load(path, allow_pickle=False) as stored:
        return Trajectories(setting, *(stored[name] for name in RECORDED))


def fresh_network(setting: Setting) -> torch.nn.Module:
    """Return a network of a setting; the global generator is left as it was."""
    X, y = load_data(setting.data, setting.rows)
    with torch.random.fork_rng():
        return make_network(
            X.shape[1], len(np.unique(y)), setting.model, setting.hidden, setting.gain
        )


def placed(setting: Setting, theta: np.ndarray) -> torch.nn.Module:
    """Return a network of a setting with the parameters theta."""
    module = fresh_network(setting)
    place(module, theta)
    return module


def place(module: torch.nn.Module, theta: np.ndarray) -> None:
    """Write theta into the parameters."""
    values = torch.as_tensor(theta, dtype=torch.float32)
    torch.nn.utils.vector_to_parameters(values, module.parameters())


def flat_gradient(module: torch.nn.Module, X: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """Return the gradient of the mean cross-entropy of some rows."""
    loss = torch.nn.functional.cross_entropy(module(X), y)
    gradients = torch.autograd.grad(loss, list(module.parameters()))
    return torch.cat([gradient.flatten() for gradient in gradients]).double().numpy()


def risk_of(setting: Setting, **options: Any) -> EmpiricalRisk:
    """Return the loss of a setting on clean labels, as a function of a snapshot."""
    X, y = load_data(setting.data, setting.rows)
    return EmpiricalRisk(fresh_network(setting), torch.nn.CrossEntropyLoss(), X, y, **options)
