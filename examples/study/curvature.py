"""R1, R2: the Hessian along a run, the gradient noise along it, and iterates in equilibrium."""

from typing import Any

import numpy as np
import torch
from settings import Setting, load_data
from training import Trajectories, make_sampler, placed, risk_of

from skdmap import HessianSpectrum
from skdmap.diagnostics import gradient_noise_along, stationary_variance

N_DIRECTIONS = 20
LEARNING_RATE = 0.1
# A minimum with noise in it: without decay the network goes on to fit every row, its gradient noise
# dies, and there is no equilibrium to look at.
WEIGHT_DECAY = 0.01
RECORD_EVERY = 20
# Halves of a stationary stretch agree: means to half a standard deviation, variances to a factor.
MEAN_SHIFT = 0.5
VARIANCE_RATIO = 1.5


def hessian_along(trajectories: Trajectories, run: int) -> dict[str, Any]:
    """R1: spectra at the start, early and at the end of a run."""
    rows = trajectories.of_run(run)
    steps = trajectories.steps[trajectories.run_ids == run]
    risk = risk_of(trajectories.setting, dtype="float64")
    found = []
    for row in (0, len(rows) // 10, len(rows) - 1):
        spectrum = HessianSpectrum(
            risk, N_DIRECTIONS, point=int(row), n_probes=4, tol=1e-3, random_state=0
        ).fit(rows.astype(np.float64))
        top = spectrum.eigenvalues_
        edge = 0.01 * top[0]
        low, high = spectrum.density_.cdf(np.array([-edge, edge]))
        gaps = np.diff(np.log(top[top > 0]))
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


def noise_along(trajectories: Trajectories, run: int) -> dict[str, Any]:
    """R2: the gradient noise of all training rows, per eigendirection, at the end of a run."""
    setting = trajectories.setting
    theta = trajectories.of_run(run)[-1].astype(np.float64)
    spectrum = _spectrum(setting, theta)
    gradients = row_gradients(setting, theta)
    noise = gradient_noise_along(gradients, spectrum.components_, spectrum.eigenvalues_)
    return {
        "eigenvalues": spectrum.eigenvalues_.tolist(),
        "variance": noise.variance.tolist(),
        "slope": float(noise.slope),
        "slope_interval": np.asarray(noise.slope_interval).tolist(),
        "correlation": float(noise.correlation),
        "share": float(noise.share),
        "chance_share": float(noise.chance_share),
        "n_gradients": len(gradients),
    }


def equilibrium(
    trajectories: Trajectories, n_chains: int, burn_in: int, n_steps: int, seed: int
) -> dict[str, Any]:
    """R2: variance of the iterates beside its prediction, where the iterates are stationary.

    Noise and Hessian are those of the mean of the iterates, not of where the chains set out.
    Chains "shuffled" take each row once in each pass, as training does; the prediction is for rows
    drawn with replacement.
    """
    setting = trajectories.setting
    start = trajectories.of_run(0)[-1]
    chains = [_chain(setting, start, burn_in, n_steps, [seed, chain]) for chain in range(n_chains)]
    center = np.mean([chain.mean(axis=0) for chain in chains], axis=0)
    spectrum = _spectrum(setting, center)
    gradients = row_gradients(setting, center)
    noise = gradient_noise_along(gradients, spectrum.components_, spectrum.eigenvalues_)
    predicted = stationary_variance(
        noise.variance,
        spectrum.eigenvalues_ + WEIGHT_DECAY,
        learning_rate=LEARNING_RATE,
        batch_size=setting.batch_size,
    )
    along = np.array([(chain - center) @ spectrum.components_.T for chain in chains])
    other = _shuffled_chains(setting, start, n_chains, burn_in, n_steps)
    of_other = np.array([(chain - chain.mean(axis=0)) @ spectrum.components_.T for chain in other])
    return {
        "eigenvalues": spectrum.eigenvalues_.tolist(),
        "variance": noise.variance.tolist(),
        "iterates": along.var(axis=1).tolist(),
        "shuffled": of_other.var(axis=1).tolist(),
        "predicted": np.nan_to_num(predicted).tolist(),
        "stationary": halves_agree(along).tolist(),
        "learning_rate": LEARNING_RATE,
        "weight_decay": WEIGHT_DECAY,
        "batch_size": setting.batch_size,
        "burn_in": burn_in,
        "n_steps": n_steps,
    }


def halves_agree(along: np.ndarray) -> np.ndarray:
    """Return for each direction whether the halves of the chains have one mean and variance.

    Parameters
    ----------
    along : ndarray of shape (n_chains, n_rows, n_directions)
    """
    half = along.shape[1] // 2
    first, second = along[:, :half], along[:, half : 2 * half]
    shift = np.abs((first.mean(axis=1) - second.mean(axis=1)).mean(axis=0))
    spread = np.sqrt(along.var(axis=1).mean(axis=0))
    ratio = first.var(axis=1).mean(axis=0) / second.var(axis=1).mean(axis=0)
    return (shift <= MEAN_SHIFT * spread) & (np.abs(np.log(ratio)) <= np.log(VARIANCE_RATIO))


def _chain(
    setting: Setting, start: np.ndarray, burn_in: int, n_steps: int, seed: list[int]
) -> np.ndarray:
    """Return every RECORD_EVERY-th iterate of SGD on rows drawn with replacement."""
    X, y = (torch.as_tensor(array) for array in load_data(setting.data, setting.rows))
    module = placed(setting, start)
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.SGD(
        module.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )  # fmt: skip
    kept = []
    for step in range(burn_in + n_steps):
        rows = torch.as_tensor(rng.integers(len(X), size=setting.batch_size))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(X[rows]), y[rows]).backward()
        optimizer.step()
        if step >= burn_in and step % RECORD_EVERY == 0:
            flat = torch.nn.utils.parameters_to_vector(module.parameters())
            kept.append(flat.detach().double().numpy())
    return np.array(kept)


