"""Pairs within balls: complete up to the radius that is told, none beyond, no row with too many."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from threadpoolctl import threadpool_limits

from skdmap import DiffusionMap
from skdmap.datasets import make_swiss_roll
from skdmap.diffusion._neighbors.kd_tree import (
    KDTreeNeighbors,
    kth_smallest,
    pairs_in_balls,
    tree_order,
    with_pairs,
)


@pytest.fixture(scope="module")
def clusters():
    """Return 600 rows within 1e-3 of a place, and 200 rows in the space around it."""
    rng = np.random.default_rng(0)
    return np.concatenate(
        [1e-3 * rng.standard_normal((600, 2)), rng.uniform(-1.0, 1.0, size=(200, 2))]
    )


def in_full(pairs):
    full = np.full(pairs.shape, np.nan)
    rows = np.repeat(np.arange(pairs.shape[0]), np.diff(pairs.indptr))
    full[rows, pairs.indices] = pairs.data
    assert np.isfinite(full).sum() == pairs.nnz
    return full


@pytest.mark.parametrize(("order", "name"), [(1.0, "cityblock"), (2.0, "euclidean")])
def test_all_pairs_within_the_known_radius_and_no_others(order, name, cloud):
    rng = np.random.default_rng(1)
    new = rng.standard_normal((60, 3))
    guess = rng.uniform(0.1, 0.9, 60)
    pairs, known = pairs_in_balls(new, cKDTree(cloud), guess, n_kept=80, order=order)
    assert np.all(known >= guess * (1 - 1e-12))
    assert np.all(known <= 1.1 * guess)
    D = cdist(new, cloud, name)
    expected = np.where(known[:, None] > D, D, np.nan)
    np.testing.assert_allclose(in_full(pairs), expected, rtol=1e-13)


def test_balls_that_hold_too_many_rows_are_left_alone(clusters):
    new = np.array([[0.5, 0.5], [0.7, -0.6], [1e-3, 0.0]])
    # The first two reach the 600 rows in the middle, the third a few of them.
    guess = np.array([0.75, 0.95, 3e-4])
    pairs, known = pairs_in_balls(new, cKDTree(clusters), guess, n_kept=10)
    np.testing.assert_array_equal(known[:2], 0.0)
    np.testing.assert_array_equal(np.diff(pairs.indptr)[:2], 0)
    assert known[2] > 0


def test_rows_around_a_tight_cluster_have_their_graph(clusters):
    """By definition, whichever query each row took: d <= max(r, r')."""
    new = np.random.default_rng(2).uniform(-1.2, 1.2, (150, 2))
    new[:50] *= 1e-3
    search = KDTreeNeighbors(9, 2.0)
    search.build(clusters)
    _, known = pairs_in_balls(new, search.tree, 1.1 * np.linalg.norm(new, axis=1), n_kept=10)
    assert 0 < np.count_nonzero(known) < 150
    graph = search.query(new)
    D = cdist(new, clusters)
    r = np.sort(D, axis=1)[:, 9]
    np.testing.assert_allclose(graph.row_radii, r, rtol=1e-9)
    counts = np.maximum(r[:, None], search.radii[None, :]) * (1 + 1e-12) >= D
    found = in_full(graph.distances)
    np.testing.assert_allclose(found[counts], D[counts], rtol=1e-9)
    extra = np.isfinite(found) & ~counts
    assert np.all(D[extra] >= np.maximum(r[:, None], search.radii[None, :])[extra] * (1 - 1e-12))


@pytest.mark.parametrize(("width", "density"), [(50, 0.3), (600, 0.99)])
def test_the_kth_smallest_of_each_row(width, density):
    """Short rows may be sorted whole, and most of the long ones near the place asked for."""
    matrix = sp.random(800, width, density=density, format="csr", random_state=0)
    full = np.where(matrix.toarray() > 0, matrix.toarray(), np.inf)
    wanted = [1, 4, 20, 60, 200, 300, 700]
    ordered = np.pad(np.sort(full), ((0, 0), (0, 700)), constant_values=np.inf)
    expected = ordered[:, np.array(wanted) - 1].T
    np.testing.assert_array_equal(kth_smallest(matrix, wanted), expected)
    for k in wanted:
        np.testing.assert_array_equal(kth_smallest(matrix, [k])[0], ordered[:, k - 1])


def test_pairs_are_put_in_their_rows():
    matrix = sp.random(30, 20, density=0.2, format="csr", random_state=1)
    rows, columns = np.nonzero((matrix.toarray() == 0) & (np.arange(20) % 3 == 0))
    mixed = np.random.default_rng(0).permutation(rows.size)
    values = np.arange(1.0, rows.size + 1)
    found = with_pairs(matrix, rows[mixed], columns[mixed], values)
    expected = matrix.toarray()
    expected[rows[mixed], columns[mixed]] = values
    np.testing.assert_array_equal(found.toarray(), expected)
    assert with_pairs(matrix, rows[:0], columns[:0], values[:0]) is matrix


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.BandwidthWarning")
def test_threads_and_blocks_do_not_show_in_new_rows(monkeypatch):
    X = make_swiss_roll(3000, random_state=0).X
    new = make_swiss_roll(2500, random_state=1).X
    with threadpool_limits(1, user_api="blas"):
        alone = DiffusionMap(4, n_neighbors=16, bandwidth=1.5, random_state=0).fit(X)
    with threadpool_limits(3, user_api="blas"):
        together = DiffusionMap(4, n_neighbors=16, bandwidth=1.5, random_state=0).fit(X)
    whole = alone.transform(new)
    monkeypatch.setattr("skdmap.diffusion._nystrom._SPARSE_ROWS", 400)
    np.testing.assert_allclose(together.transform(new), whole, atol=1e-10)
    np.testing.assert_allclose(alone.transform(new), whole, rtol=0, atol=1e-13)


@pytest.mark.parametrize("most", [0.0, np.inf])
def test_new_rows_have_the_same_pairs_from_balls_and_from_lists(monkeypatch, most):
    """In eight dimensions balls hold so many rows that lists cost less."""
    monkeypatch.setattr("skdmap.diffusion._neighbors.kd_tree._MOST_ON_AVERAGE", most)
    rng = np.random.default_rng(3)
    X, new = rng.standard_normal((400, 8)), rng.standard_normal((50, 8))
    index = KDTreeNeighbors(10, 2.0)
    index.build(X)
    graph = index.query(new)
    D = cdist(new, X)
    radii = np.sort(D, axis=1)[:, 10]
    np.testing.assert_allclose(graph.row_radii, radii, rtol=1e-13)
    cutoff = np.maximum(radii[:, None], index.radii[None, :])
    found = in_full(graph.distances)
    inside = cutoff * (1 - 1e-12) >= D
    np.testing.assert_allclose(found[inside], D[inside], rtol=1e-13)
    assert (index._in_balls(new, 11)[1] > 0).any() == (most > 0)


def test_which_metrics_a_tree_takes(cloud):
    assert tree_order(cloud, "euclidean", {}) == 2.0
    assert tree_order(cloud, "manhattan", {}) == 1.0
    assert tree_order(cloud, "minkowski", {"p": 3}) == 3.0
    assert tree_order(cloud, "minkowski", {"p": 3, "w": [1, 1, 1]}) is None
    assert tree_order(cloud, "cosine", {}) is None
    assert tree_order(np.zeros((5, 40)), "euclidean", {}) is None
    assert tree_order(sp.csr_matrix(cloud), "euclidean", {}) is None
