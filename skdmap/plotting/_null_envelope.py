"""Display of leading eigenvalues and the envelope of their null model."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skdmap.plotting._axes import axes_and_figure, vector
from skdmap.plotting._checks import check_result

_LABELS = {
    "diffusion": "eigenvalue of the Markov operator",
    "principal": "share of variance of the component",
}


class NullEnvelopeDisplay:
    """Leading eigenvalues of a trajectory on the range of those of null models.

    Parameters
    ----------
    values : array-like of shape (n_values,)
        Of the trajectory, descending.
    lower, median, upper : array-like of shape (n_values,)
        The 2.5, 50 and 97.5 % quantiles of the surrogates.
    y_label : str, default="eigenvalue"
        What the values are.
    null_label : str, default="surrogates"
        What the surrogates are.

    Attributes
    ----------
    ax_ : matplotlib Axes
        What was drawn on last.
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
    skdmap.diagnostics.null_envelope : Computes what is drawn.

    Examples
    --------
    >>> from skdmap.plotting import NullEnvelopeDisplay
    >>> display = NullEnvelopeDisplay([0.9, 0.8], [0.5, 0.2], [0.6, 0.3], [0.7, 0.4]).plot()
    >>> display.line_.get_xdata()
    array([1, 2])
    """

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

    @classmethod
    def from_result(cls, result: Any, *, ax: Any = None, **kwargs: Any) -> Self:
        """Draw a :class:`~skdmap.diagnostics.NullEnvelope`.

        Parameters
        ----------
        result : NullEnvelope
            What :func:`~skdmap.diagnostics.null_envelope` returned.
        ax : matplotlib Axes, default=None
            None makes a new figure.
        **kwargs : dict
            Passed to ``Axes.plot`` for the values of the trajectory.

        Returns
        -------
        NullEnvelopeDisplay
            Drawn.

        Raises
        ------
        InvalidParameterError
            If it is something else; says what to pass.
        """
        check_result(result, "null_envelope", "values", "lower", "median", "upper", "curve", "null")
        display = cls(
            result.values,
            result.lower,
            result.median,
            result.upper,
            y_label=_LABELS.get(result.curve, result.curve),
            null_label=f"{result.n_surrogates} surrogates ({result.null})",
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, *, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the values and the envelope.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a new figure.
        **kwargs : dict
            Passed to ``Axes.plot`` for the values of the trajectory.

        Returns
        -------
        NullEnvelopeDisplay
            Itself, with ``figure_``, ``ax_``, ``line_``, ``median_`` and ``band_``.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the arrays are not of one length.
        """
        values = vector(self.values, "values")
        lower, median, upper = (
            vector(getattr(self, name), name, len(values)) for name in ("lower", "median", "upper")
        )
        self.ax_, self.figure_ = axes_and_figure(ax)
        index = np.arange(1, len(values) + 1)
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


class DimensionTestDisplay:
    """A statistic of a trajectory on the histogram of those of its surrogates.

    Parameters
    ----------
    statistic : float
        Of the trajectory.
    surrogate_statistics : array-like of shape (n_surrogates,)
        Of the surrogates.
    p_value : float
        Written in the legend.
    x_label : str, default="statistic"
        Which statistic.
    null_label : str, default="surrogates"
        What the surrogates are.

    Attributes
    ----------
    ax_ : matplotlib Axes
        What was drawn on last.
    figure_ : matplotlib Figure
        Its figure.
    bars_ : BarContainer
        The histogram.
    line_ : Line2D
        The trajectory.

    See Also
    --------
    skdmap.diagnostics.dimension_test : Computes what is drawn.

    Examples
    --------
    >>> from skdmap.plotting import DimensionTestDisplay
    >>> display = DimensionTestDisplay(3.0, [1.0, 1.5, 2.0], 0.25).plot()
    >>> display.line_.get_xdata()
    [3.0, 3.0]
    """

    def __init__(
        self,
        statistic: float,
        surrogate_statistics: ArrayLike,
        p_value: float,
        *,
        x_label: str = "statistic",
        null_label: str = "surrogates",
    ) -> None:
        self.statistic = statistic
        self.surrogate_statistics = surrogate_statistics
        self.p_value = p_value
        self.x_label = x_label
        self.null_label = null_label

    @classmethod
    def from_result(cls, result: Any, *, ax: Any = None, **kwargs: Any) -> Self:
        """Draw a :class:`~skdmap.diagnostics.DimensionTest`.

        Parameters
        ----------
        result : DimensionTest
            What :func:`~skdmap.diagnostics.dimension_test` returned.
        ax : matplotlib Axes, default=None
            None makes a new figure.
        **kwargs : dict
            Passed to ``Axes.hist``.

        Returns
        -------
        DimensionTestDisplay
            Drawn.

        Raises
        ------
        InvalidParameterError
            If it is something else; says what to pass.
        """
        check_result(result, "dimension_test", "statistic", "surrogate_statistics", "p_value")
        display = cls(
            result.statistic,
            result.surrogate_statistics,
            result.p_value,
            x_label=f"statistic {result.statistic_name!r}",
            null_label=f"surrogates ({result.null})",
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, *, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the histogram and the statistic.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a new figure.
        **kwargs : dict
            Passed to ``Axes.hist``.

        Returns
        -------
        DimensionTestDisplay
            Itself, with ``figure_``, ``ax_``, ``bars_`` and ``line_``.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the statistics of the surrogates are not one-dimensional.
        """
        drawn = vector(self.surrogate_statistics, "surrogate_statistics")
        self.ax_, self.figure_ = axes_and_figure(ax)
        label = f"{len(drawn)} {self.null_label}"
        # Bars far from the trajectory are narrower than a pixel: their edges keep them in sight.
        style = {"bins": 20, "color": "0.75", "edgecolor": "0.45", "label": label} | kwargs
        _, _, self.bars_ = self.ax_.hist(drawn, **style)
        self.line_ = self.ax_.axvline(
            self.statistic, color="C0", linewidth=1.8, label=f"trajectory, p = {self.p_value:.3g}"
        )
        self.ax_.set_xlabel(self.x_label)
        self.ax_.set_ylabel("number of surrogates")
        # Room for the legend above the bars.
        self.ax_.margins(y=0.3)
        self.ax_.legend(loc="upper center", ncols=2, framealpha=0.9, fontsize="small")
        return self
