"""
How does a protein open? A map from distances alone
===================================================

The distance between two frames of a simulation is the RMSD of their atoms after the best
superposition. No table has such distances, so they are passed with ``metric="precomputed"``. New
frames are passed as rows of distances to the frames of the fit.

This example needs MDAnalysis and its test files: ``pip install "skdmap[examples]"``. The trajectory
is a path on which adenylate kinase (AdK) opens, made by dynamic importance sampling (Beckstein et
al. 2009, https://doi.org/10.1016/j.jmb.2009.09.009).
"""

import sys
import warnings

try:
    import MDAnalysis
    from MDAnalysis.analysis.diffusionmap import DistanceMatrix
    from MDAnalysisTests.datafiles import DCD, PSF
except ImportError:
    print(
        "This example needs MDAnalysis and MDAnalysisTests. Install them with: "
        'pip install "skdmap[examples]"'
    )
    sys.exit()

# %%
# Distances in, slow coordinate out
# ---------------------------------
#
# Every second frame is in the fit, the others are new. The first coordinate follows the order of
# time, as it should on a path from closed to open. By itself this shows little: frames are serial,
# and a random walk of many atoms has such a map, too.

import matplotlib.pyplot as plt
import numpy as np

from skdmap import DiffusionMap

plt.style.use("skdmap.plotting.style")
warnings.filterwarnings("ignore", module="MDAnalysis")

protein = MDAnalysis.Universe(PSF, DCD)
rmsd = DistanceMatrix(protein, select="name CA").run().results.dist_matrix
seen = np.arange(len(rmsd)) % 2 == 0
mapping = DiffusionMap(3, metric="precomputed", bandwidth="auto", random_state=0)
mapping.fit(rmsd[np.ix_(seen, seen)])
coordinates = mapping.transform(rmsd[:, seen])
print(f"{len(rmsd)} frames, {seen.sum()} of them in the fit, bandwidth {mapping.bandwidth_:.2f} Å")
print("eigenvalues", mapping.eigenvalues_.round(3))

# %%
# What the slow coordinate means
# ------------------------------
#
# AdK opens at two hinges: the angles of its LID and NMP domains to the CORE. The map was not fitted
# on these angles. Both grow along coordinate 0: first the LID opens, then the NMP domain.


def angle(ends, hinge):
    """Return the angle in degrees, in each frame, at the hinge between two groups of residues."""
    groups = [protein.select_atoms(f"name CA and resid {r}") for r in (ends[0], hinge, ends[1])]
    angles = []
    for _ in protein.trajectory:
        first, middle, last = (group.center_of_mass() for group in groups)
        a, b = first - middle, last - middle
        angles.append(np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))))
    return np.array(angles)


lid = angle(("179-185", "125-153"), "115-125")
nmp = angle(("115-125", "35-55"), "90-100")
slow = coordinates[:, 0] * np.sign(np.corrcoef(coordinates[:, 0], lid)[0, 1])
for name, values in (("LID", lid), ("NMP", nmp)):
    ranks = np.corrcoef(slow.argsort().argsort(), values.argsort().argsort())[0, 1]
    print(f"rank correlation of coordinate 0 and the {name} angle: {ranks:.3f}")

figure, axes = plt.subplots(1, 2, figsize=(12, 4.6))
for chosen, marker, label in ((seen, "o", "in the fit"), (~seen, "x", "new")):
    axes[0].plot(np.flatnonzero(chosen), slow[chosen], marker, markersize=5, label=label)
axes[0].set_xlabel("frame")
axes[0].set_ylabel("diffusion coordinate 0")
axes[0].set_title("New frames fall among those of the fit")
axes[0].legend()
axes[1].plot(slow, lid, "o", label="LID to CORE")
axes[1].plot(slow, nmp, "s", label="NMP to CORE")
axes[1].set_xlabel("diffusion coordinate 0")
axes[1].set_ylabel("angle (degrees)")
axes[1].set_title("Both domains open along coordinate 0, the LID first")
axes[1].legend()

plt.show()
