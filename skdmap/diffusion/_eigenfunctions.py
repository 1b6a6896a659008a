"""Eigenpairs of the symmetric form to eigenfunctions: scaling, signs, generator eigenvalues."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap.diffusion._eigensolvers.eigenproblem import Eigenpairs
from skdmap.diffusion._kernel import GaussianKernel
from skdmap.diffusion._markov import NEGLIGIBLE, MarkovFit, MarkovOperator, component_coordinates

_BLOCK = 2**22
# Columns of X that decide the order of samples.
_ORDER_COLUMNS = 16
# A third moment or a covariance that is relatively smaller does not decide a sign.
_SYMMETRIC = 1e-6
# Below this denominator the extension of a variable bandwidth is not trusted.
_NEAR_POLE = 1e-3
# Below this sum of sqrt(pi) k the samples included are not reached.
_UNREACHED = 1e-250


@dataclass(frozen=True)
class Eigenfunctions:
    """Eigenfunctions psi of the samples included in the fit, indicators of components first."""

    # (k,) Eigenvalues of the symmetric form.
    theta: NDArray[np.float64]
    # (n_kept, k) Right eigenvectors, sum_i pi_i psi_k(i)^2 = 1, with a fixed sign.
    psi: NDArray[np.float64]
    # (n_kept, k) P psi, by the extension's own formula; nan where no sample is reached.
    averaged: NDArray[np.float64]
    # (n_kept,) Samples whose pi is too small to weigh in a sum.
    negligible: NDArray[np.bool_]
    # (k,) Norm of S v - theta v.
    residuals: NDArray[np.float64]
    # The first so many coordinates tell components apart.
    n_indicators: int
    # Whether an eigenvector lives on samples of negligible mass, where no function has norm 1.
    on_negligible: bool
    # Name of the solver.
    solver: str


@dataclass(frozen=True)
class Spectrum:
    """Numbers of each coordinate."""

    # (k,) lambda of the Markov operator.
    eigenvalues: NDArray[np.float64]
    # (k,) mu of the generator, in 1 / length^2.
    laplacian_eigenvalues: NDArray[np.float64]
    # (k,) Share of the mass that carries the coordinate.
    participation: NDArray[np.float64]
    # (k,) Norm of S v - theta v.
    residuals: NDArray[np.float64]
    # Name of the solver.
    solver: str


def eigenfunctions(
    markov: MarkovFit, pairs: Eigenpairs, n_components: int, X: Any
) -> Eigenfunctions:
    """Scale the eigenvectors, those of components first; signs by X (n_train, m), if not None."""
    operator, pi = markov.operator, markov.stationary
    indicators = component_coordinates(markov.labels[markov.kept], pi)[:, :n_components]
    theta = np.minimum(np.concatenate([np.ones(indicators.shape[1]), pairs.values]), 1.0)
    vectors = np.hstack([indicators * np.sqrt(pi)[:, None], pairs.vectors])
    residuals = np.linalg.norm(operator.matmat(vectors) - vectors * theta, axis=0)
    psi, massive = scaled_eigenvectors(operator, vectors, theta)
    if X is None:
        psi *= fixed_signs(psi, pi)
    else:
        covariances = partial(column_covariances, X, markov.kept, pi)
        order = partial(lexicographic_order, X, markov.kept)
        psi *= fixed_signs(psi, pi, covariances, order)
    return Eigenfunctions(
        theta=theta,
        psi=psi,
        averaged=averaged(operator, psi, massive),
        negligible=~massive,
        residuals=residuals,
        n_indicators=indicators.shape[1],
        on_negligible=bool(np.any(np.sum(vectors[massive] ** 2, axis=0) < 0.5)),
        solver=pairs.solver,
    )


def diffusion_spectrum(
    functions: Eigenfunctions, markov: MarkovFit, kernel: GaussianKernel, dimension: int
) -> Spectrum:
    """Return eigenvalues of operator and generator; a kernel's cut-off is corrected for."""
    moment = markov.second_moment
    return Spectrum(
        eigenvalues=markov_eigenvalues(functions.theta, variable=kernel.is_generator),
        laplacian_eigenvalues=laplacian_eigenvalues(
            functions.theta,
            # A given kernel has no unit: the random-walk Laplacian.
            epsilon=1.0 if kernel.kind == "given" else kernel.epsilon,
            correction=1.0 if np.isnan(moment) else moment / dimension,
        ),
        participation=participation(functions.psi, markov.stationary),
        residuals=functions.residuals,
        solver=functions.solver,
    )


