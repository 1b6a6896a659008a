"""HessianSpectrum: digits against the dense Hessian, and what a user does with it."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator
from torch import nn

from skdmap.exceptions import ConvergenceWarning
from skdmap.hessian import EmpiricalRisk, HessianSpectrum
from skdmap.hessian._operators.memory_budget import MemoryBudget, least_budget
from skdmap.hessian._spectrum_at import split_budget

SLOPES = np.array([4.0, -3.0, 2.0, 1.0, -0.5])


def bowl(theta):
    """A quadratic with eigenvalues SLOPES, and zeros for the other columns."""
    slopes = torch.as_tensor(SLOPES[: len(theta)])
    return (slopes * theta[: len(slopes)] ** 2).sum() / 2


def steep(theta):
    return (torch.logspace(0, -40, len(theta), dtype=theta.dtype) * theta**2).sum() / 2


def rosenbrock(theta):
    steep_part = 100 * ((theta[1:] - theta[:-1] ** 2) ** 2).sum()
    return steep_part + ((1 - theta) ** 2).sum()


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).standard_normal((6, 5))


def risk_of(trained, digits, **settings):
    return EmpiricalRisk(trained, nn.CrossEntropyLoss(), *digits, **settings)


@pytest.mark.parametrize("dtype", [None, torch.float64])
@pytest.mark.parametrize("batch_size", [None, 700, 64])
def test_top_ten_of_digits_equal_the_dense_ones(
    trained, digits, true_eigenvalues, batch_size, dtype
):
    risk = risk_of(trained, digits, batch_size=batch_size, dtype=dtype)
    spectrum = HessianSpectrum(risk, 10, tol=1e-4, random_state=0).fit(risk.snapshot())
    np.testing.assert_allclose(spectrum.eigenvalues_, true_eigenvalues[:10], rtol=1e-5)
    assert spectrum.n_matvecs_ <= 35
    assert spectrum.orthogonality_error_ < 1e-13
    assert spectrum.residuals_.max() <= 1e-4 * spectrum.eigenvalues_[0]


@pytest.mark.parametrize(("which", "k"), [("smallest", 5), ("magnitude", 12), ("both", 7)])
def test_other_ends_of_digits_equal_the_dense_ones(trained, digits, true_eigenvalues, which, k):
    risk = risk_of(trained, digits, dtype=torch.float64)
    spectrum = HessianSpectrum(risk, k, which=which, tol=1e-4, random_state=0)
    found = spectrum.fit(risk.snapshot()).eigenvalues_
    expected = {
        "smallest": true_eigenvalues[::-1][:k],
        "magnitude": true_eigenvalues[np.argsort(-np.abs(true_eigenvalues))][:k],
        "both": np.r_[true_eigenvalues[:4], true_eigenvalues[-3:]],
    }[which]
    np.testing.assert_allclose(found, expected, atol=1e-5 * true_eigenvalues[0], rtol=0)


@pytest.mark.filterwarnings("ignore:Eigenvalues smaller:skdmap.exceptions.ConvergenceWarning")
def test_thirty_of_digits_hold_no_copy(trained, digits, true_eigenvalues):
    risk = risk_of(trained, digits, dtype=torch.float64)
    spectrum = HessianSpectrum(risk, 30, random_state=0).fit(risk.snapshot())
    # Two eigenvalues closer than their residuals may come out in the other's place.
    limit = 2e-3 * true_eigenvalues[0]
    np.testing.assert_allclose(spectrum.eigenvalues_, true_eigenvalues[:30], atol=limit, rtol=0)
    gram = spectrum.components_ @ spectrum.components_.T
    np.testing.assert_allclose(gram, np.eye(30), atol=1e-13)


def test_fifty_of_26122_parameters_hold_no_copy(digits):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 10)
        )
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), digits[0][:200], digits[1][:200])
    assert risk.n_parameters == 26_122
    spectrum = HessianSpectrum(risk, 50, tol=3e-3, random_state=0).fit(risk.snapshot())
    assert spectrum.converged_.all()
    gram = spectrum.components_ @ spectrum.components_.T
    np.testing.assert_allclose(gram, np.eye(50), atol=1e-10)
    assert spectrum.orthogonality_error_ <= 1e-10


def test_fifty_at_a_small_tolerance_equal_the_dense_ones(trained, digits, true_eigenvalues):
    risk = risk_of(trained, digits, dtype=torch.float64)
    spectrum = HessianSpectrum(risk, 50, tol=1e-6, random_state=0).fit(risk.snapshot())
    np.testing.assert_allclose(spectrum.eigenvalues_, true_eigenvalues[:50], rtol=1e-6)


def test_all_copies_are_found_in_a_regression_with_several_outputs():
    """H is the identity of the outputs times 2 X'X / (N C): each eigenvalue is C-fold."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((100, 60)) * np.geomspace(10, 0.1, 60)
    Y = rng.standard_normal((100, 4))
    module = nn.Linear(60, 4, bias=False)
    risk = EmpiricalRisk(module, nn.MSELoss(), X, Y, dtype="float64")
    spectrum = HessianSpectrum(risk, 9, random_state=0).fit(risk.snapshot())
    single = np.linalg.eigvalsh(2 * X.T @ X / 400)[::-1]
    limit = 1e-3 * single[0]
    np.testing.assert_allclose(spectrum.eigenvalues_, np.repeat(single, 4)[:9], atol=limit, rtol=0)


