"""Surrogate trajectories: null models matched to the recorded steps."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skdmap._argument_checks import check_choice, check_count
from skdmap._random import numpy_generator
from skdmap.diagnostics._null_models.fits import (
    drift_cosine,
    drift_profile,
    lag_correlation,
    mean_drift_cosine,
    mean_reversion,
)
from skdmap.diagnostics._null_models.linear import (
    LinearProcess,
    anisotropic_ou,
    anisotropic_walk,
    common_pull,
    factor,
    leading_pull,
    linear,
)
from skdmap.diagnostics._null_models.random_walk import correlated, isotropic_rows, scaled_to
from skdmap.diagnostics._null_models.recorded_steps import RecordedSteps, recorded_steps


@dataclass(frozen=True)
class NullModel:
    """One kind of null model: how surrogate steps of a run are made, and what they preserve."""

    words: str
    rejects_too: str  # what a rejection leaves open, each of them no low dimension by itself
    # From isotropic directions (n_steps + 1, d), the last one for a drift, the step lengths and
    # the fit to surrogate steps (n_steps, d).
    draw: Callable[[np.ndarray, np.ndarray, Any], np.ndarray] | None = None
    # From the recorded steps and a generator to surrogate steps; in place of ``draw``.
    rearrange: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None
    # From the recorded steps to the process that makes surrogate steps; in place of ``draw``.
    process: Callable[[np.ndarray], LinearProcess] | None = None
    # From the Gram matrix of the steps to what ``draw`` preserves, besides their lengths.
    fit: Callable[[np.ndarray], Any] | None = None
    # From the same matrix to the number that summarises the fit, and its name.
    fitted_number: Callable[[np.ndarray], float] | None = None
    number_words: str = ""


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


def _shuffled(steps: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return steps[generator.permutation(len(steps))]


def _flipped(steps: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return steps * generator.choice([-1.0, 1.0], size=len(steps))[:, None]


def _pull(gram: np.ndarray) -> float:
    return mean_reversion(gram)[0]


NULL_MODELS = {
    "random_walk": NullModel(
        "random walks with the recorded step lengths",
        "momentum, a drift, a pull to a centre or unequal variances",
        draw=_walk,
    ),
    "drift": NullModel(
        "random walks with the recorded step lengths and mean direction",
        "momentum, a pull to a centre or unequal variances",
        draw=_drift,
        fit=drift_cosine,
        fitted_number=drift_cosine,
        number_words="cosine of a step with the drift",
    ),
    "decaying_drift": NullModel(
        "random walks with the recorded step lengths and a drift that decays as the recorded one",
        "momentum, a pull to a centre or unequal variances",
        draw=_drift,
        fit=drift_profile,
        fitted_number=mean_drift_cosine,
        number_words="mean cosine of a step with the drift",
    ),
    "ar1": NullModel(
        "walks with the recorded step lengths and correlation of successive steps",
        "a pull to a centre, which all stationary noise has, or unequal variances",
        draw=_ar1,
        fit=lag_correlation,
        fitted_number=lag_correlation,
        number_words="mean cosine of successive steps",
    ),
    "ornstein_uhlenbeck": NullModel(
        "Ornstein-Uhlenbeck paths with the recorded step lengths and pull",
        "momentum or unequal variances",
        draw=_ornstein_uhlenbeck,
        fit=mean_reversion,
        fitted_number=_pull,
        number_words="pull per step",
    ),
    "anisotropic_walk": NullModel(
        "walks with the recorded step lengths, momentum and covariance of steps",
        "a drift or a pull to a centre",
        process=anisotropic_walk,
    ),
    "anisotropic_ou": NullModel(
        "Ornstein-Uhlenbeck paths with the recorded step lengths, momentum, pull and covariance of "
        "residuals",
        "pulls that differ between directions",
        process=anisotropic_ou,
        fitted_number=common_pull,
        number_words="pull per step",
    ),
    "linear": NullModel(
        "linear processes with the recorded step lengths, momentum, covariance of residuals and "
        "pull of each principal component",
        "an oscillation, as momentum makes in steep directions",
        process=linear,
        fitted_number=leading_pull,
        number_words="pull per step of the first component",
    ),
    "shuffled_steps": NullModel(
        "paths of the recorded steps in random order",
        "momentum, a pull to a centre or steps whose length or direction changes along the run",
        rearrange=_shuffled,
    ),
    "sign_flips": NullModel(
        "paths of the recorded steps with random signs",
        "momentum, a drift or a pull to a centre",
        rearrange=_flipped,
    ),
}


def surrogate_trajectories(
    snapshots: Any,
    *,
    kind: str = "ar1",
    n_surrogates: int = 99,
    run_ids: ArrayLike | None = None,
    random_state: Any = None,
) -> Iterator[np.ndarray]:
    """Yield surrogates of a trajectory: null models with the recorded step lengths.

    In each run, a surrogate has the recorded number of steps and the recorded length of each step.
    Runs start as far apart as recorded.

    Parameters
    ----------
    snapshots : array-like of shape (n_snapshots, n_parameters), recording, or list of them
        Snapshots in the order they were recorded, or a recorder, a fitted sampler or a stored
        trajectory.
    kind : str, default="ar1"
        The null model, by what else it preserves:

        * "random_walk": nothing; directions are independent and isotropic;
        * "drift": the mean scalar product of two different steps, by a constant drift;
        * "decaying_drift": a drift in one direction that may decay: its share of a step, averaged
          over about a tenth of the run;
        * "ar1": the mean cosine of successive steps, which momentum raises;
        * "ornstein_uhlenbeck": the pull to a centre, and the distance of the start from it. A path
          that starts far away approaches the centre at a decreasing rate and then fluctuates about
          it; with a pull of 0 it is a walk with a drift;
        * "anisotropic_walk": the covariance of the steps, of which Gaussian combinations are drawn,
          and the correlation of successive steps where it is positive;
        * "anisotropic_ou": in addition one pull to a centre, and the start; the combinations are
          of the residuals;
        * "linear": the same with a pull of its own for each principal component of the path;
        * "shuffled_steps": the steps themselves, in random order;
        * "sign_flips": the steps and their order, each reversed with probability 1/2.

        The first five are isotropic; the direction of a drift is drawn at random. The others
        preserve the space spanned by the steps and, about, their variance in each direction. What
        each cannot tell from structure stands in the user guide, on theory.
    n_surrogates : int, default=99
        Number of surrogates.
    run_ids : array-like of shape (n_snapshots,), default=None
        The run of each snapshot. None means those of the recording, or one run.
    random_state : int, RandomState instance, Generator or None, default=None
        Seed of the draws.

    Returns
    -------
    iterator of ndarray of shape (n_snapshots, n_axes)
        Surrogates, generated on demand, with rows in the order of ``snapshots`` and the origin in
        row 0. They are given in an orthonormal basis of a subspace that contains them, with n_axes
        about min(n_parameters, n_snapshots): distances are those in n_parameters dimensions, and
        their cost does not depend on n_parameters.

    Raises
    ------
    ValueError
        If an argument is out of range, shapes do not match, an entry is not finite, or a run has
        fewer than five snapshots or never moves.

    See Also
    --------
    dimension_test : A statistic of the trajectory compared with that of its surrogates.

    References
    ----------
    Theiler, J. et al. (1992). Testing for nonlinearity in time series: the method of surrogate
    data. Physica D 58, 77-94. https://doi.org/10.1016/0167-2789(92)90102-S

    Lancaster, T. (2002). Orthogonal parameters and panel data. Review of Economic Studies 69,
    647-666. https://doi.org/10.1111/1467-937X.t01-1-00025

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
    kind = check_choice("kind", kind, NULL_MODELS)
    n_surrogates = check_count("n_surrogates", n_surrogates)
    recorded = recorded_steps(snapshots, run_ids)
    return _stacked(recorded, kind, n_surrogates, null_generator(random_state))


