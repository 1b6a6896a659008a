"""The definitions of a diffusion map, written out for dense matrices, and how results compare."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.linalg import eigh, subspace_angles
from scipy.spatial.distance import cdist

from skdmap.diffusion import _diffusion_map
from skdmap.diffusion._eigensolvers import aggregation as _coarse
from skdmap.diffusion._eigensolvers.choice import leading_eigenpairs


def _operator(k, w, alpha, rho, dimension):
    q = (k @ w) / rho**dimension
    g = q**alpha * rho ** (1 + dimension / 2)
    K = k / np.outer(g, g)
    d = K @ w
    P = K * w / d[:, None]
    pi = w * d * rho**2
    pi = pi / pi.sum()
    # The operator that is solved: 1 + (P - 1) / rho^2, symmetric under pi.
    M = np.eye(len(w)) + (P - np.eye(len(w))) / (rho**2)[:, None]
    root = np.sqrt(pi)
    S = root[:, None] * M / root
    values, vectors = eigh(0.5 * (S + S.T))
    order = np.argsort(-values, kind="stable")
    return SimpleNamespace(
        P=P, M=M, S=S, pi=pi, q=q, values=values[order], psi=(vectors / root[:, None])[:, order]
    )


def _reference(
    X, h, alpha=1.0, weight=None, n_neighbors=None, rho=None, dimension=0, distances=None
):
    """Return P, pi, eigenvalues (trivial one first) and eigenfunctions of a dense diffusion map."""
    d = cdist(X, X) if distances is None else distances
    n = len(d)
    w = np.full(n, 1 / n) if weight is None else np.asarray(weight, float) / np.sum(weight)
    rho = np.ones(n) if rho is None else rho
    scale = 2 * h**2 * np.outer(rho, rho)
    k = np.exp(-(d**2) / scale)
    if n_neighbors is not None:
        r = np.sort(d, axis=1)[:, n_neighbors]
        R = np.maximum(r[:, None], r[None, :])
        k = np.where(d <= R, k - np.exp(-(R**2) / scale), 0.0)
    return _operator(k, w, alpha, rho, dimension)


def _angle(A, B, pi=None):
    """Return the largest principal angle between two column spaces, in radians."""
    root = 1.0 if pi is None else np.sqrt(pi)[:, None]
    return float(subspace_angles(np.asarray(A) * root, np.asarray(B) * root).max())


def _relative(a, b):
    return float(np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(b).max())


def _up_to_sign(a, b):
    """Return the relative difference after the best sign of each column."""
    signs = np.sign(np.sum(np.asarray(a) * np.asarray(b), axis=0))
    return _relative(a * signs, b)


@pytest.fixture(scope="session")
def reference():
    return _reference


@pytest.fixture(scope="session")
def angle():
    return _angle


@pytest.fixture(scope="session")
def relative():
    return _relative


@pytest.fixture(scope="session")
def up_to_sign():
    return _up_to_sign


@pytest.fixture(scope="session")
def cloud():
    """Rows of a box with three different sides: no multiple eigenvalue, no row in a tail."""
    return np.random.default_rng(7).uniform(-1, 1, (150, 3)) * [1.6, 1.1, 0.6]


@pytest.fixture(scope="session")
def weights():
    return np.random.default_rng(8).uniform(0.2, 3.0, 150)


@pytest.fixture(params=["usual solver", "multilevel"])
def either_solver(request, monkeypatch):
    """Run a test twice: as it stands, and with every eigenproblem solved over levels.

    The second time each space found is held against that of the dense decomposition.
    """
    if request.param == "multilevel":
        beside_dense = partial(_multilevel_beside_dense, monkeypatch)
        monkeypatch.setattr(_diffusion_map, "leading_eigenpairs", beside_dense)


def _multilevel_beside_dense(monkeypatch, operator, n_pairs, *, locked, solver, tol, rng):
    # Else the coarsest level, which is solved densely, would hold small problems whole.
    monkeypatch.setattr(_coarse, "_COARSEST", max(40, operator.n_rows // 6))
    options = {"locked": locked, "tol": 1e-11, "rng": rng}
    found = leading_eigenpairs(operator, n_pairs, solver="multilevel", **options)
    n_more = min(n_pairs + 20, operator.n_rows - locked.shape[1])
    dense = leading_eigenpairs(operator, n_more, solver="dense", **options)
    np.testing.assert_allclose(found.values, dense.values[:n_pairs], atol=1e-10, rtol=0)
    # Copies of the last eigenvalue beyond those wanted belong to its space.
    near = dense.values > found.values[-1] - 1e-6
    assert near.sum() < max(n_more, n_pairs + 1)
    assert _angle(found.vectors, dense.vectors[:, near]) < 1e-6
    return found
