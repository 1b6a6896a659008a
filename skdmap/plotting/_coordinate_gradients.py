"""Display of the columns that move along a coordinate."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skdmap.plotting._axes import axes_and_figure, vector
from skdmap.plotting._result_display import ResultDisplay


class CoordinateGradientsDisplay(ResultDisplay):
    """Bars of the columns of the data that move most along one coordinate.

    Parameters
    ----------
    rms : array-like of shape (n_components, n_features)
        Root mean square slope of each coordinate along each column.
    names : sequence of str, default=None
        Names of the columns; None means ``x0``, ``x1``, ...

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the last plot.
    figure_ : matplotlib Figure
        Its figure.
    bars_ : BarContainer
        One bar for each column drawn, the largest at the top.

    See Also
    --------
    skdmap.diagnostics.coordinate_gradients : Computes the result.

    Examples
    --------
    >>> from skdmap.plotting import CoordinateGradientsDisplay
    >>> display = CoordinateGradientsDisplay([[0.1, 2.0, 0.5]], ["a", "b", "c"])
    >>> [label.get_text() for label in display.plot(n_columns=2).ax_.get_yticklabels()]
    ['b', 'c']
    """

    _function = "coordinate_gradients"

    def __init__(self, rms: ArrayLike, names: Sequence[str] | None = None) -> None:
        self.rms = rms
        self.names = names

    @staticmethod
    def _arguments(result: Any) -> dict[str, Any]:
        return {"rms": result.rms, "names": result.names}

    def plot(
        self, *, component: int = 0, n_columns: int = 10, ax: Any = None, **kwargs: Any
    ) -> Self:
        """Draw the bars of one coordinate.

        Parameters
        ----------
        component : int, default=0
            Coordinate to draw, counted from 0.
        n_columns : int, default=10
            Number of columns drawn, those with the largest slopes.
        ax : matplotlib Axes, default=None
            Axes to draw on; None creates a figure.
        **kwargs : dict
            Passed to ``Axes.barh``.

        Returns
        -------
        CoordinateGradientsDisplay
            The display itself, with ``figure_``, ``ax_`` and ``bars_``.

        Raises
        ------
        ValueError
            If ``rms`` is no matrix, ``names`` does not fit it, or ``component`` or ``n_columns`` is
            out of range.
        """
        rms = np.asarray(self.rms)
        if rms.ndim != 2:
            raise ValueError(
                f"rms has shape {rms.shape}; it must be (n_components, n_features). Pass rms of a "
                "CoordinateGradients."
            )
        if not 0 <= component < len(rms):
            raise ValueError(
                f"component={component!r} must be in [0, {len(rms) - 1}], a coordinate of rms."
            )
        if n_columns < 1:
            raise ValueError(f"n_columns={n_columns!r} must be at least 1.")
        given = [f"x{j}" for j in range(rms.shape[1])] if self.names is None else self.names
        names = vector(given, "names", rms.shape[1])
        order = np.argsort(-rms[component], kind="stable")[:n_columns]
        self.ax_, self.figure_ = axes_and_figure(ax)
        places = np.arange(len(order))
        self.bars_ = self.ax_.barh(places, rms[component, order], **kwargs)
        self.ax_.set_yticks(places, [str(names[j]) for j in order])
        self.ax_.invert_yaxis()
        self.ax_.set_xlabel("root mean square slope, per unit of the column")
        self.ax_.set_title(f"{names[order[0]]} moves most along coordinate {component}")
        return self
