"""Affinities of the user's own in place of distances: a given matrix, or a function of samples."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap._warning import warn
from skdmap.diffusion._neighbors.graph import DistanceGraph, NeighborIndex
from skdmap.exceptions import SkdmapWarning

# Asymmetry that passes for rounding, as a share of the largest affinity: graphs come in float32.
_ASYMMETRY = 1e-6
_ROWS = 512
# Where the largest affinity is outside of this range, products and quotients may overflow.
_SAFE = (1e-200, 1e200)
# Rows that are asked whether a matrix holds affinities, entries of each that are compared, and by
# how much more rows must say so than not.
_LOOKED_AT, _COMPARED, _LEAST_MARGIN = 128, 5, 0.4
# Least share of distances between samples that are above 0.
_POSITIVE = 0.9


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
            "1 - numpy.arccos(numpy.clip(C, -1, 1)) / numpy.pi. Pass distances with "
            "metric='precomputed'."
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


def scaled_affinities(affinities: Any) -> Any:
    """Return a copy in float64, times a power of two where it is near under- or overflow."""
    scaled = affinities.astype(np.float64)
    values = scaled.data if sp.issparse(scaled) else scaled
    largest = values.max(initial=0.0)
    if not _SAFE[0] <= largest <= _SAFE[1]:
        np.ldexp(values, -np.frexp(largest)[1], out=values)
    return scaled


def log_affinities(affinities: Any) -> Any:
    """Return the logarithms of affinities, dense or CSR; -inf of 0."""
    with np.errstate(divide="ignore"):
        if not sp.issparse(affinities):
            return np.log(affinities, dtype=np.float64)
        data: NDArray[np.float64] = np.log(affinities.data, dtype=np.float64)
    parts = (data, affinities.indices, affinities.indptr)
    return sp.csr_matrix(parts, shape=affinities.shape)


def warn_affinities() -> None:
    """Warn of distances that are probably none."""
    warn(
        "X (metric='precomputed') looks like affinities, not distances: in most rows the largest "
        "entries belong to the samples whose rows are most alike. Pass affinities with "
        "kernel='precomputed' instead of metric='precomputed'.",
        SkdmapWarning,
    )


def warn_distances() -> None:
    """Warn of affinities that are probably distances."""
    warn(
        "X (kernel='precomputed') looks like distances, not affinities: its diagonal is 0, the "
        "triangle inequality holds, and in most rows the smallest entries belong to the samples "
        "whose rows are most alike. Pass distances with metric='precomputed' instead of "
        "kernel='precomputed'.",
        SkdmapWarning,
    )


def looks_like_distances(X: Any) -> bool:
    """Whether a dense square matrix is a metric, and smaller where samples are more alike.
    Sparse ones are never taken for distances: of these, few triangles are stored.
    """
    if sp.issparse(X) or np.any(X.diagonal()):
        return False
    mean, margin = _votes(X)
    if mean >= -margin:
        return False
    rows = np.random.default_rng(0).permutation(X.shape[0])[:_LOOKED_AT]
    D = X[np.ix_(rows, rows)].astype(np.float64)
    # Of a graph of two kinds of nodes, 0 within and 1 between, triangles tell nothing.
    if np.count_nonzero(D) < _POSITIVE * rows.size * (rows.size - 1):
        return False
    largest_excess = max(float((D - (D[:, [k]] + D[k])).max()) for k in range(rows.size))
    return bool(largest_excess <= _ASYMMETRY * D.max())


def looks_like_affinities(X: Any) -> bool:
    """Whether the larger entries of a square matrix, dense or CSR, are those of samples more alike.
    Distances show the opposite: near samples have alike rows, or share neighbours.
    """
    # Of 896 matrices of distances (22 sets of samples, twelve metrics, all pairs and lists of 5 to
    # 50 neighbours) none passes; the margin of one is .31, of all others below -.1. Of 517
    # affinities of these sets 450 pass; the others are of noise (normal in 100 and 1000 dimensions,
    # binary), of 12 samples, of one-hot rows and a cube's corners, or of 5 neighbours.
    mean, margin = _votes(X)
    return mean > margin


def _votes(X: Any) -> tuple[float, float]:
    """Mean vote of some rows, and the size from which on it counts."""
    rng = np.random.default_rng(0)
    rows = rng.permutation(X.shape[0])[:_LOOKED_AT]
    votes = np.array([_vote(X, int(row), rng) for row in rows])
    margin = _LEAST_MARGIN + 2.0 / np.sqrt(np.count_nonzero(votes) + 1)
    return float(votes.mean()), float(margin)


def _vote(X: Any, row: int, rng: np.random.Generator) -> float:
    """1 where the rows of the largest entries are more alike to this row, -1 where less, or 0."""
    if sp.issparse(X):
        part = slice(X.indptr[row], X.indptr[row + 1])
        columns, values = X.indices[part], X.data[part]
    else:
        columns, values = np.arange(X.shape[0]), X[row]
    others = rng.permutation(np.flatnonzero(columns != row))
    few = min(_COMPARED, others.size // 2)
    if few < 2:
        return 0.0
    columns = columns[others[np.argsort(values[others], kind="stable")]]
    smallest, largest = columns[:few], columns[-few:]
    return float(np.sign(_likeness(X, row, largest) - _likeness(X, row, smallest)))


def _likeness(X: Any, row: int, others: NDArray[np.intp]) -> float:
    """Median cosine of a row and others, without the entries among them; of a list, its pattern."""
    if sp.issparse(X):
        counts = np.diff(X.indptr)[others]
        listed = X.indices[X.indptr[row] : X.indptr[row + 1]]
        lists = [X.indices[X.indptr[j] : X.indptr[j + 1]] for j in others]
        shared = np.array([np.isin(indices, listed).sum() for indices in lists])
        return float(np.mean(shared / np.sqrt(np.maximum(counts, 1))))
    block = np.asarray(X[np.append(others, row)], dtype=np.float64)
    block /= max(block.max(), np.finfo(float).tiny)
    block[:, row] = 0.0
    squares = np.square(block)
    place = np.arange(others.size)
    own = squares[-1].sum() - squares[-1, others]
    theirs = squares[:-1].sum(axis=1) - squares[place, others]
    products = block[:-1] @ block[-1] - block[place, others] * block[-1, others]
    return float(np.median(products / np.sqrt(np.maximum(own * theirs, 1e-300))))
