"""What can be wrong with the input of a diffusion map, and what to say about it."""

import numpy as np
from numpy.typing import NDArray

from skdmap._warning import warn
from skdmap.diffusion._distance_histogram import CUTOFF
from skdmap.diffusion._eigensolvers.eigenproblem import tolerances
from skdmap.diffusion._kernel import RHO_BOUND, LocalScale
from skdmap.diffusion._neighbors.graph import DistanceGraph
from skdmap.diffusion._validation import named_rows
from skdmap.exceptions import (
    BandwidthWarning,
    ConvergenceWarning,
    ExtrapolationWarning,
    LocalizedCoordinateWarning,
)

_TRUNCATION = 1e-2
_EFFECTIVE_ROWS = 10
_LOG_FAR = float(np.log(1e-14))
_SMALL_EIGENVALUE = 1e-6


def check_time(values: NDArray[np.float64], time: float) -> None:
    """Raise where lambda^t is not real.

    Parameters
    ----------
    values : ndarray of shape (k,)
        Eigenvalues, descending.
    time : float
        Parameter ``diffusion_time``.

    Raises
    ------
    ValueError
        For a fractional time and a negative eigenvalue.
    """
    if float(time).is_integer() or values.size == 0 or values[-1] >= 0:
        return
    works = int((values >= 0).sum())
    raise ValueError(
        f"diffusion_time={time} is no whole number, and eigenvalue {works} is "
        f"{values[works]:.3g} < 0: a fractional power of it is not real. The largest n_components "
        f"that works is {works}; or use a whole diffusion_time."
    )


def warn_small_eigenvalues(values: NDArray[np.float64], time: float) -> None:
    """Warn where nothing is left of the rows' shape, or the extension divides by almost nothing."""
    small = np.abs(values) <= _SMALL_EIGENVALUE
    if small.all():
        warn(
            f"All eigenvalues are below {_SMALL_EIGENVALUE:g} (the first is {values[0]:.1e}): the "
            "bandwidth is far larger than the data, and coordinates are rounding. Lower bandwidth.",
            BandwidthWarning,
        )
    elif time < 1.0 and small.any():
        first = int(small.argmax())
        error = 1e-15 / max(abs(values[first]), 1e-300) ** (1.0 - time)
        warn(
            f"Eigenvalue {first} is {values[first]:.1e}; with diffusion_time={time} < 1 "
            f"coordinates from {first} on are accurate to {error:.0e} only. Use n_components <= "
            f"{first} or diffusion_time >= 1.",
            BandwidthWarning,
        )


def warn_convergence(
    residuals: NDArray[np.float64], values: NDArray[np.float64], tol: float, solver: str
) -> None:
    """Warn with numbers about pairs whose residual is above what counts as converged."""
    limits = tolerances(values, tol)
    bad = np.flatnonzero(residuals > limits)
    if bad.size:
        worst = int(bad[np.argmax(residuals[bad] / limits[bad])])
        warn(
            f"{bad.size} of {values.size} eigenpairs did not converge (eigen_solver {solver!r}): "
            f"pair {worst} has residual {residuals[worst]:.1e}, must be <= {limits[worst]:.1e}. "
            "See residuals_; lower n_components, raise tol, or set eigen_solver='dense'.",
            ConvergenceWarning,
        )


def warn_cutoff(graph: DistanceGraph, scale: LocalScale, rho: NDArray[np.float64] | None) -> None:
    """Warn where the kernel is cut off before it has decayed."""
    if graph.row_radii is None:
        return
    h = scale.bandwidth * (1.0 if rho is None else rho)
    left = float(np.median(np.exp(-(graph.row_radii**2) / (2.0 * h**2))))
    if left > _TRUNCATION:
        wanted = float(np.median(graph.row_radii) / CUTOFF)
        warn(
            f"The kernel is cut off at the neighbours' distance, where it is still {left:.2g} in "
            f"the median row (should be <= {_TRUNCATION}). Raise n_neighbors, or lower bandwidth "
            f"to about {wanted:.3g}.",
            BandwidthWarning,
        )


def warn_pole(theta: NDArray[np.float64], scale: LocalScale) -> None:
    """Warn where the extension of a variable bandwidth comes near its pole."""
    if scale.kind == "fixed":
        return
    near = np.flatnonzero((1.0 - theta) * RHO_BOUND**2 > 0.5)
    if near.size:
        remedies = [f"n_components <= {near[0]}"] if near[0] else []
        remedies.append("a fixed bandwidth" if scale.kind == "neighbor" else "a smaller bandwidth")
        warn(
            "With a variable bandwidth the extension divides by 1 - eps mu rho^2, which comes "
            f"near 0 for coordinates from {near[0]} on (eps mu rho^2 up to "
            f"{(1.0 - theta.min()) * RHO_BOUND**2:.2g}, should be <= 0.5): transform of new rows "
            f"is not to be trusted there. Use {' or '.join(remedies)}.",
            BandwidthWarning,
        )


def warn_localized(
    psi: NDArray[np.float64],
    stationary: NDArray[np.float64],
    carried: NDArray[np.float64],
    first: int,
    index: NDArray[np.integer],
) -> None:
    """Warn about coordinates that fewer than ten effective rows carry; ``index``: rows of X."""
    if stationary.size < 2 * _EFFECTIVE_ROWS:
        return  # so few rows carry nothing else
    effective = carried / np.sum(stationary**2)
    bad = [k for k in np.flatnonzero(effective < _EFFECTIVE_ROWS) if k >= first]
    if not bad:
        return
    named = []
    for k in bad[:5]:
        mass = stationary * psi[:, k] ** 2
        rows = np.argsort(-mass, kind="stable")[:3]
        rows = index[rows[mass[rows] > min(0.1, mass.max() / 2)]]
        named.append(f"coordinate {k} (participation_ {carried[k]:.2g}, {named_rows(rows)})")
    more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
    warn(
        f"Fewer than {_EFFECTIVE_ROWS} effective rows carry {'; '.join(named)}{more}. Such rows "
        "hang on the rest by a thread: raise bandwidth, or drop or down-weight them.",
        LocalizedCoordinateWarning,
    )


def warn_far_rows(log_kernel: NDArray[np.float64]) -> None:
    """Warn about new rows that every training row is far from."""
    far = np.flatnonzero(log_kernel < _LOG_FAR)
    if far.size:
        warn(
            f"X: {far.size} of {log_kernel.size} rows lie so far from all training rows that every "
            f"kernel value is below 1e-14: {named_rows(far)}. Their coordinates are those of the "
            "nearest training rows (0 where a list names none); look at them before you use them.",
            ExtrapolationWarning,
        )


def warn_far_coordinates(far: NDArray[np.integer], n_rows: int) -> None:
    """Warn about coordinates from which no rows can be had back."""
    if far.size:
        warn(
            f"X: {far.size} of {n_rows} rows of coordinates lie outside the embedding by more than "
            f"its own range: {named_rows(far)}. What comes back is a linear extrapolation. Pass "
            "coordinates that transform has given.",
            ExtrapolationWarning,
        )
