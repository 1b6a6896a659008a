"""Hashes of rows, by which equal rows are found."""

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap.diffusion._wide.column_reader import WideRows, column_blocks
from skdmap.diffusion._wide.memory_limit import HASH_ENTRIES, rows_within


def row_hashes(X: Any) -> NDArray[np.uint64]:
    """A 64-bit key (n_rows,), equal for equal rows; integer arithmetic, so exactly equal."""
    factors = np.random.default_rng(0).integers(2**63, size=X.shape[1], dtype=np.uint64) * 2 + 1
    if sp.issparse(X):
        mixed = _mix(np.asarray(X.data)) * factors[X.indices]
        mixed[np.asarray(X.data) == 0] = 0
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed, dtype=np.uint64)])
        return sums[X.indptr[1:]] - sums[X.indptr[:-1]]
    if isinstance(X, WideRows):
        return _hashes_by_columns(X, factors)
    keys = np.empty(X.shape[0], dtype=np.uint64)
    step = rows_within(HASH_ENTRIES, X.shape[1])
    for start in range(0, X.shape[0], step):
        block = _mix(np.asarray(X[start : start + step]))
        block *= factors
        keys[start : start + step] = block.sum(axis=1, dtype=np.uint64)
    return keys


def _hashes_by_columns(X: WideRows, factors: NDArray[np.uint64]) -> NDArray[np.uint64]:
    keys = np.zeros(len(X), dtype=np.uint64)
    for columns in column_blocks(X):
        block = X[:, columns]
        step = rows_within(HASH_ENTRIES, block.shape[1])
        for start in range(0, len(X), step):
            mixed = _mix(block[start : start + step])
            mixed *= factors[columns]
            keys[start : start + step] += mixed.sum(axis=1, dtype=np.uint64)
        X.release()
    return keys


def _mix(values: NDArray[np.floating]) -> NDArray[np.uint64]:
    """Spread the bits of floating-point numbers; -0.0 counts as 0.0."""
    bits = (values.astype(np.float64) + 0.0).view(np.uint64)
    bits = bits ^ (bits >> np.uint64(29))
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    return bits ^ (bits >> np.uint64(32))
