"""Distances in, local scale rho out: 1, from neighbour distances ("local"), or from the density.

rho is divided by its geometric mean and kept in [1/2, 2]: unbounded, the extension has a pole at
1 = eps mu rho^2, and a few rows of a thin tail take over the bottom of the spectrum.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from skdmap.diffusion._bandwidth import neighbor_scales, weighted_median
from skdmap.diffusion._graph import DistanceGraph
from skdmap.diffusion._kernel import log_affinity, row_log_sums

__all__ = ["RHO_BOUND", "LocalScale", "fit_scale", "scale_of_rows"]

RHO_BOUND = 2.0
# "local": distance to this nearest row, the own counted.
LOCAL_NEIGHBOR = 9
_LEAST_SHARE = 1e-2


@dataclass(frozen=True)
class LocalScale:
    """A rule that gives rho for training rows and new rows alike.

    Attributes
    ----------
    kind : {"fixed", "neighbor", "density"}
        rho = 1, distance to the 9th nearest row, or a power of the density.
    epsilon : float
        h^2 / 2 of the kernel, in squared units of the distances.
    exponent : float
        The power of the density.
    log_mean : float
        Logarithm of the geometric mean that is divided out.
    log_weight : ndarray of shape (n_train,) or None
        Of the density.
    floor : float
        The least distance that counts as a scale, so that equal rows do not pull the mean to 0.
    """

    kind: Literal["fixed", "neighbor", "density"]
    epsilon: float
    exponent: float = 0.0
    log_mean: float = 0.0
    log_weight: NDArray[np.float64] | None = None
    floor: float = 0.0

    @property
    def bandwidth(self) -> float:
        """h, in units of the distances."""
        return float(np.sqrt(2.0 * self.epsilon))


def fit_scale(
    graph: DistanceGraph,
    weight: NDArray[np.float64],
    *,
    bandwidth: float | Literal["local"],
    exponent: float = 0.0,
) -> LocalScale:
    """Fix eps and the geometric mean on the training rows.

    Parameters
    ----------
    graph : DistanceGraph
        Of the training rows.
    weight : ndarray of shape (n_train,)
        Sums to 1.
    bandwidth : float or "local"
        h, or one length per row.
    exponent : float, default=0
        beta of Berry & Harlim: rho is the density to this power.

    Returns
    -------
    LocalScale
    """
    if bandwidth == "local":
        typical = weighted_median(_neighbor_scales(graph), weight)
        _check_length(typical, "local")
        scale = LocalScale("neighbor", epsilon=np.nan, floor=_LEAST_SHARE * typical)
        log_mean = float(weight @ _log_scales(scale, graph))
        return replace(scale, epsilon=0.5 * float(np.exp(2.0 * log_mean)), log_mean=log_mean)
    _check_length(float(bandwidth), bandwidth)
    epsilon = 0.5 * float(bandwidth) ** 2
    if exponent == 0.0:
        return LocalScale("fixed", epsilon=epsilon)
    scale = LocalScale("density", epsilon, exponent, log_weight=np.log(weight))
    return replace(scale, log_mean=float(weight @ _log_scales(scale, graph)))


def _check_length(length: float, bandwidth: object) -> None:
    with np.errstate(over="ignore", under="ignore"):
        square = np.square(length)
    if not np.finfo(float).tiny <= square < np.inf:
        raise ValueError(
            f"bandwidth={bandwidth!r} is the length {length:g}, whose square must be a normal "
            "number in double precision. If X holds such lengths, rescale it; if most distances "
            "are 0, pass a number or another metric."
        )


def scale_of_rows(scale: LocalScale, graph: DistanceGraph) -> NDArray[np.float64] | None:
    """Return rho of the rows of a graph, in [1/2, 2]; None where it is 1.

    Parameters
    ----------
    scale : LocalScale
        As fitted.
    graph : DistanceGraph
        From any rows to the training rows.

    Returns
    -------
    ndarray of shape (n_rows,) or None
    """
    if scale.kind == "fixed":
        return None
    relative = _log_scales(scale, graph) - scale.log_mean
    bound = np.log(RHO_BOUND)
    return np.exp(np.clip(relative, -bound, bound))


def _log_scales(scale: LocalScale, graph: DistanceGraph) -> NDArray[np.float64]:
    if scale.kind == "neighbor":
        return np.log(np.maximum(_neighbor_scales(graph), scale.floor))
    assert scale.log_weight is not None
    log_k = log_affinity(graph, epsilon=scale.epsilon)
    density = row_log_sums(log_k, scale.log_weight)
    # Where nothing is near the density is 0; the bound takes care of it.
    return scale.exponent * np.maximum(density, -700.0)


def _neighbor_scales(graph: DistanceGraph) -> NDArray[np.float64]:
    distances = graph.distances if graph.listed is None else graph.listed
    return neighbor_scales(distances, LOCAL_NEIGHBOR)
