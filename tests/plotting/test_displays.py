"""What is drawn is what the estimator holds."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdmap.plotting import (
    BandwidthDisplay,
    EigenvalueDisplay,
    EmbeddingDisplay,
    SpectrumDisplay,
)


class Fitted(BaseEstimator):
    """Holds the attributes that it is given, as a fitted estimator does."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)

    def fit(self, X, y=None):
        return self

    def __sklearn_tags__(self):
        return super().__sklearn_tags__()


@pytest.fixture
def diffusion_map():
    rng = np.random.default_rng(0)
    grid = np.geomspace(0.01, 10, 40)
    return Fitted(
        embedding_=rng.standard_normal((60, 4)).astype(np.float32),
        eigenvalues_=np.array([0.95, 0.8, 0.4, 0.1]),
        stationary_distribution_=np.full(60, 1 / 60),
        bandwidth_=0.3,
        bandwidth_curve_=SimpleNamespace(
            bandwidths=grid, log_kernel_sum=np.log1p(grid), slope=1 / (1 + grid)
        ),
    )


@pytest.fixture
def spectrum():
    return Fitted(
        eigenvalues_=np.array([9.0, 3.0, -1.0]),
        residuals_=np.array([0.1, 0.2, 0.3]),
        point_=np.zeros(5),
    )


def test_embedding_draws_the_two_components_asked_for(diffusion_map):
    display = EmbeddingDisplay.from_estimator(diffusion_map, components=(2, 0))
    (scatter,) = display.scatter_
    np.testing.assert_array_equal(
        np.asarray(scatter.get_offsets()), diffusion_map.embedding_[:, [2, 0]]
    )
    assert display.ax_.get_xlabel().startswith("diffusion coordinate 2")
    assert "0.95" in display.ax_.get_ylabel()
    assert display.figure_ is display.ax_.figure


def test_embedding_colors_are_the_numbers_given(diffusion_map):
    c = np.arange(60) ** 2
    display = EmbeddingDisplay.from_estimator(diffusion_map, c=c, c_label="step")
    np.testing.assert_array_equal(display.scatter_[0].get_array(), c)
    assert display.figure_.axes[1].get_ylabel() == "step"


def test_groups_share_one_color_scale_and_keep_their_rows(diffusion_map):
    c, hue = np.arange(60.0), np.repeat(["SGD", "Adam", "SGD"], 20)
    display = EmbeddingDisplay.from_estimator(diffusion_map, c=c, hue=hue)
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["SGD", "Adam"]
    for scatter, group in zip(display.scatter_, ["SGD", "Adam"], strict=True):
        assert scatter.get_clim() == (0.0, 59.0)
        np.testing.assert_array_equal(scatter.get_array(), c[hue == group])
        np.testing.assert_array_equal(
            np.asarray(scatter.get_offsets()), diffusion_map.embedding_[hue == group, :2]
        )


def test_groups_without_numbers_have_colors_of_their_own(diffusion_map):
    hue = np.arange(60) % 3
    display = EmbeddingDisplay.from_estimator(diffusion_map, hue=hue)
    colors = {tuple(scatter.get_facecolor()[0]) for scatter in display.scatter_}
    assert len(colors) == 3


def test_twenty_groups_can_be_told_apart(diffusion_map):
    display = EmbeddingDisplay.from_estimator(diffusion_map, hue=np.arange(60) % 20)
    looks = {
        (tuple(scatter.get_facecolor()[0]), scatter.get_paths()[0].vertices.tobytes())
        for scatter in display.scatter_
    }
    assert len(looks) == 20
    display.figure_.canvas.draw()
    legend = display.ax_.get_legend().get_window_extent()
    assert display.ax_.bbox.y0 <= legend.y0 < legend.y1 <= display.ax_.bbox.y1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"components": (0, 4)}, r"components=\(0, 4\).*\[0, 3\]"),
        ({"components": (-1, 0)}, r"components=\(-1, 0\)"),
        ({"components": (0, 1, 2)}, "must be 2 column indices"),
        ({"c": np.arange(59)}, r"c has shape \(59,\); it must be \(60,\)"),
        ({"c": ["a"] * 60}, "c has dtype.*hue"),
        ({"hue": np.zeros((60, 1))}, r"hue has shape \(60, 1\)"),
        (
            {"c": np.arange(60), "hue": np.arange(60)},
            "60 groups.*at most 10",
        ),
        ({"hue": np.arange(60)}, "hue has 60 groups; it must have at most 20.*Pass numbers as c"),
        ({"hue": np.arange(60) % 21}, "hue has 21 groups; it must have at most 20"),
    ],
)
def test_bad_input_of_the_embedding_is_named(diffusion_map, options, message):
    with pytest.raises(ValueError, match=message):
        EmbeddingDisplay.from_estimator(diffusion_map, **options)


