"""The records that neighbour searches return."""

import numpy as np
import scipy.sparse as sp
from scipy.spatial.distance import cdist

from skdmap.diffusion._neighbors.brute_force import AllPairs
from skdmap.diffusion._neighbors.graph import TINY, DistanceGraph, union, with_stored_zeros


def test_all_pairs_are_the_distances(cloud):
    search = AllPairs("euclidean", {})
    graph = search.build(cloud)
    assert not graph.is_sparse
    assert search.n_neighbors is None
    np.testing.assert_allclose(graph.distances, cdist(cloud, cloud), rtol=1e-14)
    new = cloud[:5] + 0.1
    np.testing.assert_allclose(search.query(new).distances, cdist(new, cloud), rtol=1e-14)


def test_precomputed_distances_are_copied(cloud):
    D = cdist(cloud, cloud)
    graph = AllPairs("precomputed", {}).build(D)
    graph.distances[:] = 0
    assert D.max() > 1


def test_the_cut_off_of_a_pair_is_the_larger_radius():
    pattern = sp.csr_matrix(np.array([[1.0, 2.0], [2.0, 1.0]]))
    r = np.array([3.0, 5.0])
    np.testing.assert_array_equal(DistanceGraph(pattern, r, r).cutoffs(), [3, 5, 5, 5])


def test_a_stored_zero_survives_sparse_operations():
    stored = sp.csr_matrix((np.array([0.0, 1.0]), ([0, 0], [1, 2])), shape=(3, 3))
    kept = union(with_stored_zeros(stored), with_stored_zeros(stored.T.tocsr()))
    assert kept.nnz == 4
    assert kept[0, 1] == kept[1, 0] == TINY
    assert TINY**2 == 0.0
