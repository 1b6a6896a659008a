"""An interrupt or a callback ends a fit; what has converged is kept."""

import os
import signal
import threading

import numpy as np
import pytest
import torch

from skdmap._interrupt import deferred_interrupt
from skdmap.exceptions import ConvergenceWarning
from skdmap.hessian import HessianSpectrum, lanczos

SIZE = 2000
# Some outliers, which converge soon, and a bulk that does not.
SPECTRUM = np.r_[np.linspace(0, 1, SIZE - 3), 30.0, 20.0, 10.0]


def interrupting(n_calls, how):
    calls = []

    def product(v):
        calls.append(1)
        if len(calls) == n_calls:
            how()
        return SPECTRUM * v

    return product


def by_exception():
    raise KeyboardInterrupt


def by_signal():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("how", [by_exception, by_signal])
def test_what_has_converged_is_returned_and_marked(how):
    pairs = lanczos(interrupting(14, how), SIZE, n_pairs=8, rng=np.random.default_rng(0), tol=1e-4)
    assert pairs.interrupted
    assert not pairs.converged
    assert pairs.n_matvecs in (13, 14)
    assert 1 <= len(pairs.eigenvalues) < 8
    assert pairs.residuals.max() <= 1e-4 * pairs.scale
    k = len(pairs.eigenvalues)
    np.testing.assert_allclose(pairs.eigenvalues, [30.0, 20.0, 10.0][:k], rtol=1e-4)
    defect = pairs.vectors * SPECTRUM - pairs.eigenvalues[:, None] * pairs.vectors
    np.testing.assert_allclose(
        np.linalg.norm(defect, axis=1), pairs.residuals, rtol=1e-6, atol=1e-11
    )


@pytest.mark.parametrize("how", [by_exception, by_signal])
def test_before_anything_has_converged_it_goes_through(how):
    for n_calls in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            lanczos(interrupting(n_calls, how), SIZE, n_pairs=2, rng=np.random.default_rng(0))


def test_the_handler_of_the_user_is_left_as_it_was():
    before = signal.getsignal(signal.SIGINT)
    lanczos(interrupting(14, by_signal), SIZE, n_pairs=8, rng=np.random.default_rng(0), tol=1e-4)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interrupt_is_not_deferred():
    with deferred_interrupt() as interrupted:
        by_signal()
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            by_signal()


def test_another_handler_stays_and_threads_have_none():
    seen = []
    own = signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    try:
        with deferred_interrupt() as interrupted:
            by_signal()
            assert seen == [1]
            assert not interrupted()
    finally:
        signal.signal(signal.SIGINT, own)
    found = []

    def run():
        pairs = lanczos(lambda v: SPECTRUM * v, SIZE, n_pairs=2, rng=np.random.default_rng(0))
        found.append(pairs.converged)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [True]


def bowl(theta):
    return (torch.as_tensor(SPECTRUM) * theta**2).sum() / 2


def test_a_fit_that_a_callback_ends_keeps_what_has_converged():
    seen = []

    def callback(n_matvecs, eigenvalues, residuals):
        seen.append((n_matvecs, len(eigenvalues), residuals.shape))
        return n_matvecs == 14

    spectrum = HessianSpectrum(bowl, 8, tol=1e-4, random_state=0, callback=callback)
    with pytest.warns(ConvergenceWarning, match=r"Interrupted: \d of 8 eigenpairs had converged"):
        spectrum.fit(np.zeros((1, SIZE)))
    assert spectrum.interrupted_
    assert spectrum.n_matvecs_ == 14
    assert seen[-1] == (14, 8, (8,))
    k = spectrum.n_components_
    assert 1 <= k < 8
    assert spectrum.components_.shape == (k, SIZE)
    assert spectrum.converged_.all()
    assert spectrum.transform(np.ones((2, SIZE))).shape == (2, k)
    assert abs(spectrum.trace_ - SPECTRUM.sum()) < 5 * spectrum.trace_stderr_


def test_a_callback_that_returns_nothing_changes_nothing():
    seen = []
    plain = HessianSpectrum(bowl, 3, random_state=0).fit(np.zeros((1, SIZE)))
    watched = HessianSpectrum(bowl, 3, random_state=0, callback=lambda *a: seen.append(a))
    watched.fit(np.zeros((1, SIZE)))
    np.testing.assert_array_equal(plain.components_, watched.components_)
    assert not watched.interrupted_
    assert [n for n, *_ in seen] == list(range(1, watched.n_matvecs_ + 1))


def test_an_interrupt_during_further_probes_keeps_the_eigenpairs():
    products = []

    def loss(theta):
        return Interrupting.apply(theta, products)

    with pytest.warns(ConvergenceWarning, match="3 of 3 eigenpairs had converged"):
        spectrum = HessianSpectrum(loss, 3, n_probes=50, random_state=0).fit(np.zeros((1, SIZE)))
    np.testing.assert_allclose(spectrum.eigenvalues_, [30, 20, 10], rtol=1e-4)
    assert spectrum.interrupted_
    assert np.isfinite(spectrum.trace_)


class Interrupting(torch.autograd.Function):
    """A bowl whose hundredth product is interrupted."""

    @staticmethod
    def forward(ctx, theta, products):
        ctx.save_for_backward(theta)
        ctx.products = products
        return bowl(theta)

    @staticmethod
    def backward(ctx, grad):
        (theta,) = ctx.saved_tensors
        return Gradient.apply(grad, theta, ctx.products), None


class Gradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grad, theta, products):
        ctx.products = products
        ctx.save_for_backward(grad, theta)
        return grad * torch.as_tensor(SPECTRUM) * theta

    @staticmethod
    def backward(ctx, v):
        ctx.products.append(1)
        if len(ctx.products) == 100:
            raise KeyboardInterrupt
        grad, theta = ctx.saved_tensors
        slopes = torch.as_tensor(SPECTRUM)
        return (slopes * theta * v).sum().reshape(grad.shape), grad * slopes * v, None


@pytest.mark.parametrize("which", ["largest", "both"])
@pytest.mark.parametrize("answer", [None, True])
def test_a_callback_is_told_of_the_explicit_hessian_once_it_is_there(which, answer):
    slopes = torch.linspace(-1.0, 2.0, 40, dtype=torch.float64)
    seen = []

    def callback(*record):
        seen.append(record)
        return answer

    spectrum = HessianSpectrum(
        lambda t: slopes @ t.square() / 2, 4, which=which, callback=callback
    ).fit(np.zeros((1, 40)))
    ((n_matvecs, eigenvalues, residuals),) = seen
    assert n_matvecs == spectrum.n_matvecs_ == 40
    np.testing.assert_array_equal(eigenvalues, spectrum.eigenvalues_)
    np.testing.assert_array_equal(residuals, spectrum.residuals_)
    assert not spectrum.interrupted_
