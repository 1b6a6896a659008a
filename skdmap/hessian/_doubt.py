"""Eigenpairs -> warnings where they are not what was asked for."""

import numpy as np

from .._warning import warn
from ..exceptions import ConvergenceWarning
from ._lanczos import RitzPairs

__all__ = ["warn_of_doubt"]


def warn_of_doubt(
    pairs: RitzPairs, tol: float, precision: float, n_wanted: int, *, complete: bool = True
) -> None:
    """Warn of pairs that are missing or did not converge, or that ``tol`` cannot tell from zero.

    Parameters
    ----------
    pairs : RitzPairs
        What the iteration gave.
    tol : float
        What it was asked for.
    precision : float
        Relative rounding error of a product.
    n_wanted : int
        How many pairs were asked for.
    complete : bool, default=True
        Whether neither an interrupt nor a callback ended it early.

    Warns
    -----
    ConvergenceWarning
        With the numbers and the way out.
    """
    late = int((pairs.residuals > tol * pairs.scale).sum())
    if not complete:
        warn(
            f"Interrupted: {len(pairs.residuals)} of {n_wanted} eigenpairs had converged and are "
            "kept; more extreme ones may be missing, and trace and density rest on the probes so "
            "far. Fit again for the rest.",
            ConvergenceWarning,
        )
    elif not pairs.converged and not late:
        warn(
            f"All {len(pairs.residuals)} eigenpairs have small residuals, but {pairs.n_matvecs} "
            "Hessian-vector products were too few to see whether others are more extreme. Raise "
            "max_matvecs.",
            ConvergenceWarning,
        )
    elif not pairs.converged:
        warn(
            f"{late} of {len(pairs.residuals)} eigenpairs did not converge in {pairs.n_matvecs} "
            f"Hessian-vector products: largest residual {pairs.residuals.max():.3g}, wanted "
            f"tol * largest |eigenvalue| = {tol:.3g} * {pairs.scale:.3g}. Raise max_matvecs or "
            "tol, or lower n_components.",
            ConvergenceWarning,
        )
    small = np.abs(pairs.eigenvalues) < 10 * tol * pairs.scale
    # The explicit Hessian and closed Krylov spaces give small ones, and zeros, to rounding.
    doubtful = small & (pairs.residuals > 100 * precision * pairs.scale)
    if doubtful.any():
        names = ", ".join(
            f"{i} ({pairs.eigenvalues[i]:.3g} +- {pairs.residuals[i]:.1g})"
            for i in np.flatnonzero(doubtful)
        )
        warn(
            f"Eigenvalues smaller than 10 * tol * largest |eigenvalue| = "
            f"{10 * tol * pairs.scale:.3g} are not resolved: {names}. Lower tol or n_components.",
            ConvergenceWarning,
        )
