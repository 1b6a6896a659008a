"""Raise, on at most 64 rows, on what would spoil every later use of a loss."""

from contextlib import AbstractContextManager
from typing import Any

import torch

from ._batch_shares import Rows, check_shares, spread_rows
from ._calls import title
from ._criterion import check_targets
from ._module_loss import ModuleLoss
from ._operators import HessianOperator, check_deterministic, tried_operator

__all__ = ["check_calls", "check_loss"]

# What torch and modules raise on input that does not fit.
_MISFITS = (RuntimeError, ValueError, TypeError, IndexError)


def check_calls(loss: ModuleLoss) -> None:
    """Raise on rows that the module does not take, or targets that the criterion does not take.

    Parameters
    ----------
    loss : ModuleLoss
        Called once at the module's own parameters.

    Raises
    ------
    ValueError
        If the parameters are not finite, or module or criterion fails; with torch's own message.
    """
    own = loss.own_point()
    if not torch.isfinite(own).all():
        raise ValueError(
            "module has parameters that are NaN or infinite. Load finite parameters first, from "
            "before training diverged."
        )
    rows = spread_rows(torch.ones(len(loss.X)))
    with torch.no_grad(), _kept_generators(own):
        try:
            outputs = loss.outputs(loss.parts(own), rows)
        except torch.OutOfMemoryError:
            raise
        except _MISFITS as error:
            shape, kind = tuple(loss.X.shape[1:]), loss.X.dtype
            raise ValueError(
                f"module={type(loss.module).__name__} fails on rows of shape {shape} and dtype "
                f"{kind}: {error}. Pass a module that takes such rows, or reshape X; X.astype(float"
                ") where a layer wants floats, integers where it wants indices."
            ) from error
        check_targets(loss.criterion, loss.y, outputs)
        try:
            loss.of_outputs(outputs, rows)
        except torch.OutOfMemoryError:
            raise
        except _MISFITS as error:
            raise _criterion_fails(loss, outputs, error) from error


def _criterion_fails(loss: ModuleLoss, outputs: Any, error: Exception) -> ValueError:
    shape = getattr(outputs, "shape", None)
    found = type(outputs).__name__ if shape is None else f"rows of shape {tuple(shape[1:])}"
    if loss.y is None:
        targets, remedy = "", "Pass a criterion that takes what the module returns."
    else:
        targets = f" and y of shape {tuple(loss.y.shape)} and dtype {loss.y.dtype}"
        remedy = "Pass labels as integers of shape (n,), values as floats of the outputs' shape."
    return ValueError(
        f"criterion={title(loss.criterion)} fails on outputs of {found}{targets}: {error}. {remedy}"
    )


def _kept_generators(point: torch.Tensor) -> AbstractContextManager[None]:
    """Find out a loss that draws at random without a step of the global generator."""
    return torch.random.fork_rng(devices=[point.device] if point.is_cuda else [])


def check_loss(loss: ModuleLoss, weights: torch.Tensor, *, batched: bool) -> bool:
    """Raise on a loss that has no Hessian, or that is not the sum of its batches.

    Parameters
    ----------
    loss : ModuleLoss
        Tried at the module's own parameters.
    weights : Tensor of shape (n_rows,)
        From :func:`row_weights`.
    batched : bool
        Whether the rows go through the module in several batches.

    Returns
    -------
    bool
        Whether the loss is the sum of its parts, as it must be where ``batched``.

    Raises
    ------
    ValueError
        If the loss there is not finite, scalar, differentiable twice, deterministic, or the sum of
        its parts.
    """
    own, rows = loss.own_point(), spread_rows(weights, loss.y)
    with _kept_generators(own):
        HessianOperator([lambda theta: loss.of_flat(theta, rows)], own).close()
        few, rows_of_few = _in_double(loss, rows)
        _check_on(few, rows_of_few)
        if len(rows) == 1:
            return True
        try:
            _check_parts(few, rows_of_few, weights[rows])
        except ValueError:
            if batched:
                raise
            return False
    return True


def _in_double(loss: ModuleLoss, rows: torch.Tensor) -> tuple[ModuleLoss, torch.Tensor]:
    """Return a loss and rows of it for comparisons.

    In float64 the rounding of large outputs neither hides nor feigns a difference of small losses;
    but something in the criterion, the module or the device may insist on its own dtype.
    """
    try:
        double = loss.on_rows(rows, torch.float64)
        everything = torch.arange(len(rows))
        with torch.no_grad():
            double.of_flat(double.own_point(), everything)
    except (RuntimeError, TypeError):
        return loss, rows
    return double, everything


def _check_on(loss: ModuleLoss, rows: torch.Tensor) -> None:
    own = loss.own_point()
    terms = [lambda theta: loss.of_flat(theta, rows)]
    tried_operator(lambda: HessianOperator(terms, own)).close()
    away = _away_from(own)
    if _is_finite(loss, away, rows):
        with HessianOperator(terms, away) as hessian:
            check_deterministic(hessian, terms, away)


def _away_from(own: torch.Tensor) -> torch.Tensor:
    """Return a point at which outputs differ from row to row, though they may be all alike here.

    They are where a last layer starts at zero: whatever the rows do then, the loss is the same.
    """
    generator = torch.Generator().manual_seed(0)  # its own: the global one is not advanced
    step = torch.randn(len(own), generator=generator, dtype=torch.float64)
    return own + 0.05 * step.to(own.device, own.dtype)


def _is_finite(loss: ModuleLoss, point: torch.Tensor, rows: torch.Tensor) -> bool:
    """Return whether there is a loss: a module may leave where it is defined."""
    try:
        with torch.no_grad():
            return bool(torch.isfinite(loss.of_flat(point, rows)).all())
    except (RuntimeError, ValueError):
        return False


def _check_parts(loss: ModuleLoss, rows: torch.Tensor, weights: torch.Tensor) -> None:
    own = loss.own_point()
    away = _away_from(own)
    points = [own, away] if _is_finite(loss, away, rows) else [own]
    with torch.no_grad():
        for point in points:

            def loss_of(part: Rows, point: torch.Tensor = point) -> float:
                return float(loss.of_flat(point, rows[part]))

            check_shares(loss.criterion, loss_of, weights, torch.finfo(own.dtype).eps)