@pytest.mark.parametrize("curvature", ["ggn", "fisher", "gradient_covariance"])
def test_other_curvatures_are_those_of_the_operator(trained, digits, curvature):
    risk = risk_of(trained, (digits[0][:300], digits[1][:300]), dtype=torch.float64)
    theta = risk.snapshot()
    spectrum = HessianSpectrum(risk, 3, curvature=curvature, tol=1e-5, random_state=0).fit(theta)
    with risk.operator_at(theta[0], curvature) as operator:
        defect = operator.matmat(spectrum.components_.T).T
    defect -= spectrum.eigenvalues_[:, None] * spectrum.components_
    assert np.linalg.norm(defect, axis=1).max() <= 1.01e-5 * spectrum.eigenvalues_[0]
    # None of them has a negative eigenvalue.
    rest = HessianSpectrum(risk, 1, which="smallest", curvature=curvature, random_state=0)
    with pytest.warns(ConvergenceWarning, match="not resolved"):
        assert rest.fit(theta).eigenvalues_[0] > -1e-3 * spectrum.eigenvalues_[0]


def test_a_small_budget_gives_the_same_spectrum(trained, digits):
    risk = risk_of(trained, digits, dtype=torch.float64)
    theta = risk.snapshot()
    wide = HessianSpectrum(risk, 8, random_state=0).fit(theta)
    least = least_budget(risk, theta[0], 8)
    tight = HessianSpectrum(risk, 8, memory_budget=least, random_state=0).fit(theta)
    limit = 1e-3 * wide.eigenvalues_[0]
    np.testing.assert_allclose(tight.eigenvalues_, wide.eigenvalues_, atol=limit, rtol=0)
    cap, _ = split_budget(MemoryBudget(least), risk, theta[0], 8)
    assert cap == 16 < tight.n_matvecs_  # it had to restart
    with pytest.raises(ValueError, match=rf"memory_budget={least - 1} bytes must be >= {least}"):
        HessianSpectrum(risk, 8, memory_budget=least - 1).fit(theta)


def test_vectors_that_are_not_resident_yet_are_kept_out_of_the_budget_of_the_graphs():
    budget = MemoryBudget(10**9)
    loss, point = (lambda t: t.sum()), np.zeros(10**6)
    cap, beside = split_budget(budget, loss, point, 5)
    assert cap == 60
    assert beside.left() == pytest.approx(10**9 - (60 + 1 + 5) * 8 * 10**6, abs=10**8)
    cap, beside = split_budget(MemoryBudget(2 * 10**8), loss, point, 5)
    assert 13 <= cap == 200 // 8 - 5 - 4
    assert beside.left() <= 2 * 10**8 - (cap + 6) * 8 * 10**6


