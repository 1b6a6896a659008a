"""The score: a held-out log-likelihood by which a grid search alone finds a bandwidth."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KNeighborsTransformer
from sklearn.pipeline import make_pipeline

from skdmap import DiffusionMap
from skdmap.datasets import make_double_well_trajectory, make_s_curve, make_swiss_roll
from skdmap.diffusion import _score
from skdmap.diffusion._distance_histogram import distance_histogram
from skdmap.diffusion._score import score_dimension

# A grid holds bad bandwidths on purpose; what they warn of is not the matter here.
pytestmark = pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
EPS = np.finfo(np.float64).eps


@pytest.fixture(scope="module")
def sheet():
    X = make_s_curve(400, random_state=0).X
    return X[:300], X[300:]


def density_by_the_book(fitted, X, Z, h):
    """The docstring's formula, row by row, with d and spread of the fit; h a length or (n,)."""
    d, spread = fitted._density.units.dimension, fitted._density.units.spread
    squares = cdist(Z, X, "sqeuclidean")
    kernel = np.exp(-squares / (2 * np.square(h))) / (h / spread) ** d
    return np.log(kernel.mean(axis=1) + EPS / len(X)) - d / 2 * np.log(2 * np.pi)


@pytest.mark.parametrize("h", [0.1, 0.4, 2.0])
def test_it_is_the_formula_of_the_docstring(sheet, h):
    X, Z = sheet
    fitted = DiffusionMap(bandwidth=h).fit(X)
    rows = density_by_the_book(fitted, X, Z, h)
    assert fitted.score(Z) == pytest.approx(rows.mean(), rel=1e-12)
    weight = np.arange(len(Z))
    assert fitted.score(Z, sample_weight=weight) == pytest.approx(
        np.average(rows, weights=weight), rel=1e-12
    )


def test_spread_is_the_root_mean_square_distance_from_the_mean():
    X = make_s_curve(200, random_state=0).X
    by_columns = np.sqrt(np.square(X - X.mean(axis=0)).sum(axis=1).mean())
    # Distances are shared out to bins of 5 % in d^2.
    assert DiffusionMap().fit(X)._density.units.spread == pytest.approx(by_columns, rel=1e-3)


def test_local_uses_the_length_of_each_training_row_alone(sheet):
    X, Z = sheet
    fitted = DiffusionMap(bandwidth="local").fit(X)
    rows = density_by_the_book(fitted, X, Z, fitted.bandwidth_)
    assert fitted.score(Z) == pytest.approx(rows.mean(), rel=1e-12)


def rolls(n_samples):
    return make_swiss_roll(n_samples, noise=0.3, random_state=0).X


SETS = {
    "s-curve": (make_s_curve(600, random_state=0).X, np.geomspace(0.05, 1.6, 9)),
    "roll": (rolls(700), np.geomspace(0.4, 12, 9)),
    "normal": (np.random.default_rng(0).standard_normal((500, 3)), np.geomspace(0.1, 3, 9)),
    "large roll": (rolls(5400), np.geomspace(0.2, 6, 9)),
    "large cube": (np.random.default_rng(1).random((5400, 2)), np.geomspace(0.004, 0.12, 9)),
}


@pytest.mark.slow
@pytest.mark.parametrize("n_neighbors", [15, 30])
@pytest.mark.parametrize("name", SETS)
def test_a_grid_search_picks_what_a_dense_likelihood_picks(name, n_neighbors):
    X, grid = SETS[name]
    folds = KFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(
        DiffusionMap(1, n_neighbors=n_neighbors), {"bandwidth": grid}, cv=folds, refit=False
    )
    found = search.fit(X).best_params_["bandwidth"]
    dense = np.zeros(grid.size)
    for train, test in folds.split(X):
        fitted = DiffusionMap(1, n_neighbors=n_neighbors).fit(X[train])
        dense += [density_by_the_book(fitted, X[train], X[test], h).mean() for h in grid]
    best = grid[dense.argmax()]
    assert 1 / 1.5 < found / best < 1.5
    assert grid[0] < best < grid[-1]


