"""What can be wrong with the input of a diffusion map, and what to say about it."""

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from skdmap._warning import warn
from skdmap.diffusion._eigenpairs import tolerances
from skdmap.diffusion._graph import DistanceGraph
from skdmap.diffusion._scale import RHO_BOUND, LocalScale
from skdmap.diffusion._search import CUTOFF
from skdmap.exceptions import (
    BandwidthWarning,
    ConvergenceWarning,
    DisconnectedGraphWarning,
    ExtrapolationWarning,
    LocalizedCoordinateWarning,
)

__all__ = [
    "check_components",
    "check_distances",
    "check_n_components",
    "check_new_distances",
    "check_sample_weight",
    "check_time",
    "named_rows",
    "warn_convergence",
    "warn_cutoff",
    "warn_far_coordinates",
    "warn_far_rows",
    "warn_localized",
    "warn_pole",
    "warn_small_eigenvalues",
]

_TRUNCATION = 1e-2
_EFFECTIVE_ROWS = 10
# Searches by |x|^2 + |y|^2 - 2xy put a row of single precision so far away from itself.
_SELF = 1e-4
_LOG_FAR = float(np.log(1e-14))
_SMALL_EIGENVALUE = 1e-6


def named_rows(rows: NDArray[np.integer], limit: int = 10) -> str:
    """Return "rows 3, 7 and 12 more"."""
    shown = ", ".join(str(int(row)) for row in rows[:limit])
    more = f" and {rows.size - limit} more" if rows.size > limit else ""
    return f"row{'s' if rows.size > 1 else ''} {shown}{more}"


def check_sample_weight(sample_weight: ArrayLike | None, n_samples: int) -> NDArray[np.float64]:
    """Return the weights as float64; ones for None.

    Parameters
    ----------
    sample_weight : array-like of shape (n_samples,) or None
        Non-negative.
    n_samples : int
        Rows of X.

    Returns
    -------
    ndarray of shape (n_samples,)

    Raises
    ------
    ValueError
        On another shape, a value that is negative or not finite, or all zero.
    """
    if sample_weight is None:
        return np.ones(n_samples)
    weight = np.asarray(sample_weight, dtype=np.float64)
    if weight.shape != (n_samples,):
        raise ValueError(
            f"sample_weight has shape {weight.shape}, must be ({n_samples},): one weight per row "
            "of X."
        )
    bad = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
    if bad.size:
        raise ValueError(
            f"sample_weight[{bad[0]}] = {weight[bad[0]]}, must be finite and >= 0. Give rows that "
            "should not count the weight 0."
        )
    if not np.any(weight > 0):
        raise ValueError("sample_weight is all zero. At least two rows need a positive weight.")
    return weight


def check_distances(X: Any) -> None:
    """Check a matrix of precomputed training distances.

    Parameters
    ----------
    X : {ndarray, csr_matrix} of shape (n, n)
        Dense distances are square, symmetric, and zero on the diagonal; listed ones are square.

    Raises
    ------
    ValueError
        If they are not, or if one is negative.
    """
    if X.shape[0] != X.shape[1]:
        raise ValueError(
            f"X has shape {X.shape}, must be square with metric='precomputed': distances among the "
            "training rows. Pass pairwise_distances(X), or the rows with another metric."
        )
    smallest = X.data.min(initial=0.0) if sp.issparse(X) else X.min()
    if smallest < 0:
        raise ValueError(
            f"X holds the distance {smallest:g}; with metric='precomputed' distances must be "
            "non-negative (Negative values in data). Pass distances, not similarities."
        )
    if sp.issparse(X):
        diagonal = X.diagonal()
        if diagonal.max(initial=0.0) > _SELF * X.data.max(initial=0.0):
            row = int(diagonal.argmax())
            raise ValueError(
                f"X[{row}, {row}] = {diagonal[row]:g}, must be 0 or not listed with "
                "metric='precomputed': the distance of a row from itself. Use "
                "KNeighborsTransformer(mode='distance'), not 'connectivity'."
            )
        return
    scale = X.max()
    asymmetry = max(
        float(np.abs(X[i : i + 512] - X[:, i : i + 512].T).max()) for i in range(0, len(X), 512)
    )
    limit = 1e3 * np.finfo(X.dtype).eps * scale
    if asymmetry > limit:
        raise ValueError(
            f"X is not symmetric: |X - X.T| reaches {asymmetry:g}, must be <= {limit:g} with "
            "metric='precomputed'. Pass 0.5 * (X + X.T) if the difference is rounding."
        )
    diagonal = np.abs(np.diagonal(X))
    if diagonal.max() > limit:
        row = int(diagonal.argmax())
        raise ValueError(
            f"X[{row}, {row}] = {X[row, row]:g}, must be 0 with metric='precomputed': the distance "
            "of a row from itself. Pass distances, not similarities."
        )


