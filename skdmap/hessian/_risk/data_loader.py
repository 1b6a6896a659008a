"""A DataLoader -> its rows, read once, and the sizes of its batches."""

import copy
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

Batches = tuple[torch.Tensor, torch.Tensor | None, tuple[int, ...]]


def is_loader(X: Any) -> bool:
    """Return whether X is a DataLoader."""
    return isinstance(X, DataLoader)


def read_loader(loader: DataLoader) -> Batches:
    """Return all rows of one pass; the loader and all global generators are left as they were.

    Parameters
    ----------
    loader : DataLoader
        Gives tensors, or pairs of a tensor of rows and one of targets.

    Returns
    -------
    X : Tensor of shape (n_rows, ...)
        The rows, in the order in which they came.
    y : Tensor of shape (n_rows, ...) or None
        The targets.
    sizes : tuple of int
        Rows in each batch.

    Raises
    ------
    TypeError
        If a batch is something else.
    ValueError
        If there is none, batches differ in more than the number of rows, or they are single rows.

    Examples
    --------
    >>> import torch
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> from skdmap.hessian._risk.data_loader import read_loader
    >>> X, y, sizes = read_loader(DataLoader(TensorDataset(torch.ones(5, 2)), batch_size=3))
    >>> tuple(X.shape), y, sizes
    ((5, 2), None, (3, 2))
    """
    with _untouched(loader):
        batches = [_pair(batch) for batch in loader]
    if loader.batch_size is None and loader.batch_sampler is None:
        _check_ready(batches)
    if not batches:
        raise ValueError("X is a DataLoader without batches. Give it at least one row.")
    columns = [
        [part for part in column if part is not None] for column in zip(*batches, strict=True)
    ]
    try:
        X, y = (torch.cat(column) if column else None for column in columns)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"X is a DataLoader whose batches cannot be joined: {error}. Pad the rows to one shape."
        ) from error
    assert X is not None
    return X, y, tuple(len(rows) for rows, _ in batches)


def _pair(batch: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    parts = list(batch) if isinstance(batch, list | tuple) else [batch]
    if len(parts) not in (1, 2) or not all(isinstance(part, torch.Tensor) for part in parts):
        raise TypeError(
            f"X is a DataLoader that gives {type(batch).__name__} of {len(parts)} parts, must give "
            "a tensor of rows, or a pair of tensors, rows and targets. Set its collate_fn."
        )
    return parts[0], parts[1] if len(parts) == 2 else None


def _check_ready(batches: list[tuple[torch.Tensor, torch.Tensor | None]]) -> None:
    """Raise on single rows where the dataset is to give whole batches."""
    for X, y in batches:
        if X.dim() == 0 or (y is not None and y.dim() == 0) or (X.dim() == 1 and y is None):
            shapes = " and ".join(str(tuple(part.shape)) for part in (X, y) if part is not None)
            raise ValueError(
                f"X is a DataLoader(batch_size=None) whose dataset gives single rows, of shape "
                f"{shapes}. Set its batch_size, or give batches of shape (n_rows, ...)."
            )


@contextmanager
def _untouched(loader: DataLoader) -> Iterator[None]:
    """Read with copies of all generators, so that training goes on as if nothing had been read."""
    python, old = random.getstate(), np.random.get_state()  # noqa: NPY002 - it is the global one
    batch_sampler = getattr(loader, "batch_sampler", None)
    inner = getattr(batch_sampler, "sampler", None)
    holders = (loader, loader.sampler, batch_sampler, inner, loader.dataset)
    with ExitStack() as stack:
        devices = range(torch.cuda.device_count())
        stack.enter_context(torch.random.fork_rng(devices=devices))
        for holder in {id(h): h for h in holders if hasattr(h, "__dict__")}.values():
            stack.enter_context(_copies_of_generators(holder))
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(old)  # noqa: NPY002


@contextmanager
def _copies_of_generators(holder: Any) -> Iterator[None]:
    before = dict(vars(holder))
    for name, value in before.items():
        if isinstance(value, torch.Generator):
            holder.__dict__[name] = value.clone_state()
        elif isinstance(value, np.random.Generator | np.random.RandomState | random.Random):
            holder.__dict__[name] = copy.deepcopy(value)
    try:
        yield
    finally:
        # Counters too; but the workers that a loader keeps are its own affair.
        kept = {n: v for n, v in before.items() if n != "_iterator"}
        holder.__dict__.update(kept)
