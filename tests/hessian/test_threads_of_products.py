"""On how many threads products are made: one, unless several are clearly faster."""

import numpy as np
import pytest
import torch

from skdmap.hessian import EmpiricalRisk, HessianSpectrum
from skdmap.hessian._operators.base import CurvatureOperator


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def risk():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = torch.nn.Sequential(
            torch.nn.Linear(5, 40), torch.nn.Tanh(), torch.nn.Linear(40, 3)
        )
    X = np.random.default_rng(0).standard_normal((60, 5)).astype(np.float32)
    return EmpiricalRisk(module, torch.nn.CrossEntropyLoss(), X, np.arange(60) % 3)


def counts_in_a_fit(risk):
    seen = []
    spectrum = HessianSpectrum(
        risk, 2, random_state=0, callback=lambda *_: seen.append(torch.get_num_threads())
    )
    spectrum.fit(risk.snapshot())
    assert torch.get_num_threads() == 3
    return set(seen)


def test_small_products_are_made_on_one_thread(risk):
    assert counts_in_a_fit(risk) == {1}


def test_products_that_gain_are_made_on_all_and_a_risk_is_asked_once(risk, monkeypatch):
    asked = []
    monkeypatch.setattr(
        CurvatureOperator, "gains_by_threads", lambda self, n: asked.append(n) or True
    )
    assert counts_in_a_fit(risk) == {3}
    assert counts_in_a_fit(risk) == {3}
    assert asked == [3]


@pytest.mark.parametrize(("seconds", "gains"), [((1.0, 9.0, 0.7), True), ((1.0, 9.0, 0.9), False)])
def test_the_gain_is_measured_after_the_threads_have_started(risk, monkeypatch, seconds, gains):
    from skdmap.hessian._operators import base

    with risk.operator_at(risk.snapshot()[0]) as operator:
        operator._build_seconds = 1.0
        ticks = iter([tick for one in seconds for tick in (0.0, one)])
        monkeypatch.setattr(base.time, "perf_counter", lambda: next(ticks))
        assert operator.gains_by_threads(3) is gains
        assert next(ticks, None) is None


def test_an_error_in_a_fit_leaves_the_counts_of_the_user(risk):
    def fails(theta):
        raise RuntimeError("in the loss")

    with pytest.raises(RuntimeError, match="in the loss"):
        HessianSpectrum(fails, 2).fit(np.ones((1, 4)))
    assert torch.get_num_threads() == 3


def test_the_spectrum_does_not_depend_on_the_threads_beyond_rounding(risk):
    at_three = HessianSpectrum(risk, 3, tol=1e-5, random_state=0).fit(risk.snapshot())
    torch.set_num_threads(1)
    at_one = HessianSpectrum(risk, 3, tol=1e-5, random_state=0).fit(risk.snapshot())
    np.testing.assert_allclose(at_three.eigenvalues_, at_one.eigenvalues_, rtol=1e-5)