def test_momentum_shifts_nothing_and_float32_agrees_with_float64(trained, digits):
    """A three-term recurrence of power iteration with momentum b would give lambda - b."""
    theta = risk_of(trained, digits).snapshot()
    single, double = (
        HessianSpectrum(risk_of(trained, digits, dtype=dtype), 5, tol=1e-4, random_state=0).fit(
            theta
        )
        for dtype in (torch.float32, torch.float64)
    )
    np.testing.assert_allclose(single.eigenvalues_, double.eigenvalues_, rtol=1e-5)
    assert single.trace_ == pytest.approx(double.trace_, rel=1e-4)


def test_components_are_eigenvectors(trained, digits):
    risk = risk_of(trained, digits, dtype=torch.float64)
    theta = risk.snapshot()
    spectrum = HessianSpectrum(risk, 5, tol=1e-4, random_state=0).fit(theta)
    products = risk.matmat(theta[0].astype(float), spectrum.components_.T).T
    defect = products - spectrum.eigenvalues_[:, None] * spectrum.components_
    np.testing.assert_allclose(
        np.linalg.norm(defect, axis=1), spectrum.residuals_, rtol=1e-6, atol=1e-12
    )
    assert spectrum.loss_ == pytest.approx(risk(theta[0]), rel=1e-12)
    gradient = np.linalg.norm(risk.gradient(theta[0]))
    assert spectrum.gradient_norm_ == pytest.approx(gradient, rel=1e-12)


@pytest.mark.parametrize("one_class", [True, False])
def test_an_eigenvalue_lies_within_each_residual_of_products_in_float32(digits, one_class):
    """The residual of what is found to rounding would come out as 0, and be wrong."""
    X, y = digits
    few = (X[y == 0], y[y == 0]) if one_class else digits
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 10))
    risk, exact = (
        EmpiricalRisk(module, nn.CrossEntropyLoss(), *few, dtype=dtype)
        for dtype in (None, "float64")
    )
    theta = risk.snapshot()
    spectrum = HessianSpectrum(risk, 6, tol=1e-4, random_state=0).fit(theta)
    eigenvalues = np.linalg.eigvalsh(exact.matmat(theta[0].astype(float), np.eye(len(theta[0]))))
    distance = np.abs(spectrum.eigenvalues_[:, None] - eigenvalues).min(axis=1)
    assert (distance <= spectrum.residuals_).all()
    products = exact.matmat(theta[0].astype(float), spectrum.components_.T).T
    true = np.linalg.norm(products - spectrum.eigenvalues_[:, None] * spectrum.components_, axis=1)
    assert (true <= 1.1 * spectrum.residuals_).all()
    assert spectrum.residuals_.max() <= 1e-4 * spectrum.eigenvalues_[0]


def test_more_products_certify_a_smaller_error(trained, digits, true_eigenvalues):
    risk = risk_of(trained, digits)
    bounds, products = [], []
    for n_verify in (5, 10, 30):
        spectrum = HessianSpectrum(risk, 10, n_verify=n_verify, random_state=0)
        spectrum.fit(risk.snapshot())
        error = np.abs(spectrum.eigenvalues_ - true_eigenvalues[:10]).max() / true_eigenvalues[0]
        assert error <= spectrum.missed_eigenvalue_bound_
        bounds.append(spectrum.missed_eigenvalue_bound_)
        products.append(spectrum.n_matvecs_)
    assert bounds[0] > 10 * bounds[2]
    assert sorted(bounds, reverse=True) == bounds
    assert sorted(products) == products
    explicit = HessianSpectrum(bowl, 2).fit(np.ones((1, 5)))
    assert explicit.missed_eigenvalue_bound_ < 1e-13


