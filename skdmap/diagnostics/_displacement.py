"""The share of a trajectory's displacement that lies in a subspace."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from skdmap._snapshots import matrix_of

# Snapshots are converted to float64 in blocks of about this many bytes, so that a memory-mapped
# snapshot matrix is never copied as a whole.
_BLOCK_BYTES = 2**25


@dataclass(frozen=True)
class DisplacementShare:
    """The part of a trajectory's displacement that lies in a subspace.

    Attributes
    ----------
    share : ndarray of shape (n_snapshots,)
        ``|C (x_i - x_0)|^2 / |x_i - x_0|^2``, in [0, 1]; NaN where a snapshot equals the origin.
    chance : float
        Expected share for a uniformly random direction: n_components / n_parameters.
    squared_displacement : ndarray of shape (n_snapshots,)
        ``|x_i - x_0|^2``, in squared parameter units.

    Examples
    --------
    >>> from skdmap.diagnostics import displacement_share
    >>> displacement_share([[0.0, 0.0], [3.0, 4.0]], [[1.0, 0.0]]).squared_displacement
    array([ 0., 25.])
    """

    share: np.ndarray
    chance: float
    squared_displacement: np.ndarray

    def summary(self) -> str:
        """Describe the result in words.

        Returns
        -------
        str
            One sentence, with the value expected by chance.
        """
        known = np.flatnonzero(np.isfinite(self.share))
        if len(known) == 0:
            return "All snapshots equal the origin, so there is no displacement."
        end = self.share[known[-1]]
        word = "above" if end > self.chance else "not above"
        return (
            f"A share of {end:.3g} of the squared displacement at snapshot {known[-1]} lies along "
            f"the directions (median over snapshots {np.median(self.share[known]):.3g}), {word} "
            f"the {self.chance:.3g} expected for a random direction."
        )


def displacement_share(
    snapshots: ArrayLike, components: ArrayLike, *, origin: int | ArrayLike = 0
) -> DisplacementShare:
    """Compute the share of the squared displacement in the span of given directions.

    Parameters
    ----------
    snapshots : array-like of shape (n_snapshots, n_parameters)
        Snapshots of one run, or its recording. For several runs, call the function once per run.
    components : array-like of shape (n_components, n_parameters)
        Orthonormal rows, such as ``HessianSpectrum().fit(...).components_``.
    origin : int or array-like of shape (n_parameters,), default=0
        Start of the displacement: the index of a snapshot, or a point.

    Returns
    -------
    DisplacementShare
        The share per snapshot, and the share expected by chance.

    Raises
    ------
    ValueError
        If shapes do not match, the directions are not orthonormal to the precision of their dtype,
        ``origin`` is out of range, or a snapshot is not finite.

    References
    ----------
    Gur-Ari, G., Roberts, D. A. & Dyer, E. (2018). Gradient descent happens in a tiny subspace.
    arXiv:1812.04754. https://doi.org/10.48550/arXiv.1812.04754

    Examples
    --------
    A displacement of (3, 4) has 9/25 of its squared length along the first axis; 1/2 is expected
    by chance:

    >>> from skdmap.diagnostics import displacement_share
    >>> result = displacement_share([[0.0, 0.0], [3.0, 4.0]], [[1.0, 0.0]])
    >>> result.share, result.chance
    (array([ nan, 0.36]), 0.5)
    """
    snapshots = np.asarray(matrix_of(snapshots, "snapshots"))
    components = np.asarray(components)
    _check_shapes(snapshots, components)
    check_orthonormal(components)
    start = _origin(snapshots, origin)
    squared, inside = _squared_lengths(snapshots, start, components.astype(np.float64))
    share = np.full(len(snapshots), np.nan)
    np.divide(inside, squared, out=share, where=squared > 0)
    return DisplacementShare(
        share=share,
        chance=len(components) / components.shape[1],
        squared_displacement=squared,
    )


def _squared_lengths(
    snapshots: np.ndarray, start: np.ndarray, components: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return |x_i - x_0|^2 and |C (x_i - x_0)|^2, each (n_snapshots,)."""
    squared, inside = np.empty(len(snapshots)), np.empty(len(snapshots))
    block = max(1, _BLOCK_BYTES // (8 * snapshots.shape[1]))
    for first in range(0, len(snapshots), block):
        rows = slice(first, first + block)
        displacement = snapshots[rows].astype(np.float64) - start
        squared[rows] = np.einsum("ij,ij->i", displacement, displacement)
        if not np.isfinite(squared[rows]).all():
            row = first + int(np.flatnonzero(~np.isfinite(squared[rows]))[0])
            raise ValueError(
                f"snapshots contains NaN or infinity in row {row}, or the origin does; every entry "
                "must be finite. Pass only the snapshots before the run diverged."
            )
        inside[rows] = np.sum((displacement @ components.T) ** 2, axis=1)
    return squared, inside


def _check_shapes(snapshots: np.ndarray, components: np.ndarray) -> None:
    for name, array in (("snapshots", snapshots), ("components", components)):
        if array.ndim != 2 or array.size == 0:
            raise ValueError(
                f"{name} has shape {array.shape}; it must be two-dimensional and not empty. Pass "
                f"a single row as {name}[None, :]."
            )
    if snapshots.shape[1] != components.shape[1]:
        raise ValueError(
            f"components has {components.shape[1]} columns and snapshots has "
            f"{snapshots.shape[1]}; they must be equal. Pass directions of the same parameters."
        )


def check_orthonormal(components: np.ndarray) -> None:
    """Raise ValueError if the rows are not orthonormal to the precision of their dtype."""
    precision = np.finfo(components.dtype if components.dtype.kind == "f" else np.float64).eps
    rows = components.astype(np.float64)
    deviation = float(np.max(np.abs(rows @ rows.T - np.eye(len(rows)))))
    # Written so that a NaN fails too.
    if not deviation <= precision**0.5:
        raise ValueError(
            f"components must have orthonormal rows: C C' differs from the identity by "
            f"{deviation:.1e} (allowed: {precision**0.5:.1e}). Pass "
            "numpy.linalg.qr(components.T)[0].T."
        )


def _origin(snapshots: np.ndarray, origin: int | ArrayLike) -> np.ndarray:
    if isinstance(origin, (int, np.integer)):
        if not -len(snapshots) <= origin < len(snapshots):
            raise ValueError(
                f"origin={origin} must be an index in [-{len(snapshots)}, {len(snapshots) - 1}]. "
                "Pass the index of a snapshot, or a point."
            )
        return snapshots[origin].astype(np.float64)
    point = np.asarray(origin, dtype=np.float64)
    if point.shape != (snapshots.shape[1],):
        raise ValueError(
            f"origin has shape {point.shape}; it must be ({snapshots.shape[1]},), one entry per "
            "parameter. Pass one snapshot, or its index."
        )
    return point
