"""Display of the effective dimension against the lag."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skdmap.plotting._axes import axes_and_figure, vector
from skdmap.plotting._result_display import ResultDisplay


class EffectiveDimensionDisplay(ResultDisplay):
    """Effective dimension of increments against their lag, with its confidence interval.

    Parameters
    ----------
    lags : array-like of shape (n_lags,)
        Rows from the start to the end of an increment.
    dimension, lower, upper : array-like of shape (n_lags,)
        Dimension and interval. Infinite upper ends reach the upper edge of the axes.
    per_run : array-like of shape (n_runs, n_lags), default=None
        The dimension of each run, drawn as thin lines.
    band_label : str, default="interval"
        Legend entry of the interval.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the last plot.
    figure_ : matplotlib Figure
        Its figure.
    line_ : Line2D
        The dimension.
    band_ : PolyCollection
        The interval.
    run_lines_ : list of Line2D
        One for each run; empty for a single run.

    See Also
    --------
    skdmap.diagnostics.effective_dimension : Computes the result.

    Examples
    --------
    >>> from skdmap.plotting import EffectiveDimensionDisplay
    >>> display = EffectiveDimensionDisplay([1, 2], [30.0, 20.0], [29.0, 15.0], [31.0, 27.0]).plot()
    >>> display.line_.get_xdata()
    array([1, 2])
    """

    _function = "effective_dimension"

    def __init__(
        self,
        lags: ArrayLike,
        dimension: ArrayLike,
        lower: ArrayLike,
        upper: ArrayLike,
        *,
        per_run: ArrayLike | None = None,
        band_label: str = "interval",
    ) -> None:
        self.lags = lags
        self.dimension = dimension
        self.lower = lower
        self.upper = upper
        self.per_run = per_run
        self.band_label = band_label

    @staticmethod
    def _arguments(result: Any) -> dict[str, Any]:
        return {
            "lags": result.lags,
            "dimension": result.dimension,
            "lower": result.lower,
            "upper": result.upper,
            "per_run": result.per_run,
            "band_label": f"{100 * result.confidence:g} % interval",
        }

    def plot(self, *, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the dimension on logarithmic axes.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None creates a figure.
        **kwargs : dict
            Passed to ``Axes.plot`` for the dimension.

        Returns
        -------
        EffectiveDimensionDisplay
            The display itself, with ``figure_``, ``ax_``, ``line_``, ``band_`` and ``run_lines_``.

        Raises
        ------
        ValueError
            If the arrays differ in length.
        """
        lags = vector(self.lags, "lags")
        dimension, lower, upper = (
            vector(getattr(self, name), name, len(lags)) for name in ("dimension", "lower", "upper")
        )
        given = np.empty((0, len(lags))) if self.per_run is None else np.asarray(self.per_run)
        per_run = [vector(run, "per_run", len(lags)) for run in given]
        self.ax_, self.figure_ = axes_and_figure(ax)
        self.ax_.set_xscale("log", base=2)
        self.ax_.set_yscale("log")
        style = {"marker": "o", "markersize": 5, "linewidth": 1.2, "label": "dimension"} | kwargs
        (self.line_,) = self.ax_.plot(lags, _finite(dimension), **style)
        self.run_lines_ = []
        for number, run in enumerate(per_run if len(per_run) > 1 else []):
            label = "single runs" if number == 0 else None
            self.run_lines_ += self.ax_.plot(lags, _finite(run), "0.6", linewidth=0.8, label=label)
        # An interval without an upper end reaches ten times above all that is drawn.
        drawn = np.concatenate([dimension, upper, lower])
        top = 10 * drawn[np.isfinite(drawn)].max(initial=1.0)
        self.band_ = self.ax_.fill_between(
            lags,
            lower,
            np.where(np.isposinf(upper), top, upper),
            color=self.line_.get_color(),
            alpha=0.2,
            linewidth=0,
            label=self.band_label,
        )
        self.ax_.set_xlabel("lag in rows")
        self.ax_.set_ylabel("effective dimension")
        self.ax_.xaxis.set_major_formatter("{x:g}")
        self.ax_.yaxis.set_major_formatter("{x:g}")
        self.ax_.legend(framealpha=0.9)
        return self


def _finite(values: np.ndarray) -> np.ndarray:
    """Return the values with nan for infinity, which leaves a gap in a line."""
    return np.where(np.isfinite(values), values, np.nan)
