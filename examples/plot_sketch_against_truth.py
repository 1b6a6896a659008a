"""
How large must a sketch be?
===========================

A hundred thousand snapshots of a large network fit on no disk. A sketch keeps a few thousand random
sums of each snapshot. Squared distances between sketches equal those between snapshots up to a
relative standard error of sqrt(2/k) for k columns. Here one loop is recorded in full and, at the
same time, as sketches of three sizes.
"""

# %%
# One loop, four recorders
# ------------------------

from contextlib import ExitStack

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.linalg import subspace_angles
from scipy.spatial.distance import pdist
from sklearn.datasets import load_digits

from skdmap import DiffusionMap, TrajectoryRecorder

plt.style.use("skdmap.plotting.style")

X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X / 16, dtype=torch.float32), torch.tensor(y)

torch.manual_seed(0)
module = torch.nn.Sequential(torch.nn.Linear(64, 400), torch.nn.ReLU(), torch.nn.Linear(400, 10))
optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
sizes = [64, 512, 4096]

with ExitStack() as recorders:
    exact = recorders.enter_context(TrajectoryRecorder(module, record_every=2))
    sketches = {
        size: recorders.enter_context(TrajectoryRecorder(module, record_every=2, sketch_dim=size))
        for size in sizes
    }
    for _ in range(240):
        rows = torch.randint(len(X), (64,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(X[rows]), y[rows]).backward()
        optimizer.step()

print("whole:", exact.snapshots_.shape)

# %%
# Distances and coordinates
# -------------------------
#
# The errors of all pairs are not independent, since the pairs point in few directions: in one
# trajectory most errors can have the same sign. ``sketch_error_`` has the errors between successive
# rows, for which the recorder knows the exact distance, and does not need the full rows.

true_distances = pdist(exact.snapshots_.astype(float), "sqeuclidean")
settings = {"n_components": 3, "bandwidth": "median"}
coordinates = DiffusionMap(**settings).fit_transform(exact.snapshots_.astype(float))

figure, axes = plt.subplots(1, 3, figsize=(11, 3.8), sharex=True)
for axis, (size, sketch) in zip(axes, sketches.items(), strict=True):
    rows = sketch.snapshots_.astype(float)
    errors = pdist(rows, "sqeuclidean") / true_distances - 1
    bound = np.sqrt(2 / size)
    angle = subspace_angles(DiffusionMap(**settings).fit_transform(rows), coordinates).max()
    typical, successive = (np.sqrt(np.mean(e**2)) for e in (errors, sketch.sketch_error_[1:]))
    print(
        f"k = {size:5}: error of squared distances {typical:.3f}, successive rows "
        f"{successive:.3f}, sqrt(2/k) {bound:.3f}; coordinates turned by {angle:.3f} rad"
    )
    axis.hist(errors, bins=60, density=True, color="C0", alpha=0.8)
    for sign in (-1, 1):
        axis.axvline(sign * bound, color="C3", linestyle="--")
    axis.set_title(f"k = {size}: coordinates\nturned by {angle:.3f} rad")
    axis.set_xlabel("relative error of a squared distance")
axes[0].set_ylabel("density; dashed: sqrt(2/k)")

plt.show()
