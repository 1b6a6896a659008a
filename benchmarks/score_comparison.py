"""Which held-out score should ``DiffusionMap.score`` be?

On data sets with known coordinates each candidate chooses a bandwidth, by 5 folds. The figure of
merit is how well the coordinates are regressed on the embedding chosen (fit on all rows), relative
to the best in the grid: R^2 by nearest neighbours, held out; on rolls |corr(psi_1, cos pi s)|, s
the arc length, because a linear map of a roll already determines the angle. Candidates other than
the score are tried on the first seed and the first grid.

    python benchmarks/score_comparison.py --out results --seeds 2

The column "score" is ``DiffusionMap.score`` through ``GridSearchCV``.
"""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict
from sklearn.neighbors import KNeighborsRegressor

from skdmap import DiffusionMap, datasets

FOLDS = KFold(5)
GRIDS = {
    "auto x .3 to 8": lambda auto, spread: auto * np.geomspace(0.3, 8, 12),
    "auto x .1 to 10": lambda auto, spread: auto * np.geomspace(0.1, 10, 13),
    "spread x .03 to 1": lambda auto, spread: spread * np.logspace(-1.5, 0, 10),
}


@dataclass(frozen=True)
class Case:
    name: str
    X: np.ndarray
    known: np.ndarray
    n_components: int
    roll: bool = False


def cases(seed: int) -> Iterator[Case]:
    for noise in (0.0, 0.5):
        roll = datasets.make_swiss_roll(1000, noise=noise, random_state=seed)
        yield Case(f"swiss roll, noise {noise}", roll.X, roll.arc_length[:, None], 2, roll=True)
    yield _uneven_roll(seed)
    sheet = datasets.make_s_curve(1000, random_state=seed)
    # Lengths along the sheet, so that the long side does not hide the short one.
    known = np.column_stack([sheet.arc_length * sheet.length, sheet.height])
    yield Case("S-curve", sheet.X, known, 5)
    sphere = datasets.make_punctured_sphere(1000, random_state=seed)
    yield Case("punctured sphere", sphere.X, sphere.plane, 5)
    sphere = datasets.make_severed_sphere(1000, random_state=seed)
    yield Case("severed sphere", sphere.X, np.c_[sphere.longitude, sphere.colatitude], 5)
    digits = datasets.make_rotated_digits(500, random_state=seed)
    yield Case("turned digits", digits.X, np.c_[np.cos(digits.angle), np.sin(digits.angle)], 2)
    well = datasets.make_double_well_trajectory(1000, random_state=seed)
    yield Case("double well, 50 columns", well.X, well.slow_coordinate[:, None], 2)


def _uneven_roll(seed: int) -> Case:
    """A roll on which the rows are denser by orders of magnitude at the inner end."""
    dense = datasets.make_swiss_roll(20_000, random_state=seed)
    order = np.argsort(dense.arc_length)
    share = np.random.default_rng(seed).uniform(size=1000) ** 3
    rows = np.unique(order[(share * order.size).astype(int)])
    return Case("swiss roll, uneven", dense.X[rows], dense.arc_length[rows, None], 2)


def merit(embedding: np.ndarray, case: Case) -> float:
    if case.roll:
        wave = np.cos(np.pi * case.known[:, 0])
        return float(abs(np.corrcoef(embedding[:, 0], wave)[0, 1]))
    shuffled = KFold(5, shuffle=True, random_state=0)
    known = case.known
    guess = cross_val_predict(KNeighborsRegressor(10), embedding, known, cv=shuffled)
    residual = np.square(known - guess.reshape(known.shape)).sum(axis=0)
    return float(np.mean(1 - residual / np.square(known - known.mean(axis=0)).sum(axis=0)))


def fold_scores(case: Case, grid: np.ndarray) -> dict[str, np.ndarray]:
    """Return the mean over folds of every candidate, at each bandwidth."""
    folds = [_one_fold(case, train, test, grid) for train, test in FOLDS.split(case.X)]
    return {name: np.mean([fold[name] for fold in folds], axis=0) for name in folds[0]}


def _one_fold(
    case: Case, train: np.ndarray, test: np.ndarray, grid: np.ndarray
) -> dict[str, np.ndarray]:
    X, Z = case.X[train], case.X[test]
    among, across = cdist(X, X, "sqeuclidean"), cdist(Z, X, "sqeuclidean")
    slope = DiffusionMap(bandwidth="auto").fit(X).intrinsic_dimension_
    near = np.sort(np.sqrt(among), axis=1)
    # Levina & Bickel 2004 with 10 neighbours; Facco et al. 2017, two neighbours.
    levina = 9 / np.mean(np.log(near[:, 10:11] / near[:, 1:10]).sum(axis=1))
    two = 1 / np.mean(np.log(near[:, 2] / near[:, 1]))
    dimensions = {
        "log-lik, ambient d": X.shape[1],
        "log-lik, round d": round(slope),
        "log-lik, 1.1 slope": 1.1 * slope,
        "log-lik, 1.25 slope": 1.25 * slope,
        "log-lik, Levina-Bickel": levina,
        "log-lik, two neighbours": two,
    }
    log_sums = np.array([logsumexp(-across / (2 * h * h), axis=1).mean() for h in grid])
    scores = {name: log_sums - d * np.log(grid) for name, d in dimensions.items()}
    # One fit a bandwidth serves the three candidates that need eigenvectors.
    maps = [DiffusionMap(case.n_components, bandwidth=h).fit(X) for h in grid]
    spread = np.square(Z - X.mean(axis=0)).sum()
    scores["reconstruction"] = np.array(
        [1 - np.square(m.inverse_transform(m.transform(Z)) - Z).sum() / spread for m in maps]
    )
    scores["semigroup"] = np.array([_semigroup(among, h) for h in grid])
    scores["Nyström"] = np.array([_consistency(case, train, test, m) for m in maps])
    scores["score"] = np.array([m.score(Z) for m in maps])
    return scores


