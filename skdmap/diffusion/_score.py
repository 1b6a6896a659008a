"""The score: held-out log-likelihood of the kernel's density.

The density needs a dimension d. Where d is below the slope of the log-likelihood over log h at
large h, large bandwidths win without limit: between the layers of a roll the slope is above the
dimension of the sheet. Where d is far above it, as the number of columns may be, bandwidths win
that isolate every sample. So d is the least for which neither happens on the training samples.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skdmap.diffusion._bandwidth import NeighborGraph
from skdmap.diffusion._distance_histogram import (
    DistanceHistogram,
    representative_sample,
    sample_histogram,
)
from skdmap.diffusion._kernel import GaussianKernel, log_gaussian, row_log_sums
from skdmap.diffusion._neighbors.graph import DistanceGraph, NeighborIndex
from skdmap.diffusion._training_set import TrainingSet
from skdmap.diffusion._unique_rows import UniqueRows
from skdmap.diffusion._wide.column_reader import WideRows

# So many training samples tell the dimension of the score to 0.02; fewer, in large data, to 0.04.
_SAMPLE_ROWS, _LEAST_SAMPLE_ROWS = 256, 64
_SAMPLE_PAIRS = 2_000_000
# Neighbours of a typical sample at the least bandwidth that no larger one may beat, as in "auto".
_TYPICAL_NEIGHBORS = 10.0
# A sample with fewer than a tenth of these does not say how large the bandwidth should be.
_ISOLATED = 0.1
# Held-out samples differ from the training samples: 1.0 lets large bandwidths win by chance; at 1.1
# coarse grids for the rolls of benchmarks/score_comparison.py end where samples are cut off.
_MARGIN = 1.06
# Secants over less than a tenth in h are slopes of the binned curve.
_LEAST_STEP = 1.1
_BLOCK = 2**22
# Each block of distances between wide samples takes a pass over them: few large ones.
_WIDE_BLOCK = 2**27


@dataclass(frozen=True)
class ScoreUnits:
    """What makes densities of different bandwidths comparable; known before the bandwidth."""

    # d, > 0.
    dimension: float
    # Root mean square distance of a sample from the mean.
    spread: float


@dataclass(frozen=True)
class HeldOutDensity:
    """What the density at new samples needs of the training samples: all of positive weight."""

    index: NeighborIndex
    rows: UniqueRows
    kernel: GaussianKernel
    # The units, or the samples that tell them when they are needed.
    source: ScoreUnits | TrainingSet

    @cached_property
    def units(self) -> ScoreUnits:
        """The units of the density."""
        return self.source if isinstance(self.source, ScoreUnits) else score_units(self.source)


def held_out_density(
    training: TrainingSet, graph: NeighborGraph, kernel: GaussianKernel
) -> HeldOutDensity:
    """Return the density of a kernel over all training samples of positive weight."""
    source: ScoreUnits | TrainingSet = replace(training, all_samples=None, landmarks=None)
    known = training.has_stored_distances or not graph.distances.is_sparse
    if known or training.samples is None or isinstance(training.X, WideRows):
        source = score_units(training, graph.distances if known else None)
    return HeldOutDensity(graph.index, training.rows, kernel, source)


def score_units(training: TrainingSet, known: DistanceGraph | None = None) -> ScoreUnits:
    """Read the units from a sample of the training samples that depends on these alone.
    ``known`` are the distances of all pairs, or all that are stored.
    """
    X, weight, settings = training.X, training.weight, training.settings
    if settings.is_given:
        return ScoreUnits(np.nan, np.nan)
    # Not from a histogram of the bandwidth's rules, whose sample depends on the bandwidth.
    wanted = np.clip(_SAMPLE_PAIRS // weight.size, _LEAST_SAMPLE_ROWS, _SAMPLE_ROWS)
    rows = representative_sample(X, weight, settings, min(int(wanted), weight.size))
    histogram = sample_histogram(rows, X, weight, settings, known)
    mean_square = float(histogram.shares() @ histogram.counts @ histogram.squares)
    return ScoreUnits(
        dimension=score_dimension(histogram),
        spread=float(np.sqrt(0.5 * mean_square / histogram.n_train)),
    )


def score_dimension(histogram: DistanceHistogram) -> float:
    """Return the least dimension, > 0, for which no large bandwidth wins, and 6 % more."""
    # d = 1.06 max over h > h10 of (L(h) - L(h10)) / (log h - log h10), L the mean over samples of
    # the log of the kernel sum over the others; a typical sample has ten effective neighbours at
    # h10: L(h10) = log 10.
    grid = np.log(histogram.grid())
    sums = histogram.kernel_sums(np.exp(grid))
    share = histogram.shares()
    typical = min(_TYPICAL_NEIGHBORS, 0.5 * float(share @ sums[:, -1]))
    level = np.log(typical)
    mean = share @ np.log(np.maximum(sums, _ISOLATED * typical))
    above = min(int(np.searchsorted(mean, level)), grid.size - 2)
    part = (level - mean[above - 1]) / (mean[above] - mean[above - 1])
    start = grid[above - 1] + min(float(part), 1.0) * (grid[above] - grid[above - 1])
    larger = grid > start + np.log(_LEAST_STEP)
    larger[-1] = True
    return _MARGIN * float(np.max((mean[larger] - level) / (grid[larger] - start)))


def held_out_log_density(Z: Any, density: HeldOutDensity) -> NDArray[np.float64]:
    """Return the log density (n_rows,) at new samples Z, or at their distances; finite."""
    # log [sum_j w_j k_j(z) / (h_j / spread)^d + eps / n_train] - (d / 2) log(2 pi): a variable
    # bandwidth is that of the training sample alone (sample-point estimate).
    kernel, dimension, weight = density.kernel, density.units.dimension, density.rows.weight
    rho = kernel.train_scale
    log_h = 0.5 * np.log(2.0 * kernel.epsilon) - np.log(density.units.spread)
    log_weight = np.log(weight)
    if rho is not None:
        log_weight = log_weight - dimension * np.log(rho)
    # One isolated sample would else outweigh all others: its log density is -d^2 / (2 h^2).
    isolated = np.log(np.finfo(float).eps / weight.size)
    step = max(1, (_WIDE_BLOCK if isinstance(Z, WideRows) else _BLOCK) // weight.size)
    parts = []
    for start in range(0, Z.shape[0], step):
        block = Z[start : start + step]
        # Never the truncated kernel: it would make scores depend on n_neighbors.
        distances = density.index.all_distances(block)
        if distances is None:
            distances = density.index.query(block).distances
        with np.errstate(over="ignore"):
            log_k = log_gaussian(
                distances, epsilon=kernel.epsilon, column_scale=None if rho is None else rho**2
            )
        parts.append(row_log_sums(log_k, log_weight) - dimension * log_h)
    return np.logaddexp(np.concatenate(parts), isolated) - 0.5 * dimension * np.log(2.0 * np.pi)
