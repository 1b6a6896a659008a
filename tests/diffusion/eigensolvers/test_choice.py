"""Every solver gives the same space, residuals are true, and no copy of an eigenvalue is lost."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator
from scipy.spatial.distance import cdist
from scipy.special import ive
from threadpoolctl import threadpool_limits

from skdmap import DiffusionMap, _threads
from skdmap.diffusion import _warnings
from skdmap.diffusion._eigensolvers import block_lanczos, choice, lobpcg, row_blocks, scipy_solvers
from skdmap.diffusion._eigensolvers.choice import leading_eigenpairs
from skdmap.diffusion._markov import normalize
from skdmap.exceptions import ConvergenceWarning

SOLVERS = ["dense", "lanczos", "arpack", "lobpcg", "multilevel", "shift-invert", "auto"]


def operator_of(X, h=0.5, sparse=False, scale=None):
    k = np.exp(-cdist(X, X, "sqeuclidean") / (2 * h**2))
    w = np.full(len(X), 1 / len(X))
    given = sp.csr_matrix(k) if sparse else k
    return normalize(given, w, alpha=0.5, scale=scale, dimension=2)


def solve(operator, n_pairs, solver, locked=None, tol=1e-10):
    root = np.sqrt(operator.stationary)
    locked = (root / np.linalg.norm(root))[:, None] if locked is None else locked
    rng = np.random.default_rng(0)
    return leading_eigenpairs(operator, n_pairs, locked=locked, solver=solver, tol=tol, rng=rng)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("variable", [False, True])
def test_pairs_solve_the_eigenproblem(solver, sparse, variable, cloud, angle):
    rho = np.random.default_rng(1).uniform(0.5, 2, 150) if variable else None
    operator = operator_of(cloud, sparse=sparse, scale=rho)
    pairs = solve(operator, 5, solver)
    S = operator.matmat(np.eye(150))
    exact_values, exact_vectors = np.linalg.eigh(0.5 * (S + S.T))
    np.testing.assert_allclose(pairs.values, exact_values[::-1][1:6], atol=1e-10)
    assert angle(pairs.vectors, exact_vectors[:, ::-1][:, 1:6]) < 1e-6
    np.testing.assert_allclose(pairs.vectors.T @ pairs.vectors, np.eye(5), atol=1e-8)
    true = np.linalg.norm(S @ pairs.vectors - pairs.vectors * pairs.values, axis=0)
    np.testing.assert_allclose(pairs.residuals, true, atol=1e-13)


def test_every_solver_has_a_public_name():
    (options,) = DiffusionMap._parameter_constraints["eigen_solver"]
    assert options.options == {"auto", *choice._SOLVERS}


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_warning_names_the_solver_that_was_asked_for(solver, monkeypatch):
    """Also the one that "auto" took, by a name that eigen_solver takes."""
    X = np.random.default_rng(0).uniform(0, 1, (400, 2)) * [2.5, 1]
    monkeypatch.setattr(choice, "_DENSE_ROWS", 0)
    monkeypatch.setattr(choice, "_DENSE_LIMIT", 0)
    monkeypatch.setattr(choice, "tolerances", lambda values, tol: np.full(values.size, np.inf))
    monkeypatch.setattr(_warnings, "tolerances", lambda values, tol: np.full(values.size, -1.0))
    taken = "multilevel" if solver == "auto" else solver
    with pytest.warns(ConvergenceWarning, match=f"eigen_solver '{taken}'"):
        DiffusionMap(3, eigen_solver=solver).fit(X)


@pytest.mark.parametrize("solver", ["lanczos", "arpack", "lobpcg", "shift-invert", "auto"])
def test_no_copy_is_lost_on_a_circle_above_the_dense_limit(solver):
    """1200 points: all nontrivial eigenvalues are double."""
    n, h = 1200, 0.2
    angle = 2 * np.pi * np.arange(n) / n
    X = np.column_stack([np.cos(angle), np.sin(angle)])
    for seed in range(3):
        model = DiffusionMap(8, bandwidth=h, eigen_solver=solver, random_state=seed).fit(X)
        order = np.arange(8) // 2 + 1
        exact = ive(order, h**-2) / ive(0, h**-2)
        np.testing.assert_allclose(model.eigenvalues_, exact, atol=1e-10)


@pytest.mark.parametrize("solver", ["lanczos", "arpack", "lobpcg", "shift-invert", "auto"])
def test_no_copy_is_lost_on_a_sphere_grid_above_the_dense_limit(solver):
    """24 x 48 points: multiplicities 3, 5, and 3 of the 7."""
    nodes, node_weights = np.polynomial.legendre.leggauss(24)
    longitude = np.tile(2 * np.pi * np.arange(48) / 48, 24)
    cosine = np.repeat(nodes, 48)
    sine = np.sqrt(1 - cosine**2)
    X = np.column_stack([sine * np.cos(longitude), sine * np.sin(longitude), cosine])
    exact = ive(np.repeat([1, 2, 3], [3, 5, 3]) + 0.5, 0.4**-2) / ive(0.5, 0.4**-2)
    for seed in range(2):
        model = DiffusionMap(11, bandwidth=0.4, eigen_solver=solver, random_state=seed).fit(
            X, sample_weight=np.repeat(node_weights, 48)
        )
        np.testing.assert_allclose(model.eigenvalues_, exact, atol=1e-10)


def test_a_copy_that_arpack_missed_is_put_in(monkeypatch):
    """The first answer lacks one of each double eigenvalue, as single-vector ARPACK's may."""
    angle = 2 * np.pi * np.arange(300) / 300
    operator = operator_of(np.column_stack([np.cos(angle), np.sin(angle)]), h=0.4)
    honest, asked = scipy_solvers.eigsh, []

    def misses(operator, k, **options):
        asked.append(k)
        if len(asked) > 1:
            return honest(operator, k=k, **options)
        values, vectors = honest(operator, k=2 * k, **{**options, "ncv": 60})
        return values[::2], vectors[:, ::2]

    monkeypatch.setattr(scipy_solvers, "eigsh", misses)
    pairs = solve(operator, 4, "arpack")
    exact = ive([1, 1, 2, 2], 0.4**-2) / ive(0, 0.4**-2)
    np.testing.assert_allclose(pairs.values, exact, atol=1e-10)
    np.testing.assert_allclose(pairs.vectors.T @ pairs.vectors, np.eye(4), atol=1e-8)
    assert asked[0] == 4


