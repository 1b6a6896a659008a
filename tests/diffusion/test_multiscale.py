"""diffusion_time="multiscale": the sum over all times."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from skdmap import DiffusionMap

BANDWIDTHS = {
    "fixed": {"bandwidth": 0.6},
    "local": {"bandwidth": "local"},
    "variable": {"bandwidth": 0.2, "bandwidth_exponent": -0.5},
}


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.LocalizedCoordinateWarning")
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_distances_are_those_of_the_sum_over_all_times(alpha, cloud, reference):
    """sum_l (M_il - M_jl)^2 / pi_l, M = sum_t (P - 1 pi')^t over t >= 1 (Haghverdi et al. 2016)."""
    X = cloud[:40]
    exact = reference(X, 0.6, alpha)
    deflated = exact.P - exact.pi[None, :]
    M = np.linalg.inv(np.eye(40) - deflated) - np.eye(40)
    settings = {"bandwidth": 0.6, "n_neighbors": None, "alpha": alpha}
    mapping = DiffusionMap(39, diffusion_time="multiscale", **settings).fit(X)
    expected = cdist(M / np.sqrt(exact.pi), M / np.sqrt(exact.pi))
    found = cdist(mapping.embedding_, mapping.embedding_)
    np.testing.assert_allclose(found, expected, atol=1e-8 * expected.max())


@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
def test_training_samples_get_their_coordinates(bandwidth, cloud, relative):
    mapping = DiffusionMap(4, diffusion_time="multiscale", **BANDWIDTHS[bandwidth]).fit(cloud)
    ratio = mapping.eigenvalues_ / (1 - mapping.eigenvalues_)
    assert relative(mapping.embedding_, mapping.eigenvectors_ * ratio) < 1e-8
    assert relative(mapping.transform(cloud), mapping.embedding_) < 1e-8


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.LocalizedCoordinateWarning")
def test_new_samples_are_divided_by_the_gap_and_not_by_the_eigenvalue(cloud, relative):
    """sum_j p_j psi_j / (1 - lambda): also where lambda is 0 to rounding."""
    K = np.kron([[1.0, 0.4], [0.4, 1.0]], np.ones((15, 15)))
    mapping = DiffusionMap(3, kernel="precomputed", alpha=0, diffusion_time="multiscale").fit(K)
    gap = 1 - mapping.eigenvalues_
    np.testing.assert_allclose(gap, [0.8 / 1.4, 1, 1], atol=1e-14)
    new = np.random.default_rng(0).uniform(0.1, 1, (5, 30))
    averages = (new @ mapping.eigenvectors_) / new.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(mapping.transform(new)[:, 0], averages[:, 0] / gap[0], rtol=1e-12)
    # The mean of such a coordinate is what p_j leave of it, and no quotient of rounding errors.
    assert np.abs(mapping.embedding_[:, 1:]).max() < 1e-12
    assert np.abs(mapping.transform(new)[:, 1:] - averages[:, 1:]).max() < 1e-10


def test_components_have_no_sum_and_the_largest_alone_has(cloud, relative):
    X = np.vstack([cloud, cloud[:40] + 50])
    mapping = DiffusionMap(2, bandwidth=0.6, diffusion_time="multiscale")
    with pytest.raises(ValueError, match=r"2 eigenvalues are 1.*disconnected='largest'"):
        mapping.fit(X)
    largest = mapping.set_params(disconnected="largest").fit(X)
    alone = DiffusionMap(2, bandwidth=0.6, diffusion_time="multiscale").fit(cloud)
    assert relative(largest.embedding_[:150], alone.embedding_) < 1e-10


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.LocalizedCoordinateWarning")
def test_a_gap_below_rounding_is_an_error():
    K = np.kron(np.eye(2), np.ones((15, 15)))
    K[0, 20] = K[20, 0] = 1e-15
    with pytest.raises(ValueError, match="diffusion_time='multiscale' requires one"):
        DiffusionMap(1, kernel="precomputed", diffusion_time="multiscale").fit(K)


def test_a_time_is_a_number_or_multiscale(cloud):
    with pytest.raises(ValueError, match="Did you mean 'multiscale'"):
        DiffusionMap(diffusion_time="multi-scale").fit(cloud)
