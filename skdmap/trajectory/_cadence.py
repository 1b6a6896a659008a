"""When to record: cadences by steps, distance and time, and the steps that they select."""

from collections.abc import Callable, Sized
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from time import monotonic
from typing import Any

import numpy as np

from skdmap._argument_checks import is_integer
from skdmap._sklearn_compat import InvalidParameterError


@dataclass(frozen=True)
class LogSpaced:
    """Record at steps whose logarithms are evenly spaced.

    Training moves fast at first and slowly later, so rows at equal steps oversample its end. This
    cadence records the initialisation and the steps round(T^(j / (n - 1))), j = 0, ..., n - 1,
    repeats dropped, where T is the last step of the run.

    Attributes
    ----------
    n : int
        Number of steps before repeats are dropped, at least 2.
    total : int or None, default=None
        T. None takes the steps of the run, which TrajectorySampler knows and TrajectoryRecorder
        does not.

    Raises
    ------
    ValueError
        If ``n`` is below 2 or ``total`` below 1.

    See Also
    --------
    Displacement : Record when the parameters have moved by a given length.
    WallClock : Record when a given time has passed.

    Examples
    --------
    >>> from skdmap import LogSpaced
    >>> LogSpaced(8, total=100).steps()
    array([  1,   2,   4,   7,  14,  27,  52, 100])
    """

    n: int
    total: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not is_integer(self.n) or self.n < 2:
            raise ValueError(f"LogSpaced: n={self.n!r} must be an integer >= 2.")
        if self.total is not None and (not is_integer(self.total) or self.total < 1):
            raise ValueError(
                f"LogSpaced: total={self.total!r} must be an integer >= 1, or None for the steps "
                "of the run."
            )

    def steps(self, total: int | None = None) -> np.ndarray:
        """Return the steps, without the initialisation.

        Parameters
        ----------
        total : int or None, default=None
            Last step; used where the attribute is None.

        Returns
        -------
        ndarray of int64, shape (n_steps,)
            Ascending, each once.

        Raises
        ------
        ValueError
            If neither is given.
        """
        last = self.total or total
        if last is None:
            raise ValueError(
                f"LogSpaced(n={self.n}) does not know the last step. Pass it: "
                f"LogSpaced({self.n}, total=10_000)."
            )
        exponents = np.arange(self.n) / (self.n - 1)
        return np.unique(np.rint(float(last) ** exponents).astype(np.int64))


@dataclass(frozen=True)
class Displacement:
    """Record when the parameters have moved by a given length since the last row.

    Attributes
    ----------
    delta : float
        Length above 0, in units of the parameters that ``parameters`` selects.
    along : {"line", "path"}, default="line"
        "line": record when the straight distance from the last recorded row reaches ``delta``.
        "path": when the sum of the lengths of the steps since it does, which counts the noise of
        small batches too.

    Raises
    ------
    ValueError
        If ``delta`` is not above 0, or ``along`` is something else.

    See Also
    --------
    LogSpaced : Record at steps whose logarithms are evenly spaced.
    WallClock : Record when a given time has passed.

    Examples
    --------
    >>> from skdmap import Displacement
    >>> Displacement(0.5).is_reached(distance=0.4, path=0.9)
    False
    >>> Displacement(0.5, along="path").is_reached(distance=0.4, path=0.9)
    True
    """

    delta: float
    along: str = "line"

    def __post_init__(self) -> None:
        """Check the values."""
        if not isinstance(self.delta, Real) or not 0 < self.delta < float("inf"):
            raise ValueError(
                f"Displacement: delta={self.delta!r} must be a finite number > 0, a length in "
                "units of the parameters."
            )
        if self.along not in ("line", "path"):
            raise ValueError(f"Displacement: along={self.along!r} must be 'line' or 'path'.")

    def is_reached(self, *, distance: float, path: float) -> bool:
        """Return whether a row is due.

        Parameters
        ----------
        distance : float
            Straight distance from the last recorded row.
        path : float
            Sum of the lengths of the steps since it.

        Returns
        -------
        bool
            True when the length that ``along`` selects is at least ``delta``.
        """
        return (distance if self.along == "line" else path) >= self.delta


@dataclass(frozen=True)
class WallClock:
    """Record when a given time has passed since the last row.

    The initialisation and the last step are recorded too. A step is recorded as a whole: a row
    comes at the first step that begins after the time has passed. Which steps are rows depends on
    the speed of the machine, so a recording does not repeat them, and neither does one that is
    resumed; each row is the same at its step.

    Attributes
    ----------
    seconds : float
        Time above 0 since the last row, while training runs.

    Raises
    ------
    ValueError
        If ``seconds`` is not above 0.

    See Also
    --------
    LogSpaced : Record at steps whose logarithms are evenly spaced.
    Displacement : Record when the parameters have moved by a given length.

    Examples
    --------
    >>> from skdmap import WallClock
    >>> WallClock(60)  # a row a minute
    WallClock(seconds=60)
    """

    seconds: float

    def __post_init__(self) -> None:
        """Check the value."""
        is_number = isinstance(self.seconds, Real) and not isinstance(self.seconds, bool)
        if not is_number or not 0 < self.seconds < float("inf"):
            raise ValueError(
                f"WallClock: seconds={self.seconds!r} must be a finite number > 0, the time "
                "between rows in seconds."
            )