def test_eigenvalues_have_the_index_of_their_coordinate_the_trivial_one_none(
    diffusion_map,
):
    display = EigenvalueDisplay.from_estimator(diffusion_map)
    np.testing.assert_array_equal(display.line_.get_xdata(), [0, 1, 2, 3])
    np.testing.assert_array_equal(display.line_.get_ydata(), diffusion_map.eigenvalues_)
    assert (display.trivial_.get_xdata()[0], display.trivial_.get_ydata()[0]) == (-1, 1.0)
    assert display.trivial_.get_markerfacecolor() == "none"
    assert "left out" in display.ax_.texts[0].get_text()


def test_spectrum_bars_are_the_residuals(spectrum):
    display = SpectrumDisplay.from_estimator(spectrum)
    marks, _, (bars,) = display.errorbar_
    np.testing.assert_array_equal(marks.get_ydata(), spectrum.eigenvalues_)
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends[:, 0], spectrum.eigenvalues_ - spectrum.residuals_)
    np.testing.assert_allclose(ends[:, 1], spectrum.eigenvalues_ + spectrum.residuals_)


def test_spectrum_takes_a_scale(spectrum):
    assert SpectrumDisplay.from_estimator(spectrum, yscale="asinh").ax_.get_yscale() == "asinh"


def test_bandwidth_draws_the_curve_and_the_length_taken(diffusion_map):
    display = BandwidthDisplay.from_estimator(diffusion_map)
    curve = diffusion_map.bandwidth_curve_
    slope, mark = display.ax_.get_lines()
    np.testing.assert_array_equal(slope.get_xydata(), np.c_[curve.bandwidths, curve.slope])
    (log_sum,) = display.sum_ax_.get_lines()
    np.testing.assert_array_equal(
        log_sum.get_xydata(), np.c_[curve.bandwidths, curve.log_kernel_sum]
    )
    np.testing.assert_array_equal(mark.get_xdata(), [0.3, 0.3])
    assert "0.3" in display.ax_.get_legend().get_texts()[0].get_text()


def test_bandwidths_of_the_rows_are_drawn_as_a_band(diffusion_map):
    diffusion_map.bandwidth_ = np.linspace(0.2, 0.5, 60)
    display = BandwidthDisplay.from_estimator(diffusion_map)
    (band,) = display.ax_.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((0.2, 0.5))


def test_bandwidth_arrays_must_be_of_one_length():
    with pytest.raises(ValueError, match=r"slope has shape \(2,\); it must be \(3,\)"):
        BandwidthDisplay([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0]).plot()


DISPLAYS = [EmbeddingDisplay, EigenvalueDisplay, BandwidthDisplay, SpectrumDisplay]


@pytest.mark.parametrize("display", DISPLAYS)
def test_axes_given_are_drawn_on(display, diffusion_map, spectrum):
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    estimator = spectrum if display is SpectrumDisplay else diffusion_map
    drawn = display.from_estimator(estimator, ax=ax)
    assert drawn.ax_ is ax
    assert drawn.figure_ is figure


@pytest.mark.parametrize("display", DISPLAYS)
def test_an_estimator_that_is_not_fitted_is_an_error(display):
    with pytest.raises(NotFittedError):
        display.from_estimator(Fitted())


def scaled(*steps):
    return make_pipeline(StandardScaler(), *steps).fit(np.eye(3))


@pytest.mark.parametrize("display", DISPLAYS)
def test_a_fitted_estimator_of_another_kind_is_not_called_unfitted(display):
    kind = "HessianSpectrum" if display is SpectrumDisplay else "DiffusionMap"
    with pytest.raises(TypeError, match=f"StandardScaler has no .* must be a fitted {kind}"):
        display.from_estimator(StandardScaler().fit(np.eye(3)))
    with pytest.raises(ValueError, match=f"No step of this pipeline is a {kind}"):
        display.from_estimator(scaled())


