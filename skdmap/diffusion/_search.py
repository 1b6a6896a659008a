"""Settings in, a search object out: which pairs count, and who looks for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap.diffusion._approximate import (
    ApproximateNeighbors,
    PynndescentIndex,
    TransformedNeighbors,
    TransformerIndex,
)
from skdmap.diffusion._distances import Metric, pairwise
from skdmap.diffusion._graph import AllPairs, DistanceGraph, NeighborSearch
from skdmap.diffusion._neighbors import BruteNeighbors, ListedNeighbors, TreeNeighbors, tree_order
from skdmap.diffusion._profile import PairProfile, pair_profile
from skdmap.diffusion._wide import WideRows
from skdmap.diffusion._wide_distances import squares_from_references

__all__ = [
    "CUTOFF",
    "MOST_ALL_PAIRS",
    "MOST_AUTO",
    "SearchSettings",
    "auto_n_neighbors",
    "make_search",
    "neighbors_within",
    "row_profile",
    "sample_rows",
    "sample_size",
]

# "auto": with all pairs up to here a fit takes seconds and a few hundred megabytes.
ALL_PAIRS_ROWS = 5000
# Up to here also where the bandwidth is too wide for lists, over which rates are then off by tens
# of per cent. 9 CPU seconds and 2.5 GB at 10,000 rows.
MOST_ALL_PAIRS = 10_000
# Where exact search by matrix products takes longer than pynndescent takes to compile and build.
_PYNNDESCENT_WORK = 4e12
# The Gaussian has fallen to 1e-2 of its value at this multiple of h.
CUTOFF = float(np.sqrt(2.0 * np.log(1e2)))
_LEAST_AUTO, MOST_AUTO = 32, 256
_SAMPLE_PAIRS = 4_000_000
# At most so many pairs, but for a least number of rows.
_MOST_PAIRS = 8_000_000
_SAMPLE_ROWS, _LEAST_ROWS = 256, 256
_BLOCK = 2**22


@dataclass(frozen=True)
class SearchSettings:
    """How distances are measured and neighbours found.

    Attributes
    ----------
    metric : str or callable
        As ``canonical_metric`` returns it, or "precomputed".
    params : mapping
        Its keyword arguments.
    algorithm : str or estimator
        "auto", "exact", "pynndescent" or a transformer.
    n_jobs : int or None
        As in scikit-learn.
    seed : int
        Of an approximate index.
    """

    metric: Metric
    params: Mapping[str, Any]
    algorithm: Any
    n_jobs: int | None
    seed: int


def make_search(X: Any, n_neighbors: int | None, settings: SearchSettings) -> NeighborSearch:
    """Return the search object for some training rows.

    Parameters
    ----------
    X : {ndarray, csr_matrix} of shape (n_train, n_features) or (n_train, n_train)
        Distinct training rows; for "precomputed" their distances, dense or listed.
    n_neighbors : int or None
        None is all pairs.
    settings : SearchSettings

    Returns
    -------
    NeighborSearch
    """
    metric, params, algorithm = settings.metric, settings.params, settings.algorithm
    if metric == "precomputed" and sp.issparse(X):
        return ListedNeighbors(X)
    if not isinstance(algorithm, str) and getattr(algorithm, "n_neighbors", None) is None:
        return TransformedNeighbors(algorithm, X)
    if not isinstance(algorithm, str):
        return ApproximateNeighbors(TransformerIndex(algorithm, X, metric, params), X)
    if n_neighbors is None:
        return AllPairs(X, metric, params, settings.n_jobs)
    if metric != "precomputed" and _is_approximate(X, settings):
        index = PynndescentIndex(X, n_neighbors, metric, params, settings.seed, settings.n_jobs)
        return ApproximateNeighbors(index, X)
    order = None if metric == "precomputed" else tree_order(X, metric, params)
    if order is not None:
        return TreeNeighbors(X, n_neighbors, order, settings.n_jobs)
    return BruteNeighbors(X, n_neighbors, metric, params, settings.n_jobs)


def _is_approximate(X: Any, settings: SearchSettings) -> bool:
    if settings.algorithm != "auto" or isinstance(X, WideRows):
        return bool(settings.algorithm == "pynndescent")
    # Only for the metric whose cost is known: others may not exist in pynndescent.
    work = float(X.shape[0]) ** 2 * X.shape[1]
    return settings.metric == "euclidean" and X.shape[1] > 15 and work > _PYNNDESCENT_WORK


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
        return squares_from_references(X, weight)
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
