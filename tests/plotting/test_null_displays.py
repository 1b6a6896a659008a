"""Null envelopes, tests and local dimensions: what is drawn is what the records hold."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from skdmap._sklearn_compat import InvalidParameterError
from skdmap.diagnostics import (
    dimension_test,
    effective_dimension,
    local_dimension,
    null_envelope,
    random_walk,
)
from skdmap.plotting import (
    DimensionTestDisplay,
    EffectiveDimensionDisplay,
    LocalDimensionDisplay,
    NullEnvelopeDisplay,
)


@pytest.fixture(scope="module")
def walks():
    return np.concatenate([random_walk(40, 50, random_state=seed) for seed in (0, 1)])


RUNS = np.repeat([3, 8], 40)


def band_of(collection):
    vertices = collection.get_paths()[0].vertices
    return vertices[:, 0], vertices[:, 1]


def test_the_envelope_is_the_band_and_the_trajectory_the_line(walks, no_clipped_text):
    result = null_envelope(walks, run_ids=RUNS, n_values=6, n_surrogates=9, random_state=0)
    display = NullEnvelopeDisplay.from_result(result)
    np.testing.assert_array_equal(display.line_.get_ydata(), result.values)
    np.testing.assert_array_equal(display.median_.get_ydata(), result.median)
    x, y = band_of(display.band_)
    for index in range(6):
        at = y[x == index]
        assert at.min() == result.lower[index]
        assert at.max() == result.upper[index]
    assert display.ax_.get_ylabel() == "eigenvalue of the Markov operator"
    words = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert words == ["95 % of 9 surrogates (ar1)", "their median", "trajectory"]
    no_clipped_text(display.figure_)


def test_the_histogram_counts_the_surrogates_and_the_line_is_the_statistic(walks, no_clipped_text):
    result = dimension_test(walks, run_ids=RUNS, null="ar1", n_surrogates=19, random_state=0)
    display = DimensionTestDisplay.from_result(result)
    assert sum(bar.get_height() for bar in display.bars_) == 19
    assert display.line_.get_xdata() == [result.statistic, result.statistic]
    assert f"p = {result.p_value:.3g}" in display.line_.get_label()
    no_clipped_text(display.figure_)


def test_the_display_draws_dimension_interval_and_runs(no_clipped_text):
    rows = np.concatenate([random_walk(80, 10, random_state=seed) for seed in (0, 1)])
    found = effective_dimension(rows, run_ids=np.repeat([0, 1], 80))
    display = EffectiveDimensionDisplay.from_result(found)
    np.testing.assert_array_equal(display.line_.get_ydata(), found.dimension)
    for line, run in zip(display.run_lines_, found.per_run, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), run)
    vertices = display.band_.get_paths()[0].vertices
    assert vertices[:, 1].max() == found.upper.max()
    assert vertices[:, 1].min() == found.lower.min()
    no_clipped_text(display.figure_)
    open_ended = EffectiveDimensionDisplay([1, 2], [5.0, np.inf], [4.0, 6.0], [6.0, np.inf]).plot()
    assert open_ended.band_.get_paths()[0].vertices[:, 1].max() == 60


def test_bars_far_from_the_trajectory_can_still_be_seen():
    drawn = np.linspace(1e-4, 2e-4, 99)
    display = DimensionTestDisplay(1.0, drawn, 0.01).plot()
    display.figure_.canvas.draw()
    image = np.asarray(display.figure_.canvas.buffer_rgba())[..., :3] / 255
    gray = np.abs(image - to_rgb("0.45")).max(axis=-1) < 0.15
    left, bottom, right, top = display.ax_.bbox.extents.astype(int)
    inside = gray[::-1][bottom + 5 : (bottom + top) // 2, left + 3 : right - 3]
    assert inside.any(axis=1).mean() > 0.9


def test_each_run_has_a_line_a_band_and_a_shape(walks, no_clipped_text):
    result = local_dimension(walks, run_ids=RUNS, window=20, n_surrogates=5, random_state=0)
    display = LocalDimensionDisplay.from_result(result)
    assert [line.get_label() for line in display.lines_] == ["run 3", "run 8"]
    assert len({line.get_marker() for line in display.lines_}) == 2
    for run, line, band in zip((3, 8), display.lines_, display.bands_, strict=True):
        rows = result.run_ids == run
        np.testing.assert_array_equal(line.get_xdata(), result.centers[rows])
        np.testing.assert_array_equal(line.get_ydata(), result.dimension[rows])
        assert band_of(band)[1].min() == result.lower[rows].min()
        assert band_of(band)[1].max() == result.upper[rows].max()
    no_clipped_text(display.figure_)


def test_they_draw_on_axes_given():
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    for display in (
        NullEnvelopeDisplay([1.0], [0.0], [0.5], [0.9]),
        DimensionTestDisplay(1.0, [0.5, 0.6], 1 / 3),
        LocalDimensionDisplay([1.0], [1.0], [0.9], [1.2]),
    ):
        assert display.plot(ax=ax).ax_ is ax


@pytest.mark.parametrize(
    ("display", "function"),
    [
        (NullEnvelopeDisplay, "null_envelope"),
        (DimensionTestDisplay, "dimension_test"),
        (EffectiveDimensionDisplay, "effective_dimension"),
        (LocalDimensionDisplay, "local_dimension"),
    ],
)
def test_something_else_is_an_error_that_says_what_to_pass(display, function):
    with pytest.raises(
        InvalidParameterError, match=f"must be the result of skdmap.diagnostics.{function}"
    ):
        display.from_result(SimpleNamespace(values=1))


def test_arrays_of_other_lengths_are_named():
    with pytest.raises(ValueError, match=r"upper has shape \(2,\); it must be \(1,\)"):
        NullEnvelopeDisplay([1.0], [0.0], [0.5], [0.9, 1.0]).plot()
    with pytest.raises(ValueError, match=r"dimension has shape"):
        LocalDimensionDisplay([1.0], [1.0, 2.0], [0.9], [1.2]).plot()
