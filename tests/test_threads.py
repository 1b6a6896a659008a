"""Thread counts of BLAS and torch are those of the user again, whatever happens inside."""

import threading

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from skdmap import DiffusionMap
from skdmap._threads import blas_threads, one_thread
from skdmap.diffusion import _diffusion_map as diffusion_map
from skdmap.diffusion import _nystrom as nystrom
from skdmap.diffusion._eigensolvers import multilevel


def counts():
    blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    return torch.get_num_threads(), blas


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    with threadpool_limits(3, user_api="blas"):
        yield
    torch.set_num_threads(before)


def test_all_counts_are_one_inside_and_as_before_outside():
    before = counts()
    assert before[0] == 3
    assert set(before[1]) == {3}
    with one_thread() as n_torch:
        assert n_torch == 3
        inside = counts()
        assert inside[0] == 1
        assert set(inside[1]) == {1}
    assert counts() == before


def test_an_exception_and_nested_blocks_put_them_back():
    before = counts()

    def nested():
        with one_thread():
            with one_thread() as n_torch:
                assert n_torch == 3
            assert counts()[0] == 1
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        nested()
    assert counts() == before


def test_of_several_threads_the_last_one_out_puts_them_back():
    """The first one in leaves first; a thread that began meanwhile ends with the user's count."""
    before, seen = counts(), {}
    is_in, may_leave = threading.Event(), threading.Event()

    def work():
        with one_thread():
            is_in.set()
            may_leave.wait(60)
            seen["inside"] = counts()
        seen["after"] = torch.get_num_threads()

    with one_thread():
        other = threading.Thread(target=work)
        other.start()
        assert is_in.wait(60)
    assert torch.get_num_threads() == 3
    assert set(counts()[1]) == {1}  # the other one is still inside
    may_leave.set()
    other.join()
    assert seen["inside"][0] == 1
    assert set(seen["inside"][1]) == {1}
    assert seen["after"] == 3
    assert counts() == before
    later = []
    new = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    new.start()
    new.join()
    assert later == [3]


def test_two_maps_fitted_at_once_hold_blas_and_the_last_puts_it_back(monkeypatch):
    """The first one in leaves first, while the second is inside of its solver."""
    inside = []
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))
    original = multilevel.coarse_levels

    def staged(*args):
        if not first_is_in.is_set():
            first_is_in.set()
            assert second_is_in.wait(60)
        else:
            second_is_in.set()
            assert first_is_out.wait(60)
        inside.extend(counts()[1])
        return original(*args)

    monkeypatch.setattr(multilevel, "coarse_levels", staged)
    X, before = np.random.default_rng(0).normal(size=(6000, 3)), counts()

    def work(event):
        DiffusionMap(2, eigen_solver="multilevel").fit(X)
        event.set()

    threads = [threading.Thread(target=work, args=(e,)) for e in (first_is_out, threading.Event())]
    threads[0].start()
    assert first_is_in.wait(60)
    threads[1].start()
    for thread in threads:
        thread.join(120)
    assert counts() == before
    assert set(inside) == {1}


def test_a_fit_to_few_entries_has_one_thread_and_one_to_many_has_all(monkeypatch):
    seen = []
    original = diffusion_map.leading_eigenpairs

    def noted(*args, **options):
        seen.append(blas_threads())
        return original(*args, **options)

    monkeypatch.setattr(diffusion_map, "leading_eigenpairs", noted)
    rng = np.random.default_rng(0)
    with threadpool_limits(2, user_api="blas"):
        DiffusionMap(2).fit(rng.normal(size=(300, 3)).cumsum(axis=0))
        DiffusionMap(2).fit(rng.normal(size=(300, 700)).cumsum(axis=0))
        DiffusionMap(2).fit(rng.normal(size=(12_001, 1)).cumsum(axis=0))
        assert blas_threads() == 2
    assert seen == [1, 2, 2]


def test_a_transform_has_the_threads_of_now(monkeypatch):
    """Not those that a fit to few samples was held to."""
    seen = []
    original = nystrom._each

    def noted(work, blocks, n_threads):
        seen.append(n_threads)
        return original(work, blocks, n_threads)

    monkeypatch.setattr(nystrom, "_each", noted)
    X = np.random.default_rng(0).random((300, 2))
    model = DiffusionMap(2).fit(X)
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            model.transform(X[:10])
    assert seen[-2:] == [1, 2]
