"""Display of a test statistic and its null distribution."""

from typing import Any, Self

from numpy.typing import ArrayLike

from skdmap._argument_checks import check_choice
from skdmap.plotting._axes import axes_and_figure, vector
from skdmap.plotting._checks import check_result


class DimensionTestDisplay:
    """A statistic of a trajectory, with the histogram of its surrogates.

    Parameters
    ----------
    statistic : float
        Statistic of the trajectory.
    surrogate_statistics : array-like of shape (n_surrogates,)
        Statistics of the surrogates.
    p_value : float
        The p-value, shown in the legend.
    x_label : str, default="statistic"
        Label of the horizontal axis.
    null_label : str, default="surrogates"
        Legend entry of the surrogates.
    p_label : str, default="p"
        Name of the p-value in the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the last plot.
    figure_ : matplotlib Figure
        Its figure.
    bars_ : BarContainer
        The histogram.
    line_ : Line2D
        The trajectory.

    See Also
    --------
    skdmap.diagnostics.dimension_test : Computes the result.

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
        p_label: str = "p",
    ) -> None:
        self.statistic = statistic
        self.surrogate_statistics = surrogate_statistics
        self.p_value = p_value
        self.x_label = x_label
        self.null_label = null_label
        self.p_label = p_label

    @classmethod
    def from_result(
        cls, result: Any, *, null: str | None = None, ax: Any = None, **kwargs: Any
    ) -> Self:
        """Draw a :class:`~skdmap.diagnostics.DimensionTest`, or one of several claims' tests.

        Parameters
        ----------
        result : DimensionTest or DimensionClaims
            What :func:`~skdmap.diagnostics.dimension_test` returned.
        null : str, default=None
            Of several tests, the null model of the one to draw. None is the one that decides the
            claim of the level: beyond linear processes, else fewer dimensions.
        ax : matplotlib Axes, default=None
            Axes to draw on; None creates a figure.
        **kwargs : dict
            Passed to ``Axes.hist``.

        Returns
        -------
        DimensionTestDisplay
            The display, drawn.

        Raises
        ------
        InvalidParameterError
            If ``result`` is of another type, or has no test of ``null``.
        """
        corrected = None
        if hasattr(result, "tests"):
            test = _one_test(result, null)
            rows = [row for row in result.table if row["null"] == test.null]
            corrected, result = rows[0]["corrected_p_value"], test
        check_result(result, "dimension_test", "statistic", "surrogate_statistics", "p_value")
        display = cls(
            result.statistic,
            result.surrogate_statistics,
            result.p_value if corrected is None else corrected,
            x_label=f"statistic {result.statistic_name!r}",
            null_label=f"surrogates ({result.null})",
            p_label="p" if corrected is None else "corrected p",
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, *, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the histogram and the statistic.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None creates a figure.
        **kwargs : dict
            Passed to ``Axes.hist``.

        Returns
        -------
        DimensionTestDisplay
            The display itself, with ``figure_``, ``ax_``, ``bars_`` and ``line_``.

        Raises
        ------
        ValueError
            If the statistics of the surrogates are not one-dimensional.
        """
        drawn = vector(self.surrogate_statistics, "surrogate_statistics")
        self.ax_, self.figure_ = axes_and_figure(ax)
        label = f"{len(drawn)} {self.null_label}"
        # Bars can be narrower than a pixel; their edges keep them visible.
        style = {"bins": 20, "color": "0.75", "edgecolor": "0.45", "label": label} | kwargs
        _, _, self.bars_ = self.ax_.hist(drawn, **style)
        self.line_ = self.ax_.axvline(
            self.statistic,
            color="C0",
            linewidth=1.8,
            label=f"trajectory, {self.p_label} = {self.p_value:.3g}",
        )
        self.ax_.set_xlabel(self.x_label)
        self.ax_.set_ylabel("number of surrogates")
        # Room for the legend above the bars.
        self.ax_.margins(y=0.3)
        self.ax_.legend(loc="upper center", ncols=2, framealpha=0.9, fontsize="small")
        return self


def _one_test(claims: Any, null: str | None) -> Any:
    """Return the test of a null model, or the one that decides the level."""
    if null is None:
        beyond = claims.level == "beyond_linear"
        return claims.deciding("beyond_linear" if beyond else "fewer_dimensions")
    name = check_choice("null", null, [test.null for test in claims.tests])
    return next(test for test in claims.tests if test.null == name)
