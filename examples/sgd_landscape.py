"""
Where do SGD and Adam go, and along which directions of curvature?
==================================================================

SGD and Adam train a small network on scikit-learn's digits. All runs start from one initialisation;
runs of one optimizer differ only in the order of the batches. The parameter vectors of all runs go
through one diffusion map. At the end of each run, the ten largest eigenvalues of the loss Hessian
are computed. Two shares are then followed over the run: the share of the squared displacement from
the start that lies in the span of their eigenvectors, and the same share of each single move. Both
are compared with k/m, the share of a random direction.

The pictures describe these runs. A random walk also has a smooth curve as its diffusion map; the
shares can be compared with chance. They can lie on different sides of it: noise that moves to and
fro along steep directions contributes to the moves and hardly to the displacement.

Run ``python examples/sgd_landscape.py --out results``.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from skdmap import DiffusionMap, EmpiricalRisk, HessianSpectrum, TrajectorySampler
from skdmap.diagnostics import DisplacementShare, displacement_share, subspace_overlap
from skdmap.plotting import EigenvalueDisplay, EmbeddingDisplay, SpectrumDisplay

plt.style.use("skdmap.plotting.style")

# Learning rates at which both learn: losses of 0.10 (SGD) and 0.04 (Adam) after 15 epochs.
OPTIMIZERS: dict[str, dict[str, Any]] = {"SGD": {"lr": 0.1}, "Adam": {"lr": 0.003}}
COLORS = {"SGD": "C0", "Adam": "C1"}
N_CURVATURE = 10
# At 1e-3 the shares of single moves are off in the fourth digit.
CURVATURE_TOL = 1e-4
N_COORDINATES = 10
RECORD_EVERY = 4


@dataclass(frozen=True)
class Run:
    """One training run and the curvature at its end."""

    optimizer: str
    number: int
    steps: np.ndarray
    snapshots: np.ndarray
    spectrum: HessianSpectrum
    share: DisplacementShare
    move_share: DisplacementShare

    @property
    def name(self) -> str:
        return f"{self.optimizer} {self.number}"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for pictures and results")
    parser.add_argument("--seed", type=int, default=0, help="master seed (default: 0)")
    parser.add_argument("--seeds", type=int, default=3, help="runs per optimizer (default: 3)")
    parser.add_argument("--epochs", type=int, default=15, help="epochs per run (default: 15)")
    parser.add_argument("--rows", type=int, default=None, help="use the first rows only")
    arguments = parser.parse_args()
    if arguments.seeds < 1 or arguments.epochs < 1:
        parser.error("--seeds and --epochs must be 1 or more")
    return arguments


def load_data(rows: int | None) -> tuple[np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    return StandardScaler().fit_transform(X[:rows]).astype(np.float32), y[:rows]


def train(
    X: np.ndarray, y: np.ndarray, arguments: argparse.Namespace
) -> dict[str, TrajectorySampler]:
    """Train by each optimizer; the stream of the initialisation is held, so all start alike."""
    samplers = {}
    for name, options in OPTIMIZERS.items():
        samplers[name] = TrajectorySampler(
            optimizer=name,
            optimizer_params=options,
            max_epochs=arguments.epochs,
            batch_size=64,
            record_every=RECORD_EVERY,
            n_runs=arguments.seeds,
            verbose=1,
            random_state={"seed": arguments.seed, "init": arguments.seed},
        ).fit(X, y)
    return samplers


def examine(
    samplers: dict[str, TrajectorySampler], X: np.ndarray, y: np.ndarray, seed: int
) -> list[Run]:
    """Find the curvature at the end of each run, and the displacement along it."""
    runs = []
    jobs = [(name, number) for name in samplers for number in np.unique(samplers[name].run_ids_)]
    for name, number in tqdm(jobs, desc="Hessian spectra", disable=None):
        sampler = samplers[name]
        risk = EmpiricalRisk(sampler.module_, torch.nn.CrossEntropyLoss(), X, y)
        own = sampler.run_ids_ == number
        snapshots = sampler.snapshots_[own]
        spectrum = HessianSpectrum(
            loss=risk,
            n_components=N_CURVATURE,
            point="last",
            tol=CURVATURE_TOL,
            random_state=seed,
            verbose=1,
        ).fit(snapshots)
        share = displacement_share(snapshots, spectrum.components_)
        moves = np.diff(snapshots.astype(np.float64), axis=0)
        move_share = displacement_share(
            moves, spectrum.components_, origin=np.zeros(moves.shape[1])
        )
        steps = sampler.steps_[own]
        runs.append(Run(name, int(number), steps, snapshots, spectrum, share, move_share))
    return runs


def overlaps(runs: list[Run]) -> dict[str, float]:
    """Return the mean overlap of the top spaces of two runs, by pair of optimizers."""
    found: dict[str, list[float]] = {}
    for i, first in enumerate(runs):
        for second in runs[i + 1 :]:
            overlap = subspace_overlap(first.spectrum.components_, second.spectrum.components_)
            pair = " and ".join(sorted({first.optimizer, second.optimizer}, reverse=True))
            found.setdefault(pair, []).append(overlap.overlap)
    return {pair: float(np.mean(values)) for pair, values in found.items()}


def draw_embedding(runs: list[Run], embedding: DiffusionMap, out: Path) -> None:
    steps = np.concatenate([run.steps for run in runs])
    optimizers = np.concatenate([[run.optimizer] * len(run.steps) for run in runs])
    owners = np.repeat(np.arange(len(runs)), [len(run.steps) for run in runs])
    figure = plt.figure(figsize=(11, 4.6))
    space, flat = figure.add_subplot(121, projection="3d"), figure.add_subplot(122)
    for number, run in enumerate(runs):
        path = embedding.embedding_[owners == number, :3].T
        space.plot(*path, color=COLORS[run.optimizer], linewidth=2)
        space.plot(*path[:, -1:], "s", color=COLORS[run.optimizer], markeredgecolor="white")
    space.plot(*embedding.embedding_[:1, :3].T, "o", color="white", markeredgecolor="black")
    for name, axis in zip("012", (space.xaxis, space.yaxis, space.zaxis), strict=True):
        axis.set_label_text(f"diffusion coordinate {name}")
        axis.labelpad = -8
        axis.set_ticklabels([])
    space.view_init(elev=22, azim=-60)
    space.set_box_aspect(None, zoom=0.95)
    legend_of_optimizers(
        space, loc="upper left", bbox_to_anchor=(-0.05, 1.04), title="circle to square"
    )
    EmbeddingDisplay.from_estimator(embedding, c=steps, c_label="step", hue=optimizers, ax=flat)
    figure.suptitle(f"{len(runs)} runs from one start: {len(steps)} snapshots in one diffusion map")
    figure.savefig(out / "embedding.png")


def draw_eigenvalues(embedding: DiffusionMap, out: Path) -> None:
    display = EigenvalueDisplay.from_estimator(embedding)
    display.ax_.set_title("Diffusion eigenvalues of the map of all runs")
    display.figure_.savefig(out / "diffusion_eigenvalues.png")


def draw_spectra(runs: list[Run], out: Path) -> None:
    figure, ax = plt.subplots(figsize=(7, 5))
    for position, run in enumerate(runs):
        SpectrumDisplay.from_estimator(
            run.spectrum,
            offset=0.5 * (position + 0.5) / len(runs) - 0.25,
            ax=ax,
            color=COLORS[run.optimizer],
            markersize=4,
            capsize=0,
        )
    largest = max(run.spectrum.residuals_.max() for run in runs)
    ax.set_title(f"Top {N_CURVATURE} Hessian eigenvalues at the end of each run")
    legend_of_optimizers(ax, marker="o", title=f"bars: residuals, at most {largest:.1g}")
    figure.savefig(out / "hessian_spectrum.png")


def draw_shares(runs: list[Run], out: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), sharex=True, sharey=True)
    chance = runs[0].share.chance
    for run in runs:
        style = {"color": COLORS[run.optimizer], "linewidth": 1.3}
        left.plot(run.steps, run.share.share, **style)
        right.plot(run.steps[1:], run.move_share.share, **style)
    for ax in (left, right):
        ax.axhline(chance, color="0.35", linestyle="--", linewidth=1.2)
        ax.set_yscale("log")
        ax.set_xlabel("step")
    left.set_ylabel("share of the squared length")
    left.set_title("Net displacement from the start")
    right.set_title(f"Moves of {RECORD_EVERY} steps")
    legend_of_optimizers(right, f"chance, k/m = {chance:.4f}")
    figure.suptitle(
        f"Share in the span of the top {N_CURVATURE} Hessian eigenvectors at the end of the run"
    )
    figure.savefig(out / "displacement_share.png")


def legend_of_optimizers(ax: Any, *more: str, marker: str | None = None, **options: Any) -> None:
    """One entry an optimizer, not one a run."""
    style = {"marker": marker, "linestyle": "none" if marker else "-"}
    handles = [plt.Line2D([], [], color=COLORS[name], label=name, **style) for name in OPTIMIZERS]
    handles += [plt.Line2D([], [], color="0.35", linestyle="--", label=text) for text in more]
    ax.legend(handles=handles, **options)


def numbers(array: np.ndarray) -> list[Any]:
    """Return an array as JSON's lists; NaN, which JSON has not, becomes null."""
    return np.where(np.isnan(array), None, array.astype(object)).tolist()


