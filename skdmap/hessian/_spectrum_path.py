"""Spectra at successive snapshots of a run, each started from the one before."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

from skdmap._progress import progress
from skdmap._random import numpy_generator
from skdmap._sklearn_compat import finite_or_named
from skdmap._snapshots import matrix_of
from skdmap.hessian._convergence_warnings import warn_unless_path_converged
from skdmap.hessian._krylov.basis import WHICH
from skdmap.hessian._krylov.lanczos import RitzPairs
from skdmap.hessian._krylov.spectral_density import SpectralDensity
from skdmap.hessian._projection import orient_like, orient_rows, squared_share
from skdmap.hessian._risk.curvatures import CURVATURES
from skdmap.hessian._spectrum_at import SpectrumAt, spectrum_at
from skdmap.hessian._validation import DIVERGED, check_loss_fits, check_max_matvecs

Vector = NDArray[np.float64]
# Of 24 snapshots of 30 runs whose five largest eigenvalues cross, 2, 4 and 6 give a largest one
# that is off by 2 % at 154, 41 and 9 of 720 snapshots.
_N_VERIFY_BETWEEN = 4


@dataclass(frozen=True)
class SpectrumPath:
    """Spectra at successive snapshots.

    Attributes
    ----------
    eigenvalues : ndarray of shape (n_snapshots, k)
        In loss per squared parameter, most wanted first.
    residuals : ndarray of shape (n_snapshots, k)
        Norm of H v - lambda v, and at least the rounding error of a product.
    components : ndarray of shape (n_snapshots, k, n_parameters) or None
        Eigenvectors, in the dtype of the snapshots. Each has a positive overlap with the one of the
        same index at the snapshot before; at the first, its entry of largest magnitude is positive.
        None with ``keep_components=False``.
    overlaps : ndarray of shape (n_snapshots - 1,)
        Mean squared cosine of the principal angles between the spaces of successive snapshots: 1
        for equal spaces.
    chance_overlap : float
        Expected overlap of two random spaces: k / n_parameters.
    losses, gradient_norms : ndarray of shape (n_snapshots,)
        Loss, and norm of its gradient.
    n_matvecs : ndarray of shape (n_snapshots,) of int
        Number of Hessian-vector products.
    converged : ndarray of shape (n_snapshots,) of bool
        Whether all pairs of a snapshot have converged.
    missed_eigenvalue_bounds : ndarray of shape (n_snapshots,)
        As ``missed_eigenvalue_bound_`` of :class:`HessianSpectrum`. Small at every
        ``verify_every``-th snapshot only; between them large (0.15 to 0.8 in one run).
    traces, trace_stderrs : ndarray of shape (n_snapshots,) or None
        With ``density=True``.
    densities : tuple of SpectralDensity or None
        With ``density=True``.
    gradient_shares : ndarray of shape (n_snapshots,) or None
        With ``shares=True``: share of the squared gradient in the span of the eigenvectors of its
        snapshot; nan where the gradient is 0.
    step_shares : ndarray of shape (n_snapshots - 1,) or None
        With ``shares=True``: share of the squared step from a snapshot to the next one in the span
        of the eigenvectors of the former; nan where the two are equal.
    chance_share : float or None
        With ``shares=True``: expected share of a random direction, k / n_parameters.
    interrupted : bool
        Whether the path ended early; the snapshots up to there are kept.
    """

    eigenvalues: Vector
    residuals: Vector
    components: NDArray[Any] | None
    overlaps: Vector
    chance_overlap: float
    losses: Vector
    gradient_norms: Vector
    n_matvecs: NDArray[np.int64]
    converged: NDArray[np.bool_]
    missed_eigenvalue_bounds: Vector
    traces: Vector | None
    trace_stderrs: Vector | None
    densities: tuple[SpectralDensity, ...] | None
    gradient_shares: Vector | None
    step_shares: Vector | None
    chance_share: float | None
    interrupted: bool


def hessian_spectrum_path(
    loss: Any,
    snapshots: Any,
    n_components: int = 5,
    *,
    which: str = "largest",
    curvature: str = "hessian",
    density: bool = False,
    n_probes: int = 1,
    tol: float = 1e-3,
    max_matvecs: int | None = None,
    memory_budget: Any = "auto",
    verify_every: int = 5,
    keep_components: bool = True,
    shares: bool = False,
    random_state: Any = None,
    callback: Callable[[int, Vector, Vector], object] | None = None,
    verbose: int = 0,
) -> SpectrumPath:
    """Return the spectrum at each snapshot, started from the eigenvectors at the one before.

    Parameters
    ----------
    loss : EmpiricalRisk or callable
        As for :class:`HessianSpectrum`.
    snapshots : array of shape (n_snapshots, n_parameters)
        Parameter vectors in the order of the run, or a recorder, a sampler or a stored trajectory.
    n_components : int, default=5
        Number of eigenpairs, k, at most n_parameters: a larger number is reduced. For the sharpness
        alone, use 1 with ``tol=1e-2``. The next eigenvector is tracked too, as it may come first.
    which : {"largest", "smallest", "magnitude", "both"}, default="largest"
        As for :class:`HessianSpectrum`.
    curvature : {"hessian", "ggn", "fisher", "gradient_covariance"}, default="hessian"
        As for :class:`HessianSpectrum`.
    density : bool, default=False
        Whether to estimate trace and density. Each snapshot then starts from a random vector, and
        not from the eigenvectors before, which are no sample of the whole spectrum.
    n_probes : int, default=1
        As for :class:`HessianSpectrum`; more than 1 needs ``density=True``.
    tol : float, default=1e-3
        As for :class:`HessianSpectrum`.
    max_matvecs : int, default=None
        Largest number of products at each snapshot; as for :class:`HessianSpectrum`.
    memory_budget : int or "auto", default="auto"
        As for :class:`HessianSpectrum`.
    verify_every : int, default=5
        Interval, in snapshots, of the full verification that no eigenvalue was missed; with
        ``density=True`` every snapshot is verified. Between, four products per snapshot look for
        missed eigenvalues, and ``missed_eigenvalue_bounds`` is large. 1 verifies every snapshot,
        with 10 products or more for each.
    keep_components : bool, default=True
        Whether the eigenvectors are returned: n_snapshots * k * n_parameters numbers.
    shares : bool, default=False
        Whether to report which share of each gradient and of each step lies in the span of the
        eigenvectors, next to the share of a random direction.
    random_state : int, RandomState instance, Generator or None, default=None
        Draws the random vectors.
    callback : callable, default=None
        Called as ``callback(i, eigenvalues, residuals)`` after snapshot i. A true result ends the
        path, as an interrupt does.
    verbose : int, default=0
        Above 0: count snapshots, in a bar in terminals and notebooks, in lines elsewhere.

    Returns
    -------
    SpectrumPath
        For all snapshots, or for those before an interrupt.

    Raises
    ------
    ValueError
        If a parameter is out of range, or the snapshots do not fit the loss.
    KeyboardInterrupt
        If it is raised before the first snapshot is done.

    Warns
    -----
    ConvergenceWarning
        If some pairs did not converge, or an interrupt ended the path.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap import hessian_spectrum_path
    >>> path = hessian_spectrum_path(
    ...     lambda t: (t**4).sum() / 12, [[1.0, 2.0], [1.0, 3.0], [4.0, 3.0]], n_components=1
    ... )
    >>> path.eigenvalues.ravel(), path.overlaps
    (array([ 4.,  9., 16.]), array([1., 0.]))

    Gradient descent on a quadratic moves along its gradients:

    >>> theta = np.array([[0.9**i, 0.6**i] for i in range(3)])
    >>> path = hessian_spectrum_path(
    ...     lambda t: t[0] ** 2 / 2 + 2 * t[1] ** 2, theta, n_components=1, shares=True
    ... )
    >>> path.step_shares.round(3), path.gradient_shares.round(3), path.chance_share
    (array([0.941, 0.877]), array([0.941, 0.877, 0.76 ]), 0.5)
    """
    X = _checked_snapshots(snapshots)
    counts = {"n_components": n_components, "n_probes": n_probes, "verify_every": verify_every}
    n_pairs = _check(loss, X, counts, which, curvature, density, tol, max_matvecs)
    rng = numpy_generator(random_state)
    record = _Record(keep_components, X.dtype)
    found, interrupted = record.found, False
    with progress(len(X), "Snapshots", unit="snapshots", verbose=bool(verbose)) as bar:
        for row in X:
            in_full = density or len(found) % verify_every == 0
            try:
                here = spectrum_at(
                    loss,
                    row.astype(np.float64),
                    n_pairs=n_pairs,
                    rng=rng,
                    which=which,
                    curvature=curvature,
                    tol=tol,
                    max_matvecs=max_matvecs,
                    memory_budget=memory_budget,
                    n_probes=n_probes if density else 0,
                    start=None if density or not found else _starts(found[-1].pairs, tol, rng),
                    n_verify=None if in_full else _N_VERIFY_BETWEEN,
                )
                if here.interrupted and (found or len(here.pairs.eigenvalues) < n_pairs):
                    raise KeyboardInterrupt
            except KeyboardInterrupt:
                if not found:
                    raise
                interrupted = True
                break
            record.add(here, row)
            bar.update()
            pairs = here.pairs
            result = (len(found) - 1, pairs.eigenvalues, pairs.residuals)
            ended = callback is not None and callback(*result)
            if ended or here.interrupted:
                interrupted = len(found) < len(X) or not pairs.converged
                break
    warn_unless_path_converged(record.converged(), len(X), interrupted=interrupted)
    return record.path(shares=shares, interrupted=interrupted)


def _checked_snapshots(snapshots: Any) -> NDArray[Any]:
    """Return the snapshots as scikit-learn checks them, in their dtype."""
    snapshots = matrix_of(snapshots, "snapshots")
    with finite_or_named("snapshots", snapshots, DIVERGED):
        return check_array(snapshots, dtype=[np.float64, np.float32], input_name="snapshots")


def _starts(before: RitzPairs, tol: float, rng: np.random.Generator) -> Vector:
    """Return start vectors (n_starts, n) from the eigenvectors before, with some noise."""
    # Without noise, what is orthogonal to all of them would not show. Of eigenvalues that residuals
    # cannot tell apart a sum holds one vector only: each further one goes into a further start.
    descending = np.argsort(-before.eigenvalues, kind="stable")
    gaps = -np.diff(before.eigenvalues[descending])
    numbers = np.zeros(len(descending), dtype=np.intp)
    for i, gap in enumerate(gaps):
        numbers[i + 1] = numbers[i] + 1 if gap <= 2 * tol * before.scale else 0
    starts = np.zeros((numbers.max() + 1, before.vectors.shape[1]))
    np.add.at(starts, numbers, before.vectors[descending])
    # The next eigenvalue may have grown above the wanted ones: it is tracked too.
    if before.next_vector is not None and len(descending) == 1:
        starts = np.vstack([starts, before.next_vector])
    elif before.next_vector is not None:
        starts[0] += 0.3 * before.next_vector
    noise = rng.standard_normal(starts.shape)
    return starts + 0.1 * noise / np.linalg.norm(noise, axis=1, keepdims=True)


class _Record:
    """The spectra of a path so far, with eigenvectors oriented like those before."""

    def __init__(self, keep_components: bool, dtype: Any) -> None:
        self.found: list[SpectrumAt] = []
        self._kept: list[NDArray[Any]] | None = [] if keep_components else None
        self._dtype, self._overlaps = dtype, list[float]()
        self._step_shares = list[float]()
        self._before: Vector | None = None
        self._row: NDArray[Any] = np.empty(0)

    def add(self, here: SpectrumAt, row: NDArray[Any]) -> None:
        """Add the spectrum at the next snapshot, ``row``."""
        vectors, before = here.pairs.vectors, self._before
        if before is None:
            vectors = orient_rows(vectors)
        else:
            vectors = orient_like(vectors, before)
            self._overlaps.append(float(np.sum((vectors @ before.T) ** 2)) / len(vectors))
            self._step_shares.append(squared_share(row.astype(np.float64) - self._row, before))
        self._before, self._row = vectors, row
        self.found.append(here)
        if self._kept is not None:
            self._kept.append(vectors.astype(self._dtype))

    def converged(self) -> NDArray[np.bool_]:
        """Return which snapshots have converged."""
        return np.array([here.pairs.converged for here in self.found])

    def path(self, *, shares: bool, interrupted: bool) -> SpectrumPath:
        """Return all of it."""
        found = self.found
        eigenvalues = np.array([here.pairs.eigenvalues for here in found])
        chance = eigenvalues.shape[1] / found[0].pairs.vectors.shape[1]
        densities = tuple(here.density for here in found if here.density is not None)
        return SpectrumPath(
            eigenvalues=eigenvalues,
            residuals=np.array([here.pairs.residuals for here in found]),
            components=None if self._kept is None else np.array(self._kept),
            overlaps=np.array(self._overlaps),
            chance_overlap=chance,
            losses=np.array([here.loss for here in found]),
            gradient_norms=np.array([here.gradient_norm for here in found]),
            n_matvecs=np.array([here.n_matvecs for here in found]),
            converged=self.converged(),
            missed_eigenvalue_bounds=np.array(
                [here.pairs.missed_eigenvalue_bound for here in found]
            ),
            traces=np.array([here.trace.trace for here in found]) if densities else None,
            trace_stderrs=np.array([here.trace.stderr for here in found]) if densities else None,
            densities=densities or None,
            gradient_shares=np.array([here.gradient_share for here in found]) if shares else None,
            step_shares=np.array(self._step_shares) if shares else None,
            chance_share=chance if shares else None,
            interrupted=interrupted,
        )


def _check(
    loss: Any,
    X: np.ndarray,
    counts: dict[str, Any],
    which: Any,
    curvature: Any,
    density: bool,
    tol: Any,
    max_matvecs: Any,
) -> int:
    """Raise if a parameter is out of range; return the number of pairs."""
    for name, value in counts.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}={value!r} must be an integer >= 1.")
    for name, value, allowed in (("which", which, WHICH), ("curvature", curvature, CURVATURES)):
        if value not in allowed:
            raise ValueError(f"{name}={value!r} must be one of {allowed}.")
    if not 0 < tol < 1:
        raise ValueError(f"tol={tol!r} must be in (0, 1). 1e-2 is enough for a sharpness.")
    if counts["n_probes"] > 1 and not density:
        raise ValueError(
            f"n_probes={counts['n_probes']} needs density=True: without it no trace is estimated."
        )
    check_loss_fits(loss, X.shape[1])
    n_pairs = min(int(counts["n_components"]), X.shape[1])
    check_max_matvecs(max_matvecs, n_pairs)
    return n_pairs
