"""Rows -> batches with their shares of the whole loss.

A batch weighs as much as its share of what the criterion divides by, so that the number of batches
and the size of the last one do not matter.
"""

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch

from skdmap.hessian._risk.criterion import counts_weights, reduction_of

Rows = slice | torch.Tensor
Shares = tuple[tuple[Rows, float], ...]
# Of a sixteenth, or 64 rows, the leading eigenvectors were too far off for flat spectra.
_PART, _FEWEST, _MOST, _LEAST_OF_ALL = 1 / 8, 128, 2048, 512


def row_weights(criterion: Any, y: torch.Tensor | None, n_rows: int) -> torch.Tensor:
    """Return what each row adds to the number that the criterion's mean divides by.

    A sum divides by nothing: all rows that are not ignored add 1.

    Parameters
    ----------
    criterion : callable
        ``weight`` and ``ignore_index`` of ``CrossEntropyLoss`` and ``NLLLoss`` are read; any other
        criterion counts rows.
    y : Tensor of shape (n_rows, ...) or None
        The targets.
    n_rows : int
        Number of rows.

    Returns
    -------
    Tensor of shape (n_rows,)
        In float64, up to a common factor.

    Raises
    ------
    ValueError
        If no row counts.

    Examples
    --------
    >>> import torch
    >>> from skdmap.hessian._risk.batch_weights import row_weights
    >>> criterion = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]), ignore_index=9)
    >>> row_weights(criterion, torch.tensor([0, 1, 9]), 3).tolist()
    [1.0, 3.0, 0.0]
    """
    if y is None or not counts_weights(criterion, y):
        return torch.ones(n_rows, dtype=torch.float64)  # class probabilities are averaged over rows
    targets = y.cpu()
    weights = (targets != criterion.ignore_index).double()
    if criterion.weight is not None and criterion.reduction != "sum":
        kept = torch.where(weights > 0, targets, 0)
        weights *= criterion.weight.cpu().double()[kept]
    weights = weights.reshape(n_rows, -1).sum(dim=1)
    if not weights.sum() > 0:
        raise ValueError(
            f"criterion={criterion!r} counts no row of y: every target is ignore_index or of class "
            "weight 0. Give targets that count."
        )
    return weights


def even_batches(n_rows: int, size: int | None) -> tuple[slice, ...]:
    """Return batches of ``size`` rows, the last one of what is left; None for one of all."""
    size = n_rows if size is None else size
    return tuple(slice(i, min(i + size, n_rows)) for i in range(0, n_rows, size))


def n_rows_of(rows: Rows) -> int:
    """Return how many rows a slice or an array of row numbers has."""
    return len(rows) if isinstance(rows, torch.Tensor) else rows.stop - rows.start


