"""What turns a row into parts of files and back; the plain coder keeps rows as they are."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

# Name of a file -> number of columns and type of its rows.
RowFiles = dict[str, tuple[int, np.dtype]]


class RowCoder(Protocol):
    """Turns a row into parts of files and back."""

    fields: ClassVar[tuple[str, ...]] = ()  # scalars of a row beyond the common ones
    width: int  # of a row
    files: RowFiles

    def encode(self, theta: np.ndarray, run: int) -> tuple[dict[str, np.ndarray], tuple[Any, ...]]:
        """Return the parts of a row by file, and the values of ``fields``."""
        ...

    def decode(self, files: Mapping[str, Any], columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return what the coder contributes to a :class:`SnapshotTable`."""
        ...

    def positions(self, columns: Mapping[str, np.ndarray], n_rows: int) -> dict[str, np.ndarray]:
        """Return for each file the position of row i in it; -1 where it has no part there."""
        return {name: np.arange(n_rows) for name in self.files}

    def state(self) -> dict[str, Any]:
        """Return what is needed to continue, besides the rows."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        return

    def restore_first(self, first: Mapping[int, np.ndarray]) -> None:
        """Take the first row of each run, where no state was saved."""
        return

    def forget(self, columns: Mapping[str, np.ndarray]) -> None:
        """Continue after rows were dropped; only those of ``columns`` are left."""
        return


class PlainCoder(RowCoder):
    """Rows as they are, in one type."""

    def __init__(self, n_columns: int, dtype: str) -> None:
        self.width = n_columns
        self.files = {"snapshots": (n_columns, np.dtype(dtype))}

    def encode(self, theta: np.ndarray, run: int) -> tuple[dict[str, np.ndarray], tuple[Any, ...]]:
        """Return the row in its type."""
        return {"snapshots": np.asarray(theta, dtype=self.files["snapshots"][1])}, ()

    def decode(self, files: Mapping[str, Any], columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return the rows."""
        return {"snapshots": files["snapshots"]}
