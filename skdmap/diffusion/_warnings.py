"""Numerical warnings of a diffusion map: what was found, where, and what to change."""

import numpy as np
from numpy.typing import NDArray

from skdmap._warning import warn
from skdmap.diffusion._bandwidth import CUTOFF
from skdmap.diffusion._eigenfunctions import Eigenfunctions, Spectrum
from skdmap.diffusion._eigensolvers.eigenproblem import tolerances
from skdmap.diffusion._kernel import RHO_BOUND, GaussianKernel, gaussian
from skdmap.diffusion._markov import SMALL_COMPONENT, MarkovFit
from skdmap.diffusion._neighbors.graph import DistanceGraph
from skdmap.diffusion._training_set import TrainingSet
from skdmap.diffusion._validation import named_samples
from skdmap.exceptions import (
    BandwidthWarning,
    ConvergenceWarning,
    DisconnectedGraphWarning,
    ExtrapolationWarning,
    LocalizedCoordinateWarning,
)

# Largest value of the kernel at its cut-off in the median sample.
_TRUNCATION = 1e-2
# A coordinate carried by fewer effective samples, or by less than this share of few samples, is
# localized: on a normal distribution a linear coordinate is carried by a third of the samples.
_EFFECTIVE_SAMPLES, _EFFECTIVE_SHARE = 10, 0.25
_LARGEST_SHARE = 0.5
# It ended the warning in 14 of 15 sets (docs/choosing.md); samples given the weight 0, or twice the
# bandwidth, in 1 and in 7.
_LOCAL = (
    "Set bandwidth='local' (with bandwidth_exponent=0), which follows the density of the samples."
)
_IMPUTE = "In a pipeline, a SimpleImputer after the map replaces nan"
_SMALL_EIGENVALUE = 1e-6
# Eigenvalues of either sign up to this size are 0 to rounding.
_ZERO = 1e-12
# Of a smaller gap 1 - lambda rounding leaves nothing to divide by.
_LEAST_GAP = 1e-14
# Largest eps mu rho^2 at which the extension of a variable bandwidth is trusted.
_NEAR_POLE = 0.5


def check_components(
    labels: NDArray[np.integer],
    left_out: NDArray[np.integer],
    isolated: NDArray[np.integer],
    mode: str,
    *,
    kind: str,
    all_pairs: bool,
    noun: str = "sample",
) -> None:
    """Raise or warn of a disconnected kernel; ``labels`` (n_samples,); others are rows of X."""
    sizes = np.bincount(labels[labels >= 0])
    if mode == "raise":
        left_out = np.union1d(left_out, isolated)
    if (sizes.size == 1 and left_out.size == 0) or mode == "largest":
        return
    shown = ", ".join(str(int(size)) for size in sizes[:10]) + (", ..." if sizes.size > 10 else "")
    message = ""
    if sizes.size > 1:
        message = f"The kernel graph has {sizes.size} connected components, of {shown} {noun}s. "
    if left_out.size:
        get = "the coordinates that transform gives"
        if kind == "given":
            get = "nan coordinates where no affinity leads to a sample in the fit"
        message += (
            f"{left_out.size} {noun}(s) in components of fewer than {SMALL_COMPONENT} distinct "
            f"samples are left out of the fit and get {get}: "
            f"{named_samples(left_out, noun=noun)}. "
        )
    remedy = f"{_to_connect(kind, all_pairs)} if all samples should be connected"
    if mode == "raise":
        raise ValueError(
            f"{message}disconnected='raise' requires one connected component. {remedy}, or set "
            "disconnected to 'warn' or 'largest'."
        )
    if sizes.size > 1:
        message += f"The first {sizes.size - 1} coordinate(s) tell the components apart. "
        remedy += ", or set disconnected='largest' to map the largest component only"
    if left_out.size and kind == "given":
        remedy += f". {_IMPUTE}"
    warn(f"{message}{remedy}.", DisconnectedGraphWarning)


