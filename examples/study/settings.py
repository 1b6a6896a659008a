"""What is varied: one training setting, and the settings of the study."""

import functools
import hashlib
import itertools
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
    n_steps: int = 435  # 15 passes over the digits in batches of 64
    n_runs: int = 5
    seed: int = 0
    rows: int | None = None

    @property
    def key(self) -> str:
        """A digest of all but the name: equal settings share a cached trajectory."""
        content = {k: v for k, v in asdict(self).items() if k != "name"}
        text = json.dumps(content, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def study_settings(*, quick: bool, seed: int) -> list[Setting]:
    """Return the settings that are looked at one by one; the first is the base setting."""
    small = {"n_steps": 120, "n_runs": 3, "rows": 600} if quick else {}
    base = Setting("base", seed=seed, **small)
    momentum = {"lr": 0.02, "momentum": 0.9}
    settings = [
        base,
        replace(base, name="momentum 0.9", optimizer_params=momentum),
        replace(base, name="Adam", optimizer="Adam", optimizer_params={"lr": 0.003}),
        replace(base, name="2 hidden layers", hidden=(32, 32)),
        replace(base, name="batch size 16", batch_size=16),
        replace(base, name="20 % label noise", label_noise=0.2),
        replace(base, name="initial weights x 0.5", gain=0.5),
    ]
    if not quick:
        settings += [
            replace(base, name="3 hidden layers", hidden=(32, 32, 32)),
            replace(base, name="width 16", hidden=(16,)),
            replace(base, name="width 64", hidden=(64,)),
            replace(base, name="batch size 256", batch_size=256),
            replace(base, name="initial weights x 2", gain=2.0),
            replace(base, name="small CNN", model="cnn"),
            replace(base, name="MNIST-1D", data="mnist1d"),
        ]
    return settings


# The two levels of each factor of the factorial design.
FACTORS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "batch size (128 to 16)": ({"batch_size": 128}, {"batch_size": 16}),
    "label noise (0 to 20 %)": ({"label_noise": 0.0}, {"label_noise": 0.2}),
    "hidden layers (1 to 2)": ({"hidden": (32,)}, {"hidden": (32, 32)}),
    "initial weights (x 0.7 to x 1.4)": ({"gain": 0.7}, {"gain": 1.4}),
}


def factorial_settings(*, quick: bool, seed: int) -> list[tuple[dict[str, int], Setting]]:
    """Return all combinations of the levels of FACTORS; run r has the same seeds in each."""
    small = {"n_steps": 120, "n_runs": 3, "rows": 600} if quick else {"n_runs": 8}
    cells = []
    for choice in itertools.product((0, 1), repeat=len(FACTORS)):
        levels = dict(zip(FACTORS, choice, strict=True))
        changes = {k: v for name, i in levels.items() for k, v in FACTORS[name][i].items()}
        code = "".join(map(str, choice))
        cells.append((levels, Setting(f"cell {code}", seed=seed, **changes, **small)))
    return cells


def shared_start(first: Setting, second: Setting) -> bool:
    """Tell whether run r of both starts from the same draw: same network, data and seed."""
    return all(
        getattr(first, name) == getattr(second, name)
        for name in ("data", "model", "hidden", "seed", "rows")
    )


@functools.lru_cache
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