def results_of(
    runs: list[Run], embedding: DiffusionMap, arguments: argparse.Namespace
) -> dict[str, Any]:
    return {
        "settings": {
            "seed": arguments.seed,
            "epochs": arguments.epochs,
            "runs_per_optimizer": arguments.seeds,
            "optimizers": OPTIMIZERS,
            "n_parameters": runs[0].snapshots.shape[1],
        },
        "diffusion_map": {
            "bandwidth": float(embedding.bandwidth_),
            "intrinsic_dimension": float(embedding.intrinsic_dimension_),
            "eigenvalues": numbers(embedding.eigenvalues_),
            "residuals": numbers(embedding.residuals_),
            "coordinates": numbers(embedding.embedding_[:, :4]),
            "run": [run.name for run in runs for _ in run.steps],
            "step": [int(step) for run in runs for step in run.steps],
        },
        "runs": [
            {
                "run": run.name,
                "loss": float(run.spectrum.loss_),
                "hessian_eigenvalues": numbers(run.spectrum.eigenvalues_),
                "hessian_residuals": numbers(run.spectrum.residuals_),
                "steps": [int(step) for step in run.steps],
                "displacement_share": numbers(run.share.share),
                "move_share": numbers(run.move_share.share),
                "chance": run.share.chance,
            }
            for run in runs
        ],
        "mean_overlap_of_top_spaces": overlaps(runs),
        "chance_overlap": N_CURVATURE / runs[0].snapshots.shape[1],
    }


