"""rho: 1, a neighbour's distance, or a bounded power of the density."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from skdmap.diffusion._kernel import bandwidth_scales, gaussian_kernel
from skdmap.diffusion._neighbors.brute_force import AllPairs
from skdmap.diffusion._neighbors.kd_tree import KDTreeNeighbors

W = np.full(150, 1 / 150)


def searches():
    return [AllPairs("euclidean", {}), KDTreeNeighbors(20, 2.0)]


def test_fixed_bandwidth_has_no_scale(cloud):
    graph = AllPairs("euclidean", {}).build(cloud)
    scale = gaussian_kernel(graph, W, bandwidth=0.3)
    assert scale.epsilon == pytest.approx(0.045, rel=1e-15)
    assert bandwidth_scales(scale, graph) is None


@pytest.mark.parametrize("which", [0, 1])
def test_local_scale_is_the_seventh_nearest_other_row(which, cloud, weights):
    graph = searches()[which].build(cloud)
    w = weights / weights.sum()
    scale = gaussian_kernel(graph, w, bandwidth="local")
    h = np.sort(cdist(cloud, cloud), axis=1)[:, 7]
    assert scale.epsilon == pytest.approx(w @ h**2 / 2, rel=1e-12)
    rho = bandwidth_scales(scale, graph)
    np.testing.assert_allclose(rho * scale.bandwidth, h, rtol=1e-12)


@pytest.mark.parametrize("beta", [-0.5, -1 / 3, 0.5])
def test_density_scale_is_a_bounded_power_of_the_pilot_density(beta, cloud, weights):
    graph = AllPairs("euclidean", {}).build(cloud)
    w = weights / weights.sum()
    scale = gaussian_kernel(graph, w, bandwidth=0.5, exponent=beta)
    q = np.exp(-cdist(cloud, cloud, "sqeuclidean") / (2 * 0.5**2)) @ w
    rho = q**beta / np.exp(w @ np.log(q**beta))
    np.testing.assert_allclose(bandwidth_scales(scale, graph), np.clip(rho, 0.5, 2), rtol=1e-12)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(("bandwidth", "beta"), [("local", 0.0), (0.4, -0.5)])
def test_new_rows_follow_the_rule_of_the_training_rows(which, bandwidth, beta, cloud):
    search = searches()[which]
    graph = search.build(cloud)
    scale = gaussian_kernel(graph, W, bandwidth=bandwidth, exponent=beta)
    rho = bandwidth_scales(scale, graph)
    np.testing.assert_allclose(bandwidth_scales(scale, search.query(cloud)), rho, rtol=1e-12)
    far = bandwidth_scales(scale, search.query(np.array([[1e6, 0.0, 0.0]])))
    if bandwidth == "local":
        assert far * scale.bandwidth == pytest.approx(20 * np.sort(rho * scale.bandwidth)[74])
    else:
        assert far == pytest.approx(2.0)
        assert rho.min() >= 0.5
        assert rho.max() <= 2.0
