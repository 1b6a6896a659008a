"""A criterion and y as the user gave them -> a criterion that takes these targets."""

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from skdmap.hessian._operators.callables import misfit, title

_LABELS = (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss)
_VALUES = (
    nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.PoissonNLLLoss,
    nn.BCELoss, nn.BCEWithLogitsLoss,
)  # fmt: skip


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
    >>> from skdmap.hessian._risk.criterion import multi_margin_loss
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


_FUNCTIONS = {
    F.cross_entropy: nn.CrossEntropyLoss,
    F.nll_loss: nn.NLLLoss,
    multi_margin_loss: nn.MultiMarginLoss,
    F.mse_loss: nn.MSELoss,
    F.l1_loss: nn.L1Loss,
    F.smooth_l1_loss: nn.SmoothL1Loss,
    F.huber_loss: nn.HuberLoss,
    F.poisson_nll_loss: nn.PoissonNLLLoss,
    F.binary_cross_entropy: nn.BCELoss,
    F.binary_cross_entropy_with_logits: nn.BCEWithLogitsLoss,
}


def resolve_criterion(criterion: Any, y: Any) -> Callable[..., torch.Tensor]:
    """Return the loss as a function: a class is called without arguments.

    Parameters
    ----------
    criterion : class, torch.nn.Module or function
        As the user gave it.
    y : object
        Only whether it is None is looked at.

    Returns
    -------
    callable
        Of outputs and targets, or of outputs alone where y is None; with second derivatives where
        torch's own has none.

    Raises
    ------
    ValueError
        If it cannot be called so.

    Examples
    --------
    >>> import torch
    >>> from skdmap.hessian._risk.criterion import resolve_criterion
    >>> resolve_criterion(torch.nn.MSELoss, [0.0])
    MSELoss()
    """
    if inspect.isclass(criterion):
        try:
            criterion = criterion()
        except TypeError as error:
            raise ValueError(
                f"criterion={criterion.__name__} cannot be made without arguments: {error}. Pass "
                "an instance of it."
            ) from error
    if not callable(criterion):
        raise ValueError(
            f"criterion={criterion!r} must be a class, an instance or a function that is called "
            "as criterion(outputs, y). Pass torch.nn.CrossEntropyLoss or torch.nn.MSELoss."
        )
    if y is None and misfit(criterion, 1):
        raise ValueError(
            f"y=None, but criterion={title(criterion)} takes targets. Pass y, or a "
            "criterion of the module's output alone."
        )
    if y is not None and misfit(criterion, 2):
        raise ValueError(
            f"criterion={title(criterion)} does not take (outputs, y). Pass a criterion "
            "that does, or y=None for one of the module's output alone."
        )
    return differentiable_twice(criterion)


