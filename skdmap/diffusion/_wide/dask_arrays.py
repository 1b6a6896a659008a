"""Dask arrays: wide ones are reduced chunk by chunk, tall ones mapped block by block.

All work runs on dask's own scheduler: that of a ``distributed.Client`` where one is active, else
threads. Nothing here imports dask before a dask array comes in.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skdmap.diffusion._wide.column_reader import is_dask

Sums = tuple[NDArray[np.float64], ...]


def sum_over_chunks(function: Callable[..., Sums], sources: list[Any], dtypes: list[Any]) -> Sums:
    """Add up ``function(columns, *blocks)`` over chunks of columns, where the chunks lie.
    The chunks are those of the first dask array; blocks are converted to the dtypes.
    """
    import dask

    chunked = next(source for source in sources if is_dask(source))
    bounds = np.concatenate([[0], np.cumsum(chunked.chunks[1])]).astype(int)
    cut = [
        source.rechunk({0: -1, 1: chunked.chunks[1]}).to_delayed()[0] if is_dask(source) else None
        for source in sources
    ]
    tasks = []
    for number, (start, stop) in enumerate(pairwise(bounds)):
        blocks = [
            np.asarray(source[:, start:stop]) if chunks is None else chunks[number]
            for source, chunks in zip(sources, cut, strict=True)
        ]
        columns = slice(int(start), int(stop))
        tasks.append(dask.delayed(_on_chunk, pure=False)(function, columns, dtypes, blocks))
    return _summed(tasks)


def sum_over_row_blocks(
    function: Callable[..., Sums], X: Any, weight: NDArray[np.float64] | None
) -> Sums:
    """Add up ``function(block, first_row, weight)`` over chunks of rows, where the chunks lie."""
    import dask

    # Sent to each worker once, not with each chunk.
    shared = dask.delayed(function, pure=False, traverse=False)
    work = dask.delayed(_on_rows, pure=False)
    tasks = [
        work(shared, block, start, None if weight is None else weight[start:stop])
        for block, start, stop in _row_chunks(X)
    ]
    return _summed(tasks)


def take_rows(X: Any, rows: NDArray[np.intp]) -> NDArray[Any]:
    """Some rows of a dask array, ascending, in memory; of a chunk no others come back."""
    import dask

    tasks = []
    for block, start, stop in _row_chunks(X):
        inside = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)]
        if inside.size:
            tasks.append(dask.delayed(_rows_of, pure=False)(block, inside - start))
    return np.concatenate(dask.compute(*tasks))


def _row_chunks(X: Any) -> Iterator[tuple[Any, int, int]]:
    """Chunks of whole rows, not computed, with their first row and the one after the last."""
    whole = X.rechunk({1: -1})
    bounds = np.concatenate([[0], np.cumsum(whole.chunks[0])]).astype(int).tolist()
    for block, (start, stop) in zip(whole.to_delayed()[:, 0], pairwise(bounds), strict=True):
        if stop > start:
            yield block, start, stop


def _summed(tasks: list[Any]) -> Sums:
    """Add up the results of tasks in pairs, where they lie."""
    import dask

    while len(tasks) > 1:
        pairs = [tasks[i : i + 2] for i in range(0, len(tasks), 2)]
        tasks = [
            dask.delayed(_plus, pure=False)(*pair) if len(pair) == 2 else pair[0] for pair in pairs
        ]
    result: Sums = dask.compute(tasks[0])[0]
    return tuple(np.array(part) for part in result)  # what comes by the wire may be read-only


def _on_rows(
    function: Callable[..., Sums], block: Any, start: int, weight: NDArray[np.float64] | None
) -> Sums:
    return function(block, start, weight)


def _rows_of(block: Any, rows: NDArray[np.intp]) -> NDArray[Any]:
    return np.asarray(block)[rows]


def _on_chunk(
    function: Callable[..., Sums], columns: slice, dtypes: list[Any], blocks: list[Any]
) -> Sums:
    arrays = [
        np.asarray(block).astype(dtype, copy=False)
        for block, dtype in zip(blocks, dtypes, strict=True)
    ]
    return function(columns, *arrays)


def _plus(first: Sums, second: Sums) -> Sums:
    return tuple(one + other for one, other in zip(first, second, strict=True))


def map_row_blocks(function: Callable[[Any], Any], X: Any, n_columns: int) -> Any:
    """A dask array (n_rows, n_columns) of what a function makes of each block of rows, lazily."""
    dtype = np.float32 if X.dtype == np.float32 else np.float64
    whole = X.rechunk({1: -1})
    return whole.map_blocks(
        _mapped,
        function=function,
        n_columns=n_columns,
        chunks=(whole.chunks[0], (n_columns,)),
        dtype=dtype,
        meta=np.empty((0, 0), dtype=dtype),
    )


def _mapped(block: Any, function: Callable[[Any], Any], n_columns: int) -> NDArray[np.floating]:
    rows = np.asarray(block)
    return np.asarray(function(rows)) if len(rows) else np.empty((0, n_columns), rows.dtype)
