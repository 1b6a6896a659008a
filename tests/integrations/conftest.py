"""Trainers of other packages, small, quiet and the same in each run."""

import warnings

import pytest


@pytest.fixture
def quiet_packages():
    """Other packages warn of their own old ways; ours still count as errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", module="skdmap")
        yield
