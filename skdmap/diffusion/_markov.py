from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdmap._warning import warn
from skdmap.diffusion._eigensolvers.row_blocks import blas_threads, for_each_rows
from skdmap.diffusion._kernel import LocalScale, pair_kernel, scale_of_rows
from skdmap.diffusion._neighbors.graph import DistanceGraph
from skdmap.diffusion._validation import named_rows
from skdmap.exceptions import DisconnectedGraphWarning

_CONNECTED = np.finfo(float).eps
# Below this stationary probability v / sqrt(pi) is rounding; the extension gives the value.
NEGLIGIBLE = 1e-14
# Fewer rows than this are no component: they are treated as rows of weight 0.
_SMALL_COMPONENT = 10


def check_components(labels: NDArray[np.integer], index: NDArray[np.integer], mode: str) -> None:
    """Raise or warn about a graph in several pieces.

    Parameters
    ----------
    labels : ndarray of shape (n_train,)
        Component of each distinct row; -1 for pieces too small to count, -2 for rows of no mass.
    index : ndarray of shape (n_train,)
        Its place in X.
    mode : {"warn", "raise", "largest"}
        Parameter ``disconnected``.

    Raises
    ------
    ValueError
        With mode "raise".
    """
    sizes, left_out = np.bincount(labels[labels >= 0]), index[labels == -1]
    if (sizes.size == 1 and left_out.size == 0) or mode == "largest":
        return
    listed = ", ".join(str(int(size)) for size in sizes[:10]) + (", ..." if sizes.size > 10 else "")
    message = ""
    if sizes.size > 1:
        message = (
            f"The kernel connects the rows in {sizes.size} separate components, of {listed} rows. "
        )
    if left_out.size:
        message += (
            f"{left_out.size} outlying row(s), in pieces of fewer than 10, take no part in the "
            f"fit; their coordinates are those of transform: {named_rows(left_out)}. "
        )
    remedy = "Raise bandwidth or n_neighbors if all rows should be one component"
    if mode == "raise":
        raise ValueError(
            f"{message}disconnected='raise' allows one component and no rest. {remedy}, or set "
            "disconnected to 'warn' or 'largest'."
        )
    if sizes.size > 1:
        message += f"The first {sizes.size - 1} coordinate(s) tell the components apart. "
        remedy += ", or set disconnected='largest' to map the largest only"
    warn(
        f"{message}{remedy}.",
        DisconnectedGraphWarning,
    )


def connected_labels(kernel: Any) -> NDArray[np.intp]:
    """Label the rows that the kernel connects: k_ij >= 2.2e-16 of its largest value.

    Parameters
    ----------
    kernel : {ndarray, csr_matrix} of shape (n, n)
        Symmetric, non-negative.

    Returns
    -------
    ndarray of shape (n,)
        Labels from 0, in no order.
    """
    if sp.issparse(kernel):
        threshold = _CONNECTED * kernel.data.max(initial=0.0)
        strong = kernel.data >= threshold
        pattern = kernel
        if not strong.all():
            ends = np.concatenate([[0], np.cumsum(strong)])[kernel.indptr]
            pattern = sp.csr_matrix(
                (kernel.data[strong], kernel.indices[strong], ends.astype(kernel.indices.dtype)),
                shape=kernel.shape,
            )
        # Every edge has its way back: strong components are all there are, and need no transpose.
        found = sp.csgraph.connected_components(pattern, directed=True, connection="strong")[1]
        return found.astype(np.intp)
    threshold = _CONNECTED * kernel.max(initial=0.0)
    labels = np.full(kernel.shape[0], -1, dtype=np.intp)
    n_components = 0
    while (unseen := np.flatnonzero(labels < 0)).size:
        frontier = unseen[:1]
        while frontier.size:
            labels[frontier] = n_components
            # A row that reaches everybody settles it; so look at few rows first.
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


