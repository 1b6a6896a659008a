"""Weight of each batch in the whole loss: its share of what the criterion's mean divides by.

With these weights neither the number of batches nor the size of the last one matters.
"""

import itertools
from collections.abc import Iterable
from typing import Any

import torch

from skdmap.hessian._risk.criterion import counts_weights

Rows = slice | torch.Tensor  # which samples: a slice, or their numbers (int64)
Shares = tuple[tuple[Rows, float], ...]  # batches, each with the factor of its loss in the whole
# With one sample in sixteen, or 64, the leading eigenvectors of flat spectra were too far off.
_SAMPLED_SHARE, _MIN_SAMPLED, _MAX_SAMPLED, _MIN_ROWS = 1 / 8, 128, 2048, 512


def row_weights(criterion: Any, y: torch.Tensor | None, n_rows: int) -> torch.Tensor:
    """Return what each sample adds to the divisor of the criterion's mean (n_rows,), in float64.
    Class weights and ignore_index of CrossEntropyLoss and NLLLoss count; others count samples.
    """
    if y is None or not counts_weights(criterion, y):
        return torch.ones(n_rows, dtype=torch.float64)  # class probabilities: a mean over samples
    targets = y.cpu()
    weights = (targets != criterion.ignore_index).double()
    if criterion.weight is not None and criterion.reduction != "sum":
        kept = torch.where(weights > 0, targets, 0)
        weights *= criterion.weight.cpu().double()[kept]
    weights = weights.reshape(n_rows, -1).sum(dim=1)
    if not weights.sum() > 0:
        raise ValueError(
            f"criterion={criterion!r} counts no sample: every target in y is ignore_index or has "
            "class weight 0. Pass targets that count."
        )
    return weights


def even_batches(n_rows: int, size: int | None) -> tuple[slice, ...]:
    """Return batches of ``size`` samples, the last one shorter; None for one of all."""
    size = n_rows if size is None else size
    return tuple(slice(i, min(i + size, n_rows)) for i in range(0, n_rows, size))


def n_rows_of(rows: Rows) -> int:
    """Return the number of samples that a slice or an index tensor selects."""
    return len(rows) if isinstance(rows, torch.Tensor) else rows.stop - rows.start


def cut(batches: Iterable[slice], size: int) -> tuple[slice, ...]:
    """Return the batches cut into pieces of nearly equal length, at most ``size`` samples each."""
    pieces = []
    for batch in batches:
        n_rows = batch.stop - batch.start
        n_pieces = -(-n_rows // size)
        ends = [batch.start + -(-n_rows * i // n_pieces) for i in range(n_pieces + 1)]
        pieces += [slice(*pair) for pair in itertools.pairwise(ends)]
    return tuple(pieces)


def batch_shares(
    weights: torch.Tensor, reduction: str, batches: Iterable[Rows], total: float | None = None
) -> Shares:
    """Return the batches with their factors: 1 for "sum", else the share of all weights, ``total``.
    Batches of weight 0 are left out of a mean.
    """
    total = float(weights.sum()) if total is None else total
    shares = []
    for batch in batches:
        weight = float(weights[batch].sum())
        if reduction == "sum":
            shares.append((batch, 1.0))
        elif weight > 0:
            shares.append((batch, weight / total))
    return tuple(shares)


def check_smoothed_labels(criterion: Any, y: torch.Tensor | None, shares: Shares) -> None:
    """Raise if a batch holds only smoothed labels of class weight 0: its mean divides by 0."""
    smoothed = isinstance(criterion, torch.nn.CrossEntropyLoss) and criterion.label_smoothing > 0
    if not smoothed or y is None or y.is_floating_point():
        return
    lost = (y != criterion.ignore_index).reshape(len(y), -1).any(dim=1)
    for batch, _ in shares:
        lost[batch] = False
    if lost.any():
        raise ValueError(
            f"criterion={criterion!r}: the batch of sample {int(lost.nonzero()[0])} holds only "
            "labels of class weight 0. Their smoothed loss counts, but the mean of that batch "
            "divides by 0. Set batch_size=None or larger, or shuffle X and y."
        )


def has_sample(n_rows: int) -> bool:
    """Return whether there are enough rows for a subsample to be cheap."""
    return n_rows >= _MIN_ROWS


def sampled_part(n_rows: int) -> float:
    """Return the share of the rows in the subsample: 1/8, but between 128 and 2,048 rows."""
    return min(max(_SAMPLED_SHARE, _MIN_SAMPLED / n_rows), _MAX_SAMPLED / n_rows)


def sampled_rows(weights: torch.Tensor, part: float) -> torch.Tensor:
    """Return a random subsample of the rows of positive weight, ascending, the same each time."""
    counted = torch.nonzero(weights > 0).reshape(-1)
    order = torch.randperm(len(counted), generator=torch.Generator().manual_seed(0))
    return counted[order[: max(1, round(part * len(counted)))]].sort().values
