"""A search from several vectors at once, for eigenvalues of many copies."""

import numpy as np
import pytest
import torch

from skdmap import HessianSpectrum

TENFOLD = np.r_[np.linspace(-0.5, 0.5, 600), np.full(10, 1.0)]


def quadratic(theta):
    return (torch.as_tensor(TENFOLD[: len(theta)]) * theta**2).sum() / 2


def fitted(block_size, seed, **settings):
    spectrum = HessianSpectrum(quadratic, 10, block_size=block_size, random_state=seed, **settings)
    return spectrum.fit(np.zeros((1, len(TENFOLD))))


def n_copies(spectrum):
    return int((np.abs(spectrum.eigenvalues_ - 1) <= 1e-3).sum())


def test_a_block_of_ten_finds_a_tenfold_eigenvalue_from_every_start():
    for seed in range(10):
        spectrum = fitted(10, seed)
        assert n_copies(spectrum) == 10
        assert spectrum.orthogonality_error_ < 1e-13
        assert spectrum.converged_.all()


def test_trace_and_density_of_a_block_are_those_of_the_spectrum():
    errors = []
    for seed in range(20):
        spectrum = fitted(10, seed)
        errors.append((spectrum.trace_ - TENFOLD.sum()) / spectrum.trace_stderr_)
        assert spectrum.density_.weights.sum() == pytest.approx(1.0, rel=1e-13)
        assert spectrum.density_.is_atom.sum() == 10
        # The ten copies lie above, and of the rest at most by how much the start has of them by
        # chance, a chi-squared variable with ten degrees; half of the bulk is negative.
        chance = 5 * np.sqrt(2 * 10) / 610
        assert spectrum.density_.cdf(0.9) == pytest.approx(600 / 610, abs=chance)
        assert spectrum.density_.cdf(0.0) == pytest.approx(300 / 610, abs=0.15)
    # Of unit variance, if the standard error is true to a quarter.
    assert np.abs(errors).max() < 4
    assert abs(np.mean(errors)) < 4 * 1.25 / np.sqrt(20)


def test_a_block_for_eigenvalues_that_are_apart_finds_the_same_ones():
    distinct = np.r_[np.linspace(-0.5, 0.5, 600), 1.0, 1.5, 2.0]

    def loss(theta):
        return (torch.as_tensor(distinct) * theta**2).sum() / 2

    one, two, three = (
        HessianSpectrum(loss, 3, block_size=b, tol=1e-8, random_state=0).fit(np.zeros((1, 603)))
        for b in (1, 2, 3)
    )
    for spectrum in (one, two, three):
        np.testing.assert_allclose(spectrum.eigenvalues_, [2.0, 1.5, 1.0], rtol=1e-10)
        # The first vector is the same one, and the trace is what it says.
        assert spectrum.trace_ == pytest.approx(one.trace_, rel=1e-7)


def test_a_block_larger_than_what_is_wanted_is_named():
    with pytest.raises(ValueError, match=r"block_size=11 must be in \[1, 10\].*n_components=10"):
        fitted(11, 0)
    with pytest.raises(ValueError, match="'block_size' parameter"):
        fitted(0, 0)


def test_n_components_that_are_cut_cut_the_block_too():
    spectrum = HessianSpectrum(quadratic, 10, block_size=10, random_state=0).fit(np.zeros((1, 5)))
    np.testing.assert_allclose(spectrum.eigenvalues_, TENFOLD[:5][::-1], rtol=1e-12)


def test_a_budget_without_room_for_the_block_is_named():
    size = 100_000
    least = 8 * (10 + 10) * size + 10**6
    spectrum = HessianSpectrum(lambda t: (t**2).sum(), 10, block_size=10, memory_budget=least)
    with pytest.raises(ValueError, match=r"block_size=10 must be in \[1, \d\]: memory_budget"):
        spectrum.fit(np.zeros((1, size)))
