"""Snapshots -> the dimension that windows of training steps show."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from skdmap._argument_checks import check_choice, check_count
from skdmap.diagnostics._null_models.recorded_steps import RecordedSteps, recorded_steps
from skdmap.diagnostics._null_models.surrogates import KINDS, null_generator, run_surrogates
from skdmap.diagnostics._small_map import slope_dimension, squared_distances


@dataclass(frozen=True)
class LocalDimension:
    """Dimensions of windows of rows, and what null models give in the same windows.

    Attributes
    ----------
    centers : ndarray of shape (n_windows,)
        Middle of each window: the mean of its first and last entry in ``steps``.
    dimension : ndarray of shape (n_windows,)
        Slope dimension of the rows of the window; nan where they do not move.
    lower : ndarray of shape (n_windows,)
        The 2.5 % quantile over surrogates of the window.
    median : ndarray of shape (n_windows,)
        Their median.
    upper : ndarray of shape (n_windows,)
        Their 97.5 % quantile.
    surrogate_dimensions : ndarray of shape (n_windows, n_surrogates)
        The dimension of each surrogate of each window, drawn anew for each: what a correction for
        the number of windows, or a mean over runs, is computed from.
    run_ids : ndarray of shape (n_windows,)
        The run of each window.
    window : int
        Rows in a window.
    exclusion : int
        Pairs of rows at most so far apart were left out.
    null : str
        Which surrogates.
    n_surrogates : int
        How many.

    Examples
    --------
    A walk in many dimensions has dimension 2 at every scale, since d^2 grows as time does:

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
        """Return the finding in two sentences.

        Returns
        -------
        str
            Computed from the attributes.
        """
        finite = self.dimension[np.isfinite(self.dimension)]
        n, below = len(self.dimension), int(np.sum(self.dimension < self.lower))
        above = int(np.sum(self.dimension > self.upper))
        if len(finite) == 0:
            return f"None of {n} windows of {self.window} rows moves."
        return (
            f"In {n} windows of {self.window} rows the dimension goes from {finite.min():.2f} to "
            f"{finite.max():.2f}, from {self.dimension[0]:.2f} in the first to "
            f"{self.dimension[-1]:.2f} in the last. It is below the range of 95 % of "
            f"{self.n_surrogates} {KINDS[self.null]} in {below} windows and above it in {above}; "
            f"about {0.025 * n:.1f} each would be by chance."
        )


def local_dimension(
    snapshots: ArrayLike,
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
    """Estimate the dimension of a trajectory in windows of its rows, beside null models.

    The dimension is the largest slope of log S against log h, S = sum of exp(-d^2 / (2 h^2)) over
    pairs of rows of the window. Neighbours in time are not geometry: a smooth path looks
    one-dimensional, and a walk two-dimensional, however it fills space. ``exclusion`` leaves such
    pairs out (Theiler's window), and the surrogates show what is left of their effect.

    Parameters
    ----------
    snapshots : array-like of shape (n_snapshots, n_parameters)
        Rows in the order in which they were recorded.
    run_ids : array-like of shape (n_snapshots,), default=None
        The run of each row; no window reaches over two runs.
    steps : array-like of shape (n_snapshots,), default=None
        Training step of each row, for ``centers``; None counts rows within each run.
    window : int, default=100
        Rows in a window, at least 10 and at most those of the shortest run.
    stride : int, default=None
        Rows from one window to the next; None is half a window.
    exclusion : int, default=0
        Pairs of rows at most so far apart in their run are left out; at most half of the window.
    n_surrogates : int, default=99
        How many surrogates for each window, matched to the steps in it.
    null : str, default="ar1"
        The kind of surrogates, see :func:`surrogate_trajectories`.
    random_state : int, RandomState instance, Generator or None, default=None
        Seed of the surrogates.

    Returns
    -------
    LocalDimension
        Dimension and envelope per window; ``summary()`` says it in words.

    Raises
    ------
    ValueError
        If an argument is out of its range, shapes do not fit, an entry is not finite, or a run
        has fewer than five rows or never moves.

    See Also
    --------
    skdmap.plotting.LocalDimensionDisplay : The same as a picture.

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
    null = check_choice("null", null, KINDS)
    n_surrogates = check_count("n_surrogates", n_surrogates)
    recorded = recorded_steps(snapshots, run_ids)
    window, stride, exclusion = _checked_windows(recorded, window, stride, exclusion)
    times = _times(recorded, steps)
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
    for i, (run, first) in enumerate(tqdm(starts, disable=None, desc="windows", leave=False)):
        inside = slice(first, first + window - 1)
        gram = recorded.run_gram(run)[inside, inside]
        surrogates = run_surrogates(gram, recorded.n_columns, null, generator)
        dimension[i], drawn[i] = _one_window(gram, excluded, surrogates, n_surrogates)
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
    gram: np.ndarray, excluded: np.ndarray, surrogates: Iterator[np.ndarray], n_surrogates: int
) -> tuple[float, np.ndarray]:
    """Return the dimension, and those of its surrogates; nan where nothing moves."""
    if not np.diag(gram).any():
        return np.nan, np.full(n_surrogates, np.nan)
    places = np.tri(len(gram) + 1, len(gram), -1)
    products = places @ gram @ places.T
    squared = np.diag(products)
    distances = np.maximum(squared[:, None] + squared - 2 * products, 0.0)
    drawn = [
        slope_dimension(squared_distances(next(surrogates)), excluded) for _ in range(n_surrogates)
    ]
    return slope_dimension(distances, excluded), np.array(drawn)


def _checked_windows(
    recorded: RecordedSteps, window: int, stride: int | None, exclusion: int
) -> tuple[int, int, int]:
    window = check_count("window", window, minimum=10)
    shortest = min(len(rows) for rows in recorded.rows)
    if window > shortest:
        raise ValueError(
            f"window={window} must be at most {shortest}, the rows of the shortest run. Pass a "
            "smaller window, or leave short runs out."
        )
    stride = window // 2 if stride is None else check_count("stride", stride)
    exclusion = check_count("exclusion", exclusion, minimum=0)
    if exclusion > window // 2:
        raise ValueError(
            f"exclusion={exclusion} must be at most {window // 2}, half of window={window}: few "
            "pairs would be left. Widen the window, or exclude less."
        )
    return window, stride, exclusion


def _times(recorded: RecordedSteps, steps: ArrayLike | None) -> list[np.ndarray]:
    if steps is None:
        return [np.arange(len(rows), dtype=np.float64) for rows in recorded.rows]
    times = np.asarray(steps, dtype=np.float64)
    n_rows = sum(len(rows) for rows in recorded.rows)
    if times.shape != (n_rows,):
        raise ValueError(
            f"steps has shape {times.shape}; it must be ({n_rows},), one per snapshot. Pass the "
            "steps_ that were recorded with the snapshots."
        )
    return [times[rows] for rows in recorded.rows]
