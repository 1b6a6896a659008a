"""Eigenvectors in, eigenfunctions with a sign and a size of their own out.

psi = v / sqrt(pi) has sum_i pi_i psi_k(i)^2 = 1: coordinates do not depend on the number of rows.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from skdmap.diffusion._normalization import MarkovOperator

__all__ = [
    "averaged",
    "eigenfunctions",
    "fixed_signs",
    "laplacian_eigenvalues",
    "markov_eigenvalues",
    "participation",
    "time_factors",
]

# Below this stationary probability v / sqrt(pi) is rounding; the extension gives the value.
NEGLIGIBLE = 1e-14
_SYMMETRIC = 1e-6


def averaged(
    operator: MarkovOperator, values: NDArray[np.float64], kept: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return P psi: what a step of the Markov chain, kept to some rows, expects of ``values``.

    Parameters
    ----------
    operator : MarkovOperator
        Symmetric form.
    values : ndarray of shape (n, k)
        Functions of the rows.
    kept : ndarray of shape (n,)
        The rows that a step may end at.

    Returns
    -------
    ndarray of shape (n, k)
        nan for a row from which none of them is reached.
    """
    root = np.sqrt(operator.stationary) * kept
    total = operator.kernel @ root
    total[total < 1e-250] = np.nan
    return (operator.kernel @ (root[:, None] * values)) / total[:, None]


def eigenfunctions(
    operator: MarkovOperator,
    vectors: NDArray[np.float64],
    denominators: Callable[[NDArray[np.float64] | None], NDArray[np.float64]],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return psi = v / sqrt(pi), by extension where pi is negligible.

    Parameters
    ----------
    operator : MarkovOperator
        Symmetric form.
    vectors : ndarray of shape (n, k)
        Orthonormal eigenvectors of S.
    denominators : callable
        From rho of some rows to what divides P psi in the extension.

    Returns
    -------
    psi : ndarray of shape (n, k)
    kept : ndarray of shape (n,)
        True where pi is not negligible.
    """
    kept = operator.stationary > NEGLIGIBLE
    psi = vectors / np.sqrt(np.where(kept, operator.stationary, 1.0))[:, None]
    psi[~kept] = 0.0
    if not kept.all():
        with np.errstate(divide="ignore", invalid="ignore"):
            extended = averaged(operator, psi, kept) / denominators(operator.scale)
        psi[~kept] = np.nan_to_num(extended[~kept], nan=0.0, posinf=0.0, neginf=0.0)
    return psi, kept


def markov_eigenvalues(theta: NDArray[np.float64], *, variable: bool) -> NDArray[np.float64]:
    """Return lambda: theta itself, or exp(-eps mu) where the generator is what is estimated."""
    return np.exp(-(1.0 - theta)) if variable else theta


def laplacian_eigenvalues(
    theta: NDArray[np.float64], *, epsilon: float, correction: float
) -> NDArray[np.float64]:
    """Return mu = (1 - theta) / (eps correction), >= 0, in 1 / length^2."""
    rate = np.maximum(1.0 - theta, 0.0)
    # 0 even where all rows are apart, which leaves the kernel no second moment.
    return np.divide(rate, epsilon * correction, out=np.zeros_like(rate), where=rate > 0)


def time_factors(values: NDArray[np.float64], time: float) -> NDArray[np.float64]:
    """Return lambda^t; negative eigenvalues have real powers for whole t only."""
    whole = float(time).is_integer()
    with np.errstate(divide="ignore"):
        return np.power(values if whole else np.maximum(values, 0.0), float(time))


def participation(psi: NDArray[np.float64], stationary: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / sum_i pi_i psi_k(i)^4, the share of the mass that carries a coordinate."""
    counted = stationary > NEGLIGIBLE
    return 1.0 / (stationary[counted] @ psi[counted] ** 4)


def fixed_signs(
    psi: NDArray[np.float64],
    stationary: NDArray[np.float64],
    columns: Callable[[NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]]
    | None = None,
    order: Callable[[], NDArray[np.intp]] | None = None,
) -> NDArray[np.float64]:
    """Return a sign per eigenfunction that depends neither on row order nor on the solver.

    Parameters
    ----------
    psi : ndarray of shape (n, k)
        Eigenfunctions.
    stationary : ndarray of shape (n,)
        pi.
    columns : callable or None, default=None
        From functions (n, l), to their pi-covariances with the columns of X (l, n_features) and
        the standard deviations of these (n_features,). None: rows have no columns.
    order : callable or None, default=None
        Gives an order of the rows that does not depend on where they stand; None is their own.

    Returns
    -------
    ndarray of shape (k,)
        +-1: of sum pi psi^3; where that vanishes, of the covariance with the first column of X that
        has one; where none has, of the first row in order that is not near 0.
    """
    pi = np.where(stationary > NEGLIGIBLE, stationary, 0.0)
    cubes = pi @ psi**3
    signs = np.sign(cubes)
    open_ = np.abs(cubes) <= _SYMMETRIC * (pi @ np.abs(psi) ** 3)
    if open_.any() and columns is not None:
        covariance, deviation = columns(pi[:, None] * psi[:, open_])
        found = np.abs(covariance) > _SYMMETRIC * np.maximum(deviation, np.finfo(float).tiny)
        first = found.argmax(axis=1)
        chosen = np.flatnonzero(open_)[found.any(axis=1)]
        signs[chosen] = np.sign(covariance[np.arange(first.size), first][found.any(axis=1)])
        open_[chosen] = False
    if open_.any():
        first_to_last = np.arange(pi.size) if order is None else order()
        ordered = psi[first_to_last][:, open_]
        visible = (np.abs(ordered) > 1e-3) & (pi[first_to_last] > 0)[:, None]
        first = visible.argmax(axis=0)
        signs[open_] = np.sign(ordered[first, np.arange(first.size)])
    return np.where(signs == 0, 1.0, signs)
