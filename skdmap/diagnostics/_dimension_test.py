"""Snapshots -> a statistic of their low dimension beside that of null models."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from skdmap._argument_checks import check_choice, check_count, check_number
from skdmap.diagnostics._null_models.null_fits import FITS
from skdmap.diagnostics._null_models.recorded_steps import recorded_steps
from skdmap.diagnostics._null_models.surrogates import KINDS, null_generator, run_surrogates
from skdmap.diagnostics._run_interval import interval_over_runs
from skdmap.diagnostics._small_map import squared_distances
from skdmap.diagnostics._statistics import STATISTICS, elapsed_variation


@dataclass(frozen=True)
class DimensionTest:
    """A statistic of a trajectory, and what it is for surrogates.

    Attributes
    ----------
    statistic : float
        Mean of the statistic over the runs.
    envelope : ndarray of shape (2,)
        The 2.5 and 97.5 % quantiles of the surrogates' statistic.
    p_value : float
        Share of surrogates at least as far on the side of a low dimension, the trajectory itself
        counted: the least possible is 1 / (n_surrogates + 1).
    confidence_interval : ndarray of shape (2,)
        Of the mean over runs, by Student's t with the runs as independent draws; nan for fewer than
        three runs, of which no interval can be given in earnest. The statistic has a range, and the
        interval stays within: it is made for the logit of the mean (its logarithm where there is no
        upper bound), whose standard error follows by the delta method, and taken back.
    run_statistics : ndarray of shape (n_runs,)
        The statistic of each run.
    run_p_values : ndarray of shape (n_runs,)
        The p-value of each run by itself.
    run_labels : ndarray of shape (n_runs,)
        The labels in ``run_ids``, in the order of their first rows.
    surrogate_statistics : ndarray of shape (n_surrogates,)
        Means over the runs of each set of surrogates.
    null_fits : ndarray of shape (n_runs,)
        What the surrogates of each run share with it beside step lengths: the mean cosine of
        successive steps ("ar1"), the cosine of a step with the drift ("drift"; its mean over the
        run, weighted by length, for "decaying_drift"), the pull per step ("ornstein_uhlenbeck"); at
        0 they are plain walks, or walks with a drift for the last. nan for the other kinds.
    statistic_name : str
        Which statistic.
    null : str
        Which surrogates.
    confidence : float
        Level of the confidence interval.
    n_rows : int
        The largest number of rows of a run that were used.

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
        """Return the finding in plain sentences.

        Returns
        -------
        str
            Computed from the attributes.
        """
        chosen = STATISTICS[self.statistic_name]
        n_runs, n_surrogates = len(self.run_statistics), len(self.surrogate_statistics)
        place = "in the mean over the runs" if n_runs > 1 else "in the run"
        words = f"{chosen.words[0].upper()}{chosen.words[1:]} is {self.statistic:.3g} {place}"
        low, high = self.confidence_interval
        if np.isfinite(low):
            level = f"{100 * self.confidence:g} % interval over {n_runs} runs"
            words += f" ({level} {low:.3g} to {high:.3g})"
        null = f"{n_surrogates} {KINDS[self.null]}{self._fitted()} give "
        null += f"{self.envelope[0]:.3g} to {self.envelope[1]:.3g} (95 % of them)"
        if self.p_value <= 0.05:
            verdict = f"The null model is rejected (p = {self.p_value:.3g})."
        else:
            verdict = (
                f"The null model is not rejected (p = {self.p_value:.3g}): by this statistic the "
                "trajectory is no more low-dimensional than such a path."
            )
            low, high = self.envelope
            if not low <= self.statistic <= high:
                verdict += (
                    " The test is one-sided, and the value lies outside of that range on the other "
                    "side: such paths do not look like the trajectory either."
                )
        if n_runs > 1:
            verdict += (
                f" Taken alone, {np.sum(self.run_p_values <= 0.05)} of {n_runs} runs reject it."
            )
        return f"{words}; {null}. {verdict}"

    def _fitted(self) -> str:
        if self.null not in FITS:
            return ""
        low, high = self.null_fits.min(), self.null_fits.max()
        found = f"{low:.2g}" if f"{low:.2g}" == f"{high:.2g}" else f"{low:.2g} to {high:.2g}"
        return f" ({FITS[self.null][1]}: {found})"


@dataclass(frozen=True)
class ThinRun:
    """One run, thinned to a few hundred rows.

    Attributes
    ----------
    gram : ndarray of shape (n_steps, n_steps)
        Scalar products of all its steps.
    kept : ndarray of shape (n_kept,)
        Which of its n_steps + 1 places are looked at.
    """

    gram: np.ndarray
    kept: np.ndarray

    def distances(self) -> np.ndarray:
        """Return the squared distances (n_kept, n_kept) of the recorded places."""
        places = np.tri(len(self.gram) + 1, len(self.gram), -1)[self.kept]
        products = places @ self.gram @ places.T
        squared = np.diag(products)
        distances = squared[:, None] + squared - 2 * products
        np.fill_diagonal(distances, 0.0)
        return np.maximum(distances, 0.0)

    def elapsed(self) -> np.ndarray:
        """Return the quadratic variation (n_kept,) at the places."""
        return elapsed_variation(np.sqrt(np.diag(self.gram)))[self.kept]