def _to_connect(kind: str, all_pairs: bool) -> str:
    """What to change where the kernel does not connect all samples."""
    local = kind == "local"
    if kind == "given":
        return "Pass affinities of a wider kernel, or of more neighbours,"
    if all_pairs:
        return "Set bandwidth to 'auto' or a larger length" if local else "Raise bandwidth"
    setting = "n_neighbors or set bandwidth='auto'" if local else "bandwidth or n_neighbors"
    return f"Raise {setting}"


def check_time(values: NDArray[np.float64], time: float | str) -> None:
    """Raise where lambda^t is not real or not finite; ``values`` (k,) are lambda, descending."""
    if isinstance(time, str):
        check_multiscale(int((values >= 1.0 - _LEAST_GAP).sum()) + 1, time)
        return
    if float(time).is_integer() or values.size == 0 or values[-1] >= -_ZERO:
        return
    works = int((values >= -_ZERO).sum())
    raise ValueError(
        f"diffusion_time={time} is not an integer, and eigenvalue {works} is "
        f"{values[works]:.3g} < 0, which has no real fractional power. Use an integer "
        f"diffusion_time, or n_components <= {works}."
    )


def check_multiscale(n_stationary: int, time: float | str) -> None:
    """Raise where the sum over all times has no limit: for eigenvalues 1 beyond the trivial one."""
    if time == "multiscale" and n_stationary > 1:
        raise ValueError(
            "diffusion_time='multiscale' requires one connected component, but "
            f"{n_stationary} eigenvalues are 1 to rounding, where lambda / (1 - lambda) has no "
            "value. Set disconnected='largest' to map the largest component only, connect the "
            "samples better, or use a number as diffusion_time."
        )


def check_spectrum(
    training: TrainingSet,
    kernel: GaussianKernel,
    markov: MarkovFit,
    functions: Eigenfunctions,
    spectrum: Spectrum,
    time: float | str,
    tol: float,
) -> None:
    """Raise where a coordinate is not real, and warn of those not to be trusted."""
    check_time(spectrum.eigenvalues, time)
    power = 1.0 if isinstance(time, str) else time
    warn_small_eigenvalues(spectrum.eigenvalues, power, kernel.kind)
    warn_convergence(functions, tol)
    cure = _local_remedy(training) if kernel.kind in ("local", "given") else _LOCAL
    warn_localized(functions, markov, training, cure)


def warn_small_eigenvalues(values: NDArray[np.float64], time: float, kind: str) -> None:
    """Warn where no structure is left, or the extension divides by almost 0."""
    small = np.abs(values) <= _SMALL_EIGENVALUE
    if small.all():
        cause = "bandwidth is far larger than the data"
        cure = "Lower bandwidth."
        if kind == "given":
            cause, cure = (
                "the rows of the affinities are all alike",
                "Pass those of a narrower kernel.",
            )
        warn(
            f"All eigenvalues are at most {_SMALL_EIGENVALUE:g} (the first is {values[0]:.1e}): "
            f"{cause}, and the coordinates are rounding errors. {cure}",
            BandwidthWarning,
        )
    elif time < 1.0 and small.any():
        first = int(small.argmax())
        error = 1e-15 / max(abs(values[first]), 1e-300) ** (1.0 - time)
        warn(
            f"Eigenvalue {first} is {values[first]:.1e}. With diffusion_time={time} < 1 the "
            f"coordinates from {first} on are accurate to {error:.0e} only. Use n_components <= "
            f"{first} or diffusion_time >= 1.",
            BandwidthWarning,
        )


def warn_convergence(functions: Eigenfunctions, tol: float) -> None:
    """Warn of eigenpairs whose residual is above the tolerance."""
    residuals, values = functions.residuals, functions.theta
    limits = tolerances(values, tol)
    bad = np.flatnonzero(residuals > limits)
    if bad.size:
        worst = int(bad[np.argmax(residuals[bad] / limits[bad])])
        warn(
            f"{bad.size} of {values.size} eigenpairs did not converge "
            f"(eigen_solver {functions.solver!r}): pair {worst} has residual "
            f"{residuals[worst]:.1e}; it must be <= {limits[worst]:.1e}. "
            "See residuals_. Lower n_components, raise tol, or set eigen_solver='dense'.",
            ConvergenceWarning,
        )


