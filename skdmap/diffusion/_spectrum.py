"""Eigenpairs in, the numbers that users read out, and a warning for each that misleads."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skdmap.diffusion._checks import (
    check_time,
    warn_convergence,
    warn_localized,
    warn_pole,
    warn_small_eigenvalues,
)
from skdmap.diffusion._coordinates import Coordinates
from skdmap.diffusion._embedding import laplacian_eigenvalues, markov_eigenvalues, participation
from skdmap.diffusion._scale import LocalScale
from skdmap.diffusion._stages import MarkovFit


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