def check_n_components(n_components: int, n_rows: int) -> None:
    """Raise when more coordinates are asked for than there are.

    Parameters
    ----------
    n_components : int
        The parameter.
    n_rows : int
        Distinct rows that take part.

    Raises
    ------
    ValueError
        Names both.
    """
    if n_components >= n_rows:
        raise ValueError(
            f"n_components={n_components} must be below the number of distinct rows of positive "
            f"weight that take part, {n_rows}: the range is 1 to {n_rows - 1}. Lower it, or pass "
            "more rows."
        )


def check_new_distances(X: Any, *, listed: bool) -> None:
    """Check distances from new rows to training rows.

    Parameters
    ----------
    X : {ndarray, csr_matrix} of shape (n_rows, n_samples)
        Dense or listed.
    listed : bool
        What the fit saw.

    Raises
    ------
    ValueError
        On the other kind, or a negative distance.
    """
    if sp.issparse(X) != listed:
        raise ValueError(
            f"X is {'sparse' if sp.issparse(X) else 'dense'}, but the fit saw "
            f"{'listed (sparse)' if listed else 'dense'} distances; pass the same kind."
        )
    smallest = X.data.min(initial=0.0) if sp.issparse(X) else X.min(initial=0.0)
    if smallest < 0:
        raise ValueError(
            f"X holds the distance {smallest:g}, must be >= 0. Pass distances, not similarities."
        )


def check_components(labels: NDArray[np.integer], index: NDArray[np.integer], mode: str) -> None:
    """Raise or warn about a graph in several pieces.

    Parameters
    ----------
    labels : ndarray of shape (n_train,)
        Component of each distinct row; -1 for pieces too small to count, -2 for rows of no mass.
    index : ndarray of shape (n_train,)
        Its place in X.
    mode : {"warn", "raise", "largest"}
        Parameter ``disconnected``.

    Raises
    ------
    ValueError
        With mode "raise".
    """
    sizes, left_out = np.bincount(labels[labels >= 0]), index[labels == -1]
    if (sizes.size == 1 and left_out.size == 0) or mode == "largest":
        return
    listed = ", ".join(str(int(size)) for size in sizes[:10]) + (", ..." if sizes.size > 10 else "")
    message = ""
    if sizes.size > 1:
        message = (
            f"The kernel connects the rows in {sizes.size} separate components, of {listed} rows. "
        )
    if left_out.size:
        message += (
            f"{left_out.size} outlying row(s), in pieces of fewer than 10, take no part in the "
            f"fit; their coordinates are those of transform: {named_rows(left_out)}. "
        )
    remedy = "Raise bandwidth or n_neighbors if all rows should be one component"
    if mode == "raise":
        raise ValueError(
            f"{message}disconnected='raise' allows one component and no rest. {remedy}, or set "
            "disconnected to 'warn' or 'largest'."
        )
    if sizes.size > 1:
        message += f"The first {sizes.size - 1} coordinate(s) tell the components apart. "
        remedy += ", or set disconnected='largest' to map the largest only"
    warn(
        f"{message}{remedy}.",
        DisconnectedGraphWarning,
    )


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