def test_loss_times_c_scales_the_spectrum_by_c(trained, digits):
    def loss(z, t):
        return nn.functional.cross_entropy(z, t)

    def scaled(z, t):
        return 8 * nn.functional.cross_entropy(z, t)

    one = EmpiricalRisk(trained, loss, *digits, dtype=torch.float64)
    eight = EmpiricalRisk(trained, scaled, *digits, dtype=torch.float64)
    settings = {"n_components": 5, "random_state": 0}
    first = HessianSpectrum(one, **settings).fit(one.snapshot())
    second = HessianSpectrum(eight, **settings).fit(one.snapshot())
    np.testing.assert_allclose(second.eigenvalues_, 8 * first.eigenvalues_, rtol=1e-9)
    np.testing.assert_allclose(second.components_, first.components_, atol=1e-6)


def test_permuting_hidden_units_permutes_the_eigenvectors(trained, digits):
    order = np.random.default_rng(0).permutation(32)
    moved = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    with torch.no_grad():
        moved[0].weight.copy_(trained[0].weight[order])
        moved[0].bias.copy_(trained[0].bias[order])
        moved[2].weight.copy_(trained[2].weight[:, order])
        moved[2].bias.copy_(trained[2].bias)
    where = np.arange(2410)
    where[:2048] = where[:2048].reshape(32, 64)[order].ravel()
    where[2048:2080] = where[2048:2080][order]
    where[2080:2400] = where[2080:2400].reshape(10, 32)[:, order].ravel()
    pairs = []
    for module in (trained, moved):
        risk = risk_of(module, digits, dtype=torch.float64)
        pairs.append(HessianSpectrum(risk, 4, tol=1e-7, random_state=0).fit(risk.snapshot()))
    first, second = pairs
    np.testing.assert_allclose(second.eigenvalues_, first.eigenvalues_, rtol=1e-10)
    np.testing.assert_allclose(second.components_, first.components_[:, where], atol=1e-5)


def test_the_whole_spectrum_adds_up_to_the_trace():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((30, 4)), rng.integers(0, 3, 30)
    risk = EmpiricalRisk(nn.Linear(4, 3), nn.CrossEntropyLoss(), X, y, dtype=torch.float64)
    theta = risk.snapshot()
    spectrum = HessianSpectrum(risk, n_components=15).fit(theta)
    hessian = risk.matmat(theta[0], np.eye(15))
    assert spectrum.eigenvalues_.sum() == pytest.approx(np.trace(hessian), rel=1e-13)
    rebuilt = (spectrum.components_.T * spectrum.eigenvalues_) @ spectrum.components_
    np.testing.assert_allclose(rebuilt, hessian, atol=1e-14)
    assert spectrum.n_matvecs_ == 15


@pytest.mark.parametrize("width", [5, 300])
@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("largest", [4, 2, 1]),
        ("smallest", [-3, -0.5]),
        ("magnitude", [4, -3, 2, 1, -0.5]),
        ("both", [4, 2, -3]),
    ],
)
def test_dense_and_krylov_ways_find_the_same_ends(which, expected, width):
    spectrum = HessianSpectrum(bowl, len(expected), which=which, random_state=0)
    spectrum.fit(np.ones((1, width)))
    np.testing.assert_allclose(spectrum.eigenvalues_, expected, rtol=1e-12)
    largest = np.abs(spectrum.components_).argmax(axis=1)
    assert (spectrum.components_[np.arange(len(expected)), largest] > 0).all()


@pytest.mark.parametrize("width", [3, 300])
def test_a_zero_hessian_is_a_result_without_a_warning(width):
    spectrum = HessianSpectrum(torch.sum).fit(np.ones((2, width)))
    k = min(10, width)
    assert spectrum.eigenvalues_.tolist() == [0.0] * k
    assert spectrum.residuals_.tolist() == [0.0] * k
    assert spectrum.gradient_norm_ == pytest.approx(np.sqrt(width))
    assert spectrum.orthogonality_error_ < 1e-13


def test_zeros_of_a_hessian_of_low_rank_are_not_doubted():
    spectrum = HessianSpectrum(bowl, 8, which="magnitude", random_state=0).fit(np.ones((1, 400)))
    expected = np.r_[SLOPES, np.zeros(3)]
    np.testing.assert_allclose(spectrum.eigenvalues_, expected, atol=1e-12)


