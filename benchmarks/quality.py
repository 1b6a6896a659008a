"""How good are maps with default settings? ``python benchmarks/quality.py [SET ...]``.

DiffusionMap's defaults beside SpectralEmbedding, PCA, Isomap, UMAP and scanpy's diffmap (extra
``bench``), on real tables that ship with Python packages, on made sets, and on four trajectories.
Each map is fitted on all samples. Figures, all from coordinates of unit variance:

* accuracy: 5 nearest neighbours predict the label (share of correct answers) or the target (R^2),
  mean over 20 splits, stratified for labels, that hold out 30 %;
* trustworthiness with 10 neighbours;
* localized: share of the coordinates z with (sum z^2)^2 / (n sum z^4) < .05.

    python benchmarks/quality.py --markdown quality.md    # all sets, all maps

Neither sets nor figures are chosen by what they say about a map.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from harness import is_installed
from sklearn import datasets as sk
from sklearn.manifold import trustworthiness
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

COMPONENTS = (2, 5, 10)
SPLITS = 20
# What counts as level with SpectralEmbedding, and the least lead on average.
ACCURACY_MARGIN, TRUST_MARGIN = 0.015, 0.01
ACCURACY_LEAD, TRUST_LEAD = 0.02, 0.015


@dataclass(frozen=True)
class Set:
    """Samples (n, p) with labels (n,), or with targets (n,) or (n, t) of floats."""

    X: np.ndarray
    y: np.ndarray
    has_labels: bool

    def components(self) -> list[int]:
        """Numbers of coordinates: no more than there are columns."""
        return sorted({min(k, self.X.shape[1]) for k in COMPONENTS})


def labelled(X, y) -> Set:
    return Set(np.asarray(X, dtype=float), np.unique(np.asarray(y), return_inverse=True)[1], True)


def standardised(X) -> np.ndarray:
    return StandardScaler().fit_transform(np.asarray(X, dtype=float))


def targets(X, y) -> Set:
    return Set(np.asarray(X, dtype=float), np.asarray(y, dtype=float), False)


# Real tables.


def scikit_learn(name):
    X, y = getattr(sk, f"load_{name}")(return_X_y=True)
    return standardised(X), y


def digits():
    return labelled(*sk.load_digits(return_X_y=True))


def single_cells():
    import scanpy

    cells = scanpy.datasets.pbmc68k_reduced()
    return labelled(cells.obsm["X_pca"][:, :50], cells.obs["bulk_labels"].astype(str))


def simulated_cells():
    import scanpy

    cells = scanpy.datasets.krumsiek11()
    return labelled(cells.X, cells.obs["cell_type"].astype(str))


def table(name):
    import statsmodels.datasets

    return getattr(statsmodels.datasets, name).load_pandas().data


def election():
    data = table("anes96")
    return labelled(standardised(data.drop(columns=["vote", "popul"])), data["vote"])


def marriage():
    data = table("fair").sample(1500, random_state=0)
    return labelled(standardised(data.drop(columns="affairs")), data["affairs"] > 0)


def travel():
    data = table("modechoice")
    return labelled(standardised(data.drop(columns=["individual", "mode", "choice"])), data["mode"])


def schools():
    data = table("star98")
    share = data["NABOVE"] / (data["NABOVE"] + data["NBELOW"])
    return targets(standardised(data.loc[:, "LOWINC":"PCTYRRND"]), share)


def firms():
    data = table("grunfeld")
    return labelled(standardised(np.log1p(data[["invest", "value", "capital"]])), data["firm"])


def economy():
    data = table("macrodata")
    return targets(standardised(data.drop(columns=["year", "quarter"])), data["year"])


def sunspots():
    activity = table("sunspots")["SUNACTIVITY"].to_numpy()
    windows = np.lib.stride_tricks.sliding_window_view(activity, 12)
    return targets(windows[:, :-1], windows[:, -1])


def carbon_dioxide():
    series = table("co2")["co2"].interpolate()
    windows = np.lib.stride_tricks.sliding_window_view(series.to_numpy(), 26)
    phase = 2 * np.pi * series.index[25:].dayofyear.to_numpy() / 365.25
    centred = windows - windows.mean(axis=1, keepdims=True)
    return targets(centred, np.column_stack([np.cos(phase), np.sin(phase)]))


def photographs():
    rng = np.random.default_rng(0)
    X, y = [], []
    for label, name in enumerate(("china.jpg", "flower.jpg")):
        grey = sk.load_sample_image(name).mean(axis=2)
        patches = np.lib.stride_tricks.sliding_window_view(grey, (8, 8)).reshape(-1, 64)
        X.append(patches[rng.choice(len(patches), 750, replace=False)])
        y.append(np.full(750, label))
    return labelled(np.vstack(X), np.concatenate(y))


def mnist1d():
    from mnist1d.data import get_dataset_args, make_dataset

    settings = get_dataset_args()
    settings.num_samples, settings.train_split = 1500, 1.0
    made = make_dataset(settings)
    return labelled(made["x"], made["y"])


# Made sets.


def tree():
    """Seven branches of length 1 in 20 columns, each from the end of an earlier one."""
    rng = np.random.default_rng(0)
    ends, X, y = [np.zeros(20)], [], []
    for branch in range(7):
        direction = rng.standard_normal(20)
        start = ends[(branch + 1) // 2]
        direction /= np.linalg.norm(direction)
        X.append(start + rng.uniform(size=(150, 1)) * direction)
        ends.append(start + direction)
        y.append(np.full(150, branch))
    return labelled(np.vstack(X) + 0.05 * rng.standard_normal((1050, 20)), np.concatenate(y))


def moons():
    X, y = sk.make_moons(600, noise=0.1, random_state=0)
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((20, 20)))[0][:2]
    return labelled(X @ turn + 0.05 * rng.standard_normal((600, 20)), y)


def blobs():
    return labelled(*sk.make_blobs(600, cluster_std=[1.0, 2.5, 0.5], random_state=170))


def swiss_roll():
    from skdmap.datasets import make_swiss_roll

    roll = make_swiss_roll(1500, noise=0.5, random_state=0)
    return targets(roll.X, roll.arc_length)


# Trajectories of 400 steps in 500 columns.


def isometric(plane, noise=0.05):
    """A path (400, d) turned into 500 columns, with noise of this share of its spread."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((500, plane.shape[1])))[0].T
    scale = noise * np.sqrt(plane.var(axis=0).sum() / 500)
    return plane @ turn + scale * rng.standard_normal((plane.shape[0], 500))


