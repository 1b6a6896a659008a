import numpy as np
import pytest
from scipy.stats import t as student

from skdmap.diagnostics._confidence_interval import mean_interval


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.0, np.inf), (-1.0, 3.0)])
def test_an_interval_stays_in_the_range_and_holds_the_mean(bounds):
    values = np.array([1e-3, 0.4, 0.01])
    low, high = mean_interval(values, 0.95, bounds)
    assert bounds[0] < low < values.mean() < high < bounds[1]
    # Where runs hardly differ the scale does not matter: it is Student's.
    close = 0.3 + 1e-6 * np.array([-1.0, 0.0, 1.0])
    half = student.ppf(0.975, 2) * 1e-6 / np.sqrt(3)
    np.testing.assert_allclose(mean_interval(close, 0.95, bounds) - 0.3, [-half, half], rtol=1e-4)
    assert mean_interval(np.full(3, 0.0), 0.95, bounds).tolist() == [0.0, 0.0]
    at_bound = mean_interval(np.array([1 + 2e-16, 1.0, 1.0]), 0.95, (0.0, 1.0))
    assert at_bound.tolist() == [0.0, 1.0]
    wide = mean_interval(np.array([0.0, 0.0, 0.01]), 0.999999, (0.0, np.inf))
    assert np.isfinite(wide).all()


def test_an_interval_holds_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for n, (a, b) in ((3, (2, 20)), (5, (2, 20)), (8, (1, 3))):
        draws = rng.beta(a, b, (4000, n))
        ends = np.array([mean_interval(x, 0.95, (0.0, 1.0)) for x in draws])
        held = np.mean((ends[:, 0] <= a / (a + b)) & (a / (a + b) <= ends[:, 1]))
        # Skewed draws, few of them: to 3 %.
        assert abs(held - 0.95) < 0.03
