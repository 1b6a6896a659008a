"""X and y as the user gave them, or one pass over a DataLoader: samples, targets, batches."""

import copy
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from skdmap.hessian._risk.batch_weights import even_batches

Sizes = tuple[int, ...] | None  # samples in each batch of a DataLoader


def read_data(X: Any, y: Any, batch_size: int | None) -> tuple[Any, Any, Sizes]:
    """Return samples, targets and the batch sizes of a DataLoader (None where X is no DataLoader).
    Raises if y or ``batch_size`` come with a DataLoader, which gives both.
    """
    if not isinstance(X, DataLoader):
        return X, y, None
    if y is not None:
        raise ValueError(
            "y must be None where X is a DataLoader, whose batches are pairs of samples and "
            "targets. Put y in its dataset: torch.utils.data.TensorDataset(X, y)."
        )
    if batch_size is not None:
        raise ValueError(
            f"batch_size={batch_size} must be None where X is a DataLoader, whose batches are kept "
            "as they come. Set the batch_size of the loader."
        )
    return read_loader(X)


def batches_of(n_rows: int, batch_size: int | None, sizes: Sizes) -> tuple[slice, ...]:
    """Return the batches of a loader, or batches of ``batch_size`` samples."""
    if sizes is None or len(sizes) < 2:
        return even_batches(n_rows, batch_size)
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return tuple(slice(end - size, end) for end, size in zip(ends, sizes, strict=True))


def read_loader(
    loader: DataLoader,
) -> tuple[torch.Tensor, torch.Tensor | None, tuple[int, ...]]:
    """Return X (n_samples, ...), y (n_samples, ...) or None, and batch sizes, from one pass.
    The loader and all global random generators are left as they were.
    """
    with _restored(loader):
        batches = [_pair(batch) for batch in loader]
    if loader.batch_size is None and loader.batch_sampler is None:
        _check_ready_batches(batches)
    if not batches:
        raise ValueError("X is a DataLoader without batches. Give it at least one sample.")
    columns = [
        [part for part in column if part is not None] for column in zip(*batches, strict=True)
    ]
    try:
        X, y = (torch.cat(column) if column else None for column in columns)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"X is a DataLoader whose batches cannot be joined: {error}. Pad the samples to one "
            "shape."
        ) from error
    assert X is not None
    return X, y, tuple(len(rows) for rows, _ in batches)


def _pair(batch: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    parts = list(batch) if isinstance(batch, list | tuple) else [batch]
    if len(parts) not in (1, 2) or not all(isinstance(part, torch.Tensor) for part in parts):
        raise TypeError(
            f"X is a DataLoader that gives a {type(batch).__name__} of length {len(parts)}; it "
            "must give a tensor of samples, or a pair of tensors: samples and targets. Set its "
            "collate_fn."
        )
    return parts[0], parts[1] if len(parts) == 2 else None


def _check_ready_batches(batches: list[tuple[torch.Tensor, torch.Tensor | None]]) -> None:
    """Raise on single samples where the dataset is to give whole batches (batch_size=None)."""
    for X, y in batches:
        if X.dim() == 0 or (y is not None and y.dim() == 0) or (X.dim() == 1 and y is None):
            shapes = " and ".join(str(tuple(part.shape)) for part in (X, y) if part is not None)
            raise ValueError(
                f"X is a DataLoader(batch_size=None) whose dataset gives single samples, of shape "
                f"{shapes}. Set its batch_size, or give batches of shape (n_samples, ...)."
            )


@contextmanager
def _restored(loader: DataLoader) -> Iterator[None]:
    """Read with copies of all generators: training goes on as if nothing had been read."""
    python, old = random.getstate(), np.random.get_state()  # noqa: NPY002 - it is the global one
    batch_sampler = getattr(loader, "batch_sampler", None)
    inner = getattr(batch_sampler, "sampler", None)
    holders = (loader, loader.sampler, batch_sampler, inner, loader.dataset)
    with ExitStack() as stack:
        devices = range(torch.cuda.device_count())
        stack.enter_context(torch.random.fork_rng(devices=devices))
        for holder in {id(h): h for h in holders if hasattr(h, "__dict__")}.values():
            stack.enter_context(_copied_generators(holder))
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(old)  # noqa: NPY002


@contextmanager
def _copied_generators(holder: Any) -> Iterator[None]:
    """Replace the generators among the attributes by copies, and restore all attributes after."""
    before = dict(vars(holder))
    for name, value in before.items():
        if isinstance(value, torch.Generator):
            holder.__dict__[name] = value.clone_state()
        elif isinstance(value, np.random.Generator | np.random.RandomState | random.Random):
            holder.__dict__[name] = copy.deepcopy(value)
    try:
        yield
    finally:
        # Counters too, but not the worker processes that a loader keeps.
        kept = {n: v for n, v in before.items() if n != "_iterator"}
        holder.__dict__.update(kept)
