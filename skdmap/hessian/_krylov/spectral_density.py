"""The spectral density of an operator, from converged eigenvalues and random vectors."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skdmap.hessian._krylov.quadrature import Probe

Vector = NDArray[np.float64]


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
        >>> from skdmap.hessian._krylov.spectral_density import spectral_density
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
        >>> from skdmap.hessian._krylov.spectral_density import spectral_density
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