def markov_eigenvalues(theta: NDArray[np.float64], *, variable: bool) -> NDArray[np.float64]:
    """Return lambda: theta itself, or exp(-eps mu) where the generator is what is estimated."""
    return np.exp(-(1.0 - theta)) if variable else theta


def laplacian_eigenvalues(
    theta: NDArray[np.float64], *, epsilon: float, correction: float
) -> NDArray[np.float64]:
    """Return mu = (1 - theta) / (eps correction), >= 0, in 1 / length^2."""
    rate = np.maximum(1.0 - theta, 0.0)
    # 0 even where all samples are apart, which leaves the kernel no second moment.
    return np.divide(rate, epsilon * correction, out=np.zeros_like(rate), where=rate > 0)


def participation(psi: NDArray[np.float64], stationary: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / sum_i pi_i psi_k(i)^4, the share of the mass that carries a coordinate."""
    counted = stationary > NEGLIGIBLE
    return 1.0 / (stationary[counted] @ np.square(np.square(psi[counted])))


def extension_factors(
    theta: NDArray[np.float64], scale: NDArray[np.float64] | None, powers: Any = 1.0
) -> NDArray[np.float64]:
    """What P psi is multiplied by: ``powers`` / lambda, or / (1 - (1 - theta) rho^2) per sample."""
    denominator = theta if scale is None else _variable_denominators(theta, scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.nan_to_num(powers / denominator, posinf=0.0, neginf=0.0))


def near_pole(theta: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where (n, k) the extension of a variable bandwidth divides by almost 0: noise over noise."""
    return np.asarray(np.abs(_variable_denominators(theta, scale)) < _NEAR_POLE)


def _variable_denominators(
    theta: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    return 1.0 - (1.0 - theta)[None, :] * scale[:, None] ** 2


def time_factors(
    values: NDArray[np.float64], time: float | Literal["multiscale"]
) -> NDArray[np.float64]:
    """Return lambda^t, real of negative eigenvalues for whole t only, or lambda / (1 - lambda)."""
    if time == "multiscale":
        return values / (1.0 - values)
    whole = float(time).is_integer()
    with np.errstate(divide="ignore"):
        return np.power(values if whole else np.maximum(values, 0.0), float(time))


def scaled_eigenvectors(
    operator: MarkovOperator, vectors: NDArray[np.float64], theta: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return psi = v / sqrt(pi) (n, k) where pi is not negligible, else by extension; and where."""
    massive = operator.stationary > NEGLIGIBLE
    psi = vectors / np.sqrt(np.where(massive, operator.stationary, 1.0))[:, None]
    psi[~massive] = 0.0
    if not massive.all():
        extended = averaged(operator, psi, massive) * extension_factors(theta, operator.scale)
        psi[~massive] = np.nan_to_num(extended[~massive], nan=0.0, posinf=0.0, neginf=0.0)
    return psi, massive


def averaged(
    operator: MarkovOperator, values: NDArray[np.float64], massive: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return P psi (n, k) of a chain kept to some samples; nan where none of them is reached."""
    root = np.sqrt(operator.stationary) * massive
    total = operator.kernel @ root
    total[total < _UNREACHED] = np.nan
    return np.asarray((operator.kernel @ (root[:, None] * values)) / total[:, None])


def fixed_signs(
    psi: NDArray[np.float64],
    stationary: NDArray[np.float64],
    columns: Callable[[NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]]
    | None = None,
    order: Callable[[], NDArray[np.intp]] | None = None,
) -> NDArray[np.float64]:
    """Return a sign of each eigenfunction (k,) that depends on neither sample order nor solver."""
    # That of sum pi psi^3; where it vanishes, of the covariance with the first column of X that has
    # one; where none has, of the first sample in order that is not near 0.
    pi = np.where(stationary > NEGLIGIBLE, stationary, 0.0)
    cube = np.square(psi) * psi
    cubes = pi @ cube
    signs = np.sign(cubes)
    open_ = np.abs(cubes) <= _SYMMETRIC * (pi @ np.abs(cube))
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


def column_covariances(
    X: Any,
    kept: NDArray[np.intp],
    stationary: NDArray[np.float64],
    weighted: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Covariances (k, m) of pi psi (n_kept, k) with columns of X (n_train, m), their deviations."""
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
    """Order some samples (n_kept,) by their first column, ties by the second, and so on to 16."""
    part = X[:, :_ORDER_COLUMNS]
    part = part.toarray() if sp.issparse(part) else np.asarray(part)
    return np.lexsort(part[kept].T[::-1])
