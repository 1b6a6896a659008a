"""What is said about the Hessian in training, over ten seeds: digits, tanh MLP 64-32-10.

Thresholds were stated before the runs, with the sources; docs/hessian.md has the ranges found, and
those claims that did not hold.
"""

from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from skdmap import EmpiricalRisk, HessianSpectrum, TrajectorySampler, hessian_spectrum_path
from skdmap.diagnostics import displacement_share, gradient_noise_along

pytestmark = pytest.mark.study
SEEDS = range(10)
RATE, BATCH = 0.1, 64


@cache
def data(n_classes=10):
    """Rows of the first classes, in [0, 1]."""
    X, y = load_digits(return_X_y=True)
    return (X[y < n_classes] / 16).astype(np.float32), y[y < n_classes]


@cache
def sgd(seed, n_classes=10, lr=RATE, momentum=0.0, **length):
    """A run of SGD with small batches; the first and the last snapshot at least."""
    X, y = data(n_classes)
    return TrajectorySampler(
        optimizer_params={"lr": lr, "momentum": momentum},
        batch_size=BATCH,
        record_every="epoch",
        random_state=seed,
        **length,
    ).fit(X, y)


@cache
def trained(seed, n_classes=10):
    return sgd(seed, n_classes, max_epochs=15)


def risk_of(sampler, n_classes=10, **settings):
    return EmpiricalRisk(sampler.module_, torch.nn.CrossEntropyLoss(), *data(n_classes), **settings)


def spectrum_of(sampler, k, n_classes=10, point="last", **settings):
    risk = risk_of(sampler, n_classes)
    spectrum = HessianSpectrum(risk, k, point=point, random_state=0, **settings)
    return spectrum.fit(sampler.snapshots_)


def share_near_zero(sampler, point="last"):
    """Share of eigenvalues within 0.01 of the largest one."""
    spectrum = spectrum_of(sampler, 30, point=point, n_probes=4)
    edge = 0.01 * spectrum.eigenvalues_[0]
    # The cdf counts what is at most its argument: the lower end is left out.
    low, high = spectrum.density_.cdf([np.nextafter(-edge, -np.inf), edge])
    return high - low


def gap_index(sampler, n_classes, n_top=30):
    """How many eigenvalues stand before the largest gap of logarithms among the largest 30."""
    values = spectrum_of(sampler, n_top, n_classes).eigenvalues_
    assert (values > 0).all()
    return int(np.argmin(np.diff(np.log(values)))) + 1


def gradient_share(sampler, n_directions=10):
    """Share of the squared gradient of the whole loss in the top space, and that by chance."""
    spectrum = spectrum_of(sampler, n_directions)
    gradient = risk_of(sampler).gradient(spectrum.point_)[None]
    found = displacement_share(gradient, spectrum.components_, origin=np.zeros_like(gradient[0]))
    return float(found.share[0]), found.chance


def projected_drop(seed, kind, n_before=100, n_steps=300, renewed_every=10):
    """Drop of the loss in SGD whose updates are projected on or off the top space."""
    start = sgd(seed, max_steps=n_before)
    risk = risk_of(start)
    X, y = data()
    theta = torch.from_numpy(start.snapshots_[-1].copy())
    batches = np.random.default_rng(seed)
    before = risk(theta)
    for step in range(n_steps):
        if kind != "all" and step % renewed_every == 0:
            spectrum = HessianSpectrum(risk, 10, tol=1e-2, random_state=0)
            top = torch.from_numpy(spectrum.fit(theta.numpy()[None]).components_).float()
        rows = batches.integers(len(X), size=BATCH)
        update = gradient_of_rows(start.module_, theta, X[rows], y[rows])
        if kind != "all":
            inside = top.T @ (top @ update)
            update = inside if kind == "on" else update - inside
        theta = theta - RATE * update
    return before - risk(theta)


def gradient_of_rows(module, theta, X, y):
    torch.nn.utils.vector_to_parameters(theta, module.parameters())
    loss = torch.nn.functional.cross_entropy(module(torch.from_numpy(X)), torch.from_numpy(y))
    parts = torch.autograd.grad(loss, list(module.parameters()))
    return torch.cat([part.reshape(-1) for part in parts])


def sharpness_of_gradient_descent(seed, factor, n_steps=4000):
    """Mean of lambda_1 lr / 2 over the last quarter; 2 / lr is a multiple of the first lambda_1."""
    X, y = data()
    Y = np.eye(10, dtype=np.float32)[y]
    start = TrajectorySampler(max_steps=1, batch_size=None, random_state=seed).fit(X, Y)
    risk = EmpiricalRisk(start.module_, torch.nn.MSELoss(), X, Y)
    first = HessianSpectrum(risk, 1, point="first", random_state=0).fit(start.snapshots_)
    lr = 2 / (factor * float(first.eigenvalues_[0]))
    run = TrajectorySampler(
        optimizer_params={"lr": lr},
        max_epochs=None,
        max_steps=n_steps,
        batch_size=None,
        burn_in=3 * n_steps // 4,
        record_every=20,
        random_state=seed,
    ).fit(X, Y)
    path = hessian_spectrum_path(risk, run.snapshots_, 1, tol=1e-2, random_state=0)
    return float(path.eigenvalues.mean()) * lr / 2


