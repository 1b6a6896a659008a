"""Affinities of the user's own in place of distances: a given matrix, or a function of samples."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap.diffusion._neighbors.graph import DistanceGraph, NeighborIndex

# Asymmetry that passes for rounding, as a share of the largest affinity: graphs come in float32.
_ASYMMETRY = 1e-6
_ROWS = 512


class GivenAffinities(NeighborIndex):
    """Affinities of all pairs, or of those stored; ``function`` None: samples are their rows."""

    n_neighbors = None

    # Training samples of a function.
    train: Any = None

    def __init__(self, function: Callable[[Any, Any], Any] | None) -> None:
        self.function = function

    def build(self, X: Any) -> DistanceGraph:
        """The symmetric affinities of the training samples, or of their rows as checked."""
        self.train = None if self.function is None else X
        return DistanceGraph(symmetric_affinities(self._evaluate(X), self._origin), is_given=True)

    def query(self, Z: Any) -> DistanceGraph:
        """The affinities from new samples to the training samples."""
        affinities = self._evaluate(Z)
        check_affinities(affinities, self._origin)
        return DistanceGraph(affinities, is_given=True)

    def all_distances(self, Z: Any) -> None:
        """There are none."""
        return None

    @property
    def _origin(self) -> str:
        return "X" if self.function is None else "The matrix that kernel returned"

    def _evaluate(self, X: Any) -> Any:
        """The affinities (n_rows, n_train), dense or CSR."""
        if self.function is None:
            return X
        found = self.function(X, self.train)
        found = found.tocsr() if sp.issparse(found) else np.asarray(found)
        shape = (X.shape[0], self.train.shape[0])
        if found.shape != shape or not np.issubdtype(found.dtype, np.number):
            raise ValueError(
                f"kernel={self.function!r} returned an array of shape {found.shape} and dtype "
                f"{found.dtype} for samples of shapes {X.shape} and {self.train.shape}; it must "
                f"return numbers of shape {shape}, as the functions of sklearn.metrics.pairwise "
                "do: kernel(X, Y) -> (n_X, n_Y)."
            )
        return found


def check_affinities(affinities: Any, origin: str) -> None:
    """Raise ValueError on affinities that are negative or not finite."""
    values = affinities.data if sp.issparse(affinities) else affinities
    smallest, largest = values.min(initial=0.0), values.max(initial=0.0)
    if not (np.isfinite(smallest) and np.isfinite(largest)):
        raise ValueError(
            f"{origin} contains NaN or infinity; affinities must be finite and >= 0. Use 0 for "
            "pairs without affinity."
        )
    if smallest < 0:
        raise ValueError(
            f"{origin} contains the affinity {smallest:g}; affinities must be >= 0 (Negative "
            "values in data). Of correlations C pass numpy.clip(C, 0, None), or from their angles "
            "1 - numpy.arccos(C) / numpy.pi. Pass distances with metric='precomputed'."
        )


def symmetric_affinities(affinities: Any, origin: str) -> Any:
    """Check affinities among training samples (n, n); return them symmetric, dense or CSR."""
    if affinities.shape[0] != affinities.shape[1]:
        raise ValueError(
            f"{origin} has shape {affinities.shape}; it must be square: affinities between "
            "training samples. Pass samples with another kernel."
        )
    check_affinities(affinities, origin)
    largest = (affinities.data if sp.issparse(affinities) else affinities).max(initial=0.0)
    if largest == 0:
        raise ValueError(
            f"{origin} has no affinity above 0. Pass affinities that are larger for samples that "
            "are closer."
        )
    if sp.issparse(affinities):
        transpose = affinities.T.tocsr()
        asymmetry = float(np.abs(affinities - transpose).max())
    else:
        transpose = affinities.T
        blocks = (slice(start, start + _ROWS) for start in range(0, len(affinities), _ROWS))
        asymmetry = max(
            float(np.abs(affinities[rows] - transpose[rows]).max(initial=0.0)) for rows in blocks
        )
    if asymmetry > _ASYMMETRY * largest:
        raise ValueError(
            f"{origin} is not symmetric: |K - K.T| reaches {asymmetry:g}; it must be <= "
            f"{_ASYMMETRY * largest:g}. Pass (K + K.T) / 2 if the difference does not matter."
        )
    return affinities if asymmetry == 0 else 0.5 * (affinities + transpose)


def log_affinities(affinities: Any) -> Any:
    """Return the logarithms of affinities, dense or CSR; -inf of 0."""
    with np.errstate(divide="ignore"):
        if not sp.issparse(affinities):
            return np.log(affinities, dtype=np.float64)
        data: NDArray[np.float64] = np.log(affinities.data, dtype=np.float64)
    parts = (data, affinities.indices, affinities.indptr)
    return sp.csr_matrix(parts, shape=affinities.shape)
