"""The Markov operator: connected components, and the symmetric form of the normalised kernel.

With K the kernel after the alpha normalisation and P the row-stochastic form of K w, what is solved
is 1 + (P - 1) / rho^2 in symmetric form S (Berry & Harlim 2016, doi:10.1016/j.acha.2015.01.001,
written for any rho); rho = 1 gives P itself.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap._threads import blas_threads
from skdmap.diffusion._density_normalization import density_factors
from skdmap.diffusion._eigensolvers.row_blocks import for_each_rows
from skdmap.diffusion._kernel import GaussianKernel, gaussian_affinity
from skdmap.diffusion._neighbors.graph import DistanceGraph

# Samples are connected when k is at least this share of its largest value; "local": when k > 0.
_CONNECTED = np.finfo(float).eps
# Below this stationary probability v / sqrt(pi) is rounding; the extension gives the value.
NEGLIGIBLE = 1e-14
# Components of fewer samples are treated as samples of weight 0.
SMALL_COMPONENT = 10
# Unless these hold together more than this share of the weight.
_MOST_DROPPED = 0.1


@dataclass(frozen=True)
class MarkovOperator:
    """A reversible Markov operator in symmetric form S."""

    # (n, n) S without ``diagonal``, dense or sparse.
    kernel: Any
    # (n,) 1 - 1 / rho^2; None where rho = 1.
    diagonal: NDArray[np.float64] | None
    # (n,) pi, sums to 1.
    stationary: NDArray[np.float64]
    # (n,) log(w_j / g_j): k(y, x_j) w_j / g_j, normalised, are the transition probabilities of y.
    log_column_weight: NDArray[np.float64]
    # (n,) rho; None is 1.
    scale: NDArray[np.float64] | None

    @property
    def n_rows(self) -> int:
        """Number of samples."""
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
        """The operator on some components, which are connected to no other sample."""
        if rows.size == self.n_rows:
            return self
        kernel = _square_part(self.kernel, rows)
        stationary = self.stationary[rows]
        return MarkovOperator(
            kernel=kernel,
            diagonal=None if self.diagonal is None else self.diagonal[rows],
            stationary=stationary / stationary.sum(),
            log_column_weight=self.log_column_weight[rows],
            scale=None if self.scale is None else self.scale[rows],
        )


@dataclass(frozen=True)
class MarkovFit:
    """The Markov operator on the samples included in the fit."""

    # On the samples of ``kept``.
    operator: MarkovOperator
    # (n_kept,) Training samples that are included, ascending.
    kept: NDArray[np.intp]
    # (n_train,) Component of each sample, 0 of the largest weight; -1 where the component is too
    # small, -2 for samples of negligible mass or without any affinity.
    labels: NDArray[np.intp]
    # (n_train,) log(w_j / g_j); -inf for samples not included.
    log_column_weight: NDArray[np.float64]
    # sum k d^2 / (h^2 sum k) of a sparse kernel of fixed bandwidth; else nan.
    second_moment: float

    @property
    def stationary(self) -> NDArray[np.float64]:
        """Pi (n_kept,) of the samples included."""
        return self.operator.stationary

    @property
    def n_connected(self) -> int:
        """Number of connected components included."""
        return int(self.labels[self.kept].max()) + 1


def markov_operator(
    graph: DistanceGraph,
    kernel: GaussianKernel,
    weight: NDArray[np.float64],
    *,
    alpha: float,
    dimension: int,
    largest_only: bool,
    drop_negligible: bool = False,
) -> MarkovFit:
    """Evaluate the kernel, find its components, normalise; negligible: pi <= 1e-14."""
    rho = kernel.train_scale
    whole = gaussian_affinity(graph, epsilon=kernel.epsilon, row_scale=rho, column_scale=rho)
    scale = rho if kernel.is_generator else None
    # A given kernel may leave samples without any affinity: these have no mass at all.
    massive = np.flatnonzero(whole @ weight > 0) if graph.is_given else np.arange(weight.size)
    affinity = _square_part(whole, massive)
    if drop_negligible:
        options: dict[str, Any] = {"alpha": alpha, "scale": scale, "dimension": dimension}
        pi = stationary_distribution(affinity, weight[massive], **options)
        massive = massive[pi > NEGLIGIBLE]
        affinity = _square_part(whole, massive)
        scale = None if scale is None else scale[massive]
    found = connected_labels(affinity, 0.0 if kernel.kind == "local" else _CONNECTED)
    if found.any():
        affinity = cut_between(affinity, found)
    operator = normalize(affinity, weight[massive], alpha=alpha, scale=scale, dimension=dimension)
    labels = np.full(weight.size, -2, dtype=np.intp)
    labels[massive] = _component_numbers(found, weight[massive])
    inner = np.flatnonzero(labels[massive] == 0 if largest_only else labels[massive] >= 0)
    kept = massive[inner]
    column_weight = np.full(weight.size, -np.inf)
    column_weight[kept] = operator.log_column_weight[inner]
    moment = np.nan
    if graph.is_sparse and rho is None:
        moment = _second_moment(whole, graph, kept, weight[kept], kernel.epsilon)
    return MarkovFit(operator.restricted(inner), kept, labels, column_weight, moment)


def normalize(
    kernel: Any,
    weight: NDArray[np.float64],
    *,
    alpha: float,
    scale: NDArray[np.float64] | None = None,
    dimension: int = 0,
) -> MarkovOperator:
    """Normalise a symmetric kernel (n, n), overwritten where it is dense; ``scale`` is rho."""
    rho = 1.0 if scale is None else scale
    g, degree = density_factors(kernel, weight, alpha=alpha, scale=scale, dimension=dimension)
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
    """Return pi (n,) of the operator that ``normalize`` makes; nothing is overwritten."""
    rho = 1.0 if scale is None else scale
    _, degree = density_factors(kernel, weight, alpha=alpha, scale=scale, dimension=dimension)
    stationary = weight * degree * rho**2
    return np.asarray(stationary / stationary.sum())


def connected_labels(kernel: Any, share: float = _CONNECTED) -> NDArray[np.intp]:
    """Label connected samples (n,), from 0 in no order: k_ij > 0 and a share of its largest."""
    largest = (kernel.data if sp.issparse(kernel) else kernel).max(initial=0.0)
    threshold = max(share * largest, np.finfo(float).smallest_subnormal)
    if sp.issparse(kernel):
        strong = kernel.data >= threshold
        pattern = kernel
        if not strong.all():
            ends = np.concatenate([[0], np.cumsum(strong)])[kernel.indptr]
            pattern = sp.csr_matrix(
                (kernel.data[strong], kernel.indices[strong], ends.astype(kernel.indices.dtype)),
                shape=kernel.shape,
            )
        # The pattern is symmetric: strong components are all there are, and need no transpose.
        found = sp.csgraph.connected_components(pattern, directed=True, connection="strong")[1]
        return found.astype(np.intp)
    labels = np.full(kernel.shape[0], -1, dtype=np.intp)
    n_components = 0
    while (unseen := np.flatnonzero(labels < 0)).size:
        frontier = unseen[:1]
        while frontier.size:
            labels[frontier] = n_components
            # One sample may reach all others; so look at few first.
            reached = (kernel[frontier[:64]] >= threshold).any(axis=0)
            rest = np.concatenate([frontier[64:], np.flatnonzero(reached & (labels < 0))])
            labels[rest] = n_components
            frontier = rest
        n_components += 1
    return labels


def cut_between(kernel: Any, labels: NDArray[np.intp]) -> Any:
    """Set the kernel between different components to exactly 0, in place where it is dense."""
    if not sp.issparse(kernel):
        for label in range(labels.max() + 1):
            inside = labels == label
            kernel[np.ix_(inside, ~inside)] = 0.0
        return kernel
    rows = np.repeat(labels, np.diff(kernel.indptr))
    data = np.where(rows == labels[kernel.indices], kernel.data, 0.0)
    return sp.csr_matrix((data, kernel.indices, kernel.indptr), shape=kernel.shape)


def order_by_mass(labels: NDArray[np.intp], mass: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the labels renumbered: 0 has the largest mass, ties go to the first row."""
    totals = np.bincount(labels, weights=mass)
    first = np.unique(labels, return_index=True)[1]
    # Masses that agree to rounding are ties.
    rounded = np.round(totals / totals.max(), 12)
    order = np.lexsort((first, -rounded))
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    return rank[labels]


