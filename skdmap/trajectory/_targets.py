"""y in the shape and type that the loss takes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.multiclass import check_classification_targets
from torch import nn
from torch.nn import functional as F

__all__ = ["Targets", "encode_targets", "match_outputs"]

# What a loss wants of y. For any other one the type of y decides, as for criterion=None.
_WANTS_CLASSES = (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss)
_WANTS_VALUES = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.PoissonNLLLoss)
_WANTS_SHARES = (nn.BCELoss, nn.BCEWithLogitsLoss)
_FUNCTIONS = {
    F.cross_entropy: nn.CrossEntropyLoss,
    F.nll_loss: nn.NLLLoss,
    F.multi_margin_loss: nn.MultiMarginLoss,
    F.mse_loss: nn.MSELoss,
    F.l1_loss: nn.L1Loss,
    F.smooth_l1_loss: nn.SmoothL1Loss,
    F.huber_loss: nn.HuberLoss,
    F.poisson_nll_loss: nn.PoissonNLLLoss,
    F.binary_cross_entropy: nn.BCELoss,
    F.binary_cross_entropy_with_logits: nn.BCEWithLogitsLoss,
}


@dataclass(frozen=True)
class Targets:
    """Targets as numbers.

    Attributes
    ----------
    values : ndarray of shape (n,) or (n, n_outputs)
        int64 codes of the classes, or float64 values.
    classes : ndarray of shape (n_classes,) or None
        The labels that the codes stand for; None for values.
    n_outputs : int
        Columns that a module needs for them.
    """

    values: np.ndarray
    classes: np.ndarray | None
    n_outputs: int


def encode_targets(y: Any, criterion: Any, classes: np.ndarray | None = None) -> Targets:
    """Turn y into what the loss takes.

    Parameters
    ----------
    y : array-like of shape (n,) or (n, n_outputs)
        Integers, booleans and strings are labels, floats are values, unless the criterion says
        otherwise: cross-entropy takes floats in one column for labels, the squared error takes
        integers for values, binary cross-entropy takes two labels as 0 and 1.
    criterion : None, class, torch.nn.Module or function
        Only its kind is looked at.
    classes : ndarray or None, default=None
        Labels known already; others are then an error.

    Returns
    -------
    Targets
        Codes or values.

    Raises
    ------
    ValueError
        If y does not fit the criterion, or holds an unknown label.
    """
    if sparse.issparse(y):
        raise ValueError("y is sparse, must be dense. Pass y.toarray().")
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    kind = _kind(y, criterion)
    if kind == "values":
        if y.dtype.kind not in "biuf":
            raise ValueError(
                f"y has dtype {y.dtype}, must hold numbers for {_title(criterion)}. Use "
                "criterion=None or a cross-entropy for labels."
            )
        return Targets(y.astype(np.float64), None, 1 if y.ndim == 1 else y.shape[1])
    if y.ndim != 1:
        raise ValueError(
            f"y has shape {y.shape}; labels must have shape (n,). Pass floats for regression on "
            "several columns, or criterion=torch.nn.BCEWithLogitsLoss for several labels a row."
        )
    check_classification_targets(y)
    found, codes = np.unique(y, return_inverse=True)
    if classes is not None:
        unknown = np.setdiff1d(found, classes)
        if len(unknown):
            raise ValueError(
                f"y holds the labels {unknown.tolist()}, must hold those of the first fit only: "
                f"{classes.tolist()}. Call fit again to train on other labels."
            )
        found, codes = classes, np.searchsorted(classes, y)
    if kind == "shares":
        if len(found) > 2:
            raise ValueError(
                f"y holds {len(found)} labels, must hold at most 2 for {_title(criterion)}. Use "
                "criterion=None for more."
            )
        return Targets(codes.astype(np.float64), found, 1)
    return Targets(codes.astype(np.int64), found, len(found))


def match_outputs(targets: torch.Tensor, outputs: torch.Tensor, criterion: Any) -> torch.Tensor:
    """Give targets the shape of the outputs, so that (n,) and (n, 1) are never broadcast.

    Parameters
    ----------
    targets : Tensor of shape (n, ...)
        As cast for training.
    outputs : Tensor of shape (m, ...)
        What the module makes of some rows.
    criterion : callable
        Named in messages; decides whether shapes have to agree.

    Returns
    -------
    Tensor of shape (n, ...)
        A view.

    Raises
    ------
    ValueError
        If the outputs cannot be compared with the targets.
    """
    if not targets.is_floating_point():
        n_classes = int(targets.max()) + 1
        if _wants(criterion, _WANTS_CLASSES) and (outputs.ndim < 2 or outputs.shape[1] < n_classes):
            raise ValueError(
                f"module returns rows of shape {tuple(outputs.shape[1:])}, must return at least "
                f"n_classes={n_classes} columns. Change module or module_params."
            )
        return targets
    if targets[:1].numel() == outputs[:1].numel():
        return targets.reshape(len(targets), *outputs.shape[1:])
    if _wants(criterion, _WANTS_VALUES + _WANTS_SHARES):
        raise ValueError(
            f"module returns rows of shape {tuple(outputs.shape[1:])}, must return the shape of a "
            f"row of y, {tuple(targets.shape[1:])}. Change module or module_params."
        )
    return targets


def _kind(y: np.ndarray, criterion: Any) -> str:
    if _wants(criterion, _WANTS_VALUES):
        return "values"
    if y.dtype.kind == "f":
        return "classes" if y.ndim == 1 and _wants(criterion, _WANTS_CLASSES) else "values"
    if _wants(criterion, _WANTS_SHARES):
        return "shares" if y.ndim == 1 else "values"
    return "classes"


def _wants(criterion: Any, kinds: tuple[type, ...]) -> bool:
    criterion = getattr(criterion, "func", criterion)  # functools.partial
    if isinstance(criterion, type):
        return issubclass(criterion, kinds)
    try:
        criterion_class = _FUNCTIONS.get(criterion)
    except TypeError:  # unhashable
        criterion_class = None
    return isinstance(criterion, kinds) or criterion_class in kinds


def _title(criterion: Any) -> str:
    criterion = getattr(criterion, "func", criterion)
    return getattr(criterion, "__name__", type(criterion).__name__)
