"""Curvature of a loss at parameter vectors: eigenpairs, trace and spectral density.

_risk        a module and data as a loss of one vector
_operators   products of its curvature with vectors
_krylov      eigenpairs, trace and density of any operator with a product
_spectrum_at _krylov on _operators at one point
_hessian_spectrum, _spectrum_path   at one snapshot, at one after the other
"""

from skdmap.hessian._hessian_spectrum import HessianSpectrum
from skdmap.hessian._krylov.lanczos import RitzPairs, dense_eigenpairs, lanczos
from skdmap.hessian._krylov.spectral_density import SpectralDensity
from skdmap.hessian._operators.hessian import HessianOperator, hessian_operator
from skdmap.hessian._risk.empirical_risk import EmpiricalRisk
from skdmap.hessian._spectrum_path import SpectrumPath, hessian_spectrum_path

__all__ = [  # noqa: RUF022 - in the order of use
    "EmpiricalRisk",
    "HessianSpectrum",
    "hessian_spectrum_path",
    "SpectralDensity",
    "SpectrumPath",
    "HessianOperator",
    "hessian_operator",
    "RitzPairs",
    "lanczos",
    "dense_eigenpairs",
]