def test_local_has_one_score_whatever_the_neighbours(sheet):
    """At least seven; groups that are left out of the fit, which depend on them, count, too."""
    X, Z = sheet
    X = np.vstack([X, X[:9] + 30])
    scores, dropped = [], set()
    for n_neighbors in (7, 15, 60, 290, None):
        fitted = DiffusionMap(bandwidth="local", n_neighbors=n_neighbors).fit(X)
        scores.append(fitted.score(Z))
        dropped.add(int((fitted.component_labels_ < 0).sum()))
    np.testing.assert_allclose(scores, scores[0], rtol=1e-12)
    assert len(dropped) > 1
    h = np.sort(cdist(X, X), axis=1)[:, 7]
    h = np.clip(h, np.sort(h)[154] / 20, 20 * np.sort(h)[154])
    assert scores[0] == pytest.approx(density_by_the_book(fitted, X, Z, h).mean(), rel=1e-12)


def test_numbers_and_local_compare():
    """Where the density varies, lengths that follow it have the higher likelihood."""
    rng = np.random.default_rng(0)
    X = np.exp(1.5 * rng.standard_normal((600, 2)))
    train, test = X[:400], X[400:]
    local = DiffusionMap(bandwidth="local").fit(train).score(test)
    numbers = [DiffusionMap(bandwidth=h).fit(train).score(test) for h in np.geomspace(0.05, 5, 9)]
    assert local > max(numbers)


def test_a_variable_bandwidth_uses_the_length_of_each_training_row_alone(sheet):
    X, Z = sheet
    fitted = DiffusionMap(bandwidth=0.4, bandwidth_exponent=-0.5).fit(X)
    rows = density_by_the_book(fitted, X, Z, 0.4 * fitted._extension.kernel.train_scale)
    assert fitted.score(Z) == pytest.approx(rows.mean(), rel=1e-12)


@pytest.mark.parametrize("h", [1e-3, 0.4, 30.0])
@pytest.mark.parametrize(
    ("n_neighbors", "scale"),
    # Squares overflow at 1e200, which scikit-learn's trees refuse.
    [(None, 0.0), (None, 1e3), (None, 1e100), (None, 1e200), (20, 0.0), (20, 1e3), (20, 1e100)],
)
def test_finite_for_every_finite_row(sheet, h, n_neighbors, scale):
    X, Z = sheet
    fitted = DiffusionMap(bandwidth=h, n_neighbors=n_neighbors).fit(X)
    assert np.isfinite(fitted.score(scale * Z))


@pytest.mark.parametrize("bandwidth", ["auto", "local"])
def test_a_lost_row_costs_what_its_share_says_and_no_more(sheet, bandwidth):
    X, Z = sheet
    fitted = DiffusionMap(bandwidth=bandwidth).fit(X)
    lost = np.log(EPS / len(X)) - fitted._density.units.dimension / 2 * np.log(2 * np.pi)
    assert fitted.score(Z[:1] + 1e6) == pytest.approx(lost, rel=1e-12)
    assert fitted.score(Z) > lost


@pytest.mark.parametrize("factor", [1e-8, 1e8])
@pytest.mark.parametrize("bandwidth", [0.2, 1.0, "auto", "median", "local"])
def test_scaling_the_rows_changes_nothing(sheet, factor, bandwidth):
    X, Z = sheet
    scaled = bandwidth if isinstance(bandwidth, str) else factor * bandwidth
    one = DiffusionMap(bandwidth=bandwidth).fit(X).score(Z)
    other = DiffusionMap(bandwidth=scaled).fit(factor * X).score(factor * Z)
    assert other == pytest.approx(one, rel=1e-9)


@pytest.mark.parametrize(
    "params", [{"alpha": 0.0}, {"alpha": 0.5}, {"diffusion_time": 0.0}, {"n_components": 7}]
)
def test_constant_in_everything_but_data_and_bandwidth(sheet, params):
    X, Z = sheet
    plain = DiffusionMap(bandwidth=0.4).fit(X).score(Z)
    assert DiffusionMap(bandwidth=0.4, **params).fit(X).score(Z) == plain


