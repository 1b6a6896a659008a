from itertools import pairwise

import numpy as np
import pytest

from skdmap.diagnostics import local_dimension, random_walk
from skdmap.diagnostics._dense_diffusion_map import slope_dimension, squared_distances


def test_each_window_has_the_dimension_of_its_rows():
    rows = random_walk(90, 30, random_state=0)
    found = local_dimension(rows, window=40, stride=25, n_surrogates=3, random_state=0)
    expected = [slope_dimension(squared_distances(rows[i : i + 40])) for i in (0, 25, 50)]
    np.testing.assert_allclose(found.dimension, expected, rtol=1e-9)
    np.testing.assert_array_equal(found.centers, [19.5, 44.5, 69.5])


def test_a_run_that_settles_on_a_line_is_seen_in_its_last_windows():
    walk = random_walk(200, 500, step_norms=1.0, random_state=0)
    line = walk[-1] + np.outer(np.arange(1.0, 201.0), np.eye(500)[0])
    rows = np.concatenate([walk, line])
    found = local_dimension(
        rows, window=100, stride=100, null="random_walk", n_surrogates=19, random_state=0
    )
    np.testing.assert_allclose(found.dimension, [1.9, 1.9, 1.0, 1.0], atol=0.1)
    # A walk lies within its surrogates, a line below them.
    assert (found.dimension < found.lower).tolist() == [False, False, True, True]
    assert "in 2 windows" in found.summary()


def test_an_exclusion_window_sees_through_the_smoothness_of_a_path():
    # A slow path that fills a square: neighbours in time make it look like a line.
    rng = np.random.default_rng(0)
    corners = rng.random((41, 2))
    rows = np.concatenate([np.linspace(a, b, 10, endpoint=False) for a, b in pairwise(corners)])
    plain, excluded = (
        local_dimension(rows, window=400, exclusion=e, n_surrogates=2, random_state=0).dimension[0]
        for e in (0, 20)
    )
    assert excluded > plain + 0.1


def test_windows_stay_within_runs_and_take_their_steps():
    rows = np.concatenate([random_walk(n, 20, random_state=n) for n in (50, 70)])
    ids, steps = (
        np.repeat(["x", "y"], [50, 70]),
        np.concatenate([np.arange(50), np.arange(70)]) * 10,
    )
    found = local_dimension(
        rows, run_ids=ids, steps=steps, window=40, stride=20, n_surrogates=2, random_state=0
    )
    assert found.run_ids.tolist() == ["x", "y", "y"]
    np.testing.assert_array_equal(found.centers, [195.0, 195.0, 395.0])


def test_windows_that_do_not_move_have_no_dimension():
    rows = np.concatenate([random_walk(40, 5, random_state=0), np.zeros((40, 5))])
    found = local_dimension(rows, window=20, stride=60, n_surrogates=2, random_state=0)
    assert np.isnan(found.dimension).tolist() == [False, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 5}, "window=5 must be an integer of at least 10"),
        ({"window": 31}, "window=31 must be at most 30"),
        ({"window": 20, "exclusion": 11}, "exclusion=11 must be at most 10"),
        ({"window": 20, "stride": 0}, "stride=0"),
        ({"window": 20, "steps": [1, 2]}, r"steps has shape \(2,\)"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        local_dimension(np.eye(30), **options)


def test_the_quantiles_are_those_of_the_surrogates():
    walks = np.concatenate([random_walk(60, 40, random_state=i) for i in (0, 1)])
    result = local_dimension(
        walks, run_ids=np.repeat([0, 1], 60), window=30, n_surrogates=19, random_state=0
    )
    drawn = result.surrogate_dimensions
    assert drawn.shape == (len(result.dimension), 19)
    np.testing.assert_array_equal(result.median, np.median(drawn, axis=1))
    np.testing.assert_array_equal(result.lower, np.quantile(drawn, 0.025, axis=1))
    # Each window has draws of its own.
    assert len(np.unique(drawn)) == drawn.size