def component_vectors(markov: MarkovFit) -> NDArray[np.float64]:
    """Orthonormal eigenvectors of S of eigenvalue 1 (n_kept, c): sqrt(pi) on each component."""
    labels = markov.labels[markov.kept]
    vectors = np.zeros((labels.size, markov.n_connected))
    vectors[np.arange(labels.size), labels] = np.sqrt(markov.stationary)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=0))


def component_coordinates(
    labels: NDArray[np.intp], stationary: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Eigenfunctions (n, c - 1) of eigenvalue 1: pi-orthonormal indicators, largest mass first."""
    mass = np.bincount(labels, weights=stationary)
    mass = mass / mass.sum()
    later = np.cumsum(mass[::-1])[::-1]
    values = np.zeros((mass.size, mass.size - 1))
    for k in range(mass.size - 1):
        # Gram-Schmidt: positive on component k, one negative value on later ones, 0 before.
        rest = later[k + 1]
        scale = np.sqrt(mass[k] * rest * later[k])
        values[k, k] = rest / scale
        values[k + 1 :, k] = -mass[k] / scale
    return values[labels]


def _component_numbers(labels: NDArray[np.intp], mass: NDArray[np.float64]) -> NDArray[np.intp]:
    """Number the components by weight; -1 for small ones, unless they are all or weigh a tenth."""
    counted = np.bincount(labels) >= SMALL_COMPONENT
    if not counted.any() or mass[~counted[labels]].sum() > _MOST_DROPPED * mass.sum():
        counted[:] = True
    inside = counted[labels]
    numbered = np.full(labels.size, -1, dtype=np.intp)
    compact = np.unique(labels[inside], return_inverse=True)[1]
    numbered[inside] = order_by_mass(compact, mass[inside])
    return numbered


def _second_moment(
    kernel: sp.csr_matrix,
    graph: DistanceGraph,
    kept: NDArray[np.intp],
    weight: NDArray[np.float64],
    epsilon: float,
) -> float:
    """Sum k d^2 / (h^2 sum k) over the samples included; nan where k is 0."""
    data = np.square(graph.distances.data)
    data *= kernel.data
    squares = sp.csr_matrix((data, kernel.indices, kernel.indptr), shape=kernel.shape)
    included = np.zeros(kernel.shape[0])
    included[kept] = weight
    total = included @ (kernel @ included)
    mean_square = float(included @ (squares @ included) / (2.0 * epsilon * total))
    return mean_square if mean_square > 0 else np.nan


def _square_part(matrix: Any, rows: NDArray[np.intp]) -> Any:
    """Some rows of a square matrix and the same columns; the matrix itself where these are all."""
    if rows.size == matrix.shape[0]:
        return matrix
    return matrix[rows][:, rows].tocsr() if sp.issparse(matrix) else matrix[np.ix_(rows, rows)]
