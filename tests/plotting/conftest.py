import pytest


@pytest.fixture(autouse=True)
def close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture
def no_clipped_text():
    """Return a check that every text of a figure lies on its canvas."""

    def check(figure):
        figure.canvas.draw()
        renderer, canvas = figure.canvas.get_renderer(), figure.bbox
        texts = [text for text in figure.findobj(match=_is_text) if text.get_text().strip()]
        drawn = [text for text in texts if text.get_visible()]
        assert drawn
        for text in drawn:
            box = text.get_window_extent(renderer)
            inside = box.x0 >= -1 and box.y0 >= -1
            inside &= box.x1 <= canvas.x1 + 1 and box.y1 <= canvas.y1 + 1
            assert inside, f"{text.get_text()!r} runs off the canvas"

    return check


def _is_text(artist):
    from matplotlib.text import Text

    # Tick labels outside the view limits are made, but not drawn.
    return isinstance(artist, Text) and artist.axes is not None
