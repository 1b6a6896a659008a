"""A parameter vector -> the curvature of the loss there.

The way, one file a stage::

    module, data -> _empirical_risk (batches weighed by _batch_shares) -> _operators: v -> H v
                 -> _lanczos: eigenpairs with residuals -> _trace, _density: what the run also says
                 -> _spectrum_at: all of it at one point
                 -> _hessian_spectrum (one snapshot), _path (one after the other)
"""

from skdmap.hessian._hessian_spectrum import HessianSpectrum
from skdmap.hessian._krylov.lanczos import RitzPairs, dense_eigenpairs, lanczos
from skdmap.hessian._krylov.quadrature import SpectralDensity
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
