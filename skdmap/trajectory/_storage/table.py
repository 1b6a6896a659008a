"""The rows that a writer holds as columns, and the plainest ways to code and hold them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

BASE_FIELDS = ("run", "step", "epoch", "loss", "learning_rate", "path_length")
_WHOLE = ("run", "step", "epoch", "key", "exponent")


@dataclass(frozen=True)
class SnapshotTable:
    """The rows kept so far, as columns.

    Attributes
    ----------
    snapshots : array of shape (n_rows, n_columns)
        An array; with a store, a read-only memory map that pickles as its path; with
        dtype="float16" a sequence of rows that decodes them on access.
    buffers : ndarray of float64, shape (n_rows, n_buffer_entries)
        Beside them.
    steps, epochs, run_ids : ndarray of int64, shape (n_rows,)
        As given to ``append``.
    losses, learning_rates, path_lengths : ndarray of float64, shape (n_rows,)
        As given, nan where nothing was given.
    sketch_error : ndarray of float64, shape (n_rows,), or None
        Squared length of the sketched step from the row before over the exact one, minus 1. nan in
        the first row of a run. None without a sketch, as are the next three.
    step_lengths, start_distances : ndarray of float64, shape (n_rows,), or None
        Exact distance from the row before, and from the first row of the run.
    endpoints : mapping of int to (ndarray, ndarray), or None
        For each run the full vectors of its first and last row.
    """

    snapshots: Any
    buffers: np.ndarray
    steps: np.ndarray
    epochs: np.ndarray
    run_ids: np.ndarray
    losses: np.ndarray
    learning_rates: np.ndarray
    path_lengths: np.ndarray
    sketch_error: np.ndarray | None = None
    step_lengths: np.ndarray | None = None
    start_distances: np.ndarray | None = None
    endpoints: Mapping[int, tuple[np.ndarray, np.ndarray]] | None = None


class PlainCoder:
    """Rows as they are, in one type.

    A coder says which files there are (``files``: name -> (width, dtype)) and which fields a row
    has beside the common ones (``fields``), and turns a row into parts of files and back.
    """

    fields: tuple[str, ...] = ()

    def __init__(self, n_columns: int, dtype: str) -> None:
        self.width = n_columns
        self.files: dict[str, tuple[int, np.dtype]] = {"snapshots": (n_columns, np.dtype(dtype))}

    def encode(self, theta: np.ndarray, run: int) -> tuple[dict[str, np.ndarray], tuple[Any, ...]]:
        """Return the parts of a row by file, and the values of ``fields``."""
        return {"snapshots": np.asarray(theta, dtype=self.files["snapshots"][1])}, ()

    def places(self, columns: Mapping[str, np.ndarray], n_rows: int) -> dict[str, np.ndarray]:
        """Return for each file where the part of row i stands in it; -1 where it has none."""
        return {"snapshots": np.arange(n_rows)}

    def decode(self, files: Mapping[str, Any], columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return what the coder has to say in a :class:`SnapshotTable`."""
        return {"snapshots": files["snapshots"]}

    def state(self) -> dict[str, Any]:
        """Return what is needed to go on, beside the rows."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what :meth:`state` returned."""

    def forget(self, columns: Mapping[str, np.ndarray]) -> None:
        """Take note that only the rows of ``columns`` are left."""


def as_vector(theta: Any) -> np.ndarray:
    """Return a flat array, wherever the numbers are; not a copy where it need be none."""
    if isinstance(theta, np.ndarray):
        return theta.reshape(-1)
    if hasattr(theta, "detach"):  # a tensor, known without torch
        theta = theta.detach().reshape(-1).cpu()
        try:
            return theta.numpy()
        except TypeError:  # bfloat16 is none of numpy's types; float32 holds it exactly
            return theta.float().numpy()
    return np.asarray(theta).reshape(-1)


def columns_of(cells: list[tuple[Any, ...]], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return one array per field: int64 for whole numbers, float64 for the others."""
    values = list(zip(*cells, strict=True)) if cells else [()] * len(names)
    return {
        name: np.array(column, dtype=np.int64 if name in _WHOLE else np.float64)
        for name, column in zip(names, values, strict=True)
    }


def make_table(
    coder: Any, files: Mapping[str, Any], columns: Mapping[str, np.ndarray], n_buffer_entries: int
) -> SnapshotTable:
    """Return the columns and what the coder makes of the files as one record."""
    n_rows = len(columns["run"])
    return SnapshotTable(
        buffers=files["buffers"] if n_buffer_entries else np.empty((n_rows, 0)),
        run_ids=columns["run"],
        steps=columns["step"],
        epochs=columns["epoch"],
        losses=columns["loss"],
        learning_rates=columns["learning_rate"],
        path_lengths=columns["path_length"],
        **coder.decode(files, columns),
    )
