"""
How many large Hessian eigenvalues does a classifier of C classes have?
=======================================================================

After training, nearly all eigenvalues of the loss Hessian are close to zero and few are large:
about as many as there are classes (Sagun et al. 2017, arXiv:1706.04454; Papyan 2020,
arXiv:2008.11865). Here the same network learns 3, 5 and 10 of the digits, and the whole spectrum is
drawn for each. The products that find the eigenpairs also give the density of all other
eigenvalues.
"""

# %%
# One network for each number of classes
# --------------------------------------

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

from skdmap import EmpiricalRisk, HessianSpectrum, TrajectorySampler
from skdmap.plotting import SpectrumDisplay

plt.style.use("skdmap.plotting.style")

digits, labels = load_digits(return_X_y=True)
digits = (digits / 16).astype(np.float32)


def spectrum_for(n_classes):
    """Return the spectrum of a network that has learnt the first digits."""
    X, y = digits[labels < n_classes], labels[labels < n_classes]
    run = TrajectorySampler(
        optimizer_params={"lr": 0.1},
        batch_size=64,
        max_epochs=15,
        record_every="epoch",
        random_state=0,
    ).fit(X, y)
    risk = EmpiricalRisk(run.module_, torch.nn.CrossEntropyLoss(), X, y)
    spectrum = HessianSpectrum(risk, n_components=20, n_probes=10, random_state=0)
    return spectrum.fit(run.snapshots_)


spectra = {n_classes: spectrum_for(n_classes) for n_classes in (3, 5, 10)}

# %%
# Outliers, counted
# -----------------
# The largest gap between logarithms of the twenty largest eigenvalues separates the outliers.

n_apart = {}
for n_classes, spectrum in spectra.items():
    values = spectrum.eigenvalues_
    edge = 0.01 * values[0]
    low, high = spectrum.density_.cdf([-edge, edge])
    n_apart[n_classes] = int(np.argmin(np.diff(np.log(values)))) + 1
    print(
        f"{n_classes:2} classes: {n_apart[n_classes]} eigenvalues before the largest gap;"
        f" {100 * (high - low):.1f} % of all lie within 1 % of the largest one;"
        f" they sum to {spectrum.trace_:.2f} +- {spectrum.trace_stderr_:.2f}"
    )

figure, axes = plt.subplots(3, 1, figsize=(7, 7.5))
span = [
    1.5 * min(spectrum.density_.nodes.min() for spectrum in spectra.values()),
    1.15 * max(spectrum.eigenvalues_[0] for spectrum in spectra.values()),
]
for ax, (n_classes, spectrum) in zip(axes, spectra.items(), strict=True):
    SpectrumDisplay.from_estimator(spectrum, kind="density", xscale="linear", width=0.02, ax=ax)
    ax.set_xlim(*span)
    # Between the last eigenvalue that stands apart and the next one.
    last = spectrum.eigenvalues_[n_apart[n_classes] - 1 : n_apart[n_classes] + 1]
    ax.axvspan(last[1], last[0], color="0.9", zorder=0, label="largest gap of logarithms")
    ax.set_title(f"{n_classes} classes: {n_apart[n_classes]} eigenvalues above the largest gap")
    ax.set_xlabel("")
    ax.legend().remove()
axes[0].legend(loc="upper right")
axes[-1].set_xlabel("eigenvalue of the loss Hessian (loss per squared parameter)")

# %%
# More classes give more large eigenvalues, but fewer than classes: a softmax of C outputs has
# C - 1 degrees of freedom. The smallest outliers are not always separated from the rest.

plt.show()
