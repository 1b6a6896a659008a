"""Hessian eigenvalues and residuals -> a plot with error bars."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skdmap.plotting._axes import axes_and_figure, vector
from skdmap.plotting._fitted import check_holds

__all__ = ["SpectrumDisplay"]


class SpectrumDisplay:
    """Eigenvalues of the loss Hessian, with their residuals as error bars.

    For a symmetric operator some exact eigenvalue lies within the residual ``|H v - lambda v|`` of
    each computed one, so the bars are bounds, not estimates.

    Parameters
    ----------
    eigenvalues : array-like of shape (n_components,)
        In loss per squared parameter.
    residuals : array-like of shape (n_components,), default=None
        In the same unit; None draws no bars.

    Attributes
    ----------
    ax_ : matplotlib Axes
        What was drawn on last.
    figure_ : matplotlib Figure
        Its figure.
    errorbar_ : ErrorbarContainer
        Marks and bars.

    See Also
    --------
    EigenvalueDisplay : Eigenvalues of a diffusion map.

    Examples
    --------
    >>> from skdmap.plotting import SpectrumDisplay
    >>> display = SpectrumDisplay([5.0, 1.0, 0.2], [0.01, 0.02, 0.02]).plot()
    >>> display.ax_.get_xlabel()
    'index'
    """

    def __init__(self, eigenvalues: ArrayLike, residuals: ArrayLike | None = None) -> None:
        self.eigenvalues = eigenvalues
        self.residuals = residuals

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        yscale: str = "linear",
        offset: float = 0.0,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the ``eigenvalues_`` and ``residuals_`` of a fitted HessianSpectrum.

        Parameters
        ----------
        estimator : HessianSpectrum
            Fitted.
        yscale : str, default="linear"
            A scale of matplotlib; "log" suits spectra of one sign, "asinh" those of both.
        offset : float, default=0.0
            Shift along the index, so that several spectra on one axes do not hide each other.
        ax : matplotlib Axes, default=None
            None makes a new figure.
        **kwargs : dict
            Passed to ``Axes.errorbar``.

        Returns
        -------
        SpectrumDisplay
            Drawn.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        InvalidParameterError
            If it is of another kind; says what to pass, or which display to use.
        """
        check_holds(estimator, "HessianSpectrum", "eigenvalues_", "residuals_", "point_")
        display = cls(np.asarray(estimator.eigenvalues_), np.asarray(estimator.residuals_))
        return display.plot(yscale=yscale, offset=offset, ax=ax, **kwargs)

    def plot(
        self, *, yscale: str = "linear", offset: float = 0.0, ax: Any = None, **kwargs: Any
    ) -> Self:
        """Draw the spectrum.

        Parameters
        ----------
        yscale : str, default="linear"
            A scale of matplotlib; "log" suits spectra of one sign, "asinh" those of both.
        offset : float, default=0.0
            Shift along the index, so that several spectra on one axes do not hide each other.
        ax : matplotlib Axes, default=None
            None makes a new figure.
        **kwargs : dict
            Passed to ``Axes.errorbar``.

        Returns
        -------
        SpectrumDisplay
            Itself, with ``figure_``, ``ax_`` and ``errorbar_``.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the eigenvalues are not one-dimensional, or the residuals do not fit them.
        """
        eigenvalues = vector(self.eigenvalues, "eigenvalues")
        bars = self.residuals
        if bars is not None:
            bars = vector(bars, "residuals", len(eigenvalues))
        self.ax_, self.figure_ = axes_and_figure(ax)
        style = {"fmt": "o", "markersize": 5, "capsize": 3, "elinewidth": 1.0} | kwargs
        index = np.arange(1, len(eigenvalues) + 1) + offset
        self.errorbar_ = self.ax_.errorbar(index, eigenvalues, yerr=bars, **style)
        self.ax_.set_yscale(yscale)
        if yscale != "log":
            self.ax_.axhline(0.0, color="0.7", linewidth=0.8, zorder=0)
        self.ax_.xaxis.get_major_locator().set_params(integer=True)
        self.ax_.set_xlabel("index")
        self.ax_.set_ylabel("eigenvalue of the loss Hessian")
        return self
