"""The definitions that the closed forms are held against, written out for dense matrices."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.linalg import eigh
from scipy.spatial.distance import cdist


def dense_markov(X, bandwidth, alpha, weight=None):
    """Return the matrix P, its eigenvalues, descending, and the stationary distribution."""
    w = np.full(len(X), 1 / len(X)) if weight is None else weight / weight.sum()
    k = np.exp(-cdist(X, X, "sqeuclidean") / (2 * bandwidth**2))
    q = k @ w
    K = k / np.outer(q, q) ** alpha
    d = K @ w
    root = np.sqrt(w / d)
    return SimpleNamespace(
        P=K * w / d[:, None],
        eigenvalues=eigh(root[:, None] * K * root, eigvals_only=True)[::-1],
        pi=w * d / (w @ d),
    )


@pytest.fixture
def markov():
    return dense_markov
