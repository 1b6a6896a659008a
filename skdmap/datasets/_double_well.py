"""A double well with nuisance directions: equilibrium samples, paths, and relaxation rates."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from skdmap._argument_checks import check_count, check_number
from skdmap._random import numpy_generator
from skdmap.datasets._fokker_planck import fokker_planck_rates, summed_rates
from skdmap.datasets._ornstein_uhlenbeck import stationary_path

_N_RATES = 10
# Densities below exp(-40) times that at the bottom of a well are neglected.
_CUT = 40.0


def make_double_well(
    n_samples: int = 2000,
    *,
    n_features: int = 2,
    barrier: float = 3.0,
    well_position: float = 1.0,
    nuisance_scale: float = 0.5,
    random_state: Any = None,
) -> Bunch:
    """Sample the equilibrium distribution of a double well with known relaxation rates.

    The potential is V = barrier ((x / a)^2 - 1)^2 in the first column, a = ``well_position``, plus
    x_j^2 / (2 nuisance_scale^2) in every other column. The first column is drawn by inverting its
    distribution function, tabulated on a fine grid; the others are normal. The dynamics is
    dx = -grad V dt + sqrt(2) dW, at unit temperature.

    Parameters
    ----------
    n_samples : int, default=2000
        Number of points.
    n_features : int, default=2
        Number of columns.
    barrier : float, default=3.0
        Height of the barrier between the wells, in units of the temperature; at most 15.
    well_position : float, default=1.0
        Position a of the wells, which are at -a and a.
    nuisance_scale : float, default=0.5
        Standard deviation of the other columns.
    random_state : int, RandomState instance, Generator or None, default=None
        Seed of the draws.

    Returns
    -------
    Bunch
        ``X`` (n_samples, n_features); ``slow_coordinate`` (n_samples,), the first column;
        ``slow_eigenfunction`` (n_samples,), the slowest eigenfunction, increasing, of mean square
        1; ``rates`` (10,), the smallest relaxation rates of all columns together, without the
        trivial 0, from :func:`fokker_planck_rates`, to a relative error of 1e-4.

    Raises
    ------
    InvalidParameterError
        If an argument is out of range.

    See Also
    --------
    make_double_well_trajectory : A path of the same dynamics, in rotated coordinates.

    Examples
    --------
    >>> from skdmap.datasets import make_double_well
    >>> well = make_double_well(1000, random_state=0)
    >>> well.X.shape, well.rates[:2].round(2)
    ((1000, 2), array([0.24, 4.  ]))
    """
    n_samples = check_count("n_samples", n_samples)
    n_features = check_count("n_features", n_features)
    well = _checked_well(barrier, well_position)
    nuisance_scale = check_number("nuisance_scale", nuisance_scale)
    generator = numpy_generator(random_state)
    slow = _well_samples(well, n_samples, generator)
    nuisance = nuisance_scale * generator.standard_normal((n_samples, n_features - 1))
    X = np.column_stack([slow, nuisance])
    return Bunch(
        X=X, slow_coordinate=slow, **_well_spectrum(well, slow, n_features - 1, nuisance_scale)
    )


def make_double_well_trajectory(
    n_samples: int = 2000,
    *,
    n_features: int = 50,
    barrier: float = 3.0,
    well_position: float = 1.0,
    nuisance_scale: float = 0.1,
    time_step: float = 0.1,
    random_state: Any = None,
) -> Bunch:
    """Simulate a path in a double well with nuisance directions, in randomly rotated coordinates.

    The potential is that of :func:`make_double_well`; the coordinates are then rotated at random.
    The path starts in equilibrium. The nuisance directions use their exact transition, the slow one
    Heun's scheme with steps of at most 1/10 of the relaxation time in a well. With additive noise
    this scheme has weak order 2 [1]_.

    Parameters
    ----------
    n_samples : int, default=2000
        Number of points along the path.
    n_features : int, default=50
        Number of columns.
    barrier : float, default=3.0
        Height of the barrier between the wells, in units of the temperature; at most 15.
    well_position : float, default=1.0
        Position a of the wells, which are at -a and a of the slow coordinate.
    nuisance_scale : float, default=0.1
        Standard deviation of the nuisance directions.
    time_step : float, default=0.1
        Time between points, in length^2. A path should be many times longer than 1 / rates[0].
    random_state : int, RandomState instance, Generator or None, default=None
        Seed of the path and the rotation.

    Returns
    -------
    Bunch
        ``X`` (n_samples, n_features); ``slow_coordinate`` (n_samples,), the position between the
        wells; ``slow_eigenfunction`` (n_samples,), the slowest eigenfunction, increasing, of mean
        square 1 in equilibrium; ``rates`` (10,), as in :func:`make_double_well`; ``time``
        (n_samples,); ``rotation`` (n_features, n_features), orthogonal, such that ``X @ rotation``
        has the slow coordinate in column 0.

    Raises
    ------
    InvalidParameterError
        If an argument is out of range.

    References
    ----------
    .. [1] Kloeden and Platen, Numerical Solution of Stochastic Differential Equations, Springer
       1992, section 15.1, https://doi.org/10.1007/978-3-662-12616-5

    Examples
    --------
    >>> from skdmap.datasets import make_double_well_trajectory
    >>> path = make_double_well_trajectory(200, random_state=0)
    >>> path.X.shape, bool(abs(path.X @ path.rotation[:, 0] - path.slow_coordinate).max() < 1e-12)
    ((200, 50), True)
    """
    n_samples = check_count("n_samples", n_samples)
    n_features = check_count("n_features", n_features)
    well = _checked_well(barrier, well_position)
    nuisance_scale = check_number("nuisance_scale", nuisance_scale)
    time_step = check_number("time_step", time_step)
    generator = numpy_generator(random_state)
    slow = _well_path(well, n_samples, time_step, generator)
    precision = np.full(n_features - 1, nuisance_scale**-2)
    nuisance = nuisance_scale * stationary_path(precision, n_samples, time_step, generator)
    rotation = _random_rotation(n_features, generator)
    return Bunch(
        X=np.column_stack([slow, nuisance]) @ rotation.T,
        slow_coordinate=slow,
        time=time_step * np.arange(n_samples),
        rotation=rotation,
        **_well_spectrum(well, slow, n_features - 1, nuisance_scale),
    )


@dataclass(frozen=True)
class _Well:
    """The potential V(x) = barrier ((x / a)^2 - 1)^2."""

    barrier: float
    a: float

    def potential(self, x: np.ndarray) -> np.ndarray:
        """Return V(x)."""
        return self.barrier * ((x / self.a) ** 2 - 1) ** 2

    @property
    def edge(self) -> float:
        """The position at which V reaches the cut-off."""
        return self.a * (1 + (_CUT / self.barrier) ** 0.5) ** 0.5


def _checked_well(barrier: object, position: object) -> _Well:
    """Return the well after checking its parameters."""
    # The slowest rate is about 1.8 barrier exp(-barrier), lost to rounding for higher barriers.
    height = check_number("barrier", barrier, high=np.nextafter(15.0, 16.0))
    return _Well(barrier=height, a=check_number("well_position", position))


def _well_samples(well: _Well, n: int, generator: np.random.Generator) -> np.ndarray:
    """Return n independent positions in equilibrium."""
    grid = np.linspace(-well.edge, well.edge, 20_001)
    density = np.exp(-well.potential(grid))
    cumulated = np.append(0.0, np.cumsum(density[:-1] + density[1:]))
    return np.interp(generator.uniform(size=n), cumulated / cumulated[-1], grid)


def _well_path(well: _Well, n: int, time_step: float, generator: np.random.Generator) -> np.ndarray:
    """Return n positions ``time_step`` apart, from a start in equilibrium."""
    pull = 4 * well.barrier / well.a**2
    # In the wells V'' is twice the pull.
    n_inner = int(np.ceil(10 * time_step * 2 * pull))
    dt = time_step / n_inner
    kicks = np.sqrt(2 * dt) * generator.standard_normal((n - 1, n_inner))
    x = float(_well_samples(well, 1, generator)[0])
    positions = [x]
    # Python floats: a step of numpy scalars takes ten times as long.
    half = pull * dt / 2
    for row in kicks:
        for kick in row.tolist():
            drift = half * x * (1 - (x / well.a) ** 2)
            ahead = x + 2 * drift + kick
            x += drift + half * ahead * (1 - (ahead / well.a) ** 2) + kick
        positions.append(x)
    return np.array(positions)


def _well_spectrum(
    well: _Well, x: np.ndarray, n_nuisance: int, nuisance_scale: float
) -> dict[str, np.ndarray]:
    """Return the rates of well and nuisance together, and the slowest eigenfunction at x."""
    reference = fokker_planck_rates(well.potential, (-well.edge, well.edge), _N_RATES)
    harmonic = np.arange(_N_RATES + 1) / nuisance_scale**2
    spectra = [np.append(0.0, reference.rates)] + [harmonic] * n_nuisance
    slowest = np.interp(x, reference.grid, reference.eigenfunctions[:, 0])
    return {"rates": summed_rates(spectra, _N_RATES), "slow_eigenfunction": slowest}


def _random_rotation(d: int, generator: np.random.Generator) -> np.ndarray:
    """Return an orthogonal matrix drawn uniformly (Mezzadri 2007, arXiv:math-ph/0609050)."""
    q, r = np.linalg.qr(generator.standard_normal((d, d)))
    # Without the signs of R the distribution depends on the factorisation.
    return q * np.sign(np.diag(r))
