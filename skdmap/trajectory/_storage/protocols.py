"""The contracts of the storage: a coder of rows, a storage of rows, one file of rows."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from skdmap.trajectory._storage.table import RowMetadata

# Name of a file -> number of columns and type of its rows.
RowFiles = dict[str, tuple[int, np.dtype]]


class RowCoder(Protocol):
    """Turns a row into parts of files and back."""

    fields: ClassVar[tuple[str, ...]] = ()  # scalars of a row beyond the common ones
    width: int  # of a row
    files: RowFiles
    is_chained: ClassVar[bool] = False  # a row needs those before it

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

    def restore_last(self, theta: np.ndarray, run: int) -> None:
        """Take the last row of a run in full, where it is known otherwise."""
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


class RowStorage(Protocol):
    """Holds coded rows, in memory or on disk. The defaults are those of memory."""

    metadata: list[RowMetadata]  # of the rows that were there when it was opened

    @property
    def is_open(self) -> bool:
        """Whether rows can be appended."""
        return True

    @property
    def state_is_due(self) -> bool:
        """Whether the saved state is old."""
        return False

    def append(self, parts: Mapping[str, np.ndarray], metadata: RowMetadata) -> None:
        """Add a row: whole, or not at all."""
        ...

    def arrays(self) -> dict[str, Any]:
        """Return the rows of each file."""
        ...

    def truncate(
        self,
        metadata: list[RowMetadata],
        counts: Mapping[str, int],
        state: Mapping[str, Any] | None = None,
    ) -> list[RowMetadata]:
        """Keep the rows of ``metadata`` and return it; ``counts`` are the rows of each file, and
        ``state`` replaces the saved one.
        """
        ...

    def set_loss(self, row: int, loss: float) -> None:
        """Change the loss of a row."""
        return

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the saved state."""
        return

    def load_state(self) -> Any:
        """Return the state saved last, or None."""
        return None

    def save_module(self, run: int, state_dict: Mapping[str, Any]) -> None:
        """Save the last module of a run."""
        return

    def load_modules(self) -> dict[int, Any]:
        """Return the saved modules by run."""
        return {}

    def save_results(self, results: Mapping[str, Any]) -> None:
        """Save numbers, strings and arrays."""
        return

    def save_endpoints(self, endpoints: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> None:
        """Save the first and the last row of each run."""
        return

    def close(self) -> None:
        """Write everything to disk and release it."""
        return


class RowFile(Protocol):
    """One file that grows row by row."""

    count: int  # rows

    def append(self, part: np.ndarray) -> None:
        """Write a contiguous row; it counts after :meth:`commit`."""
        ...

    def truncate(self, count: int) -> None:
        """Continue after the first rows."""
        ...

    def array(self) -> Any:
        """Return the first ``count`` rows, read-only."""
        ...

    def commit(self) -> None:
        """Write the number of rows."""
        return

    def sync(self) -> None:
        """Wait until the rows are on the disk."""
        return

    def close(self) -> None:
        """Close the file."""
        return
