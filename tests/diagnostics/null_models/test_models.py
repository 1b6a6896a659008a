import numpy as np
import pytest

import skdmap.diagnostics._null_models.recorded_steps as stage
from skdmap.diagnostics import random_walk, surrogate_trajectories
from skdmap.diagnostics._null_models.fits import drift_profile, lag_correlation, mean_reversion
from skdmap.diagnostics._null_models.models import NULL_MODELS

EPS = np.finfo(np.float64).eps


def norms(rows):
    return np.linalg.norm(np.diff(rows, axis=0), axis=1)


def mean_cosine(rows):
    steps = np.diff(rows, axis=0)
    unit = steps / np.linalg.norm(steps, axis=1)[:, None]
    return np.mean(np.sum(unit[1:] * unit[:-1], axis=1))


@pytest.mark.parametrize("kind", NULL_MODELS)
@pytest.mark.parametrize("n_columns", [3, 400])
def test_every_kind_keeps_step_lengths_run_by_run_and_where_runs_start(kind, n_columns):
    lengths = np.random.default_rng(0).gamma(2.0, size=(2, 30))
    runs = [random_walk(30, n_columns, step_norms=x, random_state=i) for i, x in enumerate(lengths)]
    shift = np.zeros(n_columns)
    shift[0] = 5.0
    rows, ids = np.concatenate([runs[0], runs[1] + shift]), np.repeat([4, 2], 30)
    # Rows of the runs may be interleaved.
    order = np.argsort(np.tile(np.arange(30), 2), kind="stable")
    rows, ids = rows[order], ids[order]
    made = list(
        surrogate_trajectories(rows, kind=kind, n_surrogates=3, run_ids=ids, random_state=0)
    )
    assert len(made) == 3
    for surrogate in made:
        for run in (4, 2):
            expected, found = norms(rows[ids == run]), norms(surrogate[ids == run])
            if kind == "shuffled_steps":
                expected, found = np.sort(expected), np.sort(found)
            np.testing.assert_allclose(found, expected, rtol=1e-9)
        starts = [x[ids == run][0] for x in (rows, surrogate) for run in (4, 2)]
        np.testing.assert_allclose(
            np.linalg.norm(starts[3] - starts[2]), np.linalg.norm(starts[1] - starts[0]), rtol=1e-9
        )
    assert not np.allclose(made[0], made[1])


def test_a_walk_loses_momentum_and_ar1_keeps_it():
    rows = random_walk(300, 1000, lag_correlation=0.9, random_state=0)
    found = {
        kind: mean_cosine(next(surrogate_trajectories(rows, kind=kind, random_state=0)))
        for kind in ("random_walk", "ar1", "shuffled_steps", "sign_flips")
    }
    # A cosine of random directions in 1000 dimensions is 1 / sqrt(1000) wide; 299 are averaged.
    error = 1 / np.sqrt(1000 * 299)
    assert abs(found["random_walk"]) < 6 * error
    assert abs(found["ar1"] - mean_cosine(rows)) < 6 * error
    # Flipped or shuffled, the recorded cosines of .9 come with random signs or not at all.
    assert abs(found["sign_flips"]) < 6 * 0.9 / np.sqrt(299)
    assert abs(found["shuffled_steps"]) < 0.2


def test_drift_keeps_the_distance_travelled():
    rows = random_walk(300, 1000, drift=0.4, random_state=0)
    recorded = np.linalg.norm(rows[-1] - rows[0])
    reached = {
        kind: np.mean(
            [
                np.linalg.norm(x[-1] - x[0])
                for x in surrogate_trajectories(rows, kind=kind, n_surrogates=10, random_state=0)
            ]
        )
        for kind in ("drift", "random_walk")
    }
    # Squared: sum of squares S (1 + n c^2) with a drift of cosine c = .4, S without.
    assert abs(reached["drift"] / recorded - 1) < 0.05
    assert abs(recorded / reached["random_walk"] / np.sqrt(1 + 299 * 0.4**2) - 1) < 0.1


def test_a_walk_has_no_drift():
    reached = []
    for seed in range(10):
        rows = random_walk(200, 1000, step_norms=1.0, random_state=seed)
        surrogate = next(surrogate_trajectories(rows, kind="drift", random_state=seed))
        reached.append(np.sum((surrogate[-1] - surrogate[0]) ** 2) / 199)
    # With the squares of the steps counted in, each would be given a drift that doubles it.
    assert 0.9 < np.mean(reached) < 1.2


