"""The leading eigenvalues of a trajectory compared with those of null models."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skdmap._argument_checks import check_choice, check_count
from skdmap._progress import progress
from skdmap.diagnostics._dense_diffusion_map import diffusion_pairs, squared_distances
from skdmap.diagnostics._dimension_test import thin_runs
from skdmap.diagnostics._null_models.models import NULL_MODELS, null_generator, run_surrogates


def _diffusion(distances: np.ndarray, n_values: int) -> np.ndarray:
    return diffusion_pairs(distances, n_values, vectors=False)[0]


def _principal(distances: np.ndarray, n_values: int) -> np.ndarray:
    """Return shares of variance from squared distances, by classical scaling."""
    row = distances.mean(axis=1)
    centred = -(distances - row[:, None] - row + row.mean()) / 2
    values = np.linalg.eigvalsh(centred)[::-1]
    return np.maximum(values[:n_values], 0.0) / np.trace(centred)


_CURVES: dict[str, tuple[Callable[[np.ndarray, int], np.ndarray], str]] = {
    "diffusion": (_diffusion, "diffusion eigenvalues"),
    "principal": (_principal, "shares of variance of principal components"),
}


@dataclass(frozen=True)
class NullEnvelope:
    """Leading eigenvalues of a trajectory, with their range over its surrogates.

    Attributes
    ----------
    values : ndarray of shape (n_values,)
        Mean over the runs, descending.
    lower : ndarray of shape (n_values,)
        2.5 % quantile of each value over the surrogates.
    median : ndarray of shape (n_values,)
        Their median.
    upper : ndarray of shape (n_values,)
        Their 97.5 % quantile.
    curve : str
        "diffusion" or "principal".
    null : str
        The null model.
    n_surrogates : int
        Number of surrogates.

    Examples
    --------
    >>> from skdmap.diagnostics import null_envelope, random_walk
    >>> walk = random_walk(200, 500, random_state=0)
    >>> null_envelope(walk, null="random_walk", random_state=0).median[:2].round(1)
    array([0.6, 0.3])
    """

    values: np.ndarray
    lower: np.ndarray
    median: np.ndarray
    upper: np.ndarray
    curve: str
    null: str
    n_surrogates: int

    def summary(self) -> str:
        """Describe how many of the values lie outside the envelope.

        Returns
        -------
        str
            One sentence.
        """
        n, above = len(self.values), int(np.sum(self.values > self.upper))
        below = int(np.sum(self.values < self.lower))
        return (
            f"Of the first {n} {_CURVES[self.curve][1]}, {above} lie above and {below} below the "
            f"95 % range of {self.n_surrogates} {NULL_MODELS[self.null].words}; about "
            f"{0.05 * n:.1f} are expected outside it by chance."
        )


def null_envelope(
    snapshots: Any,
    *,
    curve: str = "diffusion",
    n_values: int = 10,
    run_ids: ArrayLike | None = None,
    n_surrogates: int = 99,
    null: str = "ar1",
    n_rows: int = 200,
    random_state: Any = None,
) -> NullEnvelope:
    """Compute leading eigenvalues of a trajectory and their range over surrogates.

    Parameters
    ----------
    snapshots : array-like of shape (n_snapshots, n_parameters), recording, or list of them
        Snapshots in the order they were recorded, or a recorder, a fitted sampler or a stored
        trajectory.
    curve : str, default="diffusion"
        "diffusion": eigenvalues of the Markov operator with all pairs, alpha 1 and h^2 = half the
        median squared distance. "principal": shares of variance of the principal components.
    n_values : int, default=10
        Number of values; less than the number of snapshots used of the shortest run.
    run_ids : array-like of shape (n_snapshots,), default=None
        The run of each snapshot. Eigenvalues are computed for each run and averaged. None means
        those of the recording, or one run.
    n_surrogates : int, default=99
        Number of surrogates.
    null : str, default="ar1"
        The null model, see :func:`surrogate_trajectories`.
    n_rows : int, default=200
        Longer runs are thinned to this many evenly spaced snapshots; at least 20.
    random_state : int, RandomState instance, Generator or None, default=None
        Seed of the surrogates.

    Returns
    -------
    NullEnvelope
        The eigenvalues and their envelope.

    Raises
    ------
    ValueError
        If an argument is out of range, shapes do not match, an entry is not finite, or a run has
        fewer than five snapshots or never moves.

    See Also
    --------
    skdmap.plotting.NullEnvelopeDisplay : Plot of the result.
    dimension_test : A single statistic with a p-value.

    Examples
    --------
    >>> from skdmap.diagnostics import null_envelope, random_walk
    >>> walk = random_walk(200, 500, random_state=0)
    >>> shares = null_envelope(walk, curve="principal", null="random_walk", random_state=0)
    >>> shares.median[:3].round(2)
    array([0.61, 0.15, 0.07])
    """
    curve = check_choice("curve", curve, _CURVES)
    null = check_choice("null", null, NULL_MODELS)
    n_values = check_count("n_values", n_values)
    n_surrogates = check_count("n_surrogates", n_surrogates)
    n_rows = check_count("n_rows", n_rows, minimum=20)
    generator = null_generator(random_state)
    runs, _, n_columns = thin_runs(snapshots, run_ids, n_rows)
    shortest = min(len(run.kept) for run in runs)
    if n_values >= shortest:
        raise ValueError(
            f"n_values={n_values} must be at most {shortest - 1}, one less than the number of "
            "snapshots used of the shortest run. Lower n_values, or raise n_rows."
        )
    compute = _CURVES[curve][0]
    values = np.mean([compute(run.distances(), n_values) for run in runs], axis=0)
    spectra = np.zeros((n_surrogates, n_values))
    with progress(n_surrogates * len(runs), "null_envelope", verbose=None) as bar:
        for run in runs:
            surrogates = run_surrogates(run.gram, n_columns, null, n_surrogates, generator)
            for i, points in enumerate(surrogates):
                distances = squared_distances(points[run.kept])
                spectra[i] += compute(distances, n_values) / len(runs)
                bar.update()
    lower, median, upper = np.quantile(spectra, [0.025, 0.5, 0.975], axis=0)
    return NullEnvelope(values, lower, median, upper, curve, null, n_surrogates)
