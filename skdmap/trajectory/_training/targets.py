"""y in the shape and type that the loss takes."""

import functools
import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.multiclass import check_classification_targets
from torch import nn
from torch.nn import functional as F

from skdmap._sklearn_compat import InvalidParameterError

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
    """Targets as numbers."""

    values: np.ndarray  # int64 codes of the classes (n,), or float64 values (n,) or (n, n_outputs)
    classes: np.ndarray | None  # the labels that the codes stand for; None for values
    n_outputs: int  # columns that a module needs for them


def encode_targets(y: Any, criterion: Any, classes: np.ndarray | None = None) -> Targets:
    """Return y as codes or values, whichever the criterion takes, or by the type of y.
    ``classes``: the labels of an earlier fit; others are an error.
    """
    if sparse.issparse(y):
        raise ValueError("y is sparse; it must be dense. Pass y.toarray().")
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    kind = _kind(y, criterion)
    if kind == "values":
        if y.dtype.kind not in "biuf":
            raise ValueError(
                f"y has dtype {y.dtype}; it must be numeric for {_title(criterion)}. Use "
                "criterion=None or a cross-entropy for labels."
            )
        return Targets(y.astype(np.float64), None, 1 if y.ndim == 1 else y.shape[1])
    if y.ndim != 1:
        raise ValueError(
            f"y has shape {y.shape}; labels must have shape (n,). Pass floats for regression on "
            "several columns, or criterion=torch.nn.BCEWithLogitsLoss for multi-label data."
        )
    check_classification_targets(y)
    found, codes = np.unique(y, return_inverse=True)
    if classes is not None:
        unknown = np.setdiff1d(found, classes)
        ignored = _setting(criterion, "ignore_index")
        is_ignored = np.zeros(len(y), dtype=bool)
        if ignored is not None and np.array_equal(classes, np.arange(len(classes))):
            unknown, is_ignored = unknown[unknown != ignored], y == ignored
        if len(unknown):
            raise ValueError(
                f"y contains the labels {unknown.tolist()}; it must contain only those of the "
                f"first fit, {classes.tolist()}. Call fit again to train on other labels."
            )
        found, codes = classes, np.searchsorted(classes, y)
        codes = np.where(is_ignored, ignored, codes)
    if kind == "shares":
        if len(found) > 2:
            raise ValueError(
                f"y contains {len(found)} labels; it must contain at most 2 for "
                f"{_title(criterion)}. Use criterion=None for more."
            )
        return Targets(codes.astype(np.float64), found, 1)
    return Targets(codes.astype(np.int64), found, len(found))


def settle_classes(targets: Targets, criterion: Any, n_outputs: int | None) -> Targets:
    """Leave labels as they are where they are indices of the ``n_outputs`` columns already.
    Class weights and ``ignore_index`` refer to such indices, also of labels missing in y.
    """
    labels = targets.classes
    if labels is None or not _wants(criterion, _WANTS_CLASSES):
        return targets
    ignored, weight = _setting(criterion, "ignore_index"), _setting(criterion, "weight")
    proper = np.array([label for label in labels.tolist() if label != ignored])
    if n_outputs is None:
        n_outputs = len(proper)
    is_numeric = labels.dtype.kind in "iuf"
    if is_numeric and ((proper >= 0) & (proper < n_outputs)).all():
        indices = labels.astype(np.int64)[targets.values]
        return Targets(indices, np.arange(n_outputs), n_outputs)
    remedy = f"Number the classes 0, ..., {n_outputs - 1}, or let module return more columns."
    if len(proper) < len(labels):
        raise ValueError(
            f"y contains ignore_index={ignored} of the criterion and the labels "
            f"{proper.tolist()}, which must lie in [0, n_outputs={n_outputs}) then. {remedy}"
        )
    if weight is not None and len(weight) != len(labels):
        raise ValueError(
            f"weight of the criterion has {len(weight)} entries; it must have one for each of the "
            f"{len(labels)} labels in y, {labels.tolist()}. {remedy}"
        )
    return targets


def match_outputs(targets: torch.Tensor, outputs: torch.Tensor, criterion: Any) -> torch.Tensor:
    """Return targets in the shape of the outputs, so that (n,) and (n, 1) never broadcast."""
    if not targets.is_floating_point():
        proper = targets[targets != _setting(criterion, "ignore_index")]
        n_classes = int(proper.max()) + 1 if len(proper) else 0
        if _wants(criterion, _WANTS_CLASSES) and (outputs.ndim < 2 or outputs.shape[1] < n_classes):
            raise ValueError(
                f"module returns rows of shape {tuple(outputs.shape[1:])}; it must return at least "
                f"n_classes={n_classes} columns. Change module or module_params."
            )
        return targets
    if targets[:1].numel() == outputs[:1].numel():
        return targets.reshape(len(targets), *outputs.shape[1:])
    if _wants(criterion, _WANTS_VALUES + _WANTS_SHARES):
        raise ValueError(
            f"module returns rows of shape {tuple(outputs.shape[1:])}; it must return the shape of "
            f"a row of y, {tuple(targets.shape[1:])}. Change module or module_params."
        )
    return targets


def gives_log_probabilities(criterion: Any) -> bool:
    """Return whether the log-softmax of the outputs are log-probabilities for a loss.
    Outputs for NLL are that already, and log-softmax leaves them as they are.
    """
    return _wants(criterion, (nn.CrossEntropyLoss, nn.NLLLoss))


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


def _setting(criterion: Any, name: str) -> Any:
    """Return a setting of a loss of class indices: an attribute, or a keyword of a function."""
    if not _wants(criterion, _WANTS_CLASSES):
        return None
    if isinstance(criterion, nn.Module):
        return getattr(criterion, name, None)
    if isinstance(criterion, functools.partial) and name in criterion.keywords:
        return criterion.keywords[name]
    argument = inspect.signature(criterion).parameters.get(name)
    return None if argument is None else argument.default


def _title(criterion: Any) -> str:
    criterion = getattr(criterion, "func", criterion)
    return getattr(criterion, "__name__", type(criterion).__name__)


def noisy_targets(targets: Targets, label_noise: float, seed: int) -> np.ndarray:
    """Return the values with label noise: codes replaced by others, Gaussian noise on values.
    ``label_noise``: the share of labels, or standard deviations of each column of y.
    """
    if label_noise == 0:
        return targets.values
    rng = np.random.default_rng(seed)
    if targets.classes is None:
        spread = targets.values.std(axis=0)
        return targets.values + label_noise * spread * rng.standard_normal(targets.values.shape)
    n_classes = len(targets.classes)
    if label_noise > 1:
        raise InvalidParameterError(
            f"label_noise={label_noise} must be a share in [0, 1] where y contains labels. Pass "
            "0.1 to replace a tenth of them."
        )
    if n_classes < 2:
        raise InvalidParameterError(
            f"label_noise={label_noise} needs another label to put in place, and y contains "
            f"{n_classes}. Pass 0."
        )
    values = targets.values.copy()
    proper = np.flatnonzero((values >= 0) & (values < n_classes))
    chosen = rng.choice(proper, size=round(label_noise * len(proper)), replace=False)
    # A shift by 1 to n_classes - 1 reaches each other class with equal probability.
    shifts = rng.integers(1, n_classes, size=len(chosen))
    values[chosen] = (values[chosen] + shifts) % n_classes
    return values