def indicator_coordinates(
    labels: NDArray[np.intp], stationary: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the eigenfunctions of eigenvalue 1, the constant one left out.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        Component of each row, 0 the largest, c components.
    stationary : ndarray of shape (n,)
        pi, sums to 1.

    Returns
    -------
    ndarray of shape (n, c - 1)
        Constant on each component, with sum_i pi_i psi_k(i) psi_l(i) = delta_kl and
        sum_i pi_i psi_k(i) = 0: the indicators, largest mass first, after Gram-Schmidt.
    """
    mass = np.bincount(labels, weights=stationary)
    mass = mass / mass.sum()
    later = np.cumsum(mass[::-1])[::-1]
    values = np.zeros((mass.size, mass.size - 1))
    for k in range(mass.size - 1):
        # Positive on component k, one negative value on all later ones, 0 before.
        rest = later[k + 1]
        scale = np.sqrt(mass[k] * rest * later[k])
        values[k, k] = rest / scale
        values[k + 1 :, k] = -mass[k] / scale
    return values[labels]


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


@dataclass(frozen=True)
class MarkovFit:
    """The operator on the rows that take part.

    Attributes
    ----------
    operator : MarkovOperator
        On the rows of ``kept``.
    kept : ndarray of shape (n_kept,)
        Training rows that take part, ascending.
    labels : ndarray of shape (n_train,)
        Component of each training row, 0 the one of the largest weight; -1 where it is too small,
        -2 for a row whose own mass is negligible.
    scale : ndarray of shape (n_train,) or None
        rho.
    log_column_weight : ndarray of shape (n_train,)
        log(w_j / g_j); -inf for rows that take no part.
    second_moment : float
        s = sum k d^2 / (h^2 sum k), for a sparse kernel of fixed bandwidth; else nan.
    """

    operator: MarkovOperator
    kept: NDArray[np.intp]
    labels: NDArray[np.intp]
    scale: NDArray[np.float64] | None
    log_column_weight: NDArray[np.float64]
    second_moment: float


def markov_operator(
    graph: DistanceGraph,
    scale: LocalScale,
    weight: NDArray[np.float64],
    *,
    alpha: float,
    dimension: int,
    largest_only: bool,
    drop_negligible: bool = False,
) -> MarkovFit:
    """Weigh the graph, find its components, normalise.

    Parameters
    ----------
    graph : DistanceGraph
        Of the training rows.
    scale : LocalScale
        Bandwidth.
    weight : ndarray of shape (n_train,)
        Sums to 1.
    alpha : float
        Normalisation.
    dimension : int
        Intrinsic, for a variable bandwidth.
    largest_only : bool
        Keep one component.
    drop_negligible : bool, default=False
        Treat rows whose stationary probability is at most 1e-14 as rows of weight 0.

    Returns
    -------
    MarkovFit
    """
    rho = scale_of_rows(scale, graph)
    kernel = whole = pair_kernel(graph, epsilon=scale.epsilon, row_scale=rho, column_scale=rho)
    own = None if rho is None else rho
    heavy = np.arange(weight.size)
    if drop_negligible:
        pi = stationary_distribution(kernel, weight, alpha=alpha, scale=own, dimension=dimension)
        heavy = np.flatnonzero(pi > NEGLIGIBLE)
        inner = kernel[heavy]
        kernel = inner[:, heavy].tocsr() if graph.is_sparse else inner[:, heavy]
        own = None if rho is None else rho[heavy]
    found = connected_labels(kernel)
    if found.any():
        kernel = cut_between(kernel, found)
    operator = normalize(kernel, weight[heavy], alpha=alpha, scale=own, dimension=dimension)
    labels = np.full(weight.size, -2, dtype=np.intp)
    labels[heavy] = _counted_labels(found, weight[heavy])
    inner = np.flatnonzero(labels[heavy] == 0 if largest_only else labels[heavy] >= 0)
    kept = heavy[inner]
    column_weight = np.full(weight.size, -np.inf)
    column_weight[kept] = operator.log_column_weight[inner]
    moment = np.nan
    if graph.is_sparse and rho is None:
        moment = _second_moment(whole, graph, kept, weight[kept], scale.epsilon)
    return MarkovFit(
        operator=operator.restricted(inner),
        kept=kept,
        labels=labels,
        scale=rho,
        log_column_weight=column_weight,
        second_moment=moment,
    )


def _counted_labels(labels: NDArray[np.intp], mass: NDArray[np.float64]) -> NDArray[np.intp]:
    """Number the components by weight; -1 for those too small to count, unless all are."""
    counted = np.bincount(labels) >= _SMALL_COMPONENT
    if not counted.any():
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
    """Sum k d^2 / (h^2 sum k) over the rows that take part."""
    data = np.square(graph.distances.data)
    data *= kernel.data
    squares = sp.csr_matrix((data, kernel.indices, kernel.indptr), shape=kernel.shape)
    everybody = np.zeros(kernel.shape[0])
    everybody[kept] = weight
    total = everybody @ (kernel @ everybody)
    mean_square = float(everybody @ (squares @ everybody) / (2.0 * epsilon * total))
    return mean_square if mean_square > 0 else np.nan
