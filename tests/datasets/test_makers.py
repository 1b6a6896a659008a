"""What holds for every maker: seeds, shapes, and messages about bad arguments."""

import numpy as np
import pytest

from skdmap import datasets
from skdmap._sklearn_compat import InvalidParameterError

DRAWN = {
    "make_circle": {"n_samples": 30, "equispaced": False, "noise": 0.1},
    "make_flat_torus": {"n_samples": (5, 6), "equispaced": False},
    "make_sphere": {"n_samples": 30, "design": "random"},
    "make_gaussian": {"n_samples": 30, "design": "random"},
    "make_swiss_roll": {"n_samples": 30, "noise": 0.1},
    "make_s_curve": {"n_samples": 30, "noise": 0.1},
    "make_severed_sphere": {"n_samples": 30, "noise": 0.1},
    "make_punctured_sphere": {"n_samples": 30, "noise": 0.1},
    "make_rotated_digits": {"n_samples": 30, "noise": 0.1},
    "make_ornstein_uhlenbeck": {"n_samples": 30},
    "make_double_well": {"n_samples": 30},
    "make_double_well_trajectory": {"n_samples": 30},
}


def test_every_maker_is_covered():
    assert set(DRAWN) == {name for name in datasets.__all__ if name.startswith("make_")}


@pytest.mark.parametrize("name", DRAWN)
def test_the_seed_fixes_every_bit(name):
    make = getattr(datasets, name)
    one, same, other = (make(**DRAWN[name], random_state=s) for s in (0, 0, 1))
    assert one.keys() == same.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], same[key])
    assert not np.array_equal(one.X, other.X)


@pytest.mark.parametrize("name", DRAWN)
def test_the_global_generator_is_neither_read_nor_advanced(name):
    state = np.random.get_state()  # noqa: NPY002 - the generator that must be left alone
    first = getattr(datasets, name)(**DRAWN[name])
    second = getattr(datasets, name)(**DRAWN[name])
    after = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(state[1], after[1])
    assert state[2] == after[2]
    assert not np.array_equal(first.X, second.X)


@pytest.mark.parametrize("name", DRAWN)
def test_rows_and_coordinates_are_finite_float64_of_one_length(name):
    made = getattr(datasets, name)(**DRAWN[name], random_state=0)
    assert made.X.shape[0] == 30
    for value in made.values():
        if isinstance(value, np.ndarray):
            assert value.dtype == np.float64
            assert np.isfinite(value).all()
    for key in ("laplacian_eigenvalues", "rates"):
        if key in made:
            assert made[key].min() > 0
            assert (np.diff(made[key]) >= 0).all()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("make_circle", {"n_samples": 2}, "n_samples=2 must be an integer of at least 3"),
        ("make_circle", {"n_samples": 10.0}, "n_samples=10.0 must be an integer"),
        ("make_circle", {"radius": 0}, r"radius=0 must be a finite number in \(0, inf\)"),
        ("make_circle", {"noise": -1.0}, r"noise=-1.0 must be a finite number in \[0, inf\)"),
        ("make_circle", {"noise": np.inf}, "noise=inf must be a finite number"),
        ("make_flat_torus", {"n_samples": 100}, "n_samples=100 must be a pair"),
        ("make_flat_torus", {"radii": (1.0, True)}, r"radii\[1\]=True must be a finite number"),
        ("make_sphere", {"n_samples": 1000}, "n_samples=1000 must be 2 m.2 .* Pass 968"),
        ("make_sphere", {"n_samples": (1, 40)}, r"n_samples\[0\]=1 must be"),
        ("make_sphere", {"design": "grid"}, "design='grid' must be 'quadrature' or 'random'"),
        ("make_gaussian", {"n_samples": 351}, "n_samples=351 .* at most 350"),
        ("make_gaussian", {"design": "grid"}, "design='grid' must be"),
        ("make_swiss_roll", {"height": "tall"}, "height='tall' must be a finite number"),
        ("make_severed_sphere", {"cap_angle": 2.0}, r"cap_angle=2.0 .* in \(0, 1.5708\)"),
        ("make_punctured_sphere", {"cap_angle": 4.0}, r"cap_angle=4.0 .* in \(0, 3.14159\)"),
        ("make_rotated_digits", {"index": 1797}, "index=1797 .* at most 1796"),
        ("make_rotated_digits", {"turn": 1.5}, r"turn=1.5 .* in \(0, 1\)"),
        ("make_double_well", {"barrier": 40.0}, r"barrier=40.0 .* in \(0, 15\)"),
        ("make_double_well_trajectory", {"time_step": 0.0}, "time_step=0.0 must be"),
        ("make_ornstein_uhlenbeck", {"time_step": -1}, "time_step=-1 must be"),
        ("circle_eigenvalues", {"bandwidth": 0, "n_components": 2}, "bandwidth=0 must be"),
        ("circle_eigenvalues", {"bandwidth": 1e-5, "n_components": 2}, "bandwidth=1e-05 .* 1e-4"),
        ("sphere_eigenvalues", {"bandwidth": 1, "n_components": 0}, "n_components=0 must be"),
        ("sphere_eigenfunctions", {"X": [[0.0, 0, 0]], "n_components": 1}, "no row equal to 0"),
        ("sphere_eigenfunctions", {"X": [[1.0, 0]], "n_components": 1}, "must have 3 columns"),
        (
            "circle_eigenfunctions",
            {"angle": [np.nan], "n_components": 1},
            "angle must contain finite",
        ),
        (
            "gaussian_eigenvalues",
            {"bandwidth": 1, "n_components": 1, "alpha": 2},
            r"alpha=2 must be a finite number in \[0, 1\]",
        ),
    ],
)
def test_bad_arguments_are_named_with_their_range(name, arguments, message):
    with pytest.raises(InvalidParameterError, match=message):
        getattr(datasets, name)(**arguments)
