"""Slopes of coordinates along columns: closed forms, the ranking, and the check."""

import numpy as np
import pytest

from skdmap import DiffusionMap, EmpiricalRisk, make_mlp
from skdmap.diagnostics import _coordinate_gradients as module
from skdmap.diagnostics import coordinate_gradients


@pytest.fixture
def X():
    return np.random.default_rng(0).random((150, 5))


def test_slopes_of_a_linear_coordinate_are_its_coefficients(X):
    slopes = np.array([[1.0, -2.0, 0.0, 0.5, 3.0], [0.0, 1.0, 1.0, 0.0, 0.0]])
    result = coordinate_gradients(X @ slopes.T + 7.0, X)
    np.testing.assert_allclose(result.gradients, np.broadcast_to(slopes, (150, 2, 5)), atol=1e-10)
    np.testing.assert_allclose(result.rms, np.abs(slopes), atol=1e-10)
    np.testing.assert_allclose(result.explained, 1.0, atol=1e-12)
    assert result.ranking[0].tolist() == [4, 1, 0, 3, 2]


def test_slopes_follow_the_derivative_of_a_smooth_coordinate():
    X = np.random.default_rng(1).random((4000, 2))
    result = coordinate_gradients(np.sin(3 * X[:, :1]) + X[:, 1:] ** 2, X)
    expected = np.column_stack([3 * np.cos(3 * X[:, 0]), 2 * X[:, 1]])
    inner = np.all((X > 0.1) & (X < 0.9), axis=1)
    error = result.gradients[inner, 0] - expected[inner]
    assert np.sqrt(np.mean(error**2)) < 0.02 * np.sqrt(np.mean(expected**2))


def test_slopes_in_wide_data_are_the_smallest_that_fit():
    """Fewer neighbours than columns: the slopes are the projection on the plane of the data."""
    rng = np.random.default_rng(2)
    basis = np.linalg.qr(rng.normal(size=(400, 3)))[0]
    X = rng.random((100, 3)) @ basis.T
    gradient = rng.normal(size=400)
    result = coordinate_gradients(X @ gradient[:, None], X)
    np.testing.assert_allclose(
        result.gradients[:, 0], np.tile(basis @ (basis.T @ gradient), (100, 1)), atol=1e-9
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_columns_that_move_rank_first(seed):
    rng = np.random.default_rng(seed)
    X = 0.1 * rng.normal(size=(300, 10))
    t = rng.random(300)
    X[:, 3] += np.cos(np.pi * t)
    X[:, 7] += np.sin(np.pi * t)
    mapping = DiffusionMap(1, bandwidth="auto").fit(X)
    assert set(coordinate_gradients(mapping, X).ranking[0, :2]) == {3, 7}


def test_a_coordinate_of_noise_is_not_explained(X):
    noise = np.random.default_rng(3).normal(size=(150, 1))
    wide = np.random.default_rng(4).normal(size=(150, 60))
    assert coordinate_gradients(noise, X).explained[0] < 0.2
    assert coordinate_gradients(noise, wide).explained[0] < 0.2


def test_blocks_change_nothing(X, monkeypatch):
    coordinates = np.column_stack([np.sin(X.sum(axis=1)), X[:, 0] * X[:, 1]])
    whole = coordinate_gradients(coordinates, X)
    monkeypatch.setattr(module, "_BLOCK", 2000)
    monkeypatch.setattr(module, "_KEPT", 10)
    blocks = coordinate_gradients(coordinates, X)
    assert blocks.gradients is None
    np.testing.assert_allclose(blocks.rms, whole.rms, rtol=1e-10)
    np.testing.assert_allclose(blocks.explained, whole.explained, rtol=1e-10)
    np.testing.assert_allclose(whole.rms**2, np.mean(whole.gradients**2, axis=0), rtol=1e-10)


def test_order_and_units(X):
    coordinates = np.sin(2 * X[:, :1]) + X[:, 1:2]
    result = coordinate_gradients(coordinates, X)
    order = np.random.default_rng(0).permutation(150)
    other = coordinate_gradients(coordinates[order], 10 * X[order])
    np.testing.assert_allclose(10 * other.gradients, result.gradients[order], atol=1e-10)


def test_samples_without_coordinates_are_left_out(X):
    coordinates = X[:, :1].copy()
    coordinates[4] = np.nan
    result = coordinate_gradients(coordinates, X)
    assert np.isnan(result.gradients[4]).all()
    np.testing.assert_allclose(np.delete(result.gradients, 4, axis=0)[:, 0, 0], 1.0, atol=1e-9)


def test_duplicates_do_no_harm(X):
    doubled = np.repeat(X[:40], 40, axis=0)
    result = coordinate_gradients(doubled[:, :1], doubled)
    assert np.isfinite(result.gradients).all()


def test_shares_of_the_layers_of_a_network_sum_to_one_and_agree_with_difference_quotients():
    layout = EmpiricalRisk(
        make_mlp(3, 1, hidden=4), lambda out, y: (out**2).mean(), np.ones((2, 3)), np.ones(2)
    ).parameter_layout
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(layout.n_parameters, 3)))[0]
    plane = 0.1 * rng.random((2000, 3))

    def coordinate(theta):
        return np.tanh(theta[..., :16]).sum(-1) + (theta[..., 16:] ** 2).sum(-1)

    snapshots = 0.3 + plane @ directions.T
    result = coordinate_gradients(coordinate(snapshots)[:, None], snapshots)
    step = 1e-6
    quotients = np.stack(
        [
            (coordinate(snapshots + step * d) - coordinate(snapshots - step * d)) / (2 * step)
            for d in directions.T
        ],
        axis=1,
    )
    expected = np.mean((quotients @ directions.T) ** 2, axis=0)
    shares = result.shares_by_layer(layout)
    assert sum(shares.values())[0] == pytest.approx(1.0, abs=1e-12)
    assert list(shares) == list(dict.fromkeys(n.rpartition(".")[0] for n in layout.names))
    for layer, share in shares.items():
        columns = np.concatenate(
            [
                np.r_[part]
                for name, part in zip(layout.names, layout.slices, strict=True)
                if name.rpartition(".")[0] == layer
            ]
        )
        assert share[0] == pytest.approx(expected[columns].sum() / expected.sum(), abs=0.01)


def test_names_come_from_a_data_frame(X):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcde"))
    result = coordinate_gradients(X[:, 2:3], frame)
    assert result.summary(1) == (
        "Coordinate 0 moves with c (100 % of the squared slope); the slopes explain 100 % of the "
        "changes between neighbours."
    )


@pytest.mark.parametrize(
    ("coordinates", "columns", "message"),
    [
        (np.ones((149, 1)), None, "X has 150 rows and the map has 149"),
        (np.ones((150, 1)), ["a"], r"columns has shape \(1,\)"),
        (np.full((150, 1), np.nan), None, "0 samples have finite coordinates"),
    ],
)
def test_bad_input_is_named(X, coordinates, columns, message):
    with pytest.raises(ValueError, match=message):
        coordinate_gradients(coordinates, X, columns=columns)
