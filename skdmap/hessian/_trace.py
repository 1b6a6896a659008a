"""Probe vectors -> trace and Frobenius norm of an operator, with a standard error.

The eigenpairs that are known add their share exactly; probes only see the rest (stochastic trace
estimation with deflation, A. S. Gambhir, A. Stathopoulos, K. Orginos, SIAM J. Sci. Comput. 39,
A532-A558, 2017, doi:10.1137/16M1066361).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._krylov import Quadrature
from ._subspace import orthogonalise

__all__ = ["Probe", "TraceEstimate", "estimate_trace", "first_probe", "further_probe"]

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Probe:
    """What one random vector says about A outside of the known eigenvectors.

    Attributes
    ----------
    nodes, weights : ndarray of shape (m,)
        Quadrature of the spectral density of the rest; the weights sum to 1.
    trace : float
        A sample of the trace of the rest.
    square : float
        A sample of its squared Frobenius norm.
    seen : float, default=0.0
        Sum of squares of known eigenvalues that could not be taken out of the vector: ``trace``
        varies with them, though they are in neither ``trace`` nor ``square``.
    """

    nodes: Vector
    weights: Vector
    trace: float
    square: float
    seen: float = 0.0


@dataclass(frozen=True)
class TraceEstimate:
    """Trace and Frobenius norm.

    Attributes
    ----------
    trace, stderr, frobenius_norm : float
        In the unit of the eigenvalues.
    """

    trace: float
    stderr: float
    frobenius_norm: float


def first_probe(quadrature: Quadrature, eigenvalues: Vector, vectors: Vector) -> Probe:
    """Return what the start vector of the eigenpairs themselves says; it costs no product.

    Parameters
    ----------
    quadrature : Quadrature
        From a random start.
    eigenvalues : ndarray of shape (k,)
        That have converged.
    vectors : ndarray of shape (k, n)
        Their eigenvectors.

    Returns
    -------
    Probe
        With what each eigenvector has of the start taken off the node next to its eigenvalue.

    Notes
    -----
    Of a multiple eigenvalue one vector holds all that the start has of its space, and the others
    nothing, whatever their number: there what an eigenvector has on average is taken off.
    """
    size = len(quadrature.start)
    shares = (vectors @ quadrature.start) ** 2
    multiple = _multiple(eigenvalues, size * shares)
    shares = np.where(multiple, 1 / size, shares)
    weights = quadrature.weights.copy()
    for value, share in zip(eigenvalues, shares, strict=True):
        weights[np.abs(quadrature.nodes - value).argmin()] -= share
    # What is left of a pair is rounding, or what the first cycle of several did not resolve yet.
    weights = np.where(weights > 1e-3 * quadrature.weights, weights, 0.0)
    left = weights > 0
    return Probe(
        nodes=quadrature.nodes[left],
        weights=weights[left] / weights.sum() if left.any() else weights[left],
        trace=size * (quadrature.rayleigh - float(eigenvalues @ shares)),
        square=size * max(0.0, quadrature.square - float(eigenvalues**2 @ shares)),
        seen=float(np.sum(eigenvalues[multiple] ** 2)),
    )


def _multiple(eigenvalues: Vector, squares: Vector) -> NDArray[np.bool_]:
    """Return which eigenvectors depend on the start, of whose entries along them these are squares.

    Those of equal eigenvalues, and those that hold far more of the start than they can by chance:
    then the eigenvalue has copies that are not known.
    """

    def too_much(total: float, count: int) -> bool:
        return total > count + 4 * np.sqrt(2 * count) + 8  # chi-squared: 1 in 10,000

    found = np.zeros(len(eigenvalues), dtype=bool)
    if len(eigenvalues) == 0:
        return found
    order = np.argsort(eigenvalues, kind="stable")
    apart = np.diff(eigenvalues[order]) > 1e-4 * np.abs(eigenvalues).max()
    for group in np.split(order, np.flatnonzero(apart) + 1):
        found[group] = len(group) > 1 or too_much(float(squares[group].sum()), 1)
    rest = squares[~found]
    return np.full_like(found, True) if too_much(float(rest.sum()), len(rest)) else found


def further_probe(
    operator: Callable[[Vector], Vector], vectors: Vector, draw: Callable[[], Vector], n_steps: int
) -> Probe:
    """Return what another random vector says.

    Parameters
    ----------
    operator : callable
        Maps a float64 array of shape (n,) to A times it.
    vectors : ndarray of shape (k, n)
        Orthonormal eigenvectors, which are taken out.
    draw : callable
        Returns a Gaussian vector of shape (n,).
    n_steps : int
        Products to make, >= 1.

    Returns
    -------
    Probe
        Of the operator in the complement of the eigenvectors.
    """
    n_known, size = vectors.shape
    n_steps = min(n_steps, size - n_known)
    if n_steps == 0:  # all eigenvectors are known
        return Probe(nodes=np.empty(0), weights=np.empty(0), trace=0.0, square=0.0)
    basis = np.empty((n_known + n_steps + 1, size))
    basis[:n_known] = vectors
    probe = draw()
    probe *= np.sqrt(size) / np.linalg.norm(probe)
    orthogonalise(probe, vectors)
    mass = float(probe @ probe)
    basis[n_known] = probe / np.sqrt(mass)
    diagonal, beside = np.zeros(n_steps), np.zeros(n_steps)
    largest = 0.0
    for step in range(n_steps):
        row = n_known + step
        product = np.array(operator(basis[row]), dtype=np.float64)
        largest = max(largest, float(np.linalg.norm(product)))
        diagonal[step] = orthogonalise(product, basis[: row + 1])[row]
        beside[step] = np.linalg.norm(product)
        if beside[step] <= 1e-12 * largest:  # an invariant subspace: the quadrature is exact
            n_steps = step + 1
            break
        basis[row + 1] = product / beside[step]
    off = beside[: n_steps - 1]
    projected = np.diag(diagonal[:n_steps]) + np.diag(off, 1) + np.diag(off, -1)
    nodes, rotation = np.linalg.eigh(projected)
    return Probe(
        nodes=nodes,
        weights=rotation[0] ** 2,
        trace=mass * float(diagonal[0]),
        square=mass * float(diagonal[0] ** 2 + beside[0] ** 2),
    )


def estimate_trace(eigenvalues: Vector, probes: list[Probe]) -> TraceEstimate:
    """Return trace and Frobenius norm from known eigenvalues and probes of the rest.

    Parameters
    ----------
    eigenvalues : ndarray of shape (k,)
        Of the pairs that the probes leave out.
    probes : list of Probe
        None where all eigenvalues are known.

    Returns
    -------
    TraceEstimate
        Of several probes, the standard error is that of their mean; of one, the square root of 2
        times the Frobenius norm of what it sees, which is the standard deviation of a Gaussian
        probe.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.hessian._trace import estimate_trace
    >>> estimate_trace(np.array([4.0, 3.0]), [])
    TraceEstimate(trace=7.0, stderr=0.0, frobenius_norm=5.0)
    """
    known, squares = float(eigenvalues.sum()), float(eigenvalues @ eigenvalues)
    if not probes:
        return TraceEstimate(known, 0.0, float(np.sqrt(squares)))
    traces = np.array([probe.trace for probe in probes])
    rest = float(np.mean([probe.square for probe in probes]))
    if len(probes) == 1:
        stderr = float(np.sqrt(2 * (rest + probes[0].seen)))
    else:
        stderr = float(traces.std(ddof=1) / np.sqrt(len(traces)))
    return TraceEstimate(known + float(traces.mean()), stderr, float(np.sqrt(squares + rest)))
