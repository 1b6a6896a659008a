"""Data sets with known diffusion spectra.

Each maker returns a scikit-learn ``Bunch`` with ``X`` (n_samples, n_features), the known
coordinates of the samples, and what is known of the spectrum, for comparison with estimates. Pass
``sample_weight``, if present, to ``fit``.

Conventions: h is the bandwidth, a length; eps = h^2 / 2; the kernel is
k = exp(-d^2 / (4 eps)) = exp(-d^2 / (2 h^2)). ``laplacian_eigenvalues`` are the limit at alpha = 1,
``rates`` the limit at alpha = 1/2, both without the trivial 0, in 1 / length^2; compare them with
``DiffusionMap.laplacian_eigenvalues_``. The functions ``*_eigenvalues`` give the spectrum of the
Markov operator at a finite bandwidth; compare it with ``DiffusionMap.eigenvalues_``. The trivial
eigenvalue 1 is left out, eigenvalues are descending and repeated by multiplicity, and
eigenfunctions have mean square 1 under the stationary distribution.
"""

from skdmap.datasets._circle import (
    circle_eigenfunctions,
    circle_eigenvalues,
    flat_torus_eigenvalues,
    make_circle,
    make_flat_torus,
)
from skdmap.datasets._digits import make_rotated_digits
from skdmap.datasets._double_well import make_double_well, make_double_well_trajectory
from skdmap.datasets._fokker_planck import fokker_planck_rates
from skdmap.datasets._gaussian import (
    gaussian_eigenfunctions,
    gaussian_eigenvalues,
    make_gaussian,
)
from skdmap.datasets._ornstein_uhlenbeck import make_ornstein_uhlenbeck
from skdmap.datasets._sphere import make_sphere, sphere_eigenfunctions, sphere_eigenvalues
from skdmap.datasets._surfaces import (
    make_punctured_sphere,
    make_s_curve,
    make_severed_sphere,
    make_swiss_roll,
)

__all__ = [  # noqa: RUF022 - point sets, their closed forms, then dynamics
    "make_circle",
    "make_flat_torus",
    "make_sphere",
    "make_gaussian",
    "make_swiss_roll",
    "make_s_curve",
    "make_severed_sphere",
    "make_punctured_sphere",
    "make_rotated_digits",
    "circle_eigenvalues",
    "circle_eigenfunctions",
    "flat_torus_eigenvalues",
    "sphere_eigenvalues",
    "sphere_eigenfunctions",
    "gaussian_eigenvalues",
    "gaussian_eigenfunctions",
    "make_ornstein_uhlenbeck",
    "make_double_well",
    "make_double_well_trajectory",
    "fokker_planck_rates",
]
