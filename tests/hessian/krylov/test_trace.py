"""Trace and Frobenius norm against matrices whose traces are known."""

import numpy as np
import pytest
import torch
from torch import nn

from skdmap.hessian import EmpiricalRisk, HessianSpectrum, lanczos
from skdmap.hessian._krylov.quadrature import first_probe, further_probe
from skdmap.hessian._krylov.trace import estimate_trace

SIZE = 300


@pytest.fixture(scope="module")
def matrix():
    """Of negative trace, with a bulk and both signs."""
    rng = np.random.default_rng(5)
    noise = rng.standard_normal((SIZE, SIZE))
    return (noise + noise.T) / 2 - 6 * np.diag(np.linspace(0, 1, SIZE))


def quadratic(matrix):
    tensor = torch.as_tensor(matrix)
    return lambda theta: theta @ (tensor @ theta) / 2


def exact_pairs(matrix, k):
    values, vectors = np.linalg.eigh(matrix)
    return values[-k:], np.ascontiguousarray(vectors[:, -k:].T)


def test_a_probe_is_the_quadratic_form_of_its_vector_in_the_complement(matrix):
    values, vectors = exact_pairs(matrix, 4)
    z = np.random.default_rng(1).standard_normal(SIZE)
    probe = further_probe(matrix.dot, vectors, z.copy, n_steps=20)
    z *= np.sqrt(SIZE) / np.linalg.norm(z)
    rest = matrix - (vectors.T * values) @ vectors
    assert probe.trace == pytest.approx(z @ rest @ z, rel=1e-10)
    assert probe.square == pytest.approx(z @ rest @ rest @ z, rel=1e-10)
    outside = z - vectors.T @ (vectors @ z)
    mass = outside @ outside
    assert probe.weights.sum() == pytest.approx(1.0, rel=1e-12)
    for degree in range(1, 2 * 20):  # m = 20 products: exact to degree 2 m - 1
        scale = np.abs(probe.nodes).max() ** degree
        image = outside
        for _ in range(degree):
            image = rest @ image
        true = outside @ image / mass
        assert probe.weights @ probe.nodes**degree == pytest.approx(true, abs=1e-10 * scale)


def test_a_probe_of_an_operator_of_low_rank_stops_where_its_space_closes():
    d = np.r_[3.0, -1.0, np.zeros(SIZE - 2)]
    draw = np.random.default_rng(0).standard_normal
    probe = further_probe(lambda v: d * v, np.empty((0, SIZE)), lambda: draw(SIZE), n_steps=50)
    np.testing.assert_allclose(probe.nodes, [-1, 0, 3], atol=1e-12)


def test_the_first_probe_leaves_the_converged_pairs_out(matrix):
    found = lanczos(matrix.dot, SIZE, n_pairs=5, rng=np.random.default_rng(0), tol=1e-8)
    probe = first_probe(found.quadrature, found.eigenvalues, found.vectors)
    z = found.quadrature.start * np.sqrt(SIZE)
    rest = matrix - (found.vectors.T * found.eigenvalues) @ found.vectors
    assert probe.trace == pytest.approx(z @ rest @ z, rel=1e-6)
    assert probe.square == pytest.approx(z @ rest @ rest @ z, rel=1e-6)
    assert probe.nodes.max() < found.eigenvalues.min()
    assert probe.weights.sum() == pytest.approx(1.0, rel=1e-12)


def test_the_first_probe_is_unbiased(matrix):
    """Deflating the whole Krylov space, not the converged pairs alone, would bias it."""
    samples, squares = [], []
    for seed in range(200):
        found = lanczos(matrix.dot, SIZE, n_pairs=3, rng=np.random.default_rng(seed), tol=0.02)
        probe = first_probe(found.quadrature, found.eigenvalues, found.vectors)
        estimate = estimate_trace(found.eigenvalues, [probe])
        samples.append(estimate.trace)
        squares.append(estimate.frobenius_norm**2)
    error = np.std(samples) / np.sqrt(200)
    assert abs(np.mean(samples) - np.trace(matrix)) < 4 * error
    assert abs(np.mean(squares) - np.sum(matrix**2)) < 4 * np.std(squares) / np.sqrt(200)
    # The error that is stated for one probe is the spread of the probes; 4 sigma of a standard
    # deviation from 200 samples is 20 %.
    assert estimate.stderr == pytest.approx(np.std(samples), rel=0.2)


def test_a_trace_that_is_negative_is_found(matrix):
    spectrum = HessianSpectrum(quadratic(matrix), 5, n_probes=10, random_state=0)
    spectrum.fit(np.zeros((1, SIZE)))
    assert spectrum.trace_ < 0
    assert abs(spectrum.trace_ - np.trace(matrix)) < 4 * spectrum.trace_stderr_
    assert spectrum.frobenius_norm_ == pytest.approx(np.linalg.norm(matrix), rel=0.1)


