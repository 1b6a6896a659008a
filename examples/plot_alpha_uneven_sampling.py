"""
What does alpha do to unevenly sampled data?
============================================

Points on a circle are seven times as dense on one side as on the other. With ``alpha=1`` a
diffusion map shows the circle without the density; with ``alpha=0`` it shows both. For every alpha
the limit is the generator::

    L f = f'' + 2 (1 - alpha) (log q)' f'

Here q is the density, so the right answer of each picture is known.
"""

# %%
# The same samples, three maps
# ----------------------------

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
# With ``alpha=1`` the embedding is a circle, up to sampling noise, whatever the density. With a
# smaller alpha, coordinates are stretched where samples are rare.
#
# The rates and their limits
# --------------------------
#
# With V = -2 (1 - alpha) log q, the generator is that of a particle in the potential V. The density
# q is even in the angle, so eigenfunctions are even or odd. Even ones solve the problem on half of
# the circle with reflecting ends, odd ones with absorbing ends. The derivative f' of an odd
# eigenfunction solves the reflecting problem with -V in place of V, so ``fokker_planck_rates``
# computes both. For this density both sets of rates are equal, because -V is V turned by half a
# circle. The estimated rates split each pair, because a random sample is not exactly even. The
# split grows as alpha falls.


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
