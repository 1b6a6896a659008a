"""Eigenvalues and probes -> the spectral density of an operator.

Stochastic Lanczos quadrature (G. H. Golub and G. Meurant, Matrices, Moments and Quadrature, 2010,
doi:10.1515/9781400833887; for Hessians B. Ghorbani, S. Krishnan, Y. Xiao, 2019, arXiv:1901.10159).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._trace import Probe

__all__ = ["SpectralDensity", "spectral_density"]

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class SpectralDensity:
    """How the eigenvalues of an operator are spread, as masses on the real line.

    Attributes
    ----------
    nodes : ndarray of shape (m,)
        Where the masses lie, ascending, in the unit of the eigenvalues.
    weights : ndarray of shape (m,)
        The masses, >= 0; they sum to 1.
    is_atom : ndarray of shape (m,) of bool
        Whether the node is a converged eigenvalue, of mass 1 / n_parameters. The others stand for
        the rest of the spectrum, which they know by its moments only.
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
            Standard deviation of the Gaussian as a share of the range of the nodes that are no
            atoms (of all, where all are), > 0. None takes each node's own spacing, so that neither
            scale nor outliers matter; atoms then take the mean spacing.
        atoms : bool, default=True
            Whether atoms are smoothed too, or left out.

        Returns
        -------
        ndarray of shape (n,)
            Per unit of the eigenvalues; its integral is 1, less the masses left out.

        Raises
        ------
        ValueError
            If ``width`` is not > 0.

        Examples
        --------
        >>> import numpy as np
        >>> from skdmap.hessian._density import spectral_density
        >>> density = spectral_density(np.array([0.0, 1.0]), [], 2)
        >>> grid = np.linspace(-3, 4, 701)
        >>> round(float(density.evaluate(grid, width=0.1).sum() * 0.01), 6)
        1.0
        """
        if width is not None and not width > 0:
            raise ValueError(f"width={width} must be > 0, a share of the range of the bulk.")
        values = np.asarray(grid, dtype=np.float64)
        sigma = self._widths(width)
        scaled = (values[..., None] - self.nodes) / sigma
        weights = self.weights if atoms else np.where(self.is_atom, 0.0, self.weights)
        return (np.exp(-0.5 * scaled**2) / sigma) @ weights / np.sqrt(2 * np.pi)

    def cdf(self, grid: Any) -> Vector:
        """Return the share of eigenvalues that are at most each value.

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
        >>> from skdmap.hessian._density import spectral_density
        >>> spectral_density(np.array([0.0, 1.0]), [], 2).cdf([-1.0, 0.0, 0.5, 1.0])
        array([0. , 0.5, 0.5, 1. ])
        """
        steps = np.concatenate([[0.0], np.cumsum(self.weights)])
        return steps[np.searchsorted(self.nodes, np.asarray(grid, dtype=np.float64), side="right")]

    def _widths(self, width: float | None) -> Vector:
        bulk = self.nodes[~self.is_atom] if (~self.is_atom).any() else self.nodes
        # Bulks of one point still need a width.
        floor = 1e-6 * float(np.abs(bulk).max()) or 1.0
        if width is not None:
            return np.full(len(self.nodes), max(width * float(np.ptp(bulk)), floor))
        own = self.spacings[~self.is_atom]
        mean = float(own.mean()) if len(own) else float(np.ptp(bulk)) / len(bulk)
        return np.maximum(np.where(self.is_atom, mean, self.spacings), floor)


def spectral_density(eigenvalues: Vector, probes: list[Probe], size: int) -> SpectralDensity:
    """Return the density from known eigenvalues and probes of the rest.

    Parameters
    ----------
    eigenvalues : ndarray of shape (k,)
        Of the pairs that the probes leave out: atoms of mass 1 / size each.
    probes : list of Probe
        Each counts alike. Empty only where ``eigenvalues`` are all.
    size : int
        Number of eigenvalues.

    Returns
    -------
    SpectralDensity
        Of mass 1.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.hessian._density import spectral_density
    >>> spectral_density(np.array([3.0, 1.0]), [], 2).nodes
    array([1., 3.])
    """
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
    """Half the distance between a node's neighbours; at the ends the distance to the one."""
    if len(nodes) == 1:
        return np.zeros(1)
    gaps = np.diff(nodes)
    return (np.concatenate([gaps[:1], gaps]) + np.concatenate([gaps, gaps[-1:]])) / 2
