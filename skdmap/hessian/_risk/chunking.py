"""Batches of rows -> chunks whose graphs stay in the cache, or fit in the memory that is left."""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from skdmap._warning import warn
from skdmap.exceptions import SkdmapWarning
from skdmap.hessian._operators.autodiff import GradientGraph, Leaves
from skdmap.hessian._operators.memory_budget import graph_bytes
from skdmap.hessian._risk.batch_weights import Shares, batch_shares, cut, even_batches, n_rows_of
from skdmap.hessian._risk.criterion import is_known, reduction_of
from skdmap.hessian._risk.data_loader import is_loader, read_loader
from skdmap.hessian._risk.module_loss import ModuleLoss

# The graph of a chunk stays in the cache; the gradient of each chunk is read and written once.
_CHUNK_BYTES, _CHUNK_GRADIENTS = 1.5e6, 8
Sizes = tuple[int, ...] | None


@dataclass(frozen=True)
class Chunking:
    """How the rows go through the module.

    Attributes
    ----------
    batches : tuple of slice
        As the user wants them.
    reduction : str
        Of the criterion.
    divisible : bool
        Whether batches may be cut.
    fixed_bytes, row_bytes : float
        What the graph of a gradient needs, whatever the rows, and for each row.
    gradient_bytes : int
        Of one gradient.
    """

    batches: tuple[slice, ...]
    reduction: str
    divisible: bool
    fixed_bytes: float
    row_bytes: float
    gradient_bytes: int

    @classmethod
    def of(cls, loss: ModuleLoss, batches: tuple[slice, ...], *, additive: bool) -> Self:
        """Measure the graphs of a loss that is the sum of its parts, or may not be."""
        own = loss.own_point()
        return cls(
            batches,
            reduction_of(loss.criterion),
            additive and not loss.training and may_be_cut(loss.criterion),
            *measured_bytes(loss),
            own.numel() * own.element_size(),
        )

    def shares(self, weights: torch.Tensor, total: float, left: float | None = None) -> Shares:
        """Return chunks with their shares of the loss.

        Parameters
        ----------
        weights : Tensor of shape (n_rows,)
            From ``row_weights``.
        total : float
            Their sum, over all ranks.
        left : float, default=None
            Bytes; six chunks are to fit in. None, or a negative number, is no limit.

        Returns
        -------
        tuple of (slice, float)
            Those in which no row counts are left out of a mean.
        """
        batches = self.batches
        if self.divisible:
            batches = cut(batches, self.rows_of_chunk(left))
        return batch_shares(weights, self.reduction, batches, total)

    def rows_of_chunk(self, left: float | None = None) -> int:
        """Return how many rows a chunk is to have, where ``left`` bytes are left."""
        wanted = max(_CHUNK_BYTES, _CHUNK_GRADIENTS * self.gradient_bytes)
        if left is not None and left >= 0:
            wanted = min(wanted, left / 6)
        return max(1, int((wanted - self.fixed_bytes) / max(self.row_bytes, 1.0)))

    def n_bytes(self, n_rows: int) -> int:
        """Return what the graph of so many rows needs; of the longest batch if it is not cut."""
        if not self.divisible:
            n_rows = max(rows.stop - rows.start for rows in self.batches)
        return int(self.fixed_bytes + n_rows * self.row_bytes)

    def longest_bytes(self, shares: Shares) -> int:
        """Return what the graph of the longest of these chunks needs."""
        return self.n_bytes(max((n_rows_of(rows) for rows, _ in shares), default=1))


def warn_if_tight(needed: int, left: int) -> None:
    """Warn where a batch that cannot be cut needs more memory than there is.

    Parameters
    ----------
    needed, left : int
        Bytes.

    Warns
    -----
    SkdmapWarning
        With the need.
    """
    if left < needed:
        warn(
            f"mode='train' takes a batch in one piece, whose graph needs {needed:.2g} bytes; "
            f"memory_budget has {max(left, 0):.2g} left. Use mode='recalibrate', or fewer rows.",
            SkdmapWarning,
        )


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