def print_table(results: dict[str, Any]) -> None:
    titles = ("run", "loss", "lambda_1", "lambda_10", "displaced", "moved", "chance")
    print("".join(f"{title:>11}" for title in titles))
    for run in results["runs"]:
        top = run["hessian_eigenvalues"]
        moved = np.median(run["move_share"])
        figures = (run["loss"], top[0], top[-1], run["displacement_share"][-1], moved)
        row = "".join(f"{figure:>11.4f}" for figure in (*figures, run["chance"]))
        print(f"{run['run']:>11}{row}")
    print("displaced: share of the whole displacement in the top Hessian space, at the end")
    print("moved: median share of the moves between snapshots; chance: k/m")
    leading = ", ".join(f"{value:.4f}" for value in results["diffusion_map"]["eigenvalues"][:5])
    print(f"diffusion eigenvalues: {leading}, ...")
    for pair, overlap in results["mean_overlap_of_top_spaces"].items():
        chance = results["chance_overlap"]
        print(f"overlap of top spaces, {pair}: {overlap:.4f} (chance {chance:.4f})")


def main() -> None:
    arguments = parse_arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    X, y = load_data(arguments.rows)
    runs = examine(train(X, y, arguments), X, y, arguments.seed)
    embedding = DiffusionMap(
        n_components=N_COORDINATES, bandwidth="auto", random_state=arguments.seed, verbose=1
    )
    embedding.fit(np.concatenate([run.snapshots for run in runs]))
    draw_embedding(runs, embedding, arguments.out)
    draw_eigenvalues(embedding, arguments.out)
    draw_spectra(runs, arguments.out)
    draw_shares(runs, arguments.out)
    results = results_of(runs, embedding, arguments)
    text = json.dumps(results, indent=1, allow_nan=False)
    (arguments.out / "results.json").write_text(text + "\n", encoding="utf-8")
    print_table(results)


if __name__ == "__main__":
    main()
