"""Recorded steps -> trajectories that share their lengths and nothing else that is asked about."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigh

from skdmap._argument_checks import check_choice, check_count
from skdmap._random import numpy_generator
from skdmap.diagnostics._null_models.null_fits import (
    drift_cosine,
    drift_profile,
    lag_correlation,
    mean_reversion,
)
from skdmap.diagnostics._null_models.random_walk import correlated, isotropic_rows, scaled_to
from skdmap.diagnostics._null_models.recorded_steps import RecordedSteps, recorded_steps

# From the directions of a run (n_steps + 1, d), of which the last is that of a drift, the lengths
# of its steps, and what was fitted to them, to surrogate steps.
Maker = Callable[[np.ndarray, np.ndarray, Any], np.ndarray]
# What a kind keeps of a run, from the scalar products of its steps.
_FIT: dict[str, Callable[[np.ndarray], Any]] = {
    "drift": drift_cosine,
    "decaying_drift": drift_profile,
    "ar1": lag_correlation,
    "ornstein_uhlenbeck": mean_reversion,
}


def _walk(directions: np.ndarray, norms: np.ndarray, fit: None) -> np.ndarray:
    return scaled_to(directions[:-1], norms)


def _drift(directions: np.ndarray, norms: np.ndarray, cosines: float | np.ndarray) -> np.ndarray:
    unit = scaled_to(directions, np.ones(len(directions)))
    share = np.broadcast_to(np.asarray(cosines), norms.shape)[:, None]
    return scaled_to(share * unit[-1] + np.sqrt(1 - share**2) * unit[:-1], norms)


def _ar1(directions: np.ndarray, norms: np.ndarray, correlation: float) -> np.ndarray:
    return scaled_to(correlated(directions[:-1], correlation), norms)


def _ornstein_uhlenbeck(
    directions: np.ndarray, norms: np.ndarray, fit: tuple[float, float]
) -> np.ndarray:
    pull, velocity = fit
    unit = scaled_to(directions, np.ones(len(directions)))
    moved = np.zeros(unit.shape[1])
    steps = np.empty((len(norms), unit.shape[1]))
    for i, norm in enumerate(norms):
        drawn = velocity * unit[-1] - pull * moved
        noise = np.sqrt(max(norm**2 - drawn @ drawn, 0.0))
        step = drawn + noise * unit[i]
        length = np.linalg.norm(step)
        steps[i] = step * (norm / length) if length > 0 else 0.0
        moved = moved + steps[i]
    return steps


_DRAWN: dict[str, Maker] = {
    "random_walk": _walk,
    "drift": _drift,
    "decaying_drift": _drift,
    "ar1": _ar1,
    "ornstein_uhlenbeck": _ornstein_uhlenbeck,
}


def _shuffled(steps: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return steps[generator.permutation(len(steps))]


def _flipped(steps: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return steps * generator.choice([-1.0, 1.0], size=len(steps))[:, None]


_KEEPING: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "shuffled_steps": _shuffled,
    "sign_flips": _flipped,
}
# Each kind, and what it is in words.
KINDS = {
    "random_walk": "random walks with the recorded step lengths",
    "drift": "random walks with the recorded step lengths and mean direction",
    "decaying_drift": "random walks with the recorded step lengths and a drift that dies away as "
    "the recorded one",
    "ar1": "walks with the recorded step lengths and correlation of successive steps",
    "ornstein_uhlenbeck": "Ornstein-Uhlenbeck paths with the recorded step lengths and pull",
    "shuffled_steps": "paths of the recorded steps in random order",
    "sign_flips": "paths of the recorded steps with random signs",
}


def surrogate_trajectories(
    snapshots: ArrayLike,
    *,
    kind: str = "ar1",
    n_surrogates: int = 99,
    run_ids: ArrayLike | None = None,
    random_state: Any = None,
) -> Iterator[np.ndarray]:
    """Yield null models of a trajectory, matched to its step lengths, run by run.

    Each surrogate has the recorded number of steps in each run, each step of its recorded length.
    The runs start as far apart as they did.

    Parameters
    ----------
    snapshots : array-like of shape (n_snapshots, n_parameters)
        Rows in the order in which they were recorded.
    kind : str, default="ar1"
        What else is kept:

        * "random_walk": nothing, directions are independent and isotropic;
        * "drift": the mean direction: the mean scalar product of two different steps;
        * "decaying_drift": a drift in one direction that may die away: its share of a step,
          averaged over about a tenth of the run around it;
        * "ar1": the mean cosine between successive steps, which momentum raises;
        * "ornstein_uhlenbeck": the pull to a centre, and the distance of the start from it. A path
          that starts far away runs there fast, then more and more slowly, and ends in noise about
          it; with a pull of 0 it is a walk with a drift;
        * "shuffled_steps": the steps themselves, in another order;
        * "sign_flips": the steps and their order, each turned round with probability 1/2.

        The first five are isotropic: no direction of the space is preferred, that of a drift is
        drawn. The last two keep the space that the steps span, and how much of them lies in each
        direction.
    n_surrogates : int, default=99
        How many to yield.
    run_ids : array-like of shape (n_snapshots,), default=None
        The run of each row; None is one run.
    random_state : int, RandomState instance, Generator or None, default=None
        Seed of the draws.

    Returns
    -------
    iterator of ndarray of shape (n_snapshots, n_axes)
        One surrogate after the other, rows in the order of ``snapshots``, made when asked for.
        They are written in an orthonormal basis of a space that holds them, n_axes being about
        min(n_parameters, n_snapshots): distances are those in n_parameters dimensions, and a
        million columns cost as much as a thousand. Row 0 is the origin.

    Raises
    ------
    ValueError
        If an argument is out of its range, shapes do not fit, an entry is not finite, or a run
        has fewer than five rows or never moves.

    See Also
    --------
    dimension_test : A statistic of the trajectory beside that of its surrogates.

    References
    ----------
    Theiler, J. et al. (1992). Testing for nonlinearity in time series: the method of surrogate
    data. Physica D 58, 77-94. https://doi.org/10.1016/0167-2789(92)90102-S

    Lancaster, T. (2002). Orthogonal parameters and panel data. Review of Economic Studies 69,
    647-666, whose correction the pull has. https://doi.org/10.1111/1467-937X.t01-1-00025

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.diagnostics import random_walk, surrogate_trajectories
    >>> walk = random_walk(50, 100_000, random_state=0)
    >>> surrogate = next(surrogate_trajectories(walk, kind="random_walk", random_state=0))
    >>> surrogate.shape
    (50, 50)
    >>> lengths = [np.linalg.norm(np.diff(x, axis=0), axis=1) for x in (walk, surrogate)]
    >>> np.allclose(*lengths)
    True
    """
    kind = check_choice("kind", kind, KINDS)
    n_surrogates = check_count("n_surrogates", n_surrogates)
    recorded = recorded_steps(snapshots, run_ids)
    return _stacked(recorded, kind, n_surrogates, null_generator(random_state))


def null_generator(random_state: Any) -> np.random.Generator:
    """Return a generator whose draws no trajectory made with the same seed shares.

    Parameters
    ----------
    random_state : int, RandomState instance, Generator or None
        As everywhere; a Generator is used as it is.

    Returns
    -------
    Generator
        For a seed, a child of the generator that this seed makes elsewhere.
    """
    generator = numpy_generator(random_state)
    return generator if generator is random_state else generator.spawn(1)[0]


def run_surrogates(
    gram: np.ndarray, n_columns: int, kind: str, generator: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield endless surrogates (n_steps + 1, n_axes) of one run.

    Parameters
    ----------
    gram : ndarray of shape (n_steps, n_steps)
        Scalar products of the recorded steps.
    n_columns : int
        Dimension of the space.
    kind : str
        One of ``KINDS``.
    generator : Generator
        Draws.

    Yields
    ------
    ndarray of shape (n_steps + 1, n_axes)
        Places, row 0 being the origin.
    """
    rows = (np.arange(len(gram) + 1),)
    recorded = RecordedSteps(gram, rows, np.zeros(1, dtype=np.intp), n_columns)
    while True:
        yield from _stacked(recorded, kind, 64, generator)


