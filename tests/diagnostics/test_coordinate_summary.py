"""Words for coordinates: new directions are told from functions of others."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits, make_swiss_roll
from sklearn.exceptions import NotFittedError

from skdmap import DiffusionMap
from skdmap.diagnostics import _coordinate_summary as module
from skdmap.diagnostics import coordinate_gradients, coordinate_summary

pytestmark = [
    pytest.mark.filterwarnings("ignore::skdmap.exceptions.DisconnectedGraphWarning"),
    pytest.mark.filterwarnings("ignore::skdmap.exceptions.LocalizedCoordinateWarning"),
    pytest.mark.filterwarnings("ignore::skdmap.exceptions.BandwidthWarning"),
]
SEEDS = range(2)
BANDWIDTHS = ("local", "auto")


def correlation(a, b):
    return abs(np.corrcoef(a, b)[0, 1])


@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_strip_has_two_sides_and_the_second_harmonic_is_a_function_of_the_first(seed, bandwidth):
    strip = np.random.default_rng(seed).random((1500, 2)) * [2.5, 1.0]
    mapping = DiffusionMap(10, bandwidth=bandwidth).fit(strip)
    result = coordinate_summary(mapping)
    assert result.n_suggested == 2
    long, wide = mapping.eigenvectors_[:, result.suggested].T
    assert correlation(long, np.cos(np.pi * strip[:, 0] / 2.5)) > 0.98
    assert correlation(wide, np.cos(np.pi * strip[:, 1])) > 0.9
    second = [
        k
        for k in range(10)
        if correlation(mapping.eigenvectors_[:, k], np.cos(2 * np.pi * strip[:, 0] / 2.5)) > 0.9
    ]
    assert [result.words[k] for k in second] == ["function of 0"]


@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_noisy_circle_has_both_its_coordinates(seed, bandwidth):
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * rng.random(800)
    circle = np.column_stack([np.cos(angle), np.sin(angle)]) + 0.05 * rng.normal(size=(800, 2))
    result = coordinate_summary(DiffusionMap(10, bandwidth=bandwidth).fit(circle))
    assert result.suggested.tolist() == [0, 1]
    assert result.words[2] == "function of 0, 1"


@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_swiss_roll_has_arc_length_and_width(seed, bandwidth):
    X, t = make_swiss_roll(2000, random_state=seed, noise=0.1)
    s = t * np.sqrt(1 + t**2) + np.arcsinh(t)
    s = (s - s.min()) / np.ptp(s)
    mapping = DiffusionMap(10, bandwidth=bandwidth).fit(X)
    result = coordinate_summary(mapping)
    assert result.n_suggested == 2
    along, across = mapping.eigenvectors_[:, result.suggested].T
    assert correlation(along, np.cos(np.pi * s)) > 0.95
    assert correlation(across, np.cos(np.pi * X[:, 1] / 21)) > 0.5  # the rest is a harmonic


@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
def test_far_clusters_are_separated_by_the_first_coordinate(bandwidth):
    X = np.random.default_rng(0).normal(size=(400, 2))
    X[:200, 0] += 50
    result = coordinate_summary(DiffusionMap(10, bandwidth=bandwidth).fit(X))
    assert result.words[0] == "separates components"
    assert 0 in result.suggested


@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_tree_of_three_branches_has_two_directions(seed, bandwidth):
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * (np.arange(900) % 3) / 3
    X = 0.02 * rng.normal(size=(900, 10))
    X[:, :2] += rng.random((900, 1)) * np.column_stack([np.cos(angle), np.sin(angle)])
    result = coordinate_summary(DiffusionMap(10, bandwidth=bandwidth).fit(X))
    assert result.suggested.tolist() == [0, 1]


def test_groups_that_stand_apart_need_one_coordinate_less_than_groups():
    """Eight far clusters of Gaussian samples; in three coordinates they are points already."""
    rng = np.random.default_rng(0)
    X = 4 * rng.normal(size=(8, 10))[np.arange(640) % 8] + rng.normal(size=(640, 10))
    result = coordinate_summary(DiffusionMap(8, bandwidth="auto", n_neighbors=60).fit(X))
    assert result.n_groups == 8
    assert set(range(7)) <= set(result.suggested)
    assert "8 groups of samples stand apart in coordinates 0 to 6" in result.summary()


def test_digits_have_more_than_five_directions():
    result = coordinate_summary(DiffusionMap(10).fit(load_digits().data))
    assert result.n_suggested > 5
    assert result.n_groups > 6


@pytest.mark.parametrize("n_columns", [1, 2, 5])
def test_samples_without_gaps_are_one_group(n_columns):
    X = np.random.default_rng(0).random((600, n_columns))
    assert coordinate_summary(DiffusionMap(10).fit(X)).n_groups == 1


def test_many_coordinates_do_not_cut_two_groups_into_more(monkeypatch):
    """With 100 coordinates small parts of a group without gaps look like groups."""
    asked, honest = [], module.KMeans

    def noted(n_clusters, **options):
        asked.append(n_clusters)
        return honest(n_clusters, **options)

    monkeypatch.setattr(module, "KMeans", noted)
    X = np.random.default_rng(0).normal(size=(600, 2))
    X[300:, 0] += 6
    psi = DiffusionMap(40).fit(X).eigenvectors_
    assert module._n_groups(psi, [""] * 40) == 2
    assert max(asked) == 21


def test_the_summary_names_two_groups_and_says_where_more_coordinates_may_help():
    X = np.random.default_rng(0).normal(size=(600, 2))
    X[300:, 0] += 6
    result = coordinate_summary(DiffusionMap(1).fit(X))
    text = result.summary()
    assert "2 groups of samples stand apart in coordinate 0" in text
    assert "fit more coordinates" in text
    assert "fit more" not in replace(result, suggested=np.empty(0, dtype=int)).summary()


def test_the_error_of_a_fit_is_that_of_the_leave_one_out_formula():
    """A linear function is found exactly up to the ridge; noise is left unexplained."""
    rng = np.random.default_rng(0)
    before = rng.random((500, 2))
    assert module._unexplained(before, before @ [1.0, 2.0]) < 0.02
    assert module._unexplained(before, rng.normal(size=500)) > 0.95
    half = before[:, 0] / before[:, 0].std() + rng.normal(size=500)
    assert module._unexplained(before, half) == pytest.approx(np.sqrt(0.5), abs=0.1)
    assert module._unexplained(before, np.ones(500)) == 0.0


def test_coordinates_of_one_sample_and_unsolved_ones_have_their_own_words():
    X = np.random.default_rng(0).normal(size=(300, 2))
    X[7] = [4.8, 0.0]
    mapping = DiffusionMap(6, bandwidth=0.35).fit(X)
    words = coordinate_summary(mapping).words
    shares = mapping.stationary_distribution_[:, None] * mapping.eigenvectors_**2
    assert "few samples" in words
    for k in np.flatnonzero(shares.max(axis=0) > 0.5):
        assert words[k] in ("few samples", "separates components")
    mapping.residuals_ = mapping.residuals_ + 1e-3
    assert "not resolved" in coordinate_summary(mapping).words


def test_sign_scale_and_order_of_samples_do_not_matter():
    strip = np.random.default_rng(0).random((600, 2)) * [2.5, 1.0]
    mapping = DiffusionMap(6, bandwidth="auto").fit(strip)
    expected = coordinate_summary(mapping)
    mapping.eigenvectors_ = -mapping.eigenvectors_[::-1]
    mapping.stationary_distribution_ = mapping.stationary_distribution_[::-1]
    found = coordinate_summary(mapping)
    assert found.words == expected.words
    np.testing.assert_allclose(found.unexplained, expected.unexplained, atol=1e-10)


def test_the_table_is_a_data_frame():
    pytest.importorskip("pandas")
    strip = np.random.default_rng(0).random((300, 2)) * [2.5, 1.0]
    result = coordinate_summary(DiffusionMap(3, bandwidth="auto").fit(strip))
    frame = result.to_frame()
    assert frame["word"].tolist() == list(result.words)
    assert frame.index[frame["suggested"]].tolist() == result.suggested.tolist()
    assert result.summary().splitlines()[0].startswith(f"{result.n_suggested} of 3 coordinates")


def test_other_objects_are_refused():
    from sklearn.decomposition import PCA

    with pytest.raises(ValueError, match="mapping=PCA is not a DiffusionMap"):
        coordinate_summary(PCA().fit(np.eye(3)))
    with pytest.raises(ValueError, match="mapping=ndarray is not a DiffusionMap"):
        coordinate_summary(np.eye(3))
    with pytest.raises(NotFittedError):
        coordinate_gradients(DiffusionMap(), np.eye(3))
    mapping = DiffusionMap(1, bandwidth="auto").fit(np.random.default_rng(0).random((20, 2)))
    with pytest.raises(ValueError, match="threshold"):
        coordinate_summary(mapping, threshold=2)
