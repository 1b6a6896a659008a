"""R1, R2, R3: the Hessian along a run, the gradient noise along it, and what moves within it."""

from typing import Any

import numpy as np
import torch
from settings import load_data, make_network
from training import Trajectories, make_sampler, risk_of

from skdmap import HessianSpectrum
from skdmap.diagnostics import displacement_share, gradient_noise_along, stationary_variance

N_DIRECTIONS = 20
LEARNING_RATE = 0.1
RENEWED_EVERY = 10


def hessian_along(trajectories: Trajectories) -> dict[str, Any]:
    """R1: spectra at the start, early and at the end of the first run."""
    rows = trajectories.of_run(0)
    steps = trajectories.steps[trajectories.run_ids == 0]
    risk = risk_of(trajectories.setting, dtype="float64")
    found = []
    for row in (0, len(rows) // 10, len(rows) - 1):
        spectrum = HessianSpectrum(
            risk, N_DIRECTIONS, point=int(row), n_probes=4, tol=1e-3, random_state=0
        ).fit(rows.astype(np.float64))
        top = spectrum.eigenvalues_
        edge = 0.01 * top[0]
        low, high = spectrum.density_.cdf(np.array([-edge, edge]))
        positive = top[top > 0]
        gaps = np.diff(np.log(positive))
        grid = np.linspace(-0.2, 1.1, 400) * top[0]
        found.append(
            {
                "step": int(steps[row]),
                "loss": float(spectrum.loss_),
                "eigenvalues": top.tolist(),
                "trace": float(spectrum.trace_),
                "trace_stderr": float(spectrum.trace_stderr_),
                "near_zero": float(high - low),
                "outliers": int(np.argmin(gaps)) + 1 if len(gaps) else 0,
                "grid": grid.tolist(),
                "cdf": np.asarray(spectrum.density_.cdf(grid)).tolist(),
            }
        )
    n_classes = len(np.unique(load_data(trajectories.setting.data, trajectories.setting.rows)[1]))
    return {"points": found, "n_classes": n_classes, "n_parameters": rows.shape[1]}


def noise_along(trajectories: Trajectories) -> dict[str, Any]:
    """R2: gradient noise per eigendirection, and the iterates in what follows."""
    setting = trajectories.setting
    last = trajectories.of_run(0)[-1:].astype(np.float64)
    risk = risk_of(setting, dtype="float64")
    spectrum = HessianSpectrum(risk, N_DIRECTIONS, tol=1e-4, random_state=0).fit(last)
    X, y = load_data(setting.data, setting.rows)
    gradients = row_gradients(setting, last[0], X[:800], y[:800])
    noise = gradient_noise_along(gradients, spectrum.components_, spectrum.eigenvalues_)
    learning_rate = 0.02
    module = placed(setting, last[0], X, y)
    sampler = make_sampler(
        setting,
        X.shape[1],
        len(np.unique(y)),
        len(X),
        module=module,
        module_params=None,
        optimizer="SGD",
        optimizer_params={"lr": learning_rate},
        label_noise=0.0,
        max_epochs=None,
        max_steps=6000,
        burn_in=3000,
        record_every=5,
        n_runs=1,
    ).fit(X, y)
    projected = spectrum.transform(sampler.snapshots_.astype(np.float64))
    trend = np.linspace(-1, 1, len(projected))[:, None]
    projected = projected - projected.mean(axis=0)
    projected -= trend * (trend * projected).sum(axis=0) / (trend**2).sum()
    predicted = stationary_variance(
        noise.variance,
        spectrum.eigenvalues_,
        learning_rate=learning_rate,
        batch_size=setting.batch_size,
    )
    return {
        "eigenvalues": spectrum.eigenvalues_.tolist(),
        "variance": noise.variance.tolist(),
        "slope": float(noise.slope),
        "slope_interval": np.asarray(noise.slope_interval).tolist(),
        "correlation": float(noise.correlation),
        "share": float(noise.share),
        "chance_share": float(noise.chance_share),
        "iterates": projected.var(axis=0).tolist(),
        "predicted": np.nan_to_num(predicted).tolist(),
        "learning_rate": learning_rate,
        "batch_size": setting.batch_size,
        "n_gradients": len(gradients),
    }


def row_gradients(setting: Any, theta: np.ndarray, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the gradient of the loss of each single row at theta, shape (n_rows, n_parameters)."""
    module = placed(setting, theta, X, y).double()
    inputs = torch.as_tensor(X, dtype=torch.float64)
    targets = torch.as_tensor(y)
    parameters = {name: value.detach() for name, value in module.named_parameters()}

    def loss(values: dict[str, torch.Tensor], x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        outputs = torch.func.functional_call(module, values, (x[None],))
        return torch.nn.functional.cross_entropy(outputs, t[None])

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, inputs, targets)
    return torch.cat([value.flatten(1) for value in each.values()], dim=1).numpy()


def placed(setting: Any, theta: np.ndarray, X: np.ndarray, y: np.ndarray) -> torch.nn.Module:
    """Return a network of a setting with the parameters theta."""
    with torch.random.fork_rng():
        module = make_network(X.shape[1], 10, setting.model, setting.hidden, setting.gain)
    values = torch.as_tensor(theta, dtype=torch.float32)
    torch.nn.utils.vector_to_parameters(values, module.parameters())
    return module


def top_space(trajectories: Trajectories, n_steps: int) -> dict[str, Any]:
    """R3: shares of displacement and moves, and training projected on and off the top space."""
    setting = trajectories.setting
    n_classes = len(np.unique(load_data(setting.data, setting.rows)[1]))
    shares = []
    for run in trajectories.runs:
        rows = trajectories.of_run(int(run))
        spectrum = HessianSpectrum(
            risk_of(setting), n_classes, tol=1e-3, random_state=0
        ).fit(rows)  # fmt: skip
        share = displacement_share(rows, spectrum.components_)
        moves = np.diff(rows.astype(np.float64), axis=0)
        moved = displacement_share(moves, spectrum.components_, origin=np.zeros(moves.shape[1]))
        shares.append(
            {
                "steps": trajectories.steps[trajectories.run_ids == run].tolist(),
                "displacement": np.nan_to_num(share.share).tolist(),
                "moves": np.nan_to_num(moved.share).tolist(),
                "chance": float(share.chance),
            }
        )
    start = trajectories.of_run(0)[len(trajectories.of_run(0)) // 5].astype(np.float64)
    curves = {
        kind: projected_training(setting, start, kind, n_classes, n_steps)
        for kind in ("SGD", "on the top space", "off the top space")
    }
    return {"shares": shares, "projected": curves, "n_directions": n_classes}


def projected_training(
    setting: Any, start: np.ndarray, kind: str, n_directions: int, n_steps: int
) -> list[float]:
    """Return full losses every RENEWED_EVERY steps of SGD with updates projected on or off."""
    X, y = load_data(setting.data, setting.rows)
    risk = risk_of(setting)
    module = placed(setting, start, X, y)
    theta = start.copy()
    rng = np.random.default_rng(setting.seed)
    losses = []
    for step in range(n_steps):
        if step % RENEWED_EVERY == 0:
            losses.append(risk(theta))
            if kind != "SGD":
                spectrum = HessianSpectrum(risk, n_directions, tol=1e-2, random_state=0)
                top = spectrum.fit(theta[None]).components_
        rows = rng.integers(len(X), size=setting.batch_size)
        torch.nn.utils.vector_to_parameters(
            torch.as_tensor(theta, dtype=torch.float32), module.parameters()
        )
        loss = torch.nn.functional.cross_entropy(module(torch.as_tensor(X[rows])),
                                                 torch.as_tensor(y[rows]))  # fmt: skip
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        update = torch.cat([g.flatten() for g in gradients]).double().numpy()
        if kind == "on the top space":
            update = top.T @ (top @ update)
        elif kind == "off the top space":
            update = update - top.T @ (top @ update)
        theta -= LEARNING_RATE * update
    losses.append(risk(theta))
    return [float(value) for value in losses]
