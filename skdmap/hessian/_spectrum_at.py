"""Eigenpairs, trace and density of the curvature of a loss at one point."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from skdmap._progress import progress
from skdmap._threads import one_thread
from skdmap.hessian._krylov.lanczos import (
    Callback,
    RitzPairs,
    default_basis,
    dense_eigenpairs,
    lanczos,
)
from skdmap.hessian._krylov.quadrature import Probe, first_probe, further_probe
from skdmap.hessian._krylov.spectral_density import SpectralDensity, spectral_density
from skdmap.hessian._krylov.trace import TraceEstimate, estimate_trace
from skdmap.hessian._operators.autodiff import exactly
from skdmap.hessian._operators.base import CurvatureOperator
from skdmap.hessian._operators.hessian import hessian_operator
from skdmap.hessian._operators.memory_budget import MemoryBudget, least_budget
from skdmap.hessian._projection import squared_share
from skdmap.hessian._validation import check_block_fits

# Nodes that a further probe has at least, however few products the eigenpairs took.
_MIN_PROBE_STEPS = 15


@dataclass(frozen=True)
class SpectrumAt:
    """The curvature of a loss at one point."""

    pairs: RitzPairs
    loss: float
    gradient_norm: float
    gradient_share: float  # of its squared length in the span of the eigenvectors; nan for 0
    trace: TraceEstimate  # of nan without probes
    density: SpectralDensity | None  # None without probes
    n_matvecs: int  # with those of probes; on a subsample, by its share of the samples, rounded
    interrupted: bool
    precision: float  # of the floating-point numbers that products are computed in


@exactly  # once for all products: switching takes a fiftieth of a small one
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
    n_verify: int | None = None,
    callback: Callback | None = None,
    verbose: int = 0,
    fitted: Any = None,
) -> SpectrumAt:
    """Return eigenpairs, trace and density at a point; the parameters are HessianSpectrum's.
    A ``start`` needs ``n_probes=0``: a start that is not random says nothing about the trace.
    """
    budget = MemoryBudget(memory_budget)
    max_basis, rest = split_budget(budget, loss, point, n_pairs)
    size = len(point)
    graphs = _graph_budget(loss, memory_budget, rest)
    with (
        _operator_on_threads(loss, point, curvature, graphs) as operator,
        _counted(operator, verbose, fitted) as product,
    ):
        if _is_explicit(operator, n_pairs, budget):
            pairs = dense_eigenpairs(
                product, size, n_pairs=n_pairs, which=which, precision=_precision(operator)
            )
            if callback is not None:  # too late to end anything
                callback(pairs.n_matvecs, pairs.eigenvalues, pairs.residuals)
        else:
            max_basis = int(operator.first_rank(np.array([max_basis], dtype=np.float64))[0])
            n_starts = min(block_size, n_pairs)
            check_block_fits(n_starts, n_pairs, min(size, max_basis))
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
                surrogate=operator.sampled if operator.has_sample else None,
                callback=callback,
                n_verify=n_verify,
            )

        known, probes, complete = _probes(
            pairs, product, lambda: operator.first_rank(rng.standard_normal(size)), n_probes, tol
        )
        return _summary(operator, pairs, known, probes if n_probes else None, complete)


@contextmanager
def _operator_on_threads(
    loss: Any, point: np.ndarray, curvature: str, graphs: MemoryBudget
) -> Iterator[CurvatureOperator]:
    """Make the operator. Each operation runs on one thread, unless all are long."""
    with ExitStack() as held:
        held.enter_context(one_thread())
        with hessian_operator(loss, point, curvature, memory_budget=graphs) as operator:
            if operator.gains_by_threads:
                held.close()
            yield operator


def _summary(
    operator: CurvatureOperator,
    pairs: RitzPairs,
    known: np.ndarray,
    probes: list[Probe] | None,
    complete: bool,
) -> SpectrumAt:
    """Return all of it; ``probes`` is None where neither trace nor density is asked for."""
    no_trace = TraceEstimate(np.nan, np.nan, np.nan)
    return SpectrumAt(
        pairs=pairs,
        loss=float(operator.loss),
        gradient_norm=float(operator.gradient.norm()),
        gradient_share=squared_share(
            operator.gradient.detach().cpu().double().numpy(), pairs.vectors
        ),
        trace=no_trace if probes is None else estimate_trace(known, probes),
        density=None if probes is None else spectral_density(known, probes, operator.size),
        n_matvecs=operator.n_matvecs + operator.n_sampled,
        interrupted=pairs.interrupted or not complete,
        precision=_precision(operator),
    )


def _is_explicit(operator: CurvatureOperator, n_pairs: int, budget: MemoryBudget) -> bool:
    """Return whether the explicit matrix is small enough, or hardly larger than what is wanted."""
    # Free memory may differ between ranks; all must agree.
    fits = operator.first_rank(np.array([float(24 * operator.size**2 <= budget.n_bytes)]))[0]
    return bool(fits) and (operator.size <= 200 or 4 * n_pairs > operator.size)


def _probes(
    pairs: RitzPairs,
    product: Callable[[np.ndarray], np.ndarray],
    draw: Callable[[], np.ndarray],
    n_probes: int,
    tol: float,
) -> tuple[np.ndarray, list[Probe], bool]:
    """Return the deflated eigenvalues, the probes of the rest, and whether all were made."""
    if pairs.spectrum is not None or pairs.quadrature is None:
        return (pairs.eigenvalues if pairs.spectrum is None else pairs.spectrum), [], True
    converged = pairs.residuals <= tol * pairs.scale
    known, vectors = pairs.eigenvalues[converged], pairs.vectors[converged]
    if n_probes == 0:
        return known, [], True
    probes = [first_probe(pairs.quadrature, known, vectors)]
    if pairs.interrupted:
        return known, probes, False
    n_steps = max(_MIN_PROBE_STEPS, pairs.n_matvecs)
    try:
        for _ in range(n_probes - 1):
            probes.append(further_probe(product, vectors, draw, n_steps))
    except KeyboardInterrupt:  # the eigenpairs are there, and the probes so far
        return known, probes, False
    return known, probes, True


def _graph_budget(loss: Any, memory_budget: Any, rest: MemoryBudget) -> MemoryBudget:
    """Return the budget of the graphs: on a GPU they share no memory with the Krylov vectors."""
    device = getattr(loss, "_device", None)
    if device is None or device.type != "cuda":
        return rest
    return MemoryBudget(memory_budget, device)


@contextmanager
def _counted(
    operator: CurvatureOperator, verbose: int, fitted: Any
) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    shown: dict[str, Any] = {"unit": "products", "verbose": bool(verbose), "fitted": fitted}
    with progress(None, "HessianSpectrum", **shown) as bar:

        def product(v: np.ndarray) -> np.ndarray:
            bar.update()
            return operator(v)

        yield product


def _precision(operator: CurvatureOperator) -> float:
    return torch.finfo(operator.dtype).eps


class RestOfBudget(MemoryBudget):
    """What is left of a budget besides vectors that are allocated, but not yet resident."""

    def __init__(self, budget: MemoryBudget, n_reserved: int) -> None:
        self.n_bytes = budget.n_bytes
        self._budget, self._n_reserved = budget, n_reserved

    def left(self) -> int:
        """Return the bytes left for all else; negative where more is in use."""
        return self._budget.left() - self._n_reserved


def split_budget(
    budget: MemoryBudget, loss: Any, point: np.ndarray, n_pairs: int
) -> tuple[int, RestOfBudget]:
    """Return the number of Krylov vectors to keep, and the budget that is left for the graphs."""
    least = least_budget(loss, point, n_pairs)
    if budget.n_bytes < least:
        raise ValueError(
            f"memory_budget={budget.n_bytes} bytes must be >= {least}: {n_pairs + 10} vectors of "
            f"{len(point)} parameters in float64 and three chunks of one sample. Raise it, or "
            "lower n_components."
        )
    vector = 8 * len(point)
    chunks = least - (n_pairs + 10) * vector
    # Besides the basis: the eigenvectors, the start vector, the next one, one product.
    fitting = (budget.n_bytes - chunks) // vector - n_pairs - 4
    max_basis = max(n_pairs + 8, min(default_basis(n_pairs), fitting))
    return max_basis, RestOfBudget(budget, (max_basis + 1 + n_pairs) * vector)
