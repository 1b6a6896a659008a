"""The figure style: its colours can be told apart by every kind of colour vision."""

import itertools

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from skdmap.plotting import EmbeddingDisplay

# Machado, Oliveira and Fernandes 2009, doi:10.1109/TVCG.2009.113, severity 1; on linear RGB.
VISION = {
    "full": np.eye(3),
    "without red cones": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "without green cones": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "without blue cones": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
RGB_TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)


def lab(colors, vision):
    """CIELAB coordinates of colours as somebody sees them."""
    rgb = np.array([to_rgb(color) for color in colors])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(vision), 0, 1)
    xyz = seen @ RGB_TO_XYZ.T / (RGB_TO_XYZ.sum(axis=1))
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.column_stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])]
    )


def least_difference(colors):
    """The least distance of two colours over all kinds of vision; 2.3 is just noticeable."""
    return min(
        np.linalg.norm(a - b)
        for vision in VISION.values()
        for a, b in itertools.combinations(lab(colors, vision), 2)
    )


def test_all_colours_of_the_cycle_differ_for_everyone():
    with plt.style.context("skdmap.plotting.style"):
        colors = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    assert least_difference(colors) > 10
    assert least_difference(matplotlib.rcParamsDefault["axes.prop_cycle"].by_key()["color"]) < 5


@pytest.mark.parametrize("style", ["default", "skdmap.plotting.style", "grayscale"])
def test_groups_differ_in_colour_or_shape_in_every_style(style):
    rng = np.random.default_rng(0)
    with plt.style.context(style):
        groups = np.arange(60) % 12
        display = EmbeddingDisplay(rng.normal(size=(60, 2))).plot(hue=groups)
    looks = [
        (tuple(dots.get_facecolor()[0]), dots.get_paths()[0].vertices.tobytes())
        for dots in display.scatter_
    ]
    assert len(set(looks)) == 12
    plt.close("all")