class RowTimer:
    """The time since the last row, which decides under WallClock and is never due otherwise."""

    def __init__(self, record_every: Any, waited: float = 0.0) -> None:
        self._clock = record_every if isinstance(record_every, WallClock) else None
        self._begin = monotonic() - waited

    @property
    def waited(self) -> float:
        """Seconds since the last row."""
        return monotonic() - self._begin

    @property
    def is_due(self) -> bool:
        """Whether the time for a row has come."""
        return self._clock is not None and self.waited >= self._clock.seconds

    def restart(self) -> None:
        """Begin to measure from a row."""
        self._begin = monotonic()


def explicit_steps(record_every: Any) -> tuple[int, ...] | None:
    """Return a sequence of steps as integers, or None for another cadence.
    An InvalidParameterError where the steps are not integers >= 0 in ascending order.
    """
    if isinstance(record_every, str) or not isinstance(record_every, Sized):
        return None
    steps = np.asarray(record_every)
    remedy = "Pass integers >= 0 in ascending order, each once, as in [0, 10, 100]."
    if steps.ndim != 1 or len(steps) == 0 or steps.dtype.kind not in "iu":
        what = f"shape {steps.shape} and dtype {steps.dtype}"
        raise InvalidParameterError(
            f"record_every has {what}; it must be a non-empty sequence of steps. {remedy}"
        )
    listed = [int(step) for step in steps]
    if listed[0] < 0:
        raise InvalidParameterError(f"record_every contains the step {listed[0]}. {remedy}")
    for place, (before, after) in enumerate(pairwise(listed), start=1):
        if after <= before:
            raise InvalidParameterError(
                f"record_every[{place}]={after} follows {before}; it must be larger. {remedy}"
            )
    return tuple(listed)


def check_reached(record_every: Any, n_steps: int) -> None:
    """Raise for a sequence of steps that holds one which a run of ``n_steps`` does not reach."""
    steps = explicit_steps(record_every)
    if steps is not None and steps[-1] > n_steps:
        raise InvalidParameterError(
            f"record_every contains the step {steps[-1]}, but the run has {n_steps} steps. Leave "
            "out the later ones, or raise max_epochs or max_steps."
        )


def count_steps(
    steps_per_epoch: int, max_epochs: int | None, max_steps: int | None, burn_in: int = 0
) -> int:
    """Return the number of steps of a run, at least 1: whichever of the two limits comes first."""
    limits = [] if max_steps is None else [int(max_steps)]
    if max_epochs is not None:
        limits.append(int(max_epochs) * steps_per_epoch)
    if not limits:
        raise ValueError(
            "max_epochs=None and max_steps=None: training would never end. Set one of them to an "
            "integer >= 1."
        )
    n_steps = min(limits)
    if burn_in > n_steps:
        raise ValueError(
            f"burn_in={burn_in} must be at most the number of steps, {n_steps}. Lower it, or raise "
            "max_epochs or max_steps."
        )
    return n_steps


def recorded_steps(
    record_every: Any, *, first: int, last: int, steps_per_epoch: int, burn_in: int = 0
) -> np.ndarray:
    """Return the steps in [first, last] that are recorded by number, ascending.
    ``last`` is among them; no step before ``burn_in`` is. "epoch" counts from ``first``.
    """
    explicit = explicit_steps(record_every)
    if explicit is not None:
        steps = np.array([s for s in explicit if first <= s < last], dtype=np.int64)
    elif isinstance(record_every, WallClock):
        steps = np.array([burn_in] if first <= burn_in else [], dtype=np.int64)
    elif isinstance(record_every, Displacement):
        steps = np.array([0] if first == 0 else [], dtype=np.int64)
    elif isinstance(record_every, LogSpaced):
        steps = np.append(np.int64(0), record_every.steps(last))
        steps = steps[(steps >= first) & (steps < last)]
    elif record_every == "epoch":
        steps = np.arange(first, last, steps_per_epoch, dtype=np.int64)
    else:
        # Multiples are counted from step 0, whatever burn_in is, so that a burn-in only drops rows.
        every = int(record_every)
        steps = np.arange(-(-first // every) * every, last, every, dtype=np.int64)
    steps = np.append(steps[steps < last], np.int64(last))
    return steps[steps >= burn_in]


def due_by_step(record_every: Any) -> Callable[[int], bool]:
    """Return the function that says whether a step is recorded by its number."""
    explicit = explicit_steps(record_every)
    if explicit is not None:
        return set(explicit).__contains__
    if isinstance(record_every, (Displacement, WallClock)):
        return lambda step: False
    if isinstance(record_every, LogSpaced):
        return {0, *record_every.steps().tolist()}.__contains__
    every = int(record_every)
    return lambda step: step % every == 0
