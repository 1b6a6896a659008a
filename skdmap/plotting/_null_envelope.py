"""Display of leading eigenvalues and the envelope of their null model."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skdmap.plotting._axes import axes_and_figure, vector
from skdmap.plotting._result_display import ResultDisplay

_LABELS = {
    "diffusion": "eigenvalue of the Markov operator",
    "principal": "share of variance of the component",
}


class NullEnvelopeDisplay(ResultDisplay):
    """Leading eigenvalues of a trajectory, with their range over null models.

    Parameters
    ----------
    values : array-like of shape (n_values,)
        Values of the trajectory, descending.
    lower, median, upper : array-like of shape (n_values,)
        The 2.5 %, 50 % and 97.5 % quantiles over the surrogates.
    y_label : str, default="eigenvalue"
        Label of the vertical axis.
    null_label : str, default="surrogates"
        Legend entry of the surrogates.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the last plot.
    figure_ : matplotlib Figure
        Its figure.
    line_ : Line2D
        The values of the trajectory.
    median_ : Line2D
        The medians of the surrogates.
    band_ : PolyCollection
        Their range.

    See Also
    --------
    skdmap.diagnostics.null_envelope : Computes the result.

    Examples
    --------
    >>> from skdmap.plotting import NullEnvelopeDisplay
    >>> display = NullEnvelopeDisplay([0.9, 0.8], [0.5, 0.2], [0.6, 0.3], [0.7, 0.4]).plot()
    >>> display.line_.get_xdata()
    array([0, 1])
    """

    _function = "null_envelope"

    def __init__(
        self,
        values: ArrayLike,
        lower: ArrayLike,
        median: ArrayLike,
        upper: ArrayLike,
        *,
        y_label: str = "eigenvalue",
        null_label: str = "surrogates",
    ) -> None:
        self.values = values
        self.lower = lower
        self.median = median
        self.upper = upper
        self.y_label = y_label
        self.null_label = null_label

    @staticmethod
    def _arguments(result: Any) -> dict[str, Any]:
        return {
            "values": result.values,
            "lower": result.lower,
            "median": result.median,
            "upper": result.upper,
            "y_label": _LABELS.get(result.curve, result.curve),
            "null_label": f"{result.n_surrogates} surrogates ({result.null})",
        }

    def plot(self, *, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the values and the envelope.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None creates a figure.
        **kwargs : dict
            Passed to ``Axes.plot`` for the values of the trajectory.

        Returns
        -------
        NullEnvelopeDisplay
            The display itself, with ``figure_``, ``ax_``, ``line_``, ``median_`` and ``band_``.

        Raises
        ------
        ValueError
            If the arrays differ in length.
        """
        values = vector(self.values, "values")
        lower, median, upper = (
            vector(getattr(self, name), name, len(values)) for name in ("lower", "median", "upper")
        )
        self.ax_, self.figure_ = axes_and_figure(ax)
        index = np.arange(len(values))
        self.band_ = self.ax_.fill_between(
            index, lower, upper, color="0.8", label=f"95 % of {self.null_label}"
        )
        (self.median_,) = self.ax_.plot(
            index, median, color="0.45", linestyle="--", linewidth=1.2, label="their median"
        )
        style = {"marker": "o", "markersize": 5, "linewidth": 1.2, "label": "trajectory"} | kwargs
        (self.line_,) = self.ax_.plot(index, values, **style)
        self.ax_.xaxis.get_major_locator().set_params(integer=True)
        self.ax_.set_xlabel("index")
        self.ax_.set_ylabel(self.y_label)
        self.ax_.legend(framealpha=0.9)
        return self
