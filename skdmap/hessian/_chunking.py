"""Batches of rows -> chunks whose graphs stay in the cache, or fit in the memory that is left."""

from dataclasses import dataclass
from typing import Self

import torch

from .._warning import warn
from ..exceptions import SkdmapWarning
from ._batch_shares import Shares, batch_shares, cut, n_rows_of
from ._criterion import reduction_of
from ._module_loss import ModuleLoss
from ._rows import may_be_cut, measured_bytes

__all__ = ["Chunking", "warn_if_tight"]

# The graph of a chunk stays in the cache; the gradient of each chunk is read and written once.
_CHUNK_BYTES, _CHUNK_GRADIENTS = 1.5e6, 8


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
