"""Several processes that hold a share of the samples each: sums over all ranks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import distributed


class Group:
    """A torch.distributed process group, or a single process (None: nothing is communicated)."""

    def __init__(self, process_group: Any = None) -> None:
        self._group = process_group
        if process_group is not None:
            if not (distributed.is_available() and distributed.is_initialized()):
                raise ValueError(
                    f"process_group={process_group!r} needs torch.distributed. Call "
                    "torch.distributed.init_process_group first, or pass None."
                )
            if distributed.get_rank(process_group) < 0:
                raise ValueError(
                    f"process_group={process_group!r} does not hold this process. Build the "
                    "EmpiricalRisk on the ranks of the group only."
                )

    @property
    def single_process(self) -> bool:
        """Whether nothing is communicated."""
        return self._group is None

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Replace the tensor by its sum over all ranks, in place; return it."""
        if not self.single_process:
            distributed.all_reduce(tensor, group=self._group)
        return tensor

    def sums(self, *values: float) -> list[float]:
        """Return each number summed over all ranks."""
        if self.single_process:
            return list(values)
        return self.sum_(self._on_device(torch.tensor(values, dtype=torch.float64))).tolist()

    def first_rank(self, array: np.ndarray) -> np.ndarray:
        """Return the array of rank 0, in float64."""
        array = np.asarray(array, dtype=np.float64)
        if self.single_process:
            return array
        tensor = self._on_device(torch.tensor(array, dtype=torch.float64))
        distributed.broadcast(tensor, group=self._group, group_src=0)
        return tensor.cpu().numpy()

    @contextmanager
    def raise_together(self) -> Iterator[None]:
        """Raise on all ranks where one raises, so that none waits for another for ever.
        Inside nothing may be communicated.
        """
        failed = 1.0
        try:
            yield
            failed = 0.0
        finally:
            (n_failed,) = self.sums(failed)
        if n_failed:
            raise RuntimeError(
                "Another rank of process_group failed at this step; its own message says why. Fix "
                "that and start all ranks again."
            )

    def _on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        # NCCL communicates tensors on a GPU only.
        is_nccl = distributed.get_backend(self._group) == "nccl"
        return tensor.to("cuda") if is_nccl else tensor
