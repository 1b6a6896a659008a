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
        Its kind, and the ``ignore_index`` that it has.
    classes : ndarray or None, default=None
        Labels known already; others are then an error, but for an ``ignore_index`` beside labels
        that are indices of outputs.

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
        ignored = _setting(criterion, "ignore_index")
        is_ignored = np.zeros(len(y), dtype=bool)
        if ignored is not None and np.array_equal(classes, np.arange(len(classes))):
            unknown, is_ignored = unknown[unknown != ignored], y == ignored
        if len(unknown):
            raise ValueError(
                f"y holds the labels {unknown.tolist()}, must hold those of the first fit only: "
                f"{classes.tolist()}. Call fit again to train on other labels."
            )
        found, codes = classes, np.searchsorted(classes, y)
        codes = np.where(is_ignored, ignored, codes)
    if kind == "shares":
        if len(found) > 2:
            raise ValueError(
                f"y holds {len(found)} labels, must hold at most 2 for {_title(criterion)}. Use "
                "criterion=None for more."
            )
        return Targets(codes.astype(np.float64), found, 1)
    return Targets(codes.astype(np.int64), found, len(found))


def settle_classes(targets: Targets, criterion: Any, n_outputs: int | None) -> Targets:
    """Leave labels as they are where they can be indices of outputs already.

    Class weights and ``ignore_index`` speak of such indices: a label that is missing in y must
    not shift those behind it.

    Parameters
    ----------
    targets : Targets
        As :func:`encode_targets` returns them without labels known already.
    criterion : callable
        As built. Nothing changes unless it takes class indices, as cross-entropy does.
    n_outputs : int or None
        Columns that the module returns; None for as many as there are labels.

    Returns
    -------
    Targets
        With ``classes`` 0, ..., n_outputs - 1 where all labels, ``ignore_index`` apart, are whole
        numbers among these; else as they were.

    Raises
    ------
    ValueError
        If labels are something else, and y holds ``ignore_index``, or there are not as many class
        weights as labels.
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
            f"y holds ignore_index={ignored} of the criterion beside the labels "
            f"{proper.tolist()}, which must lie in [0, n_outputs={n_outputs}) then. {remedy}"
        )
    if weight is not None and len(weight) != len(labels):
        raise ValueError(
            f"weight of the criterion has {len(weight)} entries, must have one for each of the "
            f"{len(labels)} labels in y, {labels.tolist()}. {remedy}"
        )
    return targets


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
        proper = targets[targets != _setting(criterion, "ignore_index")]
        n_classes = int(proper.max()) + 1 if len(proper) else 0
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


def gives_log_probabilities(criterion: Any) -> bool:
    """Return whether the softmax of the outputs are probabilities for a loss.

    True for cross-entropy, and for the negative log-likelihood, whose outputs are logarithms of
    probabilities already.
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
    """Return the values of the targets with noise.

    Parameters
    ----------
    targets : Targets
        Codes of classes, or values.
    label_noise : float
        Classes: the share of rows, in [0, 1], whose label is replaced by another one, drawn
        uniformly; exactly round(share * n) rows, and never one of ``ignore_index``. Values:
        standard deviation of the Gaussian noise, in standard deviations of each column of y.
    seed : int
        Of the draw.

    Returns
    -------
    ndarray of the shape of ``targets.values``
        The values themselves where ``label_noise`` is 0; else a copy.

    Raises
    ------
    InvalidParameterError
        If the share is above 1, or there is no other label.

    Examples
    --------
    >>> import numpy as np
    >>> targets = Targets(np.zeros(10, dtype=np.int64), np.arange(3), 3)
    >>> int((noisy_targets(targets, 0.3, seed=0) != 0).sum())
    3
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
            f"label_noise={label_noise} must be a share in [0, 1] where y holds labels. Pass 0.1 "
            "to replace a tenth of them."
        )
    if n_classes < 2:
        raise InvalidParameterError(
            f"label_noise={label_noise} needs another label to put in place, and y holds "
            f"{n_classes}. Pass 0."
        )
    values = targets.values.copy()
    proper = np.flatnonzero((values >= 0) & (values < n_classes))
    chosen = rng.choice(proper, size=round(label_noise * len(proper)), replace=False)
    # A shift by 1 to n_classes - 1 reaches each other class alike.
    shifts = rng.integers(1, n_classes, size=len(chosen))
    values[chosen] = (values[chosen] + shifts) % n_classes
    return values
