"""laplacian_eigenvalues_ against the spectra of the generators that they estimate.

The point sets, bandwidths and tolerances of the strips, the rectangle and the sphere are those that
pyDiffMap tests itself with; its epsilon is h^2 / 2.
"""

import re
import warnings

import numpy as np
import pytest
from scipy.special import ndtri

from skdmap import DiffusionMap
from skdmap.datasets import make_sphere
from skdmap.exceptions import LocalizedCoordinateWarning

pytestmark = pytest.mark.usefixtures("either_solver")
# A dense decomposition of some thousand rows takes long.
usual_solver_by_default = pytest.mark.parametrize(
    "either_solver",
    ["usual solver", pytest.param("multilevel", marks=pytest.mark.slow)],
    indirect=True,
)


def errors(model, exact):
    return np.abs(model.laplacian_eigenvalues_ / exact - 1)


def test_strip():
    """cos(m x / 2) on [0, 2 pi], m^2 / 4; alpha = 0, as alpha = 1 is low at the boundary."""
    X = np.linspace(0, 2 * np.pi, 81)[:, None]
    h = np.sqrt(2 * 0.002)
    exact = np.arange(1, 5) ** 2 / 4
    for n_neighbors in (None, 20):
        model = DiffusionMap(4, bandwidth=h, alpha=0.0, n_neighbors=n_neighbors).fit(X)
        assert errors(model, exact).max() < 0.05


def test_non_uniform_strip():
    """Points crowd at 0, spacings from 0.001 to 0.16; alpha = 1 does not see it."""
    X = 2 * np.pi * np.linspace(0, 1, 81)[:, None] ** 2
    exact = np.arange(1, 5) ** 2 / 4
    model = DiffusionMap(4, bandwidth=np.sqrt(2 * 0.005), alpha=1.0).fit(X)
    assert errors(model, exact).max() < 0.1
    cosines = np.cos(np.outer(X[:, 0], np.arange(1, 5)) / 2)
    for k in range(4):
        assert abs(np.corrcoef(cosines[:, k], model.embedding_[:, k])[0, 1]) > 0.99


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_rectangle(alpha):
    """2 pi x pi: k_x^2 / 4 + k_y^2 = 1/4, 1, 1, 5/4."""
    x, y = np.meshgrid(np.linspace(0, 2 * np.pi, 61), np.linspace(0, np.pi, 31))
    X = np.column_stack([x.ravel(), y.ravel()])
    h = np.sqrt(2 * 0.0025)
    model = DiffusionMap(4, bandwidth=h, alpha=alpha, n_neighbors=100).fit(X)
    assert errors(model, np.array([0.25, 1, 1, 1.25])).max() < 0.2


@usual_solver_by_default
def test_sphere_of_latitudes_and_longitudes():
    """Crowded poles; l (l + 1) = 2, 2, 2, 6 with alpha = 1."""
    longitude = np.pi * np.linspace(-1, 1, 61)[1:]
    latitude = np.pi * np.linspace(-1, 1, 33)[1:-1]
    phi, theta = (grid.ravel() for grid in np.meshgrid(longitude, latitude))
    X = np.column_stack([np.cos(theta) * np.cos(phi), np.cos(theta) * np.sin(phi), np.sin(theta)])
    model = DiffusionMap(4, bandwidth=np.sqrt(2 * 0.015), alpha=1.0).fit(X)
    assert errors(model, np.array([2, 2, 2, 6])).max() < 0.1


# The cut-off does cut here, which is warned of.
@pytest.mark.filterwarnings("ignore::skdmap.exceptions.BandwidthWarning")
@pytest.mark.parametrize("h", [0.08, 0.04])
def test_a_cut_off_does_not_show_in_the_rates(h):
    """The second moment of a truncated kernel is s; (1 - lambda) / (eps s / d) corrects it."""
    angle = 2 * np.pi * np.arange(1500) / 1500
    X = np.column_stack([np.cos(angle), np.sin(angle)])
    model = DiffusionMap(4, bandwidth=h, n_neighbors=30).fit(X)
    assert errors(model, np.array([1, 1, 4, 4])).max() < 0.01


def quantiles(n=2000):
    return ndtri((np.arange(n) + 0.5) / n)[:, None]


def test_normal_quantiles_at_a_given_bandwidth():
    model = DiffusionMap(3, bandwidth=0.2, alpha=0.5).fit(quantiles())
    assert errors(model, np.array([1, 2, 3])).max() < 0.04


def test_normal_quantiles_with_auto():
    model = DiffusionMap(2, bandwidth="auto", alpha=0.5).fit(quantiles())
    assert errors(model, np.array([1, 2])).max() < 0.10


