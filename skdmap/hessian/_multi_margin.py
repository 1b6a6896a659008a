"""The multi-class margin loss with second derivatives, which that of torch lacks."""

import functools
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["differentiable_twice", "multi_margin_loss"]


def multi_margin_loss(
    input: torch.Tensor,
    target: torch.Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: torch.Tensor | None = None,
    *,
    reduction: str = "mean",
) -> torch.Tensor:
    """Return what ``torch.nn.functional.multi_margin_loss`` does, from operations of torch.

    Parameters
    ----------
    input : Tensor of shape (n_rows, n_classes)
        Outputs.
    target : Tensor of shape (n_rows,)
        Class labels.
    p : {1, 2}, default=1
        Power of what the margin is missed by.
    margin : float, default=1.0
        By how much the output of the label is to exceed the others.
    weight : Tensor of shape (n_classes,), default=None
        Of the classes; the mean does not divide by it.
    reduction : {"mean", "sum", "none"}, default="mean"
        Over rows.

    Returns
    -------
    Tensor
        A scalar, or of shape (n_rows,).

    Examples
    --------
    >>> import torch
    >>> from skdmap.hessian._multi_margin import multi_margin_loss
    >>> multi_margin_loss(torch.tensor([[0.5, 0.0, -1.0]]), torch.tensor([0]), reduction="sum") * 3
    tensor(0.5000)
    """
    labels = target.view(-1, 1)
    missed = torch.relu(margin - input.gather(1, labels) + input) ** p
    terms = missed.scatter(1, labels, 0.0).mean(dim=1)
    if weight is not None:
        terms = terms * weight.to(input)[target]
    if reduction == "none":
        return terms
    return terms.sum() if reduction == "sum" else terms.mean()


class MultiMarginLoss(nn.MultiMarginLoss):
    """Of the same settings as that of torch."""

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return multi_margin_loss(
            input, target, self.p, self.margin, self.weight, reduction=self.reduction
        )


def differentiable_twice(criterion: Any) -> Any:
    """Return a criterion of the same values that has second derivatives; itself where it has.

    Parameters
    ----------
    criterion : callable
        A module or function of torch, or any other.

    Returns
    -------
    callable
        Of the same arguments.

    Examples
    --------
    >>> from torch import nn
    >>> from skdmap.hessian._multi_margin import differentiable_twice
    >>> differentiable_twice(nn.MultiMarginLoss(p=2)).p, differentiable_twice(nn.MSELoss())
    (2, MSELoss())
    """
    if type(criterion) is nn.MultiMarginLoss:  # another class may have a forward of its own
        return MultiMarginLoss(
            criterion.p, criterion.margin, criterion.weight, reduction=criterion.reduction
        )
    if criterion is F.multi_margin_loss:
        return multi_margin_loss
    if getattr(criterion, "func", None) is F.multi_margin_loss:
        return functools.partial(multi_margin_loss, *criterion.args, **criterion.keywords)
    return criterion
