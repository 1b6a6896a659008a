"""R3: what moves within the top Hessian space, and training on it, off it and on a random one."""

from typing import Any

import numpy as np
import torch
from settings import Setting, load_data
from training import Trajectories, flat_gradient, place, placed, risk_of

from skdmap import HessianSpectrum
from skdmap.diagnostics import displacement_share

LEARNING_RATE = 0.1
RENEWED_EVERY = 10
KINDS = ("SGD", "on the top space", "off the top space", "on a random space")


def top_space(trajectories: Trajectories, run: int, n_steps: int) -> dict[str, Any]:
    """R3: shares of displacement and moves in a run, and training projected on and off."""
    setting = trajectories.setting
    n_classes = len(np.unique(load_data(setting.data, setting.rows)[1]))
    rows = trajectories.of_run(run)
    spectrum = HessianSpectrum(risk_of(setting), n_classes, tol=1e-3, random_state=0).fit(rows)
    share = displacement_share(rows, spectrum.components_)
    moves = np.diff(rows.astype(np.float64), axis=0)
    moved = displacement_share(moves, spectrum.components_, origin=np.zeros(moves.shape[1]))
    start = rows[len(rows) // 5].astype(np.float64)
    return {
        "steps": trajectories.steps[trajectories.run_ids == run].tolist(),
        "displacement": np.nan_to_num(share.share).tolist(),
        "moves": np.nan_to_num(moved.share).tolist(),
        "chance": float(share.chance),
        "n_directions": n_classes,
        "projected": {
            kind: projected_training(setting, start, kind, n_classes, n_steps, run)
            for kind in KINDS
        },
    }


def projected_training(
    setting: Setting,
    start: np.ndarray,
    kind: str,
    n_directions: int,
    n_steps: int,
    run: int,
) -> list[float]:
    """Return full losses every RENEWED_EVERY steps of SGD with updates projected.

    All kinds of one run see the same batches; a space is renewed when the loss is taken.
    """
    X, y = (torch.as_tensor(array) for array in load_data(setting.data, setting.rows))
    risk = risk_of(setting)
    module = placed(setting, start)
    theta = start.copy()
    rng = np.random.default_rng([setting.seed, run])
    spaces = np.random.default_rng([setting.seed, run, 1])
    losses = []
    for step in range(n_steps):
        if step % RENEWED_EVERY == 0:
            losses.append(risk(theta))
            if kind == "on a random space":
                drawn = spaces.standard_normal((len(theta), n_directions))
                space = np.linalg.qr(drawn)[0].T
            elif kind != "SGD":
                spectrum = HessianSpectrum(risk, n_directions, tol=1e-2, random_state=0)
                space = spectrum.fit(theta[None]).components_.astype(np.float64)
        rows = torch.as_tensor(rng.integers(len(X), size=setting.batch_size))
        place(module, theta)
        update = flat_gradient(module, X[rows], y[rows])
        if kind != "SGD":
            inside = space.T @ (space @ update)
            update = update - inside if kind == "off the top space" else inside
        theta -= LEARNING_RATE * update
    losses.append(risk(theta))
    return [float(value) for value in losses]
