"""
What does training do to the spectrum of each layer?
====================================================

Each layer of a network has a block of the Hessian: the Hessian in its parameters, with all others
fixed. ``EmpiricalRisk(..., parameters="0.*")`` selects parameters by name. Each eigenvalue of a
block is at most the eigenvalue of the whole Hessian with the same index (Cauchy's interlacing), so
the blocks show where the large curvature comes from.
"""

# %%
# A network, trained
# ------------------

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

from skdmap import EmpiricalRisk, HessianSpectrum, TrajectorySampler, make_mlp

plt.style.use("skdmap.plotting.style")

X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
run = TrajectorySampler(
    make_mlp,
    module_params={"n_features": 64, "n_outputs": 10, "hidden": (32, 32)},
    optimizer_params={"lr": 0.1, "momentum": 0.9},
    batch_size=64,
    max_epochs=10,
    record_every="epoch",
    random_state=0,
).fit(X, y)

# %%
# Spectra of the whole and of its layers
# --------------------------------------

LAYERS = {"whole network": None, "first layer": "0.*", "second layer": "2.*", "last layer": "4.*"}


def top_of(module, patterns):
    """Return the fitted spectrum of a module in the parameters of these names."""
    risk = EmpiricalRisk(module, torch.nn.CrossEntropyLoss(), X, y, parameters=patterns)
    spectrum = HessianSpectrum(risk, n_components=20, tol=1e-4, random_state=0)
    return spectrum.fit(risk.snapshot())


moments = {"before training": run.module_at(0), "after training": run.module_at(-1)}
found = {
    moment: {layer: top_of(module, patterns) for layer, patterns in LAYERS.items()}
    for moment, module in moments.items()
}
for moment, spectra in found.items():
    print(f"{moment}: loss {spectra['whole network'].loss_:.3f}")
    for layer, spectrum in spectra.items():
        print(
            f"  {layer:14}{spectrum.n_features_in_:6} parameters, largest eigenvalue"
            f" {spectrum.eigenvalues_[0]:.3f}, trace {spectrum.trace_:6.2f}"
            f" +- {spectrum.trace_stderr_:.2f}, {spectrum.n_matvecs_} products"
        )

# %%
# Side by side
# ------------

STYLES = {  # Okabe and Ito's colours for all kinds of colour vision; markers for print
    "whole network": {"color": "black", "marker": "o"},
    "first layer": {"color": "#E69F00", "marker": "s"},
    "second layer": {"color": "#56B4E9", "marker": "^"},
    "last layer": {"color": "#009E73", "marker": "D"},
}
figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), sharey=True)
for ax, (moment, spectra) in zip(axes, found.items(), strict=True):
    for layer, spectrum in spectra.items():
        values = spectrum.eigenvalues_
        index = np.arange(len(values))
        ax.plot(index, values, markersize=4.5, linewidth=1, label=layer, **STYLES[layer])
    ax.set_yscale("log")
    ax.set_xlabel("index")
    ax.set_title(f"{moment}, loss {spectra['whole network'].loss_:.3f}")
    ax.xaxis.get_major_locator().set_params(integer=True)
axes[0].set_ylabel("eigenvalue (loss per squared parameter)")
axes[1].legend()

# %%
# At the start every layer contributes, and the last one has 9 = C - 1 eigenvalues above a steep
# drop. Training moves nearly all of the large curvature into the first layer: the eigenvalues of
# its block follow those of the whole network.

plt.show()
