"""A loss and a parameter vector -> eigenpairs, trace and density of its curvature there."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from skdmap._warning import warn
from skdmap.exceptions import ConvergenceWarning
from skdmap.hessian._krylov.lanczos import (
    Callback,
    RitzPairs,
    default_basis,
    dense_eigenpairs,
    lanczos,
)
from skdmap.hessian._krylov.quadrature import (
    Probe,
    SpectralDensity,
    TraceEstimate,
    estimate_trace,
    first_probe,
    further_probe,
    spectral_density,
)
from skdmap.hessian._operators.base import CurvatureOperator
from skdmap.hessian._operators.hessian import hessian_operator
from skdmap.hessian._operators.memory_budget import MemoryBudget, least_budget


@dataclass(frozen=True)
class SpectrumAt:
    """The curvature of a loss at one point.

    Attributes
    ----------
    pairs : RitzPairs
        Eigenpairs with residuals.
    loss, gradient_norm : float
        There.
    trace : TraceEstimate
        Of nan where there is no probe.
    density : SpectralDensity or None
        None where there is no probe.
    n_matvecs : int
        All products, those of probes too; of part of the rows by their part, rounded.
    interrupted : bool
        Whether an interrupt or the callback ended it early.
    precision : float
        Relative rounding error of a product.
    """

    pairs: RitzPairs
    loss: float
    gradient_norm: float
    trace: TraceEstimate
    density: SpectralDensity | None
    n_matvecs: int
    interrupted: bool
    precision: float


def spectrum_at(
    loss: Any,
    point: np.ndarray,
    *,
    n_pairs: int,
    rng: np.random.Generator,
    which: str = "largest",
    curvature: str = "hessian",
    tol: float = 1e-3,
    max_matvecs: int | None = None,
    block_size: int = 1,
    memory_budget: Any = "auto",
    n_probes: int = 1,
    start: np.ndarray | None = None,
    callback: Callback | None = None,
    verbose: int = 0,
) -> SpectrumAt:
    """Return eigenpairs, trace and density of the curvature at a point.

    Parameters
    ----------
    loss : EmpiricalRisk or callable
        As for :class:`HessianSpectrum`.
    point : ndarray of shape (n_parameters,)
        Where.
    n_pairs : int
        Number of eigenpairs, in [1, n_parameters].
    rng : numpy.random.Generator
        Draws start vectors and probes.
    which, curvature, tol, max_matvecs, block_size, memory_budget, callback, verbose
        As for :class:`HessianSpectrum`.
    n_probes : int, default=1
        0: no trace and no density.
    start : ndarray of shape (n_parameters,), default=None
        A start vector for the eigenpairs; then ``n_probes`` must be 0.

    Returns
    -------
    SpectrumAt
        With the explicit matrix (n_parameters <= 200 or n_pairs > n_parameters / 4) where its
        24 n_parameters^2 bytes are within the budget; trace and density are then exact.

    Raises
    ------
    ValueError
        If the loss does not fit, or the budget does not hold the vectors.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.hessian._spectrum_at import spectrum_at
    >>> found = spectrum_at(
    ...     lambda t: t[0] ** 2 - t[1] ** 2, np.ones(3), n_pairs=1, rng=np.random.default_rng(0)
    ... )
    >>> found.pairs.eigenvalues, found.trace.trace, found.density.nodes
    (array([2.]), 0.0, array([-2.,  0.,  2.]))
    """
    budget = MemoryBudget(memory_budget)
    cap, beside = basis_room(budget, loss, point, n_pairs)
    size = len(point)
    graphs = _on_device(loss, memory_budget, beside)
    with (
        hessian_operator(loss, point, curvature, memory_budget=graphs) as operator,
        _counted(operator, verbose) as product,
    ):
        # Free memory may differ between ranks; all must take the same way.
        fits = bool(operator.first_rank(np.array([float(24 * size**2 <= budget.n_bytes)]))[0])
        if (size <= 200 or 4 * n_pairs > size) and fits:
            pairs = dense_eigenpairs(product, size, n_pairs=n_pairs, which=which)
            if callback is not None:  # nothing is left to be ended
                callback(pairs.n_matvecs, pairs.eigenvalues, pairs.residuals)
        else:
            max_basis = int(operator.first_rank(np.array([cap], dtype=np.float64))[0])
            n_starts = min(block_size, n_pairs)
            _check_room(n_starts, n_pairs, min(size, max_basis))
            pairs = lanczos(
                product,
                size,
                n_pairs=n_pairs,
                rng=rng,
                which=which,
                tol=tol,
                max_matvecs=max_matvecs,
                max_basis=max_basis,
                start=start,
                block_size=n_starts,
                precision=_precision(operator),
                first_rank=operator.first_rank,
                # One pair is rarely skipped, and a sample's graph costs as much as the trial.
                surrogate=operator.sampled if operator.has_sample and n_pairs > 1 else None,
                callback=callback,
            )

        def draw() -> np.ndarray:
            return operator.first_rank(rng.standard_normal(size))

        known, probes, complete = _probes(pairs, product, draw, n_probes, tol)
        return SpectrumAt(
            pairs=pairs,
            loss=float(operator.loss),
            gradient_norm=float(operator.gradient.norm()),
            trace=estimate_trace(known, probes) if n_probes else TraceEstimate(*3 * (np.nan,)),
            density=spectral_density(known, probes, size) if n_probes else None,
            n_matvecs=operator.n_matvecs + operator.n_sampled,
            interrupted=pairs.interrupted or not complete,
            precision=_precision(operator),
        )


def _probes(
    pairs: RitzPairs,
    product: Callable[[np.ndarray], np.ndarray],
    draw: Callable[[], np.ndarray],
    n_probes: int,
    tol: float,
) -> tuple[np.ndarray, list[Probe], bool]:
    """Return the eigenvalues taken out, the probes of the rest, and whether none is missing."""
    if pairs.spectrum is not None or pairs.quadrature is None:
        return (pairs.eigenvalues if pairs.spectrum is None else pairs.spectrum), [], True
    converged = pairs.residuals <= tol * pairs.scale
    known, vectors = pairs.eigenvalues[converged], pairs.vectors[converged]
    if n_probes == 0:
        return known, [], True
    probes = [first_probe(pairs.quadrature, known, vectors)]
    if pairs.interrupted:
        return known, probes, False
    try:
        for _ in range(n_probes - 1):
            probes.append(further_probe(product, vectors, draw, len(pairs.quadrature.nodes)))
    except KeyboardInterrupt:  # the eigenpairs are there, and the probes so far
        return known, probes, False
    return known, probes, True


def check_loss_fits(loss: Any, n_parameters: int) -> None:
    """Raise on no loss, or one of another number of parameters.

    Parameters
    ----------
    loss : EmpiricalRisk, callable or None
        What was given.
    n_parameters : int
        Number of columns of the snapshots.

    Raises
    ------
    ValueError
        With the way out.
    """
    if loss is None:
        raise ValueError(
            "loss=None: a loss is needed. Pass an EmpiricalRisk, or a function that maps a flat "
            "torch tensor of shape (n_parameters,) to a scalar tensor."
        )
    expected = getattr(loss, "n_parameters", n_parameters)
    if expected != n_parameters:
        raise ValueError(
            f"X has {n_parameters} columns, but loss has n_parameters = {expected}. Rows of X are "
            "parameter vectors of the module in loss, as loss.snapshot() or a TrajectorySampler of "
            "the same module gives them."
        )


def check_max_matvecs(max_matvecs: int | None, n_pairs: int) -> None:
    """Raise where fewer products are allowed than pairs are wanted.

    Parameters
    ----------
    max_matvecs : int or None
        Most products.
    n_pairs : int
        Number of eigenpairs.

    Raises
    ------
    ValueError
        With the way out.
    """
    if max_matvecs is not None and max_matvecs < n_pairs:
        raise ValueError(
            f"max_matvecs={max_matvecs} must be >= n_components = {n_pairs}: each eigenpair takes "
            "at least one product. Raise it, or set it to None."
        )


def check_block_size(block_size: int, n_components: int) -> None:
    """Raise where the search would start from more vectors than eigenpairs are wanted.

    Parameters
    ----------
    block_size : int
        Vectors to start from.
    n_components : int
        Number of eigenpairs.

    Raises
    ------
    ValueError
        With the way out.
    """
    if block_size > n_components:
        raise ValueError(
            f"block_size={block_size} must be in [1, {n_components}]: a block finds as many copies "
            f"of an eigenvalue as it has vectors, and n_components={n_components} are wanted. "
            "Lower it, or raise n_components."
        )


def _check_room(block_size: int, n_pairs: int, max_basis: int) -> None:
    """Raise where the memory budget holds too few vectors beside a block."""
    most = max(1, max_basis - n_pairs - 4)
    if block_size > most:
        raise ValueError(
            f"block_size={block_size} must be in [1, {most}]: memory_budget holds {max_basis} "
            f"vectors, of which {n_pairs} eigenpairs and the iteration take all others. Raise "
            "memory_budget, or lower block_size."
        )


def _on_device(loss: Any, memory_budget: Any, beside: MemoryBudget) -> MemoryBudget:
    """Return the budget of the graphs: on a GPU they share no memory with the Krylov vectors."""
    device = getattr(loss, "_device", None)
    if device is None or device.type != "cuda":
        return beside
    return MemoryBudget(memory_budget, device)


@contextmanager
def _counted(
    operator: CurvatureOperator, verbose: int
) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    # disable=None: on a terminal only.
    with tqdm(desc="Hessian-vector products", disable=None if verbose else True) as bar:

        def product(v: np.ndarray) -> np.ndarray:
            bar.update()
            return operator(v)

        yield product


def _precision(operator: CurvatureOperator) -> float:
    return torch.finfo(operator.dtype).eps


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


class Reserved(MemoryBudget):
    """What is left of a budget beside vectors that are allocated, but not yet resident.

    Parameters
    ----------
    budget : MemoryBudget
        The whole.
    n_reserved : int
        Bytes set aside.
    """

    def __init__(self, budget: MemoryBudget, n_reserved: int) -> None:
        self.n_bytes = budget.n_bytes
        self._budget, self._n_reserved = budget, n_reserved

    def left(self) -> int:
        """Return the bytes left for all else; negative where more is in use."""
        return self._budget.left() - self._n_reserved


def basis_room(
    budget: MemoryBudget, loss: Any, point: np.ndarray, n_pairs: int
) -> tuple[int, Reserved]:
    """Return the most Krylov vectors to keep, and the budget of the graphs beside them.

    Parameters
    ----------
    budget : MemoryBudget
        For all.
    loss : EmpiricalRisk or callable
        The loss.
    point : ndarray of shape (n_parameters,)
        Where.
    n_pairs : int
        Number of eigenpairs.

    Returns
    -------
    tuple of (int, Reserved)
        Both.

    Raises
    ------
    ValueError
        If the least number of vectors does not fit.
    """
    least = least_budget(loss, point, n_pairs)
    if budget.n_bytes < least:
        raise ValueError(
            f"memory_budget={budget.n_bytes} bytes must be >= {least}: {n_pairs + 10} vectors of "
            f"{len(point)} parameters in float64 and three chunks of one row. Raise it, or lower "
            "n_components."
        )
    vector = 8 * len(point)
    chunks = least - (n_pairs + 10) * vector
    # Beside the basis: the eigenvectors, the start vector, one product.
    fitting = (budget.n_bytes - chunks) // vector - n_pairs - 4
    cap = max(n_pairs + 8, min(default_basis(n_pairs), fitting))
    return cap, Reserved(budget, (cap + 1 + n_pairs) * vector)
