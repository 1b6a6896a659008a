"""The number of directions over which the increments of a trajectory are spread."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter1d
from scipy.stats import t as student

from skdmap._argument_checks import check_count, check_number
from skdmap._sklearn_compat import InvalidParameterError
from skdmap.diagnostics._null_models.recorded_steps import RecordedSteps, recorded_steps

# Standard deviation of the window over which the size of increments is averaged, as a share of the
# run and at least in increments: an increment must not set its own weight.
_WINDOW, _LEAST_WINDOW = 1 / 20, 5.0
# At most this share of the increments is left out for correlation with a given one, on each side:
# some paths never decorrelate.
_MOST_EXCLUDED = 1 / 3
# Blocks of the jackknife. Student's quantile for 3 degrees of freedom is 3.2, for 19 it is 2.1.
_FEWEST_BLOCKS, _MOST_BLOCKS = 4, 20
# Between-run variance needs as many runs as an interval over runs does.
# An interval whose ends differ by more than this factor does not give a number.
_UNDETERMINED = 10.0
_FEWEST_RUNS = 3
# Steps whose correlation is weaker lose little precision to it: at .3 the number of independent
# pairs is (1 - .3^2)^2 / (1 + .3^2)^2 = .7 of that of uncorrelated steps.
_LEAST_MOMENTUM = 0.3
# Standard errors by which one coefficient may fail to explain the correlation in all directions:
# few, since a wrong replacement biases the dimension and a missed one only widens the interval.
_ACCEPTED = 1.0


@dataclass(frozen=True)
class EffectiveDimension:
    """The participation ratio of the increments of a trajectory, by lag.

    Attributes
    ----------
    lags : ndarray of shape (n_lags,)
        Rows from the start to the end of an increment, ascending.
    dimension : ndarray of shape (n_lags,)
        (tr C)^2 / tr C^2 of their covariance: the number of directions if all had the same
        variance. Over several runs it is the harmonic mean. nan where no increment moves.
    lower : ndarray of shape (n_lags,)
        Lower end of the confidence interval. From three runs on the interval is that of the mean
        over further runs, too; with fewer it is that of these runs.
    upper : ndarray of shape (n_lags,)
        Its upper end.
    per_run : ndarray of shape (n_runs, n_lags)
        The dimension of each run.
    run_labels : ndarray of shape (n_runs,)
        The labels in ``run_ids``, in the order of their first snapshots.
    confidence : float
        Level of the interval.
    sketch_dim : int or None
        Columns of the sketch, for whose width the dimension was corrected.

    Examples
    --------
    >>> from skdmap.diagnostics import effective_dimension, random_walk
    >>> result = effective_dimension(random_walk(200, 30, random_state=0))
    >>> bool(result.lower[0] <= 30 <= result.upper[0])
    True
    """

    lags: np.ndarray
    dimension: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    per_run: np.ndarray
    run_labels: np.ndarray
    confidence: float
    sketch_dim: int | None

    def summary(self) -> str:
        """Describe the result in words.

        Returns
        -------
        str
            One or two sentences.
        """
        n_runs = len(self.per_run)
        runs = "" if n_runs == 1 else f"harmonic mean of {n_runs} runs, "
        level = f"{runs}{100 * self.confidence:g} % interval "
        text = f"{self._increments(0)} spread over {self._directions(0, level)}."
        if len(self.lags) > 1:
            text += f" {self._increments(-1)} spread over {self._directions(-1)}."
        return text

    def _increments(self, position: int) -> str:
        lag = self.lags[position]
        return "Steps from row to row" if lag == 1 else f"Displacements over {lag} rows"

    def _directions(self, position: int, level: str = "") -> str:
        value, low, high = (x[position] for x in (self.dimension, self.lower, self.upper))
        if np.isnan(value):
            return "no dimension, since none of them moves"
        if high > _UNDETERMINED * low and np.isfinite(value):
            return (
                f"a number of dimensions that is not determined ({level}{_figure(low)} to "
                f"{_figure(high)}): too few of them are independent"
            )
        unbounded = "more dimensions than the sketch has"
        found = unbounded if np.isinf(value) else f"{_figure(value)} dimensions"
        return f"{found} ({level}{_figure(low)} to {_figure(high)})"


def _figure(value: float) -> str:
    """Return a number with three significant digits and no exponent."""
    if np.isinf(value):
        return "infinity"
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def effective_dimension(
    snapshots: Any,
    *,
    run_ids: ArrayLike | None = None,
    lags: Sequence[int] | None = None,
    confidence: float = 0.95,
) -> EffectiveDimension:
    r"""Estimate over how many directions the increments of a trajectory are spread.

    With C the covariance (about 0) of the increments x_(i + lag) - x_i, the dimension is
    (tr C)^2 / tr C^2, the participation ratio of its eigenvalues: d for equal variances in d
    directions. At lag 1 it is that of the steps, which noise may rule; at long lags it is that of
    the shape of the path.

    The participation ratio of a sample covariance cannot exceed the number of snapshots. Here
    tr C^2 comes from squared scalar products of pairs of increments that do not overlap and lie
    farther apart than their correlation, (tr C)^2 from the squared lengths of the same pairs, so
    that neither has a bias. Increments are weighted by the inverse of the mean square length around
    them: a run whose steps decay counts from start to end. Steps with momentum, whose correlation
    one coefficient explains in all directions, are replaced by their innovations, which have
    the same participation ratio and more independent pairs.

    Parameters
    ----------
    snapshots : array-like of shape (n_snapshots, n_parameters), recording, or list of them
        Snapshots in the order they were recorded, or a recorder, a fitted sampler or a stored
        trajectory. From recordings it is known whether rows are sketches: a sketch of k columns
        makes about 1 / d + 1 / k of 1 / d, which is corrected.
    run_ids : array-like of shape (n_snapshots,), default=None
        The run of each snapshot. None means those of the recording, or one run.
    lags : sequence of int, default=None
        Ascending lags in rows, at most a third of the shortest run. None means powers of two up to
        a quarter of it.
    confidence : float, default=0.95
        Level of the intervals, in (0, 1).

    Returns
    -------
    EffectiveDimension
        Dimension and interval at each lag; ``summary()`` describes them.

    Raises
    ------
    ValueError
        If an argument is out of range, shapes do not match, an entry is not finite, or a run has
        fewer than five snapshots or never moves.

    See Also
    --------
    skdmap.plotting.EffectiveDimensionDisplay : Plot of the result.
    dimension_test : Whether the dimension is lower than that of noise, and whether the path is more
        than a linear process.

    Notes
    -----
    The interval comes from the jackknife over blocks of rows, and from three runs on also from the
    differences between runs; the wider one counts. It ends at 1 and at the number of columns, or at
    an estimate above that. Few increments of a long lag fit into a run, so
    intervals widen with the lag. With a few hundred rows, momentum that differs little between
    directions passes for a common one; the dimension at lag 1 is then that of the innovations. The
    dimension says nothing about order: a walk and the noise around a point have that of their
    covariance alike.

    References
    ----------
    Chen, S. X., Zhang, L.-X. & Zhong, P.-S. (2010). Tests for high-dimensional covariance matrices.
    Journal of the American Statistical Association 105, 810-819.
    https://doi.org/10.1198/jasa.2010.tm09560

    Künsch, H. R. (1989). The jackknife and the bootstrap for general stationary observations.
    Annals of Statistics 17, 1217-1241. https://doi.org/10.1214/aos/1176347265

    Examples
    --------
    A circle with noise of a tenth of its radius: noise rules single steps, the plane of the circle
    long ones.

    >>> import numpy as np
    >>> from skdmap.diagnostics import effective_dimension
    >>> angle = np.linspace(0, 6 * np.pi, 300)
    >>> X = 0.01 * np.random.default_rng(0).standard_normal((300, 100))
    >>> X[:, :2] += np.column_stack([np.cos(angle), np.sin(angle)])
    >>> effective_dimension(X).dimension[[0, -1]].round()
    array([43.,  2.])
    """
    confidence = check_number("confidence", confidence, low=0.0, high=1.0)
    recorded = recorded_steps(snapshots, run_ids)
    chosen = _checked_lags(lags, min(len(rows) for rows in recorded.rows))
    return of_steps(recorded, chosen, confidence)


def of_steps(recorded: RecordedSteps, lags: np.ndarray, confidence: float) -> EffectiveDimension:
    """Return the effective dimension of runs given by the Gram matrix of their steps."""
    n_runs = len(recorded.rows)
    found = np.empty((n_runs, len(lags), 3))
    for run in range(n_runs):
        points = _point_products(recorded.run_gram(run))
        for position, lag in enumerate(lags):
            products = _increment_products(points, int(lag))
            found[run, position] = _concentration(products, int(lag), recorded.sketch_dim)
    shares = [_over_runs(found[:, i], confidence) for i in range(len(lags))]
    share, half = np.array(shares).T
    with np.errstate(divide="ignore", invalid="ignore"):
        # The interval is symmetric for log d. A share at or below 0, which the correction of a
        # sketch may give, is compatible with any number of directions.
        wide = np.where(share > 0, np.exp(np.minimum(half / share, 700.0)), np.inf)
        dimension = np.where(share <= 0, np.inf, 1 / share)
        lower = np.where(share > 0, dimension / wide, 1 / (np.maximum(share, 0.0) + half))
        per_run = np.where(found[:, :, 0] <= 0, np.inf, 1 / found[:, :, 0])
    upper = np.where(np.isnan(share), np.nan, dimension * wide)
    # No covariance of so many columns has another; how many a sketch stands for is not known.
    most = np.inf if recorded.sketch_dim is not None else recorded.n_columns
    dimension, lower, per_run = (np.maximum(values, 1.0) for values in (dimension, lower, per_run))
    upper = np.minimum(np.maximum(upper, 1.0), np.maximum(most, dimension))
    return EffectiveDimension(
        lags=lags,
        dimension=dimension,
        lower=lower,
        upper=upper,
        per_run=per_run,
        run_labels=recorded.labels,
        confidence=confidence,
        sketch_dim=recorded.sketch_dim,
    )


def default_lags(n_rows: int) -> np.ndarray:
    """Return the powers of two up to a quarter of a run of ``n_rows``, at least 1."""
    return 2 ** np.arange(max(1, n_rows // 4).bit_length())


def _checked_lags(lags: Sequence[int] | None, n_rows: int) -> np.ndarray:
    if lags is None:
        return default_lags(n_rows)
    most = max(1, n_rows // 3)
    chosen = [
        check_count("lags", lag, maximum=most) for lag in np.atleast_1d(np.asarray(lags)).tolist()
    ]
    if not chosen or any(a >= b for a, b in pairwise(chosen)):
        raise InvalidParameterError(
            f"lags={lags!r} must be ascending integers. Pass numpy.unique(lags)."
        )
    return np.array(chosen)


def _point_products(gram: np.ndarray) -> np.ndarray:
    """Return scalar products (n + 1, n + 1) of displacements from the start of a run."""
    points = np.zeros((len(gram) + 1, len(gram) + 1))
    points[1:, 1:] = gram.cumsum(axis=0).cumsum(axis=1)
    return points


def _increment_products(points: np.ndarray, lag: int) -> np.ndarray:
    """Return scalar products of the increments over a lag, in units of the local mean square."""
    products = points[lag:, lag:] - points[:-lag, lag:] - points[lag:, :-lag] + points[:-lag, :-lag]
    # Where nothing moves, rounding is left, which must not be blown up.
    return _scaled(products, len(points) * np.finfo(np.float64).eps * points.diagonal().max())


def _scaled(products: np.ndarray, floor: float) -> np.ndarray:
    """Return products (n, n) of increments in units of the mean square of those around each."""
    width = max(_LEAST_WINDOW, _WINDOW * len(products))
    local = gaussian_filter1d(np.maximum(np.diag(products), 0.0), width, mode="nearest")
    tiny = max(floor, np.finfo(np.float64).tiny)
    scale = np.where(local > tiny, 1 / np.sqrt(np.maximum(local, tiny)), 0.0)
    return np.asarray(products * scale[:, None] * scale)


def concentration(products: np.ndarray) -> float:
    """Return tr C^2 / (tr C)^2 from the scalar products (n, n) of steps; nan without movement."""
    floor = len(products) * np.finfo(np.float64).eps * np.trace(products)
    squares, sizes, *_ = _pairs(_scaled(products, floor), 1)
    total = sizes.sum()
    return float(squares.sum() / total) if total > 0 else np.nan


def _pairs(
    products: np.ndarray, lag: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Return terms (n, n) of tr C^2 and (tr C)^2, products, the pairs that count, and their gap."""
    gap = _first_uncorrelated(products, lag, lag + int(len(products) * _MOST_EXCLUDED))
    if lag == 1 and gap > 1:
        products, gap = _innovations(products, gap)
    far = _apart(len(products)) >= gap
    lengths = np.diag(products)
    sizes = np.where(far, np.outer(lengths, lengths), 0.0)
    return np.where(far, products**2, 0.0), sizes, products, far, gap


