"""Settings in, a search object out: which pairs count, and who looks for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import scipy.sparse as sp

from skdmap.diffusion._neighbors.approximate import (
    ApproximateNeighbors,
    PynndescentIndex,
    TransformedNeighbors,
    TransformerIndex,
)
from skdmap.diffusion._neighbors.brute_force import AllPairs, BruteNeighbors
from skdmap.diffusion._neighbors.graph import NeighborSearch
from skdmap.diffusion._neighbors.kd_tree import TreeNeighbors, tree_order
from skdmap.diffusion._neighbors.metrics import Metric
from skdmap.diffusion._neighbors.precomputed import ListedNeighbors
from skdmap.diffusion._wide.column_reader import WideRows

# "auto": with all pairs up to here a fit takes seconds and a few hundred megabytes.
ALL_PAIRS_ROWS = 5000
# Up to here also where the bandwidth is too wide for lists, over which rates are then off by tens
# of per cent. 9 CPU seconds and 2.5 GB at 10,000 rows.
MOST_ALL_PAIRS = 10_000
# Where exact search by matrix products takes longer than pynndescent takes to compile and build.
_PYNNDESCENT_WORK = 4e12


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
