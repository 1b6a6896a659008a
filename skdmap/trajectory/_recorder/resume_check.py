"""Whether a module stands where its recording is to be resumed."""

import math
from typing import Any

import numpy as np
import torch

from skdmap._parameters import ParameterLayout
from skdmap.trajectory._storage.half_precision import DifferenceRows
from skdmap.trajectory._storage.sketch import sketch_vector
from skdmap.trajectory._storage.table import SnapshotTable

# Entries of the parameters that tell one step from another, and steps to remember.
_N_ENTRIES, _N_STEPS = 64, 2**14
_BATCH = 256
# Half precision keeps 11 bits of each entry of a difference, and loses entries 2^-25 times as
# large as the largest; twice that is a tolerance.
_HALF_STEP, _HALF_LOSS = 2.0**-10, 2.0**-24
# Outputs of one module on the same inputs differ by so many units of rounding between machines.
_OUTPUT_UNITS = 1000


class StepPrints:
    """What is kept of each step that is not a row: a number by which a module at that step is
    recognised, and the length of the path from the last row.
    """

    def __init__(self, n_parameters: int) -> None:
        entries = np.linspace(0, n_parameters - 1, min(n_parameters, _N_ENTRIES)).round()
        self._entries = torch.from_numpy(entries.astype(np.int64))
        self._prints: dict[int, int] = {}
        self._lengths: dict[int, tuple[int, float]] = {}  # from the row of which step, and length
        self._waiting: list[tuple[int, torch.Tensor, int, Any]] = []

    def add(self, step: int, theta: torch.Tensor, row: int, length: Any) -> None:
        """Take note of a step, ``length`` from the row of step ``row``; values are read in batches,
        so that no step waits for a GPU.
        """
        self._waiting.append((step, self._read(theta), row, length))
        if len(self._waiting) >= _BATCH:
            self._settle()

    def matches(self, step: int, theta: torch.Tensor) -> bool | None:
        """Return whether ``theta`` (n_parameters,) is that of a step; None if that is unknown."""
        self._settle()
        found = self._prints.get(step)
        return None if found is None else found == _hash(self._read(theta)[None])[0]

    def length(self, step: int, row: int) -> float | None:
        """Return the length of the path from the row of step ``row`` to a step; None if unknown."""
        self._settle()
        known_row, length = self._lengths.get(step, (None, math.nan))
        return None if known_row != row or math.isnan(length) else length

    def state(self) -> dict[str, Any]:
        """Return what :meth:`restore` takes."""
        self._settle()
        known = [self._lengths.get(step, (-1, math.nan)) for step in self._prints]
        return {
            "steps": list(self._prints),
            "prints": list(self._prints.values()),
            "rows": [row for row, _ in known],
            "lengths": [length for _, length in known],
        }

    def restore(self, state: dict[str, Any], *, last: int) -> None:
        """Know the steps of another recorder up to the last one."""
        pairs = zip(state.get("steps", ()), state.get("prints", ()), strict=True)
        self._prints = {int(step): int(value) for step, value in pairs if step <= last}
        # Earlier versions kept no lengths.
        known = zip(state.get("rows", ()), state.get("lengths", ()), strict=True)
        lengths = zip(state.get("steps", ()), known, strict=False)
        self._lengths = {int(step): pair for step, pair in lengths if step <= last}

    def _read(self, theta: torch.Tensor) -> torch.Tensor:
        if self._entries.device != theta.device:
            self._entries = self._entries.to(theta.device)
        return theta[self._entries]

    def _settle(self) -> None:
        if not self._waiting:
            return
        steps, reads, rows, lengths = zip(*self._waiting, strict=True)
        values = _hash(torch.stack([read.cpu() for read in reads]))
        self._prints |= dict(zip(steps, values, strict=True))
        self._lengths |= {
            step: (row, float(length))
            for step, row, length in zip(steps, rows, lengths, strict=True)
        }
        self._waiting = []
        for step in list(self._prints)[: max(0, len(self._prints) - _N_STEPS)]:
            del self._prints[step]
            self._lengths.pop(step, None)


def is_row(
    theta: np.ndarray,  # (n_columns,), as it would be recorded now
    table: SnapshotTable,
    row: int,
    layout: ParameterLayout | int,
    sketch_dim: int | None,
) -> bool:
    """Return whether a row of the table is ``theta``, as far as the row's format tells."""
    kept = np.asarray(table.snapshots[row])
    if sketch_dim is not None:
        theta = sketch_vector(theta, layout, sketch_dim=sketch_dim, seed=0)
    theta = theta.astype(kept.dtype)
    if np.array_equal(kept, theta):
        return True
    gap, unit = np.abs(kept - theta), np.finfo(kept.dtype).eps
    if isinstance(layout, int):  # outputs, or what a callable makes of the module
        return bool(gap.max() <= _OUTPUT_UNITS * unit * np.abs(kept).max())
    if sketch_dim is not None:
        return bool(gap.max() <= 16 * unit * np.abs(kept).max())
    if not isinstance(table.snapshots, DifferenceRows) or row == 0:
        return False
    # The row before it, and in the earlier format the key row, which is at most 64 rows before.
    first = row - 1 if table.snapshots.is_chained else max(0, row - 64)
    move = np.abs(kept - np.asarray(table.snapshots[first:row])).max(axis=0)
    room = _HALF_STEP * move + _HALF_LOSS * move.max() + 2 * unit * np.abs(kept)
    return bool((gap <= room).all())


def is_off_path(theta: np.ndarray, table: SnapshotTable, row: int) -> bool:
    """Return whether ``theta`` cannot lie on the path from ``row`` to the next row."""
    if row + 1 >= len(table.steps):
        return False
    ends = (np.asarray(table.snapshots[i], dtype=np.float64) for i in (row, row + 1))
    around = sum(float(np.linalg.norm(theta - end)) for end in ends)
    # A path that was resumed counts as straight where it was not followed.
    return bool(around > 1.5 * table.path_lengths[row + 1])


def _hash(values: torch.Tensor) -> list[int]:
    """Return an integer for each row of values (n, n_entries), from all of their bits."""
    bits = values.contiguous().view(torch.int64 if values.dtype == torch.float64 else torch.int32)
    words = bits.numpy().astype(np.uint64)
    total = np.zeros(len(words), dtype=np.uint64)
    for column in words.T:
        total = (total ^ column) * np.uint64(0x9E3779B97F4A7C15)
        total ^= total >> np.uint64(29)
    return [int(value) for value in total.view(np.int64)]
