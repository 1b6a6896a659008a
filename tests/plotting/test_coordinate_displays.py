"""Displays of what coordinates are: what is drawn is what the records hold."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from skdmap import DiffusionMap
from skdmap._sklearn_compat import InvalidParameterError
from skdmap.diagnostics import align_embeddings, coordinate_gradients, coordinate_summary
from skdmap.plotting import (
    AlignmentDisplay,
    CoordinateGradientsDisplay,
    CoordinateSummaryDisplay,
)


@pytest.fixture(scope="module")
def strip():
    return np.random.default_rng(0).random((300, 2)) * [2.5, 1.0]


@pytest.fixture(scope="module")
def mapping(strip):
    return DiffusionMap(4, bandwidth="auto").fit(strip)


def bar_is(bar, color):
    return bar.get_facecolor()[:3] == to_rgb(color)


def test_bars_are_the_unexplained_shares_and_colours_say_what_is_suggested(
    mapping, no_clipped_text
):
    result = coordinate_summary(mapping)
    display = CoordinateSummaryDisplay.from_result(result)
    assert [bar.get_width() for bar in display.bars_] == result.unexplained.tolist()
    kept = [k for k in range(4) if bar_is(display.bars_[k], "C0")]
    assert kept == result.suggested.tolist()
    assert [text.get_text() for text in display.ax_.texts] == list(result.words)
    assert display.ax_.get_title() == f"{result.n_suggested} of 4 coordinates are suggested"
    grouped = CoordinateSummaryDisplay.from_result(replace(result, n_groups=3)).plot()
    assert grouped.ax_.get_title().endswith("; 3 groups stand apart")
    no_clipped_text(display.figure_)


def test_the_columns_with_the_largest_slopes_come_first(mapping, strip, no_clipped_text):
    result = coordinate_gradients(mapping, strip, columns=["length", "width"])
    display = CoordinateGradientsDisplay.from_result(result)
    assert [text.get_text() for text in display.ax_.get_yticklabels()] == ["length", "width"]
    assert [bar.get_width() for bar in display.bars_] == sorted(result.rms[0], reverse=True)
    one = CoordinateGradientsDisplay.from_result(result, component=2, n_columns=1)
    assert one.bars_[0].get_width() == result.rms[2].max()
    no_clipped_text(display.figure_)
    for wrong in ({"component": 4}, {"n_columns": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            display.plot(**wrong)


def test_both_maps_are_drawn_before_and_after(mapping, no_clipped_text):
    reference = mapping.embedding_[:, :2]
    turned = reference @ [[0.0, 1.0], [-1.0, 0.0]]
    result = align_embeddings(reference, turned)
    display = AlignmentDisplay.from_result(result, reference, turned)
    for ax, moved in zip(display.axes_, (turned, result.aligned), strict=True):
        drawn = [np.asarray(points.get_offsets()) for points in ax.collections]
        np.testing.assert_array_equal(drawn[0], reference)
        np.testing.assert_array_equal(drawn[1], moved)
    no_clipped_text(display.figure_)
    with pytest.raises(ValueError, match="embedding has shape"):
        AlignmentDisplay.from_result(result, reference, turned[1:])


def test_other_objects_are_refused(mapping):
    for display in (CoordinateSummaryDisplay, CoordinateGradientsDisplay):
        with pytest.raises(InvalidParameterError, match="result=DiffusionMap"):
            display.from_result(mapping)
    with pytest.raises(InvalidParameterError, match="result=DiffusionMap"):
        AlignmentDisplay.from_result(mapping, np.eye(2), np.eye(2))
