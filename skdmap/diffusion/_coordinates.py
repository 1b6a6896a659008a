"""The last step of a fit, of several stages: Markov operator -> eigenpairs -> coordinates."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skdmap.diffusion._checks import check_components, check_n_components, warn_cutoff
from skdmap.diffusion._columns import column_covariances, lexicographic_order
from skdmap.diffusion._components import indicator_coordinates
from skdmap.diffusion._eigenpairs import leading_eigenpairs
from skdmap.diffusion._embedding import averaged, eigenfunctions, fixed_signs
from skdmap.diffusion._extension import NystromExtension, extension_denominators
from skdmap.diffusion._graph import DistanceGraph, NeighborSearch
from skdmap.diffusion._scale import LocalScale
from skdmap.diffusion._stages import MarkovFit, markov_operator

__all__ = ["Coordinates", "diffusion_coordinates", "markov_coordinates", "nystrom_extension"]


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
        known=known,
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


def nystrom_extension(
    search: NeighborSearch,
    scale: LocalScale,
    markov: MarkovFit,
    coordinates: Coordinates,
    *,
    factors: NDArray[np.float64],
) -> NystromExtension:
    """Collect what new rows need.

    Parameters
    ----------
    search : NeighborSearch
        Finds their neighbours.
    scale : LocalScale
        Bandwidth.
    markov : MarkovFit
        Weights of the training rows.
    coordinates : Coordinates
        Eigenfunctions; rows of negligible mass weigh nothing.
    factors : ndarray of shape (k,)
        lambda^t.

    Returns
    -------
    NystromExtension
    """
    psi = np.zeros((markov.labels.size, coordinates.theta.size))
    psi[markov.kept] = coordinates.psi
    column_weight = markov.log_column_weight.copy()
    column_weight[markov.kept[coordinates.negligible]] = -np.inf
    return NystromExtension(
        search, scale, markov.scale, column_weight, psi, coordinates.theta, factors
    )