def test_arpack_ends_where_it_does_not_converge(monkeypatch):
    """Rates at rounding on a long line: it stops, and LOBPCG gives all pairs."""
    monkeypatch.setattr(scipy_solvers, "_MAX_PRODUCTS", 100)
    monkeypatch.setattr(scipy_solvers, "_REFERENCE_ROWS", 100)
    operator = operator_of(np.linspace(0, 1, 400)[:, None], h=0.004, sparse=True)
    made, honest = [], scipy_solvers.eigsh

    def counting(linear, **options):
        def product(vector):
            made.append(1)
            return linear.matvec(vector)

        counted = LinearOperator(linear.shape, matvec=product, dtype=linear.dtype)
        return honest(counted, **options)

    monkeypatch.setattr(scipy_solvers, "eigsh", counting)
    pairs = solve(operator, 4, "arpack")
    # Twice as many as on a quarter of the rows, and the first basis.
    assert 100 < len(made) <= 2 * 100 + 30
    assert pairs.vectors.shape == (400, 4)
    assert pairs.solver == "lobpcg"


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("n_rows", [2, 3, 5, 6, 11, 20, 26])
def test_any_number_of_pairs_of_few_rows(solver, n_rows):
    X = np.random.default_rng(n_rows).standard_normal((n_rows, 2))
    operator = operator_of(X, h=1.0)
    exact = np.linalg.eigvalsh(operator.matmat(np.eye(n_rows)))[::-1]
    for n_pairs in range(1, n_rows):
        pairs = solve(operator, n_pairs, solver, tol=1e-8)
        np.testing.assert_allclose(pairs.values, exact[1 : n_pairs + 1], atol=1e-8)