def as_targets(criterion: Any, y: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return integers as floats where the criterion compares values.

    Parameters
    ----------
    criterion : callable
        Only its kind is looked at.
    y : Tensor of shape (n_rows, ...)
        The targets.
    dtype : torch.dtype
        Of values.

    Returns
    -------
    Tensor of shape (n_rows, ...)
        Integers of shape (n_rows,) would broadcast against a column of outputs; a column of them
        has no gradient in some criteria.
    """
    return y.to(dtype) if _is_one_of(criterion, _VALUES) else y


def check_targets(criterion: Any, y: torch.Tensor | None, outputs: Any) -> None:
    """Raise on targets that are no class labels where the criterion takes these.

    Parameters
    ----------
    criterion : callable
        Any but those of class labels is let pass.
    y : Tensor of shape (n_rows, ...) or None
        All targets.
    outputs : Tensor of shape (n, n_classes, ...)
        Of some rows.

    Raises
    ------
    ValueError
        If they are floats but no probabilities of classes, or out of range.
    """
    if y is None or not isinstance(outputs, torch.Tensor) or not _is_one_of(criterion, _LABELS):
        return
    if outputs.dim() < 2:
        raise ValueError(
            f"module returns rows of shape (), criterion={title(criterion)} takes one column for "
            "each class. Pass a module with as many outputs as classes."
        )
    n_classes = outputs.shape[1]
    labels = f"class labels, integers in [0, {n_classes - 1}] for a module of {n_classes} outputs"
    if y.is_floating_point():
        if _is_one_of(criterion, (nn.CrossEntropyLoss,)) and y.shape[1:] == outputs.shape[1:]:
            return
        raise ValueError(
            f"y holds floats ({_some(y)}), but criterion={title(criterion)} takes {labels}. Pass "
            "y.astype(int) if they are labels, or criterion=torch.nn.MSELoss() if they are values."
        )
    outside = (y < 0) | (y >= n_classes)
    if not _is_one_of(criterion, (nn.MultiMarginLoss,)):
        outside &= y != _ignored(criterion)
    if outside.any():
        raise ValueError(
            f"y holds {_some(y[outside])}, but criterion={title(criterion)} takes {labels}. "
            "Encode y with sklearn.preprocessing.LabelEncoder, or pass a module of more outputs."
        )


def takes_labels(criterion: Any) -> bool:
    """Return whether integers are numbers of classes to a criterion that torch has."""
    return _is_one_of(criterion, _LABELS)


def counts_weights(criterion: Any, y: torch.Tensor | None) -> bool:
    """Return whether the mean divides by the class weights of the targets that count."""
    likelihood = isinstance(criterion, nn.CrossEntropyLoss | nn.NLLLoss)
    return likelihood and y is not None and not y.is_floating_point()


def reduction_of(criterion: Any) -> str:
    """Return how a criterion sums up its rows; "mean" where it does not say.

    Examples
    --------
    >>> from functools import partial
    >>> from torch import nn
    >>> from skdmap.hessian._risk.criterion import reduction_of
    >>> reduction_of(nn.KLDivLoss(reduction="batchmean"))
    'batchmean'
    >>> reduction_of(partial(nn.functional.mse_loss, reduction="sum"))
    'sum'
    """
    given = getattr(criterion, "keywords", {}).get("reduction", "mean")
    return getattr(criterion, "reduction", given)


def is_known(criterion: Any) -> bool:
    """Return whether the criterion is one of torch's whose divisor is known here."""
    return isinstance(criterion, (*_LABELS, *_VALUES))


def unreduced(criterion: Any) -> Callable[..., torch.Tensor]:
    """Return the criterion with reduction="none": the losses of single rows.

    Never the loss of single rows: a mean over one row cancels its class weight.

    Parameters
    ----------
    criterion : callable
        A module with ``reduction``, or a function that takes it.

    Returns
    -------
    callable
        Of the same arguments.

    Raises
    ------
    ValueError
        If it has none.

    Examples
    --------
    >>> import torch
    >>> from skdmap.hessian._risk.criterion import unreduced
    >>> squares = unreduced(torch.nn.MSELoss())
    >>> squares(torch.tensor([1.0, 3.0]), torch.zeros(2)).tolist()
    [1.0, 9.0]
    """
    if isinstance(criterion, nn.Module) and isinstance(getattr(criterion, "reduction", None), str):
        criterion = copy.copy(criterion)
        criterion.reduction = "none"
        return criterion
    try:
        takes = not isinstance(criterion, nn.Module) and (
            "reduction" in inspect.signature(criterion).parameters
        )
    except (TypeError, ValueError):
        takes = False
    if takes:
        return functools.partial(criterion, reduction="none")
    raise no_rows(criterion)


def no_rows(criterion: Any) -> ValueError:
    """Return the error of a criterion that does not tell the losses of single rows."""
    return ValueError(
        f"criterion={title(criterion)} does not give one loss for each row. curvature='fisher' and "
        "'gradient_covariance' need a module with a reduction attribute, or a function that takes "
        "reduction='none', as torch.nn.CrossEntropyLoss() or torch.nn.functional.mse_loss."
    )


def _is_one_of(criterion: Any, kinds: tuple[type, ...]) -> bool:
    criterion = getattr(criterion, "func", criterion)
    try:
        kind = _FUNCTIONS.get(criterion)
    except TypeError:  # unhashable
        kind = None
    return isinstance(criterion, kinds) or kind in kinds


def _ignored(criterion: Any) -> int:
    given = getattr(criterion, "keywords", {}).get("ignore_index", -100)
    return int(getattr(criterion, "ignore_index", given))


def _some(values: torch.Tensor) -> str:
    found = values.unique().tolist()
    shown = ", ".join(f"{value:g}" for value in found[:5])
    return f"{shown}, ..." if len(found) > 5 else shown


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
    >>> from skdmap.hessian._risk.criterion import differentiable_twice
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
