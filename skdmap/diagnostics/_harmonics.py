"""Which diffusion coordinates are functions of the ones before."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import pdist, squareform

from skdmap._argument_checks import check_number

# The bandwidth of the regression is the median distance over this (Dsilva et al., section 4).
_BANDWIDTH_SHARE = 3.0
# Relative to the spread of the neighbours; keeps a fit with few neighbours well defined.
_RIDGE = 1e-6
# A slope between close neighbours says nothing of a sample far from them: its fitted value stays
# within this many of their standard deviations. Smooth functions of Gaussian samples need 30.
_REACH = 30.0
# Of a covariance, of coordinates up to 1.
_ROUNDING = 16 * np.finfo(np.float64).eps
# Distances in bandwidths; the square of more would overflow.
_FARTHEST = 1e150


@dataclass(frozen=True)
class HarmonicResiduals:
    """How far each coordinate is from being a function of the coordinates before it.

    Attributes
    ----------
    residuals : ndarray of shape (n_components,)
        Leave-one-out errors of the local linear fits, relative to the root mean square of the
        coordinate, in [0, 1]: near 0 for a harmonic, near 1 for a new direction. The first is 1.
    threshold : float
        Coordinates with a larger residual count as new directions.
    independent : ndarray of shape (n_independent,)
        Indices of these coordinates, from 0.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.diagnostics import harmonic_residuals
    >>> t = np.linspace(0, 1, 200)
    >>> waves = np.cos(np.pi * np.outer(t, [1, 2, 3]))
    >>> print(harmonic_residuals(waves).summary())
    Of 3 coordinates, 1 is not a function of those before it: coordinate 0. The other residuals are
    at most 0.07 (threshold 0.5).
    """

    residuals: np.ndarray
    threshold: float
    independent: np.ndarray

    def summary(self) -> str:
        """Describe the result in words.

        Returns
        -------
        str
            Two sentences.
        """
        k, found = len(self.residuals), self.independent
        verb = "is not a function" if len(found) == 1 else "are not functions"
        word = "coordinate" if len(found) == 1 else "coordinates"
        before = "it" if len(found) == 1 else "them"
        text = (
            f"Of {k} coordinates, {len(found)} {verb} of those before {before}: {word} "
            f"{', '.join(map(str, found))}."
        )
        others = np.setdiff1d(np.arange(k), self.independent)
        if len(others) == 0:
            return f"{text} The smallest residual is {self.residuals.min():.2f}."
        return (
            f"{text} The other residuals are at most {self.residuals[others].max():.2f} "
            f"(threshold {self.threshold:g})."
        )


def harmonic_residuals(coordinates: ArrayLike, *, threshold: float = 0.5) -> HarmonicResiduals:
    """Distinguish new directions from harmonics by local linear regression.

    The eigenfunctions of a curve are cos(k pi s), so psi_2 close to 2 psi_1^2 - 1 is not a second
    dimension. Each coordinate psi_k is fitted, at each sample, by a linear function of the
    coordinates before it, with weights exp(-d^2 / b^2), where d are distances in those coordinates
    and b is a third of their median; the sample itself is left out. A fitted value stays within
    30 standard deviations of the neighbours' values. The residual is the square root of
    sum (psi_k - fit)^2 / sum psi_k^2, or that of the mean of psi_k if this is smaller.

    Parameters
    ----------
    coordinates : array-like of shape (n_samples, n_components)
        Eigenfunctions in descending order of eigenvalue, such as ``DiffusionMap.eigenvectors_``,
        of a few hundred to a few thousand samples.
    threshold : float, default=0.5
        Coordinates with a larger residual count as new directions; in (0, 1). Noise raises all
        residuals, and Dsilva et al. give no value, so look at the residuals.

    Returns
    -------
    HarmonicResiduals
        The residuals and the indices of the independent coordinates.

    Raises
    ------
    ValueError
        If ``coordinates`` is not a finite matrix of at least five samples, a column is constant 0,
        or ``threshold`` is out of range.

    References
    ----------
    Dsilva, C. J., Talmon, R., Coifman, R. R. & Kevrekidis, I. G. (2018). Parsimonious
    representation of nonlinear dynamical systems through manifold learning: a chemotaxis case
    study. Applied and Computational Harmonic Analysis 44, 759-773.
    https://doi.org/10.1016/j.acha.2015.06.008

    Examples
    --------
    A strip three times as long as wide: the third coordinate is a function of the width.

    >>> import numpy as np
    >>> from skdmap.diagnostics import harmonic_residuals
    >>> s, w = np.random.default_rng(0).random((2, 600))
    >>> waves = [np.cos(np.pi * s), np.cos(2 * np.pi * s), np.cos(np.pi * w)]
    >>> harmonic_residuals(np.column_stack(waves)).independent
    array([0, 2])
    """
    values = np.asarray(coordinates, dtype=np.float64)
    if values.ndim != 2 or len(values) < 5 or not np.isfinite(values).all():
        raise ValueError(
            f"coordinates has shape {values.shape}; it must be a finite matrix with at least 5 "
            "rows. Pass eigenvectors_ of a fitted DiffusionMap."
        )
    threshold = check_number("threshold", threshold, low=0.0, high=1.0)
    sizes = np.abs(values).max(axis=0)
    if not sizes.all():
        raise ValueError(
            f"column {int(np.argmin(sizes))} of coordinates is 0 in every row. Pass eigenvectors_ "
            "of a fitted DiffusionMap, or leave the column out."
        )
    pairs = ((values[:, :k], values[:, k]) for k in range(1, values.shape[1]))
    residuals = np.array([1.0] + [_residual(before, target) for before, target in pairs])
    return HarmonicResiduals(
        residuals=residuals, threshold=threshold, independent=np.flatnonzero(residuals > threshold)
    )


def _residual(before: np.ndarray, target: np.ndarray) -> float:
    """Return the relative leave-one-out error of ``target`` (n,) as a function of ``before``."""
    # Units do not matter; in these no square overflows, and that of the largest entry is 1.
    before, target = before / np.abs(before).max(), target / np.abs(target).max()
    distances = squareform(pdist(before))
    width = np.median(distances) / _BANDWIDTH_SHARE
    exponents = np.minimum(distances / (width if width > 0 else 1.0), _FARTHEST) ** 2
    np.fill_diagonal(exponents, np.inf)
    error = leave_one_out_error(before, target, exponents, ridge=_RIDGE, reach=_REACH)
    error = min(error, np.sum((target - target.mean()) ** 2))
    return float(np.sqrt(min(error / np.sum(target**2), 1.0)))


def leave_one_out_error(
    before: np.ndarray, target: np.ndarray, exponents: np.ndarray, *, ridge: float, reach: float
) -> float:
    """Return the sum of squared errors of local linear fits of ``target`` (n,) on ``before``.
    Weights are exp(-exponents), inf on the diagonal; a fit goes ``reach`` deviations far at most.
    """
    # Relative to the nearest sample, so that the weights of an isolated one do not underflow.
    weights = np.exp(exponents.min(axis=1, keepdims=True) - exponents)
    weights /= weights.sum(axis=1, keepdims=True)
    means, target_mean = weights @ before, weights @ target
    n, k = before.shape
    products = np.einsum("ni,nj->nij", before, before).reshape(n, -1)
    covariance = (weights @ products).reshape(n, k, k) - np.einsum("ni,nj->nij", means, means)
    with_target = weights @ (before * target[:, None]) - means * target_mean[:, None]
    spread = np.maximum(np.trace(covariance, axis1=1, axis2=2), 0.0)
    covariance += (ridge * spread + _ROUNDING)[:, None, None] * np.eye(k)
    slopes = np.linalg.solve(covariance, with_target[:, :, None])[:, :, 0]
    change = np.einsum("ni,ni->n", before - means, slopes)
    most = reach * np.sqrt(np.maximum(weights @ target**2 - target_mean**2, 0.0))
    return float(np.sum((target - target_mean - np.clip(change, -most, most)) ** 2))
