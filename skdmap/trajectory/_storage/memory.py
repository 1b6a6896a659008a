from collections.abc import Mapping
from typing import Any

import numpy as np


class MemoryRows:
    """Rows in memory that is set aside once; the contract of a store, without a disk.

    Parameters
    ----------
    files : mapping of str to (int, dtype)
        Width and type of the rows of each file.
    capacity : int
        Rows to expect; pages that are never written cost nothing. More fit, but are copied.
    """

    def __init__(self, files: Mapping[str, tuple[int, np.dtype]], capacity: int) -> None:
        self._arrays = {
            name: _set_aside(max(1, capacity), width, dtype)
            for name, (width, dtype) in files.items()
        }
        self._counts = dict.fromkeys(files, 0)

    def append(self, parts: Mapping[str, np.ndarray], cell: tuple[Any, ...]) -> None:
        """Keep the parts of a row; the writer's own columns hold the cell."""
        for name, part in parts.items():
            count = self._counts[name]
            if count == len(self._arrays[name]):
                grown = _set_aside(2 * count, len(part), part.dtype)
                grown[:count] = self._arrays[name]
                self._arrays[name] = grown
            self._arrays[name][count] = part
            self._counts[name] = count + 1

    def amend(self, row: int, loss: float) -> None:
        """Take a new loss for a row; the writer's own columns hold it."""

    def truncate(self, n_rows: int, counts: Mapping[str, int]) -> None:
        """Drop rows from the end."""
        self._counts = dict(counts)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the rows of each file."""
        return {name: self._arrays[name][:count] for name, count in self._counts.items()}


def _set_aside(n_rows: int, width: int, dtype: np.dtype) -> np.ndarray:
    """Return an array that is not filled; pages that are never written cost nothing.

    torch's memory and not numpy's, which asks for huge pages. The kernel clears a page at its first
    touch, and where a host lends a virtual machine its memory on demand, a huge one can take
    milliseconds: ten times as long a row as with small pages.
    """
    import torch

    kind = torch.from_numpy(np.empty(0, dtype=dtype)).dtype
    return torch.empty(n_rows, width, dtype=kind).numpy()
