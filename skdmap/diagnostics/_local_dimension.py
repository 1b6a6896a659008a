"""The dimension of a trajectory in windows of training steps."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skdmap._argument_checks import check_choice, check_count
from skdmap._progress import progress
from skdmap.diagnostics._dense_diffusion_map import (
    distances_from_steps,
    slope_dimension,
    squared_distances,
)
from skdmap.diagnostics._null_models.models import NULL_MODELS, null_generator, run_surrogates
from skdmap.diagnostics._null_models.recorded_steps import RecordedSteps, recorded_steps


@dataclass(frozen=True)
class LocalDimension:
    """Dimension in windows of snapshots, with that of null models in the same windows.

    Attributes
    ----------
    centers : ndarray of shape (n_windows,)
        Middle of each window: the mean of its first and last entry in ``steps``.
    dimension : ndarray of shape (n_windows,)
        Slope dimension of the snapshots in the window; nan if they do not move.
    lower : ndarray of shape (n_windows,)
        2.5 % quantile over the surrogates of the window.
    median : ndarray of shape (n_windows,)
        Their median.
    upper : ndarray of shape (n_windows,)
        Their 97.5 % quantile.
    surrogate_dimensions : ndarray of shape (n_windows, n_surrogates)
        Dimension of each surrogate, drawn independently for each window; use it to correct for the
        number of windows or to average over runs.
    run_ids : ndarray of shape (n_windows,)
        The run of each window.
    window : int
        Snapshots per window.
    exclusion : int
        Pairs of snapshots at most this far apart in time were left out.
    null : str
        The null model.
    n_surrogates : int
        Number of surrogates per window.

    Examples
    --------
    A walk in many dimensions has dimension 2 at every scale, since d^2 grows in proportion to time:

    >>> from skdmap.diagnostics import local_dimension, random_walk
    >>> walk = random_walk(300, 2000, random_state=0)
    >>> result = local_dimension(walk, window=150, null="random_walk", random_state=0)
    >>> result.median.round(1)
    array([1.9, 1.9, 1.9])
    """

    centers: np.ndarray
    dimension: np.ndarray
    lower: np.ndarray
    median: np.ndarray
    upper: np.ndarray
    surrogate_dimensions: np.ndarray
    run_ids: np.ndarray
    window: int
    exclusion: int
    null: str
    n_surrogates: int

    def summary(self) -> str:
        """Describe the result in words.

        Returns
        -------
        str
            Two sentences.
        """
        finite = self.dimension[np.isfinite(self.dimension)]
        n, below = len(self.dimension), int(np.sum(self.dimension < self.lower))
        above = int(np.sum(self.dimension > self.upper))
        if len(finite) == 0:
            return f"No snapshots move in any of {n} windows of {self.window} snapshots."
        return (
            f"In {n} windows of {self.window} snapshots, the dimension ranges from "
            f"{finite.min():.2f} to {finite.max():.2f}: {self.dimension[0]:.2f} in the first, "
            f"{self.dimension[-1]:.2f} in the last window. It lies below the 95 % range of "
            f"{self.n_surrogates} {NULL_MODELS[self.null].words} in {below} windows and above it "
            f"in {above}; about {0.025 * n:.1f} of each are expected by chance."
        )


def local_dimension(
    snapshots: Any,
    *,
    run_ids: ArrayLike | None = None,
    steps: ArrayLike | None = None,
    window: int = 100,
    stride: int | None = None,
    exclusion: int = 0,
    n_surrogates: int = 99,
    null: str = "ar1",
    random_state: Any = None,
) -> LocalDimension:
    """Estimate the dimension of a trajectory in windows, and compare it with null models.

    The dimension is the largest slope of log S against log h, S = sum of exp(-d^2 / (2 h^2)) over
    pairs of snapshots in the window. Snapshots that are close in time are close in space whatever
    the geometry: a smooth path looks one-dimensional and a walk two-dimensional. ``exclusion``
    leaves such pairs out (the Theiler window); the surrogates show the remaining effect.

    Parameters
    ----------
    snapshots : array-like of shape (n_snapshots, n_parameters), recording, or list of them
        Snapshots in the order they were recorded, or a recorder, a fitted sampler or a stored
        trajectory.
    run_ids : array-like of shape (n_snapshots,), default=None
        The run of each snapshot; each window lies in one run. None means those of the recording,
        or one run.
    steps : array-like of shape (n_snapshots,), default=None
        Training step of each snapshot, for ``centers``. None means those of the recording, or else
        numbers the snapshots of each run.
    window : int, default=100
        Snapshots per window, at least 10 and at most those of the shortest run.
    stride : int, default=None
        Snapshots from one window to the next; None is half a window.
    exclusion : int, default=0
        Pairs of snapshots at most this far apart in time are left out; at most half a window.
    n_surrogates : int, default=99
        Number of surrogates for each window, matched to its steps.
    null : str, default="ar1"
        The null model, see :func:`surrogate_trajectories`.
    random_state : int, RandomState instance, Generator or None, default=None
        Seed of the surrogates.

    Returns
    -------
    LocalDimension
        Dimension and envelope per window; ``summary()`` describes them.

    Raises
    ------
    ValueError
        If an argument is out of range, shapes do not match, an entry is not finite, or a run has
        fewer than five snapshots or never moves.

    See Also
    --------
    skdmap.plotting.LocalDimensionDisplay : Plot of the result.

    References
    ----------
    Theiler, J. (1986). Spurious dimension from correlation algorithms applied to limited
    time-series data. Physical Review A 34, 2427-2432. https://doi.org/10.1103/PhysRevA.34.2427

    Examples
    --------
    A straight line is one-dimensional:

    >>> import numpy as np
    >>> from skdmap.diagnostics import local_dimension
    >>> line = np.outer(np.arange(60.0), np.ones(5))
    >>> local_dimension(line, window=40, n_surrogates=19, random_state=0).dimension.round(1)
    array([1., 1.])
    """
    null = check_choice("null", null, NULL_MODELS)
    n_surrogates = check_count("n_surrogates", n_surrogates)
    recorded = recorded_steps(snapshots, run_ids)
    window, stride, exclusion = _checked_windows(recorded, window, stride, exclusion)
    times = _times(recorded, recorded.steps if steps is None else steps)
    generator = null_generator(random_state)
    starts = [
        (run, first)
        for run, rows in enumerate(recorded.rows)
        for first in range(0, len(rows) - window + 1, stride)
    ]
    apart = np.abs(np.subtract.outer(np.arange(window), np.arange(window)))
    excluded = apart <= exclusion
    dimension = np.empty(len(starts))
    drawn = np.empty((len(starts), n_surrogates))
    with progress(len(starts), "local_dimension", verbose=None) as bar:
        for i, (run, first) in enumerate(starts):
            inside = slice(first, first + window - 1)
            gram = recorded.run_gram(run)[inside, inside]
            dimension[i], drawn[i] = np.nan, np.nan
            if np.diag(gram).any():
                surrogates = run_surrogates(gram, recorded.n_columns, null, n_surrogates, generator)
                dimension[i], drawn[i] = _one_window(gram, excluded, surrogates)
            bar.update()
    centers = [(times[run][first] + times[run][first + window - 1]) / 2 for run, first in starts]
    lower, median, upper = np.quantile(drawn, [0.025, 0.5, 0.975], axis=1)
    return LocalDimension(
        centers=np.array(centers),
        dimension=dimension,
        lower=lower,
        median=median,
        upper=upper,
        surrogate_dimensions=drawn,
        run_ids=recorded.labels[[run for run, _ in starts]],
        window=window,
        exclusion=exclusion,
        null=null,
        n_surrogates=n_surrogates,
    )


def _one_window(
    gram: np.ndarray, excluded: np.ndarray, surrogates: Iterator[np.ndarray]
) -> tuple[float, np.ndarray]:
    """Return the dimension of a window and of its surrogates."""
    drawn = [slope_dimension(squared_distances(points), excluded) for points in surrogates]
    return slope_dimension(distances_from_steps(gram), excluded), np.array(drawn)


def _checked_windows(
    recorded: RecordedSteps, window: int, stride: int | None, exclusion: int
) -> tuple[int, int, int]:
    window = check_count("window", window, minimum=10)
    shortest = min(len(rows) for rows in recorded.rows)
    if window > shortest:
        raise ValueError(
            f"window={window} must be at most {shortest}, the number of snapshots of the shortest "
            "run. Pass a smaller window, or leave short runs out."
        )
    stride = window // 2 if stride is None else check_count("stride", stride)
    exclusion = check_count("exclusion", exclusion, minimum=0)
    if exclusion > window // 2:
        raise ValueError(
            f"exclusion={exclusion} must be at most {window // 2}, half of window={window}, or too "
            "few pairs are left. Pass a larger window or a smaller exclusion."
        )
    return window, stride, exclusion


def _times(recorded: RecordedSteps, steps: ArrayLike | None) -> list[np.ndarray]:
    if steps is None:
        return [np.arange(len(rows), dtype=np.float64) for rows in recorded.rows]
    times = np.asarray(steps, dtype=np.float64)
    n_rows = sum(len(rows) for rows in recorded.rows)
    if times.shape != (n_rows,):
        raise ValueError(
            f"steps has shape {times.shape}; it must be ({n_rows},), one step per snapshot. Pass "
            "the steps_ recorded with the snapshots."
        )
    return [times[rows] for rows in recorded.rows]