@pytest.mark.parametrize("display", DISPLAYS)
def test_a_pipeline_is_told_which_step_to_pass(display, diffusion_map, spectrum):
    drawn = spectrum if display is SpectrumDisplay else diffusion_map
    drawn.transform = lambda X: X
    with pytest.raises(ValueError, match=r"Pipeline has no .* Pass pipeline\[-1\]"):
        display.from_estimator(scaled(drawn))
    with pytest.raises(ValueError, match=r"Pass pipeline\['fitted'\]"):
        display.from_estimator(scaled(drawn, StandardScaler()))
    search = Fitted(best_estimator_=drawn)
    with pytest.raises(ValueError, match=r"Pass search\.best_estimator_"):
        display.from_estimator(search)


def test_each_kind_of_eigenvalues_has_its_own_display(diffusion_map, spectrum):
    with pytest.raises(ValueError, match="Use SpectrumDisplay for a HessianSpectrum"):
        EigenvalueDisplay.from_estimator(spectrum)
    diffusion_map.residuals_ = np.zeros(4)
    with pytest.raises(ValueError, match=r"Use EigenvalueDisplay, .* for a DiffusionMap"):
        SpectrumDisplay.from_estimator(diffusion_map)
    kernel_pca = Fitted(eigenvalues_=np.ones(2))
    with pytest.raises(ValueError, match="Fit a DiffusionMap and pass it"):
        EigenvalueDisplay.from_estimator(kernel_pca)


@pytest.mark.parametrize("display", DISPLAYS)
def test_without_matplotlib_the_error_names_the_remedy(
    display, diffusion_map, spectrum, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    estimator = spectrum if display is SpectrumDisplay else diffusion_map
    with pytest.raises(ImportError, match=r'pip install "skdmap\[plot\]"'):
        display.from_estimator(estimator)


@pytest.mark.parametrize("display", DISPLAYS)
def test_no_text_is_clipped(display, diffusion_map, spectrum, no_clipped_text):
    estimator = spectrum if display is SpectrumDisplay else diffusion_map
    options = {}
    if display is EmbeddingDisplay:
        options = {"c": np.arange(60.0), "c_label": "step", "hue": np.arange(60) % 2}
    drawn = display.from_estimator(estimator, **options)
    drawn.ax_.set_title("A title")
    no_clipped_text(drawn.figure_)


@pytest.mark.parametrize("bandwidth", ["auto", 1.5])
def test_the_curve_of_a_fitted_diffusion_map_can_be_drawn(bandwidth):
    from skdmap import DiffusionMap

    rows = np.random.default_rng(0).standard_normal((150, 2))
    model = DiffusionMap(n_components=2, bandwidth=bandwidth).fit(rows)
    display = BandwidthDisplay.from_estimator(model)
    slope = display.ax_.get_lines()[0]
    np.testing.assert_array_equal(slope.get_xdata(), model.bandwidth_curve_.bandwidths)


def test_a_map_without_a_curve_is_told_which_has_one():
    from skdmap import DiffusionMap

    rows = np.random.default_rng(0).standard_normal((150, 2))
    model = DiffusionMap(n_components=2, bandwidth="local").fit(rows)
    model.bandwidth_curve_ = None
    with pytest.raises(ValueError, match=r"bandwidth='local'.*DiffusionMap\(bandwidth='auto'\)"):
        BandwidthDisplay.from_estimator(model)


@pytest.mark.parametrize("bandwidth", ["auto", 1.5, "local"])
def test_a_fitted_diffusion_map_can_be_drawn(bandwidth):
    from skdmap import DiffusionMap

    rows = np.random.default_rng(0).standard_normal((150, 2))
    model = DiffusionMap(n_components=2, bandwidth=bandwidth).fit(rows)
    assert len(EmbeddingDisplay.from_estimator(model).scatter_[0].get_offsets()) == 150
    np.testing.assert_array_equal(
        EigenvalueDisplay.from_estimator(model).line_.get_ydata(), model.eigenvalues_
    )


def test_a_fitted_hessian_spectrum_can_be_drawn():
    from skdmap import HessianSpectrum

    # H = diag(1, 2, 3) everywhere.
    model = HessianSpectrum(_bowl, n_components=3).fit(np.ones((1, 3)))
    marks, _, _ = SpectrumDisplay.from_estimator(model).errorbar_
    np.testing.assert_allclose(marks.get_ydata(), [3.0, 2.0, 1.0])


def _bowl(theta):
    return sum(0.5 * (i + 1) * theta[i] ** 2 for i in range(3))
