"""psi = v / sqrt(pi) with mean square 1, a sign of its own, and powers of lambda."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_iris

from skdmap import DiffusionMap
from skdmap.diffusion._eigenfunctions import (
    averaged,
    fixed_signs,
    laplacian_eigenvalues,
    markov_eigenvalues,
    participation,
    time_factors,
)
from skdmap.diffusion._markov import normalize


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_fit_against_the_dense_definition(alpha, cloud, weights, reference, up_to_sign):
    model = DiffusionMap(5, bandwidth=0.6, alpha=alpha, diffusion_time=3).fit(
        cloud, sample_weight=weights
    )
    exact = reference(cloud, 0.6, alpha, weights)
    np.testing.assert_allclose(model.eigenvalues_, exact.values[1:6], atol=1e-13)
    np.testing.assert_allclose(model.stationary_distribution_, exact.pi, rtol=1e-11)
    assert up_to_sign(model.eigenvectors_, exact.psi[:, 1:6]) < 1e-10
    assert up_to_sign(model.embedding_, exact.psi[:, 1:6] * exact.values[1:6] ** 3) < 1e-10


def test_eigenfunctions_are_pi_orthonormal(cloud, weights):
    model = DiffusionMap(6, bandwidth=0.6).fit(cloud, sample_weight=weights)
    pi, psi = model.stationary_distribution_, model.eigenvectors_
    np.testing.assert_allclose(psi.T @ (pi[:, None] * psi), np.eye(6), atol=1e-12)
    np.testing.assert_allclose(pi @ psi, 0, atol=1e-13)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.LocalizedCoordinateWarning")
@pytest.mark.parametrize("time", [1, 2, 5])
def test_diffusion_distance_is_the_distance_of_transition_probabilities(time, reference):
    """sum_l (P^t_il - P^t_jl)^2 / pi_l, with all n - 1 pairs."""
    X = np.random.default_rng(0).standard_normal((25, 2))
    model = DiffusionMap(24, bandwidth=0.5, alpha=0.5, diffusion_time=time).fit(X)
    exact = reference(X, 0.5, 0.5)
    Pt = np.linalg.matrix_power(exact.P, time)
    expected = (((Pt[:, None] - Pt[None]) ** 2) / exact.pi).sum(axis=2)
    found = ((model.embedding_[:, None] - model.embedding_[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(found, expected, atol=1e-12 * expected.max())


def test_participation_of_a_cosine_is_two_thirds():
    angle = 2 * np.pi * np.arange(100) / 100
    psi = np.sqrt(2) * np.cos(angle)[:, None]
    assert participation(psi, np.full(100, 0.01))[0] == pytest.approx(2 / 3, rel=1e-13)


def test_participation_of_one_row_is_its_mass():
    pi = np.array([0.01, 0.49, 0.5])
    psi = np.array([[10.0], [0.0], [0.0]])
    assert participation(psi, pi)[0] == pytest.approx(0.01, rel=1e-14)


def test_average_is_p_times_the_function(cloud, weights, reference):
    w = weights / weights.sum()
    k = np.exp(-((cloud[:, None] - cloud[None]) ** 2).sum(axis=2) / (2 * 0.5**2))
    operator = normalize(k, w, alpha=1.0)
    values = np.random.default_rng(0).standard_normal((150, 2))
    found = averaged(operator, values, np.ones(150, bool))
    np.testing.assert_allclose(found, reference(cloud, 0.5, 1.0, weights).P @ values, atol=1e-13)


def test_powers_and_their_logarithms():
    values = np.array([0.9, 0.5, 0.0, -0.25])
    np.testing.assert_allclose(time_factors(values, 3), values**3)
    np.testing.assert_array_equal(time_factors(values, 0), 1.0)
    np.testing.assert_allclose(time_factors(values[:3], 0.5), np.sqrt(values[:3]))
    theta = np.array([0.99, 0.9])
    np.testing.assert_allclose(markov_eigenvalues(theta, variable=True), np.exp(theta - 1))
    mu = laplacian_eigenvalues(theta, epsilon=0.02, correction=1.0)
    np.testing.assert_allclose(np.exp(-0.02 * mu), markov_eigenvalues(theta, variable=True))
    assert laplacian_eigenvalues(np.array([1 + 1e-16]), epsilon=1.0, correction=1.0)[0] == 0


def test_sign_is_that_of_the_third_moment_and_follows_no_order():
    rng = np.random.default_rng(0)
    pi = rng.uniform(0.5, 1, 200)
    pi /= pi.sum()
    psi = rng.exponential(size=(200, 3)) - 1
    np.testing.assert_array_equal(fixed_signs(psi, pi, None), 1)
    np.testing.assert_array_equal(fixed_signs(-psi, pi, None), -1)
    order = rng.permutation(200)
    np.testing.assert_array_equal(fixed_signs(-psi[order], pi[order], None), -1)


def test_sign_of_a_symmetric_function_follows_the_first_column():
    """Equispaced interval: psi_1 is odd, its third moment 0, so it grows with the column."""
    x = np.linspace(-1, 1, 101)[:, None]
    up = DiffusionMap(1, bandwidth=0.2).fit(x).embedding_[:, 0]
    down = DiffusionMap(1, bandwidth=0.2).fit(-x).embedding_[:, 0]
    assert np.corrcoef(up, x[:, 0])[0, 1] > 0.9
    assert np.corrcoef(down, x[:, 0])[0, 1] < -0.9
    shuffled = np.random.default_rng(0).permutation(101)
    again = DiffusionMap(1, bandwidth=0.2).fit(x[shuffled]).embedding_[:, 0]
    np.testing.assert_allclose(again, up[shuffled], atol=1e-10)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
@pytest.mark.parametrize("time", [0, 2, 3])
def test_whole_times_take_negative_eigenvalues(time, reference, up_to_sign):
    """A truncated kernel is not positive: its last eigenvalues are below 0."""
    X = np.random.default_rng(1).uniform(size=(40, 1))
    model = DiffusionMap(39, bandwidth=0.5, n_neighbors=6, diffusion_time=time, alpha=0.0).fit(X)
    exact = reference(X, 0.5, 0.0, n_neighbors=6)
    np.testing.assert_allclose(model.eigenvalues_, exact.values[1:], atol=1e-12)
    assert model.eigenvalues_[-1] < -0.05
    expected = exact.psi[:, 1:] * exact.values[1:] ** time
    clear = np.abs(exact.values[1:]) > 1e-3
    assert up_to_sign(model.embedding_[:, clear], expected[:, clear]) < 1e-8


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
def test_a_fraction_of_a_negative_eigenvalue_names_what_works():
    X = np.random.default_rng(1).uniform(size=(40, 1))
    settings = {"bandwidth": 0.5, "n_neighbors": 6, "alpha": 0.0}
    values = DiffusionMap(39, **settings).fit(X).eigenvalues_
    works = int((values >= 0).sum())
    with pytest.raises(ValueError, match=rf"diffusion_time=0.5.*n_components <= {works}"):
        DiffusionMap(39, diffusion_time=0.5, **settings).fit(X)
    model = DiffusionMap(works, diffusion_time=0.5, **settings).fit(X)
    np.testing.assert_allclose(
        np.abs(model.embedding_),
        np.abs(model.eigenvectors_) * np.sqrt(model.eigenvalues_),
        atol=1e-8,
    )


@pytest.mark.parametrize("time", [1e3, 1e6, 1e300])
def test_large_times_go_to_zero_and_not_further(time, cloud):
    model = DiffusionMap(3, bandwidth=0.6, diffusion_time=time).fit(cloud)
    np.testing.assert_allclose(
        model.embedding_, model.eigenvectors_ * model.eigenvalues_**time, rtol=1e-6, atol=1e-300
    )
    assert np.isfinite(model.transform(cloud)).all()


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
def test_an_eigenvalue_of_minus_rounding_has_a_fractional_power():
    """Whether it is -2e-18 or 2e-18 depends on the order of the samples."""
    rng = np.random.default_rng(0)
    X = rng.random((12, 1))
    for _ in range(30):
        model = DiffusionMap(8, bandwidth=10.0, diffusion_time=0.5).fit(X[rng.permutation(12)])
        assert np.isfinite(model.embedding_).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"bandwidth": "auto", "bandwidth_exponent": -0.5},
        {"bandwidth_exponent": -0.5, "bandwidth": "median"},
        {"bandwidth": "auto", "bandwidth_exponent": -2.0},
        {"bandwidth": "local"},
    ],
)
@pytest.mark.parametrize("rows", ["circle", "uniform", "iris", "binary"])
def test_coordinates_of_training_samples_are_no_noise_over_noise(settings, rows):
    """Where the denominator of the extension vanishes, psi itself is known."""
    rng, t = np.random.default_rng(0), 2 * np.pi * np.arange(100) / 100
    X = {
        "circle": np.column_stack([np.cos(t), np.sin(t)]),
        "uniform": rng.random((200, 2)),
        "iris": load_iris().data,
        "binary": (rng.random((200, 12)) < 0.5).astype(float),
    }[rows]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = DiffusionMap(10, random_state=0, **settings).fit(X)
    expected = model.eigenvalues_ * model.eigenvectors_
    off = np.abs(model.embedding_ - expected) / np.abs(expected).max(axis=0)
    assert off.max() < 1e-6
    named = any("divided by less than 1e-3" in str(w.message) for w in caught)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = model.transform(X)
    assert any("divided by less than 1e-3" in str(w.message) for w in caught) == named
    if not named:
        np.testing.assert_allclose(again, model.embedding_, atol=1e-6 * np.abs(expected).max())