def circle_path():
    phase = 6 * np.pi * np.arange(400) / 400
    plane = np.column_stack([np.cos(phase), np.sin(phase)])
    return targets(isometric(plane), plane)


def sheet_path():
    """A path that fills a rectangle of sides 2 and 1: its targets."""
    time = np.arange(400) / 400
    plane = np.column_stack([2 * time, np.abs(2 * ((10 * time) % 1) - 1)])
    return targets(isometric(plane), plane)


def ornstein_uhlenbeck_path():
    """All columns alike and independent: a map that predicts time draws a clock."""
    rng = np.random.default_rng(0)
    decay, X = np.exp(-0.05), [rng.standard_normal(500)]
    for _ in range(399):
        X.append(decay * X[-1] + np.sqrt(1 - decay**2) * rng.standard_normal(500))
    return targets(X, np.arange(400) / 400)


def decaying_walk():
    """A walk whose steps shrink a hundredfold."""
    rng = np.random.default_rng(0)
    steps = np.geomspace(1, 0.01, 400)[:, None] * rng.standard_normal((400, 500))
    return targets(np.cumsum(steps, axis=0), np.arange(400) / 400)


SETS: dict[str, Callable[[], Set]] = {
    "digits": digits,
    "wine": lambda: labelled(*scikit_learn("wine")),
    "breast cancer": lambda: labelled(*scikit_learn("breast_cancer")),
    "iris": lambda: labelled(*scikit_learn("iris")),
    "single cells": single_cells,
    "tree": tree,
    "moons": moons,
    "blobs": blobs,
    "diabetes": lambda: targets(*scikit_learn("diabetes")),
    "election survey": election,
    "marriage survey": marriage,
    "travel choices": travel,
    "schools": schools,
    "firms": firms,
    "economy": economy,
    "sunspots": sunspots,
    "carbon dioxide": carbon_dioxide,
    "photographs": photographs,
    "simulated cells": simulated_cells,
    "mnist1d": mnist1d,
    "swiss roll": swiss_roll,
}
TRAJECTORIES: dict[str, Callable[[], Set]] = {
    "circle, three turns": circle_path,
    "sheet": sheet_path,
    "Ornstein-Uhlenbeck": ornstein_uhlenbeck_path,
    "decaying walk": decaying_walk,
}


