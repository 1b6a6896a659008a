"""The last step of a fit, of several stages: Markov operator -> eigenpairs -> coordinates."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap.diffusion._eigensolvers.choice import leading_eigenpairs
from skdmap.diffusion._kernel import LocalScale
from skdmap.diffusion._markov import (
    NEGLIGIBLE,
    MarkovFit,
    MarkovOperator,
    check_components,
    indicator_coordinates,
    markov_operator,
)
from skdmap.diffusion._neighbors.graph import DistanceGraph
from skdmap.diffusion._validation import check_n_components
from skdmap.diffusion._warnings import (
    check_time,
    warn_convergence,
    warn_cutoff,
    warn_localized,
    warn_pole,
    warn_small_eigenvalues,
)

_BLOCK = 2**22
_ORDER_COLUMNS = 16
_SYMMETRIC = 1e-6


@dataclass(frozen=True)
class Coordinates:
    """Eigenfunctions of the rows that take part.

    Attributes
    ----------
    theta : ndarray of shape (k,)
        Eigenvalues of the symmetric form.
    psi : ndarray of shape (n_kept, k)
        Right eigenvectors, with a sign.
    extended : ndarray of shape (n_kept, k)
        P psi: lambda psi, or (1 - eps mu rho^2) psi, as the extension gives it; nan where it
        cannot.
    negligible : ndarray of shape (n_kept,)
        Rows whose pi is too small to weigh in a sum.
    residuals : ndarray of shape (k,)
        Norm of S v - theta v.
    n_indicators : int
        The first so many tell components apart.
    hollow : bool
        Whether an eigenvector lives on rows of negligible mass, where no function has norm 1.
    solver : str
        What was used.
    """

    theta: NDArray[np.float64]
    psi: NDArray[np.float64]
    extended: NDArray[np.float64]
    negligible: NDArray[np.bool_]
    residuals: NDArray[np.float64]
    n_indicators: int
    hollow: bool
    solver: str


def diffusion_coordinates(
    markov: MarkovFit,
    n_components: int,
    *,
    solver: str,
    tol: float,
    rng: np.random.Generator,
    X: Any,
) -> Coordinates:
    """Solve for the leading eigenfunctions; those of the components are known.

    Parameters
    ----------
    markov : MarkovFit
        Operator and components.
    n_components : int
        k, below the number of rows that take part.
    solver : str
        As ``leading_eigenpairs`` takes it.
    tol : float
        Of the residuals.
    rng : Generator
        Start vectors.
    X : {ndarray, csr_matrix} of shape (n_train, n_features) or None
        Training rows, for the signs; None where only distances are known.

    Returns
    -------
    Coordinates
    """
    operator, pi = markov.operator, markov.operator.stationary
    labels = markov.labels[markov.kept]
    root = np.sqrt(pi)
    n_groups = int(labels.max()) + 1
    known = np.zeros((pi.size, n_groups))
    known[np.arange(pi.size), labels] = root
    known /= np.linalg.norm(known, axis=0)
    indicators = indicator_coordinates(labels, pi)[:, :n_components]
    pairs = leading_eigenpairs(
        operator,
        n_components - indicators.shape[1],
        locked=known,
        solver=solver,
        tol=tol,
        rng=rng,
    )
    theta = np.minimum(np.concatenate([np.ones(indicators.shape[1]), pairs.values]), 1.0)
    vectors = np.hstack([indicators * root[:, None], pairs.vectors])
    residuals = np.linalg.norm(operator.matmat(vectors) - vectors * theta, axis=0)

    def denominators(rho: NDArray[np.float64] | None) -> NDArray[np.float64]:
        return extension_denominators(theta, rho)

    psi, heavy = eigenfunctions(operator, vectors, denominators)
    if X is None:
        psi *= fixed_signs(psi, pi)
    else:
        covariances = partial(column_covariances, X, markov.kept, pi)
        order = partial(lexicographic_order, X, markov.kept)
        psi *= fixed_signs(psi, pi, covariances, order)
    with np.errstate(divide="ignore", invalid="ignore"):
        extended = averaged(operator, psi, heavy)
    return Coordinates(
        theta=theta,
        psi=psi,
        extended=extended,
        negligible=~heavy,
        residuals=residuals,
        n_indicators=indicators.shape[1],
        hollow=bool(np.any(np.sum(vectors[heavy] ** 2, axis=0) < 0.5)),
        solver=pairs.solver,
    )


def markov_coordinates(
    graph: DistanceGraph,
    scale: LocalScale,
    weight: NDArray[np.float64],
    index: NDArray[np.intp],
    *,
    n_components: int,
    alpha: float,
    dimension: int,
    disconnected: str,
    solver: str,
    tol: float,
    rng: np.random.Generator,
    X: Any,
) -> tuple[MarkovFit, Coordinates]:
    """Normalise and solve; once more without rows that have no mass, where these have eigenvectors.

    Parameters
    ----------
    graph, scale, weight, alpha, dimension : object
        As for ``markov_operator``.
    index : ndarray of shape (n_train,)
        Rows of X that the training rows are, for messages.
    disconnected : {"warn", "raise", "largest"}
        What to do about several components.
    n_components, solver, tol, rng, X : object
        As for ``diffusion_coordinates``.

    Returns
    -------
    markov : MarkovFit
    coordinates : Coordinates
    """
    for drop_negligible in (False, True):
        markov = markov_operator(
            graph,
            scale,
            weight,
            alpha=alpha,
            dimension=dimension,
            largest_only=disconnected == "largest",
            drop_negligible=drop_negligible,
        )
        if not drop_negligible:
            warn_cutoff(graph, scale, markov.scale)
            check_components(markov.labels, index, disconnected)
        check_n_components(n_components, markov.kept.size)
        coordinates = diffusion_coordinates(
            markov, n_components, solver=solver, tol=tol, rng=rng, X=X
        )
        if not coordinates.hollow:
            break
    return markov, coordinates


def column_covariances(
    X: Any,
    kept: NDArray[np.intp],
    stationary: NDArray[np.float64],
    weighted: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return covariances of functions with the columns of X, by blocks of columns.

    Parameters
    ----------
    X : {ndarray, csr_matrix} of shape (n_train, n_features)
        Training rows.
    kept : ndarray of shape (n_kept,)
        Those that take part.
    stationary : ndarray of shape (n_kept,)
        pi.
    weighted : ndarray of shape (n_kept, k)
        pi times the functions.

    Returns
    -------
    covariance : ndarray of shape (k, n_features)
    deviation : ndarray of shape (n_features,)
        Standard deviations of the columns.
    """
    covariance = np.empty((weighted.shape[1], X.shape[1]))
    deviation = np.empty(X.shape[1])
    total = weighted.sum(axis=0)
    width = max(1, _BLOCK // kept.size)
    for start in range(0, X.shape[1], width):
        part = X[:, start : start + width]
        part = part[kept] if kept.size < X.shape[0] else part
        part = part.toarray() if sp.issparse(part) else np.asarray(part)
        block = part.astype(np.float64)
        mean = stationary @ block
        block -= mean
        covariance[:, start : start + width] = weighted.T @ block
        covariance[:, start : start + width] -= np.outer(total, stationary @ block)
        deviation[start : start + width] = np.sqrt(stationary @ block**2)
    return covariance, deviation


def lexicographic_order(X: Any, kept: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the order of some rows by their first column, ties by the second, and so on.

    Parameters
    ----------
    X : {ndarray, csr_matrix} of shape (n_train, n_features)
        Training rows.
    kept : ndarray of shape (n_kept,)
        Those to order.

    Returns
    -------
    ndarray of shape (n_kept,)
        Positions in ``kept``; it looks at 16 columns.
    """
    part = X[:, :_ORDER_COLUMNS]
    part = part.toarray() if sp.issparse(part) else np.asarray(part)
    return np.lexsort(part[kept].T[::-1])


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


def extension_denominators(
    theta: NDArray[np.float64], scale: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """What divides P psi: lambda, or 1 - eps mu rho^2 = 1 - (1 - theta) rho^2 per row."""
    if scale is None:
        return theta
    return 1.0 - (1.0 - theta)[None, :] * scale[:, None] ** 2


@dataclass(frozen=True)
class Spectrum:
    """Per coordinate.

    Attributes
    ----------
    eigenvalues : ndarray of shape (k,)
        lambda of the Markov operator.
    laplacian_eigenvalues : ndarray of shape (k,)
        mu, in 1 / length^2.
    participation : ndarray of shape (k,)
        Share of the mass that carries it.
    """

    eigenvalues: NDArray[np.float64]
    laplacian_eigenvalues: NDArray[np.float64]
    participation: NDArray[np.float64]


def diffusion_spectrum(
    coordinates: Coordinates,
    markov: MarkovFit,
    scale: LocalScale,
    *,
    dimension: int,
    time: float,
    tol: float,
    index: NDArray[np.intp],
) -> Spectrum:
    """Return eigenvalues of operator and generator, and warn about what to distrust.

    Parameters
    ----------
    coordinates : Coordinates
        Eigenpairs of the symmetric form.
    markov : MarkovFit
        Operator.
    scale : LocalScale
        Bandwidth.
    dimension : int
        Intrinsic, >= 1: the kernel's second moment per dimension corrects a cut-off.
    time : float
        Diffusion time.
    tol : float
        Of the residuals.
    index : ndarray of shape (n_train,)
        Number in X of each training row, for messages.

    Returns
    -------
    Spectrum

    Raises
    ------
    ValueError
        If a power of a negative eigenvalue is not real.
    """
    values = markov_eigenvalues(coordinates.theta, variable=markov.scale is not None)
    check_time(values, time)
    warn_small_eigenvalues(values, time)
    warn_convergence(coordinates.residuals, coordinates.theta, tol, coordinates.solver)
    warn_pole(coordinates.theta, scale)
    moment = markov.second_moment
    stationary = markov.operator.stationary
    carried = participation(coordinates.psi, stationary)
    warn_localized(
        coordinates.psi, stationary, carried, coordinates.n_indicators, index[markov.kept]
    )
    return Spectrum(
        eigenvalues=values,
        laplacian_eigenvalues=laplacian_eigenvalues(
            coordinates.theta,
            epsilon=scale.epsilon,
            correction=1.0 if np.isnan(moment) else moment / dimension,
        ),
        participation=carried,
    )
