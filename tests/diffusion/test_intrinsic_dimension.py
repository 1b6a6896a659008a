"""The dimension that lists of neighbours tell."""

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.neighbors import KNeighborsTransformer

from skdmap import DiffusionMap
from skdmap.diffusion._bandwidth import stored_dimension


@pytest.mark.parametrize(("d", "tolerance"), [(1, 0.05), (2, 0.15), (3, 0.35)])
def test_lists_of_uniform_rows_tell_their_dimension(d, tolerance):
    X = np.random.default_rng(0).uniform(size=(3000, d))
    lists = KNeighborsTransformer(mode="distance", n_neighbors=20).fit_transform(X)
    assert stored_dimension(lists) == pytest.approx(d, abs=tolerance)
    assert stored_dimension(1e8 * lists) == pytest.approx(stored_dimension(lists), rel=1e-12)


def test_lists_without_two_distances_have_none():
    assert stored_dimension(sp.csr_matrix(np.array([[0, 1.0], [1.0, 0]]))) == 0


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.BandwidthWarning")
def test_rates_from_lists_are_near_those_of_the_rows():
    """The exact rate is pi^2; the slope of the listed kernel sum alone would halve it."""
    X = np.random.default_rng(0).uniform(size=(3000, 2))
    lists = KNeighborsTransformer(mode="distance", n_neighbors=50).fit_transform(X)
    listed = DiffusionMap(1, metric="precomputed", bandwidth=0.04).fit(lists)
    rows = DiffusionMap(1, n_neighbors=50, bandwidth=0.04).fit(X)
    assert listed.laplacian_eigenvalues_[0] == pytest.approx(
        rows.laplacian_eigenvalues_[0], rel=0.1
    )
    assert round(listed.intrinsic_dimension_) == 2
