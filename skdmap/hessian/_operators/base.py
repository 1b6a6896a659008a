"""v -> H v, the curvature of a loss at one point times a vector; no eigen-anything.

A loss is a sum of chunks. Where memory allows, the graph of a chunk's gradient is kept, so that one
product is one backward pass through it; the graphs of the others are made anew for each product.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import torch

from skdmap.hessian._operators.autodiff import Leaves
from skdmap.hessian._operators.memory_budget import MemoryBudget
from skdmap.hessian._operators.process_group import Group


class Graph(Protocol):
    """What a chunk is at one point."""

    value: float
    gradient: Leaves

    def check(self) -> None:
        """Raise where products would be wrong without a word."""

    def product(self, v: Leaves) -> Leaves:
        """Return the chunk's curvature times ``v``."""


Chunk = Callable[[Leaves], Graph]


def accumulator_dtype(theta: torch.Tensor) -> torch.dtype:
    """Return the dtype in which chunks are added up: float64 where the device has it."""
    return theta.dtype if theta.device.type == "mps" else torch.float64


class CurvatureOperator:
    """The curvature of a loss at one point, as a function of a vector.

    A context manager: leaving it frees the graphs.

    Parameters
    ----------
    chunks : sequence of callable
        Each maps the parts of the point to a graph; the loss is the sum of their values.
    theta : Tensor of shape (n_parameters,)
        The point; its dtype and device are those of the products.
    shapes : sequence of tuple of int, default=None
        Shapes of the parts of the point; None for one part, the flat vector.
    finish : callable, default=None
        Maps the operator's own sums, (loss, gradient), to those of the whole loss and to what is
        added to a product: ``add(v, product)``, in place. For what is no sum over rows.
    memory_budget : MemoryBudget, default=None
        None keeps all graphs.
    chunk_bytes : int, default=0
        What the graph of a chunk needs; room for three of them, and for one gradient, is left.
    group : Group, default=None
        Sums go over all of its ranks.
    sample : tuple of (float, callable), default=None
        Which part of the rows makes an operator near to this one, and a function that returns it.

    Attributes
    ----------
    size : int
        n_parameters.
    dtype : torch.dtype
        In which products are computed.
    loss : float
        The loss at the point.
    gradient : Tensor of shape (n_parameters,)
        The gradient there, added up over the chunks in float64.
    n_matvecs : int
        Products made so far.
    n_chunks : int
        Number of chunks.
    """

    def __init__(
        self,
        chunks: Sequence[Chunk],
        theta: torch.Tensor,
        *,
        shapes: Sequence[tuple[int, ...]] | None = None,
        finish: Callable[[float, torch.Tensor], Any] | None = None,
        memory_budget: MemoryBudget | None = None,
        chunk_bytes: int = 0,
        group: Group | None = None,
        sample: tuple[float, Callable[[], "CurvatureOperator"]] | None = None,
    ) -> None:
        self.size, self.dtype, self._device = theta.numel(), theta.dtype, theta.device
        shapes = [(self.size,)] if shapes is None else list(shapes)
        self._sizes = [math.prod(shape) for shape in shapes]
        self._group = Group() if group is None else group
        self._budget, self._make_sample = memory_budget, sample
        self._sample: CurvatureOperator | None = None
        self._room = 3 * chunk_bytes + 8 * self.size
        self._leaves: Leaves = tuple(
            part.view(shape).clone().requires_grad_(True)
            for part, shape in zip(theta.detach().split(self._sizes), shapes, strict=True)
        )
        self._chunks: list[Chunk] | None = list(chunks)
        self._kept: dict[int, Graph] = {}
        self._sum_dtype = accumulator_dtype(theta)
        self.n_chunks, self.n_matvecs = len(self._chunks), 0
        loss, self.gradient = self._first_pass()
        self._group.sum_(self.gradient)
        (self.loss,) = self._group.sums(loss)
        self._add: Callable[[torch.Tensor, torch.Tensor], None] | None = None
        if finish is not None:
            self.loss, self.gradient, self._add = finish(self.loss, self.gradient)
        _check_gradient(self.loss, self.gradient)

    @property
    def n_sampled(self) -> int:
        """Number of products of the sample, each counted by its part of the rows, rounded."""
        if self._sample is None or self._make_sample is None:
            return 0
        return round(self._make_sample[0] * self._sample.n_matvecs)

    @property
    def has_sample(self) -> bool:
        """Whether some of the rows make an operator near to this one, and cheaper."""
        return self._make_sample is not None

    @property
    def n_kept_chunks(self) -> int:
        """Number of chunks whose graphs are kept."""
        return len(self._kept)

    def __call__(self, v: Any) -> Any:
        """Return the product with one vector: an array for an array, a tensor for a tensor.

        Parameters
        ----------
        v : array or Tensor of shape (n_parameters,)
            The vector.

        Returns
        -------
        ndarray or Tensor of shape (n_parameters,)
            The product; an array is float64, a tensor has the dtype and device of the point.

        Raises
        ------
        ValueError
            If ``v`` has another shape, or the product is not finite.
        RuntimeError
            If the operator has been closed.
        """
        if tuple(np.shape(v)) != (self.size,):
            raise ValueError(f"v has shape {tuple(np.shape(v))}, must be ({self.size},).")
        return self.matmat(v[:, None])[:, 0]

    def matmat(self, V: Any) -> Any:
        """Return the products with several vectors; a graph that is not kept is made once for all.

        Parameters
        ----------
        V : array or Tensor of shape (n_parameters, n_vectors)
            The vectors, as columns.

        Returns
        -------
        ndarray or Tensor of shape (n_parameters, n_vectors)
            The products; an array is float64, a tensor has the dtype and device of the point.

        Raises
        ------
        ValueError
            If ``V`` has another shape, or a product is not finite.
        RuntimeError
            If the operator has been closed.
        """
        if self._chunks is None:
            raise RuntimeError("This operator is closed; make products inside its with block.")
        given = torch.as_tensor(V)
        if given.dim() != 2 or len(given) != self.size:
            raise ValueError(f"V has shape {tuple(given.shape)}, must be ({self.size}, n_vectors).")
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
        """Return the product of the operator of some of the rows, where it ``has_sample``.

        Parameters
        ----------
        v : ndarray of shape (n_parameters,)
            The vector.

        Returns
        -------
        ndarray of shape (n_parameters,)
            In float64.
        """
        if self._sample is None:
            if self._make_sample is None:
                raise RuntimeError("This operator has no sample of its rows; see has_sample.")
            self._sample = self._make_sample[1]()
        return self._sample(v)

    def first_rank(self, array: np.ndarray) -> np.ndarray:
        """Return the array of rank 0 of the process group, in float64; its own without a group.

        Parameters
        ----------
        array : ndarray
            Of one shape on all ranks.

        Returns
        -------
        ndarray
            The same bits on all ranks.
        """
        return self._group.first_rank(array)

    def check_graphs(self) -> None:
        """Raise if a part of the loss has a first derivative only.

        Raises
        ------
        ValueError
            If a function marked ``once_differentiable`` is in it.
        """
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
            if number == 0 and self._budget.left() < self._room * self.n_chunks:
                # What a product needs beside the graph is resident before anything is kept.
                graph.product(tuple(part.detach() for part in self._leaves))
            if self._budget.left() >= self._room:
                self._kept[number] = graph
            del graph  # before the next one is made
        return loss, gradient


def sums_of_products(graphs: Iterable[Graph], rows: torch.Tensor, leaves: Leaves) -> torch.Tensor:
    """Return the products of the sum of the graphs with several vectors.

    Parameters
    ----------
    graphs : iterable of Graph
        Each is let go before the next one is taken.
    rows : Tensor of shape (n_vectors, n_parameters)
        The vectors.
    leaves : tuple of Tensor
        The point, in the parts that the graphs know.

    Returns
    -------
    Tensor of shape (n_vectors, n_parameters)
        Added up in float64 where the device has it.
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
            "point. Take the Hessian at another row (point), or smooth the loss there."
        )


def check_product(product: torch.Tensor) -> None:
    """Raise if a product is not finite.

    Parameters
    ----------
    product : Tensor
        Of all ranks.

    Raises
    ------
    ValueError
        With the way out.
    """
    # A sum is not finite where an entry is not, and takes one pass without a copy.
    if not torch.isfinite(product.sum()) and not torch.isfinite(product).all():
        raise ValueError(
            "loss has a Hessian with entries that are not finite at this point. Take the "
            "Hessian at another row (point), or smooth the loss there."
        )