def _stacked(
    recorded: RecordedSteps, kind: str, n_surrogates: int, generator: np.random.Generator
) -> Iterator[np.ndarray]:
    n_runs = len(recorded.rows)
    factor = _factor(recorded.gram) if kind in _KEEPING else None
    starts = _factor(recorded.gram[: n_runs - 1, : n_runs - 1])
    fits = [_FIT[kind](recorded.run_gram(run)) if kind in _FIT else None for run in range(n_runs)]
    for _ in range(n_surrogates):
        if factor is not None:
            places = [np.zeros(factor.shape[1]), *factor[: n_runs - 1]]
            steps = [
                _KEEPING[kind](factor[recorded.step_slice(run)], generator) for run in range(n_runs)
            ]
        else:
            steps, n_axes = _drawn_steps(recorded, kind, fits, starts.shape[1], generator)
            padding = np.zeros((n_runs, n_axes))
            padding[1:, : starts.shape[1]] = starts
            places = list(padding)
        surrogate = np.empty((sum(map(len, recorded.rows)), steps[0].shape[1]))
        for rows, start, moves in zip(recorded.rows, places, steps, strict=True):
            surrogate[rows[0]] = start
            surrogate[rows[1:]] = start + np.cumsum(moves, axis=0)
        yield surrogate


def _drawn_steps(
    recorded: RecordedSteps,
    kind: str,
    fits: list[Any],
    n_fixed: int,
    generator: np.random.Generator,
) -> tuple[list[np.ndarray], int]:
    """Return isotropic steps of each run; each has one more direction for its drift."""
    counts = [len(rows) for rows in recorded.rows]
    directions = isotropic_rows(sum(counts), recorded.n_columns, n_fixed, generator)
    parts = np.split(directions, np.cumsum(counts)[:-1])
    steps = [
        _DRAWN[kind](part, np.sqrt(np.diag(recorded.run_gram(run))), fits[run])
        for run, part in enumerate(parts)
    ]
    return steps, directions.shape[1]


def _factor(gram: np.ndarray) -> np.ndarray:
    """Return rows (n, rank) with these scalar products."""
    if len(gram) == 0:
        return np.zeros((0, 0))
    values, vectors = eigh(gram)
    kept = values > len(gram) * np.finfo(np.float64).eps * values[-1]
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))
