"""
Which genes move along the map of blood cells?
==============================================

A single-cell analysis in scanpy produces a graph of affinities between cells. With
``kernel="precomputed"``, skdmap computes the same diffusion map as scanpy from it, and adds
coordinates of new cells, a summary of which coordinates matter, and the genes that change along
each coordinate.

This example needs scanpy: ``pip install "skdmap[examples]"``. Its 700 blood cells (Zheng et al.
2017, https://doi.org/10.1038/ncomms14049) come with it.
"""

import sys

try:
    import scanpy
except ImportError:
    print('This example needs scanpy. Install it with: pip install "skdmap[examples]"')
    sys.exit()

# %%
# The map that scanpy computes
# ----------------------------
#
# The fit uses the connectivities. Its eigenvalues are those of ``scanpy.tl.diffmap`` without the
# trivial first one.

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter1d

from skdmap import DiffusionMap
from skdmap.diagnostics import coordinate_gradients, coordinate_summary
from skdmap.plotting import CoordinateGradientsDisplay, EmbeddingDisplay

plt.style.use("skdmap.plotting.style")

cells = scanpy.datasets.pbmc68k_reduced()
affinities = cells.obsp["connectivities"]
types = np.asarray(cells.obs["bulk_labels"])
# The four kinds of T cells are shown as one.
types = np.where([name.startswith(("CD4+", "CD8+")) for name in types], "T", types)

mapping = DiffusionMap(10, kernel="precomputed").fit(affinities)
scanpy.tl.diffmap(cells, n_comps=11)
difference = np.abs(mapping.eigenvalues_ - cells.uns["diffmap_evals"][1:]).max()
print(f"{len(types)} cells; eigenvalues differ from scanpy's by at most {difference:.0e}")

# %%
# Which coordinates matter?
# -------------------------
#
# Eight groups of cells stand apart in coordinates 0 to 6, which are therefore suggested, and
# coordinate 8 is one more direction. Coordinate 0 separates lymphocytes (left) from dendritic cells
# and monocytes (right); coordinate 6 spreads T cells and natural killers (NK).

summary = coordinate_summary(mapping)
print(summary.summary())

figure, axes = plt.subplots(1, 2, figsize=(12, 4.6))
for axis, components in zip(axes, [(0, 1), (0, 6)], strict=True):
    for name in np.unique(types):
        of_type = mapping.embedding_[types == name]
        axis.scatter(*of_type[:, components].T, s=9, label=name)
    axis.set_xlabel("diffusion coordinate 0")
    axis.set_ylabel(f"diffusion coordinate {components[1]}")
axes[0].set_title("Coordinate 1 is one more branch: monocytes")
axes[1].set_title("Coordinate 6 splits T and NK cells")
axes[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=2)

# %%
# How far is each cell from a root?
# ---------------------------------
#
# With ``diffusion_time="multiscale"`` the pseudotime of a cell is the distance of its coordinates
# from those of the root (Haghverdi et al. 2016, https://doi.org/10.1038/nmeth.3971). The root is a
# progenitor cell (CD34+). ``scanpy.tl.dpt`` counts cells by their degree and keeps the trivial
# vector, so its values differ slightly. Blood contains mature cells without a path of
# development between them, so this pseudotime ranks kinds of cells and is not a clock.

progenitors = np.flatnonzero(types == "CD34+")
every_time = DiffusionMap(10, kernel="precomputed", diffusion_time="multiscale").fit(affinities)
positions = every_time.embedding_
middle = positions[progenitors].mean(axis=0)
root = progenitors[np.linalg.norm(positions[progenitors] - middle, axis=1).argmin()]
pseudotime = np.linalg.norm(positions - positions[root], axis=1)

cells.uns["iroot"] = root
scanpy.tl.dpt(cells, n_dcs=11)
theirs = np.asarray(cells.obs["dpt_pseudotime"])
agreement = np.corrcoef(pseudotime, theirs)[0, 1]
print(f"correlation with scanpy.tl.dpt: {agreement:.3f}")

figure, axes = plt.subplots(1, 2, figsize=(12, 4.6))
EmbeddingDisplay.from_estimator(
    mapping, ax=axes[0], c=pseudotime, c_label="distance from the root", s=9
)
axes[0].plot(*mapping.embedding_[root, :2], "*", color="C3", markersize=15, label="root")
axes[0].set_title("Pseudotime from a progenitor cell")
axes[0].legend(loc="upper left")
names = sorted(np.unique(types), key=lambda name: np.median(pseudotime[types == name]))
axes[1].boxplot([pseudotime[types == name] for name in names], orientation="horizontal")
axes[1].set_yticks(range(1, len(names) + 1), names)
axes[1].set_xlabel("distance from the root")
axes[1].set_title("B cells are farthest from it")

# %%
# Which genes move along a coordinate?
# ------------------------------------
#
# ``coordinate_gradients`` fits each coordinate locally by the 765 genes. It does not use the kinds
# of cells, but finds their markers: CST3, LYZ and the HLA-D genes of antigen-presenting cells along
# coordinate 0, and GZMH, NKG7 and GZMB of natural killers along coordinate 6. B cells, at the left
# end, present antigens as well.

genes = coordinate_gradients(mapping, np.asarray(cells.X), columns=list(cells.var_names))
for k in (0, 6):
    print(f"coordinate {k}: {', '.join(genes.names[genes.ranking[k, :8]])}")

figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), width_ratios=[1, 1, 1.4])
CoordinateGradientsDisplay.from_result(genes, component=0, n_columns=8, ax=axes[0])
CoordinateGradientsDisplay.from_result(genes, component=6, n_columns=8, ax=axes[1], color="C2")
axes[0].set_title("Along coordinate 0")
axes[1].set_title("Along coordinate 6")
for axis in axes[:2]:
    axis.set_xlabel("root mean square slope")
    axis.locator_params(axis="x", nbins=3)
along = np.argsort(mapping.embedding_[:, 0])
for gene in genes.names[genes.ranking[0, :5]]:
    expression = np.asarray(cells[along, gene].X).ravel()
    axes[2].plot(mapping.embedding_[along, 0], gaussian_filter1d(expression, 20), label=gene)
axes[2].set_xlabel("diffusion coordinate 0")
axes[2].set_ylabel("expression, standardised")
axes[2].set_title("Expression rises along coordinate 0")
axes[2].legend()

plt.show()
