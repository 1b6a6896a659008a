"""The criterion: how it is called, the targets it takes, its reduction, its second derivative."""

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from skdmap.hessian._operators.callables import short_name, signature_mismatch

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
    """Return torch.nn.functional.multi_margin_loss, made of operations with second derivatives."""
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
    """Return the criterion as a function of (outputs, y), or of outputs where y is None.
    A class is called without arguments; MultiMarginLoss is replaced by one with second derivatives.
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
    if reduction_of(criterion) == "none":
        raise ValueError(
            f"criterion={short_name(criterion)} has reduction='none', one loss for each sample; it "
            "must be 'mean' or 'sum'. Pass the criterion with one of these."
        )
    if y is None and signature_mismatch(criterion, 1):
        raise ValueError(
            f"y=None, but criterion={short_name(criterion)} takes targets. Pass y, or a "
            "criterion of the module's output alone."
        )
    if y is not None and signature_mismatch(criterion, 2):
        raise ValueError(
            f"criterion={short_name(criterion)} does not take (outputs, y). Pass a criterion "
            "that does, or y=None for one of the module's output alone."
        )
    return differentiable_twice(criterion)


def as_targets(criterion: Any, y: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return integers as floats for a criterion of values, as int64 for one of class labels."""
    if _is_one_of(criterion, _VALUES):
        return y.to(dtype)
    return y if y.is_floating_point() or not takes_labels(criterion) else y.long()


def check_targets(criterion: Any, y: torch.Tensor | None, outputs: Any) -> None:
    """Raise on targets that are not labels where the criterion takes these; outputs (n, C, ...)."""
    if y is None or not isinstance(outputs, torch.Tensor) or not _is_one_of(criterion, _LABELS):
        return
    if outputs.dim() < 2:
        raise ValueError(
            f"module returns one number a sample, but criterion={short_name(criterion)} takes "
            "one column for each class. Pass a module with as many outputs as classes."
        )
    n_classes = outputs.shape[1]
    labels = f"class labels, integers in [0, {n_classes - 1}] for a module of {n_classes} outputs"
    if y.is_floating_point():
        if _is_one_of(criterion, (nn.CrossEntropyLoss,)) and y.shape[1:] == outputs.shape[1:]:
            return
        raise ValueError(
            f"y contains floats ({_first_values(y)}), but criterion={short_name(criterion)} takes "
            f"{labels}. Pass y.astype(int) if they are labels, or criterion=torch.nn.MSELoss() if "
            "they are values."
        )
    outside = (y < 0) | (y >= n_classes)
    if not _is_one_of(criterion, (nn.MultiMarginLoss,)):
        outside &= y != _ignored(criterion)
    if outside.any():
        raise ValueError(
            f"y contains {_first_values(y[outside])}, but criterion={short_name(criterion)} takes "
            f"{labels}. Encode y with sklearn.preprocessing.LabelEncoder, or pass a module with "
            "more outputs."
        )


def takes_labels(criterion: Any) -> bool:
    """Return whether integers are class labels to this criterion of torch."""
    return _is_one_of(criterion, _LABELS)


def counts_weights(criterion: Any, y: torch.Tensor | None) -> bool:
    """Return whether the mean divides by the class weights of the targets that count."""
    likelihood = isinstance(criterion, nn.CrossEntropyLoss | nn.NLLLoss)
    return likelihood and y is not None and not y.is_floating_point()


def reduction_of(criterion: Any) -> str:
    """Return the reduction of a criterion; "mean" if it has none."""
    given = getattr(criterion, "keywords", {}).get("reduction", "mean")
    return getattr(criterion, "reduction", given)


def is_of_labels(criterion: Any) -> bool:
    """Return whether the criterion is one of torch's that take class labels."""
    return isinstance(criterion, _LABELS)


def has_known_divisor(criterion: Any) -> bool:
    """Return whether the criterion is one of torch's, whose divisor is known here."""
    return isinstance(criterion, (*_LABELS, *_VALUES))


def unreduced(criterion: Any) -> Callable[..., torch.Tensor]:
    """Return the criterion with reduction="none"."""
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
    raise no_sample_losses(criterion)


def no_sample_losses(criterion: Any) -> ValueError:
    """Return the error for a criterion that does not give the losses of single samples."""
    return ValueError(
        f"criterion={short_name(criterion)} does not give one loss for each sample. "
        "curvature='fisher' and 'gradient_covariance' need a module with a reduction attribute, or "
        "a function that takes reduction='none', such as torch.nn.CrossEntropyLoss() or "
        "torch.nn.functional.mse_loss."
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


def _first_values(values: torch.Tensor) -> str:
    found = values.unique().tolist()
    shown = ", ".join(f"{value:g}" for value in found[:5])
    return f"{shown}, ..." if len(found) > 5 else shown


class MultiMarginLoss(nn.MultiMarginLoss):
    """torch.nn.MultiMarginLoss with second derivatives."""

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return multi_margin_loss(
            input, target, self.p, self.margin, self.weight, reduction=self.reduction
        )


def differentiable_twice(criterion: Any) -> Any:
    """Return a criterion of the same values with second derivatives; itself if it has them."""
    if type(criterion) is nn.MultiMarginLoss:  # another class may have a forward of its own
        return MultiMarginLoss(
            criterion.p, criterion.margin, criterion.weight, reduction=criterion.reduction
        )
    if criterion is F.multi_margin_loss:
        return multi_margin_loss
    if getattr(criterion, "func", None) is F.multi_margin_loss:
        return functools.partial(multi_margin_loss, *criterion.args, **criterion.keywords)
    return criterion
