"""
Do 3,000 landmarks map a million samples?
=========================================

A memory map holds a million samples of a swiss roll, twenty times as many at both ends as in the
middle. ``n_landmarks`` chooses 3,000 landmarks, weighs each with the samples nearest to it, maps
the weighted landmarks and extends the map to all samples. The limit is known: with ``alpha=1``
coordinate 0 is cos(pi s), s the place along the roll, whatever the density.
"""

# %%
# A memory map, and a map of it
# -----------------------------
#
# X is read in blocks, once for the weights and once for the coordinates. ``bandwidth`` is one
# length, so that ``alpha`` keeps its meaning.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from skdmap import DiffusionMap
from skdmap.datasets import make_swiss_roll

plt.style.use("skdmap.plotting.style")

N_SAMPLES, N_LANDMARKS = 1_000_000, 3000

rng = np.random.default_rng(1)
rolled = make_swiss_roll(2 * N_SAMPLES, random_state=0)
density = 0.05 + 0.95 * np.cos(np.pi * rolled.arc_length) ** 2
kept = rng.uniform(size=2 * N_SAMPLES) < density
kept = np.flatnonzero(kept)[:N_SAMPLES]
place = rolled.arc_length[kept]
folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "samples.npy"
np.save(path, rolled.X[kept].astype(np.float32))
start, length = rolled.angle.min(), rolled.length
del rolled

X = np.load(path, mmap_mode="r")
mapping = DiffusionMap(
    n_components=2, n_landmarks=N_LANDMARKS, bandwidth=1.5, alpha=1.0, random_state=0
).fit(X)
wave = np.cos(np.pi * place)
sign = np.sign(mapping.embedding_[:, 0] @ wave)
found = np.corrcoef(sign * mapping.embedding_[:, 0], wave)[0, 1]
print(f"{len(X):,} samples, {len(mapping.landmarks_):,} landmarks")
print(f"correlation of coordinate 0 with cos(pi s): {found:.5f}")
print(
    "samples per landmark: "
    f"{np.percentile(mapping.landmark_weights_, 5):.0f} to "
    f"{np.percentile(mapping.landmark_weights_, 95):.0f}, 5th to 95th percentile"
)

# %%
# With ``alpha=0`` the density counts: the coordinate turns into a step between the dense ends. A
# tenth of the samples shows it.

without = DiffusionMap(
    n_components=2, n_landmarks=N_LANDMARKS, bandwidth=1.5, alpha=0.0, random_state=0
).fit(X[::10])

# %%
# The landmarks, and the coordinate of all samples
# ------------------------------------------------
#
# Left, the landmarks on the unrolled sheet; the area of a dot is the number of samples that it
# stands for. Right, coordinate 0 against the place along the roll: all samples with ``alpha=1``, as
# counts in grey on a logarithmic scale, and means over bins with ``alpha=0``.


def scaled(values):
    """Return a coordinate with the sign of the wave, from -1 to 1 but for the outermost 2 %."""
    values = values * np.sign(values @ wave[:: len(wave) // len(values)])
    low, high = np.percentile(values, [1, 99])
    return (2 * values - high - low) / (high - low)


def unrolled(samples):
    """Return the place along the roll, from 0 to 1: the radius is the angle t."""
    t = np.hypot(samples[:, 0], samples[:, 2])
    arc = [0.5 * (a * np.sqrt(1 + a**2) + np.arcsinh(a)) for a in (t, start)]
    return (arc[0] - arc[1]) / length


figure, (sheet, graph) = plt.subplots(1, 2, figsize=(11, 4.2))
landmarks, weights = mapping.landmarks_, mapping.landmark_weights_
dots = sheet.scatter(
    unrolled(landmarks),
    landmarks[:, 1],
    s=15 * weights / weights.mean(),
    c=sign * mapping.transform(landmarks)[:, 0],
)
sheet.set_xlabel("place s along the roll")
sheet.set_ylabel("height")
sheet.set_title("Landmarks are spread more evenly than samples")
figure.colorbar(dots, ax=sheet, label="coordinate 0")

edges = np.linspace(0, 1, 51)
middle = 0.5 * (edges[1:] + edges[:-1])
bins = np.digitize(place[::10], edges) - 1
bent = np.bincount(bins, weights=scaled(without.embedding_[:, 0])) / np.bincount(bins)
frame = (0, 1, -1.2, 1.2)
graph.hexbin(place, scaled(mapping.embedding_[:, 0]), bins="log", cmap="Greys", extent=frame)
graph.plot(middle, np.cos(np.pi * middle), "--", color="C3", label="cos(pi s), the limit")
graph.plot(middle, bent, color="C0", label="alpha=0")
graph.plot([], [], "h", color="0.3", label="alpha=1, a million samples")
graph.legend()
graph.set_xlabel("place s along the roll")
graph.set_ylabel("coordinate 0, scaled")
graph.set_title("With alpha=1 the density of the samples does not matter")

del X, mapping, without
folder.cleanup()
plt.show()
