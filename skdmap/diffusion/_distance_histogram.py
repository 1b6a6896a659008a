"""Histograms of log d^2 between samples, from which kernel sums over a grid of h are read.

Each distance is shared between the two nearest bins. So the sums are smooth in h and in the data,
scale with the data, and cost one matrix product for a whole grid of h.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap.diffusion._kernel import gaussian
from skdmap.diffusion._neighbors.graph import DistanceGraph
from skdmap.diffusion._neighbors.metrics import MINKOWSKI_ORDERS, pairwise
from skdmap.diffusion._neighbors.search import SearchSettings
from skdmap.diffusion._wide.column_reader import WideRows
from skdmap.diffusion._wide.distances import squares_from_pivots

# Widths of a bin in log d^2, and of a step of the grid in log h.
_BIN = 0.05
_GRID_STEP = 0.05
_BINNED_ENTRIES = 2**17
# Pairs in a sample: this many, or those of at least so many samples with at most so many pairs.
_SAMPLE_PAIRS = 4_000_000
_MOST_PAIRS = 8_000_000
_SAMPLE_ROWS, _LEAST_ROWS = 256, 256
_BLOCK = 2**22
# Distances so many times smaller or larger than the median do not set the range of bandwidths.
_FAR = 1e7
# Within this range squares, and sums of them over samples and bandwidths, are normal numbers.
_SMALLEST, _LARGEST = 1e-150, 1e150


@dataclass(frozen=True)
class BandwidthCurve:
    """The kernel sum against the bandwidth, each array of shape (n_grid,)."""

    # h, ascending, in units of the distances.
    bandwidths: NDArray[np.float64]
    # log of S = sum_ij w_i w_j k_ij, with weights that sum to 1, own pairs included.
    log_kernel_sum: NDArray[np.float64]
    # d log S / d log h; its largest value estimates the intrinsic dimension.
    slope: NDArray[np.float64]


@dataclass(frozen=True)
class DistanceHistogram:
    """Histograms of the distances from some samples to all training samples."""

    # (n_rows, n_bins) Other samples at each distance, in units of the mean weight.
    counts: NDArray[np.float64]
    # (n_bins,) d^2 of each bin.
    squares: NDArray[np.float64]
    # (n_rows,) Weights of the samples, in units of the mean weight.
    weight: NDArray[np.float64]
    n_train: int

    def grid(self) -> NDArray[np.float64]:
        """Bandwidths from well below the least distance to above the largest."""
        low = 0.5 * np.log(self.squares[0]) - 1.5
        high = 0.5 * np.log(self.squares[-1]) + 1.0
        return np.exp(np.arange(low, high + _GRID_STEP, _GRID_STEP))

    def kernel(self, bandwidths: NDArray[np.float64]) -> NDArray[np.float64]:
        """The Gaussian (n_bins, n_bandwidths) at the distance of each bin."""
        return np.asarray(gaussian(self.squares[:, None], bandwidths))

    def kernel_sums(self, bandwidths: NDArray[np.float64]) -> NDArray[np.float64]:
        """sum_{j != i} k_ij w_j (n_rows, n_bandwidths), in units of the mean weight."""
        return self.counts @ self.kernel(bandwidths)

    def shares(self) -> NDArray[np.float64]:
        """Weights of the samples (n_rows,), summing to 1."""
        return self.weight / self.weight.sum()


def distance_histogram(
    rows: NDArray[np.intp], distances: Any, weight: NDArray[np.float64]
) -> DistanceHistogram:
    """Sort distances (n_rows, n_train) of some samples into bins; sparse: the stored ones."""
    relative = weight * weight.size
    low, n_bins = _bin_range(distances.data if sp.issparse(distances) else distances)
    return DistanceHistogram(
        counts=_counts(rows, distances, relative, low, n_bins),
        squares=np.exp(low + _BIN * np.arange(n_bins)),
        weight=relative[rows],
        n_train=weight.size,
    )


def sample_histogram(
    rows: NDArray[np.intp],
    X: Any,
    weight: NDArray[np.float64],
    settings: SearchSettings,
    graph: DistanceGraph | None = None,
) -> DistanceHistogram:
    """Return the histograms of some samples' distances, which ``graph`` may hold already."""
    if graph is not None:
        known = graph.distances
        distances = known if rows.size == known.shape[0] else known[rows]
    elif settings.metric == "precomputed":
        distances = np.asarray(X[rows], dtype=np.float64)
    else:
        distances = pairwise(X[rows], X, settings.metric, settings.params, n_jobs=settings.n_jobs)
    return distance_histogram(rows, distances, weight)


