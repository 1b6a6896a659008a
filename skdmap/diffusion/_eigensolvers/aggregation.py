"""Ever smaller Markov operators by aggregation: rows are collected in aggregates of some ten.

The chain is lumped: P = pi^(1/2) of a row over pi^(1/2) of its aggregate has orthonormal columns,
P' S P is a symmetric Markov operator again, and sqrt(pi) of the aggregates is prolonged to sqrt(pi)
of the rows exactly. So nothing needs the samples, and no spectrum is wider than that of S.
Aggregates also give an order of the rows in which neighbours lie near each other in memory.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap.diffusion._eigensolvers.row_blocks import row_slices
from skdmap.diffusion._kernel import segment_reduce

# Strong neighbours of an average row: about twice as many as rows of an aggregate.
_STRONG = 16
# A level with so few rows is solved by a dense decomposition.
_COARSEST = 700
# A level that is not so much smaller is not worth having.
_LEAST_GAIN = 0.7
# Nor is one of so few rows: a row that is a strong neighbour of all others collects them all if it
# is the first to be drawn. Another draw helps.
_FEWEST, _DRAWS = 16, 4
_SAMPLED = 2**20
# Pairs of a dense matrix below this share of both rows' largest do not shape the levels.
_SIGNIFICANT = 1e-5
_NEAR = 0.01


@dataclass(frozen=True)
class MarkovLevel:
    """A symmetric Markov operator and the aggregates that make the next smaller one."""

    matrix: sp.csr_matrix  # (n, n)
    root: NDArray[np.float64]  # (n,), sqrt(pi)
    member: NDArray[np.int32] | None = None  # (n,), aggregate of each row; None: coarsest level

    def prolongation(self) -> sp.csr_matrix:
        """P, of shape (n, n_aggregates)."""
        assert self.member is not None
        mass = np.sqrt(np.bincount(self.member, weights=self.root**2))
        n = self.root.size
        indptr = np.arange(n + 1, dtype=np.int32)
        return sp.csr_matrix(
            (self.root / mass[self.member], self.member, indptr), shape=(n, mass.size)
        )


def coarse_levels(
    matrix: sp.csr_matrix, root: NDArray[np.float64], rng: np.random.Generator
) -> list[MarkovLevel]:
    """The levels, the given one first, at least one; the matrix stores its diagonal."""
    levels = []
    while matrix.shape[0] > _COARSEST:
        draws = (aggregates(matrix, rng) for _ in range(_DRAWS))
        member = next((found for found in draws if found.max() + 1 >= _FEWEST), None)
        if member is None or member.max() + 1 > _LEAST_GAIN * matrix.shape[0]:
            break
        level = MarkovLevel(matrix, root, member)
        levels.append(level)
        prolongation = level.prolongation()
        half = matrix @ prolongation
        matrix = (prolongation.T.tocsr() @ half).tocsr()
        root = np.sqrt(np.bincount(member, weights=root**2))
    return [*levels, MarkovLevel(matrix, root)]


def sparsified(
    matrix: NDArray[np.float64],
    root: NDArray[np.float64],
    diagonal: NDArray[np.float64] | None = None,
) -> sp.csr_matrix:
    """A dense matrix, and ``diagonal``, without its small entries, whose mass stays in each row."""
    n = root.size
    largest, parts = np.empty(n), []
    for rows in row_slices(n):
        block = matrix[rows].copy()
        block[np.arange(len(block)), np.arange(rows.start, rows.stop)] = 0.0
        largest[rows] = block.max(axis=1)
    for rows in row_slices(n):
        block = matrix[rows]
        kept = block >= _SIGNIFICANT * np.minimum(largest[rows, None], largest)
        kept[np.arange(len(block)), np.arange(rows.start, rows.stop)] = True
        counts = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32)
        columns = np.broadcast_to(np.arange(n, dtype=np.int32), kept.shape)[kept]
        parts.append(sp.csr_matrix((block[kept], columns, counts), shape=block.shape))
    found = sp.vstack(parts, format="csr")
    lost = (matrix @ root - found @ root) / root
    return (found + sp.diags(lost if diagonal is None else lost + diagonal)).tocsr()


def aggregates(matrix: sp.csr_matrix, rng: np.random.Generator) -> NDArray[np.int32]:
    """The aggregate (n,) of each row, around seeds that are not strong neighbours of each other."""
    # Seeds are a maximal independent set, after Luby 1986, doi:10.1137/0215074. No aggregate joins
    # rows that the matrix does not connect.
    strong = _strong_neighbors(matrix, rng)
    n = strong.shape[0]
    priority = rng.permutation(n).astype(np.int32) + 1
    # Decided: seeds and their neighbours.
    seed, decided = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    active, rows = strong, np.arange(n)
    while rows.size:
        rank = np.where(decided, 0, priority)
        others = segment_reduce(np.maximum, rank[active.indices], active.indptr, 0)
        chosen = rows[priority[rows] > others]
        seed[chosen] = decided[chosen] = True
        reached = segment_reduce(np.logical_or, seed[active.indices], active.indptr, False) > 0
        decided[rows[reached]] = True
        rows = np.flatnonzero(~decided)
        active = strong[rows]
    number = np.full(n, -1, dtype=np.int32)
    number[seed] = np.arange(seed.sum(), dtype=np.int32)
    value = np.where(seed[strong.indices], strong.data, -1.0)
    best = segment_reduce(np.maximum, value, strong.indptr, -1.0)
    of_row = np.repeat(np.arange(n), np.diff(strong.indptr))
    nearest = (value == best[of_row]) & (value >= 0.0)
    joins = ~seed[of_row] & nearest
    number[of_row[joins]] = number[strong.indices[joins]]
    return number


def _strong_neighbors(matrix: sp.csr_matrix, rng: np.random.Generator) -> sp.csr_matrix:
    """The pairs with the largest k_ij / sqrt(k_ii k_jj), without the diagonal."""
    n, indptr, size = matrix.shape[0], matrix.indptr, matrix.data.size
    scale = 1.0 / np.sqrt(np.maximum(matrix.diagonal(), np.finfo(float).tiny))

    def strengths(rows: NDArray[np.integer], pairs: Any) -> NDArray[np.float64]:
        columns = matrix.indices[pairs]
        value = np.asarray(matrix.data[pairs] * scale[rows])
        value *= scale[columns]
        value[rows == columns] = 0.0
        return value

    some = np.arange(size) if size <= _SAMPLED else np.sort(rng.integers(size, size=_SAMPLED))
    sample = strengths(_rows_of_pairs(matrix, some), some)
    share = min(1.0, _STRONG * n / size)
    threshold = max(float(np.quantile(sample, 1.0 - share)), np.finfo(float).tiny)
    counts = np.zeros(n + 1, dtype=indptr.dtype)
    columns, values = [], []
    for rows in row_slices(n):
        part = slice(int(indptr[rows.start]), int(indptr[rows.stop]))
        lengths = np.diff(indptr[rows.start : rows.stop + 1])
        value = strengths(np.repeat(np.arange(rows.start, rows.stop), lengths), part)
        kept = value >= threshold
        columns.append(matrix.indices[part][kept])
        values.append(value[kept])
        ends = indptr[rows.start : rows.stop + 1] - part.start
        sums = np.concatenate([[0], np.cumsum(kept)])[ends]
        counts[rows.start + 1 : rows.stop + 1] = np.diff(sums)
    return sp.csr_matrix(
        (np.concatenate(values), np.concatenate(columns), np.cumsum(counts, dtype=indptr.dtype)),
        shape=(n, n),
    )


def _rows_of_pairs(matrix: sp.csr_matrix, pairs: NDArray[np.intp]) -> NDArray[np.intp]:
    """The rows that some places in ``matrix.data`` belong to."""
    return np.searchsorted(matrix.indptr, pairs, side="right") - 1


def is_local(matrix: sp.csr_matrix) -> bool:
    """Whether half of the pairs stand no farther apart than a hundredth of the rows."""
    pairs = np.arange(0, matrix.data.size, max(1, matrix.data.size // _SAMPLED))
    apart = np.abs(_rows_of_pairs(matrix, pairs) - matrix.indices[pairs])
    return bool(np.median(apart) <= _NEAR * matrix.shape[0])


def local_order(levels: list[MarkovLevel]) -> NDArray[np.intp]:
    """An order (n,) of the first level's rows in which neighbours are near: by aggregates."""
    coarsest = levels[-1].matrix
    order = sp.csgraph.reverse_cuthill_mckee(coarsest, symmetric_mode=True).astype(np.intp)
    for level in reversed(levels[:-1]):
        rank = np.empty(order.size, dtype=np.intp)
        rank[order] = np.arange(order.size)
        order = np.argsort(rank[level.member], kind="stable")
    return order
