"""Overlaps of trajectories with curvature directions, each beside its chance level.

Plain functions of arrays; they know no estimator. Two directions of the same space overlap a
little by chance alone, so every figure carries the value that random directions would give.
"""

from skdmap.diagnostics._displacement import DisplacementShare, displacement_share
from skdmap.diagnostics._overlap import SubspaceOverlap, subspace_overlap

__all__ = ["DisplacementShare", "SubspaceOverlap", "displacement_share", "subspace_overlap"]
