"""What "auto" and "median" mean."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist, pdist
from sklearn.neighbors import KNeighborsTransformer

from skdmap import DiffusionMap
from skdmap.datasets import make_sphere, make_swiss_roll
from skdmap.diffusion._bandwidth import (
    CUTOFF,
    Plateau,
    _first_crossing,
    _last_crossing,
    auto_bandwidth,
    auto_n_neighbors,
    connecting_bandwidth,
    find_plateau,
    least_bandwidths,
    median_bandwidth,
    resolve_n_neighbors,
)
from skdmap.diffusion._distance_histogram import distance_histogram
from skdmap.diffusion._kernel import neighbor_distances, weighted_median
from skdmap.diffusion._neighbors.graph import DistanceGraph, kth_listed
from skdmap.diffusion._neighbors.kd_tree import KDTreeNeighbors
from skdmap.exceptions import BandwidthWarning, LocalizedCoordinateWarning


def histogram_of(X):
    return distance_histogram(np.arange(len(X)), cdist(X, X), np.full(len(X), 1 / len(X)))


def test_median_is_over_all_pairs(cloud):
    graph = DistanceGraph(cdist(cloud, cloud))
    w = np.full(150, 1 / 150)
    assert median_bandwidth(graph, w) == pytest.approx(np.median(pdist(cloud)), rel=1e-14)


def test_median_of_a_sparse_graph_is_a_third_of_the_radius(cloud):
    graph = KDTreeNeighbors(12, 2.0).build(cloud)
    r = np.sort(cdist(cloud, cloud), axis=1)[:, 12]
    found = median_bandwidth(graph, np.full(150, 1 / 150))
    assert found == pytest.approx(np.median(r) / 3, rel=1e-13)


def test_weighted_median_counts_weights_as_repetitions():
    rng = np.random.default_rng(0)
    for size in (5, 6, 31, 32):
        values, repeats = rng.standard_normal(size), rng.integers(1, 5, size)
        expected = np.median(np.repeat(values, repeats))
        assert weighted_median(values, repeats / repeats.sum()) == pytest.approx(
            expected, abs=1e-15
        )
        assert weighted_median(values, np.ones(size)) == np.median(values)


def test_crossings_are_interpolated_in_the_logarithm():
    grid, excess = np.array([1.0, 2.0, 8.0, 16.0]), np.array([-1.0, 1.0, -3.0, 1.0])
    assert _first_crossing(grid, excess) == pytest.approx(2**0.5)
    assert _last_crossing(grid, excess) == pytest.approx(8 * 2**0.75)
    assert _first_crossing(grid, np.array([-3.0, -2.0, -1.0, 0.0])) == 16.0
    assert _last_crossing(grid, np.array([1.0, 1.0, 1.0, -1.0])) == 16.0


def test_auto_neighbours_are_those_of_the_bandwidth_on_the_plateau():
    X = np.random.default_rng(0).uniform(size=(1500, 2))
    histogram = histogram_of(X)
    plateau = find_plateau(histogram)
    expected = {h: auto_n_neighbors(histogram, h) for h in (plateau.bandwidth, plateau.last)}
    assert resolve_n_neighbors("auto", histogram, "auto") == expected[plateau.bandwidth]
    assert expected[plateau.bandwidth] < expected[plateau.last]
    assert resolve_n_neighbors("auto", histogram, 2 * plateau.bandwidth) == auto_n_neighbors(
        histogram, 2 * plateau.bandwidth
    )


def test_kth_stored_value():
    lists = sp.csr_matrix(np.array([[3.0, 1, 2, 0], [0, 5, 0, 4], [0, 0, 0, 0]]))
    np.testing.assert_array_equal(kth_listed(lists, 2), [2, 5, 0])
    np.testing.assert_array_equal(kth_listed(lists, 9), [3, 5, 0])


def test_ninth_neighbour_of_dense_and_listed_distances(cloud):
    D = cdist(cloud, cloud)
    graph = KDTreeNeighbors(12, 2.0).build(cloud)
    np.testing.assert_allclose(
        neighbor_distances(graph.distances, 9), neighbor_distances(D, 9), rtol=1e-13
    )
    np.testing.assert_allclose(neighbor_distances(D, 9), np.sort(D, axis=1)[:, 8], rtol=0)


@pytest.mark.parametrize("sparse", [False, True])
def test_connecting_bandwidth_connects_the_neighbour_graph_and_no_less(cloud, sparse):
    """At that h the weakest edge needed has k = 2.2e-16; a little below, the graph falls apart."""
    D = cdist(cloud, cloud)
    distances = KDTreeNeighbors(20, 2.0).build(cloud).distances if sparse else D
    h = connecting_bandwidth(distances, np.zeros(150, bool), n_neighbors=10)

    def n_pieces(h):
        k = np.exp(-(D**2) / (2 * h**2)) >= np.finfo(float).eps
        return sp.csgraph.connected_components(sp.csr_matrix(k))[0]

    r = np.sort(D, axis=1)[:, 10]
    graph = r[:, None] >= D
    assert sp.csgraph.connected_components(sp.csr_matrix(graph), directed=False)[0] == 1
    assert n_pieces(h) == 1
    assert n_pieces(h * (1 - 1e-6)) > 1


def test_auto_is_the_largest_of_plateau_weak_connections_and_the_graph(cloud):
    graph = DistanceGraph(cdist(cloud, cloud))
    low = Plateau(typical=1e-3, last=1e-3, end=0.5, bandwidth=1e-3)
    connecting = connecting_bandwidth(graph.distances, np.zeros(150, bool))
    assert auto_bandwidth(graph, low, np.zeros(150)) == connecting
    assert auto_bandwidth(graph, replace(low, bandwidth=0.4), np.zeros(150)) == 0.4
    needed = np.linspace(0, 0.45, 150)
    assert auto_bandwidth(graph, low, needed) == 0.45
    # A row that needs more than the plateau's end is an outlier.
    needed[-1] = 0.6
    assert auto_bandwidth(graph, low, needed) == needed[-2]


def test_least_bandwidth_gives_three_effective_neighbours(cloud):
    h = least_bandwidths(histogram_of(cloud))
    d2 = cdist(cloud, cloud, "sqeuclidean")
    sums = np.exp(-d2 / (2 * h[:, None] ** 2)).sum(axis=1) - 1
    np.testing.assert_allclose(sums, 3, rtol=1e-2)


def test_plateau_of_a_line_has_slope_one():
    x = (np.arange(2000) / 2000)[:, None]
    plateau = find_plateau(histogram_of(x))
    # Ten effective neighbours: sum_{j != 0} exp(-j^2 s^2 / 2h^2) = sqrt(2 pi) h / s - 1.
    assert plateau.typical == pytest.approx(11 / np.sqrt(2 * np.pi) / 2000, rel=0.02)
    assert plateau.typical < plateau.bandwidth < plateau.last <= plateau.end < 1


def test_auto_does_not_merge_the_layers_of_a_roll():
    roll = make_swiss_roll(1500, random_state=0)
    model = DiffusionMap(1, bandwidth="auto").fit(roll.X)
    s = np.cos(np.pi * roll.arc_length)
    assert abs(np.corrcoef(model.embedding_[:, 0], s)[0, 1]) > 0.99
    # Layers are 2 pi apart.
    assert model.bandwidth_ < np.pi


def test_dimension_is_the_largest_slope():
    sphere = make_sphere(1500, design="random", random_state=0)
    model = DiffusionMap(3, bandwidth="auto").fit(sphere.X)
    assert model.intrinsic_dimension_ == model.bandwidth_curve_.slope.max()
    assert abs(model.intrinsic_dimension_ - 2) < 0.25


def test_auto_leaves_no_sample_weakly_connected_and_splits_no_graph():
    """A row in the tail of a normal sample keeps three effective neighbours."""
    X = np.random.default_rng(3).standard_normal((800, 1))
    model = DiffusionMap(2, bandwidth="auto", alpha=0.5).fit(X)
    assert model.n_connected_components_ == 1
    assert model.participation_[0] > 0.2


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
def test_one_far_outlier_does_not_set_the_scale(cloud):
    alone = DiffusionMap(2, bandwidth="auto").fit(cloud)
    model = DiffusionMap(2, bandwidth="auto").fit(np.concatenate([cloud, [[1e4, 0, 0]]]))
    assert model.bandwidth_ == pytest.approx(alone.bandwidth_, rel=0.1)
    assert model.component_labels_[-1] == -1
    assert np.isfinite(model.embedding_).all()


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
@pytest.mark.parametrize("n_neighbors", [2, 5, 9])
def test_lists_shorter_than_ten_neighbours_have_a_bandwidth(n_neighbors, cloud):
    """Ten effective neighbours are more than a list can hold: half of it counts instead."""
    lists = KNeighborsTransformer(mode="distance", n_neighbors=n_neighbors).fit_transform(cloud)
    model = DiffusionMap(1, bandwidth="auto", metric="precomputed").fit(lists)
    assert 0 < model.bandwidth_ <= 2 * lists.data.max()


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
def test_two_rows_of_unequal_weight_have_a_bandwidth():
    model = DiffusionMap(1, bandwidth="auto").fit([[5.0], [0.0]], sample_weight=[1.0, 1e-3])
    assert 0 < model.bandwidth_ < 50


@pytest.mark.slow
def test_defaults_do_not_cut_a_kernel_that_needs_more_neighbours():
    """Rows far out ask for a wide kernel; rates over short lists would be off by half."""
    X = np.random.default_rng(0).standard_normal((5200, 3)) / np.sqrt([1.0, 1.5, 4.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error", BandwidthWarning)
        warnings.simplefilter("ignore", LocalizedCoordinateWarning)
        mapping = DiffusionMap(
            10, bandwidth="auto", alpha=0.5, diffusion_time=0, random_state=0
        ).fit(X)
    likeness = np.abs(np.corrcoef(X[:, 0], mapping.embedding_.T)[0, 1:])
    assert likeness.max() > 0.9
    assert mapping.laplacian_eigenvalues_[likeness.argmax()] == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("h", [0.1, 0.17, 0.3])
def test_auto_counts_the_rows_within_the_cut_off(h, cloud):
    """exp(-d^2 / 2h^2) = 1e-2 at 3.03 h; at least 32, at most 256 rows."""
    assert np.exp(-(CUTOFF**2) / 2) == pytest.approx(1e-2, rel=1e-12)
    D = cdist(cloud, cloud)
    histogram = distance_histogram(np.arange(150), D, np.full(150, 1 / 150))
    within = np.median((CUTOFF * h >= D).sum(axis=1) - 1)
    found = auto_n_neighbors(histogram, h)
    # Distances are sorted into bins of 2.5 %.
    assert max(32, 0.85 * within) <= found <= max(32, 1.15 * within + 1)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
@pytest.mark.parametrize("far", [1e6, 3e9, 1e20, np.finfo(np.float32).max])
@pytest.mark.parametrize("metric", ["euclidean", "precomputed"])
def test_a_fill_value_sets_neither_bandwidth_nor_dimension(far, metric):
    X = np.random.default_rng(0).random((300, 3))
    filled = np.vstack([X, [[far, 0, 0]]])
    alone, model = (
        DiffusionMap(3, bandwidth="auto", metric=metric).fit(
            cdist(rows, rows) if metric != "euclidean" else rows
        )
        for rows in (X, filled)
    )
    assert model.bandwidth_ == pytest.approx(alone.bandwidth_, rel=1e-2)
    assert model.intrinsic_dimension_ == pytest.approx(alone.intrinsic_dimension_, rel=2e-2)
    np.testing.assert_allclose(model.eigenvalues_, alone.eigenvalues_, rtol=1e-2)
    assert model.component_labels_[-1] == -1


@pytest.mark.parametrize("size", [1.1e150, 9.6e153, 1.2e154, 2e154])
def test_distances_whose_squares_overflow_in_sums_are_named(size):
    with pytest.raises(ValueError, match=r"X: the largest distance.*Rescale X"):
        DiffusionMap(1, bandwidth="auto").fit([[1.0], [0.0], [size]])