@cache
def noise_against_hessian(seed, k=30):
    """The gradients of single rows at the end of a run, along the top eigenvectors."""
    sampler = trained(seed)
    spectrum = spectrum_of(sampler, k)
    gradients = row_gradients(seed)
    return gradient_noise_along(gradients, spectrum.components_, spectrum.eigenvalues_)


@cache
def row_gradients(seed):
    """The gradient of each row at the end of a run."""
    module = trained(seed).module_
    values = {name: value.detach() for name, value in module.named_parameters()}

    def loss(values, x, label):
        outputs = torch.func.functional_call(module, values, (x[None],))
        return torch.nn.functional.cross_entropy(outputs, label[None])

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
    parts = each(values, *(torch.from_numpy(part) for part in data()))
    return torch.cat([part.flatten(1) for part in parts.values()], dim=1).numpy()


def test_nine_of_ten_eigenvalues_are_near_zero_after_training():
    """Sagun et al. 2017, arXiv:1706.04454."""
    assert min(share_near_zero(trained(seed)) for seed in SEEDS) >= 0.9


# The largest gap: at C - 1 for 3 classes (missed by one seed in ten, see the docs), C - 2 to C - 1
# for 5, C - 3 to C - 1 for 10, and never above C - 1.
@pytest.mark.parametrize(("n_classes", "least"), [(3, 1), (5, 3), (10, 7)])
@pytest.mark.filterwarnings("ignore:Eigenvalues smaller:skdmap.exceptions.ConvergenceWarning")
def test_the_largest_gap_lies_no_higher_than_the_classes_less_one(n_classes, least):
    """Sagun et al. 2016, arXiv:1611.07476; Papyan 2020, arXiv:2008.11865."""
    found = [gap_index(trained(seed, n_classes), n_classes) for seed in SEEDS]
    assert min(found) >= least
    assert max(found) <= n_classes - 1


def test_the_gradient_lies_in_the_top_space_after_a_hundred_steps_with_momentum():
    """Gur-Ari et al. 2018, arXiv:1812.04754."""
    for seed in SEEDS:
        share, chance = gradient_share(sgd(seed, momentum=0.9, max_steps=100))
        assert chance == pytest.approx(10 / 2410)
        assert share >= 0.7


def test_updates_on_the_top_space_stall_and_off_it_go_on():
    """Song, Ahn & Yun 2025, arXiv:2405.16002; shares of the drop that plain SGD makes."""
    for seed in SEEDS:
        whole, on, off = (projected_drop(seed, kind) for kind in ("all", "on", "off"))
        assert on <= 0.03 * whole
        assert off >= 0.97 * whole


@pytest.mark.parametrize("factor", [1.2, 1.5, 2.0])
def test_full_batch_descent_ends_at_the_edge_of_stability(factor):
    """Cohen et al. 2021, arXiv:2103.00065."""
    found = [sharpness_of_gradient_descent(seed, factor) for seed in SEEDS]
    assert min(found) >= 0.95
    assert max(found) <= 1.2


def test_the_noise_covariance_follows_the_hessian():
    """Xie et al. 2021, arXiv:2002.03495."""
    for seed in SEEDS:
        noise = noise_against_hessian(seed)
        assert noise.n_fitted == 30
        assert 0.8 <= noise.slope <= 2.2
        assert noise.correlation >= 0.9


def test_the_noise_along_a_direction_is_that_of_the_operator():
    for seed in SEEDS:
        spectrum, noise = spectrum_of(trained(seed), 30), noise_against_hessian(seed)
        risk = risk_of(trained(seed))
        with risk.operator_at(spectrum.point_, "gradient_covariance") as covariance:
            products = covariance.matmat(spectrum.components_.T)
        along = np.einsum("kp,pk->k", spectrum.components_, products)
        n = len(data()[0])  # one is unbiased, the other the mean over the rows that there are
        # Products in float32 are right to about 1e-6 of the largest eigenvalue.
        np.testing.assert_allclose(along * n / (n - 1), noise.variance, rtol=1e-4, atol=1e-6)


def test_batches_of_sixteen_have_four_times_the_noise_of_sixty_four():
    """Rows drawn with replacement: an identity, here a test of two estimators."""
    n_batches = 2000
    for seed in SEEDS:
        rows, rng = row_gradients(seed), np.random.default_rng(seed)
        directions = np.eye(3, rows.shape[1])
        total = {}
        for size in (16, 64):
            drawn = rng.integers(len(rows), size=(n_batches, size))
            counts = np.zeros((n_batches, len(rows)), dtype=np.float32)
            np.add.at(counts, (np.arange(n_batches)[:, None], drawn), 1 / size)
            found = gradient_noise_along(counts @ rows, directions, np.ones(3))
            total[size] = found.total_variance
        covariance = spectrum_of(trained(seed), 30, curvature="gradient_covariance")
        trace, square = covariance.trace_, covariance.frobenius_norm_**2
        # Relative standard deviation of a trace that is estimated from Gaussian draws.
        error = np.sqrt(2 * square / n_batches) / trace
        assert total[16] / total[64] == pytest.approx(4, rel=5 * np.sqrt(2) * error)
        for size in total:
            exact = pytest.approx(
                trace / size, rel=5 * error + 3 * covariance.trace_stderr_ / trace
            )
            assert total[size] == exact
