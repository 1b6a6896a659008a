"""The spectrum of a one-dimensional Fokker-Planck generator, by finite volumes."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.linalg import eigh_tridiagonal
from sklearn.utils import Bunch

from skdmap._argument_checks import check_count, check_number, check_pair
from skdmap._sklearn_compat import InvalidParameterError


def fokker_planck_rates(
    potential: Callable[[np.ndarray], np.ndarray],
    bounds: tuple[float, float],
    n_rates: int = 5,
    *,
    n_cells: int = 2000,
) -> Bunch:
    """Compute the slowest relaxation rates of diffusion in a potential on the line.

    The process dx = -V'(x) dt + sqrt(2) dW, at unit temperature, has the stationary density exp(-V)
    and the generator L f = f'' - V' f' = exp(V) (exp(-V) f')', the limit of diffusion maps with
    alpha = 1/2. Cells of equal width dx exchange mass at the rate exp(V_i - V_{i+1/2}) / dx^2,
    which satisfies detailed balance; the symmetric tridiagonal matrix is solved directly. The error
    of a rate is of order dx^2; rounding adds about 1e-16 * 4 / dx^2.

    Parameters
    ----------
    potential : callable
        Potential V, in units of the temperature; maps an array of points to an array of the same
        shape.
    bounds : tuple of two floats
        Ends of the interval, with reflecting boundaries. Choose them where exp(-V) is negligible.
    n_rates : int, default=5
        Number of rates, without the trivial 0.
    n_cells : int, default=2000
        Number of cells.

    Returns
    -------
    Bunch
        ``rates`` (n_rates,), the smallest eigenvalues of -L, ascending, in 1 / length^2; ``grid``
        (n_cells,), the cell centres; ``density`` (n_cells,), exp(-V) normalised so that
        density.sum() * dx = 1; ``eigenfunctions`` (n_cells, n_rates), of mean square 1 under that
        density and positive at the right end. They are rounding noise where the density is below
        1e-14.

    Raises
    ------
    InvalidParameterError
        If ``bounds`` are not ascending, a count is too small, or the potential is not finite.

    Examples
    --------
    The Ornstein-Uhlenbeck process, V = x^2 / 2, has the rates 1, 2, 3, ...:

    >>> from skdmap.datasets import fokker_planck_rates
    >>> fokker_planck_rates(lambda x: x**2 / 2, (-8, 8), 3).rates.round(3)
    array([1., 2., 3.])
    """
    left, right = check_pair("bounds", bounds)
    left = check_number("bounds[0]", left, low=-np.inf)
    right = check_number("bounds[1]", right, low=left, remedy="Pass two ascending numbers.")
    n_rates = check_count("n_rates", n_rates)
    n_cells = check_count("n_cells", n_cells, minimum=n_rates + 2)
    dx = (right - left) / n_cells
    grid = left + dx * (np.arange(n_cells) + 0.5)
    v = _values(potential, grid)
    v_face = _values(potential, left + dx * np.arange(1, n_cells))

    # Differences of V before exp, so that no potential over- or underflows.
    diagonal = np.zeros(n_cells)
    diagonal[:-1] += np.exp(v[:-1] - v_face) / dx**2
    diagonal[1:] += np.exp(v[1:] - v_face) / dx**2
    beside = -np.exp((v[:-1] + v[1:]) / 2 - v_face) / dx**2
    rates, vectors = eigh_tridiagonal(diagonal, beside, select="i", select_range=(1, n_rates))

    density = np.exp(v.min() - v)
    density /= density.sum() * dx
    eigenfunctions = vectors / np.sqrt(np.maximum(density, np.finfo(float).tiny) * dx)[:, None]
    # Beyond its last zero an eigenfunction is monotone, so this entry is far from 0.
    last = np.flatnonzero(density > 1e-10 * density.max())[-1]
    eigenfunctions *= np.where(eigenfunctions[last] < 0, -1.0, 1.0)
    return Bunch(rates=rates, grid=grid, density=density, eigenfunctions=eigenfunctions)


def _values(potential: Callable[[np.ndarray], np.ndarray], points: np.ndarray) -> np.ndarray:
    """Return the potential at the points, or raise if a value is not finite."""
    values = np.asarray(potential(points), dtype=np.float64)
    if values.shape != points.shape or not np.isfinite(values).all():
        raise InvalidParameterError(
            f"potential must return finite values of shape {points.shape}; it returned shape "
            f"{values.shape} with {np.count_nonzero(~np.isfinite(values))} non-finite values. "
            "Narrow the bounds, or use numpy functions that accept arrays."
        )
    return values


def summed_rates(spectra: Sequence[np.ndarray], n_rates: int) -> np.ndarray:
    """Return the ``n_rates`` smallest positive sums of one rate from each spectrum, ascending.
    Each spectrum is ascending, includes the 0, and has at least ``n_rates`` entries.
    """
    sums = np.zeros(1)
    for spectrum in spectra:
        # The n + 1 smallest sums need only the n + 1 smallest partial sums.
        sums = np.sort(np.add.outer(sums, spectrum), axis=None)[: n_rates + 1]
    return sums[1:]
