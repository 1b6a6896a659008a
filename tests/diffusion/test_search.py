"""How many neighbours "auto" takes, and which samples stand for all."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist

from skdmap.diffusion._bandwidth import CUTOFF, auto_n_neighbors
from skdmap.diffusion._distance_histogram import (
    distance_histogram,
    representative_sample,
    sample_histogram,
    sample_size,
)
from skdmap.diffusion._neighbors.brute_force import AllPairs
from skdmap.diffusion._neighbors.factory import SearchSettings


def settings(metric="euclidean", algorithm="auto"):
    return SearchSettings(metric=metric, params={}, algorithm=algorithm, n_jobs=None, seed=0)


@pytest.mark.parametrize("h", [0.1, 0.17, 0.3])
def test_auto_counts_the_rows_within_the_cut_off(h, cloud):
    """exp(-d^2 / 2h^2) = 1e-2 at 3.03 h; at least 32, at most 256 rows."""
    assert np.exp(-(CUTOFF**2) / 2) == pytest.approx(1e-2, rel=1e-12)
    D = cdist(cloud, cloud)
    profile = distance_histogram(np.arange(150), D, np.full(150, 1 / 150))
    within = np.median((CUTOFF * h >= D).sum(axis=1) - 1)
    found = auto_n_neighbors(profile, h, 3.0)
    # Distances are sorted into bins of 2.5 %.
    assert max(32, 0.85 * within) <= found <= max(32, 1.15 * within + 1)


def test_a_sample_stands_for_all_rows():
    """The same rows whatever their order, scale, place and rotation."""
    rng = np.random.default_rng(0)
    X, weight = rng.standard_normal((3000, 3)), np.full(3000, 1 / 3000)
    rows = representative_sample(X, weight, settings(), 200)
    assert rows.size == np.unique(rows).size == 200
    order = rng.permutation(3000)
    shuffled = order[representative_sample(X[order], weight, settings(), 200)]
    np.testing.assert_array_equal(np.sort(shuffled), rows)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    moved = representative_sample(1e8 * (X @ turn) + 7, weight, settings(), 200)
    np.testing.assert_array_equal(moved, rows)
    sparse = representative_sample(sp.csr_matrix(X), weight, settings(), 200)
    np.testing.assert_array_equal(sparse, rows)
    every = representative_sample(X, weight, settings(), 5000)
    np.testing.assert_array_equal(every, np.arange(3000))
    assert sample_size(200_000) == 256
    assert sample_size(300) == 300


@pytest.mark.parametrize("known", [False, True])
def test_a_profile_of_some_rows_measures_them(known, cloud):
    rows = np.array([4, 90])
    weight = np.full(150, 1 / 150)
    graph = AllPairs("euclidean", {}).build(cloud) if known else None
    found = sample_histogram(rows, cloud, weight, settings(), graph)
    expected = distance_histogram(rows, cdist(cloud, cloud)[rows], weight)
    np.testing.assert_allclose(found.counts, expected.counts, atol=1e-9)