def warn_cutoff(graph: DistanceGraph, kernel: GaussianKernel) -> None:
    """Warn where the kernel is cut off before it has decayed; a local one adapts to that."""
    if graph.row_radii is None or kernel.kind == "local":
        return
    h = kernel.bandwidth * (1.0 if kernel.train_scale is None else kernel.train_scale)
    left = float(np.median(gaussian(np.square(graph.row_radii), h)))
    if left > _TRUNCATION:
        wanted = float(np.median(graph.row_radii) / CUTOFF)
        warn(
            f"The kernel is cut off at the neighbours' distance, where it is still {left:.2g} in "
            f"the median sample (should be <= {_TRUNCATION}). Raise n_neighbors, or lower "
            f"bandwidth to about {wanted:.3g}.",
            BandwidthWarning,
        )


def warn_alpha(alpha: float) -> None:
    """Warn where a local bandwidth leaves ``alpha`` without its meaning."""
    warn(
        f"alpha={alpha} with bandwidth='local': lengths that follow the density lead to the same "
        "limit for every alpha, so alpha removes no density here, and values other than 1 only "
        "lower 1 - eigenvalues_. Use alpha=1, or bandwidth='auto' or a number.",
        BandwidthWarning,
    )


def warn_ties(graph: DistanceGraph, n_neighbors: int | None) -> None:
    """Warn of samples that are equally far from more others than a sparse kernel can hold."""
    if graph.n_tied and n_neighbors is not None:
        limit = 8 * n_neighbors + 7
        warn(
            f"{graph.n_tied} of {graph.distances.shape[0]} samples are equally far from more than "
            f"{limit} of their nearest samples: with n_neighbors={n_neighbors} these get no "
            "weight. Raise n_neighbors, or set n_neighbors=None for all pairs.",
            BandwidthWarning,
        )


def warn_pole(theta: NDArray[np.float64], kernel: GaussianKernel) -> None:
    """Warn where the denominator of a variable bandwidth's extension can vanish."""
    if not kernel.is_generator:
        return
    near = np.flatnonzero((1.0 - theta) * RHO_BOUND**2 > _NEAR_POLE)
    if near.size:
        remedies = [f"n_components <= {near[0]}"] if near[0] else []
        remedies.append("a smaller bandwidth")
        warn(
            "With a variable bandwidth transform divides by 1 - eps mu rho^2, which comes near 0 "
            f"for coordinates from {near[0]} on (eps mu rho^2 up to "
            f"{(1.0 - theta.min()) * RHO_BOUND**2:.2g}, should be <= {_NEAR_POLE}): their values "
            f"for new samples are unreliable. Use {' or '.join(remedies)}.",
            BandwidthWarning,
        )


def warn_extension(
    coordinates: NDArray[np.floating],
    near_pole: NDArray[np.integer],
    *,
    training: bool,
    named: NDArray[np.integer] | None = None,
) -> None:
    """Warn of samples, by their coordinates (n, k) and numbers, that the extension gives none;
    not again of those ``named`` as parts of small components.
    """
    _warn_isolated(coordinates, training, named)
    _warn_near_pole(near_pole, training)


def _warn_near_pole(rows: NDArray[np.integer], training: bool) -> None:
    """Warn of samples at which the extension of a variable bandwidth divides by almost 0."""
    if rows.size:
        what = "training samples" if training else "samples of X"
        cure = (
            "Their embedding_ is lambda^t psi there, and transform does not reproduce it."
            if training
            else "These coordinates are unreliable."
        )
        warn(
            f"With a variable bandwidth the coordinates of {rows.size} {what} are divided by less "
            f"than 1e-3: {named_samples(rows)}. {cure} Use a smaller bandwidth, or "
            "bandwidth_exponent=0 with a number or 'auto' as bandwidth.",
            BandwidthWarning if training else ExtrapolationWarning,
        )


