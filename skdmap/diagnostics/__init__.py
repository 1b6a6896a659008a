"""Null models, tests and overlaps: each statistic with its value expected by chance.

A random walk has a gap in its spectrum, and two random directions overlap a little. So each result
contains the value that a null model gives, and ``summary()`` states the finding in words. All are
plain functions of arrays.
"""

from skdmap.diagnostics._alignment import AlignedEmbedding, align_embeddings
from skdmap.diagnostics._coordinate_gradients import CoordinateGradients, coordinate_gradients
from skdmap.diagnostics._coordinate_summary import CoordinateSummary, coordinate_summary
from skdmap.diagnostics._dimension_claims import DimensionClaims
from skdmap.diagnostics._dimension_test import DimensionTest, dimension_test
from skdmap.diagnostics._displacement import DisplacementShare, displacement_share
from skdmap.diagnostics._effective_dimension import EffectiveDimension, effective_dimension
from skdmap.diagnostics._gradient_noise import (
    GradientNoise,
    gradient_noise_along,
    stationary_variance,
)
from skdmap.diagnostics._harmonics import HarmonicResiduals, harmonic_residuals
from skdmap.diagnostics._local_dimension import LocalDimension, local_dimension
from skdmap.diagnostics._null_envelope import NullEnvelope, null_envelope
from skdmap.diagnostics._null_models.models import surrogate_trajectories
from skdmap.diagnostics._null_models.random_walk import random_walk
from skdmap.diagnostics._overlap import SubspaceOverlap, subspace_overlap

__all__ = [
    "AlignedEmbedding",
    "CoordinateGradients",
    "CoordinateSummary",
    "DimensionClaims",
    "DimensionTest",
    "DisplacementShare",
    "EffectiveDimension",
    "GradientNoise",
    "HarmonicResiduals",
    "LocalDimension",
    "NullEnvelope",
    "SubspaceOverlap",
    "align_embeddings",
    "coordinate_gradients",
    "coordinate_summary",
    "dimension_test",
    "displacement_share",
    "effective_dimension",
    "gradient_noise_along",
    "harmonic_residuals",
    "local_dimension",
    "null_envelope",
    "random_walk",
    "stationary_variance",
    "subspace_overlap",
    "surrogate_trajectories",
]
