"""Components of the kernel, and the eigenvectors of eigenvalue 1 that they give."""

import numpy as np
import pytest
import scipy.sparse as sp

from skdmap.diffusion._markov import (
    component_coordinates,
    connected_labels,
    cut_between,
    order_by_mass,
)

EPS = np.finfo(float).eps


def blocks(sizes, between, seed=0):
    """Return a symmetric kernel of several blocks with the value ``between`` between them."""
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    k = np.full((n, n), between)
    start = 0
    for size in sizes:
        k[start : start + size, start : start + size] = 0.5
        start += size
    np.fill_diagonal(k, 1.0)
    order = rng.permutation(n)
    return k[np.ix_(order, order)], np.repeat(np.arange(len(sizes)), sizes)[order]


def same_partition(a, b):
    return len({*zip(a, b, strict=True)}) == len(set(a)) == len(set(b))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("between", "n_pieces"), [(EPS / 2, 3), (EPS, 1), (0.0, 3)])
def test_rows_are_connected_from_k_of_eps_on(sparse, between, n_pieces):
    k, truth = blocks([100, 70, 5], between)
    labels = connected_labels(sp.csr_matrix(k) if sparse else k)
    assert len(set(labels)) == n_pieces
    if n_pieces > 1:
        assert same_partition(labels, truth)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_chain_is_one_component(sparse):
    """Each row reaches its two neighbours only."""
    x = np.arange(300.0)
    k = np.exp(-((x[:, None] - x) ** 2) * 20)
    k[k < EPS] = 0
    assert not connected_labels(sp.csr_matrix(k) if sparse else k).any()


@pytest.mark.parametrize("sparse", [False, True])
def test_nothing_is_left_between_components(sparse):
    k, truth = blocks([20, 10], EPS / 2)
    given = sp.csr_matrix(k) if sparse else k.copy()
    cut = cut_between(given, truth)
    cut = cut.toarray() if sparse else cut
    inside = truth[:, None] == truth
    np.testing.assert_array_equal(cut[~inside], 0.0)
    np.testing.assert_array_equal(cut[inside], k[inside])


def test_label_zero_has_the_largest_mass_and_ties_go_to_the_first_row():
    labels = np.array([0, 1, 1, 2, 2])
    mass = np.array([0.1, 0.15, 0.15, 0.3, 0.3])
    np.testing.assert_array_equal(order_by_mass(labels, mass), [2, 1, 1, 0, 0])
    np.testing.assert_array_equal(order_by_mass(np.array([2, 0, 1]), np.full(3, 1 / 3)), [0, 1, 2])


@pytest.mark.parametrize("n_pieces", [1, 2, 3, 6])
def test_indicators_are_pi_orthonormal_and_constant_on_components(n_pieces):
    rng = np.random.default_rng(n_pieces)
    pi = rng.uniform(0.1, 1, 60)
    pi /= pi.sum()
    labels = order_by_mass(np.arange(60) % n_pieces, pi)
    psi = component_coordinates(labels, pi)
    assert psi.shape == (60, n_pieces - 1)
    np.testing.assert_allclose(psi.T @ (pi[:, None] * psi), np.eye(n_pieces - 1), atol=1e-14)
    np.testing.assert_allclose(pi @ psi, 0, atol=1e-14)
    for label in range(n_pieces):
        assert np.ptp(psi[labels == label], axis=0).max(initial=0) == 0
    # The first tells the largest component from the rest.
    if n_pieces > 1:
        assert (psi[labels == 0, 0] > 0).all()
        assert (psi[labels != 0, 0] < 0).all()
