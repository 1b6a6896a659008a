"""The bound on missed eigenvalues, against known spectra."""

import numpy as np
import pytest

from skdmap.hessian import dense_eigenpairs, lanczos
from skdmap.hessian._krylov import basis
from skdmap.hessian._krylov.basis import KrylovBasis, number_per_end
from skdmap.hessian._krylov.lanczos import _failure_probability
from skdmap.hessian._krylov.verification import VerificationRun, _outer_root

SIZE = 500


def rng(seed=0):
    return np.random.default_rng(seed)


def space_of(spectrum, which, k, seed=0, max_rows=60, skip=()):
    """A basis that holds exactly k eigenvectors: the wanted ones, but for those to be skipped."""
    d = spectrum.copy()
    d[list(skip)] = 0.0
    starts = np.eye(len(d))[np.flatnonzero(d)][:k] if which == "largest" else np.eye(len(d))[:k]
    space = KrylovBasis(len(d), max_rows, number_per_end(which, k), 1e-3, 2.3e-16, starts)
    while not space.closed:
        space.extend(lambda v: spectrum * v)
    space.solve()
    space.restart(space.wanted())
    return space


def run_of(space, spectrum, n_steps, seed=1, probability=0.01):
    run = VerificationRun(space, rng(seed).standard_normal(space.size))
    for _ in range(n_steps):
        run.step(lambda v: spectrum * v)
        run.update_bound(probability)
    return run


def test_the_root_is_where_the_orthonormal_polynomials_reach_the_height():
    """p_0 = 1, b_i p_i = (t - a_i) p_{i - 1} - b_{i - 1} p_{i - 2}."""
    a, b = np.array([0.3, -0.5, 1.7, 0.2]), np.array([1.1, 0.7, 0.4, 0.9])
    values, vectors = np.linalg.eigh(np.diag(a) + np.diag(b[:-1], 1) + np.diag(b[:-1], -1))
    root = _outer_root(values, np.log(b).sum() + np.log(30.0), b[-1] * vectors[-1])
    before, now, total = 0.0, 1.0, 1.0
    for i in range(4):
        before, now = now, ((root - a[i]) * now - (b[i - 1] * before if i else 0.0)) / b[i]
        total += now**2
    assert np.sqrt(total) == pytest.approx(30.0, rel=1e-10)
    assert root > values.max()
    assert _outer_root(values, -np.inf, 0.0 * values) == values.max()


def test_the_probabilities_of_all_runs_sum_to_one_percent():
    total = sum(_failure_probability(number) for number in range(1, 20_001))
    assert 0.01 * (1 - 2e-5) < total <= 0.01


def test_a_run_is_orthogonal_to_what_is_known_and_tridiagonal():
    spectrum = np.r_[5.0, 4.0, 3.0, np.linspace(-1, 1, SIZE - 3)]
    space = space_of(spectrum, "largest", 3)
    run = run_of(space, spectrum, 8)
    rows = space.basis[3:11]
    np.testing.assert_allclose(rows @ rows.T, np.eye(8), atol=1e-14)
    np.testing.assert_allclose(rows @ space.basis[:3].T, 0.0, atol=1e-14)
    np.testing.assert_allclose(
        run.values, np.linalg.eigvalsh((rows * spectrum) @ rows.T), atol=1e-13
    )
    assert not run.has_found()


@pytest.mark.parametrize(
    ("which", "missing"), [("largest", 4.5), ("smallest", -4.5), ("magnitude", -4.5)]
)
def test_a_run_finds_what_is_missing_and_hands_it_over(which, missing):
    sign = -1.0 if which == "smallest" else 1.0
    spectrum = np.r_[sign * np.array([5.0, 4.0, 3.0]), np.linspace(-1, 1, SIZE - 4), missing]
    starts = np.eye(SIZE)[:3]
    space = KrylovBasis(SIZE, 60, number_per_end(which, 3), 1e-3, 2.3e-16, starts)
    for _ in range(3):
        space.extend(lambda v: spectrum * v)
    space.solve()
    space.restart(space.wanted())
    run = run_of(space, spectrum, 15)
    assert run.has_found()
    assert run.has_converged()
    assert np.abs(run.values - spectrum[-1]).min() < 1e-6
    assert abs(run.most_wanted_vector()[-1]) == pytest.approx(1.0, abs=1e-3)
    run.absorb()
    space.solve()
    assert space.has_converged()
    expected = spectrum[np.argsort(-np.abs(spectrum))[:3]]
    np.testing.assert_allclose(space.values[space.wanted()], expected, atol=1e-6)
    vectors = space.vectors(space.wanted())
    true = np.linalg.norm(vectors * spectrum - expected[:, None] * vectors, axis=1)
    np.testing.assert_allclose(space.residuals[space.wanted()], true, atol=1e-5)


