"""Aggregates: the lumped chain is a Markov chain again, and no aggregate joins what is apart."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from skdmap.diffusion._eigensolvers import aggregation as _coarse
from skdmap.diffusion._eigensolvers import row_blocks
from skdmap.diffusion._eigensolvers.aggregation import (
    aggregates,
    coarse_levels,
    is_local,
    local_order,
    sparsified,
)
from skdmap.diffusion._markov import normalize


@pytest.fixture(scope="module")
def operator():
    """S and sqrt(pi) of 3,000 rows in two pieces."""
    X = np.random.default_rng(0).uniform(0, 1, (3000, 2))
    X[1500:] += 10.0
    k = cKDTree(X).sparse_distance_matrix(cKDTree(X), 0.1, output_type="coo_matrix").tocsr()
    k.data = np.exp(-(k.data**2) / (2 * 0.04**2))
    k = (k + sp.identity(3000)).tocsr() if k.diagonal().max() == 0 else k
    degree = np.asarray(k.sum(axis=1)).reshape(-1)
    root = np.sqrt(degree / degree.sum())
    return (sp.diags(degree**-0.5) @ k @ sp.diags(degree**-0.5)).tocsr(), root, X


def test_sqrt_pi_stays_the_eigenvector_of_1_on_every_level(operator):
    S, root, _ = operator
    for level in coarse_levels(S, root, np.random.default_rng(0)):
        np.testing.assert_allclose(level.matrix @ level.root, level.root, atol=1e-14)
        np.testing.assert_allclose(np.linalg.norm(level.root), 1.0, atol=1e-14)
        assert abs(level.matrix - level.matrix.T).max() < 1e-15


def test_prolongation_is_orthonormal_and_makes_the_next_level(operator):
    S, root, _ = operator
    levels = coarse_levels(S, root, np.random.default_rng(0))
    assert len(levels) >= 2
    for level, coarser in itertools.pairwise(levels):
        P = level.prolongation()
        assert abs(P.T @ P - sp.identity(P.shape[1])).max() < 1e-14
        assert abs(P.T @ level.matrix @ P - coarser.matrix).max() < 1e-14


def test_every_row_has_an_aggregate_of_near_rows(operator):
    S, _, X = operator
    member = aggregates(S, np.random.default_rng(0))
    assert member.min() == 0
    sizes = np.bincount(member)
    assert sizes.min() >= 1
    assert 4 < sizes.mean() < 30
    for number in np.flatnonzero(sizes > 1)[::10]:
        inside = X[member == number]
        # Every row is a strong neighbour of the seed, so no two are farther than twice 0.1 apart.
        assert np.ptp(inside, axis=0).max() <= 0.2
        # The pieces are 10 apart.
        assert np.unique(inside[:, 0] > 5).size == 1


@pytest.mark.parametrize("n_swallowed", [1, 100])
def test_a_draw_in_which_one_row_collects_all_is_drawn_again(operator, monkeypatch, n_swallowed):
    S, root, _ = operator
    calls = []

    def unlucky(matrix, rng):
        calls.append(1)
        if len(calls) <= n_swallowed:
            return np.zeros(matrix.shape[0], dtype=np.int32)
        return aggregates(matrix, rng)

    monkeypatch.setattr(_coarse, "aggregates", unlucky)
    levels = coarse_levels(S, root, np.random.default_rng(0))
    if n_swallowed == 1:
        assert 16 <= levels[-1].root.size < 3000
    else:  # in vain: what there is is the coarsest level
        assert [level.root.size for level in levels] == [3000]


def test_local_order_brings_neighbours_together(operator):
    S, root, _ = operator
    order = local_order(coarse_levels(S, root, np.random.default_rng(0)))
    np.testing.assert_array_equal(np.sort(order), np.arange(3000))
    rank = np.argsort(order)
    rows = np.repeat(np.arange(3000), np.diff(S.indptr))
    apart = np.median(np.abs(rank[rows] - rank[S.indices]))
    assert apart < 0.2 * np.median(np.abs(rows - S.indices))


def test_an_order_is_known_to_be_local(operator):
    assert not is_local(operator[0])
    chain = sp.diags([np.ones(2999), np.ones(2999)], [-1, 1], format="csr")
    assert is_local(chain)


def test_a_small_operator_has_one_level():
    levels = coarse_levels(sp.identity(50, format="csr"), np.ones(50), np.random.default_rng(0))
    assert len(levels) == 1
    assert levels[0].member is None


@pytest.mark.parametrize("variable", [False, True])
def test_sparsified_all_pairs_keep_the_eigenvalue_1_and_what_counts(variable, monkeypatch):
    monkeypatch.setattr(row_blocks, "BLOCK_ROWS", 100)
    X = np.random.default_rng(0).standard_normal((350, 2))
    k = np.exp(-0.5 * cdist(X, X, "sqeuclidean") / 0.3**2)
    rho = np.random.default_rng(1).uniform(0.7, 1.5, 350) if variable else None
    operator = normalize(k, np.full(350, 1 / 350), alpha=1.0, scale=rho, dimension=2)
    root, S = np.sqrt(operator.stationary), operator.matmat(np.eye(350))
    found = sparsified(operator.kernel, root, operator.diagonal)
    np.testing.assert_allclose(found @ root, root, atol=1e-14)
    assert abs(found - found.T).max() < 1e-15
    off = S - np.diag(np.diag(S))
    small = off < 1e-5 * np.minimum(off.max(axis=1), off.max(axis=1)[:, None])
    assert 0.2 < small.mean() < 0.9
    left_out = found.toarray() == 0.0
    np.testing.assert_array_equal(left_out[~np.eye(350, dtype=bool)], small[off > 0.0])
    np.testing.assert_allclose(
        np.linalg.eigvalsh(found.toarray()), np.linalg.eigvalsh(S), atol=1e-3
    )