def bandwidth_curve(histogram: DistanceHistogram) -> BandwidthCurve:
    """Return log S and its slope on a grid of bandwidths that spans the data's scales."""
    grid = histogram.grid()
    share = histogram.shares()
    mean_counts = share @ histogram.counts
    kernel = histogram.kernel(grid)
    total = mean_counts @ kernel + share @ histogram.weight
    moment = mean_counts @ (kernel * histogram.squares[:, None])
    return BandwidthCurve(
        bandwidths=grid,
        log_kernel_sum=np.log(total / histogram.n_train),
        slope=moment / (grid**2 * total),
    )


def samples_within(histogram: DistanceHistogram, radius: float) -> int:
    """Return how many samples the median sample has within a radius, and 5 % more."""
    near = histogram.squares <= radius**2
    return int(np.ceil(1.05 * np.median(histogram.counts[:, near].sum(axis=1))))


def sample_size(n_train: int) -> int:
    """Return how many samples stand for all in sums over pairs."""
    rows = int(np.clip(_MOST_PAIRS // n_train, _LEAST_ROWS, _SAMPLE_ROWS))
    return min(n_train, max(rows, _SAMPLE_PAIRS // n_train))


def representative_sample(
    X: Any, weight: NDArray[np.float64], settings: SearchSettings, size: int
) -> NDArray[np.intp]:
    """Choose samples (size,), ascending, evenly spread in rank of distance from the mean."""
    # So the choice depends neither on the order of samples, nor on scale, place or rotation.
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
    """Squared distances (n_train,) from the weighted mean, up to a constant."""
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


def check_scale(X: Any, settings: SearchSettings) -> None:
    """Raise where squares of distances, seen from the first sample, are no normal numbers."""
    if settings.metric == "precomputed":
        _check_largest(float((X.data if sp.issparse(X) else X).max(initial=0.0)))
    elif settings.metric in tuple(MINKOWSKI_ORDERS) and not isinstance(X, WideRows):
        with np.errstate(over="ignore"):
            _check_largest(float(pairwise(X[:1], X, settings.metric, settings.params).max()))


def _check_largest(largest: float) -> None:
    if largest * largest <= 0.0:
        raise ValueError(
            "X: the squared distances between all samples are 0 in double precision. Pass at "
            "least two samples that differ, or rescale X."
        )
    if not largest < _LARGEST:
        raise ValueError(
            f"X: the largest distance, {largest:g}, must be below {_LARGEST:g}, or sums of squares "
            "overflow in double precision. Rescale X."
        )


def _bin_range(distances: NDArray[np.float64]) -> tuple[float, int]:
    """Log d^2 of the lowest bin, and the number of bins; what is beyond goes to the end bins."""
    largest = float(distances.max(initial=0.0))
    _check_largest(largest)
    tiny = np.finfo(float).tiny
    least = float(distances.min(initial=largest, where=distances > tiny))
    if max(least, _SMALLEST) * _FAR < largest:
        # Stored zeros (5e-324) and zeros of a semimetric are no scale of the data; neither is a
        # fill value or an outlier.
        typical = float(np.median(distances[distances > tiny]))
        largest = min(largest, _FAR * typical)
        floor = max(typical / _FAR, _SMALLEST)
        least = float(distances.min(initial=largest, where=distances > floor))
    high = 2.0 * np.log(largest)
    low = 2.0 * np.log(least) - _BIN
    return low, int(np.ceil((high - low) / _BIN)) + 2


def _counts(
    rows: NDArray[np.intp],
    distances: Any,
    relative: NDArray[np.float64],
    low: float,
    n_bins: int,
) -> NDArray[np.float64]:
    """Histograms (n_rows, n_bins); ``relative`` (n_train,): weights in units of their mean."""
    counts = np.zeros((rows.size, n_bins))
    alike = bool(np.all(relative == 1.0))
    step = max(1, _BINNED_ENTRIES // relative.size)
    for start in range(0, rows.size, step):
        part = distances[start : start + step]
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
        # ``upper`` goes to the next bin; the last bin of each row has none.
        total = np.bincount(position, weights=mass, minlength=size * n_bins).astype(np.float64)
        upper = np.bincount(position, weights=place, minlength=size * n_bins)
        total -= upper
        total[1:] += upper[:-1]
        counts[start : start + size] = total.reshape(size, n_bins)
    # Each sample met itself at distance 0, which is in the lowest bin.
    counts[:, 0] = np.maximum(counts[:, 0] - relative[rows], 0.0)
    return counts
