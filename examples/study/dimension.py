"""R4 to R7: maps of the trajectories, their dimension, and null models."""

from typing import Any

import numpy as np
from scipy.spatial.distance import pdist
from settings import load_data
from training import Trajectories

from skdmap import DiffusionMap
from skdmap.diagnostics import (
    dimension_test,
    harmonic_residuals,
    local_dimension,
    null_envelope,
    random_walk,
)

# What is compared between settings: how many coordinates are new, and three other counts.
MEASURES = ("non_harmonic", "participation", "slope_at_bandwidth", "slope")
# Of each null model, for its range of eigenvalues.
N_SURROGATES = 99
# The loss at the end of a run is the mean over so many batches.
N_LAST = 10
# Null models that keep the length of each step in its place, for windows.
KEEPING = ("random_walk", "ar1", "drift", "decaying_drift", "ornstein_uhlenbeck", "sign_flips")
# And two that have the recorded covariance, for eigenvalues.
NULLS = (*KEEPING, "anisotropic_ou", "linear")
# dimension_test finds fewer dimensions only where there are at most so many for each column.
MOST_DIMENSIONS = 0.25


def map_of(*several: Trajectories, seed: int) -> dict[str, Any]:
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
    mapping = DiffusionMap(n_components=8, bandwidth="auto", random_state=seed, disconnected="warn")
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


def median_map(rows: np.ndarray, n_components: int) -> DiffusionMap:
    """Return the map that the dimension tests look at: all pairs, h^2 = half the median d^2."""
    exact = rows.astype(np.float64)
    products = exact @ exact.T
    squared = np.diag(products)[:, None] + np.diag(products) - 2 * products
    middle = float(np.median(squared[np.triu_indices(len(rows), 1)]))
    return DiffusionMap(n_components, bandwidth=(middle / 2) ** 0.5, n_neighbors=None).fit(exact)


def slope_at_bandwidth(rows: np.ndarray) -> float:
    """Return the slope of log S against log h at the bandwidth of :func:`median_map`.

    S sums the kernel over pairs of different rows. The largest slope over all h, in contrast, lies
    at a smaller h the closer the rows are: it depends on their number.
    """
    exponents = pdist(rows.astype(np.float64), "sqeuclidean")
    exponents /= np.median(exponents)
    kernel = np.exp(-exponents)
    return float(2 * np.sum(kernel * exponents) / np.sum(kernel))


def map_of_run(trajectories: Trajectories) -> dict[str, Any]:
    """R4: the map of one run, and the dimension by harmonics."""
    rows = trajectories.of_run(0)
    mapping = median_map(rows, 6)
    residuals = harmonic_residuals(mapping.eigenvectors_)
    return {
        "coordinates": mapping.embedding_[:, :3].tolist(),
        "steps": trajectories.steps[trajectories.run_ids == 0].tolist(),
        "losses": trajectories.losses[trajectories.run_ids == 0].tolist(),
        "harmonic_residuals": np.asarray(residuals.residuals).tolist(),
        "independent": [int(k) for k in residuals.independent],
    }


def envelopes(trajectories: Trajectories, null: str, seed: int) -> dict[str, Any]:
    """R4: diffusion eigenvalues and principal shares of all runs, and of one kind of null model."""
    found = {}
    for curve in ("diffusion", "principal"):
        envelope = null_envelope(
            trajectories.snapshots,
            run_ids=trajectories.run_ids,
            curve=curve,
            null=null,
            n_surrogates=N_SURROGATES,
            random_state=seed,
        )
        found[curve] = {
            name: np.asarray(getattr(envelope, name)).tolist()
            for name in ("values", "lower", "median", "upper")
        }
    return found | {"n_runs": len(trajectories.runs), "n_surrogates": N_SURROGATES}


