"""A curvature by name -> the graph of each chunk of rows, and what is no sum over rows."""

from collections.abc import Callable
from typing import Any

import torch

from skdmap.hessian._operators.autodiff import (
    GradientGraph,
    Leaves,
    gauss_newton_graph,
    row_gradients_graph,
)
from skdmap.hessian._operators.base import Chunk
from skdmap.hessian._risk.batch_weights import Rows, Shares
from skdmap.hessian._risk.criterion import counts_weights, no_rows, reduction_of
from skdmap.hessian._risk.module_loss import ModuleLoss

CURVATURES = ("hessian", "ggn", "fisher", "gradient_covariance")


def check_curvature(curvature: str, *, rows_apart: bool) -> None:
    """Raise on a curvature that is none, or that the rows do not have.

    Parameters
    ----------
    curvature : str
        As the user gave it.
    rows_apart : bool
        Whether the output of a row depends on that row alone.

    Raises
    ------
    ValueError
        If it is another, or needs gradients of single rows where there are none.
    """
    if curvature not in CURVATURES:
        raise ValueError(
            f"curvature={curvature!r} must be one of {', '.join(map(repr, CURVATURES))}."
        )
    if curvature in ("fisher", "gradient_covariance") and not rows_apart:
        raise ValueError(
            f"curvature={curvature!r} with mode='train': rows have no gradients of their own "
            "under batch statistics (BatchNorm). Set mode='eval' or 'recalibrate'."
        )


def chunk_graphs(
    loss: ModuleLoss, curvature: str, shares: Shares, *, total: float, n_rows: int
) -> list[Chunk]:
    """Return for each chunk the function that makes its graph at a point.

    Parameters
    ----------
    loss : ModuleLoss
        Of some rows.
    curvature : str
        One of ``CURVATURES``.
    shares : tuple of (slice, float)
        From ``batch_shares``.
    total : float
        Sum of the weights of all rows.
    n_rows : int
        Number of all rows.

    Returns
    -------
    list of callable
        Their products sum to the Hessian, the Gauss-Newton matrix, or the mean of g_i g_i'.
    """

    def hessian(rows: Rows, share: float) -> Chunk:
        return lambda leaves: GradientGraph(lambda p: share * loss.of_rows(p, rows), leaves)

    def ggn(rows: Rows, share: float) -> Chunk:
        return lambda leaves: gauss_newton_graph(
            lambda p: loss.outputs(p, rows), lambda z: share * loss.of_outputs(z, rows), leaves
        )

    def fisher(rows: Rows, share: float) -> Chunk:
        terms = _row_terms(loss, rows, share, total)
        # What a row adds is l_i / n, so n times the sum over squares is the mean of g_i g_i'.
        return lambda leaves: row_gradients_graph(terms, leaves, scale=n_rows)

    makers = {"hessian": hessian, "ggn": ggn}
    return [makers.get(curvature, fisher)(rows, share) for rows, share in shares]


def _row_terms(
    loss: ModuleLoss, rows: Rows, share: float, total: float
) -> Callable[[Leaves], torch.Tensor]:
    reduction = reduction_of(loss.criterion)

    def terms(parts: Leaves) -> torch.Tensor:
        losses = loss.of_each_row(parts, rows)
        if reduction == "sum":
            return losses.sum(dim=1)
        if reduction == "batchmean" or counts_weights(loss.criterion, loss.y):
            return losses.sum(dim=1) / total
        return losses.mean(dim=1) / total

    with torch.no_grad():
        parts = loss.parts(loss.own_point())
        found, wanted = float(terms(parts).sum()), share * float(loss.of_rows(parts, rows))
    eps = torch.finfo(loss.own_point().dtype).eps
    if not abs(found - wanted) <= eps**0.5 * max(abs(found), abs(wanted)) + 100 * eps:
        raise no_rows(loss.criterion)
    return terms


def finish_with(
    curvature: str, theta: torch.Tensor, weight_decay: float
) -> Callable[[float, torch.Tensor], Any]:
    """Return the function that makes sums over rows those of the whole loss.

    Parameters
    ----------
    curvature : str
        One of ``CURVATURES``.
    theta : Tensor of shape (n_parameters,)
        The point.
    weight_decay : float
        Of the loss.

    Returns
    -------
    callable
        Maps loss and gradient of the rows to those of the whole, and to what is added to products.
    """

    def finish(loss: float, of_rows: torch.Tensor) -> Any:
        point = theta.detach().to(of_rows.dtype)
        whole = of_rows + weight_decay * point

        def add(v: torch.Tensor, product: torch.Tensor) -> None:
            if curvature in ("hessian", "ggn"):
                if weight_decay:
                    product += weight_decay * v
                return
            if curvature == "fisher" and not weight_decay:
                return
            # The mean of g_i g_i' is the covariance and g g'; decay moves each g_i alike.
            product -= (of_rows @ v) * of_rows
            if curvature == "fisher":
                product += (whole @ v) * whole

        return loss + 0.5 * weight_decay * float(point @ point), whole, add

    return finish
