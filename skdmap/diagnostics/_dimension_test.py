"""A test of low dimension: a statistic of a trajectory compared with null models."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skdmap._argument_checks import check_choice, check_count, check_number
from skdmap._progress import progress
from skdmap.diagnostics._confidence_interval import mean_interval
from skdmap.diagnostics._dense_diffusion_map import distances_from_steps, squared_distances
from skdmap.diagnostics._null_models.models import NULL_MODELS, null_generator, run_surrogates
from skdmap.diagnostics._null_models.recorded_steps import recorded_steps
from skdmap.diagnostics._statistics import STATISTICS, elapsed_variation


@dataclass(frozen=True)
class DimensionTest:
    """A statistic of a trajectory, compared with that of its surrogates.

    Attributes
    ----------
    statistic : float
        Mean of the statistic over the runs.
    envelope : ndarray of shape (2,)
        The 2.5 and 97.5 % quantiles of the surrogates' statistic.
    p_value : float
        Share of surrogates that look at least as low-dimensional, the trajectory itself included:
        at least 1 / (n_surrogates + 1).
    confidence_interval : ndarray of shape (2,)
        Of the mean over runs, by Student's t for independent runs; nan for fewer than three. It is
        computed for the logit of the mean (its logarithm without an upper bound), by the delta
        method, so that it stays within the range of the statistic.
    run_statistics : ndarray of shape (n_runs,)
        The statistic of each run.
    run_p_values : ndarray of shape (n_runs,)
        The p-value of each run alone.
    run_labels : ndarray of shape (n_runs,)
        The labels in ``run_ids``, in the order of their first snapshots.
    surrogate_statistics : ndarray of shape (n_surrogates,)
        Mean over the runs, for each set of surrogates.
    null_fits : ndarray of shape (n_runs,)
        What the surrogates of each run share with it besides step lengths: the mean cosine of
        successive steps ("ar1"), the cosine of a step with the drift ("drift"; for
        "decaying_drift" its mean, weighted by length), or the pull per step
        ("ornstein_uhlenbeck"). nan for the other null models.
    statistic_name : str
        The statistic.
    null : str
        The null model.
    confidence : float
        Level of the confidence interval.
    n_rows : int
        The largest number of snapshots of a run that were used.

    Examples
    --------
    >>> from skdmap.diagnostics import dimension_test, random_walk
    >>> test = dimension_test(random_walk(100, 500, random_state=0), random_state=0)
    >>> bool(test.envelope[0] < test.statistic < test.envelope[1])
    True
    """

    statistic: float
    envelope: np.ndarray
    p_value: float
    confidence_interval: np.ndarray
    run_statistics: np.ndarray
    run_p_values: np.ndarray
    run_labels: np.ndarray
    surrogate_statistics: np.ndarray
    null_fits: np.ndarray
    statistic_name: str
    null: str
    confidence: float
    n_rows: int

    def summary(self) -> str:
        """Describe the result in words.

        Returns
        -------
        str
            A few sentences.
        """
        chosen = STATISTICS[self.statistic_name]
        n_runs, n_surrogates = len(self.run_statistics), len(self.surrogate_statistics)
        scope = " on average over the runs" if n_runs > 1 else ""
        words = f"{chosen.words[0].upper()}{chosen.words[1:]} is {self.statistic:.3g}{scope}"
        low, high = self.confidence_interval
        if np.isfinite(low):
            level = f"{100 * self.confidence:g} % interval over {n_runs} runs"
            words += f" ({level} {low:.3g} to {high:.3g})"
        null = f"{n_surrogates} {NULL_MODELS[self.null].words}{self._fitted()} give "
        null += f"{self.envelope[0]:.3g} to {self.envelope[1]:.3g} (95 % of them)"
        if self.p_value <= 0.05:
            verdict = f"The null model is rejected (p = {self.p_value:.3g})."
        else:
            verdict = (
                f"The null model is not rejected (p = {self.p_value:.3g}): by this statistic, the "
                "trajectory is no more low-dimensional than its surrogates."
            )
            low, high = self.envelope
            if not low <= self.statistic <= high:
                verdict += (
                    " The test is one-sided; the value lies outside that range on the other side, "
                    "so the surrogates do not resemble the trajectory either."
                )
        if n_runs > 1:
            verdict += (
                f" Tested separately, {np.sum(self.run_p_values <= 0.05)} of {n_runs} runs reject "
                "it."
            )
        return f"{words}; {null}. {verdict}"

    def _fitted(self) -> str:
        words = NULL_MODELS[self.null].number_words
        if not words:
            return ""
        low, high = self.null_fits.min(), self.null_fits.max()
        found = f"{low:.2g}" if f"{low:.2g}" == f"{high:.2g}" else f"{low:.2g} to {high:.2g}"
        return f" ({words}: {found})"


@dataclass(frozen=True)
class ThinRun:
    """One run, of which only some snapshots are used."""

    gram: np.ndarray  # (n_steps, n_steps), scalar products of all steps
    kept: np.ndarray  # indices of the snapshots used

    def distances(self) -> np.ndarray:
        """Return the squared distances (n_kept, n_kept) of the snapshots kept."""
        return distances_from_steps(self.gram, self.kept)

    def elapsed(self) -> np.ndarray:
        """Return the quadratic variation (n_kept,) at the snapshots kept."""
        return elapsed_variation(np.sqrt(np.diag(self.gram)))[self.kept]


def thin_runs(
    snapshots: Any, run_ids: ArrayLike | None, n_rows: int
) -> tuple[list[ThinRun], np.ndarray, int]:
    """Return runs thinned to ``n_rows`` evenly spaced snapshots, their labels, and n_parameters."""
    recorded = recorded_steps(snapshots, run_ids)
    runs = []
    for run, rows in enumerate(recorded.rows):
        kept = np.unique(np.linspace(0, len(rows) - 1, min(n_rows, len(rows))).round().astype(int))
        runs.append(ThinRun(recorded.run_gram(run), kept))
    return runs, recorded.labels, recorded.n_columns


def dimension_test(
    snapshots: Any,
    *,
    run_ids: ArrayLike | None = None,
    n_surrogates: int = 99,
    statistic: str = "isotonic",
    null: str = "ar1",
    n_rows: int = 200,
    confidence: float = 0.95,
    random_state: Any = None,
) -> DimensionTest:
    """Test whether a trajectory is more low-dimensional than a null model.

    Even a plain random walk in a thousand dimensions has a gap in its diffusion eigenvalues, and
    three principal components hold 80 % of its variance. A statistic is therefore compared with
    that of surrogates. It is computed for each run and averaged.

    Parameters
    ----------
    snapshots : array-like of shape (n_snapshots, n_parameters), recording, or list of them
        Snapshots in the order they were recorded, or a recorder, a fitted sampler or a stored
        trajectory.
    run_ids : array-like of shape (n_snapshots,), default=None
        The run of each snapshot. None means those of the recording, or one run.
    n_surrogates : int, default=99
        Number of surrogates; with 99, the smallest possible p-value is 0.01.
    statistic : str, default="isotonic"
        The statistic, and whether large or small values indicate a low dimension:

        * "isotonic": the share of the variance of log d^2 over pairs of snapshots that no monotone
          function of the quadratic variation between them explains (large). It has the right size
          for walks with momentum, decaying steps and drift, and detects paths that return: loops,
          spirals, paths on a surface. It also rejects walks for open paths whose share of drift in
          a step changes along the run;
        * "gap": the largest drop among the ten leading diffusion eigenvalues (large);
        * "participation": (sum of eigenvalues)^2 / sum of their squares (small);
        * "slope": the slope dimension of the kernel sum (small);
        * "non_harmonic": the sum of the residuals of :func:`harmonic_residuals` over five
          coordinates, about the number of independent coordinates (large).

        The diffusion maps use all pairs, alpha 1 and h^2 = half the median squared distance.
    null : str, default="ar1"
        The null model, see :func:`surrogate_trajectories`. Against "random_walk", the statistics
        "participation" and "slope" reject every run with momentum or drift.
    n_rows : int, default=200
        Longer runs are thinned to this many evenly spaced snapshots, after the surrogates were
        matched to all steps; at least 20.
    confidence : float, default=0.95
        Level of the confidence interval over runs, in (0, 1).
    random_state : int, RandomState instance, Generator or None, default=None
        Seed of the surrogates.

    Returns
    -------
    DimensionTest
        Statistic, envelope, p-value and confidence interval; ``summary()`` describes them.

    Raises
    ------
    ValueError
        If an argument is out of range, shapes do not match, an entry is not finite, or a run has
        fewer than five snapshots or never moves.

    See Also
    --------
    skdmap.plotting.DimensionTestDisplay : Plot of the result.
    null_envelope : Eigenvalues of a trajectory compared with those of its surrogates.

    References
    ----------
    Theiler, J. et al. (1992). Testing for nonlinearity in time series: the method of surrogate
    data. Physica D 58, 77-94. https://doi.org/10.1016/0167-2789(92)90102-S

    Examples
    --------
    Three turns on a circle that lies in 300 dimensions:

    >>> import numpy as np
    >>> from skdmap.diagnostics import dimension_test
    >>> angle = np.linspace(0, 6 * np.pi, 120)
    >>> plane = np.linalg.qr(np.random.default_rng(0).standard_normal((300, 2)))[0]
    >>> X = np.column_stack([np.cos(angle), np.sin(angle)]) @ plane.T
    >>> dimension_test(X, random_state=0).p_value
    0.01
    """
    statistic = check_choice("statistic", statistic, STATISTICS)
    null = check_choice("null", null, NULL_MODELS)
    n_surrogates = check_count("n_surrogates", n_surrogates)
    n_rows = check_count("n_rows", n_rows, minimum=20)
    confidence = check_number("confidence", confidence, low=0.0, high=1.0)
    generator = null_generator(random_state)
    runs, labels, n_columns = thin_runs(snapshots, run_ids, n_rows)
    chosen = STATISTICS[statistic]
    recorded = np.array([chosen.compute(run.distances(), run.elapsed()) for run in runs])
    drawn = _of_surrogates(chosen.compute, runs, n_columns, null, n_surrogates, generator)
    means = drawn.mean(axis=1)
    mean = float(recorded.mean())
    return DimensionTest(
        statistic=mean,
        envelope=np.quantile(means, [0.025, 0.975]),
        p_value=surrogate_p_value(mean, means, chosen.sign),
        confidence_interval=mean_interval(recorded, confidence, chosen.bounds),
        run_statistics=recorded,
        run_p_values=np.array(
            [surrogate_p_value(x, s, chosen.sign) for x, s in zip(recorded, drawn.T, strict=True)]
        ),
        run_labels=labels,
        surrogate_statistics=means,
        null_fits=_fitted_numbers(runs, null),
        statistic_name=statistic,
        null=null,
        confidence=confidence,
        n_rows=max(len(run.kept) for run in runs),
    )


def _fitted_numbers(runs: list[ThinRun], null: str) -> np.ndarray:
    fitted = NULL_MODELS[null].fitted_number
    return np.array([np.nan if fitted is None else fitted(run.gram) for run in runs])


def _of_surrogates(
    compute: Callable[[np.ndarray, np.ndarray], float],
    runs: list[ThinRun],
    n_columns: int,
    null: str,
    n_surrogates: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Return the statistic (n_surrogates, n_runs) of surrogates of each run."""
    found = np.empty((n_surrogates, len(runs)))
    with progress(found.size, "dimension_test", verbose=None) as bar:
        for number, run in enumerate(runs):
            elapsed = run.elapsed()
            surrogates = run_surrogates(run.gram, n_columns, null, generator)
            for i in range(n_surrogates):
                points = next(surrogates)
                # Only this null model changes the order of the step lengths.
                if null == "shuffled_steps":
                    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
                    elapsed = elapsed_variation(lengths)[run.kept]
                found[i, number] = compute(squared_distances(points[run.kept]), elapsed)
                bar.update()
    return found


def surrogate_p_value(value: float, surrogates: np.ndarray, sign: int) -> float:
    """Return (1 + number of surrogates at least as extreme) / (1 + n_surrogates).
    ``sign`` is 1 if large values speak against the null model, -1 if small values do.
    """
    # Differences at rounding level are ties, which count against a rejection.
    slack = 1e-9 * (abs(value) + np.finfo(np.float64).eps)
    extreme = np.count_nonzero(sign * surrogates >= sign * value - slack)
    return float((1 + extreme) / (1 + len(surrogates)))
