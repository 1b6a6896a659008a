"""The LOBPCG eigensolver (Knyazev 2001, doi:10.1137/S1064827500366124), not preconditioned."""

from dataclasses import replace

from skdmap._threads import blas_threads, one_thread
from skdmap.diffusion._eigensolvers.eigenproblem import Eigenproblem, Pairs
from skdmap.diffusion._eigensolvers.rayleigh_ritz import lobpcg_step, rayleigh_ritz
from skdmap.diffusion._eigensolvers.row_blocks import RowBlocks

# A few vectors more than wanted speed up the last ones wanted.
_SPARE_VECTORS = 4
_MAX_STEPS = 1000
# Rounding drifts off orthonormality: so many steps are made before it is restored.
_STEPS_BETWEEN = 20
_LARGEST_TOL = 1e-8


def lobpcg(problem: Eigenproblem) -> Pairs:
    """All pairs, converged or not; products and sums on several threads."""
    operator, n_pairs, locked = problem.operator, problem.n_pairs, problem.locked
    n, limit = operator.n_rows, min(problem.tol, _LARGEST_TOL)
    matrix = RowBlocks(operator.kernel, blas_threads(), operator.diagonal)
    block = problem.rng.standard_normal((n, min(n_pairs + _SPARE_VECTORS, n - locked.shape[1])))
    with one_thread():
        pairs = best = rayleigh_ritz(matrix, block, locked)
        for step in range(_MAX_STEPS):
            if pairs.norms[:n_pairs].max() <= limit:
                break
            if step % _STEPS_BETWEEN == _STEPS_BETWEEN - 1:
                fresh = rayleigh_ritz(matrix, pairs.vectors, locked)
                pairs = replace(fresh, directions=pairs.directions)
            pairs = lobpcg_step(matrix, pairs, pairs.residuals, locked)
            if pairs.norms[:n_pairs].max() < best.norms[:n_pairs].max():
                best = pairs
        best = rayleigh_ritz(matrix, best.vectors, locked)
    return best.values[:n_pairs], best.vectors[:, :n_pairs]