def warn_localized(
    functions: Eigenfunctions, markov: MarkovFit, training: TrainingSet, cure: str
) -> None:
    """Warn of coordinates that few samples carry: fewer than ten or a quarter, or one mostly."""
    if markov.kept.size < 2 * _EFFECTIVE_SAMPLES:
        return  # no other coordinates are possible
    shares = markov.stationary[:, None] * functions.psi**2
    effective = 1.0 / np.sum(shares**2, axis=0)
    limit = min(_EFFECTIVE_SAMPLES, _EFFECTIVE_SHARE * markov.kept.size)
    bad = np.flatnonzero((effective < limit) | (shares.max(axis=0) > _LARGEST_SHARE))
    bad = bad[bad >= functions.n_indicators]
    if not bad.size:
        return
    index = training.rows.index[markov.kept]
    named = []
    for k in bad[:5]:
        rows = np.argsort(-shares[:, k], kind="stable")[:3]
        rows = rows[shares[rows, k] > min(0.1, shares[rows[0], k] / 2)]
        carriers = named_samples(index[rows], noun=training.noun)
        named.append(f"coordinate {k} ({effective[k]:.2g} effective {training.noun}s, {carriers})")
    more = f" and {bad.size - 5} more" if bad.size > 5 else ""
    warn(
        f"{bad.size} coordinate(s) live on fewer than {limit:g} effective {training.noun}s, or "
        f"mostly on one: {'; '.join(named)}{more}. Such {training.noun}s are weakly connected "
        f"to the others, unless all are equally far apart, where there is nothing to map. {cure}",
        LocalizedCoordinateWarning,
    )


def _local_remedy(training: TrainingSet) -> str:
    """What to do where lengths that follow the density do not connect all samples well."""
    if training.landmarks is not None:
        return (
            "Raise n_landmarks; or, if the samples near them are outliers, give these the "
            "sample_weight 0."
        )
    # Equal samples are one in the fit, and the first stands for them.
    repeated = np.any((training.rows.group >= 0) & (training.rows.share < 1.0))
    them = "them, and all samples equal to them," if repeated else "them"
    return (
        f"To leave them out of the map, give {them} the sample_weight 0, and then those that the "
        "next fit names."
    )


def warn_far_samples(
    far: NDArray[np.integer], n_samples: int, *, is_given: bool, stored: bool = False
) -> None:
    """Warn of samples, by their numbers, that are far from every training sample."""
    if far.size:
        unless = " (0 where no stored distance leads to one in the fit)" if stored else ""
        warn(
            f"X: {far.size} of {n_samples} samples are so far from all training samples that "
            f"every kernel value is below 1e-14{' of the largest' if is_given else ''}: "
            f"{named_samples(far)}. They get the coordinates "
            f"of the nearest training samples{unless}. Check these samples before using their "
            "coordinates.",
            ExtrapolationWarning,
        )


def _warn_isolated(
    coordinates: NDArray[np.floating], training: bool, named: NDArray[np.integer] | None
) -> None:
    """Warn of samples to which a given kernel leaves no affinity: their coordinates are nan."""
    isolated = np.flatnonzero(np.isnan(coordinates[:, 0]))
    if named is not None:
        isolated = np.setdiff1d(isolated, named)
    if isolated.size:
        where = " and stationary probability 0" if training else ""
        warn(
            f"X: {isolated.size} of {len(coordinates)} samples have no affinity above 0 to the "
            f"training samples in the fit; they get nan coordinates{where}: "
            f"{named_samples(isolated)}. Drop these samples, or pass affinities that reach them, "
            f"as of more neighbours. {_IMPUTE}.",
            DisconnectedGraphWarning if training else ExtrapolationWarning,
        )


def warn_far_coordinates(far: NDArray[np.integer], n_rows: int) -> None:
    """Warn of coordinates that are far from those of every training sample."""
    if far.size:
        warn(
            f"X: the coordinates of {far.size} of {n_rows} samples lie off the embedding, between "
            "its groups or beyond it, more than 0.4 of its range from those of any training "
            f"sample: {named_samples(far)}. The result is a mean of the nearest training samples. "
            "Pass coordinates returned by transform.",
            ExtrapolationWarning,
        )
