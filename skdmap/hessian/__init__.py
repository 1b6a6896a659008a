"""A parameter vector -> the curvature of the loss there.

The way, one file a stage::

    module, data -> _empirical_risk (batches weighed by _batch_shares) -> _operators: v -> H v
                 -> _lanczos: eigenpairs with residuals -> _hessian_spectrum
"""

from ._empirical_risk import EmpiricalRisk
from ._hessian_spectrum import HessianSpectrum
from ._lanczos import RitzPairs, dense_eigenpairs, lanczos
from ._operators import HessianOperator, hessian_operator

__all__ = [  # noqa: RUF022 - in the order of use
    "EmpiricalRisk",
    "HessianSpectrum",
    "HessianOperator",
    "hessian_operator",
    "RitzPairs",
    "lanczos",
    "dense_eigenpairs",
]
