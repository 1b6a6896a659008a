"""Each check passes what lies in range, and names argument, value and range otherwise."""

import numpy as np
import pytest

from skdmap import DiffusionMap, HessianSpectrum, LogSpaced, TrajectorySampler, make_mlp
from skdmap._argument_checks import (
    check_choice,
    check_count,
    check_finite_array,
    check_number,
    check_pair,
    validate_parameters,
)
from skdmap._sklearn_compat import InvalidParameterError


def test_what_lies_in_range_comes_back_as_a_plain_number():
    assert type(check_count("n", np.int64(3))) is int
    assert type(check_number("x", np.float32(0.5))) is float
    assert check_number("x", 0.0, closed=True) == 0.0
    assert check_pair("p", [1, 2]) == (1, 2)
    assert check_choice("c", "a", {"a": 1, "b": 2}) == "a"
    assert check_finite_array("v", [1, 2], ndim=1).dtype == np.float64


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: check_count("n", 0), "n=0 must be an integer of at least 1"),
        (lambda: check_count("n", True), "n=True must be an integer"),
        (lambda: check_count("n", 2.0), "n=2.0 must be an integer"),
        (lambda: check_count("n", 9, maximum=8), "n=9 .* at least 1 and at most 8"),
        (lambda: check_number("x", 0.0), r"x=0.0 must be a finite number in \(0, inf\)"),
        (lambda: check_number("x", np.nan, closed=True), r"x=nan .* in \[0, inf\)"),
        (lambda: check_number("x", np.inf, closed=True), r"x=inf .* in \[0, inf\)"),
        (lambda: check_number("x", 2, high=1.0, remedy="Halve it."), r"in \(0, 1\). Halve it."),
        (lambda: check_pair("p", (1, 2, 3)), r"p=\(1, 2, 3\) must be a pair"),
        (lambda: check_pair("p", 1), "p=1 must be a pair"),
        (lambda: check_choice("c", "d", ["a", "b"]), "c='d' must be one of 'a', 'b'"),
        (lambda: check_finite_array("v", [np.nan], ndim=1), "v must contain finite numbers"),
        (lambda: check_finite_array("v", [], ndim=1), r"its shape is \(0,\)"),
        (lambda: check_finite_array("v", [1.0], ndim=2), r"its shape is \(1,\)"),
    ],
)
def test_what_lies_outside_is_named(check, message):
    with pytest.raises(InvalidParameterError, match=message):
        check()


@pytest.mark.parametrize(
    ("estimator", "near"),
    [
        (DiffusionMap(metric="euclidian"), "euclidean"),
        (DiffusionMap(eigen_solver="lancos"), "lanczos"),
        (DiffusionMap(bandwidth="atuo"), "auto"),
        (HessianSpectrum(which="bigest"), "largest"),
    ],
)
def test_a_misspelt_option_is_answered_with_the_nearest(estimator, near):
    with pytest.raises(InvalidParameterError, match=f"Did you mean '{near}'"):
        estimator.fit(np.eye(12))


def test_what_is_near_no_option_gets_no_suggestion():
    with pytest.raises(InvalidParameterError, match=r"Got 'xyzzy' instead\.$"):
        DiffusionMap(metric="xyzzy").fit(np.eye(12))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((DiffusionMap, name) for name in ("n_components", "n_neighbors", "bandwidth", "alpha")),
        (DiffusionMap, "n_jobs"),
        *((HessianSpectrum, name) for name in ("n_components", "point", "block_size")),
        *((TrajectorySampler, name) for name in ("n_runs", "record_every")),
    ],
)
def test_true_is_not_the_number_1(kind, name):
    with pytest.raises(InvalidParameterError, match=f"'{name}' parameter .* Got True instead"):
        validate_parameters(kind(**{name: True}))


@pytest.mark.parametrize("make", [lambda: LogSpaced(True), lambda: make_mlp(3, 2, hidden=(True,))])
def test_true_is_no_integer_outside_of_estimators(make):
    with pytest.raises(ValueError, match="True must be an integer"):
        make()