def ornstein_uhlenbeck(n, d, pull, seed):
    rng = np.random.default_rng(seed)
    x = np.zeros((n, d))
    x[0] = rng.standard_normal(d) / np.sqrt(pull * (2 - pull))
    for i in range(1, n):
        x[i] = (1 - pull) * x[i - 1] + rng.standard_normal(d)
    return x


@pytest.mark.parametrize("pull", [0.05, 0.2, 0.6])
def test_the_pull_of_a_mean_reverting_path_is_found_and_kept(pull):
    rows = ornstein_uhlenbeck(400, 1000, pull, 0)
    steps = np.diff(rows, axis=0)
    assert abs(mean_reversion(steps @ steps.T)[0] / pull - 1) < 0.05
    surrogate = next(
        surrogate_trajectories(rows, kind="ornstein_uhlenbeck", n_surrogates=1, random_state=0)
    )
    # Radius about the mean: it neither shrinks nor grows.
    radii = [np.mean(np.var(x, axis=0).sum()) for x in (rows, surrogate)]
    assert abs(radii[1] / radii[0] - 1) < 0.12


def relaxing(n, d, pull, offset, seed, noise=1.0):
    """Return a path that starts ``offset`` radii of its equilibrium away from its centre."""
    rng = np.random.default_rng(seed)
    x = np.zeros((n, d))
    x[0, 0] = offset * np.sqrt(d / (pull * (2 - pull)))
    for i, size in zip(range(1, n), np.broadcast_to(noise, n - 1), strict=True):
        x[i] = (1 - pull) * x[i - 1] + size * rng.standard_normal(d)
    return x


@pytest.mark.parametrize("offset", [1.0, 3.0, 10.0])
@pytest.mark.parametrize("noise", [1.0, np.geomspace(1, 0.1, 199)])
def test_the_pull_and_the_way_to_the_centre_are_found_far_from_equilibrium(offset, noise):
    # 1000 columns are as many draws of one pull: its error is about a fiftieth.
    rows = relaxing(200, 1000, 0.05, offset, 0, noise)
    steps = np.diff(rows, axis=0)
    pull, velocity = mean_reversion(steps @ steps.T)
    assert abs(pull / 0.05 - 1) < 0.05
    assert abs(velocity / pull / rows[0, 0] - 1) < 0.1


def test_a_path_that_starts_in_its_centre_is_not_driven_away_from_it():
    # There the equation has a second root near 0, which is none.
    for seed in range(5):
        steps = np.diff(relaxing(200, 1000, 0.05, 0.0, seed), axis=0)
        pull, velocity = mean_reversion(steps @ steps.T)
        assert abs(pull / 0.05 - 1) < 0.05
        # The mean of 199 noises of mean square length 1000 is 2.2 long, and no drift.
        assert velocity < 1.2


def test_surrogates_of_a_path_that_falls_into_its_centre_do_so_too():
    rows = relaxing(200, 1000, 0.05, 3.0, 0)
    drawn = surrogate_trajectories(rows, kind="ornstein_uhlenbeck", random_state=0, n_surrogates=5)
    way = [np.linalg.norm(x - x[0], axis=1)[[10, 50, 199]] for x in (rows, *drawn)]
    np.testing.assert_allclose(np.mean(way[1:], axis=0), way[0], rtol=0.05)


def test_a_walk_has_no_pull():
    pulls = []
    for seed in range(20):
        steps = np.diff(random_walk(200, 1000, random_state=seed), axis=0)
        pulls.append(mean_reversion(steps @ steps.T)[0])
    # A regression of steps on places would find 3 / n = .015 in each.
    assert np.mean(pulls) < 0.003


def test_a_drift_is_no_pull():
    steps = np.diff(random_walk(200, 1000, drift=0.5, step_norms=1.0, random_state=0), axis=0)
    pull, velocity = mean_reversion(steps @ steps.T)
    assert pull < 2e-4
    assert abs(velocity - 0.5) < 0.02


