"""Stochastic Lanczos quadrature: what one random vector says about the spectrum of an operator.

A run from a random vector (a probe) gives the nodes and weights of a Gauss quadrature of the
spectral density outside the converged eigenvectors.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skdmap.hessian._krylov.basis import Quadrature, orthogonalise

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Probe:
    """What one random vector says about the operator outside the converged eigenvectors."""

    nodes: Vector  # Gauss quadrature of the spectral density of the rest
    weights: Vector  # they sum to 1
    trace: float  # sample of the trace of the rest
    square: float  # sample of its squared Frobenius norm
    # Sum of squares of eigenvalues that could not be deflated: ``trace`` varies with them, though
    # neither ``trace`` nor ``square`` contains them.
    seen: float = 0.0


def first_probe(quadrature: Quadrature, eigenvalues: Vector, vectors: Vector) -> Probe:
    """Return what the start vector of the eigenpairs says; it costs no product."""
    # The share that each eigenvector has of the start is taken off the node next to its eigenvalue.
    # One vector of a multiple eigenvalue holds all that the start has of its space, however large
    # that is, and the others nothing: there the mean share is taken off.
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
    """Return which eigenvectors depend on the start, which has the squares given along them.
    Those of equal eigenvalues, and those with more of it than by chance: they have copies.
    """

    def exceeds_chance(total: float, count: int) -> bool:
        return total > count + 4 * np.sqrt(2 * count) + 8  # chi-squared: 1 in 10,000

    found = np.zeros(len(eigenvalues), dtype=bool)
    if len(eigenvalues) == 0:
        return found
    order = np.argsort(eigenvalues, kind="stable")
    apart = np.diff(eigenvalues[order]) > 1e-4 * np.abs(eigenvalues).max()
    for group in np.split(order, np.flatnonzero(apart) + 1):
        found[group] = len(group) > 1 or exceeds_chance(float(squares[group].sum()), 1)
    rest = squares[~found]
    return np.full_like(found, True) if exceeds_chance(float(rest.sum()), len(rest)) else found


def further_probe(
    operator: Callable[[Vector], Vector], vectors: Vector, draw: Callable[[], Vector], n_steps: int
) -> Probe:
    """Return what another random vector says: a Lanczos run in the complement of ``vectors``."""
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
    diagonal, off_diagonal = np.zeros(n_steps), np.zeros(n_steps)
    largest = 0.0
    for step in range(n_steps):
        row = n_known + step
        product = np.array(operator(basis[row]), dtype=np.float64)
        largest = max(largest, float(np.linalg.norm(product)))
        diagonal[step] = orthogonalise(product, basis[: row + 1])[row]
        off_diagonal[step] = np.linalg.norm(product)
        if off_diagonal[step] <= 1e-12 * largest:  # an invariant subspace: the quadrature is exact
            n_steps = step + 1
            break
        basis[row + 1] = product / off_diagonal[step]
    inner = off_diagonal[: n_steps - 1]
    projected = np.diag(diagonal[:n_steps]) + np.diag(inner, 1) + np.diag(inner, -1)
    nodes, rotation = np.linalg.eigh(projected)
    return Probe(
        nodes=nodes,
        weights=rotation[0] ** 2,
        trace=mass * float(diagonal[0]),
        square=mass * float(diagonal[0] ** 2 + off_diagonal[0] ** 2),
    )
