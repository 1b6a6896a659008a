"""A memory budget -> how many Krylov vectors fit, and what is left for graphs."""

from typing import Any

import numpy as np

from ._lanczos import default_basis
from ._memory import MemoryBudget, least_budget

__all__ = ["Reserved", "basis_room"]


class Reserved(MemoryBudget):
    """What is left of a budget beside vectors that are allocated, but not yet resident.

    Parameters
    ----------
    budget : MemoryBudget
        The whole.
    n_reserved : int
        Bytes set aside.
    """

    def __init__(self, budget: MemoryBudget, n_reserved: int) -> None:
        self.n_bytes = budget.n_bytes
        self._budget, self._n_reserved = budget, n_reserved

    def left(self) -> int:
        """Return the bytes left for all else; negative where more is in use."""
        return self._budget.left() - self._n_reserved


def basis_room(
    budget: MemoryBudget, loss: Any, point: np.ndarray, n_pairs: int
) -> tuple[int, Reserved]:
    """Return the most Krylov vectors to keep, and the budget of the graphs beside them.

    Parameters
    ----------
    budget : MemoryBudget
        For all.
    loss : EmpiricalRisk or callable
        The loss.
    point : ndarray of shape (n_parameters,)
        Where.
    n_pairs : int
        Number of eigenpairs.

    Returns
    -------
    tuple of (int, Reserved)
        Both.

    Raises
    ------
    ValueError
        If the least number of vectors does not fit.
    """
    least = least_budget(loss, point, n_pairs)
    if budget.n_bytes < least:
        raise ValueError(
            f"memory_budget={budget.n_bytes} bytes must be >= {least}: {n_pairs + 10} vectors of "
            f"{len(point)} parameters in float64 and three chunks of one row. Raise it, or lower "
            "n_components."
        )
    vector = 8 * len(point)
    chunks = least - (n_pairs + 10) * vector
    # Beside the basis: the eigenvectors, the start vector, one product.
    fitting = (budget.n_bytes - chunks) // vector - n_pairs - 4
    cap = max(n_pairs + 8, min(default_basis(n_pairs), fitting))
    return cap, Reserved(budget, (cap + 1 + n_pairs) * vector)
