"""Trial vectors from a surrogate: a subsample's operator suggests where copies are."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from skdmap import EmpiricalRisk, HessianSpectrum
from skdmap.hessian import lanczos
from skdmap.hessian._risk.batch_weights import has_sample, sampled_part, sampled_rows


def rng(seed=0):
    return np.random.default_rng(seed)


def symmetric(size=300, seed=0):
    """A matrix with a few large eigenvalues, its eigenvectors, and a matrix nearby."""
    values = np.r_[8.0, 6.0, 5.0, 4.0, -5.5, np.linspace(-1, 1, size - 5)]
    vectors = np.linalg.qr(rng(seed).standard_normal((size, size)))[0]
    noise = rng(seed + 1).standard_normal((size, size)) / np.sqrt(size)
    A = (vectors * values) @ vectors.T
    return A, values, vectors, A + 0.2 * (noise + noise.T)


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude", "both"])
def test_pairs_are_right_whatever_the_surrogate(which):
    A, _, _, nearby = symmetric()
    dense = np.linalg.eigvalsh(A)
    wanted = {
        "largest": dense[::-1][:4],
        "smallest": dense[:4],
        "magnitude": dense[np.argsort(-np.abs(dense))][:4],
        "both": np.r_[dense[::-1][:2], dense[1], dense[0]],
    }[which]
    others = [nearby.dot, (-A).dot, np.zeros_like, lambda v: np.full_like(v, np.nan)]
    for surrogate in others:
        pairs = lanczos(
            A.dot, 300, n_pairs=4, rng=rng(), which=which, tol=1e-8, surrogate=surrogate
        )
        assert pairs.converged
        np.testing.assert_allclose(pairs.eigenvalues, wanted, atol=1e-7)
        assert pairs.orthogonality_error <= 1e-13


def test_what_the_start_does_not_hold_is_found():
    A, values, vectors, nearby = symmetric()
    start = vectors[:, 1:4].sum(axis=1)  # exactly without the first eigenvector
    pairs = lanczos(A.dot, 300, n_pairs=3, rng=rng(), start=start, surrogate=nearby.dot)
    np.testing.assert_allclose(pairs.eigenvalues, values[:3], atol=8e-3)


def test_copies_of_a_linear_regression_are_found_from_one_start():
    X, _ = load_digits(return_X_y=True)
    X = np.c_[X / 16, rng().standard_normal((len(X), 40)) / 8]
    model = nn.Linear(104, 3).double()  # 315 parameters: above the dense path
    risk = EmpiricalRisk(model, nn.MSELoss(), X, rng(1).standard_normal((len(X), 3)))
    A = np.c_[X, np.ones(len(X))]
    exact = np.sort(np.repeat(np.linalg.eigvalsh(2 / 3 * A.T @ A / len(X)), 3))[::-1]
    for seed in range(8):
        spectrum = HessianSpectrum(risk, 6, random_state=seed).fit(risk.snapshot())
        np.testing.assert_allclose(spectrum.eigenvalues_, exact[:6], atol=1e-3 * exact[0])
        assert spectrum.n_matvecs_ < 60


@pytest.mark.parametrize("curvature", ["hessian", "ggn", "fisher", "gradient_covariance"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_subsample_operator_is_that_of_the_loss_on_it(curvature, decay):
    X, y = load_digits(return_X_y=True)
    X, y = X[:600] / 16, np.where(rng().random(600) < 0.2, -100, y[:600])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, 10)).double()
    criterion = nn.CrossEntropyLoss(weight=torch.linspace(1, 2, 10).double())
    risk = EmpiricalRisk(model, criterion, X, y, weight_decay=decay)
    rows = sampled_rows(risk._weights, sampled_part(600))
    assert (y[rows] >= 0).all()  # no row that does not count
    some = EmpiricalRisk(model, criterion, X[rows], y[rows], weight_decay=decay)
    v, point = rng(2).standard_normal(risk.n_parameters), risk.snapshot()[0]
    with risk.operator_at(point, curvature) as whole, some.operator_at(point, curvature) as part:
        assert whole.has_sample
        assert not part.has_sample
        np.testing.assert_allclose(whole.sampled(v), part(v), rtol=1e-9, atol=1e-12)
        assert whole.n_matvecs == 0
        assert whole.n_sampled == 0
        for _ in range(9):
            whole.sampled(v)
        assert whole.n_sampled == round(10 * 128 / 600)


def test_the_subsample_is_spread_and_the_same_each_time():
    weights = torch.ones(4000)
    rows = sampled_rows(weights, 0.125)
    assert torch.equal(rows, sampled_rows(weights, 0.125))
    assert len(rows.unique()) == len(rows) == 500
    counts = np.histogram(rows, bins=8, range=(0, 4000))[0]
    assert counts.min() > 30
    assert not has_sample(511)


def test_samples_that_depend_on_each_other_have_no_subsample():
    X, y = load_digits(return_X_y=True)
    X, y = (X[:600] / 16).astype(np.float32), y[:600]
    model = nn.Sequential(nn.Linear(64, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 10))

    def own(z, t):  # the library cannot know that it is a mean over rows
        return nn.functional.cross_entropy(z, t)

    for risk in (
        EmpiricalRisk(model, nn.CrossEntropyLoss(), X, y, mode="train"),
        EmpiricalRisk(model, own, X, y),
    ):
        with risk.operator_at(risk.snapshot()[0]) as operator:
            assert not operator.has_sample
            with pytest.raises(RuntimeError, match="no subsample"):
                operator.sampled(np.ones(risk.n_parameters))


def test_an_interrupt_in_a_product_of_the_surrogate_keeps_what_has_converged():
    values = np.r_[8.0, 8.0, 5.0, np.linspace(-1, 1, 297)]  # the copy makes it be asked

    def surrogate(v):
        raise KeyboardInterrupt

    pairs = lanczos(lambda v: values * v, 300, n_pairs=2, rng=rng(), surrogate=surrogate)
    assert pairs.interrupted
    assert not pairs.converged
    np.testing.assert_allclose(pairs.eigenvalues, values[:2], atol=8e-3)


def test_a_small_basis_has_room_for_trial_vectors():
    A, values, _, nearby = symmetric()
    pairs = lanczos(A.dot, 300, n_pairs=3, rng=rng(), max_basis=11, surrogate=nearby.dot, tol=1e-6)
    assert pairs.converged
    np.testing.assert_allclose(pairs.eigenvalues, values[:3], atol=1e-5)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_subsample_without_the_samples_that_matter_hides_no_copy(seed):
    generator = rng(100 + seed)
    X = generator.standard_normal((1000, 40)) * 0.9 ** np.arange(40)
    X[generator.choice(1000, 5, replace=False)] *= 20
    risk = EmpiricalRisk(
        nn.Linear(40, 8, bias=False).double(),
        nn.MSELoss(),
        X,
        generator.standard_normal((1000, 8)),
    )
    top = np.linalg.eigvalsh(2 / 8 * X.T @ X / 1000)[-1]
    spectrum = HessianSpectrum(risk, 2, random_state=seed).fit(risk.snapshot())
    np.testing.assert_allclose(spectrum.eigenvalues_, top, rtol=1e-3)


@pytest.mark.parametrize("top", [8.0, 6.0])
def test_a_surrogate_is_asked_once_the_verification_has_found_something(top):
    values = np.r_[8.0, top, 5.0, np.linspace(-1, 1, 297)]
    asked = []

    def nearby(v):
        asked.append(1)
        return 1.1 * values * v

    pairs = lanczos(lambda v: values * v, 300, n_pairs=2, rng=rng(), surrogate=nearby)
    np.testing.assert_allclose(pairs.eigenvalues, values[:2], atol=8e-3)
    assert bool(asked) == (top == 8.0)
