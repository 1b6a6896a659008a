"""Display of the kernel sum, its slope, and the chosen bandwidth."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skdmap._sklearn_compat import InvalidParameterError
from skdmap.plotting._axes import axes_and_figure, vector
from skdmap.plotting._checks import check_holds


class BandwidthDisplay:
    """Kernel sum and its logarithmic slope against the bandwidth.

    With S(h) the sum of the kernel over all pairs of samples, the slope of log S against log h is
    the dimension of the data at the length h. It has a plateau where h lies between the distance of
    neighbours and the diameter of the data.

    Parameters
    ----------
    bandwidths : array-like of shape (n_grid,)
        Bandwidths h, ascending, in the units of X.
    log_kernel_sum : array-like of shape (n_grid,)
        Natural logarithm of S(h).
    slope : array-like of shape (n_grid,)
        Slope of log S against log h.
    bandwidth : float or array-like of shape (n_samples,), default=None
        The bandwidth of the map, drawn as a line; several values are drawn as a band.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the slope.
    sum_ax_ : matplotlib Axes
        The axes of log S, on the right.
    figure_ : matplotlib Figure
        Its figure.

    See Also
    --------
    EigenvalueDisplay : The resulting eigenvalues.

    Examples
    --------
    >>> from skdmap.plotting import BandwidthDisplay
    >>> display = BandwidthDisplay([0.1, 1.0, 10.0], [0.0, 2.0, 3.0], [0.8, 1.1, 0.2]).plot()
    >>> display.ax_.get_xscale()
    'log'
    """

    def __init__(
        self,
        bandwidths: ArrayLike,
        log_kernel_sum: ArrayLike,
        slope: ArrayLike,
        *,
        bandwidth: float | ArrayLike | None = None,
    ) -> None:
        self.bandwidths = bandwidths
        self.log_kernel_sum = log_kernel_sum
        self.slope = slope
        self.bandwidth = bandwidth

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the ``bandwidth_curve_`` and ``bandwidth_`` of a fitted DiffusionMap.

        Parameters
        ----------
        estimator : DiffusionMap
            Fitted.
        ax : matplotlib Axes, default=None
            Axes to draw on; None creates a figure.
        **kwargs : dict
            Passed to ``Axes.plot`` for the slope.

        Returns
        -------
        BandwidthDisplay
            The display, drawn.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        InvalidParameterError
            If the estimator is of another type, or has no curve (one length per sample).
        """
        check_holds(estimator, "DiffusionMap", "bandwidth_curve_", "bandwidth_")
        curve = estimator.bandwidth_curve_
        if curve is None:
            given = f"kernel={estimator.kernel!r}, affinities without a length,"
            local = f"bandwidth={estimator.bandwidth!r}"
            raise InvalidParameterError(
                f"estimator has {local if estimator.kernel == 'gaussian' else given} and no "
                "bandwidth_curve_; the curve belongs to one length for all samples. Draw "
                "DiffusionMap(bandwidth='auto'), fitted to samples."
            )
        display = cls(
            curve.bandwidths,
            curve.log_kernel_sum,
            curve.slope,
            bandwidth=estimator.bandwidth_,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, *, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None creates a figure.
        **kwargs : dict
            Passed to ``Axes.plot`` for the slope.

        Returns
        -------
        BandwidthDisplay
            The display itself, with ``figure_``, ``ax_`` and ``sum_ax_``.

        Raises
        ------
        ValueError
            If the arrays differ in length.
        """
        grid = vector(self.bandwidths, "bandwidths")
        log_sum = vector(self.log_kernel_sum, "log_kernel_sum", len(grid))
        slope = vector(self.slope, "slope", len(grid))
        self.ax_, self.figure_ = axes_and_figure(ax)
        self.sum_ax_ = self.ax_.twinx()
        self.sum_ax_.plot(grid, log_sum, color="0.6", linestyle="--", linewidth=1.2)
        self.sum_ax_.set_ylabel("log kernel sum, log S (dashed)", color="0.4")
        self.ax_.plot(grid, slope, **({"color": "C0", "linewidth": 1.8} | kwargs))
        self.ax_.set_xscale("log")
        self.ax_.set_xlabel("bandwidth h, in the units of X")
        self.ax_.set_ylabel("slope of log S against log h (solid)")
        # Otherwise the twin axes lie on top, and their line crosses the legend.
        self.ax_.set_zorder(self.sum_ax_.get_zorder() + 1)
        self.ax_.patch.set_visible(False)
        if self.bandwidth is not None:
            self._mark_bandwidth(np.asarray(self.bandwidth))
            self.ax_.legend(loc="best", framealpha=0.9)
        return self

    def _mark_bandwidth(self, bandwidth: np.ndarray) -> None:
        low, high = float(bandwidth.min()), float(bandwidth.max())
        if low == high:
            self.ax_.axvline(low, color="C3", linewidth=1.4, label=f"bandwidth_ = {low:.3g}")
        else:
            label = f"bandwidth_, {low:.3g} to {high:.3g} over the samples"
            self.ax_.axvspan(low, high, color="C3", alpha=0.15, label=label)
