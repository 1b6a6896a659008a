"""Raise, on at most 64 rows, on what would spoil every later use of a loss."""

import torch

from ._batch_shares import check_shares, spread_rows
from ._module_loss import ModuleLoss
from ._operators import HessianOperator, check_deterministic, check_second_derivatives

__all__ = ["check_loss"]


def check_loss(loss: ModuleLoss, weights: torch.Tensor, *, batched: bool) -> None:
    """Raise on a loss that has no Hessian, or that is not the sum of its batches.

    Parameters
    ----------
    loss : ModuleLoss
        Tried at the module's own parameters.
    weights : Tensor of shape (n_rows,)
        From :func:`row_weights`.
    batched : bool
        Whether the rows go through the module in several batches.

    Raises
    ------
    ValueError
        If the parameters or the loss there are not finite, or the loss is not scalar,
        differentiable twice, deterministic, or the sum of its parts.
    """
    own = loss.own_point()
    if not torch.isfinite(own).all():
        raise ValueError(
            "module has parameters that are NaN or infinite. Load finite parameters first, from "
            "before training diverged."
        )
    rows = spread_rows(weights)
    try:
        # A loss that draws at random is found out without a step of the global generator.
        with torch.random.fork_rng(devices=[own.device] if own.is_cuda else []):
            HessianOperator([lambda theta: loss.of_rows(theta, rows)], own).close()
            few, rows_of_few = _in_double(loss, rows)
            _check_on(few, rows_of_few, weights[rows], batched and len(rows) > 1)
    except Exception as error:
        target = "None" if loss.y is None else f"{loss.y.dtype} {tuple(loss.y.shape)}"
        error.add_note(
            f"Raised while trying criterion(module(X), y) on {len(rows)} rows, with X "
            f"{loss.X.dtype} {tuple(loss.X.shape)} and y {target}. Floats take the dtype of the "
            "module, integers stay integers: class labels must be integers, and inputs of a "
            "linear layer floats."
        )
        raise


def _in_double(loss: ModuleLoss, rows: torch.Tensor) -> tuple[ModuleLoss, torch.Tensor]:
    """Return a loss and rows of it for comparisons.

    In float64 the rounding of large outputs neither hides nor feigns a difference of small losses;
    but something in the criterion, the module or the device may insist on its own dtype.
    """
    try:
        double = loss.on_rows(rows, torch.float64)
        everything = torch.arange(len(rows))
        with torch.no_grad():
            double.of_rows(double.own_point(), everything)
    except (RuntimeError, TypeError):
        return loss, rows
    return double, everything


def _check_on(loss: ModuleLoss, rows: torch.Tensor, weights: torch.Tensor, batched: bool) -> None:
    own = loss.own_point()
    terms = [lambda theta: loss.of_rows(theta, rows)]
    with HessianOperator(terms, own) as hessian:
        check_deterministic(hessian, terms, own)
        check_second_derivatives(hessian)
    if batched:
        with torch.no_grad():
            check_shares(
                loss.criterion,
                lambda part: float(loss.of_rows(own, rows[part])),
                weights,
                torch.finfo(own.dtype).eps,
            )