def cut(batches: Iterable[slice], size: int) -> tuple[slice, ...]:
    """Return the batches cut in pieces of nearly equal length, of at most ``size`` rows.

    Examples
    --------
    >>> from skdmap.hessian._risk.batch_weights import cut
    >>> cut([slice(0, 5), slice(5, 7)], 3)
    (slice(0, 3, None), slice(3, 5, None), slice(5, 7, None))
    """
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
    """Return batches of rows and the factor of each one's loss in the whole.

    Parameters
    ----------
    weights : Tensor of shape (n_rows,)
        From :func:`row_weights`.
    reduction : str
        "sum": factors are 1. Anything else is a mean: factors sum to 1.
    batches : iterable of slice or Tensor of int64
        Rows of each batch.
    total : float, default=None
        Sum of all weights; None where these are all.

    Returns
    -------
    tuple of (slice or Tensor, float)
        Batches in which no row counts are left out of a mean.

    Examples
    --------
    >>> import torch
    >>> from skdmap.hessian._risk.batch_weights import batch_shares, even_batches
    >>> batch_shares(torch.ones(4), "mean", even_batches(4, 3))
    ((slice(0, 3, None), 0.75), (slice(3, 4, None), 0.25))
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


def check_left_out(criterion: Any, y: torch.Tensor | None, shares: Shares) -> None:
    """Raise if rows that add to the loss are in no batch.

    Parameters
    ----------
    criterion : callable
        ``label_smoothing`` and ``ignore_index`` of ``CrossEntropyLoss`` are read.
    y : Tensor of shape (n_rows, ...) or None
        The targets.
    shares : tuple of (slice, float)
        From :func:`batch_shares`.

    Raises
    ------
    ValueError
        If labels of class weight 0, smoothed, fill a batch: its mean divides by zero.
    """
    smoothed = isinstance(criterion, torch.nn.CrossEntropyLoss) and criterion.label_smoothing > 0
    if not smoothed or y is None or y.is_floating_point():
        return
    lost = (y != criterion.ignore_index).reshape(len(y), -1).any(dim=1)
    for batch, _ in shares:
        lost[batch] = False
    if lost.any():
        raise ValueError(
            f"criterion={criterion!r}: a batch around row {int(lost.nonzero()[0])} holds only "
            "labels of class weight 0. Their smoothed loss counts, but the mean of that batch "
            "divides by 0. Set batch_size=None or larger, or shuffle the rows of X and y."
        )


def spread_rows(
    weights: torch.Tensor, y: torch.Tensor | None = None, n_rows: int = 64
) -> torch.Tensor:
    """Return at most ``n_rows`` indices of rows that count, spread over all of them.

    Parameters
    ----------
    weights : Tensor of shape (n_rows_of_the_data,)
        From :func:`row_weights`.
    y : Tensor of shape (n_rows_of_the_data, ...), default=None
        Targets. Up to half of the rows are one each of the rarest kinds: labels, or signs of
        floats; of several in a row, the least and the greatest. Negative ones come before others.
    n_rows : int, default=64
        How many at most.

    Returns
    -------
    Tensor of int64
        From common to rare kinds, so that two parts of them differ in kind as much as they can: a
        criterion that weighs or leaves out one kind shows.

    Examples
    --------
    >>> import torch
    >>> from skdmap.hessian._risk.batch_weights import spread_rows
    >>> labels = torch.zeros(1000, dtype=torch.int64)
    >>> labels[123], labels[456] = 1, -100
    >>> spread_rows(torch.ones(1000), labels)[-2:]
    tensor([123, 456])
    """
    counting = weights.nonzero().ravel()
    kinds = _kinds(None if y is None else y.cpu()[counting], len(counting))
    grouped = kinds.argsort(stable=True)
    first_of_kind = grouped[kinds.bincount().cumsum(0) - kinds.bincount()]
    rare = first_of_kind[1:][-(n_rows // 2) :]
    n_spread = len(counting) if len(counting) <= n_rows else n_rows - len(rare)
    spread = torch.linspace(0, len(counting) - 1, n_spread, dtype=torch.float64).round().long()
    chosen = torch.cat([rare, spread]).unique()
    return counting[chosen[kinds[chosen].argsort(stable=True)]]


def _kinds(y: torch.Tensor | None, n_rows: int) -> torch.Tensor:
    """Number the kind of each row, 0 for the most common; kinds with negative targets last."""
    if y is None or y[0].numel() == 0:
        return torch.zeros(n_rows, dtype=torch.int64)
    entries = y.reshape(n_rows, -1)
    ends = torch.stack([entries.amin(dim=1), entries.amax(dim=1)], dim=1)
    ends = ends.sign() if y.is_floating_point() else ends
    found, kinds, counts = ends.unique(dim=0, return_inverse=True, return_counts=True)
    order = torch.argsort(n_rows * (found[:, 0] < 0) - counts, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    return rank[kinds]


def check_shares(
    criterion: Any,
    loss_of_part: Callable[[Rows], float],
    weights: torch.Tensor,
    eps: float,
) -> None:
    """Compare the loss of some rows with what two unequal parts of them give.

    Parameters
    ----------
    criterion : callable
        Its ``reduction`` is read.
    loss_of_part : callable
        Maps a slice of these rows to the loss of the slice alone.
    weights : Tensor of shape (n_rows,)
        From :func:`row_weights`, of these rows.
    eps : float
        Machine epsilon of the losses.

    Raises
    ------
    ValueError
        If they differ by more than rounding: the criterion divides by something not known here.
    """
    reduction = reduction_of(criterion)
    n_rows = len(weights)
    shares = batch_shares(weights, reduction, even_batches(n_rows, -(-2 * n_rows // 3)))
    parts = [share * loss_of_part(part) for part, share in shares]
    whole = loss_of_part(slice(0, n_rows))
    scale = max(abs(whole), sum(abs(part) for part in parts))
    # The constant term allows for small losses of large outputs.
    if not abs(whole - sum(parts)) <= eps**0.5 * scale + 100 * eps:
        raise ValueError(
            f"criterion={criterion!r}: the loss of {n_rows} rows is {whole:.6g}, but two parts "
            f"of them, weighed by their rows, give {sum(parts):.6g}. batch_size needs a criterion "
            "that is a mean over rows or a sum (its reduction attribute 'mean' or 'sum', class "
            "weights inside a CrossEntropyLoss or NLLLoss object) and a module that treats each "
            "row apart. Otherwise set batch_size=None."
        )


def has_sample(n_rows: int) -> bool:
    """Return whether there are rows enough for a sample to be cheap.

    Examples
    --------
    >>> from skdmap.hessian._risk.batch_weights import has_sample
    >>> has_sample(511), has_sample(512)
    (False, True)
    """
    return n_rows >= _LEAST_OF_ALL


def sampled_part(n_rows: int) -> float:
    """Return which part of so many rows is taken: 1/8, but between 128 and 2,048 rows.

    Examples
    --------
    >>> from skdmap.hessian._risk.batch_weights import sampled_part
    >>> [sampled_part(n) * n for n in (512, 1600, 10**6)]
    [128.0, 200.0, 2048.0]
    """
    return min(max(_PART, _FEWEST / n_rows), _MOST / n_rows)


def sampled_rows(weights: torch.Tensor, part: float) -> torch.Tensor:
    """Return some of the rows that count, the same ones each time.

    Rows that stand in an order, by class or by time, are all hit: they are taken at random.

    Parameters
    ----------
    weights : Tensor of shape (n_rows,)
        From ``row_weights``; a row counts where it is positive.
    part : float
        Which part, in (0, 1].

    Returns
    -------
    Tensor of shape (n_sampled,) of int64
        Ascending; one row at least, where one counts.

    Examples
    --------
    >>> import torch
    >>> from skdmap.hessian._risk.batch_weights import sampled_rows
    >>> rows = sampled_rows(torch.ones(100), 0.1)
    >>> len(rows), bool((rows.diff() > 0).all())
    (10, True)
    """
    counted = torch.nonzero(weights > 0).reshape(-1)
    order = torch.randperm(len(counted), generator=torch.Generator().manual_seed(0))
    return counted[order[: max(1, round(part * len(counted)))]].sort().values
