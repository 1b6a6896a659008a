"""The multilevel solver: exact spectra, no copy lost, any number of threads, few products."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist
from scipy.special import ive
from threadpoolctl import threadpool_limits

from skdmap import DiffusionMap
from skdmap.datasets import make_swiss_roll
from skdmap.diffusion._eigensolvers import choice
from skdmap.diffusion._eigensolvers import multilevel as _multilevel
from skdmap.diffusion._eigensolvers.aggregation import MarkovLevel
from skdmap.diffusion._eigensolvers.chebyshev import Smoother
from skdmap.diffusion._eigensolvers.choice import leading_eigenpairs
from skdmap.diffusion._eigensolvers.eigenproblem import tolerances
from skdmap.diffusion._eigensolvers.multilevel import multilevel_eigenpairs
from skdmap.diffusion._eigensolvers.rayleigh_ritz import rayleigh_ritz
from skdmap.diffusion._eigensolvers.row_blocks import RowBlocks
from skdmap.diffusion._markov import normalize

ROLL = {"n_neighbors": 32, "bandwidth": 1.0, "random_state": 0}


def operator_of(X, h, weight=None, scale=None, cutoff=1e-9, alpha=1.0):
    """A kernel of which only values above ``cutoff`` are stored."""
    k = np.exp(-cdist(X, X, "sqeuclidean") / (2 * h**2))
    k[k < cutoff] = 0.0
    w = np.full(len(X), 1 / len(X)) if weight is None else weight / np.sum(weight)
    return normalize(sp.csr_matrix(k), w, alpha=alpha, scale=scale, dimension=2)


def trivial(operator):
    root = np.sqrt(operator.stationary)
    return (root / np.linalg.norm(root))[:, None]


def solve(operator, n_pairs, tol=1e-10, seed=0, locked=None, solver="multilevel"):
    return leading_eigenpairs(
        operator,
        n_pairs,
        locked=trivial(operator) if locked is None else locked,
        solver=solver,
        tol=tol,
        rng=np.random.default_rng(seed),
    )


def unscaled(matrix, lower):
    ones = np.ones((matrix.shape[0], 1), dtype=np.float32)
    return Smoother(RowBlocks(matrix.astype(np.float32), 1), ones, lower)


def circle(n):
    angle = 2 * np.pi * np.arange(n) / n
    return np.column_stack([np.cos(angle), np.sin(angle)])


@pytest.fixture(scope="module")
def plane():
    """2,500 rows of a box, which have three levels."""
    return np.random.default_rng(0).uniform(0, 1, (2500, 2)) * [2.0, 1.0]


@pytest.mark.parametrize("variable", [False, True])
def test_it_agrees_with_the_dense_solver(plane, variable, angle):
    rho = np.random.default_rng(1).uniform(0.7, 1.5, len(plane)) if variable else None
    operator = operator_of(plane, 0.08, scale=rho)
    exact = solve(operator, 10, solver="dense")
    found = solve(operator, 10)
    np.testing.assert_allclose(found.values, exact.values, atol=1e-10)
    assert angle(found.vectors, exact.vectors) < 1e-6
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(10), atol=1e-9)
    assert np.all(found.residuals <= tolerances(found.values, 1e-10))


@pytest.mark.parametrize("tol", [1e-4, 1e-6, 1e-8, 1e-11])
def test_single_precision_sets_no_floor(plane, tol):
    found = solve(operator_of(plane, 0.08), 6, tol=tol)
    assert np.all(found.residuals <= tolerances(found.values, tol))


@pytest.mark.parametrize("seed", range(3))
def test_no_copy_is_lost_on_a_circle(seed):
    n, h = 2400, 0.1
    found = solve(operator_of(circle(n), h), 8, tol=1e-8, seed=seed)
    kappa, order = h**-2, np.arange(8) // 2 + 1
    np.testing.assert_allclose(found.values, ive(order, kappa) / ive(0, kappa), atol=1e-8)


@pytest.mark.parametrize("seed", [*(pytest.param(s, marks=pytest.mark.slow) for s in (0, 1)), 2])
def test_no_copy_is_lost_on_a_sphere_grid(seed):
    """40 x 80 points: multiplicities 3, 5 and 7."""
    nodes, node_weights = np.polynomial.legendre.leggauss(40)
    longitude = np.tile(2 * np.pi * np.arange(80) / 80, 40)
    cosine = np.repeat(nodes, 80)
    sine = np.sqrt(1 - cosine**2)
    X = np.column_stack([sine * np.cos(longitude), sine * np.sin(longitude), cosine])
    exact = ive(np.repeat([1, 2, 3], [3, 5, 7]) + 0.5, 0.3**-2) / ive(0.5, 0.3**-2)
    operator = operator_of(X, 0.3, weight=np.repeat(node_weights, 80), cutoff=1e-16)
    found = solve(operator, 15, tol=1e-9, seed=seed)
    np.testing.assert_allclose(found.values, exact, atol=1e-10)


def test_a_mode_that_starts_nowhere_is_found(plane, monkeypatch):
    """The coarsest level loses its first mode: the random columns bring it back."""
    honest = _multilevel._coarsest

    def forgets(*arguments):
        block = honest(*arguments)
        return _multilevel.RitzBlock(
            block.values[1:], block.vectors[:, 1:], block.residuals[:, 1:], block.norms[1:]
        )

    monkeypatch.setattr(_multilevel, "_coarsest", forgets)
    operator = operator_of(plane, 0.08)
    exact = solve(operator, 5, solver="dense")
    np.testing.assert_allclose(solve(operator, 5).values, exact.values, atol=1e-10)


@pytest.mark.parametrize("case", ["plane", "nearly_isolated"])
def test_a_coarsest_level_of_many_rows_is_not_decomposed(case, request, monkeypatch):
    """Block Lanczos starts there, to as many digits as a start needs."""
    name = request.getfixturevalue(case)
    operator = operator_of(name, 0.08) if case == "plane" else name
    exact = solve(operator, 6)
    sizes, honest = [], _multilevel.largest_eigh

    def watched(matrix, *arguments):
        sizes.append(len(matrix))
        return honest(matrix, *arguments)

    monkeypatch.setattr(_multilevel, "largest_eigh", watched)
    monkeypatch.setattr(_multilevel, "_DENSE_ROWS", 30)
    for seed in range(2):
        found = solve(operator, 6, seed=seed)
        assert found.solver == "multilevel"
        np.testing.assert_allclose(found.values, exact.values, atol=1e-10)
        assert np.all(found.residuals <= tolerances(found.values, 1e-10))
    assert not sizes


def test_many_rows_without_aggregates_are_left_to_the_next_solver(plane, monkeypatch):
    monkeypatch.setattr(_multilevel, "coarse_levels", lambda S, root, rng: [MarkovLevel(S, root)])
    monkeypatch.setattr(choice, "_DENSE_LIMIT", 2000)
    operator = operator_of(plane, 0.2)
    found = solve(operator, 4, solver="auto")
    assert found.solver == "arpack"
    assert np.all(found.residuals <= tolerances(found.values, 1e-10))


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.BandwidthWarning")
def test_a_block_does_not_end_in_a_cluster(monkeypatch):
    """Ten pairs of a sphere, 3 + 5 + 2 of 7: 14 columns would leave the last one out."""
    rates = np.repeat([2.0, 6.0, 12.0, 20.0, 30.0], [3, 5, 7, 9, 11])
    assert _multilevel._width(10, rates) == 32
    assert _multilevel._width(8, rates) == 16  # 12 is well above 6
    assert _multilevel._width(10, np.linspace(1.0, 1.1, 35)) == 16  # 32 columns are no better
    X = np.random.default_rng(0).standard_normal((4000, 3))
    X /= np.linalg.norm(X, axis=1)[:, None]
    widths, honest = [], _multilevel.lobpcg_step

    def watched(matrix, pairs, *arguments):
        widths.append((matrix.n_rows, pairs.values.size))
        return honest(matrix, pairs, *arguments)

    monkeypatch.setattr(_multilevel, "lobpcg_step", watched)
    model = DiffusionMap(10, eigen_solver="multilevel", random_state=0).fit(X)
    assert set(widths) >= {(4000, 32)}
    assert widths.count((4000, 32)) <= 9
    assert np.all(model.residuals_ <= 1e-6)


def test_components_are_left_out_where_they_are_known(plane):
    X = np.concatenate([plane, plane * 0.9 + 50.0])
    operator = operator_of(X, 0.08)
    locked = np.zeros((len(X), 2))
    locked[: len(plane), 0] = locked[len(plane) :, 1] = 1.0
    locked *= np.sqrt(operator.stationary)[:, None]
    locked /= np.linalg.norm(locked, axis=0)
    found = solve(operator, 6, locked=locked)
    exact = solve(operator, 6, locked=locked, solver="arpack")
    np.testing.assert_allclose(found.values, exact.values, atol=1e-9)
    np.testing.assert_allclose(locked.T @ found.vectors, 0.0, atol=1e-9)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.BandwidthWarning")
def test_the_number_of_threads_does_not_show():
    X = make_swiss_roll(6000, random_state=0).X
    fits = []
    for threads in (1, 2, 3):
        with threadpool_limits(threads, user_api="blas"):
            model = DiffusionMap(6, eigen_solver="multilevel", **ROLL)
            fits.append(model.fit(X))
    for other in fits[1:]:
        np.testing.assert_allclose(other.eigenvalues_, fits[0].eigenvalues_, atol=1e-12)
        np.testing.assert_allclose(other.embedding_, fits[0].embedding_, atol=1e-10)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.BandwidthWarning")
def test_cycles_do_not_grow_with_the_rows(monkeypatch):
    """Four times the rows at the same number of neighbours: a Krylov method needs twice as many."""
    counts = {}
    honest = _multilevel.lobpcg_step

    def counting(matrix, *arguments):
        counts[matrix.n_rows] = counts.get(matrix.n_rows, 0) + 1
        return honest(matrix, *arguments)

    def unneeded(level, pairs, n_pairs, tolerance):
        """The cycles alone must do it: nothing is left for the long polynomial."""
        assert np.all(pairs.norms[:n_pairs] <= tolerance(pairs.values[:n_pairs]))
        return pairs

    monkeypatch.setattr(_multilevel, "lobpcg_step", counting)
    monkeypatch.setattr(_multilevel, "_solve_by_filter", unneeded)
    for n in (6000, 24_000):
        X = make_swiss_roll(n, random_state=0).X
        DiffusionMap(4, eigen_solver="multilevel", **ROLL).fit(X)
    assert counts[24_000] <= 1.5 * counts[6000]


@pytest.fixture(scope="module")
def nearly_isolated():
    """Six columns and so small a bandwidth that most rows have a large self-loop probability."""
    X = np.random.default_rng(0).uniform(-1, 1, (2500, 6))
    return operator_of(X, 0.13, cutoff=1e-14)


def test_rows_with_a_large_self_loop_probability(nearly_isolated, angle):
    """Every row is slow on its own, which neither aggregates nor products with S see."""
    leaving = 1.0 - nearly_isolated.kernel.diagonal()
    assert leaving.min() < 1e-5
    assert np.median(leaving) < 0.1
    exact = solve(nearly_isolated, 6, solver="dense")
    for seed in range(3):
        found = solve(nearly_isolated, 6, seed=seed)
        rates = 1.0 - exact.values
        np.testing.assert_allclose(1.0 - found.values, rates, rtol=1e-6, atol=1e-13)
        assert angle(found.vectors, exact.vectors) < 1e-3
        assert np.all(found.residuals <= tolerances(found.values, 1e-10))


@pytest.mark.parametrize("variable", [False, True])
def test_all_pairs_are_solved_exactly(plane, variable):
    """Levels come from the pairs that count; values and residuals are those of all pairs."""
    X = plane[:1800] + np.random.default_rng(2).standard_normal((1800, 2)) * 0.05
    rho = np.random.default_rng(1).uniform(0.7, 1.5, 1800) if variable else None
    k = np.exp(-cdist(X, X, "sqeuclidean") / (2 * 0.02**2))
    operator = normalize(k, np.full(1800, 1 / 1800), alpha=1.0, scale=rho, dimension=2)
    found = solve(operator, 5)
    assert found.solver == "multilevel"
    exact = solve(operator, 5, solver="dense")
    np.testing.assert_allclose(found.values, exact.values, atol=1e-10)
    assert np.all(found.residuals <= tolerances(found.values, 1e-10))


@pytest.mark.slow
def test_what_outgrows_single_precision_is_left_out(plane):
    """A wrong lower bound: the polynomial is huge there, and the block stays as it was."""
    operator = operator_of(plane, 0.08)
    S, locked = operator.kernel.tocsr(), trivial(operator)
    level = _multilevel.Level(
        double=RowBlocks(S, 1),
        smoother=unscaled(S, lower=0.85),
        locked=locked,
        prolongation=None,
        restriction=None,
    )
    rng = np.random.default_rng(0)
    start = rayleigh_ritz(level.double, rng.standard_normal((len(plane), 6)), locked)
    found = _multilevel._solve_by_filter(level, start, 2, lambda values: np.full(values.size, 1e-8))
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(6), atol=1e-12)
    assert found.norms.max() <= 1.01 * start.norms.max()


def test_dependent_columns_are_replaced():
    """Copies of one vector span one direction: the block stays as wide as it was."""
    matrix = sp.diags(np.linspace(0.1, 0.9, 300), format="csr")
    locked = np.eye(300)[:, :1]
    level = _multilevel.Level(
        double=RowBlocks(matrix, 1),
        smoother=unscaled(matrix, lower=0.0),
        locked=locked,
        prolongation=None,
        restriction=None,
    )
    rng = np.random.default_rng(0)
    copies = np.repeat(rng.standard_normal((300, 2)), 3, axis=1)
    pairs = _multilevel._full_block(level, copies, rng)
    assert pairs.vectors.shape == (300, 6)
    np.testing.assert_allclose(pairs.vectors.T @ pairs.vectors, np.eye(6), atol=1e-12)
    np.testing.assert_allclose(locked.T @ pairs.vectors, 0.0, atol=1e-12)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.BandwidthWarning")
def test_the_order_of_many_rows_does_not_show(relative):
    """They are put in another one; results, and locked vectors, come back in theirs."""
    X = make_swiss_roll(6000, random_state=0).X
    order = np.random.default_rng(1).permutation(6000)
    options = {"eigen_solver": "multilevel", "tol": 1e-10, **ROLL}
    model = DiffusionMap(4, **options).fit(X)
    other = DiffusionMap(4, **options).fit(X[order])
    np.testing.assert_allclose(other.eigenvalues_, model.eigenvalues_, atol=1e-12)
    # A residual of tol over a gap of 1e-3 is an angle of 1e-7.
    np.testing.assert_allclose(other.embedding_, model.embedding_[order], atol=1e-6)
    np.testing.assert_allclose(
        other.stationary_distribution_, model.stationary_distribution_[order], rtol=1e-12
    )
    assert relative(model.transform(X[:50]), model.embedding_[:50]) < 1e-8


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.BandwidthWarning")
def test_few_cycles_suffice(monkeypatch):
    """Each cycle gains a factor of about ten; the start is a few thousand times too rough."""
    counts = []
    honest = _multilevel.lobpcg_step

    def counting(matrix, *arguments):
        counts.append(matrix.n_rows)
        return honest(matrix, *arguments)

    monkeypatch.setattr(_multilevel, "lobpcg_step", counting)
    X = make_swiss_roll(20_000, random_state=0).X
    DiffusionMap(10, eigen_solver="multilevel", **ROLL).fit(X)
    assert counts.count(20_000) <= 6


def test_too_few_aggregates_for_all_columns_do_not_stop_it():
    """Rows that no aggregate joins: a diagonal operator, and one level."""
    diagonal = np.linspace(0.1, 0.99, 800)
    values, vectors = multilevel_eigenpairs(
        sp.diags(diagonal, format="csr"),
        np.full(800, 800**-0.5),
        3,
        locked=np.empty((800, 0)),
        tolerance=lambda values: np.full(values.shape, 1e-8),
        rng=np.random.default_rng(0),
    )
    np.testing.assert_allclose(values, diagonal[:-4:-1], atol=1e-12)
    assert np.abs(vectors).max(axis=0).min() > 1 - 1e-6


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.BandwidthWarning")
def test_eigenvectors_are_orthonormal_to_rounding_whatever_the_tolerance():
    X = np.random.default_rng(5).standard_normal((8000, 4))
    model = DiffusionMap(10, bandwidth="auto", n_neighbors=20, random_state=5).fit(X)
    vectors = model.eigenvectors_
    gram = (vectors * model.stationary_distribution_[:, None]).T @ vectors
    np.testing.assert_allclose(gram, np.eye(10), atol=1e-11)
