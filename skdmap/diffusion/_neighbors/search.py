"""Where the neighbours of training and new samples are searched: the choice of an index."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import scipy.sparse as sp

from skdmap.diffusion._neighbors.affinities import GivenAffinities
from skdmap.diffusion._neighbors.approximate import (
    ApproximateNeighbors,
    PynndescentSearch,
    TransformedNeighbors,
    TransformerSearch,
)
from skdmap.diffusion._neighbors.brute_force import AllPairs, BruteForceNeighbors
from skdmap.diffusion._neighbors.graph import NeighborIndex
from skdmap.diffusion._neighbors.kd_tree import KDTreeNeighbors, tree_order
from skdmap.diffusion._neighbors.metrics import Metric
from skdmap.diffusion._neighbors.precomputed import StoredNeighbors
from skdmap.diffusion._wide.column_reader import WideRows

# "auto": with all pairs up to here a fit takes seconds and a few hundred megabytes.
ALL_PAIRS_ROWS = 5000
# Up to here also where the bandwidth is too wide for a sparse graph, over which rates are then off
# by tens of per cent. 9 CPU seconds and 2.5 GB at 10,000 samples.
MOST_ALL_PAIRS = 10_000
# Where exact search by matrix products takes longer than pynndescent takes to compile and build.
_PYNNDESCENT_WORK = 4e12


@dataclass(frozen=True)
class SearchSettings:
    """How distances are measured and neighbours found."""

    metric: Metric  # as ``canonical_metric`` returns it, or "precomputed"
    params: Mapping[str, Any]  # keyword arguments of the metric
    algorithm: Any  # "auto", "exact", "pynndescent" or a transformer
    n_jobs: int | None
    seed: int  # of an approximate index
    kernel: Any = (
        "gaussian"  # or "precomputed" or a function: affinities take the place of distances
    )

    @property
    def is_given(self) -> bool:
        """Whether the kernel is the user's own."""
        return not isinstance(self.kernel, str) or self.kernel != "gaussian"


def make_index(X: Any, n_neighbors: int | None, settings: SearchSettings) -> NeighborIndex:
    """The index, not built, for training samples (or distances); n_neighbors=None: all pairs."""
    # A new kind of index is a class with the methods of NeighborIndex, and a line here.
    metric, params, algorithm = settings.metric, settings.params, settings.algorithm
    if settings.is_given:
        return GivenAffinities(settings.kernel if callable(settings.kernel) else None)
    if metric == "precomputed" and sp.issparse(X):
        return StoredNeighbors()
    if not isinstance(algorithm, str) and getattr(algorithm, "n_neighbors", None) is None:
        return TransformedNeighbors(algorithm)
    if not isinstance(algorithm, str):
        return ApproximateNeighbors(TransformerSearch(algorithm, metric, params))
    if n_neighbors is None:
        return AllPairs(metric, params, settings.n_jobs)
    if metric != "precomputed" and _is_approximate(X, settings):
        search = PynndescentSearch(
            n_neighbors, metric, params, seed=settings.seed, n_jobs=settings.n_jobs
        )
        return ApproximateNeighbors(search)
    order = None if metric == "precomputed" else tree_order(X, metric, params)
    if order is not None:
        return KDTreeNeighbors(n_neighbors, order, settings.n_jobs)
    return BruteForceNeighbors(n_neighbors, metric, params, settings.n_jobs)


def _is_approximate(X: Any, settings: SearchSettings) -> bool:
    if settings.algorithm != "auto" or isinstance(X, WideRows):
        return bool(settings.algorithm == "pynndescent")
    # Only for the metric whose cost is known: others may not exist in pynndescent.
    work = float(X.shape[0]) ** 2 * X.shape[1]
    return settings.metric == "euclidean" and X.shape[1] > 15 and work > _PYNNDESCENT_WORK
