"""Scatter plot of two diffusion coordinates."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skdmap.plotting._axes import axes_and_figure, check_components, n_cycle_colors, vector
from skdmap.plotting._checks import check_holds

_MARKERS = "o^sDvPX*<>"
# Groups that can be distinguished without c: two or three shapes in each colour of the cycle.
_MAX_GROUPS = 20


class EmbeddingDisplay:
    """Scatter plot of two coordinates of an embedding.

    Parameters
    ----------
    coordinates : array-like of shape (n_samples, n_components)
        Coordinates, of which two are drawn.
    eigenvalues : array-like of shape (n_components,), default=None
        Eigenvalues, shown in the axis labels.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the last plot.
    figure_ : matplotlib Figure
        Its figure.
    scatter_ : list of PathCollection
        One for each group of ``hue``, in the order of the legend.

    See Also
    --------
    EigenvalueDisplay : Eigenvalues, for choosing the coordinates to look at.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.plotting import EmbeddingDisplay
    >>> angle = np.linspace(0, 2 * np.pi, 50)
    >>> circle = np.column_stack([np.cos(angle), np.sin(angle)])
    >>> display = EmbeddingDisplay(circle).plot(c=angle, c_label="angle in rad")
    >>> display.ax_.get_xlabel()
    'diffusion coordinate 0'
    """

    def __init__(self, coordinates: ArrayLike, *, eigenvalues: ArrayLike | None = None) -> None:
        self.coordinates = coordinates
        self.eigenvalues = eigenvalues

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        **kwargs: Any,
    ) -> Self:
        """Draw the ``embedding_`` of a fitted estimator.

        Parameters
        ----------
        estimator : DiffusionMap
            Fitted estimator with ``embedding_`` and, optionally, ``eigenvalues_``.
        **kwargs : dict
            Passed to ``plot``: ``components``, ``c``, ``c_label``, ``hue``, ``ax``, and what
            ``Axes.scatter`` takes.

        Returns
        -------
        EmbeddingDisplay
            The display, drawn.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        InvalidParameterError
            If the estimator is of another type.
        """
        check_holds(estimator, "DiffusionMap", "embedding_")
        eigenvalues = getattr(estimator, "eigenvalues_", None)
        display = cls(np.asarray(estimator.embedding_), eigenvalues=eigenvalues)
        return display.plot(**kwargs)

    def plot(
        self,
        *,
        components: tuple[int, int] = (0, 1),
        c: ArrayLike | None = None,
        c_label: str | None = None,
        hue: ArrayLike | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the scatter plot.

        Parameters
        ----------
        components : tuple of int, default=(0, 1)
            Indices, from 0, of the coordinates on the horizontal and the vertical axis.
        c : array-like of shape (n_samples,), default=None
            Numbers shown as colours, with a colour bar.
        c_label : str, default=None
            Label of the colour bar.
        hue : array-like of shape (n_samples,), default=None
            Labels of groups, shown as colours with a legend; with ``c``, as marker shapes. At most
            20 groups, or 10 with ``c``.
        ax : matplotlib Axes, default=None
            Axes to draw on; None creates a figure.
        **kwargs : dict
            Passed to ``Axes.scatter``.

        Returns
        -------
        EmbeddingDisplay
            The display itself, with ``figure_``, ``ax_`` and ``scatter_``.

        Raises
        ------
        ValueError
            If a component does not exist, ``c`` is not numeric, ``c`` or ``hue`` does not have one
            value per sample, or there are more than 20 groups (10 together with ``c``).
        """
        coordinates = np.asarray(self.coordinates)
        check_components(components, coordinates.shape, (2,))
        colors = None if c is None else _numbers(c, len(coordinates))
        labels = None if hue is None else vector(hue, "hue", len(coordinates))
        groups = [None] if labels is None else list(dict.fromkeys(labels.tolist()))
        _check_groups(len(groups), with_numbers=colors is not None)
        self.ax_, self.figure_ = axes_and_figure(ax)
        style = {"s": 20, "linewidths": 0, "alpha": 0.9} | kwargs
        if colors is not None and "norm" not in kwargs:
            # One colour scale for all groups.
            style = {"vmin": np.nanmin(colors), "vmax": np.nanmax(colors)} | style
        self.scatter_ = []
        for number, group in enumerate(groups):
            rows = slice(None) if labels is None else labels == group
            x, y = (coordinates[rows, component] for component in components)
            # Without c, the colours of the cycle, then the next shape.
            shape = number // n_cycle_colors() % len(_MARKERS)
            own: dict[str, Any] = {"marker": _MARKERS[shape]}
            if colors is not None:
                own = {"marker": _MARKERS[number], "c": colors[rows]}
            self.scatter_.append(self.ax_.scatter(x, y, label=group, **(own | style)))
        self._annotate(components, colors is not None, c_label, labels is not None)
        return self

    def _annotate(
        self, components: tuple[int, int], with_bar: bool, c_label: str | None, with_legend: bool
    ) -> None:
        if with_bar:
            self.figure_.colorbar(self.scatter_[0], ax=self.ax_, label=c_label)
        if with_legend:
            # In one column twenty entries are taller than the axes.
            legend = self.ax_.legend(framealpha=0.9, ncols=1 if len(self.scatter_) <= 10 else 2)
            # With c, the colour of a legend entry would be that of the group's first sample.
            for handle in legend.legend_handles if with_bar else ():
                handle.set_array(None)
                handle.set_facecolor("0.4")
        self.ax_.set_xlabel(self._axis_name(components[0]))
        self.ax_.set_ylabel(self._axis_name(components[1]))

    def _axis_name(self, component: int) -> str:
        name = f"diffusion coordinate {component}"
        if self.eigenvalues is None:
            return name
        return f"{name}  ($\\lambda$ = {np.asarray(self.eigenvalues)[component]:.4g})"


def _check_groups(n_groups: int, *, with_numbers: bool) -> None:
    if with_numbers and n_groups > len(_MARKERS):
        raise ValueError(
            f"hue has {n_groups} groups; together with c it must have at most {len(_MARKERS)}, "
            "the number of marker shapes. Omit c, or merge groups."
        )
    if n_groups > _MAX_GROUPS:
        raise ValueError(
            f"hue has {n_groups} groups; it must have at most {_MAX_GROUPS} to be distinguishable. "
            "Pass numbers as c, which adds a colour bar, or merge groups."
        )


def _numbers(c: ArrayLike, length: int) -> np.ndarray:
    colors = vector(c, "c", length)
    if colors.dtype.kind not in "fiub":
        raise ValueError(
            f"c has dtype {colors.dtype}; it must be numeric. Pass labels as hue instead."
        )
    return colors