def _concentration(
    products: np.ndarray, lag: int, sketch_dim: int | None
) -> tuple[float, float, int]:
    """Return tr C^2 / (tr C)^2 of one run, its variance, and the number of blocks."""
    squares, sizes, products, far, gap = _pairs(products, lag)
    n_blocks = int(np.clip(len(products) // gap, _FEWEST_BLOCKS, _MOST_BLOCKS))
    squares, sizes = _block_sums(squares, n_blocks), _block_sums(sizes, n_blocks)
    if sizes.sum() <= 0:
        return np.nan, np.nan, n_blocks
    share = squares.sum() / sizes.sum()
    left = _without_one(squares) / np.where(_without_one(sizes) > 0, _without_one(sizes), np.nan)
    left = left[np.isfinite(left)]
    variance = (n_blocks - 1) / n_blocks * np.sum((left - left.mean()) ** 2)
    if sketch_dim is None:
        return float(share), float(variance), n_blocks
    spread = _of_the_sketch(products, far, float(share), sketch_dim)
    share, slope = _without_sketch(float(share), sketch_dim)
    return share, slope**2 * (float(variance) + spread), n_blocks


def _innovations(products: np.ndarray, gap: int) -> tuple[np.ndarray, int]:
    """Return products and gap of steps without their momentum, if it is one in all directions."""
    # In s_i = r s_(i-1) + e_i with one r, the covariances of s and of e are proportional.
    lengths = np.diag(products)
    r = 2 * np.diagonal(products, 1).sum() / (lengths[1:].sum() + lengths[:-1].sum())
    if r < _LEAST_MOMENTUM:
        return products, gap
    both = products[1:, 1:] - r * (products[1:, :-1] + products[:-1, 1:])
    both = both + r**2 * products[:-1, :-1]
    # The cross covariance M of e_i and s_(i-1) is 0 then. tr M M' is the mean over pairs of
    # increments of the product of their products; innovations of different steps are independent.
    upper = np.triu_indices(len(both), 1)
    of_noise, of_steps = both[upper], products[:-1, :-1][upper]
    error = np.sqrt(np.sum(of_noise**2) * np.sum(of_steps**2) / len(of_noise))
    return (both, 1) if of_noise @ of_steps <= _ACCEPTED * error else (products, gap)


def _first_uncorrelated(products: np.ndarray, start: int, cap: int) -> int:
    """Return the least distance in rows, from ``start``, without correlation; at most ``cap``."""
    for apart in range(start, cap):
        diagonal = np.diagonal(products, apart)
        # Twice the standard error: what is left is then below the noise of the estimate.
        if abs(diagonal.mean()) <= 2 * np.sqrt(np.mean(diagonal**2) / len(diagonal)):
            return apart
    return cap


def _without_sketch(share: float, width: int) -> tuple[float, float]:
    """Return tr C^2 / (tr C)^2 from that of a sketch of some width, and the derivative."""
    # With x the ratio of the full rows, E tr C^2 is proportional to x (1 + 1/k) + 1/k, and
    # E (tr C)^2 to 1 + 2 x / k.
    below = 1 + 1 / width - 2 * share / width
    found = (share - 1 / width) / below
    return found, 1 / below + found * 2 / width / below


def _of_the_sketch(products: np.ndarray, far: np.ndarray, share: float, width: int) -> float:
    """Return the variance of tr C^2 / (tr C)^2 that the random sketch adds."""
    # With c_i the eigenvalues of C / tr C, to second order 8/k (sum c^4 - 2 x sum c^3 + x^3) +
    # 4 x^2 / k^2, and as much again: entries +-1/2 are not Gaussian, and directions along single
    # parameters keep their length. The sums are means over closed walks of different increments.
    ones = far.astype(np.float64)
    apart = np.where(far, products, 0.0)
    moments = []
    for length in (3, 4):
        number, value = _closed_walks(ones, length), _closed_walks(apart, length)
        moments.append(value / number / np.mean(np.diag(products)) ** length if number > 0 else 0.0)
    third, fourth = moments
    first_order = max(fourth - 2 * share * third + share**3, 0.0)
    return float(8 / width * first_order + 8 * share**2 / width**2)


def _closed_walks(matrix: np.ndarray, length: int) -> float:
    """Return the sum over closed walks of 3 or 4 different nodes; the diagonal is 0."""
    squared = matrix @ matrix
    if length == 3:
        return float(np.sum(squared * matrix))
    twice = 2 * np.sum(np.diag(squared) ** 2) - np.sum(matrix**4)
    return float(np.sum(squared**2) - twice)


def _over_runs(found: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the mean over runs of (share, variance, blocks) and the half width of its interval."""
    share, variance, n_blocks = found[np.isfinite(found[:, 0])].T
    if len(share) == 0:
        return np.nan, np.nan
    level, n_runs = (1 + confidence) / 2, len(share)
    within = variance.sum()
    freedom = within**2 / np.sum(variance**2 / (n_blocks - 1)) if within > 0 else 1.0
    half = student.ppf(level, freedom) * np.sqrt(within) / n_runs
    if n_runs >= _FEWEST_RUNS:
        between = student.ppf(level, n_runs - 1) * np.std(share, ddof=1) / np.sqrt(n_runs)
        half = max(half, between)
    return float(share.mean()), float(half)


def _apart(n: int) -> np.ndarray:
    """Return the distances in rows (n, n) of n increments."""
    return np.abs(np.subtract.outer(np.arange(n), np.arange(n)))


def _block_sums(matrix: np.ndarray, n_blocks: int) -> np.ndarray:
    """Return the sums (k, k) of a matrix (n, n) over pairs of at most ``n_blocks`` blocks."""
    starts = np.unique(np.linspace(0, len(matrix), n_blocks + 1).astype(int)[:-1])
    return np.asarray(np.add.reduceat(np.add.reduceat(matrix, starts, axis=0), starts, axis=1))


def _without_one(sums: np.ndarray) -> np.ndarray:
    """Return the total (k,) of a symmetric matrix without the row and column of each block."""
    return np.asarray(sums.sum() - 2 * sums.sum(axis=1) + np.diag(sums))
