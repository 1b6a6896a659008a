"""What is kept, what is made anew, and what that costs; in fresh processes where bytes count."""

import ast
import mmap
import os
import sys

import numpy as np
import pytest
import torch
from torch import nn

from skdmap.hessian import EmpiricalRisk, HessianSpectrum, hessian_operator
from skdmap.hessian._operators import memory_budget
from skdmap.hessian._operators.memory_budget import MemoryBudget, graph_bytes, least_budget

LINUX = pytest.mark.skipif(
    not os.path.exists("/proc/self/statm"), reason="the resident size is read from /proc"
)

SCRIPT = """
import sys
import numpy as np
import torch
from skdmap.hessian import EmpiricalRisk, HessianSpectrum
from skdmap.hessian._operators.memory_budget import MemoryBudget

n_rows, budgets = {n_rows}, {budgets}
torch.set_num_threads(1)
torch.manual_seed(0)
module = torch.nn.Sequential(
    torch.nn.Linear(64, 128), torch.nn.Tanh(), torch.nn.Linear(128, 128), torch.nn.Tanh(),
    torch.nn.Linear(128, 10),
)
X, y = torch.rand(n_rows, 64), torch.randint(0, 10, (n_rows,))
small = EmpiricalRisk(module, torch.nn.CrossEntropyLoss(), X[:64], y[:64])
theta = small.snapshot()[0]
small.hvp(theta, theta)
risk = EmpiricalRisk(module, torch.nn.CrossEntropyLoss(), X, y)


def status(name):
    with open("/proc/self/status") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


with open("/proc/self/clear_refs", "w") as reset:
    reset.write("5")  # the peak starts again from here
before = status("VmRSS")
if {fit}:
    spectrum = HessianSpectrum(risk, 3, max_matvecs=12, memory_budget=budgets, random_state=0)
    spectrum.fit(theta[None])
    print((status("VmHWM") - before, 0, 0))
    sys.exit()
budget = MemoryBudget(budgets)
basis = np.zeros(({n_vectors}, len(theta))) + 1.0
with risk.operator_at(theta, memory_budget=budget) as operator:
    for v in basis[:3]:
        operator(v)
    print((status("VmHWM") - before, operator.n_kept_chunks, operator.n_chunks))
"""


@pytest.fixture(scope="module")
def measure(run_script):
    """Return a function: rows, bytes -> the rise of the peak, chunks kept, chunks."""

    def run(n_rows, n_bytes, *, n_vectors=20, fit=False):
        script = SCRIPT.format(n_rows=n_rows, budgets=n_bytes, n_vectors=n_vectors, fit=fit)
        done = run_script(script)
        assert done.returncode == 0, done.stderr
        return ast.literal_eval(done.stdout)

    return run


def stays_within(measure, n_rows, budgets):
    kept = []
    for n_bytes in budgets:
        rise, n_kept, n_chunks = measure(n_rows, n_bytes)
        assert rise <= n_bytes + 50e6, (n_bytes, rise)
        kept.append(n_kept / n_chunks)  # chunks are smaller where less memory is left
    return kept


@LINUX
def test_the_peak_stays_within_the_budget_and_more_is_kept_with_more_of_it(measure):
    kept = stays_within(measure, 40_000, [20_000_000, 50_000_000, 400_000_000])
    assert 0 < kept[0] < kept[1] < kept[2] == 1


@LINUX
@pytest.mark.slow
def test_the_peak_stays_within_the_budget_on_300000_rows(measure):
    kept = stays_within(measure, 300_000, [50_000_000, 200_000_000, 1_000_000_000])
    assert 0 < kept[0] < kept[1] < kept[2] == 1


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("n_bytes", [50_000_000, 200_000_000, 1_000_000_000])
def test_the_peak_of_a_fit_stays_within_the_budget(n_bytes, measure):
    rise, _, _ = measure(300_000, n_bytes, fit=True)
    assert rise <= n_bytes + 50e6


