"""Display of the diffusion eigenvalues."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skdmap.plotting._axes import axes_and_figure, vector
from skdmap.plotting._checks import check_holds


class EigenvalueDisplay:
    """Eigenvalues of the Markov operator against the index of their coordinate, from 0.

    The trivial eigenvalue 1, whose coordinate is constant, is not in ``eigenvalues_``; it is drawn
    as a hollow marker on the left so that the first gap is visible.

    Parameters
    ----------
    eigenvalues : array-like of shape (n_components,)
        Descending, without the trivial 1.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the last plot.
    figure_ : matplotlib Figure
        Its figure.
    line_ : Line2D
        The eigenvalues.
    trivial_ : Line2D
        The hollow marker of the trivial eigenvalue.

    See Also
    --------
    SpectrumDisplay : Eigenvalues of the loss Hessian.

    Examples
    --------
    >>> from skdmap.plotting import EigenvalueDisplay
    >>> display = EigenvalueDisplay([0.9, 0.6, 0.3]).plot()
    >>> display.line_.get_xdata()
    array([0, 1, 2])
    """

    def __init__(self, eigenvalues: ArrayLike) -> None:
        self.eigenvalues = eigenvalues

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the ``eigenvalues_`` of a fitted DiffusionMap.

        Parameters
        ----------
        estimator : DiffusionMap
            Fitted.
        ax : matplotlib Axes, default=None
            Axes to draw on; None creates a figure.
        **kwargs : dict
            Passed to ``Axes.plot``.

        Returns
        -------
        EigenvalueDisplay
            The display, drawn.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        InvalidParameterError
            If the estimator is of another type.
        """
        check_holds(estimator, "DiffusionMap", "eigenvalues_", "stationary_distribution_")
        return cls(np.asarray(estimator.eigenvalues_)).plot(ax=ax, **kwargs)

    def plot(self, *, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the eigenvalues.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None creates a figure.
        **kwargs : dict
            Passed to ``Axes.plot``.

        Returns
        -------
        EigenvalueDisplay
            The display itself, with ``figure_``, ``ax_``, ``line_`` and ``trivial_``.

        Raises
        ------
        ValueError
            If the eigenvalues are not one-dimensional.
        """
        eigenvalues = vector(self.eigenvalues, "eigenvalues")
        self.ax_, self.figure_ = axes_and_figure(ax)
        style = {"marker": "o", "markersize": 5, "linewidth": 1.2} | kwargs
        (self.line_,) = self.ax_.plot(np.arange(len(eigenvalues)), eigenvalues, **style)
        (self.trivial_,) = self.ax_.plot(
            -1, 1.0, "o", markersize=6, markerfacecolor="none", markeredgecolor="0.45"
        )
        self.ax_.annotate(
            "trivial eigenvalue 1, left out",
            (-1, 1.0),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            color="0.35",
            fontsize="small",
        )
        self.ax_.margins(y=0.1)
        self.ax_.xaxis.get_major_locator().set_params(integer=True)
        # The trivial eigenvalue has no index.
        self.ax_.xaxis.set_major_formatter(lambda x, _: f"{x:.0f}" if x >= 0 else "")
        self.ax_.set_xlabel("index of the coordinate")
        self.ax_.set_ylabel("eigenvalue of the Markov operator")
        return self
