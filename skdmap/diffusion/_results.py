"""From unique samples included in the fit to all samples of X.

Equal samples share their coordinates and split their mass. Samples of weight 0, and those in
components too small to count, get the coordinates that the extension gives them.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skdmap.diffusion._eigenfunctions import Eigenfunctions, extension_factors, near_pole
from skdmap.diffusion._kernel import bandwidth_scales
from skdmap.diffusion._landmarks import extended_to_samples
from skdmap.diffusion._markov import MarkovFit
from skdmap.diffusion._nystrom import NystromExtension, extend
from skdmap.diffusion._training_set import TrainingSet


@dataclass(frozen=True)
class FitResults:
    """Results in the order of the samples of X."""

    # (n_samples, k) lambda^t psi.
    embedding: NDArray[np.float64]
    # The same of all samples that landmarks stand for: in the precision of X, or a dask array.
    represented: Any
    # (n_samples, k) psi.
    eigenfunctions: NDArray[np.float64]
    # (n_samples,) pi; 0 for samples not included.
    stationary: NDArray[np.float64]
    # (n_samples,) Component; -1 for samples in none that counts.
    labels: NDArray[np.intp]
    # h, or (n_samples,) the length of each sample.
    bandwidth: float | NDArray[np.float64]
    # Samples whose extension divides by almost 0: lambda^t psi where psi is known, else unreliable.
    near_pole: NDArray[np.intp]


def for_all_samples(
    training: TrainingSet,
    markov: MarkovFit,
    functions: Eigenfunctions,
    extension: NystromExtension,
    verbose: int = 0,
) -> FitResults:
    """Spread the results over all samples."""
    rows, kernel = training.rows, extension.kernel
    n_train = rows.index.size
    position = np.full(n_train + 1, -1, dtype=np.intp)  # the last entry stands for group -1
    position[markov.kept] = np.arange(markov.kept.size)
    place = position[rows.group]
    theta, powers, own_scale = functions.theta, extension.powers, markov.operator.scale
    coordinates = functions.averaged * extension_factors(theta, own_scale, powers)
    pole = np.zeros(rows.group.size, dtype=bool)
    included = place >= 0
    if own_scale is not None:
        near = near_pole(theta, own_scale)
        coordinates[near] = (functions.psi * powers)[near]
        pole = np.any(near, axis=1)[place] & included
    embedding, psi = coordinates[place], functions.psi[place]
    scale = np.ones(n_train + 1)
    if kernel.train_scale is not None:
        scale[:n_train] = kernel.train_scale
    scale = scale[rows.group]
    rest = np.flatnonzero(~(included & np.isfinite(embedding).all(axis=1)))
    if rest.size:
        Z = training.all_samples[rest]
        extended = extend(extension, Z)
        embedding[rest], pole[rest] = extended.coordinates, extended.near_pole
        bare = replace(extension, powers=np.ones_like(powers))
        psi[rest] = extend(bare, Z).coordinates
        if kernel.kind == "local":
            scale[rest] = bandwidth_scales(kernel, extension.index.query(Z))
    represented: Any = embedding
    if training.landmarks is not None:
        represented = extended_to_samples(extension, training.landmarks.represented, verbose > 0)
        pole[:] = False  # named among all samples
    return FitResults(
        embedding=embedding,
        represented=represented,
        eigenfunctions=psi,
        stationary=np.where(included, markov.stationary[place] * rows.share, 0.0),
        labels=np.append(np.maximum(markov.labels, -1), -1)[rows.group],
        near_pole=np.flatnonzero(pole),
        bandwidth=kernel.bandwidth * (scale if kernel.kind == "local" else 1.0),
    )