def windows(trajectories: Trajectories, null: str, n_surrogates: int, seed: int) -> dict[str, Any]:
    """R5: dimension in windows, the mean over all runs, and the same of surrogates."""
    n_rows = len(trajectories.of_run(0))
    window = max(20, n_rows // 6)
    found = local_dimension(
        trajectories.snapshots,
        run_ids=trajectories.run_ids,
        steps=trajectories.steps,
        window=window,
        exclusion=2,
        null=null,
        n_surrogates=n_surrogates,
        random_state=seed,
    )
    n_runs = len(trajectories.runs)
    return {
        "window": window,
        "centers": found.centers.reshape(n_runs, -1)[0].tolist(),
        "runs": found.dimension.reshape(n_runs, -1).tolist(),
        "drawn": found.surrogate_dimensions.reshape(n_runs, -1, n_surrogates).mean(axis=0).tolist(),
    }


def measures(trajectories: Trajectories, row_counts: list[int], seed: int) -> dict[str, Any]:
    """R6: dimensions of each run, from several numbers of rows, and whether it is trained."""
    found: dict[str, Any] = {measure: [] for measure in MEASURES}
    for n_rows in row_counts:
        thin = trajectories.thinned(n_rows)
        for measure in MEASURES:
            found[measure].append(_measured(thin.snapshots, thin.run_ids, measure, n_rows, seed))
    found["independent"] = [
        len(harmonic_residuals(median_map(thin.of_run(int(run)), 6).eigenvectors_).independent)
        for run in thin.runs
    ]
    found["final_loss"] = [
        float(np.mean(trajectories.losses[trajectories.run_ids == run][-N_LAST:]))
        for run in trajectories.runs
    ]
    setting = trajectories.setting
    found["guess"] = float(np.log(len(np.unique(load_data(setting.data, setting.rows)[1]))))
    return found


def _measured(
    rows: np.ndarray, run_ids: np.ndarray | None, measure: str, n_rows: int, seed: int
) -> list[float]:
    """Return a statistic of each run; what surrogates of them have is not looked at."""
    if measure == "slope_at_bandwidth":
        ids = np.zeros(len(rows)) if run_ids is None else run_ids
        return [slope_at_bandwidth(rows[ids == run]) for run in np.unique(ids)]
    test = dimension_test(
        rows,
        run_ids=run_ids,
        statistic=measure,
        null="random_walk",
        n_surrogates=1,
        n_rows=n_rows,
        random_state=seed,
    )
    return np.asarray(test.run_statistics).tolist()


def claims(trajectories: Trajectories, n_rows: int, n_surrogates: int, seed: int) -> dict[str, Any]:
    """R7: what may be claimed of the runs of a setting beside null models, and the tests."""
    found = dimension_test(
        trajectories.snapshots,
        run_ids=trajectories.run_ids,
        n_surrogates=n_surrogates,
        n_rows=n_rows,
        random_state=seed,
    )
    tests = {test.null: test for test in found.tests}
    spread = found.dimension
    return {
        "level": found.level,
        "tests": {
            row["null"]: {
                "claim": row["claim"],
                "p_value": float(row["p_value"]),
                "statistic": float(row["value"]),
                "runs": np.asarray(tests[row["null"]].run_statistics).tolist(),
                "envelope": np.asarray(tests[row["null"]].envelope).tolist(),
            }
            for row in found.table
        },
        "lags": [int(lag) for lag in spread.lags],
        "dimension": [
            np.asarray(x)[[0, -1]].tolist() for x in (spread.dimension, spread.lower, spread.upper)
        ],
        "n_columns": int(found.n_columns),
        "n_runs": len(trajectories.runs),
    }


def walk_as_seen(n_rows: int, seed: int) -> dict[str, Any]:
    """R6, R7: a plain random walk through the same map, and its dimensions from n_rows rows."""
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
    } | {
        measure: _measured(
            random_walk(n_rows, 2000, random_state=seed), None, measure, n_rows, seed
        )[0]
        for measure in MEASURES
    }
