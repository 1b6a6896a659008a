"""Coordinates back to rows: weighted local linear regression, exact for linear maps."""

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.datasets import load_digits
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split

from skdmap import DiffusionMap
from skdmap.datasets import make_swiss_roll
from skdmap.diffusion._preimage import far_from_embedding, preimage


def by_definition(z, embedding, X, weight):
    """Ridge regression on the max(30, 3k) nearest, one point at a time, by its normal equations."""
    k = embedding.shape[1]
    m = min(max(30, 3 * k), len(embedding))
    d = np.linalg.norm(embedding - z, axis=1)
    near = np.argsort(d, kind="stable")[:m]
    width = d[near[-1]] / 2
    g = weight[near] * np.exp(-(d[near] ** 2) / (2 * width**2))
    g /= g.sum()
    centre = g @ embedding[near]
    A = embedding[near] - centre
    C = A.T @ (g[:, None] * A)
    ridge = 1e-3 * np.trace(C) / k
    slope = np.linalg.solve(C + ridge * np.eye(k), A.T @ (g[:, None] * X[near]))
    return g @ X[near] + (z - centre) @ slope


@pytest.mark.parametrize("sparse", [False, True])
def test_regression_by_definition(sparse):
    rng = np.random.default_rng(0)
    embedding, X = rng.standard_normal((200, 3)), rng.standard_normal((200, 7))
    weight = rng.uniform(0.5, 2, 200)
    Z = rng.standard_normal((15, 3))
    rows = np.arange(200)
    found = preimage(Z, embedding, sp.csr_matrix(X) if sparse else X, rows, weight)
    expected = [by_definition(z, embedding, X, weight) for z in Z]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


def test_many_coordinates_need_three_neighbours_each():
    """With 12 coordinates 36 nearest samples, by definition."""
    rng = np.random.default_rng(2)
    embedding, X = rng.standard_normal((300, 12)), rng.standard_normal((300, 2))
    Z = rng.standard_normal((5, 12))
    found = preimage(Z, embedding, X, np.arange(300), np.ones(300))
    expected = [by_definition(z, embedding, X, np.ones(300)) for z in Z]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


def test_coordinates_outside_the_embedding_on_either_side():
    embedding = np.random.default_rng(0).uniform(0, 1, (50, 2))
    embedding[:2] = [[0.0, 0.0], [1.0, 1.0]]
    Z = np.array([[0.5, 0.5], [2.1, 0.5], [0.5, -1.1], [1.9, -0.9], [-5.0, 7.0]])
    np.testing.assert_array_equal(far_from_embedding(Z, embedding), [1, 2, 4])


def test_a_constant_column_comes_back_exactly_and_a_linear_one_nearly():
    rng = np.random.default_rng(1)
    embedding = rng.standard_normal((400, 2))
    X = np.column_stack([np.full(400, 3.0), embedding @ [2.0, -1.0] + 1])
    Z = 0.5 * rng.standard_normal((30, 2))
    found = preimage(Z, embedding, X, np.arange(400), np.ones(400))
    np.testing.assert_allclose(found[:, 0], 3.0, rtol=1e-12)
    # The ridge of 1e-3 bends a slope by 1e-3 of the way to the centre.
    np.testing.assert_allclose(found[:, 1], Z @ [2.0, -1.0] + 1, atol=5e-3)


def test_equal_training_coordinates_are_no_division_by_zero():
    X = np.arange(80.0).reshape(40, 2)
    found = preimage(np.zeros((2, 2)), np.zeros((40, 2)), X, np.arange(40), np.ones(40))
    assert np.isfinite(found).all()
    far = preimage(np.full((1, 2), 1e8), np.eye(40)[:, :2], X, np.arange(40), np.ones(40))
    assert np.isfinite(far).all()


def held_out_r2(model, X):
    train, test = train_test_split(X, test_size=0.3, random_state=0)
    model.fit(train)
    back = model.inverse_transform(model.transform(test))
    # Of the variance of all columns: some of digits are constant in the test rows.
    return r2_score(test, back, multioutput="variance_weighted")


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
@pytest.mark.parametrize("settings", [{}, {"bandwidth": "auto"}], ids=str)
def test_round_trip_of_a_swiss_roll_that_was_held_out(settings):
    roll = make_swiss_roll(2000, random_state=0)
    assert held_out_r2(DiffusionMap(10, **settings), roll.X) >= 0.98


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
@pytest.mark.parametrize("settings", [{}, {"bandwidth": "auto"}], ids=str)
def test_round_trip_of_digits_that_were_held_out(settings):
    X = load_digits(return_X_y=True)[0]
    assert held_out_r2(DiffusionMap(10, **settings), X) >= 0.75


def test_precomputed_has_no_inverse(cloud):
    D = np.linalg.norm(cloud[:, None] - cloud[None], axis=2)
    model = DiffusionMap(2, metric="precomputed", bandwidth=0.5).fit(D)
    assert not hasattr(model, "inverse_transform")
    with pytest.raises(AttributeError, match="inverse_transform"):
        model.inverse_transform(model.embedding_)


def test_wrong_width_and_dtype(cloud):
    model = DiffusionMap(2, bandwidth=0.5).fit(cloud)
    with pytest.raises(ValueError, match="X has 3 columns; it must have 2"):
        model.inverse_transform(np.zeros((4, 3)))
    assert model.inverse_transform(model.embedding_.astype(np.float32)).dtype == np.float32
    assert model.inverse_transform(model.embedding_).dtype == np.float64
