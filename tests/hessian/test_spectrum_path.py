"""The spectrum along a trajectory, against one fit after the other."""

import signal

import numpy as np
import pytest
import torch
from torch import nn

from skdmap import hessian_spectrum_path
from skdmap.exceptions import ConvergenceWarning
from skdmap.hessian import EmpiricalRisk, HessianSpectrum

SIZE = 300


@pytest.fixture(scope="module")
def run(digits):
    """A risk, and twelve snapshots of SGD on digits, ten steps apart."""
    X, y = (torch.from_numpy(part) for part in digits)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        rows, snapshots = [], []
        for step in range(30 + 12 * 10):
            rows = rows or list(torch.randperm(len(X)).split(64))
            batch = rows.pop()
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(X[batch]), y[batch]).backward()
            optimizer.step()
            if step >= 30 and step % 10 == 0:
                flat = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
                snapshots.append(flat.numpy())
    return EmpiricalRisk(module, nn.CrossEntropyLoss(), *digits), np.array(snapshots)


def turning(theta):
    """A Hessian diag(theta) + const; its top directions are the largest entries of theta."""
    return (theta**3).sum() / 6


@pytest.mark.parametrize("k", [1, 5])
def test_a_path_finds_what_separate_fits_find_with_fewer_products(run, k):
    risk, snapshots = run
    path = hessian_spectrum_path(risk, snapshots, k, random_state=0)
    n_cold = 0
    for i in range(len(snapshots)):
        cold = HessianSpectrum(risk, k, point=i, random_state=i).fit(snapshots)
        # Each is right to the square of a residual over a gap, and both within tol.
        limit = 1e-3 * cold.eigenvalues_[0]
        np.testing.assert_allclose(path.eigenvalues[i], cold.eigenvalues_, atol=limit, rtol=0)
        assert path.losses[i] == pytest.approx(cold.loss_, rel=1e-6)
        assert path.gradient_norms[i] == pytest.approx(cold.gradient_norm_, rel=1e-5)
        n_cold += cold.n_matvecs_ * (i > 0)
    assert path.converged.all()
    assert path.residuals.max() <= 1e-3 * path.eigenvalues.max()
    assert path.n_matvecs[1:].sum() < {1: 1.0, 5: 0.95}[k] * n_cold
    assert path.components.shape == (len(snapshots), k, snapshots.shape[1])
    assert path.components.dtype == np.float32
    assert path.traces is path.trace_stderrs is path.densities is None


def test_signs_follow_the_snapshot_before(run):
    risk, snapshots = run
    path = hessian_spectrum_path(risk, snapshots, 3, random_state=0)
    successive = np.sum(path.components[1:] * path.components[:-1], axis=2)
    assert (successive >= 0).all()
    largest = np.abs(path.components[0]).argmax(axis=1)
    assert (path.components[0][np.arange(3), largest] > 0).all()


def test_overlaps_are_those_of_the_spaces(run):
    risk, snapshots = run
    path = hessian_spectrum_path(risk, snapshots, 3, random_state=0)
    for i, overlap in enumerate(path.overlaps):
        cosines = np.linalg.svd(path.components[i] @ path.components[i + 1].T)[1]
        assert overlap == pytest.approx(np.mean(cosines**2), abs=1e-6)
    assert path.chance_overlap == 3 / snapshots.shape[1]


@pytest.mark.parametrize("size", [20, SIZE])
def test_a_direction_that_comes_out_of_nowhere_is_found(size):
    """The eigenvectors before are orthogonal to it."""
    snapshots = np.full((3, size), 0.1) * np.linspace(0.5, 1, size)
    snapshots[:, 0], snapshots[:, 1] = 1.0, 0.8
    snapshots[1:, 7] = 3.0
    path = hessian_spectrum_path(turning, snapshots, 2, random_state=0)
    np.testing.assert_allclose(path.eigenvalues, [[1, 0.8], [3, 1], [3, 1]], rtol=1e-4)
    np.testing.assert_allclose(path.overlaps, [0.5, 1.0], atol=1e-3)


