"""Squared distances of wide samples are right to what is promised, from one pass over columns."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from skdmap.diffusion._wide.close_pairs import recompute_close_pairs
from skdmap.diffusion._wide.column_reader import WIDE, WideRows
from skdmap.diffusion._wide.distances import (
    cross_distances,
    find_pivots,
    own_distances,
    squares_from_pivots,
    with_pivots,
)

N_COLUMNS = WIDE + 37
# What the module promises of squared distances.
PROMISE = {np.float32: 1e-5, np.float64: 1e-9}


def late_training(n_rows, n_columns, seed=1):
    """Return rows that come to rest geometrically: distances over six orders of magnitude."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((3, n_columns))
    rates = 0.9 ** np.arange(n_rows)[:, None] * [1.0, 0.3, 0.1]
    return 1.0 + rates @ directions


def clusters(n_rows, n_columns, seed=2):
    """Return tight groups far from each other, in an order that mixes them."""
    rng = np.random.default_rng(seed)
    centres = 100.0 * rng.standard_normal((5, n_columns))
    return centres[rng.integers(0, 5, n_rows)] + 1e-3 * rng.standard_normal((n_rows, n_columns))


def last_layer_only(n_rows, n_columns, seed=3):
    """Return rows that differ in a few columns only, which a sample of the columns misses."""
    rows = np.ones((n_rows, n_columns))
    steps = 1e-3 * np.random.default_rng(seed).standard_normal((n_rows, 4))
    rows[:, 5000:5004] += np.cumsum(steps, axis=0)
    return rows


def squared(X, Y=None):
    X = X.astype(np.float64)
    return cdist(X, X if Y is None else Y.astype(np.float64)) ** 2


def worst(found, exact):
    positive = exact > 0
    assert (found[~positive] == 0).all()
    return float(np.abs(found[positive] / exact[positive] - 1).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", [None, late_training, clusters, last_layer_only])
def test_squared_distances_are_right_to_what_is_promised(make, dtype, walk):
    X = (make or walk)(150, N_COLUMNS).astype(dtype)
    _, D = own_distances(WideRows(X))
    assert worst(D**2, squared(X)) < PROMISE[dtype]
    np.testing.assert_array_equal(D, D.T)
    np.testing.assert_array_equal(np.diagonal(D), 0)


@pytest.mark.parametrize("factor", [2.0**-60, 2.0**60])
def test_scale_and_place_do_not_matter(factor, walk):
    """Squares of such entries do not fit single precision; a power of two is exact."""
    X = walk(80, N_COLUMNS)
    _, D = own_distances(WideRows(X))
    _, scaled = own_distances(WideRows(X * np.float32(factor)))
    np.testing.assert_allclose(scaled, D * factor, rtol=PROMISE[np.float32])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_new_rows_are_measured_as_training_rows_are(dtype, walk):
    X = walk(180, N_COLUMNS, dtype=dtype)
    train, D = own_distances(WideRows(X[::2].copy()))
    new = cross_distances(WideRows(X), train)
    assert worst(new**2, squared(X, X[::2])) < PROMISE[dtype]
    np.testing.assert_allclose(new[::2], D, rtol=PROMISE[dtype])
    one = cross_distances(WideRows(X[7:8].copy()), train)
    np.testing.assert_allclose(one[0], new[7], rtol=PROMISE[dtype])
    part = cross_distances(train[np.array([5, 2, 60])], train)
    np.testing.assert_allclose(part, D[[5, 2, 60]], rtol=PROMISE[dtype])


def test_most_close_pairs_need_no_second_reading(walk, Slices):
    """On a walk in order, groups of rows catch all but a few: X is read once, and a sample."""
    X = Slices(walk(400, N_COLUMNS))
    own_distances(WideRows(X))
    assert X.read < 1.2 * X.rows.size


def test_close_pairs_are_what_makes_the_promise_hold(monkeypatch):
    """Without them tight clusters have wrong distances: the second look is needed and taken."""
    X = last_layer_only(150, N_COLUMNS).astype(np.float32)
    exact = squared(X)
    monkeypatch.setattr(
        "skdmap.diffusion._wide.distances.recompute_close_pairs", lambda *arguments: None
    )
    _, D = own_distances(WideRows(X))
    assert worst(D**2, exact) > PROMISE[np.float32]
    train, product = with_pivots(WideRows(X))
    assert product.shape == (150, 150)
    values = D**2 * train.pivots.scale**2
    recompute_close_pairs(values, train, train)
    assert worst(values / train.pivots.scale**2, exact) < PROMISE[np.float32]


def test_groups_are_small_and_their_references_are_members():
    pivots = find_pivots(WideRows(clusters(300, N_COLUMNS).astype(np.float32)))
    counts = np.bincount(pivots.labels)
    assert counts.max() <= 48
    np.testing.assert_array_equal(pivots.labels[pivots.centres], np.arange(counts.size))


def test_how_far_out_a_row_lies_is_known_without_reading_it(walk):
    X = walk(90, N_COLUMNS, dtype=np.float64)
    weight = np.random.default_rng(0).uniform(0.5, 2, 90)
    weight /= weight.sum()
    train, _ = own_distances(WideRows(X))
    mass = np.bincount(train.pivots.labels, weights=weight)
    mean = mass @ X[train.pivots.centres]
    expected = ((X - mean) ** 2).sum(axis=1)
    np.testing.assert_allclose(squares_from_pivots(train, weight), expected, rtol=1e-9)


def test_values_too_large_for_single_precision_say_so(walk):
    X = walk(50, N_COLUMNS)
    spans = find_pivots(WideRows(X)).spans
    column = next(c for c in range(N_COLUMNS) if not any(a <= c < b for a, b in spans))
    X[:, column] = np.linspace(0, 1e30, 50)
    with pytest.raises(ValueError, match=r"squared differences overflow.*Rescale X"):
        own_distances(WideRows(X))
