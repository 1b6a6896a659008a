"""Distances in, histograms of log d^2 out, one per row: what sums over the kernel are read from.

Each distance is shared between the two nearest bins. So the sums are smooth in h and in the data,
cost one matrix product for a whole grid of h, and scale with the data.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap.diffusion._neighbors.factory import SearchSettings
from skdmap.diffusion._neighbors.graph import DistanceGraph
from skdmap.diffusion._neighbors.metrics import pairwise
from skdmap.diffusion._wide.column_reader import WideRows
from skdmap.diffusion._wide.distances import squares_from_pivots

_BIN = 0.05
_GRID_STEP = 0.05
_BINNED_ENTRIES = 2**17
# The Gaussian has fallen to 1e-2 of its value at this multiple of h.
CUTOFF = float(np.sqrt(2.0 * np.log(1e2)))
_LEAST_AUTO, MOST_AUTO = 32, 256
_SAMPLE_PAIRS = 4_000_000
# At most so many pairs, but for a least number of rows.
_MOST_PAIRS = 8_000_000
_SAMPLE_ROWS, _LEAST_ROWS = 256, 256
_BLOCK = 2**22


@dataclass(frozen=True)
class BandwidthCurve:
    """The kernel sum against the bandwidth.

    Attributes
    ----------
    bandwidths : ndarray of shape (n_grid,)
        h, ascending, in units of the distances.
    log_kernel_sum : ndarray of shape (n_grid,)
        log of S = sum_ij w_i w_j k_ij, with weights that sum to 1, own pairs included.
    slope : ndarray of shape (n_grid,)
        d log S / d log h; its largest value estimates the intrinsic dimension.
    """

    bandwidths: NDArray[np.float64]
    log_kernel_sum: NDArray[np.float64]
    slope: NDArray[np.float64]


@dataclass(frozen=True)
class PairProfile:
    """How far some rows are from all others.

    Attributes
    ----------
    counts : ndarray of shape (n_rows, n_bins)
        Other rows at each distance, in numbers of average rows.
    squares : ndarray of shape (n_bins,)
        d^2 of each bin.
    weight : ndarray of shape (n_rows,)
        Weights of the rows, in the same numbers: 1 is an average row.
    n_train : int
        Number of training rows.
    """

    counts: NDArray[np.float64]
    squares: NDArray[np.float64]
    weight: NDArray[np.float64]
    n_train: int

    def grid(self) -> NDArray[np.float64]:
        """Bandwidths from well below the least distance to above the largest."""
        low = 0.5 * np.log(self.squares[0]) - 1.5
        high = 0.5 * np.log(self.squares[-1]) + 1.0
        return np.exp(np.arange(low, high + _GRID_STEP, _GRID_STEP))

    def kernel_sums(self, bandwidths: NDArray[np.float64]) -> NDArray[np.float64]:
        """sum_{j != i} k_ij for each row and bandwidth, in average rows."""
        return self.counts @ np.exp(-self.squares[:, None] / (2.0 * bandwidths**2))


def pair_profile(
    blocks: Iterable[tuple[NDArray[np.intp], Any]],
    weight: NDArray[np.float64],
) -> PairProfile:
    """Sort distances into bins of log d^2, row by row.

    Parameters
    ----------
    blocks : iterable of (ndarray of shape (b,), {ndarray, csr_matrix} of shape (b, n_train))
        Which training rows, and their distances to all (or to the listed) training rows.
    weight : ndarray of shape (n_train,)
        Sums to 1.

    Returns
    -------
    PairProfile

    Raises
    ------
    ValueError
        If all distances are 0.
    """
    relative = weight * weight.size
    parts = list(blocks)
    low, n_bins = _bin_range([_values(block) for _, block in parts])
    counts = [_histogram(rows, block, relative, low, n_bins) for rows, block in parts]
    return PairProfile(
        counts=np.concatenate(counts),
        squares=np.exp(low + _BIN * np.arange(n_bins)),
        weight=relative[np.concatenate([rows for rows, _ in parts])],
        n_train=weight.size,
    )


def _values(block: Any) -> NDArray[np.float64]:
    return block.data if sp.issparse(block) else block


def _bin_range(blocks: list[NDArray[np.float64]]) -> tuple[float, int]:
    largest = max(block.max(initial=0.0) for block in blocks)
    if largest * largest <= 0.0:
        raise ValueError(
            "X: the squared distances between all rows are 0 in double precision. Pass at least "
            "two rows that differ, or rescale X."
        )
    if not largest * largest < np.inf:
        raise ValueError(
            f"X: distances up to {largest:g} have no square in double precision. Rescale X."
        )
    high = 2.0 * np.log(largest)
    # Stored zeros (5e-324) and zeros of a semimetric are no scale of the data.
    floor = largest * 1e-10
    least = min(block.min(initial=largest, where=block > floor) for block in blocks)
    low = 2.0 * np.log(least) - _BIN
    return low, int(np.ceil((high - low) / _BIN)) + 2


def _histogram(
    rows: NDArray[np.intp],
    block: Any,
    relative: NDArray[np.float64],
    low: float,
    n_bins: int,
) -> NDArray[np.float64]:
    counts = np.zeros((rows.size, n_bins))
    alike = bool(np.all(relative == 1.0))
    step = max(1, _BINNED_ENTRIES // relative.size)
    for start in range(0, rows.size, step):
        part = block[start : start + step]
        size = part.shape[0]
        if sp.issparse(part):
            position = np.repeat(np.arange(size), np.diff(part.indptr)) * n_bins
            values, mass = part.data, None if alike else relative[part.indices]
        else:
            position = np.repeat(np.arange(size) * n_bins, part.shape[1])
            values, mass = part.reshape(-1), None if alike else np.tile(relative, size)
        with np.errstate(divide="ignore"):
            place = np.log(values)
        place *= 2.0 / _BIN
        place -= low / _BIN
        np.clip(place, 0.0, n_bins - 1.001, out=place)
        whole = place.astype(np.intp)
        place -= whole
        position += whole
        if mass is not None:
            place *= mass
        # What goes to the bin above, and, for each row, the last bin has none.
        total = np.bincount(position, weights=mass, minlength=size * n_bins).astype(np.float64)
        upper = np.bincount(position, weights=place, minlength=size * n_bins)
        total -= upper
        total[1:] += upper[:-1]
        counts[start : start + size] = total.reshape(size, n_bins)
    # Each row met itself at distance 0, which is the lowest bin.
    counts[:, 0] = np.maximum(counts[:, 0] - relative[rows], 0.0)
    return counts


def bandwidth_curve(profile: PairProfile) -> BandwidthCurve:
    """Return log S and its slope on a grid of bandwidths that spans the data's scales."""
    grid = profile.grid()
    share = profile.weight / profile.weight.sum()
    mean_counts = share @ profile.counts
    kernel = np.exp(-profile.squares[:, None] / (2.0 * grid**2))
    total = mean_counts @ kernel + share @ profile.weight
    moment = mean_counts @ (kernel * profile.squares[:, None])
    return BandwidthCurve(
        bandwidths=grid,
        log_kernel_sum=np.log(total / profile.n_train),
        slope=moment / (grid**2 * total),
    )


