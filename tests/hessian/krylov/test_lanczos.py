"""Lanczos on operators with known spectra."""

import numpy as np
import pytest

from skdmap.hessian import dense_eigenpairs, lanczos

EPS = np.finfo(np.float64).eps
N_TOP, N_BOTTOM = 4, 3


def rng():
    return np.random.default_rng(0)


def wanted(spectrum, which, k):
    descending = np.sort(spectrum)[::-1]
    return {
        "largest": descending[:k],
        "smallest": descending[::-1][:k],
        "magnitude": spectrum[np.argsort(-np.abs(spectrum))][:k],
        "both": np.r_[descending[: k - k // 2], descending[len(descending) - k // 2 :]],
    }[which]


def diagonal(spectrum):
    return lambda v: spectrum * v


@pytest.fixture(scope="module")
def outliers():
    """A bulk in [-1, 1] with a few outliers on both sides, no two of one magnitude."""
    return np.r_[np.linspace(-1, 1, 500), 3.0, 2.5, 2.0, 1.5, -1.25, -1.75, -2.25, -4.0]


@pytest.mark.parametrize("max_basis", [None, 24])
@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude", "both"])
def test_finds_the_wanted_end_of_a_known_spectrum_with_and_without_restarts(
    outliers, which, max_basis
):
    size, k, tol = len(outliers), 4, 1e-9
    pairs = lanczos(
        diagonal(outliers),
        size,
        n_pairs=k,
        rng=rng(),
        which=which,
        tol=tol,
        max_basis=max_basis,
        max_matvecs=2000,
    )
    assert pairs.converged
    # The error is at most the square of the residual over the gap, which is 0.25 or more.
    limit = (tol * 4) ** 2 / 0.25 + 100 * EPS * 4
    np.testing.assert_allclose(pairs.eigenvalues, wanted(outliers, which, k), atol=limit, rtol=0)
    if max_basis is not None:
        assert pairs.n_matvecs > max_basis


@pytest.mark.parametrize("max_basis", [None, 24])
def test_reported_residuals_are_the_true_ones(outliers, max_basis):
    pairs = lanczos(
        diagonal(outliers), len(outliers), n_pairs=6, rng=rng(), tol=1e-4, max_basis=max_basis
    )
    defect = pairs.vectors * outliers - pairs.eigenvalues[:, None] * pairs.vectors
    true = np.linalg.norm(defect, axis=1)
    np.testing.assert_allclose(pairs.residuals, true, rtol=1e-8, atol=1000 * EPS * 4)
    assert pairs.residuals.max() <= 1e-4 * pairs.scale
    assert pairs.orthogonality_error < 1000 * EPS
    gram = pairs.vectors @ pairs.vectors.T
    assert pairs.orthogonality_error == np.abs(gram - np.eye(6)).max()


@pytest.mark.parametrize("max_basis", [None, 17])
def test_remainders_that_were_forgotten_are_in_the_residuals(max_basis):
    """Of two blocks the first is all but invariant: what leads out of it is below 1e-3 tol."""
    size, small = 300, 6
    matrix = np.diag(np.r_[5.0, 4.5, 4.0, 3.5, 3.0, 2.5, np.linspace(-1, 1, size - small)])
    matrix[:small, small] = matrix[small, :small] = 1e-11
    start = np.zeros(size)
    start[:small] = 1.0
    pairs = lanczos(
        matrix.dot, size, n_pairs=9, rng=rng(), start=start, max_basis=max_basis, max_matvecs=300
    )
    true = np.linalg.norm(
        pairs.vectors @ matrix - pairs.eigenvalues[:, None] * pairs.vectors, axis=1
    )
    assert true.max() > 1e-12
    assert (pairs.residuals >= true * (1 - 1e-6) - 1000 * EPS).all()


def test_thirty_pairs_hold_no_copy():
    spectrum = np.r_[np.zeros(960), np.geomspace(100, 1e-2, 40)]
    pairs = lanczos(diagonal(spectrum), len(spectrum), n_pairs=30, rng=rng(), tol=1e-8)
    expected = wanted(spectrum, "largest", 30)
    np.testing.assert_allclose(pairs.eigenvalues, expected, rtol=1e-6)
    assert np.linalg.matrix_rank(pairs.vectors) == 30


@pytest.mark.parametrize("k", [3, 12])
@pytest.mark.parametrize("max_basis", [None, 20])
def test_all_copies_of_a_multiple_eigenvalue_are_found_when_the_krylov_space_closes(k, max_basis):
    """With k = 3 the first Krylov space closes on one copy each of four eigenvalues."""
    spectrum = np.r_[np.full(7, 5.0), np.full(4, 3.0), np.full(150, 2.0), np.full(150, 1.0)]
    pairs = lanczos(diagonal(spectrum), len(spectrum), n_pairs=k, rng=rng(), max_basis=max_basis)
    np.testing.assert_allclose(pairs.eigenvalues, wanted(spectrum, "largest", k), rtol=100 * EPS)
    assert pairs.converged
    assert pairs.orthogonality_error < 1000 * EPS
    defect = pairs.vectors * spectrum - pairs.eigenvalues[:, None] * pairs.vectors
    assert np.abs(defect).max() < 1000 * EPS * 5


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude", "both"])
def test_a_zero_operator_is_a_result(which):
    pairs = lanczos(np.zeros_like, 300, n_pairs=5, rng=rng(), which=which)
    assert pairs.converged
    assert pairs.n_matvecs <= 6
    assert pairs.eigenvalues.tolist() == [0.0] * 5
    assert pairs.residuals.tolist() == [0.0] * 5
    assert pairs.orthogonality_error < 100 * EPS


def test_an_operator_of_low_rank_is_filled_up_with_zeros():
    spectrum = np.r_[3.0, -2.0, 1.0, np.zeros(400)]
    pairs = lanczos(diagonal(spectrum), len(spectrum), n_pairs=6, rng=rng(), which="magnitude")
    np.testing.assert_allclose(pairs.eigenvalues, [3, -2, 1, 0, 0, 0], atol=100 * EPS * 3)
    assert pairs.n_matvecs < 12


def test_an_eigenvector_of_small_support_is_not_missed():
    size = 400

    def product(v):
        out = 0.1 * v
        out[:2] = [2 * v[0] - v[1], 2 * v[1] - v[0]]
        return out

    for seed in range(8):  # a start of signs would be orthogonal to it for half of the seeds
        pairs = lanczos(product, size, n_pairs=1, rng=np.random.default_rng(seed))
        np.testing.assert_allclose(pairs.eigenvalues, [3.0], rtol=1e-5)


BULK = np.random.default_rng(0).normal(size=600) * 0.01
HIDDEN = {  # spectra of which the wanted pairs converge before a start vector shows all of them
    "one below zeros": (np.r_[np.zeros(600), 1.0, 0.5, -0.2], "smallest", 1),
    "two that are close": (np.r_[BULK, 1.0, 0.99999, 0.5, 0.4, 0.3], "largest", 2),
    "two above ones": (np.r_[np.ones(3000), 1.05, 1.1], "largest", 1),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_start_that_holds_little_of_an_eigenvector_does_not_skip_it(name):
    spectrum, which, k = HIDDEN[name]
    for seed in range(40):
        start = np.random.default_rng(seed)
        pairs = lanczos(
            diagonal(spectrum), len(spectrum), n_pairs=k, rng=start, which=which, tol=1e-3
        )
        assert pairs.converged
        # Ritz values are off by the residual squared over the gap to the rest, 0.05 or more here;
        # the two that are close share one space, and their difference is below that.
        np.testing.assert_allclose(
            pairs.eigenvalues, wanted(spectrum, which, k), atol=1e-6 / 0.05, rtol=0
        )


TWELVE_FOLD = np.repeat([7.0, 5.0, 3.0, 2.0, 1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02], 12)


@pytest.mark.parametrize("block_size", [1, 6])
def test_copies_of_a_multiple_eigenvalue_are_found_before_the_krylov_space_closes(block_size):
    """As in linear regression with several outputs: one start vector shows one copy of each."""
    spectrum = np.r_[TWELVE_FOLD, np.linspace(-0.02, 0.02, 500)]
    for seed in range(5):
        pairs = lanczos(
            diagonal(spectrum),
            len(spectrum),
            n_pairs=15,
            rng=np.random.default_rng(seed),
            block_size=block_size,
        )
        assert pairs.converged
        np.testing.assert_allclose(pairs.eigenvalues, [7.0] * 12 + [5.0] * 3, atol=7e-3)
        assert pairs.orthogonality_error < 1000 * EPS


def test_a_double_eigenvalue_at_the_top_is_found_twice():
    """One start shows it once, always. A drawn vector may hold too little of it: 2 in 40 did."""
    spectrum = np.r_[np.linspace(-0.02, 0.02, 2500), np.geomspace(0.03, 1, 9), 1.0]
    n_found = 0
    for seed in range(20):
        start = np.random.default_rng(seed)
        pairs = lanczos(diagonal(spectrum), len(spectrum), n_pairs=3, rng=start)
        error = np.abs(pairs.eigenvalues - wanted(spectrum, "largest", 3)).max()
        n_found += error < 1e-3
    assert n_found >= 17


def test_three_copies_of_eigenvalues_that_are_not_far_apart_are_found_from_one_start():
    """As in a linear network of three outputs, whose Hessian holds that of one three times."""
    X = np.random.default_rng(3).standard_normal((400, 80))
    spectrum = np.tile(np.linalg.eigvalsh(X.T @ X / 400), 3)
    for seed in range(8):
        start = np.random.default_rng(seed)
        pairs = lanczos(diagonal(spectrum), len(spectrum), n_pairs=10, rng=start)
        error = np.abs(pairs.eigenvalues - wanted(spectrum, "largest", 10)).max()
        assert error <= 1e-3 * pairs.scale


def test_a_block_finds_clusters_with_fewer_products():
    spectrum = np.r_[np.repeat([4.0, 2.0], 4), np.linspace(-0.1, 0.1, 500)]
    pairs = lanczos(diagonal(spectrum), len(spectrum), n_pairs=8, rng=rng(), block_size=4)
    one = lanczos(diagonal(spectrum), len(spectrum), n_pairs=8, rng=rng())
    np.testing.assert_allclose(pairs.eigenvalues, [4.0] * 4 + [2.0] * 4, rtol=1e-4)
    assert pairs.n_matvecs < one.n_matvecs


def test_a_start_near_the_eigenvectors_saves_products(outliers):
    size, k = len(outliers), 4
    cold = lanczos(diagonal(outliers), size, n_pairs=k, rng=rng(), n_verify=3)
    noise = np.random.default_rng(1).standard_normal(size)
    start = cold.vectors.sum(axis=0) + 1e-2 * noise / np.linalg.norm(noise)
    warm = lanczos(diagonal(outliers), size, n_pairs=k, rng=rng(), start=start, n_verify=3)
    assert warm.n_matvecs < 0.7 * cold.n_matvecs
    np.testing.assert_allclose(warm.eigenvalues, cold.eigenvalues, atol=1e-3 * 4)


def test_several_start_vectors_are_taken_as_a_block(outliers):
    exact = np.eye(len(outliers))[np.argsort(-outliers)[:3]]
    pairs = lanczos(diagonal(outliers), len(outliers), n_pairs=3, rng=rng(), start=exact)
    np.testing.assert_allclose(pairs.eigenvalues, wanted(outliers, "largest", 3), rtol=1e-12)


def test_drawn_vectors_and_decisions_are_those_of_the_first_rank(outliers):
    """Another generator, on another rank, gives the same bits."""
    said = []

    def first(array):
        said.append(np.array(array))
        return said[-1]

    def follow(array):
        return replies.pop(0)

    one = lanczos(diagonal(outliers), len(outliers), n_pairs=3, rng=rng(), first_rank=first)
    replies = list(said)
    other = lanczos(
        diagonal(outliers),
        len(outliers),
        n_pairs=3,
        rng=np.random.default_rng(9),
        first_rank=follow,
    )
    np.testing.assert_array_equal(one.vectors, other.vectors)
    assert replies == []


def test_a_budget_without_room_for_the_verification_is_not_converged(outliers):
    enough = lanczos(diagonal(outliers), len(outliers), n_pairs=3, rng=rng())
    short = lanczos(
        diagonal(outliers), len(outliers), n_pairs=3, rng=rng(), max_matvecs=enough.n_matvecs - 1
    )
    assert enough.converged
    assert short.residuals.max() <= 1e-3 * short.scale
    assert not short.converged


def test_the_whole_space_is_the_whole_spectrum():
    matrix = rng().standard_normal((20, 20))
    matrix += matrix.T
    pairs = lanczos(matrix.dot, 20, n_pairs=20, rng=rng(), tol=1e-2)
    expected = np.linalg.eigvalsh(matrix)[::-1]
    np.testing.assert_allclose(pairs.eigenvalues, expected, atol=1000 * EPS * pairs.scale)


def test_a_budget_that_runs_out_is_reported_with_what_there_is(outliers):
    pairs = lanczos(diagonal(outliers), len(outliers), n_pairs=3, rng=rng(), max_matvecs=5)
    assert not pairs.converged
    assert pairs.n_matvecs == 5
    assert pairs.eigenvalues.shape == (3,)
    assert pairs.residuals.max() > 1e-3 * pairs.scale


def test_a_multiple_of_the_operator_has_the_multiple_of_the_spectrum(outliers):
    one = lanczos(diagonal(outliers), len(outliers), n_pairs=4, rng=rng())
    many = lanczos(diagonal(2.0**20 * outliers), len(outliers), n_pairs=4, rng=rng())
    assert many.n_matvecs == one.n_matvecs
    np.testing.assert_array_equal(many.eigenvalues, 2.0**20 * one.eigenvalues)
    np.testing.assert_array_equal(many.residuals, 2.0**20 * one.residuals)


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude", "both"])
def test_the_explicit_matrix_agrees_with_the_iteration(which):
    matrix = np.random.default_rng(3).standard_normal((60, 60))
    matrix += matrix.T
    dense = dense_eigenpairs(matrix.dot, 60, n_pairs=5, which=which)
    krylov = lanczos(matrix.dot, 60, n_pairs=5, rng=rng(), which=which, tol=1e-10)
    np.testing.assert_allclose(dense.eigenvalues, krylov.eigenvalues, rtol=1e-9)
    overlap = np.abs(np.sum(dense.vectors * krylov.vectors, axis=1))
    np.testing.assert_allclose(overlap, 1.0, rtol=1e-9)
    assert dense.n_matvecs == 60
    assert dense.residuals.max() < 1000 * EPS * dense.scale


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_pairs": 0}, r"n_pairs=0 must be in \[1, 50\]"),
        ({"n_pairs": 51}, r"n_pairs=51 must be in \[1, 50\]"),
        ({"which": "top"}, "which='top' must be one of"),
        ({"max_matvecs": 2}, "max_matvecs=2 must be >= n_pairs = 3"),
        ({"n_verify": 0}, "n_verify=0 must be >= 1"),
        ({"max_basis": 4}, r"max_basis=4 must be >= n_pairs \+ 8 = 11"),
        ({"block_size": 0}, r"block_size=0 must be in \[1, 43\]"),
        ({"block_size": 44}, r"block_size=44 must be in \[1, 43\]"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"n_pairs": 3, "rng": rng()} | change
    with pytest.raises(ValueError, match=message):
        lanczos(lambda v: v, 50, **arguments)


def test_a_product_that_is_not_finite_stops_the_iteration():
    with pytest.raises(ValueError, match="NaN or infinity at product 1"):
        lanczos(lambda v: v * np.nan, 50, n_pairs=1, rng=rng())


@pytest.mark.parametrize("seed", [2, 3])
def test_the_bottom_of_a_dense_bulk_is_found(seed):
    spectrum = np.r_[np.linspace(-0.1, 0.1, 254), 10, 8, 5, 5, 5, -7]
    pairs = lanczos(
        diagonal(spectrum), 260, n_pairs=10, which="smallest", rng=np.random.default_rng(seed)
    )
    np.testing.assert_allclose(pairs.eigenvalues, wanted(spectrum, "smallest", 10), atol=0.03)
