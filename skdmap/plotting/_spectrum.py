"""Displays of Hessian eigenvalues, their residuals, and the spectral density."""

import math
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skdmap.plotting._axes import axes_and_figure, vector
from skdmap.plotting._checks import check_holds


class SpectrumDisplay:
    """Eigenvalues of the loss Hessian with residuals as error bars, or its spectral density.

    For a symmetric operator, an exact eigenvalue lies within the residual ``|H v - lambda v|`` of
    each computed one, so the bars are bounds. In the density, each converged eigenvalue is drawn as
    a stick; the rest of the spectrum is smoothed.

    Parameters
    ----------
    eigenvalues : array-like of shape (n_components,)
        Eigenvalues, in loss per squared parameter.
    residuals : array-like of shape (n_components,), default=None
        Residuals in the same unit; None draws no bars.
    density : SpectralDensity, default=None
        ``density_`` of the estimator, or one of the ``densities`` of a path; for
        ``kind="density"``.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the last plot.
    figure_ : matplotlib Figure
        Its figure.
    errorbar_ : ErrorbarContainer
        Markers and bars, with ``kind="eigenvalues"``.
    line_ : Line2D or None
        The smoothed density, with ``kind="density"``; None if all eigenvalues are sticks.
    sticks_ : LineCollection
        The converged eigenvalues, with ``kind="density"``.

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

    def __init__(
        self,
        eigenvalues: ArrayLike,
        residuals: ArrayLike | None = None,
        density: Any = None,
    ) -> None:
        self.eigenvalues = eigenvalues
        self.residuals = residuals
        self.density = density

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        **kwargs: Any,
    ) -> Self:
        """Draw the spectrum of a fitted HessianSpectrum.

        Parameters
        ----------
        estimator : HessianSpectrum
            Fitted.
        **kwargs : dict
            Passed to ``plot``: ``kind``, ``xscale``, ``yscale``, ``width``, ``offset``, ``ax``, and
            what ``Axes.errorbar``, or for a density ``Axes.plot``, takes.

        Returns
        -------
        SpectrumDisplay
            The display, drawn.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        InvalidParameterError
            If the estimator is of another type.
        """
        check_holds(estimator, "HessianSpectrum", "eigenvalues_", "residuals_", "point_")
        display = cls(
            np.asarray(estimator.eigenvalues_),
            np.asarray(estimator.residuals_),
            getattr(estimator, "density_", None),
        )
        return display.plot(**kwargs)

    def plot(
        self,
        *,
        kind: str = "eigenvalues",
        xscale: str = "asinh",
        yscale: str | None = None,
        width: float | None = None,
        offset: float = 0.0,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the spectrum.

        Parameters
        ----------
        kind : {"eigenvalues", "density"}, default="eigenvalues"
            What to draw.
        xscale : {"asinh", "linear", "log"}, default="asinh"
            Horizontal scale of the density. "log" shows only positive eigenvalues.
        yscale : str, default=None
            A matplotlib scale; "log" suits spectra of one sign, "asinh" those of both signs. None
            means "linear" for eigenvalues and "log" for a density.
        width : float, default=None
            Width of the smoothing, as for ``SpectralDensity.evaluate``.
        offset : float, default=0.0
            Shift along the index, so that several spectra in the same axes do not overlap.
        ax : matplotlib Axes, default=None
            Axes to draw on; None creates a figure.
        **kwargs : dict
            Passed to ``Axes.errorbar``, or for a density to ``Axes.plot``.

        Returns
        -------
        SpectrumDisplay
            The display itself, with ``figure_``, ``ax_`` and what was drawn.

        Raises
        ------
        ValueError
            If the eigenvalues are not one-dimensional, the residuals differ in length, an option is
            unknown, or ``density`` is missing.
        """
        if kind == "density":
            return self._plot_density(xscale, yscale or "log", width, ax, kwargs)
        if kind != "eigenvalues":
            raise ValueError(
                f"kind={kind!r} must be 'eigenvalues' or 'density'. Pass one of the two."
            )
        eigenvalues = vector(self.eigenvalues, "eigenvalues")
        bars = self.residuals
        if bars is not None:
            bars = vector(bars, "residuals", len(eigenvalues))
        self.ax_, self.figure_ = axes_and_figure(ax)
        style = {"fmt": "o", "markersize": 5, "capsize": 3, "elinewidth": 1.0} | kwargs
        index = np.arange(len(eigenvalues)) + offset
        self.errorbar_ = self.ax_.errorbar(index, eigenvalues, yerr=bars, **style)
        self.ax_.set_yscale(yscale or "linear")
        if yscale != "log":
            self.ax_.axhline(0.0, color="0.7", linewidth=0.8, zorder=0)
        self.ax_.xaxis.get_major_locator().set_params(integer=True)
        self.ax_.set_xlabel("index")
        self.ax_.set_ylabel("eigenvalue of the loss Hessian")
        return self

    def _plot_density(
        self, xscale: str, yscale: str, width: float | None, ax: Any, kwargs: dict[str, Any]
    ) -> Self:
        density = self.density
        if density is None:
            raise ValueError(
                "kind='density' needs a density, but density=None. Pass density_ of a fitted "
                "HessianSpectrum, or an entry of densities of hessian_spectrum_path(..., "
                "density=True)."
            )
        grid, unit = _grid(density, xscale, width)
        self.ax_, self.figure_ = axes_and_figure(ax)
        self.line_ = None
        style = {"color": "C0", "linewidth": 1.5, "label": "other eigenvalues"} | kwargs
        if not np.all(density.is_atom):
            values = density.evaluate(grid, width, atoms=False)
            (self.line_,) = self.ax_.plot(grid, values, **style)
            if yscale == "log":  # cut the tails of the Gaussians
                self.ax_.set_ylim(1e-6 * values.max(), 50 * values.max())  # room for the legend
        atoms = density.nodes[density.is_atom]
        self.sticks_ = self.ax_.vlines(
            atoms[atoms > 0] if xscale == "log" else atoms,
            0.0,
            0.25,
            transform=self.ax_.get_xaxis_transform(),
            color="C3",
            linewidth=1.2,
            label="converged eigenvalues",
        )
        if xscale == "asinh":
            self.ax_.set_xscale("asinh", linear_width=unit)
            ticks = _ticks(float(grid[0]), float(grid[-1]), unit)
            if len(ticks) > 3:
                self.ax_.set_xticks(ticks)
            else:  # less than two decades: matplotlib's own ticks, few enough not to overlap
                self.ax_.xaxis.get_major_locator().numticks = 5
        else:
            self.ax_.set_xscale(xscale)
        self.ax_.set_yscale(yscale if self.line_ is not None else "linear")
        self.ax_.set_xlabel("eigenvalue of the loss Hessian")
        self.ax_.set_ylabel("density")
        self.ax_.legend(loc="upper right")
        return self


