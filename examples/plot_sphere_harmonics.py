"""
Are the eigenfunctions on a sphere the spherical harmonics?
===========================================================

On the unit sphere everything is known in closed form. With kappa = 1 / h^2 the Markov operator has
the eigenvalues I_{l+1/2}(kappa) / I_{1/2}(kappa), each 2 l + 1 times, and the spherical harmonics
of degree l as eigenfunctions. A quadrature with its weights as ``sample_weight`` must reproduce
both to rounding. The rates of random points must be near the eigenvalues l (l + 1) of the
Laplacian.
"""

# %%
# A quadrature gives the closed form
# ----------------------------------

import matplotlib.pyplot as plt
import numpy as np

from skdmap import DiffusionMap
from skdmap.datasets import make_sphere, sphere_eigenfunctions, sphere_eigenvalues

plt.style.use("skdmap.plotting.style")

H = 0.35
N_HARMONICS = 15  # degrees 1, 2 and 3

sphere = make_sphere((20, 40))
mapping = DiffusionMap(N_HARMONICS, bandwidth=H, diffusion_time=0)
mapping.fit(sphere.X, sample_weight=sphere.sample_weight)
exact = sphere_eigenvalues(H, N_HARMONICS)
print(f"largest error of an eigenvalue: {np.abs(mapping.eigenvalues_ - exact).max():.1e}")

# %%
# Random points approximate the Laplacian
# ---------------------------------------

random = make_sphere(3000, design="random", random_state=0)
sampled = DiffusionMap(N_HARMONICS, bandwidth="auto", random_state=0).fit(random.X)
degree = np.sqrt(np.arange(1, N_HARMONICS + 1)).astype(int)
for l in (1, 2, 3):
    rates = sampled.laplacian_eigenvalues_[degree == l]
    print(
        f"3000 random points, degree {l}: {rates.min():.2f} to {rates.max():.2f}, not {l * l + l}"
    )

figure, axis = plt.subplots(figsize=(7, 4))
number = np.arange(1, N_HARMONICS + 1)
axis.step(number, random.laplacian_eigenvalues, where="mid", color="0.6", label="l (l + 1)")
axis.plot(number, sampled.laplacian_eigenvalues_, "o", label="3000 random points, auto bandwidth")
axis.plot(number, mapping.laplacian_eigenvalues_, "x", label=f"quadrature, h = {H}")
axis.set_xlabel("number of the coordinate")
axis.set_ylabel("laplacian_eigenvalues_, 1 / length^2")
axis.set_title("The finite bandwidth of the quadrature shows; its closed form has it too")
axis.legend()

# %%
# Harmonics at new points
# -----------------------
#
# ``transform`` extends the eigenfunctions to a fine grid of the sphere. Those of one degree are
# defined up to a rotation. After a rotation found by least squares they equal the harmonics to
# rounding. Five of the seven of degree 3 are shown.

colatitude, longitude = np.meshgrid(
    np.linspace(0.02, np.pi - 0.02, 60), np.linspace(-np.pi, np.pi, 120), indexing="ij"
)
grid = np.column_stack(
    [
        (np.sin(colatitude) * np.cos(longitude)).ravel(),
        (np.sin(colatitude) * np.sin(longitude)).ravel(),
        np.cos(colatitude).ravel(),
    ]
)
extended = mapping.transform(grid)
harmonics = sphere_eigenfunctions(grid, N_HARMONICS)
turned = np.empty_like(extended)
for l in (1, 2, 3):
    rotation = np.linalg.lstsq(extended[:, degree == l], harmonics[:, degree == l], rcond=None)[0]
    turned[:, degree == l] = extended[:, degree == l] @ rotation
    departure = np.abs(rotation.T @ rotation - np.eye(2 * l + 1)).max()
    print(f"degree {l}: the least-squares map is a rotation to {departure:.1e}")
print(f"largest error of an extended harmonic: {np.abs(turned - harmonics).max():.1e}")

figure, axes = plt.subplots(3, 5, figsize=(12, 5), subplot_kw={"projection": "mollweide"})
figure.suptitle("The eigenfunctions are spherical harmonics: degrees l = 1, 2, 3")
for l, row in zip((1, 2, 3), axes, strict=True):
    columns = np.flatnonzero(degree == l)[:5]
    for axis in row[len(columns) :]:
        axis.set_visible(False)
    for column, axis in zip(columns, row, strict=False):
        values = turned[:, column].reshape(colatitude.shape)
        limit = np.abs(values).max()
        axis.pcolormesh(
            longitude, np.pi / 2 - colatitude, values, cmap="RdBu_r", vmin=-limit, vmax=limit
        )
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_title(f"l = {l}, $\\lambda$ = {mapping.eigenvalues_[column]:.4f}", fontsize=9)

plt.show()