def drifting(cosines, lengths, seed):
    """Return steps in 1000 dimensions with given cosines to one direction."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((len(cosines), 1000)) / np.sqrt(1000)
    drift = np.eye(1, 1000)
    return (cosines[:, None] * drift + np.sqrt(1 - cosines[:, None] ** 2) * noise) * lengths[
        :, None
    ]


def test_the_share_of_a_drift_that_dies_away_is_found():
    cosines, lengths = 0.9 * np.exp(-np.arange(300) / 80), np.geomspace(1, 0.3, 300)
    steps = drifting(cosines, lengths, 0)
    found = drift_profile(steps @ steps.T)
    # A cosine of random directions is 1 / sqrt(1000) = .03 wide; at the ends half a window is
    # missing, over which the share falls by a tenth.
    np.testing.assert_allclose(found[15:-15], cosines[15:-15], atol=0.04)
    np.testing.assert_allclose(found, cosines, atol=0.12)


def test_a_drift_that_dies_away_is_kept():
    cosines = 0.8 * np.exp(-np.arange(300) / 60)
    rows = np.cumsum(np.vstack([np.zeros(1000), drifting(cosines, np.ones(300), 0)]), axis=0)
    way = {
        kind: np.mean(
            [
                np.linalg.norm(x - x[0], axis=1)[[60, 150, 300]]
                for x in surrogate_trajectories(rows, kind=kind, n_surrogates=5, random_state=0)
            ],
            axis=0,
        )
        for kind in ("decaying_drift", "drift")
    }
    recorded = np.linalg.norm(rows - rows[0], axis=1)[[60, 150, 300]]
    np.testing.assert_allclose(way["decaying_drift"], recorded, rtol=0.05)
    # A drift that is an equal share of every step comes as far in the end, but not early.
    assert way["drift"][0] < 0.7 * recorded[0]


def test_a_path_without_a_common_direction_has_no_drift():
    assert drift_profile(np.array([[1.0, -0.5], [-0.5, 1.0]])).tolist() == [0.0, 0.0]
    steps = np.diff(random_walk(200, 1000, random_state=1), axis=0)
    # The direction is one of 200 steps: at most the share of a single step in it is seen.
    assert np.mean(drift_profile(steps @ steps.T)) < 0.1


def test_shuffles_and_flips_keep_the_steps_themselves():
    rows = random_walk(30, 50, random_state=0)
    steps = np.diff(rows, axis=0)
    for kind in ("shuffled_steps", "sign_flips"):
        made = np.diff(next(surrogate_trajectories(rows, kind=kind, random_state=1)), axis=0)
        spectra = [np.linalg.svd(x, compute_uv=False) for x in (steps, made)]
        np.testing.assert_allclose(spectra[1], spectra[0], rtol=1e-6)
        assert not np.allclose(made @ made.T, steps @ steps.T)


def test_the_same_seed_gives_the_same_surrogates_and_draws_of_its_own():
    rows = random_walk(20, 15, random_state=0)
    first, again, other = (
        np.stack(list(surrogate_trajectories(rows, n_surrogates=2, random_state=seed)))
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    # A walk and its null model must not share draws, though they were given one seed.
    null = next(surrogate_trajectories(rows, kind="random_walk", random_state=0))
    shared = np.abs(np.sum(np.diff(null, axis=0)[0] * np.diff(rows, axis=0)[0]))
    assert shared < 0.999 * norms(rows)[0] ** 2


def test_blocks_of_columns_and_float32_do_not_change_the_products(monkeypatch):
    rows = (1.0 + 1e-4 * np.random.default_rng(0).standard_normal((20, 60))).astype(np.float32)
    steps = np.diff(rows.astype(np.float64), axis=0)
    monkeypatch.setattr(stage, "_BLOCK_BYTES", 8 * 20 * 7)
    np.testing.assert_allclose(stage.recorded_steps(rows).gram, steps @ steps.T, rtol=1e-12)


def test_steps_of_length_zero_take_no_part_in_the_correlation():
    steps = np.array([[1.0, 0], [1, 0], [0, 0], [0, 1], [0, 1]])
    assert lag_correlation(steps @ steps.T) == 1.0


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (np.ones(5), {}, r"snapshots has shape \(5,\)"),
        (np.ones((6, 2)), {}, "run 0 never moves: its 6 snapshots are equal"),
        (np.full((6, 2), np.nan), {}, "snapshots contains NaN"),
        (np.eye(6), {"run_ids": [0, 1]}, r"run_ids has shape \(2,\); it must be \(6,\)"),
        (np.eye(6), {"run_ids": [0, 0, 0, 1, 1, 1]}, "run .* has 3 snapshots.*at least 5"),
        (np.eye(6), {"kind": "walk"}, "kind='walk' must be one of 'random_walk'"),
        (np.eye(6), {"n_surrogates": 0}, "n_surrogates=0"),
    ],
)
def test_bad_input_is_named_before_anything_is_drawn(rows, options, message):
    with pytest.raises(ValueError, match=message):
        surrogate_trajectories(rows, **options)
