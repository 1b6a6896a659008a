"""The one place where matplotlib is imported and axes are created."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def axes_and_figure(ax: Any = None) -> tuple[Any, Any]:
    """Return the given axes, or new ones with room for every label, and their figure."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "skdmap.plotting needs matplotlib, which is not installed. "
            'Install it with pip install "skdmap[plot]".'
        ) from error
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
    return ax, ax.figure


def n_cycle_colors() -> int:
    """Return after how many lines or groups matplotlib's colours repeat."""
    from matplotlib import rcParams

    return len(rcParams["axes.prop_cycle"])


def vector(values: ArrayLike, name: str, length: int | None = None) -> np.ndarray:
    """Return values as a one-dimensional array (length,); an error names the argument."""
    array = np.asarray(values)
    if array.ndim != 1 or (length is not None and len(array) != length):
        wanted = "(n,)" if length is None else f"({length},)"
        raise ValueError(
            f"{name} has shape {array.shape}; it must be {wanted}. Pass one value per point drawn."
        )
    return array


def check_components(
    components: Sequence[int], shape: tuple[int, ...], allowed: tuple[int, ...]
) -> None:
    """Raise unless ``components`` are columns of coordinates of this shape, ``allowed`` many."""
    if len(shape) != 2:
        raise ValueError(
            f"coordinates has shape {shape}; it must be (n_samples, n_components). Pass "
            "coordinates[:, None] for a single coordinate."
        )
    if len(components) not in allowed or not all(0 <= c < shape[1] for c in components):
        raise ValueError(
            f"components={components!r} must be {' or '.join(map(str, allowed))} column indices in "
            f"[0, {shape[1] - 1}]. Pass such indices, or fit with a larger n_components."
        )
