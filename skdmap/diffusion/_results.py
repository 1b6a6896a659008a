"""Results on the rows that took part in, results on all rows of X out.

Equal rows share their coordinates and split their mass. Rows of weight 0, and rows in pieces too
small to count, get the coordinates that the extension gives them.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skdmap.diffusion._eigenfunctions import Coordinates, extension_denominators
from skdmap.diffusion._kernel import scale_of_rows
from skdmap.diffusion._markov import MarkovFit
from skdmap.diffusion._nystrom import NystromExtension, extend
from skdmap.diffusion._unique_rows import DistinctRows


@dataclass(frozen=True)
class AllRows:
    """Results in the order of the rows of X.

    Attributes
    ----------
    embedding : ndarray of shape (n_samples, k)
        lambda^t psi.
    eigenfunctions : ndarray of shape (n_samples, k)
        psi.
    stationary : ndarray of shape (n_samples,)
        pi; 0 for rows that took no part.
    labels : ndarray of shape (n_samples,)
        Component; -1 for rows that belong to none that counts.
    scale : ndarray of shape (n_samples,)
        rho.
    """

    embedding: NDArray[np.float64]
    eigenfunctions: NDArray[np.float64]
    stationary: NDArray[np.float64]
    labels: NDArray[np.intp]
    scale: NDArray[np.float64]


def all_rows(
    X: Any,
    rows: DistinctRows,
    markov: MarkovFit,
    coordinates: Coordinates,
    extension: NystromExtension,
) -> AllRows:
    """Spread the results over all rows.

    Parameters
    ----------
    X : {ndarray, csr_matrix} of shape (n_samples, n_features) or (n_samples, n_train)
        All rows, or their distances to the training rows.
    rows : DistinctRows
        Which training row stands for which rows.
    markov : MarkovFit
        Which of these took part.
    coordinates : Coordinates
        Their eigenfunctions.
    extension : NystromExtension
        For the others.

    Returns
    -------
    AllRows
    """
    n_train = rows.index.size
    position = np.full(n_train + 1, -1, dtype=np.intp)  # the last stands for group -1
    position[markov.kept] = np.arange(markov.kept.size)
    place = position[rows.group]
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = extension.factors / extension_denominators(
            coordinates.theta, markov.operator.scale
        )
    embedding = (coordinates.extended * np.nan_to_num(factors, posinf=0.0, neginf=0.0))[place]
    psi = coordinates.psi[place]
    taking_part = place >= 0
    reached = taking_part & np.isfinite(embedding).all(axis=1)
    scale = np.ones(n_train + 1)
    if markov.scale is not None:
        scale[:n_train] = markov.scale
    scale = scale[rows.group]
    rest = np.flatnonzero(~reached)
    if rest.size:
        Z = X[rest]
        embedding[rest] = extend(extension, Z)[0]
        bare = replace(extension, factors=np.ones_like(extension.factors))
        psi[rest] = extend(bare, Z)[0]
        if markov.scale is not None:
            own = scale_of_rows(extension.scale, extension.search.query(Z))
            assert own is not None
            scale[rest] = own
    labels = np.append(np.maximum(markov.labels, -1), -1)[rows.group]
    stationary = np.where(taking_part, markov.operator.stationary[place] * rows.share, 0.0)
    return AllRows(embedding, psi, stationary, labels, scale)