def test_variable_bandwidth_on_normal_quantiles():
    """Bounded rho in the general form: 1, 2, 3 for alpha = 1/2."""
    model = DiffusionMap(3, alpha=0.5, bandwidth=0.1, bandwidth_exponent=-0.5).fit(quantiles(1500))
    assert errors(model, np.array([1, 2, 3])).max() < 0.05
    np.testing.assert_allclose(
        model.eigenvalues_, np.exp(-model.epsilon_ * model.laplacian_eigenvalues_), rtol=1e-12
    )


def uneven_circle(n):
    """Return angles at the quantiles of (1 + 0.6 cos t) / 2 pi, by Newton's method."""
    p = 2 * np.pi * (np.arange(n) + 0.5) / n
    t = p.copy()
    for _ in range(60):
        t -= (t + 0.6 * np.sin(t) - p) / (1 + 0.6 * np.cos(t))
    return t


def uneven_rates(alpha, n=800):
    """Spectrum of -f'' - 2 (1 - alpha) (log q)' f', by finite differences in divergence form."""
    t = 2 * np.pi * np.arange(n) / n
    step = 2 * np.pi / n
    centre = (1 + 0.6 * np.cos(t)) ** (2 * (1 - alpha))
    edge = (1 + 0.6 * np.cos(t + step / 2)) ** (2 * (1 - alpha))
    A = np.diag(edge + np.roll(edge, 1))
    following = (np.arange(n) + 1) % n
    A[np.arange(n), following] = A[following, np.arange(n)] = -edge
    root = np.sqrt(centre)
    return np.linalg.eigvalsh(A / np.outer(root, root))[1:4] / step**2


@usual_solver_by_default
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    "settings",
    [
        {"bandwidth": 0.1},
        {"bandwidth": 0.1, "bandwidth_exponent": -0.5},
        {"bandwidth": 0.1, "bandwidth_exponent": -1.0},
        {"bandwidth": 0.03, "n_neighbors": 60},
    ],
    ids=str,
)
def test_alpha_sets_the_drift_for_every_kind_of_bandwidth(alpha, settings):
    t = uneven_circle(800)
    X = np.column_stack([np.cos(t), np.sin(t)])
    model = DiffusionMap(3, alpha=alpha, **settings).fit(X)
    assert errors(model, uneven_rates(alpha)).max() < 0.04


def is_good(seed):
    """Return whether "auto" meets the slow coordinate, and whether a warning names the row else."""
    X = np.random.default_rng(seed).standard_normal((5000, 1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = DiffusionMap(2, bandwidth="auto", alpha=0.5, n_neighbors=None).fit(X)
    good = model.participation_[0] > 0.2 and abs(model.laplacian_eigenvalues_[0] - 1) < 0.15
    named = [str(w.message) for w in caught if w.category is LocalizedCoordinateWarning]
    return bool(good), any(re.search(r", samples? \d", message) for message in named)


@usual_solver_by_default
@pytest.mark.parametrize("seed", range(3))
def test_auto_on_normal_samples(seed):
    assert is_good(seed)[0]


@pytest.mark.slow
@pytest.mark.parametrize("either_solver", ["usual solver"], indirect=True)
def test_auto_on_forty_normal_samples():
    """All of seeds 0-9, at least 24 of 10-39; a failure comes with a warning."""
    results = [is_good(seed) for seed in range(40)]
    good = [found for found, _ in results]
    assert all(good[:10]), good
    assert sum(good[10:]) >= 24, good
    assert all(found or named for found, named in results), results


@usual_solver_by_default
def test_a_coordinate_of_a_few_tail_rows_is_named():
    X = np.random.default_rng(0).standard_normal((5000, 1))
    with pytest.warns(LocalizedCoordinateWarning) as caught:
        model = DiffusionMap(4, alpha=0.5, bandwidth=0.07, n_neighbors=None).fit(X)
    shares = model.stationary_distribution_[:, None] * model.eigenvectors_**2
    effective = 1 / (shares**2).sum(axis=0)
    localized = np.flatnonzero((effective < 10) | (shares.max(axis=0) > 0.5))
    assert localized.size
    message = str(caught[0].message)
    for k in localized:
        row = shares[:, k].argmax()
        assert f"coordinate {k} ({effective[k]:.2g} effective samples, sample" in message
        assert str(int(row)) in message
        assert abs(X[row, 0]) > 3


@usual_solver_by_default
def test_random_points_on_a_sphere_with_auto():
    """4,000 rows, alpha 1: 2, 2, 2, 6, 6, 6, 6, 6 within 15 %, dimension 2 within 0.25."""
    sphere = make_sphere(4000, design="random", random_state=0)
    model = DiffusionMap(8, bandwidth="auto", n_neighbors=None).fit(sphere.X)
    assert errors(model, np.repeat([2.0, 6.0], [3, 5])).max() < 0.15
    assert abs(model.intrinsic_dimension_ - 2) < 0.25
