"""Kernel in, Markov operator out, in the symmetric form that is solved.

With q_i = sum_j k_ij w_j / rho_i^d, g_i = q_i^alpha rho_i^(1 + d/2) and d_i = sum_j K_ij w_j,
K_ij = k_ij / (g_i g_j), the operator is M = 1 + (P - 1) / rho^2, P_ij = K_ij w_j / d_i, and

    S = pi^(1/2) M pi^(-1/2),  pi_i = w_i d_i rho_i^2 / sum,

which for rho = 1 is the diffusion map of Coifman & Lafon (doi:10.1016/j.acha.2006.04.006). The form
with any rho tends to the same generator as rho = 1 does (after Berry & Harlim,
doi:10.1016/j.acha.2015.01.001).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap.diffusion._products import blas_threads, for_each_rows

__all__ = ["MarkovOperator", "normalize", "stationary_distribution"]


@dataclass(frozen=True)
class MarkovOperator:
    """A reversible Markov operator in symmetric form.

    Attributes
    ----------
    kernel : {ndarray, csr_matrix} of shape (n, n)
        S without ``diagonal``.
    diagonal : ndarray of shape (n,) or None
        1 - 1 / rho^2; None where rho = 1.
    stationary : ndarray of shape (n,)
        pi, sums to 1.
    log_column_weight : ndarray of shape (n,)
        log(w_j / g_j): k(y, x_j) times this, normalised, are the transition probabilities of y.
    scale : ndarray of shape (n,) or None
        rho.
    """

    kernel: Any
    diagonal: NDArray[np.float64] | None
    stationary: NDArray[np.float64]
    log_column_weight: NDArray[np.float64]
    scale: NDArray[np.float64] | None

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.kernel.shape[0])

    @property
    def lower_bound(self) -> float:
        """No eigenvalue of S lies below."""
        return -1.0 if self.scale is None else float(1.0 - 2.0 / self.scale.min() ** 2)

    def matmat(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """S times a vector or a block of vectors."""
        product = self.kernel @ vectors
        if self.diagonal is not None:
            product = product + (self.diagonal * vectors.T).T
        return product

    def restricted(self, rows: NDArray[np.intp]) -> "MarkovOperator":
        """The operator on some components, which no other row reaches."""
        if rows.size == self.n_rows:
            return self
        kernel = (
            self.kernel[rows][:, rows].tocsr()
            if sp.issparse(self.kernel)
            else self.kernel[np.ix_(rows, rows)]
        )
        stationary = self.stationary[rows]
        return MarkovOperator(
            kernel=kernel,
            diagonal=None if self.diagonal is None else self.diagonal[rows],
            stationary=stationary / stationary.sum(),
            log_column_weight=self.log_column_weight[rows],
            scale=None if self.scale is None else self.scale[rows],
        )


def normalize(
    kernel: Any,
    weight: NDArray[np.float64],
    *,
    alpha: float,
    scale: NDArray[np.float64] | None = None,
    dimension: int = 0,
) -> MarkovOperator:
    """Normalise a kernel.

    Parameters
    ----------
    kernel : {ndarray, csr_matrix} of shape (n, n)
        Symmetric, positive on the diagonal; overwritten where it is dense.
    weight : ndarray of shape (n,)
        w, positive.
    alpha : float
        0 graph Laplacian, 1/2 Fokker-Planck, 1 Laplace-Beltrami.
    scale : ndarray of shape (n,) or None, default=None
        rho; None is 1.
    dimension : int, default=0
        d, intrinsic; used only with ``scale``.

    Returns
    -------
    MarkovOperator
    """
    rho = 1.0 if scale is None else scale
    g, degree = _degrees(kernel, weight, alpha, rho, dimension)
    factor = np.sqrt(weight / degree) / (g * rho)
    if sp.issparse(kernel):
        data = np.empty(kernel.nnz)

        def scaled(rows: slice) -> None:
            part = slice(kernel.indptr[rows.start], kernel.indptr[rows.stop])
            counts = np.diff(kernel.indptr[rows.start : rows.stop + 1])
            here = np.multiply(kernel.data[part], np.repeat(factor[rows], counts), out=data[part])
            here *= factor[kernel.indices[part]]

        for_each_rows(scaled, kernel.shape[0], blas_threads())
        symmetric: Any = sp.csr_matrix((data, kernel.indices, kernel.indptr), shape=kernel.shape)
    else:
        symmetric = kernel
        symmetric *= factor[:, None]
        symmetric *= factor[None, :]
    stationary = weight * degree * rho**2
    return MarkovOperator(
        kernel=symmetric,
        diagonal=None if scale is None else 1.0 - 1.0 / scale**2,
        stationary=stationary / stationary.sum(),
        log_column_weight=np.log(weight) - np.log(g),
        scale=scale,
    )


def stationary_distribution(
    kernel: Any,
    weight: NDArray[np.float64],
    *,
    alpha: float,
    scale: NDArray[np.float64] | None = None,
    dimension: int = 0,
) -> NDArray[np.float64]:
    """Return pi of the operator that ``normalize`` makes of the same arguments.

    Parameters
    ----------
    kernel, weight, alpha, scale, dimension : object
        As for ``normalize``; nothing is overwritten.

    Returns
    -------
    ndarray of shape (n,)
        Sums to 1.
    """
    rho = 1.0 if scale is None else scale
    _, degree = _degrees(kernel, weight, alpha, rho, dimension)
    stationary = weight * degree * rho**2
    return np.asarray(stationary / stationary.sum())


def _degrees(
    kernel: Any,
    weight: NDArray[np.float64],
    alpha: float,
    rho: Any,
    dimension: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    density = (kernel @ weight) / rho**dimension
    g = density**alpha * rho ** (1.0 + 0.5 * dimension)
    return g, (kernel @ (weight / g)) / g
