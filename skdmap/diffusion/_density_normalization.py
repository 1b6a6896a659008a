"""The alpha normalisation: the kernel divided by a power of the density of the samples.

With q_i = sum_j k_ij w_j / rho_i^d and g = q^alpha rho^(1 + d/2), the normalised kernel is
K_ij = k_ij / (g_i g_j) (Coifman & Lafon 2006, doi:10.1016/j.acha.2006.04.006; with rho, Berry &
Harlim 2016, doi:10.1016/j.acha.2015.01.001). At alpha = 1 the density drops out of the limit.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def density_factors(
    kernel: Any,
    weight: NDArray[np.float64],
    *,
    alpha: float,
    scale: NDArray[np.float64] | None,
    dimension: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return g (n,) and the degrees sum_j K_ij w_j (n,); ``scale`` is rho, None is 1."""
    rho: Any = 1.0 if scale is None else scale
    density = (kernel @ weight) / rho**dimension
    g = density**alpha * rho ** (1.0 + 0.5 * dimension)
    return g, (kernel @ (weight / g)) / g
