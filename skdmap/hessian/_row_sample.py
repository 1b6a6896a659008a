"""Rows -> a few of them, whose curvature is near that of all and much cheaper."""

import torch

__all__ = ["has_sample", "sampled_part", "sampled_rows"]

# Of a sixteenth, or 64 rows, the leading eigenvectors were too far off for flat spectra.
_PART, _FEWEST, _MOST, _LEAST_OF_ALL = 1 / 8, 128, 2048, 512


def has_sample(n_rows: int) -> bool:
    """Return whether there are rows enough for a sample to be cheap.

    Examples
    --------
    >>> from skdmap.hessian._row_sample import has_sample
    >>> has_sample(511), has_sample(512)
    (False, True)
    """
    return n_rows >= _LEAST_OF_ALL


def sampled_part(n_rows: int) -> float:
    """Return which part of so many rows is taken: 1/8, but between 128 and 2,048 rows.

    Examples
    --------
    >>> from skdmap.hessian._row_sample import sampled_part
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
    >>> from skdmap.hessian._row_sample import sampled_rows
    >>> rows = sampled_rows(torch.ones(100), 0.1)
    >>> len(rows), bool((rows.diff() > 0).all())
    (10, True)
    """
    counted = torch.nonzero(weights > 0).reshape(-1)
    order = torch.randperm(len(counted), generator=torch.Generator().manual_seed(0))
    return counted[order[: max(1, round(part * len(counted)))]].sort().values