def _shuffled_chains(
    setting: Setting, start: np.ndarray, n_chains: int, burn_in: int, n_steps: int
) -> list[np.ndarray]:
    X, y = load_data(setting.data, setting.rows)
    sampler = make_sampler(
        setting,
        X.shape[1],
        len(np.unique(y)),
        module=placed(setting, start),
        module_params=None,
        optimizer="SGD",
        optimizer_params={"lr": LEARNING_RATE, "weight_decay": WEIGHT_DECAY},
        label_noise=0.0,
        max_steps=burn_in + n_steps,
        burn_in=burn_in,
        record_every=RECORD_EVERY,
        n_runs=n_chains,
    ).fit(X, y)
    rows = sampler.snapshots_.astype(np.float64)
    return [rows[sampler.run_ids_ == run] for run in range(n_chains)]


def _spectrum(setting: Setting, theta: np.ndarray) -> HessianSpectrum:
    risk = risk_of(setting, dtype="float64")
    return HessianSpectrum(risk, N_DIRECTIONS, tol=1e-4, random_state=0).fit(theta[None])


def row_gradients(setting: Setting, theta: np.ndarray) -> np.ndarray:
    """Return the gradient of the loss of each training row, shape (n_rows, n_parameters)."""
    X, y = load_data(setting.data, setting.rows)
    module = placed(setting, theta).double()
    parameters = {name: value.detach() for name, value in module.named_parameters()}

    def loss(values: dict[str, torch.Tensor], x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        outputs = torch.func.functional_call(module, values, (x[None],))
        return torch.nn.functional.cross_entropy(outputs, t[None])

    each = torch.func.vmap(
        torch.func.grad(loss), in_dims=(None, 0, 0), chunk_size=500
    )(parameters, torch.as_tensor(X, dtype=torch.float64), torch.as_tensor(y))  # fmt: skip
    return torch.cat([value.flatten(1) for value in each.values()], dim=1).numpy()
