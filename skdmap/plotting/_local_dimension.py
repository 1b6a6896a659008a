"""Display of the local dimension of a trajectory and its null model."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skdmap.plotting._axes import axes_and_figure, vector
from skdmap.plotting._result_display import ResultDisplay

# Shapes distinguish runs where colours do not.
_MARKERS = "o^sDvPX*<>"


class LocalDimensionDisplay(ResultDisplay):
    """Dimension of a trajectory against the training step, with the range of null models.

    Parameters
    ----------
    centers : array-like of shape (n_windows,)
        Middle of each window, in steps.
    dimension : array-like of shape (n_windows,)
        Dimension of the trajectory.
    lower, upper : array-like of shape (n_windows,)
        The 2.5 % and 97.5 % quantiles over the surrogates of each window.
    run_ids : array-like of shape (n_windows,), default=None
        The run of each window, drawn as one line per run; None means one run.
    null_label : str, default="surrogates"
        Legend entry of the surrogates.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the last plot.
    figure_ : matplotlib Figure
        Its figure.
    lines_ : list of Line2D
        One for each run.
    bands_ : list of PolyCollection
        One for each run.

    See Also
    --------
    skdmap.diagnostics.local_dimension : Computes the result.

    Examples
    --------
    >>> from skdmap.plotting import LocalDimensionDisplay
    >>> display = LocalDimensionDisplay([50, 100], [1.2, 1.4], [1.7, 1.7], [2.0, 2.0]).plot()
    >>> len(display.lines_)
    1
    """

    _function = "local_dimension"

    def __init__(
        self,
        centers: ArrayLike,
        dimension: ArrayLike,
        lower: ArrayLike,
        upper: ArrayLike,
        *,
        run_ids: ArrayLike | None = None,
        null_label: str = "surrogates",
    ) -> None:
        self.centers = centers
        self.dimension = dimension
        self.lower = lower
        self.upper = upper
        self.run_ids = run_ids
        self.null_label = null_label

    @staticmethod
    def _arguments(result: Any) -> dict[str, Any]:
        return {
            "centers": result.centers,
            "dimension": result.dimension,
            "lower": result.lower,
            "upper": result.upper,
            "run_ids": result.run_ids,
            "null_label": f"{result.n_surrogates} surrogates ({result.null})",
        }

    def plot(self, *, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the lines and their bands.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None creates a figure.
        **kwargs : dict
            Passed to ``Axes.plot`` for the lines of the trajectory.

        Returns
        -------
        LocalDimensionDisplay
            The display itself, with ``figure_``, ``ax_``, ``lines_`` and ``bands_``.

        Raises
        ------
        ValueError
            If the arrays differ in length.
        """
        centers = vector(self.centers, "centers")
        dimension, lower, upper = (
            vector(getattr(self, name), name, len(centers))
            for name in ("dimension", "lower", "upper")
        )
        runs = np.zeros(len(centers), dtype=int)
        if self.run_ids is not None:
            runs = vector(self.run_ids, "run_ids", len(centers))
        labels, first = np.unique(runs, return_index=True)
        labels = labels[np.argsort(first)]
        self.ax_, self.figure_ = axes_and_figure(ax)
        self.lines_, self.bands_ = [], []
        for number, run in enumerate(labels):
            rows, color = runs == run, f"C{number % 10}"
            band = self.ax_.fill_between(
                centers[rows], lower[rows], upper[rows], color=color, alpha=0.2, linewidth=0
            )
            name = "trajectory" if len(labels) == 1 else f"run {run}"
            style = {
                "marker": _MARKERS[number % 10],
                "markersize": 4,
                "color": color,
                "label": name,
            } | kwargs
            self.lines_ += self.ax_.plot(centers[rows], dimension[rows], **style)
            self.bands_.append(band)
        self.bands_[0].set_label(f"95 % of {self.null_label}")
        self.ax_.set_xlabel("training step, middle of the window")
        self.ax_.set_ylabel("slope dimension")
        # Room for the legend above the bands.
        self.ax_.margins(y=0.05 + 0.1 * (1 + (len(labels) + 1) // 3))
        self.ax_.legend(loc="upper center", ncols=3, framealpha=0.9, fontsize="small")
        return self