def test_the_bound_is_that_of_the_largest_eigenvalue_in_the_complement():
    """Of 300 runs, whose bounds fail with a probability of at most 5 % each."""
    spectrum = np.r_[5.0, np.sort(rng(3).standard_normal(SIZE - 1))[::-1]]
    space = space_of(spectrum, "largest", 1)
    failures, excesses = 0, []
    for seed in range(300):
        run = run_of(space, spectrum, 8, seed=seed, probability=0.05)
        failures += 5.0 + run.excess() < spectrum[1]
        excesses.append(5.0 + run.excess() - spectrum[1])
    assert failures <= 15
    assert np.median(excesses) < 2.0  # the spectrum is 6 wide


def test_a_smaller_probability_and_fewer_products_give_a_larger_bound():
    spectrum = np.r_[2.0, rng(4).standard_normal(SIZE - 1) * 0.5]
    space = space_of(spectrum, "largest", 1)
    bounds = [run_of(space, spectrum, n).excess() for n in (4, 6, 8, 12)]
    assert sorted(bounds, reverse=True) == bounds
    strict = run_of(space, spectrum, 8, probability=1e-4).excess()
    assert strict > bounds[2]


def test_the_residuals_of_the_pairs_are_in_the_bound():
    """[[0, r], [r, b]] has an eigenvalue above 0 by about r^2 / |b|, whatever the run sees."""
    matrix = np.diag(np.r_[0.0, np.full(SIZE - 1, -10.0)])
    matrix[0, 1] = matrix[1, 0] = 0.05
    space = KrylovBasis(SIZE, 60, number_per_end("largest", 1), 1e-2, 2.3e-16, np.eye(SIZE)[:1])
    space.extend(matrix.dot)
    space.solve()
    space.scale = 10.0
    space.restart(space.wanted())
    run = VerificationRun(space, rng().standard_normal(SIZE))
    run.step(matrix.dot)
    run.update_bound(0.01)
    assert run.closed
    true = np.linalg.eigvalsh(matrix)[-1] / 10
    assert run.missed_eigenvalue_bound() == pytest.approx(true, rel=1e-6)


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude", "both"])
def test_each_eigenvalue_is_within_the_bound(which):
    for seed in range(12):
        spectrum = rng(seed).standard_normal(SIZE)
        pairs = lanczos(
            lambda v, d=spectrum: d * v, SIZE, n_pairs=6, rng=rng(seed), which=which, tol=1e-2
        )
        exact = dense_eigenpairs(
            lambda v, d=spectrum: d * v, SIZE, n_pairs=6, which=which
        ).eigenvalues
        found = pairs.eigenvalues
        if which == "magnitude":
            found, exact = np.abs(found), np.abs(exact)
        error = np.abs(found - exact).max() / pairs.scale
        assert error <= pairs.missed_eigenvalue_bound < 0.4


def test_more_products_of_the_verification_certify_a_smaller_error():
    spectrum = rng(5).standard_normal(SIZE)
    bounds, products = [], []
    for n_verify in (5, 8, 12, 18):
        pairs = lanczos(
            lambda v: spectrum * v, SIZE, n_pairs=4, rng=rng(), max_basis=80, n_verify=n_verify
        )
        bounds.append(pairs.missed_eigenvalue_bound)
        products.append(pairs.n_matvecs)
    assert sorted(bounds, reverse=True) == bounds
    assert np.diff(products).tolist() == [3, 4, 6]


def test_a_gap_below_the_wanted_eigenvalues_ends_the_verification_early():
    spectrum = np.r_[3.0, 2.0, np.linspace(-0.01, 0.01, SIZE - 2)]
    pairs = lanczos(lambda v: spectrum * v, SIZE, n_pairs=2, rng=rng(), n_verify=50)
    assert pairs.missed_eigenvalue_bound < 1e-5
    assert pairs.n_matvecs < 12


def test_a_search_without_verification_has_an_infinite_bound():
    spectrum = np.linspace(0, 1, SIZE)
    pairs = lanczos(lambda v: spectrum * v, SIZE, n_pairs=3, rng=rng(), max_matvecs=10)
    assert pairs.missed_eigenvalue_bound == np.inf
    assert not pairs.converged


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_eigenvalue_lies_within_each_residual(dtype):
    """Products in float32 may be exact on what is found, and wrong by their rounding."""
    matrix = rng(6).standard_normal((SIZE, 40))
    matrix = matrix @ np.diag(0.7 ** np.arange(40)) @ matrix.T
    exact = np.linalg.eigvalsh(matrix)
    single = matrix.astype(dtype)
    pairs = lanczos(
        lambda v: (single @ v.astype(dtype)).astype(np.float64),
        SIZE,
        n_pairs=5,
        rng=rng(),
        tol=1e-5,
        precision=float(np.finfo(dtype).eps),
    )
    distance = np.abs(pairs.eigenvalues[:, None] - exact).min(axis=1)
    assert (distance <= pairs.residuals).all()
    assert pairs.residuals.max() <= 1e-5 * pairs.scale