@pytest.mark.parametrize(("solver", "name"), [("arpack", "eigsh"), ("dense", "largest_eigh")])
def test_blas_has_one_thread_where_more_would_wait_for_each_other(solver, name, cloud, monkeypatch):
    within, honest = [], getattr(scipy_solvers, name)

    def watched(*arguments, **options):
        within.append(_threads.blas_threads())
        return honest(*arguments, **options)

    monkeypatch.setattr(scipy_solvers, name, watched)
    with threadpool_limits(2, user_api="blas"):
        solve(operator_of(cloud), 3, solver)
        assert _threads.blas_threads() == 2
        monkeypatch.setattr(scipy_solvers, "_ONE_THREAD_ROWS", 100)
        solve(operator_of(cloud), 3, solver)
    assert set(within[: len(within) // 2]) == {1}
    assert within[-1] == (2 if solver == "dense" else 1)


@pytest.mark.parametrize("variable", [False, True])
def test_threads_do_not_show_in_block_lanczos(cloud, variable, monkeypatch):
    """Products have as many threads as BLAS may use, BLAS itself has one meanwhile."""
    monkeypatch.setattr(row_blocks, "BLOCK_ROWS", 40)
    honest, within = block_lanczos.block_lanczos, []

    def watched(*arguments, **options):
        within.append(_threads.blas_threads())
        return honest(*arguments, **options)

    monkeypatch.setattr(block_lanczos, "block_lanczos", watched)
    rho = np.random.default_rng(1).uniform(0.5, 2, 150) if variable else None
    operator = operator_of(cloud, scale=rho)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            found.append(solve(operator, 4, "lanczos"))
    assert within == [1, 1]
    np.testing.assert_allclose(found[0].values, found[1].values, atol=1e-12)
    np.testing.assert_allclose(found[0].vectors, found[1].vectors, atol=1e-10)


def test_locked_vectors_are_left_out(cloud):
    operator = operator_of(cloud)
    S = operator.matmat(np.eye(150))
    values, vectors = np.linalg.eigh(0.5 * (S + S.T))
    for solver in SOLVERS:
        pairs = solve(operator, 3, solver, locked=vectors[:, [-1, -3]])
        np.testing.assert_allclose(pairs.values, values[[-2, -4, -5]], atol=1e-9)


def test_no_pairs_wanted(cloud):
    pairs = solve(operator_of(cloud), 0, "auto")
    assert pairs.vectors.shape == (150, 0)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.LocalizedCoordinateWarning")
@pytest.mark.parametrize("solver", ["arpack", "auto"])
def test_all_coordinates_are_there_when_arpack_gives_up(solver, monkeypatch):
    """ARPACK that stops with two pairs of four: the next method gives all four."""
    X = np.random.default_rng(0).standard_normal((1100, 2))
    exact = DiffusionMap(4, bandwidth=1.0, eigen_solver="dense").fit(X)

    def gives_up(operator, k, **options):
        raise ArpackNoConvergence("%s", np.zeros(min(k, 2)), np.zeros((1100, min(k, 2))))

    monkeypatch.setattr(scipy_solvers, "eigsh", gives_up)
    model = DiffusionMap(4, bandwidth=1.0, eigen_solver=solver).fit(X)
    assert model.embedding_.shape == (1100, 4)
    np.testing.assert_allclose(model.eigenvalues_, exact.eigenvalues_, atol=1e-10)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
def test_rows_that_are_nearly_cut_off_are_found_where_lanczos_gives_up(monkeypatch):
    """All pairs of Cauchy rows: many eigenvalues within 1e-6 of 1, as if there were many rows."""
    monkeypatch.setattr(choice, "_DENSE_ROWS", 1000)
    monkeypatch.setattr(choice, "_DENSE_LIMIT", 1000)
    X = np.random.default_rng(1).standard_cauchy((2000, 2))
    operator = operator_of(X[np.linalg.norm(X, axis=1) < 60], h=1.0)
    exact = np.linalg.eigvalsh(operator.matmat(np.eye(operator.n_rows)))[::-1][1:4]
    assert 1 - exact[-1] < 1e-6
    pairs = solve(operator, 3, "auto")
    np.testing.assert_allclose(pairs.values, exact, rtol=0, atol=1e-12)
    assert pairs.residuals.max() <= 1e-12
    assert pairs.solver == "multilevel"


def test_all_pairs_of_which_few_count_go_to_the_multilevel_method(monkeypatch):
    """A median self-loop probability of .2: block Lanczos would be slow."""
    monkeypatch.setattr(choice, "_DENSE_ROWS", 700)
    monkeypatch.setattr(choice, "_DENSE_LIMIT", 700)
    X = np.random.default_rng(0).standard_normal((1600, 4))
    narrow, wide = operator_of(X, h=0.35), operator_of(X, h=1.0)
    assert np.median(np.diagonal(narrow.kernel)) > 0.15
    pairs = solve(narrow, 4, "auto", tol=1e-6)
    assert pairs.solver == "multilevel"
    exact = np.linalg.eigvalsh(narrow.kernel)[::-1][1:5]
    np.testing.assert_allclose(1 - pairs.values, 1 - exact, rtol=1e-6)
    assert solve(wide, 4, "auto").solver == "lanczos"


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.LocalizedCoordinateWarning")
def test_a_warning_carries_numbers_when_a_method_stops_early(monkeypatch):
    X = np.random.default_rng(0).standard_normal((400, 2))
    monkeypatch.setattr(lobpcg, "_MAX_STEPS", 2)
    with pytest.warns(ConvergenceWarning, match=r"of 4 eigenpairs.*residual \d\.\de") as caught:
        model = DiffusionMap(4, bandwidth=1.0, eigen_solver="lobpcg", random_state=0).fit(X)
    worst = model.residuals_.max()
    assert worst > 1e-6
    message = next(str(w.message) for w in caught if w.category is ConvergenceWarning)
    assert any(f"{residual:.1e}" in message for residual in model.residuals_)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
def test_the_same_space_from_every_solver(cloud, angle):
    fits = [
        DiffusionMap(4, bandwidth=0.3, eigen_solver=s, random_state=0).fit(cloud) for s in SOLVERS
    ]
    for other in fits[1:]:
        np.testing.assert_allclose(other.eigenvalues_, fits[0].eigenvalues_, atol=1e-10)
        space = fits[0].eigenvectors_
        assert angle(other.eigenvectors_, space, fits[0].stationary_distribution_) < 1e-6


def equal_distances(n, h):
    """Return S of n samples at distance sqrt(2), and its eigenvalue of multiplicity n - 1."""
    kernel = np.full((n, n), np.exp(-1 / h**2))
    np.fill_diagonal(kernel, 1.0)
    operator = normalize(kernel.copy(), np.full(n, 1 / n), alpha=1.0)
    return operator, (1 - np.exp(-1 / h**2)) / (1 + (n - 1) * np.exp(-1 / h**2))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("n", [18, 39, 47, 60])
def test_all_copies_of_an_eigenvalue_of_multiplicity_n_minus_1(solver, n):
    """The orders at which LAPACK fails depend on its build: some are tried in the test below."""
    operator, exact = equal_distances(n, 0.8)
    pairs = solve(operator, 3, solver)
    np.testing.assert_allclose(pairs.values, exact, atol=1e-12)
    np.testing.assert_allclose(pairs.vectors.T @ pairs.vectors, np.eye(3), atol=1e-10)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
@pytest.mark.parametrize("n_components", [2, 5])
@pytest.mark.parametrize("dropped", [pytest.param(0, marks=pytest.mark.slow), 1, 2])
@pytest.mark.parametrize("settings", [{}, {"bandwidth": "auto"}], ids=str)
def test_one_hot_rows_have_all_coordinates(n_components, dropped, settings):
    for n in range(8, 80):
        X = np.eye(n)[:, : n - dropped]
        model = DiffusionMap(n_components, **settings).fit(X)
        assert model.embedding_.shape == (n, n_components)
        assert model.residuals_.max() < 1e-12


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
@pytest.mark.parametrize("bandwidth", [0.6, 0.8])
def test_one_seed_gives_the_same_bits_where_arpack_restarts(bandwidth):
    """Restarts draw vectors: they must come from random_state, not from the system."""
    X = np.random.default_rng(0).standard_normal((20, 14))
    settings = {"n_neighbors": 9, "bandwidth": bandwidth, "eigen_solver": "arpack"}
    fits = [DiffusionMap(3, random_state=0, **settings).fit(X) for _ in range(3)]
    for other in fits[1:]:
        np.testing.assert_array_equal(other.embedding_, fits[0].embedding_)


@pytest.mark.parametrize("solver", ["lanczos", "arpack", "lobpcg", "auto"])
def test_the_dense_solver_follows_where_no_other_finds_all_pairs(cloud, solver, monkeypatch):
    def fails(problem):
        raise np.linalg.LinAlgError("no")

    def repeats(problem):
        values, vectors = scipy_solvers.dense(problem)
        return values[[-1] * len(values)], vectors[:, [-1] * len(values)]

    monkeypatch.setattr(choice, "_DENSE_ROWS", 100)
    broken = {"lanczos": fails, "arpack": repeats, "lobpcg": fails}
    monkeypatch.setattr(choice, "_SOLVERS", {**choice._SOLVERS, **broken})
    operator = operator_of(cloud, sparse=solver == "arpack")
    pairs = solve(operator, 4, solver)
    assert pairs.solver == "dense"
    exact = np.linalg.eigvalsh(operator.matmat(np.eye(150)))[::-1]
    np.testing.assert_allclose(pairs.values, exact[1:5], atol=1e-12)
    monkeypatch.setattr(choice, "_LAST_RESORT_ROWS", 149)
    if solver != "auto":
        with pytest.raises(np.linalg.LinAlgError, match=f"eigen_solver='{solver}' found 0 of 4"):
            solve(operator, 4, solver)


def test_lobpcg_converges_where_orthonormality_has_to_be_restored():
    """A line of slow modes: hundreds of steps."""
    operator = operator_of(np.linspace(0, 1, 300)[:, None], h=0.01)
    exact = np.linalg.eigvalsh(operator.matmat(np.eye(300)))[::-1]
    pairs = solve(operator, 4, "lobpcg", tol=1e-9)
    np.testing.assert_allclose(pairs.values, exact[1:5], atol=1e-12)
    assert pairs.residuals.max() <= 1e-9
    np.testing.assert_allclose(pairs.vectors.T @ pairs.vectors, np.eye(4), atol=1e-12)


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
@pytest.mark.parametrize("solver", SOLVERS)
def test_fits_in_threads_leave_the_filters_of_warnings_as_they_are(solver, cloud):
    """warnings.catch_warnings is not for threads: it can leave the whole process muted."""
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        fits = [
            pool.submit(DiffusionMap(3, bandwidth=0.4, eigen_solver=solver).fit, cloud)
            for _ in range(12)
        ]
        for fit in fits:
            fit.result()
            assert warnings.filters == before