def diffusion_map(X, k):
    from skdmap import DiffusionMap

    return DiffusionMap(k, random_state=0).fit_transform(X)


def spectral_embedding(X, k, n_neighbors=None):
    from sklearn.manifold import SpectralEmbedding

    return SpectralEmbedding(k, n_neighbors=n_neighbors, random_state=0).fit_transform(X)


def pca(X, k):
    from sklearn.decomposition import PCA

    return PCA(k, random_state=0).fit_transform(X)


def isomap(X, k):
    from sklearn.manifold import Isomap

    return Isomap(n_components=k).fit_transform(X)


def umap(X, k):
    from umap import UMAP

    return UMAP(n_components=k, random_state=0, n_jobs=1).fit_transform(X)


def scanpy_diffmap(X, k):
    import anndata
    import scanpy

    data = anndata.AnnData(X)
    scanpy.pp.neighbors(data, use_rep="X")
    scanpy.tl.diffmap(data, n_comps=max(k + 1, 3))
    return data.obsm["X_diffmap"][:, 1 : k + 1]


MAPS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "DiffusionMap": diffusion_map,
    "SpectralEmbedding": spectral_embedding,
    "SpectralEmbedding, 15 neighbours": lambda X, k: spectral_embedding(X, k, n_neighbors=15),
    "PCA": pca,
    "Isomap": isomap,
    "UMAP": umap,
    "scanpy diffmap": scanpy_diffmap,
}
NEEDS = {"UMAP": "umap", "scanpy diffmap": "scanpy"}


@dataclass(frozen=True)
class Quality:
    """Figures of one map of one set."""

    accuracy: np.ndarray  # (SPLITS,), of the same splits for every map
    trust: float
    localized: float


def quality(data: Set, coordinates: np.ndarray) -> Quality:
    Z = np.asarray(coordinates, dtype=float)
    Z = (Z - Z.mean(axis=0)) / np.maximum(Z.std(axis=0), 1e-300)
    n = len(Z)
    carried = (Z**2).sum(axis=0) ** 2 / (n * np.maximum((Z**4).sum(axis=0), 1e-300))
    split = StratifiedShuffleSplit if data.has_labels else ShuffleSplit
    model = KNeighborsClassifier(5) if data.has_labels else KNeighborsRegressor(5)
    accuracy = [
        model.fit(Z[train], data.y[train]).score(Z[test], data.y[test])
        for train, test in split(SPLITS, test_size=0.3, random_state=0).split(Z, data.y)
    ]
    trust = trustworthiness(data.X, Z, n_neighbors=10)
    return Quality(np.array(accuracy), float(trust), float((carried < 0.05).mean()))


Results = dict[tuple[str, int], dict[str, Quality]]


def measure(names: list[str], maps: list[str]) -> Results:
    """Figures of each set, number of coordinates and map."""
    results: Results = {}
    for name in names:
        data = {**SETS, **TRAJECTORIES}[name]()
        for k in data.components():
            found = results.setdefault((name, k), {})
            for method in maps:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found[method] = quality(data, MAPS[method](data.X, k))
            print(row(name, k, found), file=sys.stderr, flush=True)
    return results


