"""The overlap of two subspaces."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import svd


@dataclass(frozen=True)
class SubspaceOverlap:
    """Overlap of two row spaces, and the overlap expected by chance.

    Attributes
    ----------
    overlap : float
        Mean squared cosine of the principal angles: 1 if the smaller space lies in the larger, 0
        if they are orthogonal.
    chance : float
        Expected overlap of two independent random spaces of the same dimensions: the larger
        dimension divided by the number of columns.
    cosines : ndarray of shape (min(n_rows_a, n_rows_b),)
        Cosines of the principal angles, descending.

    Examples
    --------
    >>> from skdmap.diagnostics import subspace_overlap
    >>> subspace_overlap([[1.0, 0.0, 0.0]], [[1.0, 1.0, 0.0]]).cosines.round(4)
    array([0.7071])
    """

    overlap: float
    chance: float
    cosines: np.ndarray

    def summary(self) -> str:
        """Describe the result in words.

        Returns
        -------
        str
            One sentence, with the overlap expected by chance.
        """
        word = "above" if self.overlap > self.chance else "not above"
        return (
            f"The mean squared cosine of {len(self.cosines)} principal angles is "
            f"{self.overlap:.3g} (cosines {self.cosines.max():.3g} to {self.cosines.min():.3g}), "
            f"{word} the {self.chance:.3g} expected for random spaces."
        )


def subspace_overlap(A: ArrayLike, B: ArrayLike) -> SubspaceOverlap:
    """Compute the mean squared cosine of the principal angles between two row spaces.

    For orthonormal bases Q_a (k_a, m) and Q_b (k_b, m) of the two spaces, it is
    ``||Q_a Q_b'||_F^2 / min(k_a, k_b)``, which does not depend on the choice of bases.

    Parameters
    ----------
    A : array-like of shape (n_rows_a, n_features)
        Linearly independent rows; they need not be orthonormal.
    B : array-like of shape (n_rows_b, n_features)
        Linearly independent rows that span the second space.

    Returns
    -------
    SubspaceOverlap
        The overlap, the overlap expected by chance, and the cosines.

    Raises
    ------
    ValueError
        If an array is not two-dimensional, is empty, contains NaN or infinity, or has linearly
        dependent rows, or if the numbers of columns differ.

    References
    ----------
    Björck, Å. & Golub, G. H. (1973). Numerical methods for computing angles between linear
    subspaces. Mathematics of Computation 27. https://doi.org/10.2307/2005662

    Examples
    --------
    Two planes in three dimensions that share one direction:

    >>> from skdmap.diagnostics import subspace_overlap
    >>> result = subspace_overlap([[1, 0, 0], [0, 1, 0]], [[0, 2, 0], [0, 0, 3]])
    >>> round(result.overlap, 12), round(result.chance, 4)
    (0.5, 0.6667)
    """
    basis_a, basis_b = _row_basis(A, "A"), _row_basis(B, "B")
    if basis_a.shape[1] != basis_b.shape[1]:
        raise ValueError(
            f"A has {basis_a.shape[1]} columns and B has {basis_b.shape[1]}; they must be equal. "
            "Pass directions of the same parameters."
        )
    cosines = np.linalg.svd(basis_a @ basis_b.T, compute_uv=False)
    n_columns = basis_a.shape[1]
    larger = max(len(basis_a), len(basis_b))
    return SubspaceOverlap(
        overlap=float(np.mean(cosines**2)), chance=larger / n_columns, cosines=cosines
    )


def _row_basis(rows: ArrayLike, name: str) -> np.ndarray:
    """Return an orthonormal basis (n_rows, n_features) of the row space, in float64."""
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.size == 0:
        raise ValueError(
            f"{name} has shape {rows.shape}; it must be (n_rows, n_features) with at least one "
            f"row. Pass a single direction as {name}[None, :]."
        )
    precision = np.finfo(rows.dtype if rows.dtype.kind == "f" else np.float64).eps
    rows = rows.astype(np.float64)
    if not np.isfinite(rows).all():
        raise ValueError(
            f"{name} contains NaN or infinity; every entry must be finite. Drop those rows."
        )
    # Rows of very different length must not look dependent, so each is scaled first.
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    _, values, basis = svd(rows / np.where(lengths > 0, lengths, 1.0), full_matrices=False)
    rank = int(np.sum(values > max(rows.shape) * precision * values[0]))
    if rank < len(rows):
        raise ValueError(
            f"{name} has {len(rows)} rows of rank {rank}; the rows must be linearly independent. "
            "Drop the dependent rows."
        )
    return basis
