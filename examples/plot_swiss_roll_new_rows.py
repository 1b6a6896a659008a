"""
Are the coordinates of new samples right?
=========================================

A diffusion map is fitted on half of a swiss roll. The other half goes through ``transform``, and
its coordinates back through ``inverse_transform``. Both results are compared with what is known of
each sample: its position along the roll, and the sample itself.
"""

# %%
# Fit on one half, transform the other
# ------------------------------------
#
# The unrolled roll is a rectangle of length L and width H. Its eigenfunctions are products of
# cosines, with the rates pi^2 (j^2 / L^2 + k^2 / H^2). It is about four times as long as wide, so
# the first coordinates vary along the roll. The first one that varies across it mixes slightly with
# cos(4 pi s), which has nearly the same rate.

import matplotlib.pyplot as plt
import numpy as np

from skdmap import DiffusionMap
from skdmap.datasets import make_swiss_roll
from skdmap.plotting import EmbeddingDisplay

plt.style.use("skdmap.plotting.style")

roll = make_swiss_roll(4000, noise=0.1, random_state=0)
seen = np.arange(4000) % 2 == 0
mapping = DiffusionMap(n_components=10, bandwidth="auto", random_state=0).fit(roll.X[seen])
coordinates = mapping.transform(roll.X[~seen])

along = np.cos(np.pi * roll.arc_length)
across = np.cos(np.pi * roll.height / roll.width)


def best_match(function):
    """Return the number of the coordinate that follows ``function`` best, and its correlation."""
    match = np.abs([np.corrcoef(z, function[~seen])[0, 1] for z in coordinates.T])
    return int(match.argmax()), float(match.max())


first, match_along = best_match(along)
second, match_across = best_match(across)
print(f"bandwidth_ = {mapping.bandwidth_:.3g}, in the units of the roll")
print(f"new rows: coordinate {first} follows cos(pi s), |correlation| {match_along:.4f}")
print(f"new rows: coordinate {second} follows cos(pi y), |correlation| {match_across:.4f}")

# %%
# New samples between training samples
# ------------------------------------
#
# Left, the roll. Right, the coordinate along the roll and the first one across it. Training samples
# are grey; new samples are coloured by their position along the roll.

figure = plt.figure(figsize=(10, 4.2))
scene = figure.add_subplot(1, 2, 1, projection="3d")
scene.scatter(*roll.X[~seen].T, c=roll.arc_length[~seen], s=5)
scene.view_init(8, -75)
scene.set_yticks([0, 20])
scene.set_title("Samples that the fit has not seen")
flat = figure.add_subplot(1, 2, 2)
EmbeddingDisplay.from_estimator(mapping, components=(first, second), ax=flat, color="0.8")
EmbeddingDisplay(coordinates, eigenvalues=mapping.eigenvalues_).plot(
    components=(first, second),
    c=roll.arc_length[~seen],
    c_label="place along the roll",
    ax=flat,
    s=7,
)
flat.set_title("They fall among the samples of the fit (grey)")

# %%
# Back to samples
# ---------------
#
# ``inverse_transform`` averages training samples that are near in the embedding. Ten coordinates
# give the position on the roll, a surface of 89 by 21, to about 0.2. Of this, 0.08 on average is
# noise perpendicular to the surface, which no coordinate contains.

back = mapping.inverse_transform(coordinates)
error = np.linalg.norm(back - roll.X[~seen], axis=1)
spread = np.linalg.norm(roll.X[~seen] - roll.X[~seen].mean(axis=0), axis=1)
r_squared = 1 - (error**2).sum() / (spread**2).sum()
print(f"new rows there and back: R^2 = {r_squared:.4f}, median error {np.median(error):.3f}")

figure, axes = plt.subplots(1, 2, figsize=(10, 4.2))
axes[0].scatter(roll.X[~seen, 0], roll.X[~seen, 2], s=5, color="0.75", label="rows")
axes[0].scatter(back[:, 0], back[:, 2], s=5, c=roll.arc_length[~seen], label="there and back")
axes[0].set_aspect("equal")
axes[0].set_title("There and back, new samples stay on the roll")
axes[0].set_xlabel("first column")
axes[0].set_ylabel("third column")
axes[0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)
axes[1].hist(error, bins=60)
axes[1].axvline(0.1 * np.sqrt(2 / np.pi), color="C3", label="mean noise across the surface")
axes[1].set_title("Most of them come back to where they were")
axes[1].set_xlabel("distance between a row and its way back, in the units of the roll")
axes[1].set_ylabel("rows")
axes[1].legend()

plt.show()
