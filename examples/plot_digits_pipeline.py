"""
Which manifold learner helps a classifier of digits most?
=========================================================

A nearest-neighbour classifier gets ten coordinates of handwritten digits. The coordinates come from
:class:`skdmap.DiffusionMap` and from scikit-learn's ``SpectralEmbedding``, ``KernelPCA`` and
``Isomap``. Each method has one parameter, a length or a number of neighbours, which
cross-validation on the training samples chooses.

``SpectralEmbedding`` has no ``transform`` and has to be fitted on the test samples as well, without
their labels. So there are two comparisons. *Inductive*: the map is fitted on the training samples,
and the test samples are transformed. *Transductive*: the map is fitted on all samples, and only the
classifier is limited to the training samples. The second is easier. The table says which one
applies.
"""

# %%
# Inductive: a pipeline and a grid
# --------------------------------

import warnings
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from scipy.sparse import SparseEfficiencyWarning
from sklearn.datasets import load_digits
from sklearn.decomposition import KernelPCA
from sklearn.manifold import Isomap, SpectralEmbedding
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdmap import DiffusionMap
from skdmap.exceptions import SkdmapWarning

plt.style.use("skdmap.plotting.style")

# Small bandwidths help the classifier, but leave single samples weakly connected, and each map
# would warn. SpectralEmbedding and Isomap warn about disconnected graphs.
warnings.simplefilter("ignore", SkdmapWarning)
warnings.simplefilter("ignore", SparseEfficiencyWarning)
warnings.filterwarnings("ignore", message="Graph is not fully connected")
warnings.filterwarnings("ignore", message="The number of connected components")

N_COORDINATES = 10
NEIGHBORS = [4, 7, 12]
# Bandwidths are in grey levels; a pixel has 0 to 16.
LENGTHS = np.array([5.5, 7.0, 9.0])
KERNEL_PCA_LENGTHS = np.array([20.0, 40.0, 80.0])

X, y = load_digits(return_X_y=True)


def classifier():
    """Return what stands behind every map."""
    return make_pipeline(StandardScaler(), KNeighborsClassifier())


inductive = {
    "DiffusionMap": (DiffusionMap(N_COORDINATES, eigen_solver="dense"), {"bandwidth": LENGTHS}),
    "KernelPCA": (
        KernelPCA(N_COORDINATES, kernel="rbf"),
        {"gamma": 0.5 / KERNEL_PCA_LENGTHS**2},
    ),
    "Isomap": (Isomap(n_components=N_COORDINATES), {"n_neighbors": NEIGHBORS}),
}


def fit_on_training_rows(estimator, grid, train, test):
    """Return the accuracy on the test rows."""
    pipeline = make_pipeline(estimator, classifier())
    step = pipeline.steps[0][0]
    search = GridSearchCV(pipeline, {f"{step}__{k}": v for k, v in grid.items()}, cv=3)
    return search.fit(X[train], y[train]).score(X[test], y[test])


# %%
# Transductive: one embedding of all samples
# ------------------------------------------

transductive = {
    "SpectralEmbedding": [
        SpectralEmbedding(
            N_COORDINATES, affinity="nearest_neighbors", n_neighbors=k, random_state=0
        )
        for k in NEIGHBORS
    ],
    "DiffusionMap, all rows": [
        DiffusionMap(N_COORDINATES, bandwidth=h, eigen_solver="dense") for h in LENGTHS
    ],
}


def fit_on_all_rows(candidates, train, test):
    """Return the accuracy on the test rows; labels of training choose among the candidates."""
    embeddings = [candidate.fit_transform(X) for candidate in candidates]
    scores = [cross_val_score(classifier(), Z[train], y[train], cv=3).mean() for Z in embeddings]
    best = embeddings[int(np.argmax(scores))]
    return classifier().fit(best[train], y[train]).score(best[test], y[test])


# %%
# The comparison
# --------------
#
# Means over three splits into halves. Times include the choice of the parameter, and are relative
# to ``DiffusionMap``, because seconds depend on the machine. With 64 pixels such a classifier needs
# no map; the first row of the table is the classifier alone.

accuracy = {name: [] for name in ["no map", *inductive, *transductive]}
seconds = dict.fromkeys([*inductive, *transductive], 0.0)
for seed in range(3):
    train, test = train_test_split(np.arange(len(y)), test_size=0.5, stratify=y, random_state=seed)
    plain = KNeighborsClassifier().fit(X[train], y[train])
    accuracy["no map"].append(plain.score(X[test], y[test]))
    for name, (estimator, grid) in inductive.items():
        start = perf_counter()
        accuracy[name].append(fit_on_training_rows(estimator, grid, train, test))
        seconds[name] += perf_counter() - start
    for name, candidates in transductive.items():
        start = perf_counter()
        accuracy[name].append(fit_on_all_rows(candidates, train, test))
        seconds[name] += perf_counter() - start

print(f"{'':24}{'contest':14}{'accuracy':10}{'min - max':16}time / DiffusionMap")
for name, values in accuracy.items():
    contest = "transductive" if name in transductive else "inductive"
    span = f"{min(values):.3f} - {max(values):.3f}"
    ratio = f"{seconds[name] / seconds['DiffusionMap']:.1f}" if name in seconds else "-"
    print(f"{name:24}{contest:14}{np.mean(values):<10.3f}{span:16}{ratio}")

figure, axis = plt.subplots(figsize=(8, 3.6))
for position, (name, values) in enumerate(accuracy.items()):
    color = "C1" if name in transductive else "C0"
    axis.plot(values, [position] * 3, "o", color=color, alpha=0.5)
    axis.plot(np.mean(values), position, "|", color=color, markersize=22, markeredgewidth=2)
axis.set_yticks(range(len(accuracy)), accuracy)
axis.invert_yaxis()
axis.set_xlabel("accuracy on the held-out half, three splits and their mean")
axis.set_title("inductive (blue), and transductive (orange), which sees the test rows")

# %%
# The first coordinates of the digits
# -----------------------------------
#
# For a picture use the automatic bandwidth, which leaves hardly any sample weakly connected.

embedding = DiffusionMap(4, bandwidth="auto", eigen_solver="dense").fit_transform(X)
figure, axes = plt.subplots(1, 2, figsize=(10, 4.4))
for axis, (i, j) in zip(axes, [(0, 1), (2, 3)], strict=True):
    dots = axis.scatter(embedding[:, i], embedding[:, j], c=y, s=7, cmap="tab10")
    axis.set_xlabel(f"diffusion coordinate {i}")
    axis.set_ylabel(f"diffusion coordinate {j}")
figure.colorbar(dots, ax=axes, label="digit", ticks=range(10))

plt.show()
