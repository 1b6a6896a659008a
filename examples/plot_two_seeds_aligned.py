"""
Do networks from two seeds represent the digits alike?
======================================================

Two networks with the same layers learn the same digits from two seeds. Their hidden units have a
different order and no exact partners, so activations cannot be compared entry by entry. The maps of
the activations can be compared: both have one point per digit, and an orthogonal matrix rotates one
onto the other.
"""

# %%
# Two networks and their hidden layers
# ------------------------------------

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

from skdmap import DiffusionMap, TrajectorySampler
from skdmap.diagnostics import align_embeddings
from skdmap.plotting import AlignmentDisplay

plt.style.use("skdmap.plotting.style")

X, y = load_digits(return_X_y=True)
X = X / 16
n_train, n_components = 1000, 9


def hidden_layer(seed):
    """Return the activations (n_unseen, n_units) before the last layer, for unseen digits."""
    sampler = TrajectorySampler(
        optimizer_params={"lr": 0.1, "momentum": 0.9},
        max_epochs=15,
        batch_size=64,
        record_every="epoch",
        random_state=seed,
    )
    module = sampler.fit(X[:n_train], y[:n_train]).module_at(-1)
    unseen = torch.as_tensor(X[n_train:], dtype=torch.float32)
    with torch.no_grad():
        accuracy = float(np.mean(module(unseen).argmax(dim=1).numpy() == y[n_train:]))
        print(f"seed {seed}: {accuracy:.3f} of the unseen digits are right")
        return module[:-1](unseen).numpy()


layers = [hidden_layer(seed) for seed in (0, 1)]

# %%
# Units and coordinates
# ---------------------
#
# For units: the correlation of each unit with its best match in the other network. For maps: the
# share of one map that the other leaves unexplained, by chance if the digits are in random order.

correlation = np.corrcoef(layers[0].T, layers[1].T)
n_units = layers[0].shape[1]
best = np.nanmax(np.abs(correlation[:n_units, n_units:]), axis=1)
print(f"median correlation of a unit with its best match: {np.nanmedian(best):.2f}")

maps = [DiffusionMap(n_components).fit_transform(layer) for layer in layers]
result = align_embeddings(maps[0], maps[1], scale=True)
order = np.random.default_rng(0).permutation(len(maps[0]))
chance = align_embeddings(maps[0], maps[1][order], scale=True)
print(f"unexplained after alignment: {result.disparity:.2f}; digits in random order: "
      f"{chance.disparity:.2f}")  # fmt: skip
print("mixing of coordinates:", result.mixing.round(2))

# %%
# The picture
# -----------

AlignmentDisplay.from_result(result, maps[0], maps[1])

# %%
# Units have a correlation of .82 with their best match. Nine coordinates of one map leave 2 % of
# the other unexplained, compared with 99 % for digits in random order: both networks put the same
# digits next to each other.

plt.show()
