"""Coordinates back to samples: convex combinations that have the coordinates asked for."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.datasets import load_digits, load_iris, load_wine, make_blobs
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split

from skdmap import DiffusionMap
from skdmap.datasets import make_swiss_roll
from skdmap.diffusion._preimage import preimage
from skdmap.exceptions import ExtrapolationWarning


def weights(Z, embedding, weight):
    """Weights on training samples: the samples that come back of an identity matrix."""
    rows = np.arange(len(embedding))
    return preimage(Z, embedding, np.eye(len(embedding)), rows, weight)


def gaussian_prior(z, embedding, weight):
    k = embedding.shape[1]
    distances = np.linalg.norm(embedding - z, axis=1)
    width = np.sort(distances)[max(30, 3 * k) - 1] / 2
    log_prior = np.log(weight) - distances**2 / (2 * width**2)
    far = np.sort(distances)[min(200, len(embedding)) - 1]
    return np.where(distances <= far, log_prior, -np.inf)


@pytest.mark.parametrize("k", [1, 3, 12])
def test_weights_solve_their_equations(k):
    """u = prior exp(tilt z) / sum, with ridge tilt = z - sum u z: the least relative entropy."""
    rng = np.random.default_rng(k)
    embedding, weight = rng.standard_normal((300, k)), rng.uniform(0.5, 2, 300)
    Z = 1.5 * rng.standard_normal((12, k))
    found, _ = weights(Z, embedding, weight)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    for z, u in zip(Z, found, strict=True):
        log_prior = gaussian_prior(z, embedding, weight)
        prior = np.exp(log_prior - log_prior.max())
        prior /= prior.sum()
        spread = embedding - prior @ embedding
        ridge = 1e-3 * (prior @ (spread**2).sum(axis=1)) / k
        tilt = (z - u @ embedding) / ridge
        exponent = log_prior + embedding @ tilt
        expected = np.exp(exponent - exponent.max())
        np.testing.assert_allclose(u, expected / expected.sum(), rtol=1e-4, atol=1e-9)


def test_near_the_mean_it_is_ridge_regression():
    """To first order in the distance from the weighted mean of the neighbours."""
    rng = np.random.default_rng(0)
    embedding, X = rng.standard_normal((150, 2)), rng.standard_normal((150, 4))
    one = np.ones(150)
    z = np.zeros(2)
    for _ in range(200):  # the point that is the mean of its own neighbours
        log_prior = gaussian_prior(z, embedding, one)
        prior = np.exp(log_prior - log_prior.max())
        z = prior @ embedding / prior.sum()
    found, _ = preimage(z[None], embedding, X, np.arange(150), one)
    np.testing.assert_allclose(found[0], prior @ X / prior.sum(), atol=1e-9)
    A = embedding - z
    covariance = A.T @ (A * prior[:, None]) / prior.sum()
    covariance += 5e-4 * np.trace(covariance) * np.eye(2)
    shift = 1e-5 * np.array([1.0, -2.0])
    log_prior = gaussian_prior(z + shift, embedding, one)
    moved = np.exp(log_prior - log_prior.max())
    moved /= moved.sum()
    step = np.linalg.solve(covariance, z + shift - moved @ embedding)
    expected = moved @ X + (moved * (A @ step)) @ X
    found, _ = preimage((z + shift)[None], embedding, X, np.arange(150), one)
    np.testing.assert_allclose(found[0], expected, atol=1e-7)


def test_sparse_samples_give_what_dense_ones_give():
    rng = np.random.default_rng(0)
    embedding, X = rng.standard_normal((200, 3)), rng.standard_normal((200, 7))
    Z, one = rng.standard_normal((15, 3)), np.ones(200)
    X[rng.uniform(size=X.shape) < 0.7] = 0
    dense, _ = preimage(Z, embedding, X, np.arange(200), one)
    sparse, _ = preimage(Z, embedding, sp.csr_matrix(X), np.arange(200), one)
    np.testing.assert_allclose(sparse, dense, rtol=1e-12, atol=1e-12)


def test_one_row_alone_is_that_row_in_a_batch():
    rng = np.random.default_rng(3)
    embedding, one = rng.standard_normal((400, 4)), np.ones(400)
    Z = np.vstack([rng.standard_normal((20, 4)), [[1e6, 0, 0, 0]]])
    together, _ = weights(Z, embedding, one)
    alone = np.vstack([weights(z[None], embedding, one)[0] for z in Z])
    np.testing.assert_allclose(alone, together, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-120, 1e-8, 1e8, 1e120])
def test_units_of_the_coordinates_do_not_matter(scale):
    rng = np.random.default_rng(4)
    embedding, one = rng.standard_normal((100, 3)), np.ones(100)
    Z = 2 * rng.standard_normal((10, 3))
    expected, off = weights(Z, embedding, one)
    found, same = weights(scale * Z, scale * embedding, one)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(same, off)


def test_a_linear_column_comes_back_nearly_and_a_constant_one_exactly():
    rng = np.random.default_rng(1)
    embedding = rng.standard_normal((400, 2))
    X = np.column_stack([np.full(400, 3.0), embedding @ [2.0, -1.0] + 1])
    Z = 0.5 * rng.standard_normal((30, 2))
    found, off = preimage(Z, embedding, X, np.arange(400), np.ones(400))
    np.testing.assert_allclose(found[:, 0], 3.0, rtol=1e-12)
    # The ridge of 1e-3 bends a slope by 1e-3 of the way to the centre.
    np.testing.assert_allclose(found[:, 1], Z @ [2.0, -1.0] + 1, atol=5e-3)
    assert off.size == 0


def test_no_answer_leaves_the_range_of_the_samples():
    """Between groups, beyond the embedding, and at distances of 1e12 and 1e300."""
    rng = np.random.default_rng(2)
    embedding = np.vstack([rng.normal(-5, 0.1, (300, 3)), rng.normal(5, 0.1, (40, 3))])
    X = rng.uniform(18, 80, (340, 5))
    Z = np.vstack([rng.uniform(-8, 8, (200, 3)), 1e12 * rng.standard_normal((20, 3))])
    Z[-1] = 1e300
    found, off = preimage(Z, embedding, X, np.arange(340), np.ones(340))
    assert (found >= X.min(axis=0) - 1e-9).all()
    assert (found <= X.max(axis=0) + 1e-9).all()
    assert set(range(200, 220)) <= set(off.tolist())


def test_coordinates_off_the_embedding():
    """More than 0.4 of the range from any training sample: between two groups, and beyond."""
    line = np.linspace(0, 0.05, 300)
    embedding = np.column_stack([np.r_[line, 1 - line], np.r_[line, line]])
    Z = np.array([[0.05, 0.05], [0.4, 0.05], [0.5, 0.05], [1.3, 0], [1.5, 0], [0, 0.1], [0, 1e9]])
    _, off = weights(Z, embedding, np.ones(600))
    np.testing.assert_array_equal(off, [2, 4, 5, 6])


def test_equal_training_coordinates():
    X = np.arange(80.0).reshape(40, 2)
    one = np.ones(40)
    found, off = preimage(np.zeros((2, 2)), np.zeros((40, 2)), X, np.arange(40), one)
    np.testing.assert_allclose(found, np.tile(X.mean(axis=0), (2, 1)))
    assert off.size == 0
    # One coordinate is constant, up to rounding.
    embedding = np.column_stack([np.linspace(0, 1, 40), 0.3 + 1e-17 * np.arange(40)])
    found, off = preimage(embedding[[7]], embedding, X, np.arange(40), one)
    np.testing.assert_allclose(found[0], X[7], atol=0.5)
    assert off.size == 0


@pytest.mark.parametrize("n", [2, 3, 5])
def test_few_samples(n):
    X = np.random.default_rng(n).standard_normal((n, 2))
    model = DiffusionMap(1, bandwidth=1.0, n_neighbors=None).fit(X)
    back = model.inverse_transform(model.embedding_)
    assert (back >= X.min(axis=0) - 1e-12).all()
    assert (back <= X.max(axis=0) + 1e-12).all()


def test_weight_two_equals_two_samples():
    rng = np.random.default_rng(5)
    X, weight = rng.standard_normal((60, 2)), np.ones(60)
    weight[:20] = 2
    settings = {"bandwidth": 0.8, "n_neighbors": None}
    once = DiffusionMap(2, **settings).fit(X, sample_weight=weight)
    twice = DiffusionMap(2, **settings).fit(np.vstack([X, X[:20]]))
    Z = once.embedding_[::7]
    np.testing.assert_allclose(twice.inverse_transform(Z), once.inverse_transform(Z), atol=1e-6)


def held_out_r2(model, X):
    train, test = train_test_split(X, test_size=0.3, random_state=0)
    model.fit(train)
    back = model.inverse_transform(model.transform(test))
    # Of the variance of all columns: some of digits are constant in the test rows.
    return r2_score(test, back, multioutput="variance_weighted")


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
@pytest.mark.parametrize("settings", [{}, {"bandwidth": "auto"}])
def test_round_trip_of_a_swiss_roll_that_was_held_out(settings):
    roll = make_swiss_roll(2000, random_state=0)
    assert held_out_r2(DiffusionMap(10, **settings), roll.X) >= 0.98


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
@pytest.mark.parametrize("settings", [{}, {"bandwidth": "auto"}])
def test_round_trip_of_digits_that_were_held_out(settings):
    X = load_digits(return_X_y=True)[0]
    assert held_out_r2(DiffusionMap(10, **settings), X) >= 0.75


@pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning")
@pytest.mark.parametrize("load", [load_iris, load_wine, load_digits])
def test_training_coordinates_are_on_the_embedding(load):
    X = load(return_X_y=True)[0]
    model = DiffusionMap(2).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ExtrapolationWarning)
        back = model.inverse_transform(model.embedding_)
    assert (back >= X.min(axis=0) - 1e-9).all()
    assert (back <= X.max(axis=0) + 1e-9).all()


@pytest.mark.filterwarnings("ignore:The kernel graph has 2")
def test_between_two_groups_a_warning_names_the_samples():
    X = make_blobs(200, centers=[[0, 0], [80, 80]], random_state=0)[0]
    model = DiffusionMap(1, bandwidth=1.0, n_neighbors=None).fit(X)
    middle = 0.5 * (model.embedding_.min(axis=0) + model.embedding_.max(axis=0))
    Z = np.vstack([model.embedding_[:1], [middle]])
    with pytest.warns(
        ExtrapolationWarning, match=r"1 of 2 samples lie off the embedding.*: sample 1\."
    ):
        back = model.inverse_transform(Z)
    assert (back >= X.min(axis=0)).all()
    assert (back <= X.max(axis=0)).all()


def test_precomputed_has_no_inverse(cloud):
    D = np.linalg.norm(cloud[:, None] - cloud[None], axis=2)
    model = DiffusionMap(2, metric="precomputed", bandwidth=0.5).fit(D)
    assert not hasattr(model, "inverse_transform")
    with pytest.raises(AttributeError, match="inverse_transform"):
        model.inverse_transform(model.embedding_)


def test_wrong_width_missing_values_and_dtype(cloud):
    model = DiffusionMap(2, bandwidth=0.5).fit(cloud)
    with pytest.raises(ValueError, match="X has 3 columns; it must have 2"):
        model.inverse_transform(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="Input X contains NaN"):
        model.inverse_transform(np.array([[0.0, np.nan]]))
    assert model.inverse_transform(model.embedding_.astype(np.float32)).dtype == np.float32
    assert model.inverse_transform(model.embedding_).dtype == np.float64
