"""Data as the user gave it -> rows, their batches, and what the graph of some rows needs."""

from typing import Any

import torch
from torch import nn

from ._batch_shares import even_batches
from ._criterion import is_known
from ._gradient_graph import GradientGraph, Leaves
from ._loader import is_loader, read_loader
from ._memory import graph_bytes
from ._module_loss import ModuleLoss

__all__ = ["as_rows", "batches_of", "check_lengths", "may_be_cut", "measured_bytes"]

Sizes = tuple[int, ...] | None


def as_rows(X: Any, y: Any, batch_size: int | None) -> tuple[Any, Any, Sizes]:
    """Return rows and targets, read from a DataLoader where X is one, with its batch sizes.

    Parameters
    ----------
    X : array, Tensor or DataLoader
        As the user gave it.
    y : array, Tensor or None
        Likewise.
    batch_size : int or None
        Likewise.

    Returns
    -------
    X, y : array or Tensor, array, Tensor or None
        The rows.
    sizes : tuple of int or None
        None where X is no DataLoader.

    Raises
    ------
    ValueError
        If y or ``batch_size`` come beside a DataLoader, which gives both.
    """
    if not is_loader(X):
        return X, y, None
    if y is not None:
        raise ValueError(
            "y must be None where X is a DataLoader, whose batches are pairs of rows and targets. "
            "Put y in its dataset: torch.utils.data.TensorDataset(X, y)."
        )
    if batch_size is not None:
        raise ValueError(
            f"batch_size={batch_size} must be None where X is a DataLoader, whose batches are kept "
            "as they come. Set the batch_size of the loader."
        )
    return read_loader(X)


def batches_of(n_rows: int, batch_size: int | None, sizes: Sizes) -> tuple[slice, ...]:
    """Return the batches: those of a loader, or of ``batch_size`` rows."""
    if sizes is None or len(sizes) < 2:
        return even_batches(n_rows, batch_size)
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return tuple(slice(end - size, end) for end, size in zip(ends, sizes, strict=True))


def check_lengths(loss: ModuleLoss) -> None:
    """Raise if there are not as many targets as rows.

    Parameters
    ----------
    loss : ModuleLoss
        Not called.

    Raises
    ------
    ValueError
        With both numbers.
    """
    n_rows, targets = len(loss.X), loss.y
    if targets is not None and len(targets) != n_rows:
        raise ValueError(
            f"y has {len(targets)} rows, must have as many as X: {n_rows}. Pass the targets of "
            "these rows."
        )


def may_be_cut(criterion: Any) -> bool:
    """Return whether the loss of any rows is known to be the sum of their parts.

    Not where labels of class weight 0, smoothed, count: a chunk of them would divide by 0.
    """
    smoothed = getattr(criterion, "label_smoothing", 0.0) > 0
    weight = getattr(criterion, "weight", None)
    zeros = isinstance(criterion, nn.CrossEntropyLoss) and weight is not None and 0 in weight
    return is_known(criterion) and not (smoothed and zeros)


def measured_bytes(loss: ModuleLoss) -> tuple[float, float]:
    """Return the bytes that a gradient's graph needs, whatever the rows, and for each row.

    Parameters
    ----------
    loss : ModuleLoss
        Tried on 16 and 32 rows, at the module's own parameters.

    Returns
    -------
    fixed, of_a_row : float
        Beside parameters, buffers and data.
    """
    n_rows = len(loss.X)
    leaves = tuple(part.clone().requires_grad_(True) for part in loss.parts(loss.own_point()))
    known = (*leaves, *loss.module.state_dict().values(), loss.X)
    known = known if loss.y is None else (*known, loss.y)

    def of_first(n: int) -> int:
        return graph_bytes(lambda: _graph(loss, leaves, slice(0, n)), known)

    if n_rows < 32 or loss.training:
        n = min(n_rows, 64)
        return 0.0, of_first(n) / n
    few, more = of_first(16), of_first(32)
    of_a_row = max(0, more - few) / 16
    return max(0.0, few - 16 * of_a_row), of_a_row


def _graph(loss: ModuleLoss, leaves: Leaves, rows: slice) -> GradientGraph:
    # Its value may be anything: rows that do not count make a mean of none.
    return GradientGraph(lambda parts: loss.of_rows(parts, rows).nan_to_num(), leaves)