def test_the_bound_of_one_product_in_closed_form_and_the_worse_of_two_ends():
    spectrum = np.r_[5.0, -5.0, rng(8).standard_normal(SIZE - 2)]
    space = KrylovBasis(SIZE, 60, number_per_end("both", 2), 1e-3, 2.3e-16, np.eye(SIZE)[:2])
    for _ in range(2):
        space.extend(lambda v: spectrum * v)
    space.solve()
    space.restart(space.wanted())
    run = run_of(space, spectrum, 1, probability=0.02)
    least_part = 0.01 * np.sqrt(np.pi / (2 * (SIZE - 3)))
    distance = run.beta * np.sqrt(least_part**-2 - 1)  # 1 + (distance / beta)^2 = least_part^-2
    value = run.values.item()
    assert run.excess() == pytest.approx(abs(value) + distance - 5.0, rel=1e-9)


def test_what_has_not_converged_is_left_out_of_the_complement_and_stays_in_the_bound():
    """The top of [[0.9, c], [c, 0.8]], 0.9 in the space of the search, exceeds the wanted 1."""
    spectrum = np.r_[1.0, np.zeros(SIZE - 1)]
    matrix = np.diag(spectrum)
    matrix[1:3, 1:3] = [[0.9, 0.3], [0.3, 0.8]]
    space = KrylovBasis(SIZE, 60, number_per_end("largest", 1), 1e-3, 2.3e-16, np.eye(SIZE)[:2])
    space.extend(matrix.dot)
    space.extend(matrix.dot)
    space.solve()
    assert space.has_converged()
    assert space.n_pending == 1
    run = VerificationRun(space, rng().standard_normal(SIZE))
    assert run.dimension == SIZE - 2
    while not (run.closed or run.full):
        run.step(matrix.dot)
        run.update_bound(0.01)
    top = np.linalg.eigvalsh(matrix)[-1]
    assert run.has_found()  # 0.8 and 0.9 alone are not better than 1
    assert run.values.max() == pytest.approx(0.8, abs=1e-9)
    assert run.excess() == pytest.approx(top - 1.0, rel=1e-6)
    run.absorb()
    space.solve()
    assert space.values[space.wanted()].item() == pytest.approx(top, abs=1e-9)


@pytest.mark.parametrize("lost", [0.0, 0.02])
def test_the_arrow_bounds_what_couples_the_space_to_its_complement(lost):
    """R R' <= D D' for each R of the coupling and of remainders that were dropped."""
    space = KrylovBasis(SIZE, 60, number_per_end("largest", 2), 1e-3, 2.3e-16, np.eye(SIZE)[:1])
    spectrum = rng(7).standard_normal(SIZE)
    for _ in range(6):
        space.extend(lambda v: np.roll(spectrum * np.roll(v, 1), -1) + 0.1 * v.sum())
    space._lost[:6] = lost * rng(8).random(6)
    _, coupling = space.arrow()
    for seed in range(20):
        dropped = rng(seed).standard_normal((6, 3))
        dropped *= (space._lost[:6] / np.linalg.norm(dropped, axis=1))[:, None]
        turned = np.linalg.qr(rng(seed).standard_normal((3, 3)))[0][: space.n_pending]
        outside = space.coupling[:6] @ turned + dropped
        rest = coupling @ coupling.T - outside @ outside.T
        assert np.linalg.eigvalsh(rest).min() >= -1e-12
    if lost == 0.0:
        np.testing.assert_allclose(coupling @ coupling.T, outside @ outside.T, atol=1e-14)


def test_resolved_pairs_beside_the_wanted_ones_shorten_the_verification(monkeypatch):
    spectrum = np.r_[1.0, 0.95, 0.9, 0.8, np.linspace(-0.1, 0.1, SIZE - 4)]
    products = {}
    for share in (0.0, 0.1):
        monkeypatch.setattr(basis, "_RESOLVED", share)
        pairs = lanczos(lambda v: spectrum * v, SIZE, n_pairs=1, rng=rng(), n_verify=30)
        assert pairs.missed_eigenvalue_bound <= 1.1e-3
        products[share] = pairs.n_matvecs
    assert products[0.1] <= products[0.0] - 3