def test_one_probe_costs_no_product_and_each_further_one_as_many_again(matrix):
    X = np.zeros((1, SIZE))
    one, three = (
        HessianSpectrum(quadratic(matrix), 5, n_probes=n, random_state=0).fit(X) for n in (1, 3)
    )
    bare = lanczos(matrix.dot, SIZE, n_pairs=5, rng=np.random.default_rng(0))
    assert one.n_matvecs_ == bare.n_matvecs
    assert three.n_matvecs_ == 3 * one.n_matvecs_
    np.testing.assert_array_equal(three.components_, one.components_)


def test_the_explicit_matrix_has_an_exact_trace():
    spectrum = HessianSpectrum(lambda t: t[0] ** 2 - 3 * t[1] ** 2, 1, n_probes=5)
    spectrum.fit(np.ones((1, 20)))
    assert (spectrum.trace_, spectrum.trace_stderr_) == (-4.0, 0.0)
    assert spectrum.frobenius_norm_ == pytest.approx(np.sqrt(40), rel=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["network", "negative"])
def test_ten_probes_err_as_their_standard_error_says(case, matrix, digits):
    if case == "negative":
        loss, X, true = quadratic(matrix), np.zeros((1, SIZE)), np.trace(matrix)
    else:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10))
        rows = digits[0][:300], digits[1][:300]
        loss = EmpiricalRisk(module, nn.CrossEntropyLoss(), *rows, dtype="float64")
        X = loss.snapshot()
        true = np.trace(loss.matmat(X[0], np.eye(X.shape[1])))
    scores = []
    for seed in range(200):
        fitted = HessianSpectrum(loss, 5, n_probes=10, random_state=seed).fit(X)
        scores.append((fitted.trace_ - true) / fitted.trace_stderr_)
    assert np.mean(np.abs(scores) > 3) <= 0.06
    assert abs(np.mean(scores)) <= 0.25


@pytest.mark.parametrize("n_probes", [1, 2])
@pytest.mark.parametrize(
    ("spectrum", "k"),
    [
        (np.ones(SIZE), 3),
        (np.r_[np.full(SIZE - 3, 0.1), 1.0, 2.0, 3.0], 8),  # of low rank, with weight decay
        (np.r_[np.zeros(SIZE - 1), 2.0], 3),
    ],
)
def test_a_start_that_is_in_the_span_of_the_pairs_still_tells_of_the_rest(spectrum, k, n_probes):
    for seed in range(5):
        fitted = HessianSpectrum(
            quadratic(np.diag(spectrum)), k, n_probes=n_probes, random_state=seed
        ).fit(np.zeros((1, SIZE)))
        assert fitted.trace_ == pytest.approx(spectrum.sum(), rel=0.1)
        assert fitted.frobenius_norm_ == pytest.approx(np.linalg.norm(spectrum), rel=0.1)
        assert fitted.density_.weights[fitted.density_.is_atom] == pytest.approx(1 / SIZE)
        assert fitted.density_.cdf(spectrum[0] + 0.05) == pytest.approx(
            (spectrum < spectrum[0] + 0.05).mean(), abs=0.02
        )
        if n_probes == 1 and fitted.trace_ != pytest.approx(spectrum.sum()):
            assert abs(fitted.trace_ - spectrum.sum()) < 3 * fitted.trace_stderr_


@pytest.mark.slow
def test_the_first_probe_is_unbiased_where_some_copies_are_known():
    """Two of three copies hold what the start has of all three, by whichever vectors they are."""
    d = np.r_[1.0, 1.0, 1.0, np.linspace(-0.1, 0.1, SIZE - 3)]
    samples = []
    for seed in range(200):
        found = lanczos(lambda v: d * v, SIZE, n_pairs=2, rng=np.random.default_rng(seed), tol=1e-6)
        np.testing.assert_allclose(found.eigenvalues, 1.0, atol=1e-6)
        probe = first_probe(found.quadrature, found.eigenvalues, found.vectors)
        samples.append(estimate_trace(found.eigenvalues, [probe]).trace)
    assert abs(np.mean(samples) - d.sum()) < 4 * np.std(samples) / np.sqrt(200)


def test_further_probes_of_nothing_are_zero(matrix):
    values, vectors = exact_pairs(matrix, SIZE)
    probe = further_probe(matrix.dot, vectors, lambda: np.ones(SIZE), 5)
    assert (probe.trace, probe.square, len(probe.nodes)) == (0.0, 0.0, 0)
    estimate = estimate_trace(values, [probe, probe])
    assert estimate.trace == pytest.approx(np.trace(matrix))
    assert estimate.stderr == 0
