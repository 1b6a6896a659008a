"""Maps, spectra and tests give the numbers that earlier code gave: tests/fixtures/README.md."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

FIXTURES = Path(__file__).parent / "fixtures"

spec = importlib.util.spec_from_file_location("write_fixtures", FIXTURES / "write_fixtures.py")
written = importlib.util.module_from_spec(spec)
spec.loader.exec_module(written)

EXPECTED, _ = written.load(FIXTURES / "numbers.npz")
# The score no longer sums over the truncated kernel, so sparse maps have another one:
# tests/diffusion/test_score.py compares it with its formula. No harmonic residual is larger than
# that of the mean: tests/diagnostics/test_harmonics.py. inverse_transform has weights >= 0 now:
# tests/diffusion/test_preimage.py.
CHANGED = {
    *((group, "inverse_transform") for group in written.NUMBERS),
    ("map_sparse", "score"),
    ("map_sparse_arpack", "score"),
    ("diagnostics", "harmonics.residuals"),
}


def of(group):
    prefix = f"{group}/"
    return {
        name.removeprefix(prefix): array
        for name, array in EXPECTED.items()
        if name.startswith(prefix)
    }


@pytest.mark.parametrize("group", written.NUMBERS)
def test_numbers_are_those_of_earlier_code(group):
    function, tolerance = written.NUMBERS[group]
    found, wanted = function(of("inputs")), of(group)
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        if (group, name) in CHANGED:
            continue
        assert found[name].shape == array.shape, name
        if array.dtype.kind != "f":
            np.testing.assert_array_equal(found[name], array, err_msg=name)
            continue
        largest = np.abs(array[np.isfinite(array)]).max(initial=0.0)
        np.testing.assert_allclose(
            found[name], array, rtol=0, atol=tolerance * largest, err_msg=name
        )


def test_no_group_was_forgotten():
    assert {name.split("/")[0] for name in EXPECTED} == {"inputs", *written.NUMBERS}
