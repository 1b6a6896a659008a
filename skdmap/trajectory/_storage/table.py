"""Rows as columns: the metadata of a row, the table of all rows, and the plain coder."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

_INTEGERS = ("run", "step", "epoch", "key", "exponent")


class RowMetadata(NamedTuple):
    """Where a row belongs, and the numbers next to it; the journal holds one line of each."""

    run: int
    step: int
    epoch: int
    loss: float
    learning_rate: float
    path_length: float  # of all steps since the row before
    coded: tuple[Any, ...] = ()  # the values of the coder's fields, and named scalars

    @property
    def values(self) -> tuple[Any, ...]:
        """All values, in the order of ``BASE_FIELDS`` and the coder's fields."""
        return self[:-1] + self.coded

    @classmethod
    def from_values(cls, values: Sequence[Any]) -> "RowMetadata":
        """Return the metadata with these ``values``."""
        run, step, epoch, loss, learning_rate, path_length, *coded = values
        return cls(run, step, epoch, loss, learning_rate, path_length, tuple(coded))


BASE_FIELDS = RowMetadata._fields[:-1]


@dataclass(frozen=True)
class SnapshotTable:
    """All rows, as columns; the last four are None without a sketch."""

    snapshots: Any  # (n_rows, n_columns): array, read-only map, or rows decoded on access
    buffers: np.ndarray  # (n_rows, n_buffer_entries)
    steps: np.ndarray
    epochs: np.ndarray
    run_ids: np.ndarray
    losses: np.ndarray  # nan where not given, as the next two
    learning_rates: np.ndarray
    path_lengths: np.ndarray
    # Squared length of the sketched step from the row before over the exact one, minus 1.
    sketch_error: np.ndarray | None = None
    step_lengths: np.ndarray | None = None  # exact, from the row before
    start_distances: np.ndarray | None = None  # exact, from the first row of the run
    endpoints: Mapping[int, tuple[np.ndarray, np.ndarray]] | None = None  # full rows, by run
    scalars: Mapping[str, np.ndarray] = field(default_factory=dict)  # named columns


def as_vector(theta: Any) -> np.ndarray:
    """Return a flat array of a tensor on any device; a copy only where it must be one."""
    if isinstance(theta, np.ndarray):
        return theta if theta.ndim == 1 else theta.reshape(-1)
    if hasattr(theta, "detach"):  # a tensor, recognised without torch
        theta = theta.detach().reshape(-1).cpu()
        try:
            return theta.numpy()
        except TypeError:  # numpy has no bfloat16; float32 holds it exactly
            return theta.float().numpy()
    return np.asarray(theta).reshape(-1)


def columns_of(metadata: Sequence[RowMetadata], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return one array per field: int64 for whole numbers, float64 for the others."""
    rows = [row.values for row in metadata]
    values = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return {
        name: np.array(column, dtype=np.int64 if name in _INTEGERS else np.float64)
        for name, column in zip(names, values, strict=True)
    }


def make_table(
    coder: Any,
    files: Mapping[str, Any],
    columns: Mapping[str, np.ndarray],
    n_buffer_entries: int,
    scalars: Sequence[str] = (),
) -> SnapshotTable:
    """Return the columns and what the coder decodes from the files as one table."""
    n_rows = len(columns["run"])
    return SnapshotTable(
        buffers=files["buffers"] if n_buffer_entries else np.empty((n_rows, 0)),
        run_ids=columns["run"],
        steps=columns["step"],
        epochs=columns["epoch"],
        losses=columns["loss"],
        learning_rates=columns["learning_rate"],
        path_lengths=columns["path_length"],
        scalars={name: columns[name] for name in scalars},
        **coder.decode(files, columns),
    )


class ChosenRows:
    """Some rows of an array or a map, read on access."""

    ndim = 2

    def __init__(self, rows: Any, numbers: Sequence[int]) -> None:
        self._rows, self._numbers = rows, np.asarray(numbers, dtype=np.int64)
        self.dtype: np.dtype = np.dtype(rows.dtype)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self._numbers), int(self._rows.shape[1])

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._numbers)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return rows, or columns of rows, as numpy does for an array."""
        rows, columns = index if isinstance(index, tuple) else (index, slice(None))
        chosen = self._numbers[rows]
        numbers = np.atleast_1d(chosen).reshape(-1)
        parts = [np.asarray(self._rows[int(number)])[columns] for number in numbers]
        found = np.stack(parts) if parts else np.empty((0, self.shape[1]), self.dtype)[:, columns]
        return found.reshape(*np.shape(chosen), *found.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all rows."""
        if copy is False:
            raise ValueError("copy=False is not possible: these rows are not contiguous.")
        found = self[:]
        return found if dtype is None else found.astype(dtype, copy=False)


def bridge(
    columns: dict[str, np.ndarray],
    numbers: Sequence[int],
    lost: Mapping[int, RowMetadata | None],
) -> None:
    """Let lengths lead over lost rows, in place: path lengths add up, where the lost row's is
    known, and lengths from the row before are nan.
    """
    place = np.asarray(numbers)
    for number, row in lost.items():
        runs = np.unique(columns["run"]) if row is None else [row.run]
        for run in runs:
            after = np.flatnonzero((columns["run"] == run) & (place > number))[:1]
            columns["path_length"][after] += math.nan if row is None else row.path_length
            for name in ("sketch_error", "step_length"):
                if name in columns:
                    columns[name][after] = math.nan


def counted(n: int, what: str) -> str:
    """Return a number with its noun, in the plural except after 1."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
