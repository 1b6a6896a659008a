"""
Do optimizers follow the same path from one start?
==================================================

Five optimizers train one network from one initialisation, and their snapshots go into one diffusion
map. All runs start at the same point, because ``random_state`` fixes the stream "init". SGD, Adam
and RMSprop also see the same batches, because the seed is the same. LBFGS uses all samples at each
step: batches would change its loss within a line search.

A row is recorded whenever the parameters have moved by 0.15. Training is fast at first and slow
later. Rows at equal steps would be dense at the slow end, and the map would take this density for
mass.
"""

# %%
# One start, five optimizers
# --------------------------

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skdmap import DiffusionMap, Displacement, TrajectorySampler
from skdmap.plotting import TrajectoryDisplay

plt.style.use("skdmap.plotting.style")

X, y = load_digits(return_X_y=True)
X = X / 16

on_batches = {"max_epochs": 15, "batch_size": 64}
on_all_rows = {"max_epochs": 100, "batch_size": None}
optimizers = {
    "SGD": ("SGD", {"lr": 0.1}, on_batches),
    "SGD, momentum 0.9": ("SGD", {"lr": 0.05, "momentum": 0.9}, on_batches),
    "Adam": ("Adam", {"lr": 0.003}, on_batches),
    "RMSprop": ("RMSprop", {"lr": 0.001}, on_batches),
    # A twentieth of each step: whole ones jump over distances at which no row has a neighbour.
    "LBFGS": ("LBFGS", {"lr": 0.05, "max_iter": 1, "history_size": 10}, on_all_rows),
}
runs = {}
for name, (optimizer, params, settings) in optimizers.items():
    runs[name] = TrajectorySampler(
        optimizer=optimizer,
        optimizer_params=params,
        record_every=Displacement(0.15),
        random_state={"seed": 1, "init": 0},
        **settings,
    ).fit(X, y)

starts = np.stack([run.snapshots_[0] for run in runs.values()])
print("all runs start at one point:", (starts == starts[0]).all())

# %%
# One map of all snapshots
# ------------------------

snapshots = np.concatenate([run.snapshots_ for run in runs.values()])
run_ids = np.repeat(np.arange(len(runs)), [len(run.steps_) for run in runs.values()])
losses = np.concatenate([run.losses_ for run in runs.values()])
model = DiffusionMap(n_components=3, bandwidth="auto").fit(snapshots)

print(f"{'':20}{'loss, last row':>16}{'from the start':>16}{'from SGD, at the end':>22}")
for name, run in runs.items():
    come = np.linalg.norm(run.snapshots_[-1] - run.snapshots_[0])
    apart = np.linalg.norm(run.snapshots_[-1] - runs["SGD"].snapshots_[-1])
    print(f"{name:20}{run.losses_[-1]:16.4f}{come:16.2f}{apart:22.2f}")

figure = plt.figure(figsize=(11, 4.8))
display = TrajectoryDisplay(
    model.embedding_, run_ids=run_ids, losses=losses, axis_name="diffusion coordinate"
)
display.plot(ax=figure.add_subplot(121), run_names=list(runs), color="run")
display.plot(ax=figure.add_subplot(122), components=(0, 2), run_names={})
figure.suptitle("Five optimizers from one start (circle) move in three directions")

# %%
# The map shows three paths, not five. SGD follows the same path with and without momentum, and gets
# farther with it. Adam and RMSprop, which both divide by a running size of the gradient, share
# another path. LBFGS leaves the start in a direction of its own. The final losses show none of
# this.

plt.show()