def thin_runs(
    snapshots: ArrayLike, run_ids: ArrayLike | None, n_rows: int
) -> tuple[list[ThinRun], np.ndarray, int]:
    """Return the runs, their labels and the number of columns.

    Parameters
    ----------
    snapshots : array-like of shape (n_snapshots, n_parameters)
        Rows in the order in which they were recorded.
    run_ids : array-like of shape (n_snapshots,) or None
        The run of each row.
    n_rows : int
        Longer runs are thinned to so many rows, evenly spaced.

    Returns
    -------
    tuple of list of ThinRun, ndarray of shape (n_runs,) and int
        Runs, labels, columns.
    """
    recorded = recorded_steps(snapshots, run_ids)
    runs = []
    for run, rows in enumerate(recorded.rows):
        kept = np.unique(np.linspace(0, len(rows) - 1, min(n_rows, len(rows))).round().astype(int))
        runs.append(ThinRun(recorded.run_gram(run), kept))
    return runs, recorded.labels, recorded.n_columns


def dimension_test(
    snapshots: ArrayLike,
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

    A plain random walk in a thousand dimensions already has diffusion eigenvalues with a gap, and
    three principal components that hold 80 % of its variance. So a statistic is worth what it is
    beside that of surrogates. It is computed run by run and averaged.

    Parameters
    ----------
    snapshots : array-like of shape (n_snapshots, n_parameters)
        Rows in the order in which they were recorded; may be a memory map, or a sketch.
    run_ids : array-like of shape (n_snapshots,), default=None
        The run of each row; None is one run.
    n_surrogates : int, default=99
        How many surrogates; with 99 the least p-value is 0.01.
    statistic : str, default="isotonic"
        What is compared, and what speaks for a low dimension:

        * "isotonic": the share of the variance of log d^2 over pairs of rows that no monotone
          function of the quadratic variation elapsed between them explains (large). It keeps its
          size for walks with momentum, decaying steps and drift, and finds paths that come back:
          loops, spirals, paths that wander on a surface. Against walks it also rejects open paths
          in which the share of drift in a step changes along the run;
        * "gap": the largest drop among the ten leading diffusion eigenvalues (large);
        * "participation": (sum of eigenvalues)^2 / sum of their squares (small);
        * "slope": the slope dimension of the kernel sum (small);
        * "non_harmonic": the sum of the residuals of :func:`harmonic_residuals` over five
          coordinates, about the number of those that are no functions of the ones before (large).

        The diffusion maps have all pairs, alpha 1 and h^2 = half the median squared distance.
    null : str, default="ar1"
        The kind of surrogates, see :func:`surrogate_trajectories`. Against "random_walk" the
        statistics "participation" and "slope" reject every run with momentum or drift.
    n_rows : int, default=200
        Longer runs are thinned to so many rows, evenly spaced, after surrogates were matched to
        all steps; at least 20.
    confidence : float, default=0.95
        Level of the confidence interval over runs, in (0, 1).
    random_state : int, RandomState instance, Generator or None, default=None
        Seed of the surrogates.

    Returns
    -------
    DimensionTest
        Statistic, envelope, p-value, confidence interval; ``summary()`` says it in words.

    Raises
    ------
    ValueError
        If an argument is out of its range, shapes do not fit, an entry is not finite, or a run
        has fewer than five rows or never moves.

    See Also
    --------
    skdmap.plotting.DimensionTestDisplay : The same as a picture.
    null_envelope : Eigenvalues of a trajectory beside those of its surrogates.

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
    null = check_choice("null", null, KINDS)
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
        p_value=exceedance(mean, means, chosen.sign),
        confidence_interval=interval_over_runs(recorded, confidence, chosen.bounds),
        run_statistics=recorded,
        run_p_values=np.array(
            [exceedance(x, s, chosen.sign) for x, s in zip(recorded, drawn.T, strict=True)]
        ),
        run_labels=labels,
        surrogate_statistics=means,
        null_fits=np.array([FITS[null][0](run.gram) if null in FITS else np.nan for run in runs]),
        statistic_name=statistic,
        null=null,
        confidence=confidence,
        n_rows=max(len(run.kept) for run in runs),
    )


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
    with tqdm(total=found.size, disable=None, desc="surrogates", leave=False) as bar:
        for number, run in enumerate(runs):
            elapsed = run.elapsed()
            surrogates = run_surrogates(run.gram, n_columns, null, generator)
            for i in range(n_surrogates):
                places = next(surrogates)
                # Steps in another order go by at other times; all other kinds keep their lengths.
                if null == "shuffled_steps":
                    lengths = np.linalg.norm(np.diff(places, axis=0), axis=1)
                    elapsed = elapsed_variation(lengths)[run.kept]
                found[i, number] = compute(squared_distances(places[run.kept]), elapsed)
                bar.update()
    return found


def exceedance(value: float, surrogates: np.ndarray, sign: int) -> float:
    """Return the p-value of a statistic among those of surrogates.

    Parameters
    ----------
    value : float
        Of the trajectory.
    surrogates : ndarray of shape (n_surrogates,)
        Of the surrogates.
    sign : int
        1 where large values speak against the null, -1 where small ones do.

    Returns
    -------
    float
        (1 + number of surrogates at least as extreme) / (1 + n_surrogates).
    """
    # What differs by rounding only is a tie, and counts against a rejection.
    slack = 1e-9 * (abs(value) + np.finfo(np.float64).eps)
    extreme = np.count_nonzero(sign * surrogates >= sign * value - slack)
    return float((1 + extreme) / (1 + len(surrogates)))
