"""Products of a curvature matrix with vectors, at one point.

A loss is a sum of chunks. Where memory allows, the graph of a chunk's gradient is kept, and a
product is one backward pass through it; other graphs are built anew for each product. Several kept
graphs are gone through at once, each on one thread, and added up in the order of the chunks: the
result is the same each time.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import torch

from skdmap.hessian._operators.autodiff import (
    Leaves,
    exactly,
    mean_operation_bytes,
    work_in_exact_mode,
)
from skdmap.hessian._operators.memory_budget import MemoryBudget
from skdmap.hessian._operators.process_group import Group


class Graph(Protocol):
    """The curvature of a chunk at one point: its value, its gradient in parts, and products."""

    value: float
    gradient: Leaves

    @property
    def outputs(self) -> Sequence[torch.Tensor]:
        """The tensors that a product goes back from."""

    def check(self) -> None:
        """Raise where products would be silently wrong."""

    def product(self, v: Leaves) -> Leaves:
        """Return the chunk's curvature times ``v``, in parts."""


Chunk = Callable[[Leaves], Graph]  # the parts of the point -> the chunk's graph there
# (loss, gradient) of the chunks -> (loss, gradient, add); add(v, product) completes it in place.
Finish = Callable[[float, torch.Tensor], tuple[float, torch.Tensor, Callable[..., None]]]
# The share of the samples that an operator close to this one uses, and a function that makes it.
Subsample = tuple[float, Callable[[], "CurvatureOperator"]]


# Operations on fewer bytes than this are taken to be too short for several threads. Of MLPs with
# up to 4.9e6 bytes none gained by two threads on a busy machine; larger ones were not timed.
_LONG_OPERATION = 4e6


def accumulator_dtype(theta: torch.Tensor) -> torch.dtype:
    """Return the dtype in which chunks are added up: float64 where the device has it."""
    return theta.dtype if theta.device.type == "mps" else torch.float64


class CurvatureOperator:
    """The curvature of a loss at one point: v -> C v. A context manager that frees the graphs.
    ``loss``, ``gradient`` (n_parameters,): at the point; ``n_matvecs``: products so far.
    """

    @exactly
    def __init__(
        self,
        chunks: Sequence[Chunk],  # the loss is the sum of their values
        theta: torch.Tensor,  # (n_parameters,)
        *,
        shapes: Sequence[tuple[int, ...]] | None = None,  # of the parts; None: one flat part
        finish: Finish | None = None,  # for what is no sum over samples
        memory_budget: MemoryBudget | None = None,  # None keeps all graphs
        chunk_bytes: int = 0,  # of a chunk's graph; memory for three, and a gradient, is left free
        group: Group | None = None,  # sums go over all of its ranks
        sample: Subsample | None = None,
        n_threads: int = 1,  # how many chunks are worked on at once
    ) -> None:
        self.size, self.dtype, self._device = theta.numel(), theta.dtype, theta.device
        shapes = [(self.size,)] if shapes is None else list(shapes)
        self._sizes = [math.prod(shape) for shape in shapes]
        self._group = Group() if group is None else group
        self._budget, self._make_sample = memory_budget, sample
        self._sample: CurvatureOperator | None = None
        self._headroom = 3 * chunk_bytes + 8 * self.size
        self._leaves: Leaves = tuple(
            part.view(shape).clone().requires_grad_(True)
            for part, shape in zip(theta.detach().split(self._sizes), shapes, strict=True)
        )
        self._chunks: list[Chunk] | None = list(chunks)
        self._kept: dict[int, Graph] = {}
        self._sum_dtype = accumulator_dtype(theta)
        self.n_chunks, self.n_matvecs = len(self._chunks), 0
        loss, self.gradient = self._first_pass()
        n_workers = min(n_threads, len(self._kept))
        self._pool = (
            ThreadPoolExecutor(n_workers, "skdmap-products", work_in_exact_mode)
            if n_workers > 1
            else None
        )
        self._n_workers = n_workers
        self._group.sum_(self.gradient)
        (self.loss,) = self._group.sums(loss)
        self._add: Callable[[torch.Tensor, torch.Tensor], None] | None = None
        if finish is not None:
            self.loss, self.gradient, self._add = finish(self.loss, self.gradient)
        _check_gradient(self.loss, self.gradient)

    @property
    def n_sampled(self) -> int:
        """Products of the subsample, each counted by its share of the samples, rounded."""
        if self._sample is None or self._make_sample is None:
            return 0
        return round(self._make_sample[0] * self._sample.n_matvecs)

    @property
    def has_sample(self) -> bool:
        """Whether a cheaper operator of a subsample is available."""
        return self._make_sample is not None

    @property
    def n_kept_chunks(self) -> int:
        """Number of chunks whose graphs are kept."""
        return len(self._kept)

    def __call__(self, v: Any) -> Any:
        """Return the product with one vector: float64 array for array, tensor for tensor."""
        if tuple(np.shape(v)) != (self.size,):
            raise ValueError(f"v has shape {tuple(np.shape(v))}; it must be ({self.size},).")
        return self.matmat(v[:, None])[:, 0]

    @exactly
    def matmat(self, V: Any) -> Any:
        """Return the products with the columns of V (n_parameters, n_vectors), as for one vector.
        A graph that is not kept is built once for all of them.
        """
        if self._chunks is None:
            raise RuntimeError("This operator is closed. Call it inside its with block.")
        given = torch.as_tensor(V)
        if given.dim() != 2 or len(given) != self.size:
            raise ValueError(
                f"V has shape {tuple(given.shape)}; it must be ({self.size}, n_vectors)."
            )
        # Vectors as rows: parts of a column would be copied by every operation.
        rows = given.T.to(device=self._device, dtype=self.dtype).contiguous()
        # One vector at a time: products of many would all be there at once.
        products = self._products if self._pool is not None and len(rows) == 1 else None
        totals = self._group.sum_(sums_of_products(self._graphs(), rows, self._leaves, products))
        if self._add is not None:
            for row, total in zip(rows, totals, strict=True):
                self._add(row, total)
        check_product(totals)
        self.n_matvecs += len(rows)
        if isinstance(V, torch.Tensor):
            return totals.to(self.dtype).T
        return totals.T.cpu().numpy().astype(np.float64, copy=False)

    def sampled(self, v: np.ndarray) -> np.ndarray:
        """Return the product (n_parameters,) of the subsample's operator; see ``has_sample``."""
        if self._sample is None:
            if self._make_sample is None:
                raise RuntimeError("This operator has no subsample; see has_sample.")
            self._sample = self._make_sample[1]()
        return self._sample(v)

    @property
    def gains_by_threads(self) -> bool:
        """Whether each operation of a product is so long that it gains by several threads.
        By the sizes of a chunk that is alone: nothing is timed, so that equal fits are equal.
        """
        if self._device.type != "cpu":
            return True  # none of its threads are those of the products
        if self.n_chunks != 1 or not self._kept:
            return False
        return mean_operation_bytes(self._kept[0].outputs) >= _LONG_OPERATION

    def first_rank(self, array: np.ndarray) -> np.ndarray:
        """Return the array of rank 0 of the process group, in float64 (itself without a group)."""
        return self._group.first_rank(array)

    def check_graphs(self) -> None:
        """Raise if a part of the loss has a first derivative only."""
        for graph in self._graphs():
            graph.check()

    def close(self) -> None:
        """Free the graphs; no product can be made any more."""
        self._kept.clear()
        self._chunks, self._leaves = None, ()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        if self._sample is not None:
            self._sample.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _products(self, graphs: Iterable[Graph], v: Leaves) -> Iterator[Leaves]:
        """Yield the products of kept graphs, worked on at once, in the order of the graphs."""
        pool, kept = self._pool, set(map(id, self._kept.values()))
        begun: deque[Future[Leaves]] = deque()
        try:
            for graph in graphs:
                if pool is not None and id(graph) in kept:
                    begun.append(pool.submit(graph.product, v))
                else:  # a module is called for one graph at a time
                    while begun:
                        yield begun.popleft().result()
                    yield graph.product(v)
                if len(begun) > self._n_workers:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()

    def _graphs(self) -> Iterable[Graph]:
        for number, chunk in enumerate(self._chunks or ()):
            yield self._kept[number] if number in self._kept else chunk(self._leaves)

    def _first_pass(self) -> tuple[float, torch.Tensor]:
        loss = 0.0
        gradient = torch.zeros(self.size, dtype=self._sum_dtype, device=self._device)
        for number, chunk in enumerate(self._chunks or ()):
            graph = chunk(self._leaves)
            loss += graph.value
            gradient += flat(graph.gradient)
            if self._budget is None:
                self._kept[number] = graph
                continue
            if number == 0 and self._budget.left() < self._headroom * self.n_chunks:
                # What a product needs beside the graph is resident before anything is kept.
                graph.product(tuple(part.detach() for part in self._leaves))
            if self._budget.left() >= self._headroom:
                self._kept[number] = graph
            del graph  # before the next one is made
        return loss, gradient


