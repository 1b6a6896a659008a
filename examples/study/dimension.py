"""R4 to R8: maps of the trajectories, their dimension, null models, and a case with an answer."""

from typing import Any

import numpy as np
import torch
from scipy.stats import f_oneway
from training import Trajectories

from skdmap import DiffusionMap, HessianSpectrum
from skdmap.datasets import make_ornstein_uhlenbeck
from skdmap.diagnostics import (
    dimension_test,
    harmonic_residuals,
    local_dimension,
    null_envelope,
    random_walk,
)

STATISTICS = ("isotonic", "participation", "gap", "slope", "non_harmonic")


def map_of(several: list[Trajectories], seed: int) -> dict[str, Any]:
    """R4: one diffusion map of the first runs of several settings, thinned to about 150 rows."""
    rows, labels, steps, losses = [], [], [], []
    for trajectories in several:
        for run in trajectories.runs[:1]:
            chosen = np.flatnonzero(trajectories.run_ids == run)
            chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, 150).astype(int))]
            rows.append(trajectories.snapshots[chosen])
            labels += [f"{trajectories.setting.name}, run {run}"] * len(chosen)
            steps.append(trajectories.steps[chosen])
            losses.append(trajectories.losses[chosen])
    mapping = DiffusionMap(n_components=8, random_state=seed, disconnected="warn")
    mapping.fit(np.concatenate(rows))
    return {
        "coordinates": mapping.embedding_[:, :3].tolist(),
        "eigenvalues": mapping.eigenvalues_.tolist(),
        "components": int(mapping.n_connected_components_),
        "one_start": all(np.array_equal(rows[0][0], own[0]) for own in rows),
        "labels": labels,
        "steps": np.concatenate(steps).tolist(),
        "losses": np.concatenate(losses).tolist(),
    }


def map_of_run(trajectories: Trajectories, seed: int) -> dict[str, Any]:
    """R4: the map of one run, the dimension by harmonics, and its null models."""
    rows = trajectories.of_run(0)
    mapping = DiffusionMap(n_components=6, bandwidth="median", n_neighbors=None).fit(rows)
    residuals = harmonic_residuals(mapping.eigenvectors_)
    envelopes = {}
    for curve in ("diffusion", "principal"):
        envelope = null_envelope(rows, curve=curve, random_state=seed)
        envelopes[curve] = {
            name: np.asarray(getattr(envelope, name)).tolist()
            for name in ("values", "lower", "median", "upper")
        }
    return {
        "coordinates": mapping.embedding_[:, :3].tolist(),
        "steps": trajectories.steps[trajectories.run_ids == 0].tolist(),
        "losses": trajectories.losses[trajectories.run_ids == 0].tolist(),
        "harmonic_residuals": np.asarray(residuals.residuals).tolist(),
        "independent": [int(k) for k in residuals.independent],
        "envelopes": envelopes,
    }


def windows(trajectories: Trajectories, seed: int) -> dict[str, Any]:
    """R5: dimension in windows of the first run, beside null models in the same windows."""
    rows = trajectories.of_run(0)
    window = max(20, len(rows) // 6)
    found = local_dimension(
        rows,
        steps=trajectories.steps[trajectories.run_ids == 0],
        window=window,
        exclusion=2,
        n_surrogates=39,
        random_state=seed,
    )
    names = ("centers", "dimension", "lower", "median", "upper")
    return {name: np.asarray(getattr(found, name)).tolist() for name in names} | {"window": window}


def tests_of(trajectories: Trajectories, n_surrogates: int, seed: int) -> dict[str, Any]:
    """R6, R7: statistics of all runs of a setting, and what null models give."""
    found = {}
    for statistic in STATISTICS:
        test = dimension_test(
            trajectories.snapshots,
            run_ids=trajectories.run_ids,
            n_surrogates=n_surrogates,
            statistic=statistic,
            random_state=seed,
        )
        found[statistic] = {
            "statistic": float(test.statistic),
            "envelope": np.asarray(test.envelope).tolist(),
            "p_value": float(test.p_value),
            "interval": np.asarray(test.confidence_interval).tolist(),
            "runs": np.asarray(test.run_statistics).tolist(),
        }
    return found


def between_settings(per_setting: list[list[float]]) -> dict[str, float]:
    """R6: do settings differ by more than runs of one setting do?"""
    groups = [np.asarray(values) for values in per_setting]
    within = float(np.mean([group.var(ddof=1) for group in groups])) ** 0.5
    between = float(np.std([group.mean() for group in groups], ddof=1))
    result = f_oneway(*groups)
    return {"within": within, "between": between, "p_value": float(result.pvalue)}


def walk_as_seen(seed: int) -> dict[str, Any]:
    """R7: what a plain random walk looks like through the same map."""
    walk = random_walk(200, 2000, random_state=seed)
    squared = ((walk[:, None] - walk[None]) ** 2).sum(-1)
    h = float(np.sqrt(np.median(squared[np.triu_indices(200, 1)]) / 2))
    mapping = DiffusionMap(4, bandwidth=h, n_neighbors=None, alpha=1.0).fit(walk)
    time = (np.arange(200) + 0.5) / 200
    cosines = [
        float(abs(np.corrcoef(mapping.embedding_[:, k], np.cos((k + 1) * np.pi * time))[0, 1]))
        for k in range(4)
    ]
    return {
        "coordinates": mapping.embedding_[:, :3].tolist(),
        "eigenvalues": mapping.eigenvalues_.tolist(),
        "cosines": cosines,
    }


def known_answer(n_rows: int, seed: int) -> dict[str, Any]:
    """R8: Langevin dynamics on a quadratic; rates of the map against the Hessian."""
    spectrum = (1.0, 1.5, 4.0)
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0]
    precision = basis * np.asarray(spectrum) @ basis.T
    precision = (precision + precision.T) / 2
    path = make_ornstein_uhlenbeck(n_rows, precision=precision, time_step=1.0, random_state=seed)
    matrix = torch.as_tensor(precision)
    hessian = HessianSpectrum(
        lambda theta: theta @ matrix @ theta / 2, n_components=2, which="smallest", random_state=0
    ).fit(np.zeros((1, 3)))
    mapping = DiffusionMap(10, alpha=0.5, diffusion_time=0, random_state=seed).fit(path.X)
    pairs = []
    for value, direction in zip(hessian.eigenvalues_, hessian.components_, strict=True):
        position = path.X @ direction
        likeness = np.abs(np.corrcoef(position, mapping.eigenvectors_.T)[0, 1:])
        best = int(np.argmax(likeness))
        pairs.append(
            {
                "hessian": float(value),
                "rate": float(mapping.laplacian_eigenvalues_[best]),
                "correlation": float(likeness[best]),
                "participation": float(mapping.participation_[best]),
                "position": position[::10].tolist(),
                "coordinate": mapping.eigenvectors_[::10, best].tolist(),
            }
        )
    return {"pairs": pairs, "n_rows": n_rows}