def test_eigenvalues_that_tol_does_not_resolve_are_named():
    X = np.ones((1, 300))
    with pytest.warns(ConvergenceWarning, match=r"not resolved: .*\b19 \("):
        HessianSpectrum(steep, 20, tol=1e-2, random_state=0).fit(X)
    HessianSpectrum(steep, 20, tol=1e-8, random_state=0).fit(X)  # a warning would be an error


def test_a_run_that_is_cut_short_says_by_how_much():
    spectrum = HessianSpectrum(steep, 4, tol=1e-6, max_matvecs=5, random_state=0)
    with pytest.warns(ConvergenceWarning, match="did not converge in 5 .*Raise max_matvecs"):
        spectrum.fit(np.ones((1, 300)))
    assert spectrum.n_matvecs_ == 5


def test_a_budget_that_ends_where_the_krylov_space_closes_blames_no_residual():
    spectrum = HessianSpectrum(bowl, 3, which="magnitude", max_matvecs=6, random_state=0)
    with pytest.warns(ConvergenceWarning, match="All 3 eigenpairs have small residuals, but 6 Hes"):
        spectrum.fit(np.ones((1, 400)))  # five slopes and zero: closed after six products
    assert spectrum.residuals_.max() < 1e-10


def test_transform_centres_projects_and_comes_back(rows):
    spectrum = HessianSpectrum(bowl, 2, point="first").fit(rows)
    np.testing.assert_allclose(spectrum.transform(rows[:1]), np.zeros((1, 2)))
    Z = spectrum.transform(rows)
    np.testing.assert_allclose(Z, (rows - rows[0])[:, [0, 2]], atol=1e-14)
    np.testing.assert_allclose(spectrum.transform(spectrum.inverse_transform(Z)), Z, atol=1e-14)
    np.testing.assert_allclose(spectrum.inverse_transform(np.zeros((1, 2))), rows[:1])
    bare = HessianSpectrum(bowl, 2, point="first", center=False).fit(rows)
    np.testing.assert_allclose(bare.transform(rows), rows[:, [0, 2]], atol=1e-14)
    np.testing.assert_allclose(bare.inverse_transform(np.zeros((1, 2))), np.zeros((1, 5)))
    with pytest.raises(ValueError, match="Z has 3 columns, but n_components_ = 2"):
        spectrum.inverse_transform(np.ones((1, 3)))


def test_all_components_give_every_row_back(rows):
    spectrum = HessianSpectrum(bowl).fit(rows)
    assert spectrum.n_components_ == 5
    np.testing.assert_allclose(
        spectrum.inverse_transform(spectrum.transform(rows)), rows, atol=1e-13
    )


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ("last", lambda X: X[-1]),
        ("first", lambda X: X[0]),
        ("mean", lambda X: X.mean(axis=0)),
        (2, lambda X: X[2]),
        (-2, lambda X: X[-2]),
        (np.arange(5.0), lambda X: np.arange(5.0)),
    ],
)
def test_point_is_a_row_their_mean_or_a_vector(rows, point, expected):
    spectrum = HessianSpectrum(lambda t: (t**3).sum() / 6, 5, point=point).fit(rows)
    np.testing.assert_allclose(spectrum.point_, expected(rows), rtol=1e-15)
    np.testing.assert_allclose(spectrum.eigenvalues_, np.sort(expected(rows))[::-1], rtol=1e-13)


def test_float32_rows_in_float32_rows_out_and_spectra_in_float64(rows):
    X = rows.astype(np.float32)
    spectrum = HessianSpectrum(bowl, 2).fit(X)
    Z = spectrum.transform(X)
    assert Z.dtype == spectrum.inverse_transform(Z).dtype == np.float32
    assert spectrum.eigenvalues_.dtype == spectrum.components_.dtype == np.float64
    assert spectrum.transform(X.astype(np.float64)).dtype == np.float64


def global_states():
    numpy_state = np.random.get_state()  # noqa: NPY002 - it is the old one that is global
    return numpy_state[1].tobytes(), numpy_state[2], torch.get_rng_state().numpy().tobytes()


