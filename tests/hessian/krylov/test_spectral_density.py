"""The spectral density against spectra that are known."""

import numpy as np
import pytest
import torch

from skdmap.hessian import HessianSpectrum, lanczos
from skdmap.hessian._krylov.quadrature import Probe
from skdmap.hessian._krylov.spectral_density import spectral_density

SIZE = 400
SPECTRUM = np.r_[np.linspace(-0.5, 0.5, SIZE - 3) ** 3, 4.0, 3.0, 2.0]


def quadratic(theta):
    return (torch.as_tensor(SPECTRUM) * theta**2).sum() / 2


def fitted(**settings):
    return HessianSpectrum(quadratic, 3, random_state=0, **settings).fit(np.zeros((1, SIZE)))


def test_raw_nodes_and_weights_are_a_gauss_quadrature():
    """Wrong weights, those of the last row of the eigenvectors, sum to 1 as well."""
    found = lanczos(lambda v: SPECTRUM * v, SIZE, n_pairs=3, rng=np.random.default_rng(0))
    raw = found.quadrature
    v = raw.start
    assert v @ v == pytest.approx(1.0, rel=1e-14)
    assert raw.weights.sum() == pytest.approx(1.0, rel=1e-13)
    assert raw.weights @ raw.nodes == pytest.approx(v @ (SPECTRUM * v), rel=1e-12)
    assert raw.rayleigh == pytest.approx(v @ (SPECTRUM * v), rel=1e-12)
    assert raw.square == pytest.approx(v @ (SPECTRUM**2 * v), rel=1e-12)
    assert 5 < raw.n_exact <= found.n_matvecs
    for degree in range(2, 2 * raw.n_exact):
        true = v @ (SPECTRUM**degree * v)
        assert raw.weights @ raw.nodes**degree == pytest.approx(true, rel=1e-9)


def test_the_quadrature_is_that_of_the_first_cycle_when_there_are_restarts():
    d = np.linspace(0, 1, SIZE)
    found = lanczos(
        lambda v: d * v, SIZE, n_pairs=3, rng=np.random.default_rng(0), max_basis=16, tol=1e-4
    )
    raw = found.quadrature
    assert found.n_matvecs > 2 * len(raw.nodes)
    assert raw.n_exact <= 16
    for degree in range(1, 2 * raw.n_exact):
        assert raw.weights @ raw.nodes**degree == pytest.approx(
            raw.start @ (d**degree * raw.start), rel=1e-9
        )


def test_converged_eigenpairs_are_atoms_of_one_parameter_each():
    density = fitted().density_
    atoms = density.nodes[density.is_atom]
    np.testing.assert_allclose(atoms, [2, 3, 4], rtol=1e-5)
    np.testing.assert_allclose(density.weights[density.is_atom], 1 / SIZE, rtol=1e-12)
    assert density.weights.sum() == pytest.approx(1.0, rel=1e-13)
    assert density.weights.min() >= 0
    assert density.nodes[~density.is_atom].max() <= 0.125 + 1e-9
    assert (np.diff(density.nodes) >= 0).all()


def test_copies_that_were_not_asked_for_stay_in_the_rest():
    d = np.r_[np.full(100, 2.0), np.zeros(300)]
    spectrum = HessianSpectrum(
        lambda t: (torch.as_tensor(d) * t**2).sum() / 2, 4, random_state=0
    ).fit(np.zeros((1, 400)))
    np.testing.assert_allclose(spectrum.eigenvalues_, 2.0, rtol=1e-12)
    density = spectrum.density_
    # 100 of 400 at 2: four are atoms, the other 96 are estimated from one random vector, whose
    # share in a space of 100 of 400 dimensions has a standard deviation of .031.
    share = density.weights[density.nodes > 1].sum()
    assert density.is_atom.sum() == 4
    assert share == pytest.approx(0.25, abs=4 * 0.031)


def test_the_cdf_counts_eigenvalues():
    density = fitted(n_probes=20).density_
    grid = np.array([-1.0, -0.1, -0.01, 0.0, 0.01, 0.1, 1.0, 2.5, 3.5, 5.0])
    true = (grid[:, None] >= SPECTRUM).mean(axis=1)
    np.testing.assert_allclose(density.cdf(grid)[[0, -1]], [0.0, 1.0], atol=1e-12)
    np.testing.assert_allclose(density.cdf(grid)[6:], true[6:], atol=1e-12)  # the atoms are exact
    np.testing.assert_allclose(density.cdf(grid), true, atol=0.05)
    assert density.cdf(0.0).shape == ()


def test_the_whole_spectrum_is_its_own_density():
    spectrum = HessianSpectrum(lambda t: (t**4).sum() / 12, 2).fit([[1.0, 2.0, 3.0]])
    np.testing.assert_allclose(spectrum.density_.nodes, [1, 4, 9], rtol=1e-12)
    assert spectrum.density_.is_atom.all()
    np.testing.assert_allclose(spectrum.density_.cdf([4.5]), [2 / 3])
    at_nodes = spectrum.density_.cdf(spectrum.density_.nodes)
    np.testing.assert_allclose(at_nodes, [1 / 3, 2 / 3, 1])


@pytest.mark.parametrize("width", [None, 0.01, 0.3])
def test_the_smoothed_density_integrates_to_one(width):
    density = fitted().density_
    grid = np.linspace(-6, 10, 400_001)
    values = density.evaluate(grid, width)
    assert values.min() >= 0
    # Errors of the sum are far below; the tails of the widest Gaussian end within the grid.
    assert values.sum() * (grid[1] - grid[0]) == pytest.approx(1.0, abs=1e-6)
    rest = density.evaluate(grid, width, atoms=False)
    assert rest.sum() * (grid[1] - grid[0]) == pytest.approx(1.0 - 3 / SIZE, abs=1e-6)


def test_the_width_does_not_depend_on_scale_or_outliers():
    nodes, weights = np.array([-1.0, 0.0, 1.0]), np.array([0.25, 0.5, 0.25])
    probes = [Probe(nodes, weights, 0.0, 0.0)]
    far = spectral_density(np.array([100.0]), probes, 1000)
    farther = spectral_density(np.array([1e6]), probes, 1000)
    grid = np.linspace(-2, 2, 9)
    for width in (None, 0.1):
        np.testing.assert_allclose(
            far.evaluate(grid, width), farther.evaluate(grid, width), rtol=1e-6
        )
    scaled = [Probe(8 * nodes, weights, 0.0, 0.0)]
    large = spectral_density(np.array([800.0]), scaled, 1000)
    for width in (None, 0.1):
        np.testing.assert_allclose(
            8 * large.evaluate(8 * grid, width), far.evaluate(grid, width), rtol=1e-12
        )


def test_a_zero_hessian_has_a_density():
    spectrum = HessianSpectrum(torch.sum, 3, random_state=0).fit(np.ones((1, 300)))
    density = spectrum.density_
    np.testing.assert_allclose(density.nodes, 0.0)
    assert density.weights.sum() == pytest.approx(1.0)
    assert np.isfinite(density.evaluate([0.0, 1.0])).all()
    assert (spectrum.trace_, spectrum.trace_stderr_, spectrum.frobenius_norm_) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("width", [0.0, -1.0, np.nan])
def test_a_width_out_of_range_is_named(width):
    with pytest.raises(ValueError, match="must be > 0: it is relative to the range"):
        fitted().density_.evaluate([0.0], width)