def weighted_median(values: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    """The median of values that count ``weight`` times; ``numpy.median`` for equal weights."""
    if np.all(weight == weight[0]):
        return float(np.median(values))
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weight[order])
    half = 0.5 * total[-1]
    lower = int(np.searchsorted(total, half * (1.0 - 1e-12)))
    upper = int(np.searchsorted(total, half * (1.0 + 1e-12)))
    upper = min(upper, values.size - 1)
    return float(0.5 * (values[order[lower]] + values[order[upper]]))


def sample_size(n_train: int) -> int:
    """Return how many rows stand for all in sums over pairs."""
    rows = int(np.clip(_MOST_PAIRS // n_train, _LEAST_ROWS, _SAMPLE_ROWS))
    return min(n_train, max(rows, _SAMPLE_PAIRS // n_train))


def sample_rows(
    X: Any, weight: NDArray[np.float64], settings: SearchSettings, size: int
) -> NDArray[np.intp]:
    """Return rows that stand for all, evenly spread from the mean of the rows outwards.

    So the sample depends neither on the order of the rows, nor on their scale, place or rotation.

    Parameters
    ----------
    X : {ndarray, csr_matrix} of shape (n_train, n_features) or (n_train, n_train)
        Training rows, or their distances: the sum of these then says how far out a row is.
    weight : ndarray of shape (n_train,)
        Sums to 1.
    settings : SearchSettings
        Says which.
    size : int
        Rows wanted.

    Returns
    -------
    ndarray of shape (size,)
        Ascending.
    """
    n_train = weight.size
    if size >= n_train:
        return np.arange(n_train)
    if settings.metric == "precomputed":
        outwards = np.asarray(X @ weight).reshape(-1)
    else:
        outwards = _squares_from_mean(X, weight)
    order = np.argsort(outwards, kind="stable")
    return np.sort(order[((np.arange(size) + 0.5) * n_train / size).astype(np.intp)])


def _squares_from_mean(X: Any, weight: NDArray[np.float64]) -> NDArray[np.float64]:
    if sp.issparse(X):
        mean = np.asarray(weight @ X).reshape(-1)
        squares = np.asarray(X.multiply(X).sum(axis=1)).reshape(-1)
        return squares - 2.0 * (X @ mean)
    if isinstance(X, WideRows):
        return squares_from_pivots(X, weight)
    squares = np.zeros(weight.size)
    width = max(1, _BLOCK // weight.size)
    for start in range(0, X.shape[1], width):
        block = np.array(X[:, start : start + width], dtype=np.float64)
        block -= weight @ block
        squares += np.einsum("ij,ij->i", block, block)
    return squares


def row_profile(
    rows: NDArray[np.intp],
    X: Any,
    weight: NDArray[np.float64],
    settings: SearchSettings,
    graph: DistanceGraph | None = None,
) -> PairProfile:
    """Return the histograms of some rows' distances.

    Parameters
    ----------
    rows : ndarray of shape (n_rows,)
        Which training rows.
    X : {ndarray, csr_matrix} of shape (n_train, n_features) or (n_train, n_train)
        Training rows, or their distances.
    weight : ndarray of shape (n_train,)
        Sums to 1.
    settings : SearchSettings
        Says how to measure.
    graph : DistanceGraph or None, default=None
        Distances that are known already.

    Returns
    -------
    PairProfile
    """
    if graph is not None and (not graph.is_sparse or sp.issparse(X)):
        known = graph.distances
        if rows.size == known.shape[0]:
            return pair_profile([(rows, known)], weight)
        return pair_profile([(rows, known[rows])], weight)
    if settings.metric == "precomputed":
        return pair_profile([(rows, np.asarray(X[rows], dtype=np.float64))], weight)
    distances = pairwise(X[rows], X, settings.metric, settings.params, n_jobs=settings.n_jobs)
    return pair_profile([(rows, distances)], weight)


def auto_n_neighbors(profile: PairProfile, bandwidth: float | None, dimension: float) -> int:
    """Return how many neighbours let the kernel fall to 1e-2 at its cut-off.

    Parameters
    ----------
    profile : PairProfile
        Of a sample of rows.
    bandwidth : float or None
        h; None for one length per row, the distance to its 9th nearest row.
    dimension : float
        Intrinsic.

    Returns
    -------
    int
        Between 32 and 256, and less than the number of rows.
    """
    if bandwidth is None:
        wanted = 9.0 * CUTOFF**dimension
    else:
        wanted = float(neighbors_within(profile, CUTOFF * bandwidth))
    return int(np.clip(np.ceil(min(wanted, MOST_AUTO)), _LEAST_AUTO, MOST_AUTO))


def neighbors_within(profile: PairProfile, radius: float) -> int:
    """Return how many rows the median row has within a radius, by a sample: a little more."""
    near = profile.squares <= radius**2
    return int(np.ceil(1.05 * np.median(profile.counts[:, near].sum(axis=1))))
