"""
Does full-batch gradient descent stop at the edge of stability?
===============================================================

Gradient descent on a quadratic diverges if the largest eigenvalue of the Hessian, the sharpness, is
above 2 / learning rate. On networks the sharpness rises to this value and stays there (Cohen et al.
2021, arXiv:2103.00065). This example computes the sharpness every few steps at three learning
rates, and counts its cost: each search starts from the previous eigenvector.
"""

# %%
# Three runs from one start
# -------------------------
# The loss is the mean of squares over one-hot labels. Learning rates are multiples of the one at
# which the start itself would be at the edge.

import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

from skdmap import EmpiricalRisk, HessianSpectrum, TrajectorySampler, hessian_spectrum_path

plt.style.use("skdmap.plotting.style")

X, y = load_digits(return_X_y=True)
X, Y = (X / 16).astype(np.float32), np.eye(10, dtype=np.float32)[y]
N_STEPS, EVERY = 4000, 40


def train(learning_rate, n_steps=N_STEPS):
    """Return a run of full-batch gradient descent."""
    return TrajectorySampler(
        optimizer_params={"lr": learning_rate},
        batch_size=None,
        max_epochs=None,
        max_steps=n_steps,
        record_every=EVERY,
        random_state=0,
    ).fit(X, Y)


start = train(0.1, n_steps=1)
risk = EmpiricalRisk(start.module_, torch.nn.MSELoss(), X, Y)
first = HessianSpectrum(risk, 1, point="first", random_state=0).fit(start.snapshots_)
print(f"sharpness of the start: {first.eigenvalues_[0]:.4f}")

runs, paths = {}, {}
for multiple in (1.2, 1.5, 2.0):
    rate = 2 / (multiple * first.eigenvalues_[0])
    began = time.process_time()
    runs[rate] = train(rate)
    trained = time.process_time()
    paths[rate] = hessian_spectrum_path(risk, runs[rate].snapshots_, 1, tol=1e-2, random_state=0)
    ended = time.process_time()
    n_products = paths[rate].n_matvecs
    print(
        f"learning rate {rate:5.2f}: {N_STEPS} steps; sharpness every {EVERY} of them takes"
        f" {n_products[1:].mean():.1f} products each,"
        f" {(ended - trained) / (trained - began):.2f} of the time of the training"
    )

# %%
# Sharpness and 2 / learning rate
# -------------------------------

COLORS = ("#0072B2", "#E69F00", "#009E73")
figure, (top, bottom) = plt.subplots(2, 1, figsize=(7.5, 6.4), sharex=True, height_ratios=(2, 1))
for color, (rate, path) in zip(COLORS, paths.items(), strict=True):
    steps = runs[rate].steps_
    top.plot(steps, path.eigenvalues[:, 0], color=color, label=f"learning rate {rate:.2f}")
    top.axhline(2 / rate, color=color, linestyle="--", linewidth=1)
    bottom.plot(steps, path.losses, color=color)
    edge = path.eigenvalues[3 * len(steps) // 4 :, 0].mean() * rate / 2
    print(f"learning rate {rate:5.2f}: last quarter at {edge:.3f} of 2 / learning rate")
top.plot([], [], color="0.3", linestyle="--", label="2 / learning rate")
top.set_title("The largest eigenvalue rises to 2 / learning rate and stays there")
top.set_ylabel("largest eigenvalue\n(loss per squared parameter)")
top.set_ylim(bottom=0)
top.legend(loc="lower right")
bottom.set_yscale("log")
bottom.set_ylabel("loss on all rows")
bottom.set_xlabel("step")

# %%
# Each run ends at the dashed line of its learning rate. Before the line, a search costs about 4
# products. At the line it costs more, because several eigenvalues are within a few per cent of the
# largest. Momentum b moves the line to 2 (1 + b) / learning rate. For Adam, the preconditioned
# Hessian reaches its line, not this one.

plt.show()
