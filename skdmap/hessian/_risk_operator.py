"""A module's loss at a point -> its curvature operator, and that of some of the rows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ._batch_shares import Shares, batch_shares
from ._chunking import Chunking
from ._curvature import chunk_graphs, finish_with
from ._curvature_operator import CurvatureOperator
from ._group import Group
from ._memory import MemoryBudget
from ._module_loss import ModuleLoss
from ._row_sample import has_sample, sampled_part, sampled_rows

__all__ = ["RiskAt"]


@dataclass(frozen=True)
class RiskAt:
    """The loss of some rows at a point, and how they go through the module.

    Attributes
    ----------
    loss : ModuleLoss
        With the buffers of the point.
    point : Tensor of shape (n_parameters,)
        In the dtype and on the device of the loss.
    curvature : str
        One of ``CURVATURES``.
    chunking : Chunking
        Of the rows.
    weights : Tensor of shape (n_rows,)
        From ``row_weights``.
    weight_decay : float
        Of the loss.
    group : Group
        Whose ranks hold the other rows.
    """

    loss: ModuleLoss
    point: torch.Tensor
    curvature: str
    chunking: Chunking
    weights: torch.Tensor
    weight_decay: float
    group: Group

    def operator(
        self, shares: Shares, *, total: float, n_rows: int, budget: MemoryBudget
    ) -> CurvatureOperator:
        """Return the operator of the loss of all rows.

        Parameters
        ----------
        shares : tuple of (slice, float)
            Chunks of rows and their shares.
        total : float
            Sum of the weights over all ranks.
        n_rows : int
            Number of rows over all ranks.
        budget : MemoryBudget
            For the graphs.

        Returns
        -------
        CurvatureOperator
            With ``sample`` where rows may be parted, and are many.
        """
        # Each rank has tried its own rows; all must take the same way.
        (n_against,) = self.group.sums(float(not self.chunking.divisible))
        sample = None if n_against else self._sample(n_rows, budget)
        return self._operator(shares, total, n_rows, budget, sample)

    def _operator(
        self, shares: Any, total: float, n_rows: int, budget: MemoryBudget, sample: Any = None
    ) -> CurvatureOperator:
        with self.group.together():
            chunks = chunk_graphs(self.loss, self.curvature, shares, total=total, n_rows=n_rows)
        return CurvatureOperator(
            chunks,
            self.point,
            shapes=self.loss.layout.shapes,
            finish=finish_with(self.curvature, self.point, self.weight_decay),
            memory_budget=budget,
            chunk_bytes=self.chunking.longest_bytes(shares),
            group=self.group,
            sample=sample,
        )

    def _sample(
        self, n_rows: int, budget: MemoryBudget
    ) -> tuple[float, Callable[[], CurvatureOperator]] | None:
        if not has_sample(n_rows):
            return None
        part = sampled_part(n_rows)

        def make() -> CurvatureOperator:
            rows = sampled_rows(self.weights, part)
            total, n_sampled = self.group.sums(float(self.weights[rows].sum()), float(len(rows)))
            pieces = rows.split(self.chunking.rows_of_chunk(budget.left()))
            shares = batch_shares(self.weights, self.chunking.reduction, pieces, total)
            return self._operator(shares, total, int(n_sampled), budget)

        return part, make