def test_a_direction_that_the_vectors_before_do_not_lead_to_is_found():
    """The space that they span with their images has 150 dimensions, and it is not among them."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((150, 150)) * 0.01
    base = np.diag(np.r_[1.0, np.linspace(0, 0.1, SIZE - 2)])
    change = np.zeros((SIZE - 1, SIZE - 1))
    change[:150, :150] = noise + noise.T
    change[-1, -1] = 3.0
    start, drift = torch.as_tensor(base), torch.as_tensor(change)

    def loss(theta):
        rest = theta[1:]
        return rest @ ((start + theta[0] * drift) @ rest) / 2

    snapshots = np.zeros((2, SIZE))
    snapshots[1, 0] = 1.0
    for seed in range(10):
        path = hessian_spectrum_path(loss, snapshots, 1, random_state=seed)
        np.testing.assert_allclose(path.eigenvalues.ravel(), [1.0, 3.1], rtol=1e-3)


def test_the_sharpness_stays_the_largest_where_two_eigenvalues_cross():
    """The second eigenvector is tracked too, and comes first at half of the snapshots."""
    n_snapshots = 25
    snapshots = np.repeat(np.linspace(0, 0.3, SIZE)[None], n_snapshots, axis=0)
    phase = np.linspace(0, 4 * np.pi, n_snapshots)
    snapshots[:, 0], snapshots[:, 1] = 1 + 0.1 * np.sin(phase), 1 - 0.1 * np.sin(phase)
    for seed in range(5):
        path = hessian_spectrum_path(turning, snapshots, 1, tol=1e-2, random_state=seed)
        error = np.abs(path.eigenvalues[:, 0] / snapshots.max(axis=1) - 1)
        assert error.max() <= 1e-2
        assert path.n_matvecs[1:].mean() <= 9


def test_every_fifth_snapshot_is_verified_or_as_many_as_asked_for(run):
    risk, snapshots = run
    some, all_ = (
        hessian_spectrum_path(risk, snapshots, 1, tol=1e-2, verify_every=every, random_state=0)
        for every in (5, 1)
    )
    full = np.arange(len(snapshots)) % 5 == 0
    assert (some.missed_eigenvalue_bounds[full] < 0.1).all()
    assert np.median(some.missed_eigenvalue_bounds[~full]) > 0.1
    assert (all_.missed_eigenvalue_bounds < 0.1).all()
    assert some.n_matvecs.sum() < all_.n_matvecs.sum()


def test_density_starts_each_snapshot_at_random():
    snapshots = np.linspace(-1, 1, SIZE) * np.array([[1.0], [2.0]])
    path = hessian_spectrum_path(turning, snapshots, 3, density=True, n_probes=4, random_state=0)
    assert len(path.densities) == 2
    # The second is twice the first, and the trace is zero.
    assert (np.abs(path.traces) < 5 * path.trace_stderrs).all()
    assert (path.trace_stderrs > 0).all()
    assert path.traces[0] != path.traces[1] / 2
    np.testing.assert_allclose(path.eigenvalues[1], 2 * path.eigenvalues[0], rtol=1e-3)


def test_a_callback_sees_each_snapshot_and_may_end_the_path():
    snapshots = np.eye(4) + 1
    seen = []

    def callback(i, eigenvalues, residuals):
        seen.append((i, eigenvalues[0]))
        return i == 1

    with pytest.warns(ConvergenceWarning, match=r"Interrupted: 2 of 4 .*snapshots\[2:\]"):
        path = hessian_spectrum_path(turning, snapshots, 1, callback=callback)
    assert [i for i, _ in seen] == [0, 1]
    assert path.interrupted
    assert path.eigenvalues.tolist() == [[2.0], [2.0]]
    whole = hessian_spectrum_path(turning, snapshots, 1, callback=lambda *_: False)
    assert not whole.interrupted


def test_an_interrupt_keeps_the_snapshots_done():
    calls = []

    def loss(theta):
        calls.append(1)
        if theta[0] > 5:
            raise KeyboardInterrupt
        return turning(theta)

    snapshots = np.array([[1.0, 2.0], [2.0, 1.0], [6.0, 1.0]])
    with pytest.warns(ConvergenceWarning, match="Interrupted: 2 of 3"):
        path = hessian_spectrum_path(loss, snapshots, 1)
    assert path.eigenvalues.tolist() == [[2.0], [2.0]]
    with pytest.raises(KeyboardInterrupt):
        hessian_spectrum_path(loss, snapshots[2:], 1)


def test_snapshots_that_did_not_converge_are_counted():
    snapshots = np.geomspace(1, 2, SIZE) * np.ones((2, 1))
    with pytest.warns(ConvergenceWarning, match="of 2 of 2 snapshots did not converge"):
        path = hessian_spectrum_path(turning, snapshots, 3, max_matvecs=5, random_state=0)
    assert not path.converged.any()


def test_components_need_not_be_kept():
    path = hessian_spectrum_path(turning, np.eye(3) + 1, 1, keep_components=False)
    assert path.components is None
    np.testing.assert_allclose(path.overlaps, 0.0)


def test_progress_is_a_line_in_logs_and_a_bar_on_a_terminal(capsys, monkeypatch):
    hessian_spectrum_path(turning, np.eye(3) + 1, 1, verbose=1)
    assert "Snapshots: 3 of 3" in capsys.readouterr().err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    hessian_spectrum_path(turning, np.eye(3) + 1, 1, verbose=1)
    assert "Snapshots" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": None}, "loss=None: a loss is needed"),
        ({"n_components": 0}, "n_components=0 must be an integer >= 1"),
        ({"verify_every": 0}, "verify_every=0 must be an integer >= 1"),
        ({"which": "top"}, "which='top' must be one of"),
        ({"curvature": "kfac"}, "curvature='kfac' must be one of"),
        ({"curvature": "ggn"}, "needs an EmpiricalRisk"),
        ({"tol": 0.0}, r"tol=0.0 must be in \(0, 1\)"),
        ({"n_probes": 3}, "n_probes=3 needs density=True"),
        ({"max_matvecs": 1}, "max_matvecs=1 must be >= n_components = 2"),
        ({"snapshots": [[np.nan, 1.0]]}, "snapshots contains NaN"),
        ({"memory_budget": 10}, "memory_budget=10 bytes must be >="),
    ],
)
def test_bad_parameters_are_named(change, message):
    settings = {"loss": turning, "snapshots": np.eye(3), "n_components": 2} | change
    with pytest.raises(ValueError, match=message):
        hessian_spectrum_path(**settings)


def test_copies_of_an_eigenvalue_are_not_lost_from_one_snapshot_to_the_next():
    spectrum = torch.linspace(0, 3, SIZE, dtype=torch.float64) ** 2
    spectrum[-9:] = torch.tensor([10.0, 11.0, 12.0]).repeat_interleave(3)

    def bowl(theta):
        return theta**2 @ spectrum / 2

    for seed in range(4):
        path = hessian_spectrum_path(bowl, np.zeros((3, SIZE)), 9, random_state=seed)
        # The first snapshot, from one random vector, may lack copies; what it has must stay.
        assert (path.eigenvalues >= path.eigenvalues[0] - 1e-3 * 12).all()


def test_an_interrupt_of_the_first_snapshot_ends_the_path(run):
    risk, snapshots = run
    seen = []

    class Interrupting:
        n_parameters = risk.n_parameters

        def operator_at(self, *arguments, **settings):
            operator = risk.operator_at(*arguments, **settings)
            seen.append(operator)
            inner = operator.matmat

            def matmat(V):
                if operator.n_matvecs == last and len(seen) == 1:
                    signal.raise_signal(signal.SIGINT)
                return inner(V)

            operator.matmat = matmat
            return operator

    last = -1
    hessian_spectrum_path(Interrupting(), snapshots[:1], 3, random_state=0)
    # All residuals are small, but not for long enough yet. Products with all rows are counted here.
    last = seen.pop().n_matvecs - 2
    with (
        pytest.warns(ConvergenceWarning, match="did not converge"),
        pytest.warns(ConvergenceWarning, match="1 of 12 snapshots"),
    ):
        path = hessian_spectrum_path(Interrupting(), snapshots, 3, random_state=0)
    assert path.interrupted
    assert len(path.losses) == len(seen) == 1


@pytest.mark.parametrize("curvature_of_first", [5.0, 0.5])
def test_shares_of_gradients_and_steps_on_a_quadratic_are_those_of_its_gradient(curvature_of_first):
    # f = sum h x^2 / 2: the gradient is h x, and descent with the learning rate lr leaves
    # (1 - lr h)^t x of a start x. The two largest of h are first and second, or second and third.
    h = np.linspace(2.0, 0.1, SIZE)
    h[:3] = [curvature_of_first, 4.0, 3.0]
    rows = np.cumprod(np.vstack([np.ones(SIZE), np.tile(1 - 0.1 * h, (4, 1))]), axis=0)
    risk = torch.tensor(h)
    path = hessian_spectrum_path(
        lambda x: (risk * x**2).sum() / 2, rows, 2, tol=1e-8, random_state=0, shares=True
    )
    top = np.argsort(-h)[:2]
    squared = (h * rows) ** 2
    expected = squared[:, top].sum(axis=1) / squared.sum(axis=1)
    np.testing.assert_allclose(path.gradient_shares, expected, rtol=1e-6)
    # Each step is -lr times the gradient where it starts.
    np.testing.assert_allclose(path.step_shares, expected[:-1], rtol=1e-6)
    assert path.chance_share == 2 / SIZE


def test_shares_are_those_in_the_space_of_the_snapshot_where_the_step_starts():
    # Top directions: 0, then 1.
    rows = np.array([[3.0, 2.0, 1.0], [3.0, 6.0, 1.0], [3.0, 6.0, 3.0]])
    path = hessian_spectrum_path(turning, rows, 1, random_state=0, shares=True)
    np.testing.assert_allclose(path.step_shares, [0, 0], atol=1e-12)
    back = hessian_spectrum_path(turning, rows[::-1], 1, random_state=0, shares=True)
    np.testing.assert_allclose(back.step_shares, [0, 1], atol=1e-12)


def test_a_share_of_nothing_is_nan_and_no_share_is_reported_unasked():
    rows = np.zeros((2, 3))
    path = hessian_spectrum_path(lambda x: (x**2).sum(), rows, 1, random_state=0, shares=True)
    assert np.isnan(path.gradient_shares).all()
    assert np.isnan(path.step_shares).all()
    path = hessian_spectrum_path(lambda x: (x**2).sum(), rows, 1, random_state=0)
    assert (path.gradient_shares, path.step_shares, path.chance_share) == (None, None, None)
