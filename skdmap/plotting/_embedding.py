"""Scatter plot of two diffusion coordinates."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skdmap.plotting._axes import axes_and_figure, vector
from skdmap.plotting._checks import check_holds

_MARKERS = "o^sDvPX*<>"
# Groups that can be told apart without c: two shapes in each of matplotlib's ten colours.
_MOST_GROUPS = 20


class EmbeddingDisplay:
    """Scatter plot of two coordinates of an embedding.

    Parameters
    ----------
    coordinates : array-like of shape (n_samples, n_components)
        All coordinates; two of them are drawn.
    eigenvalues : array-like of shape (n_components,), default=None
        Written beside the axes' names when given.

    Attributes
    ----------
    ax_ : matplotlib Axes
        What was drawn on last.
    figure_ : matplotlib Figure
        Its figure.
    scatter_ : list of PathCollection
        One for each group of ``hue``, in the order of the legend.

    See Also
    --------
    EigenvalueDisplay : How many of the coordinates are worth a look.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.plotting import EmbeddingDisplay
    >>> angle = np.linspace(0, 2 * np.pi, 50)
    >>> circle = np.column_stack([np.cos(angle), np.sin(angle)])
    >>> display = EmbeddingDisplay(circle).plot(c=angle, c_label="angle in rad")
    >>> display.ax_.get_xlabel()
    'diffusion coordinate 1'
    """

    def __init__(self, coordinates: ArrayLike, *, eigenvalues: ArrayLike | None = None) -> None:
        self.coordinates = coordinates
        self.eigenvalues = eigenvalues

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        components: tuple[int, int] = (0, 1),
        c: ArrayLike | None = None,
        c_label: str | None = None,
        hue: ArrayLike | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the ``embedding_`` of a fitted estimator.

        Parameters
        ----------
        estimator : DiffusionMap
            Fitted; ``embedding_`` is read, and ``eigenvalues_`` where there is one.
        components : tuple of int, default=(0, 1)
            Which coordinates, counted from 0, on the horizontal and the vertical axis.
        c : array-like of shape (n_samples,), default=None
            Numbers that become colours, with a colour bar.
        c_label : str, default=None
            Title of the colour bar.
        hue : array-like of shape (n_samples,), default=None
            Labels of at most 20 groups: colours with a legend, or, of at most 10, marker shapes
            where ``c`` has the colours.
        ax : matplotlib Axes, default=None
            None makes a new figure.
        **kwargs : dict
            Passed to ``Axes.scatter``.

        Returns
        -------
        EmbeddingDisplay
            Drawn.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        InvalidParameterError
            If it is of another kind; says what to pass, or which display to use.
        """
        check_holds(estimator, "DiffusionMap", "embedding_")
        eigenvalues = getattr(estimator, "eigenvalues_", None)
        display = cls(np.asarray(estimator.embedding_), eigenvalues=eigenvalues)
        return display.plot(components=components, c=c, c_label=c_label, hue=hue, ax=ax, **kwargs)

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
            Which coordinates, counted from 0, on the horizontal and the vertical axis.
        c : array-like of shape (n_samples,), default=None
            Numbers that become colours, with a colour bar.
        c_label : str, default=None
            Title of the colour bar.
        hue : array-like of shape (n_samples,), default=None
            Labels of at most 20 groups: colours with a legend, or, of at most 10, marker shapes
            where ``c`` has the colours.
        ax : matplotlib Axes, default=None
            None makes a new figure.
        **kwargs : dict
            Passed to ``Axes.scatter``.

        Returns
        -------
        EmbeddingDisplay
            Itself, with ``figure_``, ``ax_`` and ``scatter_``.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If a component does not exist, if ``c`` is not numeric, if ``c`` or ``hue`` has
            another length than the embedding, or if there are more than 20 groups (10 beside
            ``c``).
        """
        coordinates = np.asarray(self.coordinates)
        _check_components(components, coordinates.shape)
        colors = None if c is None else _numbers(c, len(coordinates))
        labels = None if hue is None else vector(hue, "hue", len(coordinates))
        groups = [None] if labels is None else list(dict.fromkeys(labels.tolist()))
        _check_groups(len(groups), with_numbers=colors is not None)
        self.ax_, self.figure_ = axes_and_figure(ax)
        style = {"s": 20, "linewidths": 0, "alpha": 0.9} | kwargs
        if colors is not None and "norm" not in kwargs:
            # One scale for all groups, or equal colours would mean different numbers.
            style = {"vmin": np.nanmin(colors), "vmax": np.nanmax(colors)} | style
        self.scatter_ = []
        for number, group in enumerate(groups):
            rows = slice(None) if labels is None else labels == group
            x, y = (coordinates[rows, component] for component in components)
            # Without c the axes' own cycle gives ten colours, then another shape.
            own: dict[str, Any] = {"marker": _MARKERS[number // 10]}
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
            # With c the colour of a legend entry would be that of its first row: it means nothing.
            for handle in legend.legend_handles if with_bar else ():
                handle.set_array(None)
                handle.set_facecolor("0.4")
        self.ax_.set_xlabel(self._axis_name(components[0]))
        self.ax_.set_ylabel(self._axis_name(components[1]))

    def _axis_name(self, component: int) -> str:
        name = f"diffusion coordinate {component + 1}"
        if self.eigenvalues is None:
            return name
        return f"{name}  ($\\lambda$ = {np.asarray(self.eigenvalues)[component]:.4g})"


def _check_components(components: tuple[int, int], shape: tuple[int, ...]) -> None:
    if len(shape) != 2:
        raise ValueError(
            f"coordinates has shape {shape}; it must be (n_samples, n_components). "
            "Pass coordinates[:, None] for a single one."
        )
    if len(components) != 2 or not all(0 <= component < shape[1] for component in components):
        raise ValueError(
            f"components={components!r} must be two numbers in [0, {shape[1] - 1}]. "
            "Fit with a larger n_components to see more of them."
        )


def _check_groups(n_groups: int, *, with_numbers: bool) -> None:
    if with_numbers and n_groups > len(_MARKERS):
        raise ValueError(
            f"hue has {n_groups} groups; beside c there are {len(_MARKERS)} marker shapes. "
            "Draw without c, or merge groups."
        )
    if n_groups > _MOST_GROUPS:
        raise ValueError(
            f"hue has {n_groups} groups, must have at most {_MOST_GROUPS} to be told apart. Use c "
            "for numbers, which gives a colour bar, or merge groups."
        )


def _numbers(c: ArrayLike, length: int) -> np.ndarray:
    colors = vector(c, "c", length)
    if colors.dtype.kind not in "fiub":
        raise ValueError(
            f"c has dtype {colors.dtype}; it must be numeric. Pass labels as hue instead."
        )
    return colors
