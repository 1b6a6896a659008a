"""Lanczos on an inverse by sparse factors: exact pairs, and where it is chosen."""

import numpy as np
import pytest
import scipy.sparse as sp

from skdmap import DiffusionMap
from skdmap.diffusion._eigensolvers import choice
from skdmap.diffusion._eigensolvers import shift_invert as module
from skdmap.diffusion._eigensolvers.choice import leading_eigenpairs
from skdmap.diffusion._eigensolvers.eigenproblem import tolerances
from skdmap.diffusion._markov import normalize


def grid(*sizes):
    """Adjacency with self-loops of a rectangular grid."""
    paths = [sp.diags_array([np.ones(n - 1)] * 2, offsets=[-1, 1], shape=(n, n)) for n in sizes]
    total = sp.csr_array((1, 1))
    for path in paths:
        n, m = total.shape[0], path.shape[0]
        total = sp.kron(total, sp.eye_array(m)) + sp.kron(sp.eye_array(n), path)
    return sp.csr_matrix(total + sp.eye_array(total.shape[0]))


def solved(kernel, n_pairs, tol=1e-6):
    operator = normalize(kernel, np.full(kernel.shape[0], 1.0), alpha=0.0)
    root = np.sqrt(operator.stationary)[:, None]
    locked, rng = root / np.linalg.norm(root), np.random.default_rng(0)
    options = {"locked": locked, "solver": "shift-invert", "tol": tol, "rng": rng}
    return operator, leading_eigenpairs(operator, n_pairs, **options)


@pytest.mark.parametrize("tol", [1e-2, 1e-6, 0.0])
def test_a_long_path_has_its_eigenvalues(tol):
    """A reflecting walk on n points, steps -1, 0, 1 and 0 also at the ends: cos closed form."""
    n = 20_000
    kernel = grid(n).tolil()
    kernel[0, 0] = kernel[n - 1, n - 1] = 2.0
    _, pairs = solved(kernel.tocsr(), 6, tol)
    rates = 2 / 3 * (1 - np.cos(np.pi * np.arange(1, 7) / n))
    np.testing.assert_allclose(1 - pairs.values, rates, rtol=1e-6)
    assert pairs.solver == "shift-invert"
    # Below the gaps to 1 of 1e-8 as well.
    assert np.all(pairs.residuals <= tolerances(pairs.values, tol) / 5)


def test_copies_that_one_start_vector_misses_are_put_in(monkeypatch):
    """A start without a part in one of two equal directions of a square grid."""
    operator, exact = solved(grid(40, 40), 5)
    asked, run = [], module.block_lanczos

    def forgets(product, size, n_pairs, **options):
        asked.append(n_pairs)
        values, vectors = run(product, size, n_pairs + (len(asked) == 1), **options)
        return (values[1:], vectors[:, 1:]) if len(asked) == 1 else (values, vectors)

    monkeypatch.setattr(module, "block_lanczos", forgets)
    _, pairs = solved(grid(40, 40), 5)
    np.testing.assert_allclose(pairs.values, exact.values, atol=1e-12)
    np.testing.assert_allclose(exact.values[0], exact.values[1], atol=1e-12)
    S = operator.kernel
    np.testing.assert_allclose(S @ pairs.vectors, pairs.vectors * pairs.values, atol=1e-7)


def test_a_pair_is_not_missed_by_a_rough_look(monkeypatch):
    """Rates 1e-3 apart, the smallest one forgotten, and a look that is off by less than 3e-3."""
    step = grid(40) - sp.eye_array(40)
    kernel = sp.csr_matrix(grid(40, 40) + 1e-3 * sp.kron(step, sp.eye_array(40)))
    _, exact = solved(kernel, 2)
    assert (1 - exact.values[1]) / (1 - exact.values[0]) == pytest.approx(1.001, abs=5e-4)
    asked, run = [], module.block_lanczos

    def forgets(product, size, n_pairs, *, tolerance, **options):
        asked.append(n_pairs)
        is_first, is_rough = len(asked) == 1, tolerance(np.ones(1)) > 1e-3
        values, vectors = run(product, size, n_pairs + is_first, tolerance=tolerance, **options)
        return values[is_first:] * (1.0 - 2e-3 * is_rough), vectors[:, is_first:]

    monkeypatch.setattr(module, "block_lanczos", forgets)
    _, pairs = solved(kernel, 1)
    assert pairs.values[0] == pytest.approx(exact.values[0], abs=1e-12)


def test_copies_are_not_looked_for_without_convergence(monkeypatch):
    asked, run = [], module.block_lanczos

    def ends_early(product, size, n_pairs, **options):
        asked.append(n_pairs)
        return run(product, size, n_pairs, **{**options, "max_products": 30})

    monkeypatch.setattr(module, "block_lanczos", ends_early)
    _, pairs = solved(grid(40, 40), 25)
    assert asked == [25]
    assert pairs.residuals.max() > 1e-4


@pytest.mark.parametrize(
    ("sizes", "small"),
    [((20_000,), True), ((100, 100), True), ((30, 400), True), ((30, 30, 30), False)],
)
def test_factors_are_small_on_curves_and_surfaces(sizes, small):
    kernel = grid(*sizes)
    shuffled = np.random.default_rng(0).permutation(kernel.shape[0])
    assert module.has_small_factors(kernel) is small
    assert module.has_small_factors(kernel[shuffled][:, shuffled].tocsr()) is small


def test_layers_of_two_components_are_not_counted():
    assert not module.has_small_factors(sp.block_diag([grid(50), grid(50)], format="csr"))


def test_auto_takes_it_on_a_surface_and_not_in_five_dimensions(monkeypatch):
    taken = []
    chosen = module.shift_invert

    def noted(problem):
        taken.append(problem.operator.n_rows)
        return chosen(problem)

    monkeypatch.setitem(choice._SOLVERS, "shift-invert", noted)
    rng = np.random.default_rng(0)
    flat = DiffusionMap(4, random_state=0).fit(rng.random((1600, 2)) * [3, 1])
    assert taken == [1600]
    assert flat.residuals_.max() < 2e-7
    assert flat.eigen_solver_ == "shift-invert"
    wide = DiffusionMap(4, random_state=0).fit(rng.random((1600, 5)))
    assert taken == [1600]
    assert wide.eigen_solver_ == "arpack"
