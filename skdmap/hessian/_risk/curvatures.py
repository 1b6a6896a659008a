"""The curvature matrices of an EmpiricalRisk, one entry of ``CURVATURES`` each.

To add one: write a function that returns its graph for a chunk of samples, add what is no sum over
samples (``add``), and enter both in ``CURVATURES``. Estimators take their names from there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from skdmap.hessian._operators.autodiff import (
    GradientGraph,
    Leaves,
    exact_mode,
    gauss_newton_graph,
    row_gradients_graph,
)
from skdmap.hessian._operators.base import Chunk, Graph
from skdmap.hessian._risk.batch_weights import Rows, Shares
from skdmap.hessian._risk.criterion import counts_weights, no_sample_losses, reduction_of
from skdmap.hessian._risk.module_loss import ModuleLoss


@dataclass(frozen=True)
class LossOfChunk:
    """The loss of some samples, its factor in the whole, and the totals over all samples."""

    loss: ModuleLoss
    rows: Rows
    share: float  # from batch_shares
    total: float  # sum of the weights of all samples
    n_rows: int  # number of all samples


@dataclass(frozen=True)
class Gradients:
    """Gradients at a point, flat, and the weight decay."""

    of_samples: torch.Tensor  # of the mean over samples
    of_loss: torch.Tensor  # with weight decay
    weight_decay: float


@dataclass(frozen=True)
class Curvature:
    """How a curvature matrix is computed: a sum over chunks, and what is added to a product."""

    graph: Callable[[LossOfChunk], Chunk]  # -> the graph of a chunk at a point
    add: Callable[[torch.Tensor, torch.Tensor, Gradients], None]  # (v, product), in place
    per_sample: bool = False  # whether it needs the gradients of single samples


def _hessian(chunk: LossOfChunk) -> Chunk:
    loss, rows = chunk.loss, chunk.rows

    def graph(leaves: Leaves) -> Graph:
        return GradientGraph(
            lambda p: chunk.share * loss.of_rows(p, rows), leaves, lambda: loss.within(leaves)
        )

    return graph


def _gauss_newton(chunk: LossOfChunk) -> Chunk:
    loss, rows = chunk.loss, chunk.rows

    def graph(leaves: Leaves) -> Graph:
        return gauss_newton_graph(
            lambda p: loss.outputs(p, rows),
            lambda z: chunk.share * loss.of_outputs(z, rows),
            leaves,
            lambda: loss.within(leaves),
        )

    return graph


def _second_moment(chunk: LossOfChunk) -> Chunk:
    terms = _sample_terms(chunk)

    # A sample adds l_i / n, so n times the sum over squares is the mean of g_i g_i'.
    def graph(leaves: Leaves) -> Graph:
        return row_gradients_graph(
            terms, leaves, lambda: chunk.loss.within(leaves), scale=chunk.n_rows
        )

    return graph


def _sample_terms(chunk: LossOfChunk) -> Callable[[Leaves], torch.Tensor]:
    """Return the function that gives what each sample adds to the loss, of shape (n,)."""
    loss, rows = chunk.loss, chunk.rows
    reduction = reduction_of(loss.criterion)

    def terms(parts: Leaves) -> torch.Tensor:
        losses = loss.of_each_row(parts, rows)
        if reduction == "sum":
            return losses.sum(dim=1)
        if reduction == "batchmean" or counts_weights(loss.criterion, loss.y):
            return losses.sum(dim=1) / chunk.total
        return losses.mean(dim=1) / chunk.total

    with exact_mode():
        parts = loss.parts(loss.own_point())
        found = float(terms(parts).detach().sum())
        wanted = chunk.share * float(loss.of_rows(parts, rows).detach())
    eps = torch.finfo(loss.own_point().dtype).eps
    if not abs(found - wanted) <= eps**0.5 * max(abs(found), abs(wanted)) + 100 * eps:
        raise no_sample_losses(loss.criterion)
    return terms


def _add_weight_decay(v: torch.Tensor, product: torch.Tensor, at: Gradients) -> None:
    if at.weight_decay:
        product.add_(v, alpha=at.weight_decay)


def _add_mean_gradient(v: torch.Tensor, product: torch.Tensor, at: Gradients) -> None:
    if at.weight_decay:  # it shifts each g_i, and so their mean, by the same vector
        _subtract_mean_gradient(v, product, at)
        product += (at.of_loss @ v.to(product)) * at.of_loss


def _subtract_mean_gradient(v: torch.Tensor, product: torch.Tensor, at: Gradients) -> None:
    # The mean of g_i g_i' is the covariance plus g g'.
    product -= (at.of_samples @ v.to(product)) * at.of_samples


CURVATURES = {
    "hessian": Curvature(_hessian, _add_weight_decay),
    "ggn": Curvature(_gauss_newton, _add_weight_decay),
    "fisher": Curvature(_second_moment, _add_mean_gradient, per_sample=True),
    "gradient_covariance": Curvature(_second_moment, _subtract_mean_gradient, per_sample=True),
}


def check_curvature(curvature: str, *, independent_samples: bool) -> None:
    """Raise on an unknown curvature, or one that needs gradients of single samples without them."""
    if curvature not in CURVATURES:
        raise ValueError(
            f"curvature={curvature!r} must be one of {', '.join(map(repr, CURVATURES))}."
        )
    if CURVATURES[curvature].per_sample and not independent_samples:
        raise ValueError(
            f"curvature={curvature!r} with mode='train': under batch statistics (BatchNorm) a "
            "single sample has no gradient of its own. Set mode='eval' or 'recalibrate'."
        )


def chunk_graphs(
    loss: ModuleLoss, curvature: str, shares: Shares, *, total: float, n_rows: int
) -> list[Chunk]:
    """Return, for each chunk of samples, the function that makes its graph at a point."""
    graph = CURVATURES[curvature].graph
    return [graph(LossOfChunk(loss, rows, share, total, n_rows)) for rows, share in shares]


def finish_with(
    curvature: str, theta: torch.Tensor, weight_decay: float
) -> Callable[[float, torch.Tensor], Any]:
    """Return a function: (loss, gradient) of the samples -> those with weight decay, and ``add``.
    ``add(v, product)`` completes a product in place by what is no sum over samples.
    """

    def finish(loss: float, of_samples: torch.Tensor) -> Any:
        point = theta.detach().to(of_samples.dtype)
        at = Gradients(of_samples, of_samples + weight_decay * point, weight_decay)

        def add(v: torch.Tensor, product: torch.Tensor) -> None:
            CURVATURES[curvature].add(v, product, at)

        return loss + 0.5 * weight_decay * float(point @ point), at.of_loss, add

    return finish