def test_the_same_seed_gives_the_same_bits_and_the_global_generators_are_left_alone():
    X = np.ones((1, 300))
    before = global_states()
    first, second = (HessianSpectrum(steep, 5, random_state=7).fit(X) for _ in range(2))
    np.testing.assert_array_equal(first.components_, second.components_)
    assert global_states() == before
    other = HessianSpectrum(steep, 5, random_state=8).fit(X)
    assert not np.array_equal(first.components_, other.components_)


def test_clone_shares_the_risk_and_a_pickle_transforms_alike(trained, digits):
    risk = risk_of(trained, digits)
    spectrum = HessianSpectrum(risk, 2, random_state=0).fit(risk.snapshot())
    assert clone(spectrum).loss is risk
    again = pickle.loads(pickle.dumps(spectrum))
    X = risk.snapshot() + 1
    np.testing.assert_array_equal(again.transform(X), spectrum.transform(X))


def test_a_pipeline_may_pass_the_targets_of_the_data(rows):
    pipeline = make_pipeline(HessianSpectrum(bowl, 2)).set_output(transform="pandas")
    frame = pipeline.fit_transform(rows, np.zeros(1797))
    assert list(frame.columns) == ["hessianspectrum0", "hessianspectrum1"]
    assert frame.shape == (6, 2)


def test_progress_is_a_line_in_logs_and_a_bar_on_a_terminal(rows, capsys, monkeypatch):
    HessianSpectrum(bowl, verbose=1).fit(rows)
    assert "HessianSpectrum: 5 products" in capsys.readouterr().err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    HessianSpectrum(bowl, verbose=1).fit(rows)
    assert "HessianSpectrum" in capsys.readouterr().err
    HessianSpectrum(bowl, verbose=0).fit(rows)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": None}, "loss=None: a loss is needed"),
        ({"loss": 3}, "'loss' parameter"),
        ({"n_components": 0}, "'n_components' parameter"),
        ({"tol": 0.0}, "'tol' parameter"),
        ({"n_probes": 0}, "'n_probes' parameter"),
        ({"n_verify": 0}, "'n_verify' parameter"),
        ({"curvature": "kfac"}, "'curvature' parameter"),
        ({"curvature": "ggn"}, "curvature='ggn' needs an EmpiricalRisk"),
        ({"memory_budget": "all"}, "'memory_budget' parameter"),
        ({"memory_budget": 100}, "memory_budget=100 bytes must be >="),
        ({"which": "top"}, "'which' parameter"),
        ({"point": 6}, r"point=6 must be a row of X, in \[-6, 5\]"),
        ({"point": "middle"}, "'point' parameter"),
        ({"point": [1.0, 2.0]}, r"point of shape \(2,\) must be a finite vector of shape \(5,\)"),
        ({"point": np.full(5, np.nan)}, "must be a finite vector"),
        ({"max_matvecs": 2}, "max_matvecs=2 must be >= n_components = 5"),
        ({"loss": lambda t: t}, "must be a scalar"),
        ({"loss": lambda t: t.sum() / 0}, "must be finite"),
    ],
)
def test_bad_parameters_are_named(rows, change, message):
    with pytest.raises(ValueError, match=message):
        HessianSpectrum(**({"loss": bowl} | change)).fit(rows)


def test_snapshots_of_another_module_are_named(trained, digits, rows):
    message = "X has 5 columns, but loss has n_parameters = 2410.*Of a sketch.*endpoints_"
    with pytest.raises(ValueError, match=message):
        HessianSpectrum(risk_of(trained, digits)).fit(rows)


def test_nan_and_unfitted_are_named(rows):
    with pytest.raises(
        ValueError, match=r"X contains NaN in row 0.*Pass only the snapshots before"
    ):
        HessianSpectrum(bowl).fit(np.full((2, 5), np.nan))
    with pytest.raises(NotFittedError):
        HessianSpectrum(bowl).transform(rows)


def test_check_estimator_raises_nothing_and_skips_nothing():
    # A skip warns, and a warning is an error here.
    results = check_estimator(HessianSpectrum(loss=rosenbrock), on_fail="raise", on_skip="warn")
    assert {result["status"] for result in results} == {"passed"}
