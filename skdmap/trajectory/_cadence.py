"""When to record."""

import numpy as np

__all__ = ["count_steps", "recorded_steps"]


def count_steps(
    steps_per_epoch: int, max_epochs: int | None, max_steps: int | None, burn_in: int = 0
) -> int:
    """Return the number of steps of a run: whichever of the two limits comes first.

    Parameters
    ----------
    steps_per_epoch : int
        Batches in one pass over the rows.
    max_epochs, max_steps : int or None
        None is no limit; one of them must be given.
    burn_in : int, default=0
        No step before this one is to be recorded.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    ValueError
        If both limits are None, or all steps lie before ``burn_in``.

    Examples
    --------
    >>> count_steps(15, max_epochs=10, max_steps=40)
    40
    """
    limits = [] if max_steps is None else [int(max_steps)]
    if max_epochs is not None:
        limits.append(int(max_epochs) * steps_per_epoch)
    if not limits:
        raise ValueError(
            "max_epochs=None and max_steps=None: training would not end. Set one of them to an "
            "integer >= 1."
        )
    n_steps = min(limits)
    if burn_in > n_steps:
        raise ValueError(
            f"burn_in={burn_in} must be at most the number of steps, {n_steps}. Lower it, or raise "
            "max_epochs or max_steps."
        )
    return n_steps


def recorded_steps(
    record_every: int | str, *, first: int, last: int, steps_per_epoch: int, burn_in: int = 0
) -> np.ndarray:
    """Return the numbers of the steps that are recorded.

    Parameters
    ----------
    record_every : int or "epoch"
        Steps between rows. Multiples are counted from step 0, whatever ``burn_in`` is, so that a
        burn-in only drops rows.
    first, last : int
        Range of steps, both included. Step 0 is the initialisation.
    steps_per_epoch : int
        Batches in one pass; "epoch" records the end of each, counted from ``first``.
    burn_in : int, default=0
        No step before this one is recorded.

    Returns
    -------
    ndarray of int64, shape (n_recorded,)
        Ascending. ``last`` is among them unless it lies before ``burn_in``.

    Examples
    --------
    >>> recorded_steps(4, first=0, last=10, steps_per_epoch=5)
    array([ 0,  4,  8, 10])
    >>> recorded_steps("epoch", first=0, last=12, steps_per_epoch=5, burn_in=1)
    array([ 5, 10, 12])
    """
    if record_every == "epoch":
        start, every = first, steps_per_epoch
    else:
        every = int(record_every)
        start = -(-first // every) * every
    steps = np.append(np.arange(start, last, every, dtype=np.int64), np.int64(last))
    return steps[steps >= burn_in]
