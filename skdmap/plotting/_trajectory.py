"""Display of trajectories as curves."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from skdmap._sklearn_compat import InvalidParameterError
from skdmap._snapshots import Snapshots, snapshots_of
from skdmap.plotting._axes import axes_and_figure, check_components, vector

_COLORS = ("loss", "step", "run")
# Runs that matplotlib's ten colours distinguish.
_MAX_NAMED = 10


class TrajectoryDisplay:
    """Trajectories of one or several runs as curves, with the loss as colour.

    Each run is a line through its snapshots in order, from a hollow circle to a square.

    Parameters
    ----------
    coordinates : array-like of shape (n_snapshots, n_components)
        Coordinates of the snapshots; two or three columns are drawn.
    run_ids : array-like of shape (n_snapshots,), default=None
        The run of each snapshot; None means one run. Runs may be interleaved.
    steps : array-like of shape (n_snapshots,), default=None
        Training step of each snapshot, for ``color="step"``.
    losses : array-like of shape (n_snapshots,), default=None
        Loss of each snapshot, for ``color="loss"``. Snapshots with a nan loss are grey.
    axis_name : str, default="coordinate"
        Axis label, to which the index of the column is added.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the last plot.
    figure_ : matplotlib Figure
        Its figure.
    lines_ : list of Line2D
        One for each run.
    scatter_ : PathCollection or None
        The snapshots, coloured by loss or step; None for ``color="run"``.

    See Also
    --------
    EmbeddingDisplay : Scatter plot of an embedding without runs.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.plotting import TrajectoryDisplay
    >>> t = np.linspace(0, 1, 20)
    >>> curve = np.column_stack([t, t**2, t**3])
    >>> display = TrajectoryDisplay(curve, losses=1 - t / 2).plot(components=(0, 1, 2))
    >>> display.ax_.get_zlabel()
    'coordinate 2'
    """

    def __init__(
        self,
        coordinates: ArrayLike,
        *,
        run_ids: ArrayLike | None = None,
        steps: ArrayLike | None = None,
        losses: ArrayLike | None = None,
        axis_name: str = "coordinate",
    ) -> None:
        self.coordinates = coordinates
        self.run_ids = run_ids
        self.steps = steps
        self.losses = losses
        self.axis_name = axis_name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        trajectory: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw a trajectory in the coordinates of a fitted estimator.

        Parameters
        ----------
        estimator : DiffusionMap, another transformer, Pipeline or TrajectorySampler
            Fitted estimator. Its ``embedding_``, with one row per snapshot, is drawn; without
            one, ``transform`` is applied to the snapshots (PCA, HessianSpectrum). A pipeline that
            contains a sampler provides the trajectory, too. For a sampler or recorder alone,
            ``components`` are columns of ``snapshots_``.
        trajectory : TrajectorySampler, TrajectoryRecorder, stored trajectory or list, default=None
            What the estimator was fitted to: a sampler, a recorder, what ``open_trajectory``
            returns, or a list of these, whose snapshots follow one another. Each run is a line;
            runs of a list are numbered through. None takes that of ``estimator``.
        **kwargs : dict
            Passed to ``plot``: ``components``, ``color``, ``run_names``, ``ax``, and what
            ``Axes.plot`` takes for the lines.

        Returns
        -------
        TrajectoryDisplay
            The display, drawn.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        InvalidParameterError
            If the estimator has no coordinates or another number of them than there are
            snapshots, or if the trajectory is another object.
        """
        source = _trajectory_of(estimator) if trajectory is None else trajectory
        recorded = snapshots_of(source, "trajectory")
        if recorded.run_ids is None:
            raise InvalidParameterError(
                f"trajectory={type(source).__name__} has no runs. Pass the sampler, the recorder "
                "or what open_trajectory returns; of an array, draw "
                "TrajectoryDisplay(coordinates, run_ids=...).plot()."
            )
        coordinates, name = _coordinates_of(estimator, source, recorded)
        if len(coordinates) != len(recorded.run_ids):
            raise InvalidParameterError(
                f"trajectory has {len(recorded.run_ids)} snapshots, but estimator has coordinates "
                f"of {len(coordinates)}. Pass all recordings that it was fitted to, in this order, "
                "as a list."
            )
        return cls(
            coordinates,
            run_ids=recorded.run_ids,
            steps=recorded.steps,
            losses=recorded.losses,
            axis_name=name,
        ).plot(**kwargs)

    def plot(
        self,
        *,
        components: Sequence[int] = (0, 1),
        color: str | None = None,
        run_names: Sequence[str] | Mapping[int, str] | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the curves.

        Parameters
        ----------
        components : sequence of two or three int, default=(0, 1)
            Column indices, from 0.
        color : {"loss", "step", "run"}, default=None
            Quantity shown as colour. None means "loss" if available, else "run". Positive losses
            get a logarithmic scale.
        run_names : sequence of str or mapping of int to str, default=None
            Names of the runs for the legend; empty for no legend. None means "run 0" and so on.
        ax : matplotlib Axes, default=None
            Axes to draw on; None creates a figure. Three components need an Axes3D.
        **kwargs : dict
            Passed to ``Axes.plot`` for the lines.

        Returns
        -------
        TrajectoryDisplay
            The display itself, with ``figure_``, ``ax_``, ``lines_`` and ``scatter_``.

        Raises
        ------
        ValueError
            If a component does not exist, columns differ in length, the colour is unknown or its
            values are missing, or the dimension of ``ax`` differs from the number of components.
        """
        coordinates = np.asarray(self.coordinates)
        check_components(components, coordinates.shape, (2, 3))
        points = coordinates[:, list(components)].T
        runs = np.zeros(points.shape[1], dtype=int)
        if self.run_ids is not None:
            runs = vector(self.run_ids, "run_ids", points.shape[1])
        shade = self._shade(color, points.shape[1])
        numbers = list(dict.fromkeys(runs.tolist()))
        names = _names(run_names, numbers)
        self.ax_, self.figure_ = _axes(ax, len(components))
        self.lines_ = []
        for position, number in enumerate(numbers):
            style: dict[str, Any] = {"linewidth": 1.2, "color": f"C{position}"}
            if shade is not None and len(numbers) == 1:
                style["color"] = "0.7"
            style |= {"label": names.get(number)} | kwargs
            self.lines_ += self.ax_.plot(*points[:, runs == number], **style)
        self.scatter_ = None if shade is None else self._dots(points, *shade)
        self._mark_ends(points, runs, numbers)
        if names:
            self.ax_.legend(framealpha=0.9)
        axes = (self.ax_.xaxis, self.ax_.yaxis, getattr(self.ax_, "zaxis", None))
        for axis, component in zip(axes, components, strict=False):
            axis.set_label_text(f"{self.axis_name} {component}")
        return self

    def _shade(self, color: str | None, length: int) -> tuple[np.ndarray, str] | None:
        if color is None:
            finite = self.losses is not None and np.isfinite(np.asarray(self.losses)).any()
            color = "loss" if finite else "run"
        if color not in _COLORS:
            raise ValueError(
                f"color={color!r} must be one of {', '.join(map(repr, _COLORS))}. Pass one of them."
            )
        if color == "run":
            return None
        values = self.losses if color == "loss" else self.steps
        if values is None:
            raise ValueError(
                f"color={color!r} needs {'losses' if color == 'loss' else 'steps'}=. Pass them, or "
                "color='run'."
            )
        return vector(values, color, length).astype(float), color

    def _dots(self, points: np.ndarray, values: np.ndarray, label: str) -> Any:
        from matplotlib import colormaps
        from matplotlib.colors import LogNorm, Normalize

        finite = values[np.isfinite(values)]
        is_positive = label == "loss" and len(finite) > 0 and finite.min() > 0
        limits = {"vmin": finite.min(), "vmax": finite.max()} if len(finite) else {}
        norm = (LogNorm if is_positive else Normalize)(**limits)
        colors = colormaps["viridis"].with_extremes(bad="0.6")
        scatter = self.ax_.scatter(
            *points, c=values, cmap=colors, norm=norm, s=12, linewidths=0, plotnonfinite=True,
            zorder=3,
        )  # fmt: skip
        # An Axes3D keeps its own room for the labels of the third axis.
        self.figure_.colorbar(
            scatter, ax=self.ax_, label=label, pad=0.1 if len(points) > 2 else 0.02
        )
        return scatter

    def _mark_ends(self, points: np.ndarray, runs: np.ndarray, numbers: list[Any]) -> None:
        for number, line in zip(numbers, self.lines_, strict=True):
            rows = np.flatnonzero(runs == number)
            own = {"color": line.get_color(), "linestyle": "none", "markersize": 7, "zorder": 4}
            first, last = (points[:, rows[[place]]] for place in (0, -1))
            self.ax_.plot(*first, marker="o", markerfacecolor="white", markeredgewidth=1.5, **own)
            self.ax_.plot(*last, marker="s", markeredgecolor="white", **own)


def _trajectory_of(estimator: Any) -> Any:
    steps = [step for _, step in getattr(estimator, "steps", [])]
    for candidate in [estimator, *steps]:
        if hasattr(candidate, "run_ids_") and hasattr(candidate, "snapshots_"):
            return candidate
    if not hasattr(estimator, "snapshots_"):
        check_is_fitted(estimator)
    raise InvalidParameterError(
        f"estimator={type(estimator).__name__} contains no trajectory, and trajectory=None. Pass "
        "the fitted TrajectorySampler or the recorder whose snapshots it was fitted to: "
        "TrajectoryDisplay.from_estimator(estimator, sampler)."
    )


def _coordinates_of(estimator: Any, trajectory: Any, recorded: Snapshots) -> tuple[np.ndarray, str]:
    """Return coordinates of the snapshots, and what one of them is called."""
    if estimator is trajectory:
        return estimator.snapshots_, "parameter"
    check_is_fitted(estimator)
    last = getattr(estimator, "steps", [(None, estimator)])[-1][1]
    if hasattr(last, "embedding_"):
        return np.asarray(last.embedding_), "diffusion coordinate"
    if last is trajectory:
        return last.snapshots_, "parameter"
    if not hasattr(last, "transform"):
        raise InvalidParameterError(
            f"estimator={type(last).__name__} has neither embedding_ nor transform. Pass a fitted "
            "DiffusionMap, PCA or HessianSpectrum."
        )
    name = "component" if not hasattr(last, "point_") else "Hessian component"
    return np.asarray(last.transform(np.asarray(recorded.matrix()))), name


def _names(
    run_names: Sequence[str] | Mapping[int, str] | None, numbers: list[Any]
) -> Mapping[Any, str]:
    if run_names is None:
        few = 1 < len(numbers) <= _MAX_NAMED
        return {number: f"run {number}" for number in numbers} if few else {}
    if not run_names:
        return {}
    if isinstance(run_names, Mapping):
        found = dict(run_names)
    else:
        found = dict(enumerate(run_names))
    missing = [number for number in numbers if number not in found]
    if missing:
        raise ValueError(
            f"run_names has no name for run {missing[0]}; it must name the runs "
            f"{', '.join(map(str, numbers))}. Pass a dict from run to name, or None."
        )
    return found


def _axes(ax: Any, n_dimensions: int) -> tuple[Any, Any]:
    made, figure = axes_and_figure(ax)
    is_solid = hasattr(made, "zaxis")
    if ax is None and n_dimensions == 3:
        figure.clear()
        return figure.add_subplot(projection="3d"), figure
    if is_solid != (n_dimensions == 3):
        raise ValueError(
            f"ax={type(made).__name__} does not match {n_dimensions} components. Pass plain axes "
            "for two components, add_subplot(projection='3d') for three, or ax=None."
        )
    return made, figure
