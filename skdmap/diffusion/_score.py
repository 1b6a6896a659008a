"""Held-out rows in, log-likelihood of the kernel's density out: what ``score`` returns.

The density needs a dimension d. Where d is below the slope of the log-likelihood over log h at
large h, large bandwidths win without limit: between the layers of a roll the slope is above the
dimension of the sheet. Where d is far above it, as the number of columns may be, bandwidths win
that leave every row alone. So d is the least for which neither happens on the training rows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skdmap.diffusion._distance_histogram import PairProfile, row_profile, sample_rows
from skdmap.diffusion._kernel import log_affinity, row_log_sums
from skdmap.diffusion._neighbors.factory import SearchSettings
from skdmap.diffusion._neighbors.graph import DistanceGraph
from skdmap.diffusion._nystrom import NystromExtension

# So many training rows tell the dimension of the score to 0.02; fewer, in large data, to 0.04.
_SAMPLE_ROWS, _LEAST_SAMPLE_ROWS = 256, 64
_SAMPLE_PAIRS = 2_000_000
# Neighbours of a typical row at the least bandwidth that no larger one may beat: those of "auto".
_TYPICAL_NEIGHBORS = 10.0
# A row of fewer than a tenth of these does not say how the bandwidth should be.
_LONELY = 0.1
# Held-out rows differ from the training rows: 1.0 lets large bandwidths win by chance; at 1.1
# coarse grids for the rolls of benchmarks/score_comparison.py end where rows are cut off.
_MARGIN = 1.06
# Secants over less than a tenth in h are slopes of the binned curve.
_LEAST_STEP = 1.1
_BLOCK = 2**22


@dataclass(frozen=True)
class ScoreUnits:
    """What makes densities of different bandwidths comparable; known before the bandwidth.

    Attributes
    ----------
    dimension : float
        d, > 0.
    spread : float
        Root mean square distance of a row from the mean, as distances tell it.
    """

    dimension: float
    spread: float


def score_units(
    X: Any,
    weight: NDArray[np.float64],
    settings: SearchSettings,
    graph: DistanceGraph,
    profile: PairProfile | None = None,
) -> ScoreUnits:
    """Read the units of the score from a sample of the training rows, the same every time.

    Parameters
    ----------
    X : {ndarray, csr_matrix} of shape (n_train, n_features) or (n_train, n_train)
        Distinct training rows, or their distances.
    weight : ndarray of shape (n_train,)
        Sums to 1.
    settings : SearchSettings
        How distances are measured.
    graph : DistanceGraph
        Of the training rows: spares the work where it holds all pairs, or all that are known.
    profile : PairProfile or None, default=None
        Of a sample that does not depend on the bandwidth, where there is one: spares all work.

    Returns
    -------
    ScoreUnits
    """
    n_train = weight.size
    if profile is None:
        wanted = np.clip(_SAMPLE_PAIRS // n_train, _LEAST_SAMPLE_ROWS, _SAMPLE_ROWS)
        rows = sample_rows(X, weight, settings, min(int(wanted), n_train))
        whole = not graph.is_sparse or settings.metric == "precomputed"
        profile = row_profile(rows, X, weight, settings, graph if whole else None)
    share = profile.weight / profile.weight.sum()
    mean_square = float(share @ profile.counts @ profile.squares) / profile.n_train
    return ScoreUnits(dimension=score_dimension(profile), spread=float(np.sqrt(0.5 * mean_square)))


def score_dimension(profile: PairProfile) -> float:
    """Return the least dimension for which no large bandwidth wins, and a margin of 6 %.

    Parameters
    ----------
    profile : PairProfile
        Distances from a sample of the training rows to all others.

    Returns
    -------
    float
        d = 1.06 max over h > h10 of (L(h) - L(h10)) / (log h - log h10), > 0. L is the mean over
        rows of the log of the kernel sum over the other rows, and h10 the bandwidth at which a
        typical row has ten effective neighbours: L(h10) = log 10.
    """
    grid = np.log(profile.grid())
    sums = profile.kernel_sums(np.exp(grid))
    share = profile.weight / profile.weight.sum()
    typical = min(_TYPICAL_NEIGHBORS, 0.5 * float(share @ sums[:, -1]))
    level = np.log(typical)
    mean = share @ np.log(np.maximum(sums, _LONELY * typical))
    above = min(int(np.searchsorted(mean, level)), grid.size - 2)
    part = (level - mean[above - 1]) / (mean[above] - mean[above - 1])
    start = grid[above - 1] + min(float(part), 1.0) * (grid[above] - grid[above - 1])
    larger = grid > start + np.log(_LEAST_STEP)
    larger[-1] = True
    return _MARGIN * float(np.max((mean[larger] - level) / (grid[larger] - start)))


def held_out_log_density(
    Z: Any,
    extension: NystromExtension,
    weight: NDArray[np.float64],
    *,
    units: ScoreUnits,
) -> NDArray[np.float64]:
    """Return the log density of the kernel at new rows, lost rows counted as such.

    Parameters
    ----------
    Z : {ndarray, csr_matrix} of shape (n_rows, n_features) or (n_rows, n_train)
        New rows, or their distances to the training rows.
    extension : NystromExtension
        Of a fit. Where the bandwidth varies, each training row has a length of its own and the new
        row none: the sample-point estimate.
    weight : ndarray of shape (n_train,)
        Sums to 1.
    units : ScoreUnits
        d of the normalisation h^-d (2 pi)^(-d/2), and the unit of length.

    Returns
    -------
    ndarray of shape (n_rows,)
        log [sum_j w_j k_j(z) / (h_j / spread)^d + eps / n_train] - (d / 2) log(2 pi), eps = 2.2e-16
        as for two rows that are connected; finite.
    """
    scale, rho, dimension = extension.scale, extension.train_scale, units.dimension
    log_h = 0.5 * np.log(2.0 * scale.epsilon) - np.log(units.spread)
    log_weight = np.log(weight)
    if rho is not None:
        log_weight = log_weight - dimension * np.log(rho)
    # One lost row would else outweigh all others: its log density is -d^2 / (2 h^2).
    lost = np.log(np.finfo(float).eps / weight.size)
    step = max(1, _BLOCK // weight.size) if extension.search.n_neighbors is None else 2**14
    parts = []
    for start in range(0, Z.shape[0], step):
        graph = extension.search.query(Z[start : start + step])
        with np.errstate(over="ignore"):
            log_k = log_affinity(
                graph, epsilon=scale.epsilon, column_scale=None if rho is None else rho**2
            )
        parts.append(row_log_sums(log_k, log_weight) - dimension * log_h)
    return np.logaddexp(np.concatenate(parts), lost) - 0.5 * dimension * np.log(2.0 * np.pi)