def sums_of_products(
    graphs: Iterable[Graph],
    rows: torch.Tensor,
    leaves: Leaves,
    # Computes the products of all graphs with one vector.
    products: Callable[[Iterable[Graph], Leaves], Iterable[Leaves]] | None = None,
) -> torch.Tensor:
    """Return the products of the sum of the graphs with ``rows`` (n_vectors, n_parameters).
    Added up in float64; each graph is released before the next one is taken.
    """
    sizes = [leaf.numel() for leaf in leaves]
    totals = torch.zeros(rows.shape, dtype=accumulator_dtype(rows), device=rows.device)
    vectors = [
        tuple(part.view(leaf.shape) for part, leaf in zip(row.split(sizes), leaves, strict=True))
        for row in rows
    ]
    if products is not None:
        for product in products(graphs, vectors[0]):
            totals[0] += flat(product)
        return totals
    for graph in graphs:
        for vector, total in zip(vectors, totals, strict=True):
            total += flat(graph.product(vector))
        del graph
    return totals


def flat(parts: Leaves) -> torch.Tensor:
    """Return the parts as one vector."""
    # One addition of two dtypes is faster than one for each part.
    return parts[0].reshape(-1) if len(parts) == 1 else torch.cat([p.reshape(-1) for p in parts])


def _check_gradient(loss: float, gradient: torch.Tensor) -> None:
    if not torch.isfinite(gradient).all():
        raise ValueError(
            f"loss={loss:.6g} has a gradient with entries that are not finite at this "
            "point. Take the Hessian at another snapshot (point), or smooth the loss there."
        )


def check_product(product: torch.Tensor) -> None:
    """Raise if a product is not finite."""
    # A sum is not finite where an entry is not, and takes one pass without a copy.
    if not math.isfinite(product.sum()) and not torch.isfinite(product).all():
        raise ValueError(
            "loss has a Hessian with entries that are not finite at this point. Take the "
            "Hessian at another snapshot (point), or smooth the loss there."
        )
