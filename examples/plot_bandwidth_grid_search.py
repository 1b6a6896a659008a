"""
How is a bandwidth chosen by grid search?
=========================================

In three ways: without labels, by ``DiffusionMap.score``; with labels, by the score of a classifier
behind the map; and with neighbours that are searched only once.
"""

# %%
# Without labels
# --------------
#
# ``score`` is the held-out log-likelihood of the density that the kernel defines, so a grid search
# needs no ``y``. The right picture shows what "auto" uses instead, the slope of the kernel sum. On
# this small and noisy roll the search does better: the bandwidth of "auto" reaches from one layer
# to the next.

import warnings
from tempfile import TemporaryDirectory
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KNeighborsClassifier, KNeighborsTransformer
from sklearn.pipeline import make_pipeline

from skdmap import DiffusionMap
from skdmap.datasets import make_swiss_roll
from skdmap.exceptions import SkdmapWarning
from skdmap.plotting import BandwidthDisplay

plt.style.use("skdmap.plotting.style")

# The ends of a grid are bad bandwidths on purpose, and each of these maps would warn.
warnings.simplefilter("ignore", SkdmapWarning)

roll = make_swiss_roll(1000, noise=0.3, random_state=0)
along = np.cos(np.pi * roll.arc_length)
grid = np.geomspace(0.6, 8, 12)
search = GridSearchCV(DiffusionMap(n_components=2, random_state=0), {"bandwidth": grid}, cv=3)
search.fit(roll.X)
chosen = search.best_params_["bandwidth"]


def likeness(bandwidth):
    """Return |correlation| of the first coordinate and cos(pi s), s the place along the roll."""
    z = DiffusionMap(1, bandwidth=bandwidth, random_state=0).fit_transform(roll.X)
    return abs(np.corrcoef(z[:, 0], along)[0, 1])


matches = [likeness(h) for h in grid]
automatic = DiffusionMap(1, bandwidth="auto", random_state=0).fit(roll.X)
match = abs(np.corrcoef(automatic.embedding_[:, 0], along)[0, 1])
print(f"grid search: h = {chosen:.2f}, coordinate 0 follows the roll to {likeness(chosen):.3f}")
print(
    f"auto:        h = {automatic.bandwidth_:.2f}, {match:.3f}; best in the grid {max(matches):.3f}"
)

figure, axes = plt.subplots(1, 2, figsize=(11, 4.2))
axes[0].plot(grid, search.cv_results_["mean_test_score"], "o-", label="held-out score")
axes[0].set_xscale("log")
axes[0].set_xticks([0.6, 1, 2, 4, 8], ["0.6", "1", "2", "4", "8"])
axes[0].minorticks_off()
axes[0].set_xlabel("bandwidth h, in the units of the roll")
axes[0].set_ylabel("score, no labels used")
axes[0].axvline(chosen, color="C3", label=f"chosen, {chosen:.2f}")
truth = axes[0].twinx()
truth.plot(grid, matches, "s--", color="0.6")
truth.set_ylim(0, 1.05)
truth.set_ylabel("likeness of coordinate 0 to the roll (grey)", color="0.4")
axes[0].legend(loc="upper right")
axes[0].set_title("The score peaks where the roll is unrolled (grey)")
BandwidthDisplay.from_estimator(automatic, ax=axes[1])
axes[1].set_title("'auto' reads the slope of the kernel sum")

# %%
# In front of a classifier
# ------------------------
#
# In a pipeline, the score of the classifier chooses ``bandwidth`` like any other parameter.

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)
bandwidths = np.array([4.0, 5.0, 6.0, 7.5, 9.0, 12.0, 16.0])

pipeline = make_pipeline(DiffusionMap(n_components=10, random_state=0), KNeighborsClassifier())
classified = GridSearchCV(pipeline, {"diffusionmap__bandwidth": bandwidths}, cv=3)
classified.fit(X_train, y_train)
print(f"digits: h = {classified.best_params_['diffusionmap__bandwidth']:g}")
print(f"digits: held-out accuracy {classified.score(X_test, y_test):.3f}")

# %%
# Without searching neighbours again
# ----------------------------------
#
# Neighbours do not depend on the bandwidth. A ``KNeighborsTransformer`` in front of
# ``metric="precomputed"``, with ``memory``, searches them once per fold; new samples go through the
# same two steps. No matrix product speeds up the metric used here, Minkowski's with p = 3, so the
# search costs more than everything after it. The neighbours of each training fold are searched
# once; those of the test folds are still searched for every bandwidth.

with TemporaryDirectory() as folder:

    def graph_pipeline(memory):
        return make_pipeline(
            KNeighborsTransformer(mode="distance", n_neighbors=60, metric="minkowski", p=3),
            DiffusionMap(n_components=10, metric="precomputed", random_state=0),
            KNeighborsClassifier(),
            memory=memory,
        )

    lengths = np.array([3.5, 4.2, 5.0, 6.0, 8.0])
    seconds = {}
    for name, memory in (("plain", None), ("cached", folder)):
        listed = GridSearchCV(graph_pipeline(memory), {"diffusionmap__bandwidth": lengths}, cv=3)
        start = perf_counter()
        listed.fit(X_train, y_train)
        seconds[name] = perf_counter() - start
print(f"lists: h = {listed.best_params_['diffusionmap__bandwidth']:g}")
print(f"lists: held-out accuracy {listed.score(X_test, y_test):.3f}")
print(f"lists: time cached / plain = {seconds['cached'] / seconds['plain']:.2f}")

figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), sharey=True)
axes[0].plot(bandwidths, classified.cv_results_["mean_test_score"], "o-")
axes[0].set_xlabel("bandwidth h, Euclidean, in grey levels")
axes[0].set_ylabel("accuracy in cross-validation")
axes[0].set_title("All pairs: accuracy peaks inside the grid")
axes[1].plot(lengths, listed.cv_results_["mean_test_score"], "o-")
axes[1].set_xlabel("bandwidth h, Minkowski with p = 3, in grey levels")
axes[1].set_title("60 neighbours: so does it here")

plt.show()
