"""scikit-learn's own checks. None is skipped; those that cannot hold are listed with the reason."""

import unittest
import warnings

import pytest
from sklearn.exceptions import SkipTestWarning
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    check_estimator,
    check_set_output_transform,
    check_set_output_transform_pandas,
    check_set_output_transform_polars,
    check_transformer_get_feature_names_out,
    check_transformer_get_feature_names_out_pandas,
    parametrize_with_checks,
)

from skdmap import DiffusionMap, HessianSpectrum, TrajectorySampler

ROWS_ARE_SNAPSHOTS = (
    "transform returns the recorded snapshots, whatever the rows of X: the rows out are moments of "
    "training, not the rows in"
)
TRAJECTORY_FAILURES = {
    "check_transformer_data_not_an_array": ROWS_ARE_SNAPSHOTS,
    "check_transformer_general": ROWS_ARE_SNAPSHOTS,
    "check_methods_sample_order_invariance": ROWS_ARE_SNAPSHOTS,
    "check_methods_subset_invariance": ROWS_ARE_SNAPSHOTS,
}

LANDMARKS_BY_ROW = (
    "row numbers are drawn without a look at the samples: that a sample of weight 2 equals two "
    "samples holds for given landmarks, not for their choice"
)
LANDMARK_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": LANDMARKS_BY_ROW,
    "check_sample_weight_equivalence_on_sparse_data": LANDMARKS_BY_ROW,
}


class Rosenbrock:
    """Rosenbrock's function of any number of variables, plus a bowl so that one is enough.

    A class, because a function's repr holds its address and test ids must be the same in all
    processes; ``rosenbrock`` below is the function that the named checks use.
    """

    def __call__(self, theta):
        steep = 100 * ((theta[1:] - theta[:-1] ** 2) ** 2).sum()
        return steep + ((1 - theta) ** 2).sum()

    def __repr__(self):
        return "rosenbrock"


def rosenbrock(theta):
    return Rosenbrock()(theta)


ESTIMATORS = {
    "DiffusionMap": DiffusionMap(),
    "HessianSpectrum": HessianSpectrum(loss=Rosenbrock()),
    # 26 snapshots a run at most: the checks use 15 to 100 rows, and an equal number of rows and
    # snapshots would hide the failures above.
    "TrajectorySampler": TrajectorySampler(max_epochs=2),
}


def expected_failures(estimator):
    if getattr(estimator, "n_landmarks", None) is not None:
        return LANDMARK_FAILURES
    return TRAJECTORY_FAILURES if isinstance(estimator, TrajectorySampler) else {}


def run(check, *arguments):
    """Run a check; a skip is a failure here, not a pass."""
    try:
        check(*arguments)
    except unittest.SkipTest as skipped:
        pytest.fail(f"skipped: {skipped}")


pytestmark = [
    pytest.mark.filterwarnings("ignore::skdmap.exceptions.SkdmapWarning"),
    # Some checks hand a frame to fit and an array to transform, or the other way round.
    pytest.mark.filterwarnings("ignore:X (does not have valid|has) feature names:UserWarning"),
]


@parametrize_with_checks(
    [*ESTIMATORS.values(), DiffusionMap(kernel="precomputed"), DiffusionMap(n_landmarks=8)],
    expected_failed_checks=expected_failures,
    xfail_strict=True,
)
def test_check_estimator(estimator, check):
    run(check, estimator)


@pytest.mark.parametrize("kernel", ["gaussian", rbf_kernel], ids=["gaussian", "callable"])
def test_no_check_of_diffusion_map_is_skipped_by_check_estimator(kernel):
    """The same through the front door, which warns of each skipped check."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", SkipTestWarning)
        results = check_estimator(DiffusionMap(kernel=kernel), on_fail="raise", on_skip="warn")
    assert {result["status"] for result in results} == {"passed"}


NAMED_CHECKS = [
    check_transformer_get_feature_names_out,
    check_transformer_get_feature_names_out_pandas,
    check_set_output_transform,
    check_set_output_transform_pandas,
    check_set_output_transform_polars,
    check_dataframe_column_names_consistency,
]


@pytest.mark.parametrize("check", NAMED_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_named_check(name, check, request):
    if name == "TrajectorySampler" and check is check_set_output_transform_pandas:
        reason = "rows out are (run, step), and the check wants the index of X"
        request.applymarker(pytest.mark.xfail(reason=reason, raises=ValueError, strict=True))
    estimator = ESTIMATORS[name]
    if name == "HessianSpectrum":
        estimator = HessianSpectrum(loss=rosenbrock)
    run(check, name, estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
def test_the_html_representation_links_to_the_page_of_the_estimator(estimator):
    name = type(estimator).__name__
    page = f"https://skdmap.readthedocs.io/en/stable/generated/skdmap.{name}.html"
    assert f'href="{page}"' in estimator._repr_html_()
