"""A test of low dimension: a statistic of a trajectory compared with null models."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skdmap._argument_checks import check_choice, check_count, check_number
from skdmap._progress import progress
from skdmap._sklearn_compat import InvalidParameterError
from skdmap.diagnostics._confidence_interval import mean_interval
from skdmap.diagnostics._dense_diffusion_map import distances_from_steps, squared_distances
from skdmap.diagnostics._dimension_claims import CLAIMS, DimensionClaims, dimension_claims
from skdmap.diagnostics._effective_dimension import default_lags, of_steps
from skdmap.diagnostics._null_models.models import NULL_MODELS, null_generator, run_surrogates
from skdmap.diagnostics._null_models.recorded_steps import RecordedSteps, recorded_steps
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
    >>> walk = random_walk(100, 500, random_state=0)
    >>> test = dimension_test(walk, null="ar1", random_state=0)
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
        open_questions = (
            f"A rejection of this null may also come from {NULL_MODELS[self.null].rejects_too}; "
            f"this statistic does not see {chosen.misses}."
        )
        return f"{words}; {null}. {verdict} {open_questions}"

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

    def of_kept_steps(self) -> "ThinRun":
        """Return the run of the snapshots kept alone, whose steps lead from one to the next."""
        points = np.tri(len(self.gram) + 1, len(self.gram), -1)[self.kept]
        between = np.diff(points, axis=0)
        return ThinRun(between @ self.gram @ between.T, np.arange(len(self.kept)))


def thin_runs(
    snapshots: Any, run_ids: ArrayLike | None, n_rows: int
) -> tuple[list[ThinRun], np.ndarray, int]:
    """Return runs thinned to ``n_rows`` evenly spaced snapshots, their labels, and n_parameters."""
    recorded = recorded_steps(snapshots, run_ids)
    return _thinned(recorded, n_rows), recorded.labels, recorded.n_columns


def _thinned(recorded: RecordedSteps, n_rows: int) -> list[ThinRun]:
    runs = []
    for run, rows in enumerate(recorded.rows):
        kept = np.unique(np.linspace(0, len(rows) - 1, min(n_rows, len(rows))).round().astype(int))
        runs.append(ThinRun(recorded.run_gram(run), kept))
    return runs


def dimension_test(
    snapshots: Any,
    *,
    run_ids: ArrayLike | None = None,
    n_surrogates: int = 99,
    statistic: str | None = None,
    null: str = "all",
    n_rows: int = 200,
    confidence: float = 0.95,
    random_state: Any = None,
) -> DimensionTest | DimensionClaims:
    """Test whether a trajectory has fewer dimensions than noise, or is more than a linear process.

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
        Number of surrogates; with 99, the smallest possible p-value is 0.01, and 0.02 after the
        correction of "all" for its two claims.
    statistic : str, default=None
        For one null model, the statistic, and whether large or small values indicate a low
        dimension. None is "isotonic".

        * "isotonic": the share of the variance of log d^2 over pairs of snapshots that no monotone
          function of the quadratic variation between them explains (large). It has the right size
          for walks with momentum, decaying steps and drift, and detects paths that return: loops,
          spirals, paths on a surface. It also rejects walks for open paths whose share of drift in
          a step changes along the run;
        * "effective_dimension": that of the steps, see :func:`effective_dimension` (small);
        * "recurrence": how near the path comes to places of other times: the median over rows of
          log(median distance / distance to the nearest row that is more than a twentieth of the run
          away), in the two leading principal components (large);
        * "gap": the largest drop among the ten leading diffusion eigenvalues (large);
        * "participation": (sum of eigenvalues)^2 / sum of their squares (small);
        * "slope": the slope dimension of the kernel sum (small);
        * "non_harmonic": the sum of the residuals of :func:`harmonic_residuals` over five
          coordinates, about the number of independent coordinates (large).

        The diffusion maps use all pairs, alpha 1 and h^2 = half the median squared distance.
    null : str, default="all"
        "all" for both claims, or one null model, see :func:`surrogate_trajectories`. Each rejects
        more than low-dimensional paths: ``summary()`` says what. Against "random_walk", the
        statistics "participation" and "slope" reject every run with momentum or drift; "ar1"
        rejects stationary noise.
    n_rows : int, default=200
        Longer runs are thinned to this many evenly spaced snapshots; at least 20. For a single
        null model, surrogates have the lengths of all steps; for "all", those of the steps between
        the remaining snapshots.
    confidence : float, default=0.95
        Level of the confidence intervals, in (0, 1).
    random_state : int, RandomState instance, Generator or None, default=None
        Seed of the surrogates.

    Returns
    -------
    DimensionClaims or DimensionTest
        The claims and their tests, or for one null model statistic, envelope, p-value and
        confidence interval; ``summary()`` describes them.

    Raises
    ------
    ValueError
        If an argument is out of range, shapes do not match, an entry is not finite, a run has
        fewer than five snapshots or never moves, or a statistic is chosen for "all".

    See Also
    --------
    skdmap.plotting.DimensionTestDisplay : Plot of the result.
    null_envelope : Eigenvalues of a trajectory compared with those of its surrogates.

    effective_dimension : The number of dimensions, with an interval, at each lag.

    References
    ----------
    Theiler, J. et al. (1992). Testing for nonlinearity in time series: the method of surrogate
    data. Physica D 58, 77-94. https://doi.org/10.1016/0167-2789(92)90102-S

    Examples
    --------
    Three turns on a circle that lies in 300 dimensions, with noise:

    >>> import numpy as np
    >>> from skdmap.diagnostics import dimension_test
    >>> angle = np.linspace(0, 6 * np.pi, 120)
    >>> X = 0.01 * np.random.default_rng(0).standard_normal((120, 300))
    >>> X[:, :2] += np.column_stack([np.cos(angle), np.sin(angle)])
    >>> dimension_test(X, random_state=0).level
    'beyond_linear'
    >>> dimension_test(X, null="ar1", random_state=0).p_value
    0.01
    """
    is_all = isinstance(null, str) and null == "all"
    null = check_choice("null", null, ["all", *NULL_MODELS])
    if statistic is not None:
        statistic = check_choice("statistic", statistic, STATISTICS)
    if is_all and statistic is not None:
        raise InvalidParameterError(
            f"statistic={statistic!r} needs one null model; null='all' has statistics of its own. "
            "Pass null='ar1' or another with it, or leave statistic out."
        )
    n_surrogates = check_count("n_surrogates", n_surrogates)
    n_rows = check_count("n_rows", n_rows, minimum=20)
    confidence = check_number("confidence", confidence, low=0.0, high=1.0)
    generator = null_generator(random_state)
    recorded = recorded_steps(snapshots, run_ids)
    runs = _thinned(recorded, n_rows)
    pairs = [(null, statistic or "isotonic")]
    if is_all:
        runs = [run.of_kept_steps() for run in runs]
        pairs = [(null, statistic) for statistic, nulls in CLAIMS.values() for null in nulls]
    tests = []
    with progress(len(pairs) * n_surrogates * len(runs), "dimension_test", verbose=None) as bar:
        for name, chosen in pairs:
            drawn = _of_surrogates(
                chosen, runs, recorded.n_columns, name, n_surrogates, generator, bar
            )
            tests.append(_compared(runs, recorded.labels, name, chosen, drawn, confidence))
    if not is_all:
        return tests[0]
    lags = default_lags(min(len(rows) for rows in recorded.rows))
    return dimension_claims(tuple(tests), of_steps(recorded, lags, confidence), recorded.n_columns)


def _compared(
    runs: list[ThinRun],
    labels: np.ndarray,
    null: str,
    statistic: str,
    drawn: np.ndarray,
    confidence: float,
) -> DimensionTest:
    """Return the record of one statistic and null model, from those (n_surrogates, n_runs)."""
    chosen = STATISTICS[statistic]
    recorded = np.array([chosen.compute(run.distances(), run.elapsed()) for run in runs])
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
    statistic: str,
    runs: list[ThinRun],
    n_columns: int,
    null: str,
    n_surrogates: int,
    generator: np.random.Generator,
    bar: Any,
) -> np.ndarray:
    """Return the statistic (n_surrogates, n_runs) of surrogates of each run."""
    compute = STATISTICS[statistic].compute
    found = np.empty((n_surrogates, len(runs)))
    for number, run in enumerate(runs):
        elapsed = run.elapsed()
        surrogates = run_surrogates(run.gram, n_columns, null, n_surrogates, generator)
        for i, points in enumerate(surrogates):
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
