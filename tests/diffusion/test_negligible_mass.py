"""Samples of almost no stationary mass carry no coordinate."""

import numpy as np
import pytest

from skdmap import DiffusionMap
from skdmap.datasets import make_gaussian

pytestmark = pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_no_coordinate_lives_on_rows_without_mass(alpha):
    """Nodes far in the tail are weakly connected, but have weights of 1e-100 and less."""
    data = make_gaussian(200)
    model = DiffusionMap(6, bandwidth=0.1, alpha=alpha).fit(
        data.X, sample_weight=data.sample_weight
    )
    pi, psi = model.stationary_distribution_, model.eigenvectors_
    np.testing.assert_allclose(pi @ psi**2, 1, rtol=1e-6)
    assert np.all(model.participation_ <= 1 + 1e-9)
    assert np.all(model.participation_ > 1e-6)
    if alpha < 1:
        # Fourth moments of Hermite functions: 3, 15, 93, ...
        np.testing.assert_allclose(model.participation_[:3], [1 / 3, 1 / 15, 1 / 93], rtol=0.2)


def test_a_component_without_mass_is_left_out():
    rng = np.random.default_rng(0)
    X = np.vstack([rng.standard_normal((60, 2)), rng.standard_normal((60, 2)) + 100])
    weight = np.repeat([1.0, 1e-10], 60)
    model = DiffusionMap(2, bandwidth=0.7, alpha=0.0).fit(X, sample_weight=weight)
    assert model.eigenvalues_[0] < 1
    np.testing.assert_array_equal(model.stationary_distribution_[60:], 0)
    np.testing.assert_array_equal(model.component_labels_[60:], -1)
    assert np.isfinite(model.embedding_).all()
