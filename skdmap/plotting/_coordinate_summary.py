"""Display of what each coordinate of a diffusion map is."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skdmap.plotting._axes import axes_and_figure, vector
from skdmap.plotting._result_display import ResultDisplay


class CoordinateSummaryDisplay(ResultDisplay):
    """Bars of the share of each coordinate that the others before it leave unexplained.

    Parameters
    ----------
    unexplained : array-like of shape (n_components,)
        Unexplained share of each coordinate, in [0, 1].
    words : sequence of str
        A word for each coordinate, written on its bar.
    suggested : array-like of int
        Coordinates to keep, drawn in the first colour.
    threshold : float
        Share above which a coordinate is a new direction, drawn as a line.
    n_groups : int, default=1
        Number of groups of samples that stand apart, for the title. The coordinates that tell them
        apart are suggested whatever their shares.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the last plot.
    figure_ : matplotlib Figure
        Its figure.
    bars_ : BarContainer
        One bar for each coordinate, the first at the top.

    See Also
    --------
    skdmap.diagnostics.coordinate_summary : Computes the result.

    Examples
    --------
    >>> from skdmap.plotting import CoordinateSummaryDisplay
    >>> words = ["new direction", "function of 0"]
    >>> display = CoordinateSummaryDisplay([1.0, 0.05], words, [0], 0.35).plot()
    >>> len(display.bars_)
    2
    """

    _function = "coordinate_summary"

    def __init__(
        self,
        unexplained: ArrayLike,
        words: Any,
        suggested: ArrayLike,
        threshold: float,
        n_groups: int = 1,
    ) -> None:
        self.unexplained = unexplained
        self.words = words
        self.suggested = suggested
        self.threshold = threshold
        self.n_groups = n_groups

    @staticmethod
    def _arguments(result: Any) -> dict[str, Any]:
        return {
            "unexplained": result.unexplained,
            "words": result.words,
            "suggested": result.suggested,
            "threshold": result.threshold,
            "n_groups": result.n_groups,
        }

    def plot(self, *, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the bars.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None creates a figure.
        **kwargs : dict
            Passed to ``Axes.barh``.

        Returns
        -------
        CoordinateSummaryDisplay
            The display itself, with ``figure_``, ``ax_`` and ``bars_``.

        Raises
        ------
        ValueError
            If ``unexplained`` and ``words`` differ in length.
        """
        shares = vector(self.unexplained, "unexplained")
        words = vector(self.words, "words", len(shares))
        places = np.arange(len(shares))
        is_kept = np.isin(places, np.asarray(self.suggested))
        self.ax_, self.figure_ = axes_and_figure(ax)
        style = {"color": np.where(is_kept, "C0", "0.75")} | kwargs
        self.bars_ = self.ax_.barh(places, shares, **style)
        for place, share, word in zip(places, shares, words, strict=True):
            # Beside a short bar, inside a long one.
            is_inside = share > 0.5
            self.ax_.annotate(
                str(word),
                (share, place),
                xytext=(-5 if is_inside else 5, 0),
                textcoords="offset points",
                ha="right" if is_inside else "left",
                va="center",
                color="white" if is_inside and is_kept[place] else "black",
                fontsize="small",
                # The line of the threshold does not cross the words.
                bbox=None if is_inside else {"facecolor": "white", "linewidth": 0, "pad": 0.5},
            )
        self.ax_.axvline(self.threshold, color="0.4", linestyle="--", linewidth=1, zorder=0)
        self.ax_.set_xlim(0, 1.02)
        self.ax_.set_yticks(places)
        self.ax_.invert_yaxis()
        self.ax_.set_xlabel("unexplained by the coordinates before")
        self.ax_.set_ylabel("coordinate")
        title = f"{int(is_kept.sum())} of {len(shares)} coordinates are suggested"
        if self.n_groups > 1:
            title += f"; {self.n_groups} groups stand apart"
        self.ax_.set_title(title)
        return self
