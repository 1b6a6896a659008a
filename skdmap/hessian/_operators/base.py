"""Products of a curvature matrix with vectors, at one point.

A loss is a sum of chunks. Where memory allows, the graph of a chunk's gradient is kept, and a
product is one backward pass through it; other graphs are built anew for each product.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import torch

from skdmap.hessian._operators.autodiff import Leaves, exactly
from skdmap.hessian._operators.memory_budget import MemoryBudget
from skdmap.hessian._operators.process_group import Group


class Graph(Protocol):
    """The curvature of a chunk at one point: its value, its gradient in parts, and products."""

    value: float
    gradient: Leaves

    def check(self) -> None:
        """Raise where products would be silently wrong."""

    def product(self, v: Leaves) -> Leaves:
        """Return the chunk's curvature times ``v``, in parts."""


Chunk = Callable[[Leaves], Graph]  # the parts of the point -> the chunk's graph there
# (loss, gradient) of the chunks -> (loss, gradient, add); add(v, product) completes it in place.
Finish = Callable[[float, torch.Tensor], tuple[float, torch.Tensor, Callable[..., None]]]
# The share of the samples that an operator close to this one uses, and a function that makes it.
Subsample = tuple[float, Callable[[], "CurvatureOperator"]]


# Shorter chunks never gain by threads. A gain must be clear, so that noise does not decide.
_LONG_SECONDS, _GAIN = 0.02, 0.8


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
        begin = time.perf_counter()
        loss, self.gradient = self._first_pass()
        self._build_seconds = (time.perf_counter() - begin) / max(1, self.n_chunks)
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
        totals = self._group.sum_(sums_of_products(self._graphs(), rows, self._leaves))
        if self._add is not None:
            for row, total in zip(rows, totals, strict=True):
                self._add(row.to(self._sum_dtype), total)
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

    @exactly
    def gains_by_threads(self, n_threads: int) -> bool:
        """Return whether products are clearly faster on ``n_threads`` of torch than on one."""
        if self._device.type != "cpu":
            return True  # none of its threads are those of the products
        if n_threads == 1 or self._build_seconds < _LONG_SECONDS or not self._chunks:
            return False
        graph = next(iter(self._graphs()))
        v = tuple(torch.ones_like(leaf) for leaf in self._leaves)
        seconds = []
        try:
            for n in (1, n_threads, n_threads):  # the second of two: threads have to start
                torch.set_num_threads(n)
                begin = time.perf_counter()
                graph.product(v)
                seconds.append(time.perf_counter() - begin)
        finally:
            torch.set_num_threads(1)
        return seconds[2] < _GAIN * seconds[0]

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

    def _graphs(self) -> Iterable[Graph]:
        for number, chunk in enumerate(self._chunks or ()):
            yield self._kept[number] if number in self._kept else chunk(self._leaves)

    def _first_pass(self) -> tuple[float, torch.Tensor]:
        loss = 0.0
        gradient = torch.zeros(self.size, dtype=self._sum_dtype, device=self._device)
        for number, chunk in enumerate(self._chunks or ()):
            graph = chunk(self._leaves)
            loss += graph.value
            _add_parts(gradient.split(self._sizes), graph.gradient)
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


def sums_of_products(graphs: Iterable[Graph], rows: torch.Tensor, leaves: Leaves) -> torch.Tensor:
    """Return the products of the sum of the graphs with ``rows`` (n_vectors, n_parameters).
    Added up in float64; each graph is released before the next one is taken.
    """
    sizes = [leaf.numel() for leaf in leaves]
    totals = torch.zeros(rows.shape, dtype=accumulator_dtype(rows), device=rows.device)
    for graph in graphs:
        for row, total in zip(rows, totals, strict=True):
            parts = zip(row.split(sizes), leaves, strict=True)
            product = graph.product(tuple(part.view(leaf.shape) for part, leaf in parts))
            _add_parts(total.split(sizes), product)
        del graph
    return totals


def _add_parts(totals: Sequence[torch.Tensor], parts: Leaves) -> None:
    for total, part in zip(totals, parts, strict=True):
        total += part.reshape(-1)


def _check_gradient(loss: float, gradient: torch.Tensor) -> None:
    if not torch.isfinite(gradient).all():
        raise ValueError(
            f"loss={loss:.6g} has a gradient with entries that are not finite at this "
            "point. Take the Hessian at another snapshot (point), or smooth the loss there."
        )


def check_product(product: torch.Tensor) -> None:
    """Raise if a product is not finite."""
    # A sum is not finite where an entry is not, and takes one pass without a copy.
    if not torch.isfinite(product.sum()) and not torch.isfinite(product).all():
        raise ValueError(
            "loss has a Hessian with entries that are not finite at this point. Take the "
            "Hessian at another snapshot (point), or smooth the loss there."
        )
