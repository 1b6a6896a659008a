"""
What does alpha do where the rows are sampled unevenly?
=======================================================

Points on a circle lie seven times as densely on one side as on the other. With ``alpha=1`` a
diffusion map sees the circle and not the density; with ``alpha=0`` it sees both. For every alpha
the limit is the generator

    L f = f'' + 2 (1 - alpha) (log q)' f',

q being the density, so each picture has a right answer.
"""

# %%
# The same rows, three maps
# -------------------------

import matplotlib.pyplot as plt
import numpy as np

from skdmap import DiffusionMap
from skdmap.datasets import fokker_planck_rates
from skdmap.plotting import EmbeddingDisplay

plt.style.use("skdmap.plotting.style")

angle = np.random.default_rng(0).vonmises(0.0, 1.0, 2500)
X = np.column_stack([np.cos(angle), np.sin(angle)])
BANDWIDTH = 0.15

figure, axes = plt.subplots(1, 4, figsize=(15, 3.6))
axes[0].hist(angle, bins=60, density=True)
axes[0].set_xlabel("angle on the circle, rad")
axes[0].set_title("One side is sampled more densely")
for alpha, axis in zip((0.0, 0.5, 1.0), axes[1:], strict=True):
    mapping = DiffusionMap(2, bandwidth=BANDWIDTH, alpha=alpha, diffusion_time=0, random_state=0)
    mapping.fit(X)
    EmbeddingDisplay.from_estimator(mapping, c=angle, ax=axis, s=6, cmap="twilight_shifted")
    axis.set_aspect("equal")
    axis.set_title(f"alpha = {alpha:g}")
    radius = np.linalg.norm(mapping.embedding_, axis=1)
    print(f"alpha = {alpha:g}: largest radius / smallest = {radius.max() / radius.min():.2f}")

# %%
# With ``alpha=1`` the embedding is a circle, whatever the density is; the noise of the sample is
# left. With less, coordinates are stretched where rows are rare.
#
# The rates against their limit
# -----------------------------
#
# With V = -2 (1 - alpha) log q the generator is that of a particle in the potential V. Here q is
# even in the angle, so eigenfunctions are even or odd. Even ones live on half the circle with
# reflecting ends. Odd ones live there with absorbing ends; the derivative f' of an eigenfunction
# turns the one problem into the other with -V in place of V. So both come from
# ``fokker_planck_rates``. For this density they agree, because -V is V turned by half a circle. The
# rates found split each pair, for the sample is not quite as even as its density; the more, the
# less of the density alpha divides out.


def limit_rates(alpha, n_rates):
    """Return the smallest rates of the generator on the whole circle."""
    strength = 2 * (1 - alpha)
    even = fokker_planck_rates(lambda t: -strength * np.cos(t), (0, np.pi), n_rates).rates
    odd = fokker_planck_rates(lambda t: strength * np.cos(t), (0, np.pi), n_rates).rates
    return np.sort(np.concatenate([even, odd]))[:n_rates]


alphas = np.linspace(0, 1, 5)
limit = np.array([limit_rates(alpha, 4) for alpha in alphas])
found = np.array(
    [
        DiffusionMap(4, bandwidth=BANDWIDTH, alpha=alpha, random_state=0)
        .fit(X)
        .laplacian_eigenvalues_
        for alpha in alphas
    ]
)
for alpha, right, rates in zip(alphas, limit, found, strict=True):
    print(f"alpha = {alpha:.2f}: limit {right.round(2)}, found {rates.round(2)}")

figure, axis = plt.subplots(figsize=(6.5, 4.2))
axis.plot(alphas, limit, color="0.6")
for k, rates in enumerate(found.T):
    axis.plot(alphas, rates, "o", label=f"coordinate {k}")
axis.set_xlabel("alpha")
axis.set_ylabel("laplacian_eigenvalues_, 1 / length^2")
axis.set_title("Rates of 2,500 samples, and their limits (lines)")
axis.legend()

plt.show()
