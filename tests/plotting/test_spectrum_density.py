"""The density of a HessianSpectrum is drawn as it is held: sticks and a smooth rest."""

import itertools

import numpy as np
import pytest

from skdmap import HessianSpectrum
from skdmap.hessian._krylov.quadrature import Probe
from skdmap.hessian._krylov.spectral_density import spectral_density
from skdmap.plotting import SpectrumDisplay

SIZE = 300


def bowl(theta):
    import torch

    slopes = torch.linspace(-0.1, 0.2, len(theta), dtype=theta.dtype)
    slopes[:3] = torch.tensor([9.0, 5.0, 4.0])
    return (slopes * theta**2).sum() / 2


@pytest.fixture(scope="module")
def spectrum():
    return HessianSpectrum(bowl, 3, random_state=0).fit(np.zeros((1, SIZE)))


def test_sticks_are_the_converged_eigenvalues_and_the_line_is_the_rest(spectrum):
    display = SpectrumDisplay.from_estimator(spectrum, kind="density")
    sticks = sorted(segment[0, 0] for segment in display.sticks_.get_segments())
    np.testing.assert_allclose(sticks, [4, 5, 9], rtol=1e-4)
    x, y = display.line_.get_data()
    np.testing.assert_array_equal(y, spectrum.density_.evaluate(x, atoms=False))
    assert x.min() < -0.1
    assert x.max() > 9
    assert (display.ax_.get_xscale(), display.ax_.get_yscale()) == ("asinh", "log")


@pytest.mark.parametrize("xscale", ["asinh", "linear", "log"])
def test_the_area_under_the_line_is_what_the_sticks_leave(spectrum, xscale):
    display = SpectrumDisplay.from_estimator(
        spectrum, kind="density", xscale=xscale, yscale="linear", width=0.1
    )
    x, y = display.line_.get_data()
    area = np.sum((y[1:] + y[:-1]) / 2 * np.diff(x))
    density = spectrum.density_
    expected = 1 - 3 / SIZE
    if xscale == "log":  # what is below the least abscissa is not drawn
        fine = np.linspace(-2, x[0], 20_001)
        expected -= density.evaluate(fine, 0.1, atoms=False).sum() * (fine[1] - fine[0])
    assert area == pytest.approx(expected, rel=2e-3)
    assert display.ax_.get_xscale() == xscale


def test_a_width_is_handed_on(spectrum):
    display = SpectrumDisplay.from_estimator(spectrum, kind="density", width=0.3)
    x, y = display.line_.get_data()
    np.testing.assert_array_equal(y, spectrum.density_.evaluate(x, 0.3, atoms=False))


def test_a_spectrum_that_is_known_whole_is_sticks_only():
    whole = HessianSpectrum(bowl, 2).fit(np.zeros((1, 10)))
    display = SpectrumDisplay.from_estimator(whole, kind="density")
    assert display.line_ is None
    assert len(display.sticks_.get_segments()) == 10


@pytest.mark.parametrize("xscale", ["asinh", "linear", "log"])
def test_no_text_is_clipped(spectrum, xscale, no_clipped_text):
    display = SpectrumDisplay.from_estimator(spectrum, kind="density", xscale=xscale)
    no_clipped_text(display.figure_)


@pytest.mark.parametrize("bulk", [1.0, 1e-2, 1e-5])
def test_labels_near_zero_do_not_collide(bulk):
    density = spectral_density(
        np.array([9.0, 5.0, 4.0]),
        [Probe(bulk * np.linspace(-0.1, 0.2, 12), np.full(12, 1 / 12), 0.0, 0.0)],
        SIZE,
    )
    display = SpectrumDisplay([9.0, 5.0, 4.0], density=density).plot(kind="density")
    display.figure_.canvas.draw()
    left, right = display.ax_.get_xlim()
    ticks = zip(display.ax_.get_xticks(), display.ax_.get_xticklabels(), strict=True)
    boxes = [label.get_window_extent() for x, label in ticks if left <= x <= right]
    boxes = sorted((box.x0, box.x1) for box in boxes if box.x1 > box.x0)
    assert len(boxes) >= 3
    assert all(after[0] > before[1] for before, after in itertools.pairwise(boxes))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "histogram"}, "kind='histogram' must be 'eigenvalues' or 'density'"),
        ({"kind": "density", "xscale": "symlog"}, "xscale='symlog' must be"),
    ],
)
def test_bad_options_are_named(spectrum, options, message):
    with pytest.raises(ValueError, match=message):
        SpectrumDisplay.from_estimator(spectrum, **options)


def test_without_a_density_the_error_says_where_to_get_one():
    with pytest.raises(ValueError, match=r"needs a density.* Pass density_"):
        SpectrumDisplay([1.0, 2.0]).plot(kind="density")
