"""
Do runs from different starts learn the same thing?
===================================================

In weight space, two runs from different initialisations never meet: hidden units can be permuted,
so one function has many parameter vectors. In function space it is one point. Four runs are mapped
twice: as parameters, and as the probabilities that the network gives to 200 samples, with the
Hellinger distance between them.
"""

# %%
# Four runs, recorded twice
# -------------------------
#
# With ``record=("outputs", rows)`` a row contains log-probabilities. Both samplers have the same
# seed, and recording draws no random numbers, so both pass through the same networks.

import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial.distance import pdist, squareform
from sklearn.datasets import load_digits

from skdmap import DiffusionMap, LogSpaced, TrajectorySampler
from skdmap.plotting import TrajectoryDisplay

plt.style.use("skdmap.plotting.style")

X, y = load_digits(return_X_y=True)
X = X / 16
n_probes, n_runs = 200, 4
settings = {
    "optimizer_params": {"lr": 0.1, "momentum": 0.9},
    "n_runs": n_runs,
    "max_epochs": 8,
    "batch_size": 64,
    "record_every": LogSpaced(50),
    "random_state": 0,
}
weights = TrajectorySampler(**settings).fit(X, y)
functions = TrajectorySampler(record=("outputs", X[:n_probes]), **settings).fit(X, y)

# The Euclidean distance between these is the Hellinger distance, root mean square over the samples.
roots = np.exp(functions.snapshots_ / 2) / np.sqrt(2 * n_probes)
spaces = {"weights": weights.snapshots_, "functions": roots}

# %%
# How far apart starts and ends are
# ---------------------------------

first = np.array([np.flatnonzero(weights.run_ids_ == run)[0] for run in range(n_runs)])
last = np.array([np.flatnonzero(weights.run_ids_ == run)[-1] for run in range(n_runs)])
print(f"{'':12}{'two starts':>12}{'two ends':>12}{'start to end':>14}")
for name, rows in spaces.items():
    distances = squareform(pdist(rows))
    starts, ends = (distances[np.ix_(i, i)][np.triu_indices(n_runs, 1)] for i in (first, last))
    way = distances[first, last]
    print(f"{name:12}{starts.mean():12.3f}{ends.mean():12.3f}{way.mean():14.3f}")

# %%
# The two maps
# ------------

titles = ("Weights: four runs, four places", "Functions: four runs, one path")
figure, axes = plt.subplots(1, 2, figsize=(11, 4.6))
for axis, title, (name, rows) in zip(axes, titles, spaces.items(), strict=True):
    model = DiffusionMap(n_components=3, bandwidth="auto").fit(rows)
    print(f"{name:12}eigenvalues", model.eigenvalues_.round(3))
    TrajectoryDisplay.from_estimator(
        model, weights, color="run", run_names=[f"run {i}" for i in range(n_runs)], ax=axis
    )
    axis.set_title(title)

# %%
# As weights, the runs are four strands, and the first three coordinates only separate them: the
# ends are farther from each other than from their starts. As functions, the runs follow one path,
# and their ends are ten times closer to each other than to their starts.

plt.show()
