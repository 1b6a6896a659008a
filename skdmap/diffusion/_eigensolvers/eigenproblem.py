"""What every eigensolver takes and returns, and when a pair counts as converged."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skdmap.diffusion._markov import MarkovOperator

Pairs = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Eigenproblem:
    """The leading eigenpairs of a symmetric operator S, orthogonal to locked eigenvectors."""

    operator: MarkovOperator
    n_pairs: int
    locked: NDArray[np.float64]  # (n, c), orthonormal eigenvectors
    tol: float  # residual norm; Lanczos and ARPACK go to rounding whatever it is
    rng: np.random.Generator  # start vectors

    @property
    def shift(self) -> float:
        """What moves the locked eigenvalues below all others when it is subtracted from them."""
        return 2.0 - self.operator.lower_bound


@dataclass(frozen=True)
class Eigenpairs:
    """Eigenpairs, largest eigenvalue first."""

    values: NDArray[np.float64]  # (k,)
    vectors: NDArray[np.float64]  # (n, k), orthonormal
    residuals: NDArray[np.float64]  # (k,), norms of S v - lambda v
    solver: str


def eigenpairs_of(problem: Eigenproblem, pairs: Pairs, solver: str) -> Eigenpairs:
    """Sort what a solver returned, and compute the residual norms."""
    values, vectors = pairs
    order = np.argsort(-values, kind="stable")
    values, vectors = values[order], np.ascontiguousarray(vectors[:, order])
    errors = problem.operator.matmat(vectors) - vectors * values
    return Eigenpairs(values, vectors, np.linalg.norm(errors, axis=0), solver)


def tolerances(values: NDArray[np.float64], tol: float) -> NDArray[np.float64]:
    """Residual norms that are small compared with both ``tol`` and the gap to eigenvalue 1."""
    return np.maximum(1e-12, np.minimum(tol, 1e-2 * (1.0 - values)))