def _ticks(low: float, high: float, unit: float) -> list[float]:
    """Return 0 and the powers of ten in the logarithmic part of an asinh axis."""
    powers = range(math.ceil(math.log10(5 * unit)), math.floor(math.log10(max(-low, high))) + 1)
    ticks = [0.0] + [sign * 10.0**power for power in powers for sign in (-1, 1)]
    return sorted(tick for tick in ticks if low <= tick <= high)


def _grid(density: Any, xscale: str, width: float | None) -> tuple[np.ndarray, float]:
    """Return the points at which to draw the density, dense near zero, and the unit of the axis."""
    if xscale not in ("asinh", "linear", "log"):
        raise ValueError(
            f"xscale={xscale!r} must be 'asinh', 'linear' or 'log'. Pass one of these."
        )
    nodes, weights = np.asarray(density.nodes), np.asarray(density.weights)
    largest = float(np.abs(nodes).max()) or 1.0
    # The axis is linear over the smaller half of the eigenvalues, and logarithmic beyond.
    order = np.argsort(np.abs(nodes))
    half = np.searchsorted(np.cumsum(weights[order]), 0.5 * weights.sum())
    unit = max(float(np.abs(nodes[order[min(half, len(order) - 1)]])), 3e-3 * largest)
    rest = nodes[~density.is_atom] if not np.all(density.is_atom) else nodes
    margin = max(0.3, 4 * (width or 0.0)) * (float(np.ptp(rest)) or largest)
    low = min(nodes.min(), 0.0) - margin
    high = max(nodes.max(), rest.max() + margin) + 0.05 * largest
    if xscale == "log":
        return np.geomspace(1e-3 * unit, max(high, unit), 2000), unit
    if xscale == "linear":
        return np.linspace(low, high, 2000), unit
    return unit * np.sinh(np.linspace(np.arcsinh(low / unit), np.arcsinh(high / unit), 2000)), unit
