"""Trace, Frobenius norm and spectral density of an operator from random vectors.

Eigenpairs that have converged count exactly; the random vectors (probes) estimate the rest
(stochastic trace estimation with deflation, A. S. Gambhir, A. Stathopoulos, K. Orginos, SIAM J.
Sci. Comput. 39, A532-A558, 2017, doi:10.1137/16M1066361).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class TraceEstimate:
    """Trace and Frobenius norm."""

    trace: float
    stderr: float
    frobenius_norm: float


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


@dataclass(frozen=True)
class SpectralDensity:
    """Distribution of the eigenvalues of an operator, as masses on the real line.

    Attributes
    ----------
    nodes : ndarray of shape (m,)
        Positions of the masses, ascending, in the unit of the eigenvalues.
    weights : ndarray of shape (m,)
        The masses, >= 0; they sum to 1.
    is_atom : ndarray of shape (m,) of bool
        Whether the node is a converged eigenvalue, of mass 1 / n_parameters. The other nodes match
        moments of the rest of the spectrum.
    spacings : ndarray of shape (m,)
        Half the distance between a node's neighbours in its own quadrature; 0 for atoms.
    """

    nodes: Vector
    weights: Vector
    is_atom: NDArray[np.bool_]
    spacings: Vector

    def evaluate(self, grid: Any, width: float | None = None, *, atoms: bool = True) -> Vector:
        """Return the density, each mass smoothed with a Gaussian.

        Parameters
        ----------
        grid : array of shape (n,)
            Eigenvalues.
        width : float, default=None
            Standard deviation of the Gaussian, > 0, relative to the range of the nodes that are not
            atoms (of all nodes, if all are). None takes each node's own spacing, which follows
            scale and is not affected by outliers; atoms then take the mean spacing.
        atoms : bool, default=True
            Whether atoms are included.

        Returns
        -------
        ndarray of shape (n,)
            Per unit of the eigenvalues. Its integral is 1 minus the masses left out.

        Raises
        ------
        ValueError
            If ``width`` is not > 0.

        Examples
        --------
        >>> import numpy as np
        >>> from skdmap.hessian._krylov.quadrature import spectral_density
        >>> density = spectral_density(np.array([0.0, 1.0]), [], 2)
        >>> grid = np.linspace(-3, 4, 701)
        >>> round(float(density.evaluate(grid, width=0.1).sum() * 0.01), 6)
        1.0
        """
        if width is not None and not width > 0:
            raise ValueError(
                f"width={width} must be > 0: it is relative to the range of the bulk. None "
                "follows the nodes."
            )
        values = np.asarray(grid, dtype=np.float64)
        sigma = self._widths(width)
        scaled = (values[..., None] - self.nodes) / sigma
        weights = self.weights if atoms else np.where(self.is_atom, 0.0, self.weights)
        return (np.exp(-0.5 * scaled**2) / sigma) @ weights / np.sqrt(2 * np.pi)

    def cdf(self, grid: Any) -> Vector:
        """Return the fraction of eigenvalues that are at most each value.

        Parameters
        ----------
        grid : array of shape (n,)
            Eigenvalues.

        Returns
        -------
        ndarray of shape (n,)
            In [0, 1]; a step at each node, no smoothing.

        Examples
        --------
        >>> import numpy as np
        >>> from skdmap.hessian._krylov.quadrature import spectral_density
        >>> spectral_density(np.array([0.0, 1.0]), [], 2).cdf([-1.0, 0.0, 0.5, 1.0])
        array([0. , 0.5, 0.5, 1. ])
        """
        steps = np.concatenate([[0.0], np.cumsum(self.weights)])
        return steps[np.searchsorted(self.nodes, np.asarray(grid, dtype=np.float64), side="right")]

    def _widths(self, width: float | None) -> Vector:
        bulk = self.nodes[~self.is_atom] if (~self.is_atom).any() else self.nodes
        # A bulk of one node still needs a width.
        floor = 1e-6 * float(np.abs(bulk).max()) or 1.0
        if width is not None:
            return np.full(len(self.nodes), max(width * float(np.ptp(bulk)), floor))
        own = self.spacings[~self.is_atom]
        mean = float(own.mean()) if len(own) else float(np.ptp(bulk)) / len(bulk)
        return np.maximum(np.where(self.is_atom, mean, self.spacings), floor)


def spectral_density(eigenvalues: Vector, probes: list[Probe], size: int) -> SpectralDensity:
    """Return the density: eigenvalues are atoms of mass 1 / size, all probes count alike."""
    n_known = len(eigenvalues)
    probes = [probe for probe in probes if len(probe.nodes)]
    share = (1 - n_known / size) / max(1, len(probes))
    nodes = np.concatenate([eigenvalues, *(probe.nodes for probe in probes)])
    weights = np.concatenate(
        [np.full(n_known, 1 / size), *(share * probe.weights for probe in probes)]
    )
    spacings = np.concatenate([np.zeros(n_known), *(_spacings(probe.nodes) for probe in probes)])
    order = np.argsort(nodes, kind="stable")
    return SpectralDensity(
        nodes=nodes[order],
        weights=weights[order] / weights.sum(),
        is_atom=(np.arange(len(nodes)) < n_known)[order],
        spacings=spacings[order],
    )


def _spacings(nodes: Vector) -> Vector:
    """Return half the distance between a node's neighbours; at the ends that to the only one."""
    if len(nodes) == 1:
        return np.zeros(1)
    gaps = np.diff(nodes)
    return (np.concatenate([gaps[:1], gaps]) + np.concatenate([gaps, gaps[-1:]])) / 2
