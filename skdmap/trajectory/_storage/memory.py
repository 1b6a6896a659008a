"""Rows in memory."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from skdmap.trajectory._storage.protocols import RowFiles, RowStorage
from skdmap.trajectory._storage.table import RowMetadata


class MemoryRows(RowStorage):
    """Rows in memory that is reserved once; more rows than ``capacity`` fit, but are copied."""

    def __init__(self, files: RowFiles, capacity: int) -> None:
        self.metadata: list[RowMetadata] = []
        self._arrays = {
            name: _reserve(max(1, capacity), width, dtype) for name, (width, dtype) in files.items()
        }
        self._counts = dict.fromkeys(files, 0)

    def append(self, parts: Mapping[str, np.ndarray], metadata: RowMetadata) -> None:
        """Copy the parts of a row; its metadata is in the writer."""
        for name, part in parts.items():
            count = self._counts[name]
            if count == len(self._arrays[name]):
                grown = _reserve(2 * count, len(part), part.dtype)
                grown[:count] = self._arrays[name]
                self._arrays[name] = grown
            self._arrays[name][count] = part
            self._counts[name] = count + 1

    def truncate(
        self,
        metadata: list[RowMetadata],
        counts: Mapping[str, int],
        state: Mapping[str, Any] | None = None,  # not kept in memory
    ) -> list[RowMetadata]:
        """Drop rows from the end."""
        self._counts = dict(counts)
        return metadata

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the rows of each file."""
        return {name: self._arrays[name][:count] for name, count in self._counts.items()}


def _reserve(n_rows: int, width: int, dtype: np.dtype) -> np.ndarray:
    """Return an array that is not filled; pages that are never written cost nothing."""
    # torch's memory and not numpy's, which asks for huge pages. The kernel clears a page at its
    # first touch, and where a host lends a virtual machine its memory on demand, a huge one can
    # take milliseconds: ten times as long a row as with small pages.
    kind = torch.from_numpy(np.empty(0, dtype=dtype)).dtype
    return torch.empty(n_rows, width, dtype=kind).numpy()