def _semigroup(squares: np.ndarray, h: float) -> float:
    """Minus the mean over rows of |P_h P_h - P_(h sqrt 2)|, of Shan & Daubechies 2022."""
    once, twice = (_walk(squares, length) for length in (h, h * np.sqrt(2)))
    return -float(np.sqrt(np.square(once @ once - twice).sum(axis=1)).mean())


def _walk(squares: np.ndarray, h: float) -> np.ndarray:
    kernel = np.exp(-squares / (2 * h * h))
    density = kernel.sum(axis=1)
    kernel /= np.outer(density, density)
    return kernel / kernel.sum(axis=1, keepdims=True)


def _consistency(case: Case, train: np.ndarray, test: np.ndarray, fitted: DiffusionMap) -> float:
    """R^2 between the extension to held-out rows and a fit that had them, up to a linear map."""
    half = DiffusionMap(case.n_components, bandwidth=fitted.bandwidth).fit(case.X[test])
    extended, own = fitted.transform(case.X[test]), half.embedding_
    extended, own = extended - extended.mean(axis=0), own - own.mean(axis=0)
    guess = extended @ np.linalg.lstsq(extended, own, rcond=None)[0]
    return float(1 - np.square(own - guess).sum() / np.square(own).sum())


def run_case(case: Case, make_grid: Callable, *, others: bool) -> dict:
    fitted = DiffusionMap(case.n_components, bandwidth="auto").fit(case.X)
    spread = np.sqrt(np.square(case.X - case.X.mean(axis=0)).sum(axis=1).mean())
    grid = make_grid(fitted.bandwidth_, spread)
    merits = [
        merit(DiffusionMap(case.n_components, bandwidth=h).fit(case.X).embedding_, case)
        for h in grid
    ]
    curves = fold_scores(case, grid) if others else {}
    relative = {name: merits[int(np.argmax(curve))] / max(merits) for name, curve in curves.items()}
    search = GridSearchCV(DiffusionMap(case.n_components), {"bandwidth": grid}, cv=5).fit(case.X)
    relative["score"] = merit(search.best_estimator_.embedding_, case) / max(merits)
    return {
        "auto": float(fitted.bandwidth_),
        "merit_of_auto": merit(fitted.embedding_, case),
        "chosen": float(search.best_params_["bandwidth"]),
        "grid": grid.tolist(),
        "merit": merits,
        "relative": relative,
        "curves": {name: curve.tolist() for name, curve in curves.items()},
    }


def print_table(results: dict[str, list[dict]]) -> None:
    names = list(next(iter(results.values()))[0]["relative"])
    print(f"{'percent of the best':26s}", *(f"{n.removeprefix('log-lik, '):>15s}" for n in names))
    for case, runs in results.items():
        cells = [_percents(runs, name) for name in names]
        print(f"{case:26s}", *(f"{min(c):8.0f}-{max(c):<6.0f}" for c in cells))
    means = [np.mean([p for runs in results.values() for p in _percents(runs, n)]) for n in names]
    print(f"{'mean':26s}", *(f"{m:15.1f}" for m in means))


def _percents(runs: list[dict], name: str) -> list[float]:
    return [100 * run["relative"][name] for run in runs if name in run["relative"]]


def draw(results: dict[str, list[dict]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shown = ["score", "log-lik, ambient d", "reconstruction", "semigroup", "Nyström"]
    figure, axes = plt.subplots(3, 3, figsize=(11, 7.5), sharex=True, sharey=True)
    for ax, (case, runs) in zip(axes.flat, results.items(), strict=False):
        run = runs[0]
        x = np.array(run["grid"]) / run["auto"]
        ax.fill_between(x, np.maximum(run["merit"], 0), color="0.88", label="known coordinates")
        for name in shown:
            curve = np.array(run["curves"][name])
            low = np.nanquantile(curve, 0.15)
            width = 2 if name == "score" else 1
            ax.plot(x, (curve - low) / (curve.max() - low), label=name, lw=width)
        ax.axvline(run["chosen"] / run["auto"], color="C0", ls=":")
        ax.set(title=case, xscale="log", ylim=(0, 1.05))
        ax.set_xticks([0.3, 1, 3, 8], ["0.3", "1", "3", "8"])
        ax.minorticks_off()
    axes.flat[-1].axis("off")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    axes.flat[-1].legend(handles, labels, loc="center", frameon=False)
    figure.supxlabel("bandwidth / auto")
    figure.supylabel("score, rescaled; dotted: chosen by score")
    figure.tight_layout()
    figure.savefig(path, dpi=70)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for results.json and curves.png")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    # Most bandwidths of a grid are bad ones, on purpose.
    warnings.simplefilter("ignore")
    everything = {}
    for label, make_grid in GRIDS.items():
        results: dict[str, list[dict]] = {}
        for seed in range(arguments.seeds):
            for case in cases(seed):
                run = run_case(case, make_grid, others=seed == 0 and label == next(iter(GRIDS)))
                results.setdefault(case.name, []).append(run)
        print(f"\ngrid: {label}")
        print_table(results)
        sys.stdout.flush()
        everything[label] = results
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "results.json").write_text(json.dumps(everything, indent=1))
        draw(everything[next(iter(GRIDS))], arguments.out / "curves.png")


if __name__ == "__main__":
    main()
