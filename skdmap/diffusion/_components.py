"""Kernel in, connected components out, and the eigenvectors of eigenvalue 1 that they give."""

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

__all__ = ["connected_labels", "cut_between", "indicator_coordinates", "order_by_mass"]

_CONNECTED = np.finfo(float).eps


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