@pytest.mark.parametrize("n_samples", [300, 2100])
def test_units_do_not_depend_on_the_bandwidth(n_samples):
    X = make_s_curve(n_samples, random_state=0).X
    units = [DiffusionMap(bandwidth=b).fit(X)._density.units for b in (0.3, 2.0, "auto", "local")]
    assert all(unit == units[0] for unit in units[1:])


def test_a_row_of_weight_two_equals_two_rows(sheet):
    X, Z = sheet
    weight = np.where(np.arange(len(X)) < 100, 2.0, 1.0)
    weighted = DiffusionMap(bandwidth=0.4).fit(X, sample_weight=weight)
    doubled = DiffusionMap(bandwidth=0.4).fit(np.vstack([X, X[:100]]))
    assert weighted.score(Z) == pytest.approx(doubled.score(Z), rel=1e-12)
    assert weighted.score(Z) != pytest.approx(DiffusionMap(bandwidth=0.4).fit(X).score(Z), rel=1e-6)


@pytest.mark.parametrize("bandwidth", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("columns", [3, 24])
def test_a_sparse_kernel_has_the_score_of_all_pairs(sheet, bandwidth, columns):
    """Up to 15 columns trees find the neighbours, above matrix products."""
    X, Z = (np.tile(part, columns // 3) for part in sheet)
    whole = DiffusionMap(bandwidth=bandwidth, n_neighbors=None).fit(X).score(Z)
    for n_neighbors in (5, 40):
        fitted = DiffusionMap(bandwidth=bandwidth, n_neighbors=n_neighbors).fit(X)
        assert fitted.score(Z) == pytest.approx(whole, rel=1e-9)
    transformer = KNeighborsTransformer(n_neighbors=12)
    fitted = DiffusionMap(bandwidth=bandwidth, neighbors_algorithm=transformer).fit(X)
    assert fitted.score(Z) == pytest.approx(whole, rel=1e-9)


def test_the_default_neighbours_of_many_samples_do_not_decide_a_grid_search():
    """Above 5,000 samples the default number of neighbours follows the bandwidth."""
    X = np.random.default_rng(1).random((5600, 5))
    train, test = X[:5200], X[5200:]
    grid = [0.08, 0.11, 0.15]
    models = [DiffusionMap(1, bandwidth=h, random_state=0).fit(train) for h in grid]
    assert len({model.n_neighbors_ for model in models}) > 1
    scores = [model.score(test) for model in models]
    assert models[0]._density.units == models[1]._density.units == models[2]._density.units
    expected = [
        density_by_the_book(model, train, test, h).mean()
        for model, h in zip(models, grid, strict=True)
    ]
    np.testing.assert_allclose(scores, expected, rtol=1e-10)
    assert np.argmax(scores) == np.argmax(expected)


def test_listed_distances_have_a_score_and_can_be_searched(sheet):
    X, Z = sheet
    lists = KNeighborsTransformer(mode="distance", n_neighbors=30)
    pipeline = make_pipeline(lists, DiffusionMap(metric="precomputed"))
    grid = {"diffusionmap__bandwidth": [0.03, 0.3]}
    search = GridSearchCV(pipeline, grid, error_score="raise").fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_params_ == {"diffusionmap__bandwidth": 0.3}
    assert np.isfinite(search.score(Z))


def all_pairs_profile(X):
    distances = np.sqrt(np.square(X[:, None] - X[None]).sum(axis=2))
    return distance_histogram(np.arange(len(X)), distances, np.full(len(X), 1 / len(X)))


def test_no_larger_bandwidth_beats_that_of_ten_neighbours_on_the_training_rows():
    profile = all_pairs_profile(make_swiss_roll(500, random_state=0).X)
    grid = np.geomspace(0.5, 100, 400)
    mean = np.log(np.maximum(profile.kernel_sums(grid), 1.0)).mean(axis=0)
    start = np.interp(np.log(10.0), mean, np.log(grid))
    beyond = np.log(grid) > start + 0.1
    gain = (mean[beyond] - np.log(10.0)) - (np.log(grid[beyond]) - start) * (
        score_dimension(profile) / 1.06
    )
    # 0 at the bandwidth that decides; interpolation on a grid of 5 % leaves 1e-2.
    assert gain.max() == pytest.approx(0.0, abs=1e-2)


@pytest.mark.parametrize("n_columns", [1, 2, 3])
def test_dimension_of_a_cube_and_a_margin(n_columns):
    X = np.random.default_rng(0).uniform(size=(1000, n_columns))
    # Above h10 the slope only falls, from the dimension on; rows at the faces lower it.
    assert 0.75 < score_dimension(all_pairs_profile(X)) / (1.06 * n_columns) < 1.2


@pytest.mark.parametrize("n_samples", [2, 3, 5])
def test_few_rows_have_a_score(n_samples):
    X = np.random.default_rng(0).normal(size=(n_samples, 2))
    fitted = DiffusionMap(n_components=1).fit(X)
    assert fitted._density.units.dimension > 0
    assert np.isfinite(fitted.score(X))


@pytest.mark.parametrize("outliers", [0, 5])
def test_grid_search_alone_unrolls_a_noisy_roll_with_and_without_outliers(outliers):
    roll = make_swiss_roll(700, noise=0.5, random_state=0)
    X, wave = roll.X.copy(), np.cos(np.pi * roll.arc_length)
    rng = np.random.default_rng(1)
    # One in each fold, or else the folds without would hide what the others do.
    lost = np.arange(outliers) * 140 + 7
    X[lost] = 200 * rng.normal(size=(outliers, 3))
    grid = {"bandwidth": np.geomspace(0.3, 30, 14)}
    search = GridSearchCV(DiffusionMap(), grid, error_score="raise").fit(X)
    kept = np.setdiff1d(np.arange(len(X)), lost)
    found = search.best_estimator_.embedding_[kept, 0]
    assert abs(np.corrcoef(found, wave[kept])[0, 1]) > 0.95
    # Not every bandwidth of the grid would do.
    largest = DiffusionMap(bandwidth=30.0).fit(X).embedding_[kept, 0]
    assert abs(np.corrcoef(largest, wave[kept])[0, 1]) < 0.6


def test_grid_search_alone_finds_the_slow_coordinate_of_a_double_well_in_fifty_columns():
    well = make_double_well_trajectory(600, random_state=0)
    grid = {"bandwidth": np.geomspace(0.05, 1.6, 11)}
    search = GridSearchCV(DiffusionMap(), grid, error_score="raise").fit(well.X)
    found = search.best_estimator_.embedding_[:, 0]
    assert abs(np.corrcoef(found, well.slow_coordinate)[0, 1]) > 0.95
    smallest = DiffusionMap(bandwidth=0.05).fit(well.X).embedding_[:, 0]
    assert abs(np.corrcoef(smallest, well.slow_coordinate)[0, 1]) < 0.8


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
def test_units_of_a_sparse_kernel_depend_on_the_rows_alone():
    """Whatever bandwidth, neighbours and solver are asked for; and about those of all pairs."""
    X = make_swiss_roll(1500, random_state=0).X
    settings = [(1.0, 16), (3.0, 16), ("auto", 16), ("local", 16), (1.0, 40)]
    units = [
        DiffusionMap(bandwidth=bandwidth, n_neighbors=k, random_state=0).fit(X)._density.units
        for bandwidth, k in settings
    ]
    assert all(other == units[0] for other in units[1:])
    whole = DiffusionMap(n_neighbors=None).fit(X)._density.units
    assert units[0].spread == pytest.approx(whole.spread, rel=0.02)
    assert units[0].dimension == pytest.approx(whole.dimension, abs=0.05)


def test_a_fit_that_is_not_scored_measures_no_distances_for_it(monkeypatch):
    X = np.random.default_rng(0).normal(size=(300, 2))
    calls, honest = [], _score.sample_histogram

    def counting(*arguments):
        calls.append(1)
        return honest(*arguments)

    monkeypatch.setattr(_score, "sample_histogram", counting)
    fitted = DiffusionMap().fit(X)
    assert not calls
    assert fitted.score(X) == fitted.score(X)
    assert len(calls) == 1
