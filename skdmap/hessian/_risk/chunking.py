"""Batches cut into chunks whose autograd graphs make long operations and fit in the memory left."""

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from skdmap._warning import warn
from skdmap.exceptions import SkdmapWarning
from skdmap.hessian._operators.autodiff import GradientGraph, Leaves
from skdmap.hessian._operators.memory_budget import graph_bytes
from skdmap.hessian._risk.batch_weights import Shares, batch_shares, cut, n_rows_of
from skdmap.hessian._risk.criterion import has_known_divisor, reduction_of
from skdmap.hessian._risk.module_loss import ModuleLoss

# Tensors of half a megabyte stay in the cache from one operation to the next, and are long enough
# that the overhead of an operation does not count: one product takes 1.0 to 1.2 times as long as
# with the best chunks of six networks. The gradient of each chunk is read and written once.
_TENSOR_BYTES, _CHUNK_GRADIENTS = 768e3, 8
# Chunks are divided among threads down to this share of it, and are not worth a thread below.
_SHARE_OF_A_THREAD = 1 / 4


@dataclass(frozen=True)
class Chunking:
    """How the samples are divided, and what the graphs of their gradients need (bytes)."""

    batches: tuple[slice, ...]  # as the user wants them
    reduction: str  # of the criterion
    divisible: bool  # whether batches may be cut
    fixed_bytes: float  # of a graph, whatever the number of samples
    row_bytes: float  # of a graph, for each sample
    n_tensors: int  # that a graph saves
    gradient_bytes: int

    @classmethod
    def of(cls, loss: ModuleLoss, batches: tuple[slice, ...], *, additive: bool) -> Self:
        """Measure the graphs of a loss; ``additive``: it is the sum of its batches."""
        own = loss.own_point()
        return cls(
            batches,
            reduction_of(loss.criterion),
            additive and not loss.training and may_be_cut(loss.criterion),
            *measured_bytes(loss),
            own.numel() * own.element_size(),
        )

    def shares(
        self, weights: torch.Tensor, total: float, left: float | None = None, n_threads: int = 1
    ) -> Shares:
        """Return the chunks, with factors, that ``n_threads`` work on at once; six fit in ``left``
        bytes (None or negative: no limit). ``total``: sum of the weights over all ranks.
        """
        batches = self.batches
        if self.divisible:
            batches = cut(batches, self.rows_of_chunk(left, n_threads))
        return batch_shares(weights, self.reduction, batches, total)

    def rows_of_chunk(self, left: float | None = None, n_threads: int = 1) -> int:
        """Return the number of samples of a chunk where ``left`` bytes are left."""
        wanted = max(_TENSOR_BYTES * self.n_tensors, _CHUNK_GRADIENTS * self.gradient_bytes)
        if left is not None and left >= 0:
            wanted = min(wanted, left / (6 * n_threads))
        most = max(1, int((wanted - self.fixed_bytes) / max(self.row_bytes, 1.0)))
        if n_threads == 1:
            return most
        n_rows = sum(rows.stop - rows.start for rows in self.batches)
        return min(most, max(math.ceil(_SHARE_OF_A_THREAD * most), -(-n_rows // n_threads)))

    def n_threads(self, shares: Shares, n_threads: int) -> int:
        """Return on how many of these threads chunks are worked on at once: 1 if they are short."""
        least = _SHARE_OF_A_THREAD * _TENSOR_BYTES * self.n_tensors / 2
        return n_threads if self.longest_bytes(shares) >= least else 1

    def n_bytes(self, n_rows: int) -> int:
        """Return the bytes of the graph of ``n_rows`` samples; of the longest batch if uncut."""
        if not self.divisible:
            n_rows = max(rows.stop - rows.start for rows in self.batches)
        return int(self.fixed_bytes + n_rows * self.row_bytes)

    def longest_bytes(self, shares: Shares) -> int:
        """Return the bytes of the graph of the longest of these chunks."""
        return self.n_bytes(max((n_rows_of(rows) for rows, _ in shares), default=1))


def warn_if_over_budget(needed: int, left: int) -> None:
    """Warn if a batch that cannot be cut needs more bytes than are left."""
    if left < needed:
        warn(
            f"mode='train' keeps each batch in one piece. Its graph needs {needed:.2g} bytes, but "
            f"memory_budget has {max(left, 0):.2g} left. Use mode='recalibrate', or fewer samples.",
            SkdmapWarning,
        )


def may_be_cut(criterion: Any) -> bool:
    """Return whether the loss of any samples is known to be the sum of its parts.
    Not with smoothed labels of class weight 0: a chunk of them alone would divide by 0.
    """
    smoothed = getattr(criterion, "label_smoothing", 0.0) > 0
    weight = getattr(criterion, "weight", None)
    zeros = isinstance(criterion, nn.CrossEntropyLoss) and weight is not None and 0 in weight
    return has_known_divisor(criterion) and not (smoothed and zeros)


def measured_bytes(loss: ModuleLoss) -> tuple[float, float, int]:
    """Return the bytes of a gradient's graph, fixed and per sample, and its number of tensors.
    Measured on 16 and 32 samples. Parameters, buffers and data are not counted.
    """
    n_rows = len(loss.X)
    leaves = tuple(part.clone().requires_grad_(True) for part in loss.parts(loss.own_point()))
    known = (*leaves, *loss.module.state_dict().values(), loss.X)
    known = known if loss.y is None else (*known, loss.y)

    def of_first(n: int) -> tuple[int, int]:
        return graph_bytes(lambda: _gradient_graph(loss, leaves, slice(0, n)), known)

    if loss.whole:
        n_bytes, n_tensors = of_first(n_rows)
        return float(n_bytes), 0.0, n_tensors
    if n_rows < 32 or loss.training:
        n = min(n_rows, 64)
        n_bytes, n_tensors = of_first(n)
        return 0.0, n_bytes / n, n_tensors
    (few, n_tensors), (more, _) = of_first(16), of_first(32)
    of_a_row = max(0, more - few) / 16
    return max(0.0, few - 16 * of_a_row), of_a_row, n_tensors


def _gradient_graph(loss: ModuleLoss, leaves: Leaves, rows: slice) -> GradientGraph:
    # The value does not matter: the mean over samples that do not count is nan.
    return GradientGraph(
        lambda parts: loss.of_rows(parts, rows).nan_to_num(), leaves, lambda: loss.within(leaves)
    )