def row(name: str, k: int, found: dict[str, Quality]) -> str:
    cells = [f"{q.accuracy.mean():.3f} {q.trust:.3f} {q.localized:.2f}" for q in found.values()]
    return f"| {name} | {k} | " + " | ".join(cells) + " |"


def means(results: Results) -> list[str]:
    """One row for each map: means over sets, for each number of coordinates."""
    maps = list(next(iter(results.values())))
    lines = [
        "| map | coordinates | sets | accuracy | trustworthiness | localized |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for method in maps:
        for position, label in enumerate(("2", "3 to 5", "6 to 10")):
            low, high = ((2, 2), (3, 5), (6, 10))[position]
            found = [q[method] for (_, k), q in results.items() if low <= k <= high]
            if found:
                accuracy = np.mean([q.accuracy.mean() for q in found])
                trust = np.mean([q.trust for q in found])
                localized = np.mean([q.localized for q in found])
                lines.append(
                    f"| {method} | {label} | {len(found)} | {accuracy:.3f} | {trust:.3f} | "
                    f"{localized:.3f} |"
                )
    return lines


def comparison(results: Results) -> list[str]:
    """DiffusionMap against SpectralEmbedding at 2 and 5 coordinates."""
    cases = {key: found for key, found in results.items() if key[1] <= 5}
    level, leads, other = [], [], []
    for (name, k), found in cases.items():
        own, peer = found["DiffusionMap"], found["SpectralEmbedding"]
        difference = own.accuracy - peer.accuracy
        error = difference.std(ddof=1) / np.sqrt(difference.size)
        trust = own.trust - peer.trust
        good = difference.mean() >= -max(ACCURACY_MARGIN, 2 * error), trust >= -TRUST_MARGIN
        level.append(all(good))
        leads.append((difference.mean(), trust))
        more = found["SpectralEmbedding, 15 neighbours"]
        other.append((own.accuracy.mean() - more.accuracy.mean(), own.trust - more.trust))
        if not all(good):
            print(f"below: {name}, {k}: {difference.mean():+.3f}, {trust:+.3f}", file=sys.stderr)
    lead, lead_15 = np.mean(leads, axis=0), np.mean(other, axis=0)
    return [
        f"{sum(level)} of {len(level)} cases at 2 to 5 coordinates level with or above "
        "SpectralEmbedding.",
        f"On average above SpectralEmbedding by {lead[0]:+.3f} in accuracy (asked: "
        f"{ACCURACY_LEAD}) and {lead[1]:+.3f} in trustworthiness (asked: {TRUST_LEAD}); above "
        f"SpectralEmbedding with 15 neighbours by {lead_15[0]:+.3f} and {lead_15[1]:+.3f}.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=[*SETS, *TRAJECTORIES])
    parser.add_argument("--maps", nargs="*", default=list(MAPS))
    parser.add_argument("--markdown", type=Path, help="append the tables to this file")
    arguments = parser.parse_args()
    missing = [m for m in arguments.maps if m in NEEDS and not is_installed(NEEDS[m])]
    if missing:
        parser.error(f"{missing} are not installed: pip install 'skdmap[bench]'")
    results = measure(arguments.sets, arguments.maps)
    head = [
        "| set | coordinates | " + " | ".join(arguments.maps) + " |",
        "| --- | --- |" + " --- |" * len(arguments.maps),
    ]
    lines = [*head, *(row(name, k, found) for (name, k), found in results.items())]
    tables = {key: found for key, found in results.items() if key[0] in SETS}
    if tables:
        lines += ["", *means(tables)]
        if {"DiffusionMap", *list(MAPS)[1:3]} <= set(arguments.maps):
            lines += ["", *comparison(tables)]
    print("\n".join(lines))
    if arguments.markdown:
        with arguments.markdown.open("a", encoding="utf-8") as file:
            file.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
