"""What is varied: one training setting, and the settings of the study."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler
from torch import nn

from skdmap import make_mlp


@dataclass(frozen=True)
class Setting:
    """One way to train; everything that a trajectory depends on."""

    name: str
    data: str = "digits"
    model: str = "mlp"
    hidden: tuple[int, ...] = (32,)
    gain: float = 1.0
    optimizer: str = "SGD"
    optimizer_params: dict[str, Any] = field(default_factory=lambda: {"lr": 0.1})
    batch_size: int = 64
    label_noise: float = 0.0
    epochs: int = 15
    n_runs: int = 5
    seed: int = 0
    rows: int | None = None

    @property
    def key(self) -> str:
        """A digest of all but the name: equal settings share a cached trajectory."""
        content = {k: v for k, v in asdict(self).items() if k != "name"}
        text = json.dumps(content, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @property
    def learning_rate(self) -> float:
        return float(self.optimizer_params["lr"])


def study_settings(*, quick: bool, seed: int) -> dict[str, list[Setting]]:
    """Return the settings by factor; the first of each list is the base setting."""
    small = {"epochs": 6, "n_runs": 2, "rows": 600} if quick else {}
    base = Setting("base", seed=seed, **small)
    momentum = {"lr": 0.02, "momentum": 0.9}
    depths = [(32, 32)] if quick else [(32, 32), (32, 32, 32)]
    widths = [] if quick else [(16,), (64,)]
    batches = [16] if quick else [16, 256]
    gains = [0.5] if quick else [0.5, 2.0]
    factors = {
        "depth": [replace(base, name=f"{len(h)} hidden layers", hidden=h) for h in depths],
        "width": [replace(base, name=f"width {h[0]}", hidden=h) for h in widths],
        "batch size": [replace(base, name=f"batch size {b}", batch_size=b) for b in batches],
        "label noise": [replace(base, name="20 % label noise", label_noise=0.2)],
        "initialisation": [replace(base, name=f"initial weights x {g:g}", gain=g) for g in gains],
        "optimizer": [
            replace(base, name="momentum 0.9", optimizer_params=momentum),
            replace(base, name="Adam", optimizer="Adam", optimizer_params={"lr": 0.003}),
        ],
    }
    if not quick:
        factors["network and data"] = [
            replace(base, name="small CNN", model="cnn"),
            replace(base, name="MNIST-1D", data="mnist1d"),
        ]
    return {factor: [base, *others] for factor, others in factors.items() if others}


def load_data(name: str, rows: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return standardised rows in float32 and labels."""
    if name == "digits":
        X, y = load_digits(return_X_y=True)
    else:
        from mnist1d.data import get_dataset_args, make_dataset

        data = make_dataset(get_dataset_args())
        X, y = data["x"], data["y"]
    return StandardScaler().fit_transform(X[:rows]).astype(np.float32), np.asarray(y[:rows])


def make_network(
    n_features: int, n_outputs: int, model: str, hidden: tuple[int, ...], gain: float
) -> nn.Module:
    """Return a freshly initialised network, its weights times ``gain``."""
    if model == "cnn":
        side = round(n_features**0.5)
        module: nn.Module = nn.Sequential(
            nn.Unflatten(1, (1, side, side)),
            nn.Conv2d(1, 8, 3, padding=1),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * (side // 4) ** 2, n_outputs),
        )
    else:
        module = make_mlp(n_features, n_outputs, hidden)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter *= gain
    return module
