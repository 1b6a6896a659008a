"""
Does gradient noise follow the curvature?
=========================================

A step of SGD is the mean gradient plus noise. ``curvature="gradient_covariance"`` is the covariance
of the noise of a single sample; batches of B samples have 1 / B of it. Theory assumes that it is
proportional to the Hessian (Xie et al. 2021, arXiv:2002.03495), so that the noise diffuses along
the few steep directions. Here both matrices are compared at the end of a run, and with chance.
"""

# %%
# The two matrices at one point
# -----------------------------

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

from skdmap import EmpiricalRisk, HessianSpectrum, TrajectorySampler
from skdmap.diagnostics import subspace_overlap

plt.style.use("skdmap.plotting.style")

X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
run = TrajectorySampler(
    optimizer_params={"lr": 0.1},
    batch_size=64,
    max_epochs=15,
    record_every="epoch",
    random_state=0,
).fit(X, y)
risk = EmpiricalRisk(run.module_, torch.nn.CrossEntropyLoss(), X, y, dtype="float64")
settings = {"n_components": 30, "tol": 1e-4, "random_state": 0}
hessian = HessianSpectrum(risk, **settings).fit(run.snapshots_)
noise = HessianSpectrum(risk, curvature="gradient_covariance", **settings).fit(run.snapshots_)
print(f"sum of all eigenvalues: Hessian {hessian.trace_:.2f}, covariance {noise.trace_:.2f}")

# %%
# Noise along the eigenvectors of the Hessian
# -------------------------------------------
# The variance along a direction v is v' C v: one product each.

with risk.operator_at(hessian.point_, "gradient_covariance") as covariance:
    products = covariance.matmat(hessian.components_.T)
along = np.einsum("kp,pk->k", hessian.components_, products)
by_chance = noise.trace_ / risk.n_parameters
slope, offset = np.polyfit(np.log(hessian.eigenvalues_), np.log(along), 1)
correlation = np.corrcoef(np.log(hessian.eigenvalues_), np.log(along))[0, 1]
print(f"variance ~ eigenvalue to the power {slope:.2f}, correlation {correlation:.2f}")
print(f"{100 * along.sum() / noise.trace_:.0f} % of the noise lies in 30 of 2410 directions")

numbers = np.arange(1, 31)
overlaps = [
    subspace_overlap(hessian.components_[:k], noise.components_[:k]).overlap for k in numbers
]

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.4))
left.loglog(hessian.eigenvalues_, along, "o", color="#0072B2", label="30 steepest directions")
ends = hessian.eigenvalues_[[0, -1]]
left.plot(ends, np.exp(offset) * ends**slope, color="#0072B2", label=f"power {slope:.2f}, fitted")
middle = np.exp([np.log(hessian.eigenvalues_).mean(), np.log(along).mean()])
left.plot(ends, middle[1] * ends / middle[0], color="#E69F00", ls="--", label="power 1")
left.axhline(by_chance, color="0.4", linestyle=":", label="any random direction")
left.set_xticks([0.2, 0.5, 1, 2], ["0.2", "0.5", "1", "2"])
left.xaxis.set_minor_formatter("")
left.set_title("Noise is largest along the steepest directions")
left.set_xlabel("eigenvalue of the Hessian")
left.set_ylabel("variance of a row's gradient along it")
left.legend()

right.plot(numbers, overlaps, "o-", color="#0072B2", markersize=4, label="Hessian and covariance")
right.plot(numbers, numbers / risk.n_parameters, ":", color="0.4", label="two random spaces")
right.set_title("The top spaces overlap far more than by chance")
right.set_ylim(0, 1)
right.set_xlabel("dimension of the top spaces")
right.set_ylabel("overlap of the top spaces")
right.legend()

# %%
# The noise follows the Hessian: the nine leading directions of both span nearly the same space, and
# the variance along each is far above that of a random direction. But it is not proportional to the
# Hessian: the variance grows faster than the eigenvalue, and the spaces differ where eigenvalues
# are close together.

plt.show()