@pytest.fixture
def risk():
    rng = np.random.default_rng(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    X, y = rng.standard_normal((3000, 6)), rng.integers(0, 3, 3000)
    return EmpiricalRisk(module, nn.CrossEntropyLoss(), X, y)


class Room(MemoryBudget):
    """Counts chunks instead of bytes."""

    def __init__(self, n_chunks, chunk_bytes):
        self.n_chunks, self.chunk_bytes = n_chunks + 1, chunk_bytes

    def left(self):
        self.n_chunks -= 1
        return self.chunk_bytes if self.n_chunks >= 0 else 0


@pytest.mark.parametrize("curvature", ["hessian", "ggn", "fisher", "gradient_covariance"])
def test_kept_or_made_anew_the_products_are_the_same(risk, curvature):
    theta = risk.snapshot()[0]
    V = np.random.default_rng(1).standard_normal((len(theta), 3))
    with risk.operator_at(theta, curvature) as operator:
        assert operator.n_kept_chunks == operator.n_chunks
        whole = operator.matmat(V)
    scale = np.abs(whole).max()
    # Room for chunks of 100 rows, three of which are left free.
    budget = Room(4, 6 * risk.chunk_bytes(100) + 8 * len(theta))
    with risk.operator_at(theta, curvature, memory_budget=budget) as operator:
        assert 0 < operator.n_kept_chunks < operator.n_chunks
        assert operator.n_chunks >= 25
        np.testing.assert_allclose(operator.matmat(V), whole, atol=1e-13 * scale)
        singly = np.column_stack([operator(v) for v in V.T])
        np.testing.assert_allclose(singly, whole, atol=1e-13 * scale)
        assert operator.n_matvecs == 6
        assert operator.loss == pytest.approx(risk(theta), rel=1e-13)


def test_the_graph_of_a_row_is_what_the_layers_save(risk):
    """Per row in float64: 16 tanh and 3 log-probabilities at the least, and those backward."""
    of_a_row = (risk.chunk_bytes(1001) - risk.chunk_bytes(1)) / 1000
    assert 8 * (16 + 3) <= of_a_row <= 8 * 10 * (16 + 3 + 6)


def test_bytes_of_a_graph_are_of_distinct_storages_that_are_not_there_already():
    x = torch.ones(1000, dtype=torch.float64, requires_grad=True)
    assert graph_bytes(lambda: x.square().sum(), (x,)) == (0, 0)
    assert graph_bytes(lambda: x.exp().square().sum(), (x,)) == (8000, 1)
    assert graph_bytes(lambda: (x.exp().square() * x.sin()).sum(), (x,)) == (3 * 8000, 3)


def test_the_least_budget_holds_the_vectors_and_three_chunks_of_a_row(risk):
    theta = risk.snapshot()[0]
    expected = 8 * 15 * len(theta) + 3 * risk.chunk_bytes(1)
    assert least_budget(risk, theta, 5) == expected
    assert least_budget(lambda t: t.sum(), theta, 5) == 8 * 15 * len(theta)


@LINUX
def test_what_is_allocated_is_taken_off_and_auto_is_a_part_of_what_is_free():
    budget = MemoryBudget(10**9)
    before = budget.left()
    block = mmap.mmap(-1, 160_000_000)  # fresh pages: an array may get some that were freed
    block.write(bytes(len(block)))
    assert before - budget.left() >= 0.75 * len(block)
    assert 0 < MemoryBudget("auto").n_bytes < os.sysconf("SC_PHYS_PAGES") * 4096 / 4


@pytest.mark.parametrize("value", [0, -5, "much", None, True])
def test_a_budget_that_is_none_is_named(value):
    with pytest.raises(ValueError, match=r"memory_budget=.*must be a number of bytes >= 1"):
        MemoryBudget(value)


def test_several_vectors_of_a_function_are_single_ones():
    with hessian_operator(lambda t: (t**4).sum() / 12, np.array([1.0, 2.0])) as hessian:
        assert hessian.matmat(np.eye(2)).tolist() == [[1.0, 0.0], [0.0, 4.0]]
        assert (hessian.n_chunks, hessian.n_kept_chunks, hessian.n_matvecs) == (1, 1, 2)
        array = np.arange(3, dtype=np.float32)
        assert hessian.first_rank(array).dtype == np.float64
        with pytest.raises(ValueError, match=r"V has shape \(3, 1\); it must be \(2, n_vectors\)"):
            hessian.matmat(np.ones((3, 1)))


@pytest.mark.parametrize("kind", [int, float, np.int64, np.uint32, np.float64, np.float32])
def test_a_budget_may_be_any_kind_of_number(kind):
    spectrum = HessianSpectrum(lambda t: t.square().sum(), 2, memory_budget=kind(2**30))
    np.testing.assert_allclose(spectrum.fit(np.ones((1, 3))).eigenvalues_, [2.0, 2.0])


@pytest.mark.parametrize(
    "budget", [0, -1.5, float("nan"), float("inf"), np.float32("inf"), True, np.True_, "all", None]
)
def test_a_budget_that_is_no_number_of_bytes_is_named(budget):
    with pytest.raises(ValueError, match=r"memory_budget=.* must be a number of bytes"):
        MemoryBudget(budget)


def test_the_spectrum_is_the_same_where_the_system_tells_nothing_about_memory(
    monkeypatch, tmp_path
):
    """Windows has neither /proc nor the module resource; only the automatic budget asks."""
    risk = EmpiricalRisk(nn.Linear(3, 2), nn.CrossEntropyLoss(), np.eye(6, 3), np.arange(6) % 2)
    theta = risk.snapshot()
    expected = HessianSpectrum(risk, 2, random_state=0).fit(theta).eigenvalues_
    monkeypatch.setattr(memory_budget, "_STATM", tmp_path / "missing")
    monkeypatch.setattr(memory_budget, "_MEMINFO", tmp_path / "missing")
    monkeypatch.setitem(sys.modules, "resource", None)
    assert memory_budget._used(torch.device("cpu")) == 0
    found = HessianSpectrum(risk, 2, random_state=0).fit(theta).eigenvalues_
    np.testing.assert_array_equal(found, expected)
