"""Trace and Frobenius norm from converged eigenvalues and random vectors, with standard error.

Eigenpairs that have converged count exactly; the random vectors (probes) estimate the rest
(stochastic trace estimation with deflation, A. S. Gambhir, A. Stathopoulos, K. Orginos, SIAM J.
Sci. Comput. 39, A532-A558, 2017, doi:10.1137/16M1066361).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skdmap.hessian._krylov.quadrature import Probe

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class TraceEstimate:
    """Trace and Frobenius norm."""

    trace: float
    stderr: float
    frobenius_norm: float


def estimate_trace(eigenvalues: Vector, probes: list[Probe]) -> TraceEstimate:
    """Return trace and Frobenius norm from the deflated eigenvalues and probes of the rest."""
    known, squares = float(eigenvalues.sum()), float(eigenvalues @ eigenvalues)
    if not probes:
        return TraceEstimate(known, 0.0, float(np.sqrt(squares)))
    traces = np.array([probe.trace for probe in probes])
    rest = float(np.mean([probe.square for probe in probes]))
    if len(probes) == 1:  # the standard deviation of a Gaussian probe
        stderr = float(np.sqrt(2 * (rest + probes[0].seen)))
    else:
        stderr = float(traces.std(ddof=1) / np.sqrt(len(traces)))
    return TraceEstimate(known + float(traces.mean()), stderr, float(np.sqrt(squares + rest)))
