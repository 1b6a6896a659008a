"""Any rows and any settings: finite coordinates, or an error that says what is wrong."""

import re
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skdmap import DiffusionMap
from skdmap.exceptions import SkdmapWarning

NAMES = (
    r"n_components|bandwidth|alpha|diffusion_time|n_neighbors|metric|sample_weight|disconnected|"
    r"\bX\b"
)
example_settings = settings(max_examples=150, deadline=None, derandomize=True, database=None)


@st.composite
def tables(draw):
    n = draw(st.integers(2, 45))
    m = draw(st.sampled_from([1, 2, 3, 5, 18]))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    kind = draw(st.sampled_from(["normal", "grid", "clusters", "heavy", "line"]))
    if kind == "normal":
        X = rng.standard_normal((n, m))
    elif kind == "grid":
        X = rng.integers(0, 3, (n, m)).astype(float)
    elif kind == "clusters":
        X = rng.standard_normal((n, m)) * 1e-3 + 100 * rng.integers(0, 2, (n, 1))
    elif kind == "heavy":
        X = rng.standard_cauchy((n, m))
    else:
        X = np.arange(n)[:, None] * rng.standard_normal(m)
    if draw(st.booleans()):
        X = X[rng.integers(0, n, n)]
    if draw(st.booleans()):
        X[:, 0] = 1.0
    if draw(st.integers(0, 4)) == 0:
        X[0] = 1e6
    X = X + draw(st.sampled_from([0.0, 0.0, 1e3]))
    dtype = draw(st.sampled_from([np.float64, np.float32]))
    largest = 20 if dtype == np.float32 else 100
    X = X * 10.0 ** draw(st.integers(-largest, largest))
    weight = None
    if draw(st.booleans()):
        weight = rng.uniform(0, 1, n) * (rng.uniform(size=n) < 0.8)
        weight = weight * 10.0 ** draw(st.sampled_from([0, -200, 200]))
    return X.astype(dtype), weight


parameters = st.fixed_dictionaries(
    {
        "n_components": st.integers(1, 6),
        "bandwidth": st.sampled_from(["auto", "median", "local", 0.01, 0.5, 10.0]),
        "alpha": st.sampled_from([0.0, 0.3, 0.5, 1.0]),
        "diffusion_time": st.sampled_from([0, 0.5, 1, 2, 50]),
        "n_neighbors": st.sampled_from([None, "auto", 1, 3, 10, 100]),
        "metric": st.sampled_from(
            ["euclidean", "manhattan", "chebyshev", "cosine", "canberra", "braycurtis"]
        ),
        "bandwidth_exponent": st.sampled_from([0.0, 0.0, -0.5, 1.0]),
        "eigen_solver": st.sampled_from(["auto", "arpack", "lobpcg"]),
        "disconnected": st.sampled_from(["warn", "raise", "largest"]),
    }
)


def check(X, weight, chosen, explained):
    """Fit and extend; an error must match ``explained``."""
    if not isinstance(chosen["bandwidth"], str):
        # A share of the size of the data, so that the scale of X does not decide.
        size = float(np.ptp(X.astype(float), axis=0).max()) or 1.0
        chosen = {**chosen, "bandwidth": chosen["bandwidth"] * size}
    model = DiffusionMap(random_state=0, **chosen)
    before = X.copy()
    try:
        model.fit(X, sample_weight=weight)
        embedding = model.embedding_
        again = model.transform(X)
    except ValueError as error:
        if not re.search(explained, str(error)):
            raise
        return
    np.testing.assert_array_equal(X, before)
    assert embedding.shape == again.shape == (len(X), chosen["n_components"])
    assert embedding.dtype == again.dtype == X.dtype
    for found in (
        embedding,
        again,
        model.eigenvectors_,
        model.eigenvalues_,
        model.laplacian_eigenvalues_,
        model.residuals_,
        model.participation_,
        model.transform(X[:1] * X.dtype.type(1.01)),
        model.inverse_transform(embedding),
        np.atleast_1d(model.bandwidth_),
        [model.score(X)],
    ):
        assert np.isfinite(found).all()
    assert (np.diff(model.eigenvalues_) <= 1e-12).all()
    assert model.eigenvalues_.max() <= 1.0
    assert model.eigenvalues_.min() >= -1 - 1e-12
    assert model.stationary_distribution_.sum() == pytest.approx(1, rel=1e-10)
    assert (model.stationary_distribution_ >= 0).all()


@example_settings
@given(table=tables(), chosen=parameters)
def test_finite_or_explained(table, chosen):
    X, weight = table
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", SkdmapWarning)
        check(X, weight, chosen, NAMES)


@example_settings
@given(table=tables(), alpha=st.sampled_from([0.0, 0.5, 1.0]), scale=st.integers(-80, 80))
def test_auto_is_equivariant_under_scale(table, alpha, scale):
    """A power of two: the same digits, so the same map."""
    X, weight = table
    X = X.astype(np.float64)
    factor = 2.0**scale
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkdmapWarning)
        try:
            one = DiffusionMap(1, bandwidth="auto", alpha=alpha).fit(X, sample_weight=weight)
        except ValueError as error:
            with pytest.raises(ValueError, match=re.escape(str(error)[:20])):
                DiffusionMap(1, bandwidth="auto", alpha=alpha).fit(X * factor, sample_weight=weight)
            return
        other = DiffusionMap(1, bandwidth="auto", alpha=alpha).fit(X * factor, sample_weight=weight)
    np.testing.assert_allclose(other.bandwidth_, one.bandwidth_ * factor, rtol=1e-9)
    np.testing.assert_allclose(other.eigenvalues_, one.eigenvalues_, atol=1e-7)
    np.testing.assert_array_equal(other.component_labels_, one.component_labels_)


@example_settings
@given(
    seed=st.integers(0, 10**6),
    alpha=st.floats(0, 1),
    h=st.floats(0.2, 3),
    n_neighbors=st.sampled_from([None, 5, 12]),
    weighted=st.booleans(),
)
def test_definitions_hold_for_random_rows(seed, alpha, h, n_neighbors, weighted, reference):
    rng = np.random.default_rng(seed)
    X = rng.uniform(size=(25, 2))
    weight = rng.uniform(0.2, 2, 25) if weighted else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkdmapWarning)
        model = DiffusionMap(
            3, bandwidth=h * 0.3, alpha=alpha, n_neighbors=n_neighbors, diffusion_time=2
        ).fit(X, sample_weight=weight)
    exact = reference(X, h * 0.3, alpha, weight, n_neighbors=n_neighbors)
    if model.n_connected_components_ > 1 or (model.component_labels_ < 0).any():
        return
    np.testing.assert_allclose(model.eigenvalues_, exact.values[1:4], atol=1e-11)
    np.testing.assert_allclose(model.stationary_distribution_, exact.pi, rtol=1e-9)
