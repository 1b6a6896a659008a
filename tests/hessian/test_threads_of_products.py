"""On which threads products are made: several chunks at once, each on one thread."""

import threading

import numpy as np
import pytest
import torch

from skdmap._threads import idle_threads, one_thread
from skdmap.hessian import EmpiricalRisk, HessianSpectrum
from skdmap.hessian._operators import base
from skdmap.hessian._operators.autodiff import GradientGraph, mean_operation_bytes
from skdmap.hessian._risk import chunking
from skdmap.hessian._risk.chunking import Chunking


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
    X = np.random.default_rng(0).standard_normal((60, 5))
    # Sums of products in float32 are exact in float64, in any order.
    return EmpiricalRisk(module, torch.nn.CrossEntropyLoss(), X, np.arange(60) % 3, dtype="float64")


@pytest.fixture
def small_chunks(monkeypatch):
    """Tensors of 200 bytes are long enough for a thread: 60 samples are many."""
    monkeypatch.setattr(chunking, "_TENSOR_BYTES", 200.0)
    monkeypatch.setattr(chunking, "_CHUNK_GRADIENTS", 0)


def counts_in_a_fit(risk):
    seen = []
    spectrum = HessianSpectrum(
        risk, 2, random_state=0, callback=lambda *_: seen.append(torch.get_num_threads())
    )
    spectrum.fit(risk.snapshot())
    assert torch.get_num_threads() == 3
    return set(seen)


def threads_of_products(risk, monkeypatch):
    """The threads on which graphs are gone through in a fit, and torch's count on each."""
    product, seen = GradientGraph.product, set()

    def noted(self, v):
        seen.add((threading.get_ident(), torch.get_num_threads()))
        return product(self, v)

    monkeypatch.setattr(GradientGraph, "product", noted)
    HessianSpectrum(risk, 2, random_state=0).fit(risk.snapshot())
    return seen


def test_a_short_chunk_is_worked_on_by_one_thread(risk, monkeypatch):
    assert counts_in_a_fit(risk) == {1}
    assert threads_of_products(risk, monkeypatch) == {(threading.get_ident(), 1)}


@pytest.mark.usefixtures("small_chunks")
def test_chunks_are_worked_on_at_once_each_on_one_thread(risk, monkeypatch):
    seen = threads_of_products(risk, monkeypatch)
    assert len(seen) > 1
    assert {n for _, n in seen} == {1}
    assert threading.get_ident() not in {thread for thread, _ in seen}
    assert not [one for one in threading.enumerate() if one.name.startswith("skdmap-products")]


@pytest.mark.usefixtures("small_chunks")
def test_a_product_on_several_threads_is_that_on_one_bit_for_bit(risk):
    point, v = risk.snapshot()[0], np.random.default_rng(1).standard_normal(risk.n_parameters)
    with one_thread(), risk.operator_at(point) as operator:
        assert operator._pool is not None
        found = [operator(v) for _ in range(5)]
        operator._pool.shutdown()
        operator._pool = None
        expected = operator(v)
    assert operator.n_chunks > 6  # more than are begun at once
    for one in found:
        np.testing.assert_array_equal(one, expected)


@pytest.mark.usefixtures("small_chunks")
def test_graphs_that_are_not_kept_are_added_in_their_place(risk):
    point, v = risk.snapshot()[0], np.random.default_rng(1).standard_normal(risk.n_parameters)
    with one_thread(), risk.operator_at(point) as operator:
        expected = operator(v)
        for number in (0, 2):
            del operator._kept[number]
        np.testing.assert_array_equal(operator(v), expected)


@pytest.mark.usefixtures("small_chunks")
def test_an_error_on_a_thread_is_raised_and_leaves_no_thread(risk, monkeypatch):
    def fails(self, v):
        raise RuntimeError("in a product")

    monkeypatch.setattr(GradientGraph, "product", fails)
    with pytest.raises(RuntimeError, match="in a product"):
        HessianSpectrum(risk, 2).fit(risk.snapshot())
    assert torch.get_num_threads() == 3
    assert not [one for one in threading.enumerate() if one.name.startswith("skdmap-products")]


def test_chunks_are_divided_among_threads_but_not_below_a_quarter():
    measured = Chunking((slice(0, 1000),), "mean", True, 0.0, 768.0, 1, 8)  # chunks of 1,000
    assert [measured.rows_of_chunk(None, n) for n in (1, 2, 3, 4, 5, 100)] == [
        1000, 500, 334, 250, 250, 250,
    ]  # fmt: skip
    assert measured.rows_of_chunk(6 * 768.0 * 100, 4) == 25  # four chunks need what one does
    few = measured.shares(torch.ones(1000), 1000.0, None, 4)
    assert measured.n_threads(few, 4) == 4
    short = Chunking((slice(0, 1000),), "mean", True, 0.0, 76.8, 1, 8)
    assert short.n_threads(short.shares(torch.ones(1000), 1000.0, None, 4), 4) == 1


def test_long_operations_of_one_chunk_run_on_all_threads(risk, monkeypatch):
    monkeypatch.setattr(base, "_LONG_OPERATION", 1.0)
    assert counts_in_a_fit(risk) == {3}


def test_the_mean_size_of_the_results_of_operations():
    x = torch.ones(10, 4, requires_grad=True)
    # The leaf, twice it, tanh and sum.
    assert mean_operation_bytes([(2 * x).tanh().sum()]) == pytest.approx((3 * 160 + 4) / 4)


def test_idle_threads_are_those_of_the_user_inside_of_one_thread():
    assert idle_threads() == 1
    with one_thread():
        assert idle_threads() == 3
        with one_thread():
            assert idle_threads() == 3
    assert idle_threads() == 1


def test_an_error_in_a_fit_leaves_the_counts_of_the_user(risk):
    def fails(theta):
        raise RuntimeError("in the loss")

    with pytest.raises(RuntimeError, match="in the loss"):
        HessianSpectrum(fails, 2).fit(np.ones((1, 4)))
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("small_chunks")
def test_the_spectrum_does_not_depend_on_the_threads_beyond_rounding(risk):
    at_three = HessianSpectrum(risk, 3, tol=1e-5, random_state=0).fit(risk.snapshot())
    torch.set_num_threads(1)
    at_one = HessianSpectrum(risk, 3, tol=1e-5, random_state=0).fit(risk.snapshot())
    np.testing.assert_allclose(at_three.eigenvalues_, at_one.eigenvalues_, rtol=1e-5)
