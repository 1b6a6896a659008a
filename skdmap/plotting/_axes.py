"""The one place where matplotlib is imported and axes are made or taken over."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["axes_and_figure", "vector"]


def axes_and_figure(ax: Any = None) -> tuple[Any, Any]:
    """Return the axes to draw on and their figure; new ones leave room for every label.

    Parameters
    ----------
    ax : matplotlib Axes or None, default=None
        None makes a new figure.

    Returns
    -------
    tuple of Axes and Figure
        The axes given, or new ones.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "skdmap.plotting needs matplotlib, which is not installed. "
            'Install it with: pip install "skdmap[plot]"'
        ) from error
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
    return ax, ax.figure


def vector(values: ArrayLike, name: str, length: int | None = None) -> np.ndarray:
    """Return values as a one-dimensional array, or say which argument is not one.

    Parameters
    ----------
    values : array-like of shape (length,)
        Numbers or labels.
    name : str
        The argument's name, for the message.
    length : int or None, default=None
        The length that is wanted; None takes any.

    Returns
    -------
    ndarray of shape (length,)
        The same values.

    Raises
    ------
    ValueError
        If the shape is another.
    """
    array = np.asarray(values)
    if array.ndim != 1 or (length is not None and len(array) != length):
        wanted = "(n,)" if length is None else f"({length},)"
        raise ValueError(
            f"{name} has shape {array.shape}; it must be {wanted}. Pass one value per row drawn."
        )
    return array