def null_generator(random_state: Any) -> np.random.Generator:
    """Return a generator that shares no draws with a trajectory made from the same seed."""
    generator = numpy_generator(random_state)
    return generator if generator is random_state else generator.spawn(1)[0]


def run_surrogates(
    gram: np.ndarray, n_columns: int, kind: str, n_surrogates: int, generator: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield surrogates (n_steps + 1, n_axes) of one run, each starting at the origin."""
    rows = (np.arange(len(gram) + 1),)
    recorded = RecordedSteps(gram, rows, np.zeros(1, dtype=np.intp), n_columns)
    return _stacked(recorded, kind, n_surrogates, generator)


def _stacked(
    recorded: RecordedSteps, kind: str, n_surrogates: int, generator: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield surrogates (n_snapshots, n_axes) of all runs, in the order of the snapshots."""
    n_runs, model = len(recorded.rows), NULL_MODELS[kind]
    starts = factor(recorded.gram[: n_runs - 1, : n_runs - 1])
    fits = [
        None if model.fit is None else model.fit(recorded.run_gram(run)) for run in range(n_runs)
    ]
    given = None if model.draw is not None else factor(recorded.gram)
    simulated = None
    if model.process is not None and given is not None:
        parts = [given[recorded.step_slice(run)] for run in range(n_runs)]
        simulated = _simulated([model.process(part) for part in parts], n_surrogates, generator)
    for _ in range(n_surrogates):
        if given is not None:
            origins = [np.zeros(given.shape[1]), *given[: n_runs - 1]]
            if simulated is not None:
                steps = next(simulated)
            else:
                assert model.rearrange is not None
                steps = [
                    model.rearrange(given[recorded.step_slice(run)], generator)
                    for run in range(n_runs)
                ]
        else:
            steps, n_axes = _drawn_steps(recorded, model, fits, starts.shape[1], generator)
            padded = np.zeros((n_runs, n_axes))
            padded[1:, : starts.shape[1]] = starts
            origins = list(padded)
        surrogate = np.empty((sum(map(len, recorded.rows)), steps[0].shape[1]))
        for rows, origin, of_run in zip(recorded.rows, origins, steps, strict=True):
            surrogate[rows[0]] = origin
            surrogate[rows[1:]] = origin + np.cumsum(of_run, axis=0)
        yield surrogate


def _simulated(
    processes: list[LinearProcess], n_surrogates: int, generator: np.random.Generator
) -> Iterator[list[np.ndarray]]:
    """Yield steps of each run, in the axes of the recorded steps."""
    batch = min(process.batch() for process in processes)
    for first in range(0, n_surrogates, batch):
        size = min(batch, n_surrogates - first)
        drawn = [process.simulate(size, generator) for process in processes]
        for i in range(size):
            yield [steps[i] @ process.axes for steps, process in zip(drawn, processes, strict=True)]


def _drawn_steps(
    recorded: RecordedSteps,
    model: NullModel,
    fits: list[Any],
    n_fixed: int,
    generator: np.random.Generator,
) -> tuple[list[np.ndarray], int]:
    """Return isotropic steps of each run; each run has one more direction, for its drift."""
    assert model.draw is not None
    counts = [len(rows) for rows in recorded.rows]
    directions = isotropic_rows(sum(counts), recorded.n_columns, n_fixed, generator)
    parts = np.split(directions, np.cumsum(counts)[:-1])
    steps = [
        model.draw(part, np.sqrt(np.diag(recorded.run_gram(run))), fits[run])
        for run, part in enumerate(parts)
    ]
    return steps, directions.shape[1]
