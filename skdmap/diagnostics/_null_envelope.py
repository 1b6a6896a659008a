"""Snapshots -> a decaying spectrum of theirs beside the spectra of null models."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from skdmap._argument_checks import check_choice, check_count
from skdmap.diagnostics._dimension_test import thin_runs
from skdmap.diagnostics._null_models.surrogates import KINDS, null_generator, run_surrogates
from skdmap.diagnostics._small_map import diffusion_pairs, squared_distances


def _diffusion(distances: np.ndarray, n_values: int) -> np.ndarray:
    return diffusion_pairs(distances, n_values, vectors=False)[0]


def _principal(distances: np.ndarray, n_values: int) -> np.ndarray:
    """Return shares of variance from squared distances: classical scaling."""
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
    """A spectrum of a trajectory, and where the spectra of its surrogates lie.

    Attributes
    ----------
    values : ndarray of shape (n_values,)
        Mean over the runs, descending.
    lower : ndarray of shape (n_values,)
        The 2.5 % quantile of the surrogates, value by value.
    median : ndarray of shape (n_values,)
        Their median.
    upper : ndarray of shape (n_values,)
        Their 97.5 % quantile.
    curve : str
        "diffusion" or "principal".
    null : str
        Which surrogates.
    n_surrogates : int
        How many.

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
        """Return in a sentence how many of the values lie outside the envelope.

        Returns
        -------
        str
            Computed from the attributes.
        """
        n, above = len(self.values), int(np.sum(self.values > self.upper))
        below = int(np.sum(self.values < self.lower))
        return (
            f"Of the first {n} {_CURVES[self.curve][1]} {above} lie above and {below} below the "
            f"range of 95 % of {self.n_surrogates} {KINDS[self.null]}; about "
            f"{0.05 * n:.1f} would by chance."
        )


def null_envelope(
    snapshots: ArrayLike,
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
    snapshots : array-like of shape (n_snapshots, n_parameters)
        Rows in the order in which they were recorded.
    curve : str, default="diffusion"
        "diffusion": eigenvalues of the Markov operator with all pairs, alpha 1 and h^2 = half the
        median squared distance. "principal": shares of the variance that principal components hold.
    n_values : int, default=10
        How many of them; at most one less than the rows of the shortest run.
    run_ids : array-like of shape (n_snapshots,), default=None
        The run of each row. Eigenvalues are computed run by run and averaged.
    n_surrogates : int, default=99
        How many surrogates.
    null : str, default="ar1"
        The kind of surrogates, see :func:`surrogate_trajectories`.
    n_rows : int, default=200
        Longer runs are thinned to so many rows, evenly spaced; at least 20.
    random_state : int, RandomState instance, Generator or None, default=None
        Seed of the surrogates.

    Returns
    -------
    NullEnvelope
        The eigenvalues and their envelope.

    Raises
    ------
    ValueError
        If an argument is out of its range, shapes do not fit, an entry is not finite, or a run
        has fewer than five rows or never moves.

    See Also
    --------
    skdmap.plotting.NullEnvelopeDisplay : The same as a picture.
    dimension_test : One statistic with a p-value.

    Examples
    --------
    >>> from skdmap.diagnostics import null_envelope, random_walk
    >>> walk = random_walk(200, 500, random_state=0)
    >>> shares = null_envelope(walk, curve="principal", null="random_walk", random_state=0)
    >>> shares.median[:3].round(2)
    array([0.61, 0.15, 0.07])
    """
    curve = check_choice("curve", curve, _CURVES)
    null = check_choice("null", null, KINDS)
    n_values = check_count("n_values", n_values)
    n_surrogates = check_count("n_surrogates", n_surrogates)
    n_rows = check_count("n_rows", n_rows, minimum=20)
    generator = null_generator(random_state)
    runs, _, n_columns = thin_runs(snapshots, run_ids, n_rows)
    shortest = min(len(run.kept) for run in runs)
    if n_values >= shortest:
        raise ValueError(
            f"n_values={n_values} must be at most {shortest - 1}, one less than the rows of the "
            "shortest run. Ask for fewer, or raise n_rows."
        )
    compute = _CURVES[curve][0]
    values = np.mean([compute(run.distances(), n_values) for run in runs], axis=0)
    spectra = np.zeros((n_surrogates, n_values))
    with tqdm(total=n_surrogates * len(runs), disable=None, desc="surrogates", leave=False) as bar:
        for run in runs:
            surrogates = run_surrogates(run.gram, n_columns, null, generator)
            for i in range(n_surrogates):
                distances = squared_distances(next(surrogates)[run.kept])
                spectra[i] += compute(distances, n_values) / len(runs)
                bar.update()
    lower, median, upper = np.quantile(spectra, [0.025, 0.5, 0.975], axis=0)
    return NullEnvelope(values, lower, median, upper, curve, null, n_surrogates)
