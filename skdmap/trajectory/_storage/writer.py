"""The writer of snapshots: sampler and recorder append rows to it, in memory or on disk.

Who calls what, and when::

    writer = open_writer(layout, n_buffer_entries, store=..., ...)    all errors of store= come here
    state = writer.load_state()            resume=True only: drops the rows after the state
    writer.append(theta, buffers, run=..., step=..., loss=...)        once for each recorded step
    row = writer.append(..., loss=None)    the loss of the row is not known yet ...
    writer.set_loss(row, 0.3)              ... now it is; the next append or close makes it nan
    if writer.state_is_due: writer.save_state({...})                  every 10 s, with store= only
    writer.save_state({...})               at the end of each run (in memory it does nothing)
    writer.save_module(run, module.state_dict())                      the same
    writer.save_results(history={...}, interrupted=False)             at the end
    writer.close()                         always, in a finally
    table = writer.table()                 at any time, also after close

A theta may be an array or a tensor on any device; it is copied, so that the caller may change it
afterwards. A row is written once its loss is known: in a store it then survives the process.
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skdmap._parameters import ParameterLayout
from skdmap.trajectory._storage.half_precision import DifferenceCoder
from skdmap.trajectory._storage.manifest import is_chained, make_manifest, read_manifest
from skdmap.trajectory._storage.memory import MemoryRows
from skdmap.trajectory._storage.protocols import PlainCoder, RowCoder, RowStorage
from skdmap.trajectory._storage.recovery import all_files, file_counts, row_positions
from skdmap.trajectory._storage.side_files import rows_state
from skdmap.trajectory._storage.sketch import SketchCoder
from skdmap.trajectory._storage.store import Store, open_store
from skdmap.trajectory._storage.table import (
    BASE_FIELDS,
    RowMetadata,
    SnapshotTable,
    as_vector,
    columns_of,
    make_table,
)


def open_writer(
    layout: ParameterLayout | int,  # of a row; a number of columns if rows are not parameters
    n_buffer_entries: int = 0,
    *,
    dtype: str = "float32",  # "float16": float32 key rows and half-precision differences
    sketch_dim: int | None = None,
    store: Any = None,  # a folder; a name that ends in ".zarr" makes a zarr group
    resume: bool = False,
    manifest: Mapping[str, Any] | None = None,  # settings that a resumed recording must share
    seed: int = 0,  # of the sketch
    n_expected: int = 256,  # rows to reserve memory for
    scalars: Sequence[str] = (),  # names of further numbers next to each row
    to_continue: str = "pass resume=True",  # what to do, where the store holds rows already
) -> "SnapshotWriter":
    """Return an open writer, to be closed; all errors of ``store=`` are raised here."""
    coder = make_coder(layout, dtype, sketch_dim, seed)
    _check_scalars(scalars, coder)
    if store is None:
        if resume:
            raise ValueError("resume=True needs store=, the folder to resume.")
        rows = MemoryRows(all_files(coder, n_buffer_entries), n_expected)
        return SnapshotWriter(coder, rows, n_buffer_entries, scalars)
    record = make_manifest(
        layout,
        n_buffer_entries,
        dtype=dtype,
        sketch=None if sketch_dim is None else {"dim": int(sketch_dim), "seed": int(seed)},
        scalars=scalars,
        settings=manifest or {},
    )
    found = read_manifest(Path(os.fspath(store))) if resume else None
    if found is not None and not is_chained(found):
        coder = make_coder(layout, dtype, sketch_dim, seed, chained=False)
    stored = open_store(store, coder, record, resume=resume, to_continue=to_continue)
    if sketch_dim is not None and stored.metadata:
        coder.restore_first(_first_rows(stored))
    return SnapshotWriter(coder, stored, n_buffer_entries, scalars)


def _first_rows(stored: Store) -> dict[int, np.ndarray]:
    """Return the first row of each run in full, where it is known."""
    first = {run: pair[0] for run, pair in stored.load_endpoints().items()}
    saved = stored.load_state()
    if saved is not None:
        known = rows_state(saved)["coder"].get("first", {})
        first |= {int(run): as_vector(theta) for run, theta in known.items()}
    return first


def _check_scalars(scalars: Sequence[str], coder: RowCoder) -> None:
    taken = {"row", "crc", "line", "amend", *BASE_FIELDS, *coder.fields}
    for name in scalars:
        if not name.isidentifier() or name in taken or list(scalars).count(name) > 1:
            raise ValueError(
                f"scalars={list(scalars)!r}: {name!r} must be an identifier that is not used twice "
                f"and not one of {sorted(taken)}."
            )


class SnapshotWriter:
    """Takes rows in the order in which they come; made by :func:`open_writer`."""

    def __init__(
        self,
        coder: RowCoder,
        rows: RowStorage,
        n_buffer_entries: int,
        scalars: Sequence[str] = (),
    ) -> None:
        self._coder, self._rows, self._n_buffer_entries = coder, rows, n_buffer_entries
        self._scalars = tuple(scalars)
        self._metadata = list(rows.metadata)
        self._pending: tuple[dict[str, np.ndarray], RowMetadata] | None = None
        if self._metadata:  # rows are coded relative to those of this writer only
            self._coder.forget(self._columns())

    @property
    def n_rows(self) -> int:
        """Number of rows, without one that waits for its loss."""
        return len(self._metadata)

    @property
    def state_is_due(self) -> bool:
        """Whether the saved state is ten seconds old; never in memory."""
        return self._rows.state_is_due

    def append(
        self,
        theta: Any,  # (n_columns,)
        buffers: Any = (),  # (n_buffer_entries,)
        *,
        step: int,
        run: int = 0,
        epoch: int = 0,
        loss: float | None = None,  # None: given later by set_loss
        learning_rate: float = math.nan,
        path_length: float = math.nan,
        scalars: Mapping[str, float] | None = None,  # nan where missing
    ) -> int:
        """Add a row and return its number; after an OSError the rows before it are kept."""
        self._settle()
        theta, buffers = as_vector(theta), as_vector(buffers)
        if len(theta) != self._coder.width or len(buffers) != self._n_buffer_entries:
            self._raise_widths(theta, buffers, run, step)
        parts, coded = self._coder.encode(theta, int(run))
        if self._n_buffer_entries:
            parts["buffers"] = np.asarray(buffers, dtype=np.float64)
        if self._scalars:
            given = scalars or {}
            coded += tuple(float(given.get(name, math.nan)) for name in self._scalars)
        value = math.nan if loss is None else float(loss)
        metadata = RowMetadata(
            int(run), int(step), int(epoch), value, float(learning_rate), float(path_length), coded
        )
        if loss is None:
            # The caller may change its memory before the loss is known.
            copies = {name: part.copy() for name, part in parts.items()}
            self._pending = copies, metadata
            return len(self._metadata)
        self._commit(parts, metadata)
        return len(self._metadata) - 1

    def set_loss(self, row: int, loss: float) -> None:
        """Give a row its loss, or change it."""
        if row == len(self._metadata) and self._pending is not None:
            parts, metadata = self._pending
            self._pending = None
            self._commit(parts, metadata._replace(loss=float(loss)))
            return
        if self._metadata[row].loss == float(loss):
            return
        self._metadata[row] = self._metadata[row]._replace(loss=float(loss))
        self._rows.set_loss(row, float(loss))

    def truncate(self, n_rows: int, state: Mapping[str, Any] | None = None) -> None:
        """Drop all rows but the first, and save ``state`` with those that are left; tables made
        before must not be used any more.
        """
        self._pending = None
        if n_rows >= len(self._metadata):
            return
        del self._metadata[n_rows:]
        columns = self._columns()
        counts = file_counts(row_positions(self._coder, columns, n_rows, self._n_buffer_entries))
        self._coder.forget(columns)
        saved = None if state is None else self._state(state)
        self._metadata = list(self._rows.truncate(self._metadata, counts, saved))

    def restore_last(self, theta: np.ndarray, run: int = 0) -> None:
        """Take the last row of a run in full, where it is known although it was dropped."""
        if len(self._metadata) == 1:
            self._coder.restore_first({run: theta})
        self._coder.restore_last(theta, run)

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Save what is needed to continue from these rows; in memory nothing happens."""
        self._settle()
        self._rows.save_state(self._state(state))

    def load_state(self) -> dict[str, Any] | None:
        """Return the state saved last, and drop the rows after it: all where there is no state."""
        saved = self._rows.load_state()
        if saved is None:
            self.truncate(0)
            return None
        own = rows_state(saved)
        try:
            caller = saved["caller"]
            self._coder.restore(own["coder"])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"The saved state is damaged: {error!r}.") from error
        self.truncate(own["n_rows"])
        self._coder.restore(own["coder"])  # again: dropping rows resets the coder
        return caller

    def saved_state(self) -> dict[str, Any] | None:
        """Return the caller's part of the state saved last, and drop no rows."""
        saved = self._rows.load_state()
        return None if saved is None else saved["caller"]

    def save_module(self, run: int, state_dict: Mapping[str, Any]) -> None:
        """Save the last parameters and buffers of a run; in memory nothing happens."""
        self._rows.save_module(run, state_dict)

    def load_modules(self) -> dict[int, dict[str, Any]]:
        """Return what :meth:`save_module` saved, by run."""
        return self._rows.load_modules()

    def save_results(self, **results: Any) -> None:
        """Save numbers, strings and arrays for ``open_trajectory``; in memory nothing happens."""
        self._rows.save_results(results)

    def close(self) -> None:
        """Write the row that waits for its loss, with nan, and close the files."""
        if not self._rows.is_open:
            return
        try:
            self._settle()
            self._rows.save_endpoints(self._coder.state().get("endpoints", {}))
        finally:
            self._rows.close()

    def table(self) -> SnapshotTable:
        """Return the rows; later ones do not change it."""
        files, columns = self._rows.arrays(), self._columns()
        return make_table(self._coder, files, columns, self._n_buffer_entries, self._scalars)

    def _commit(self, parts: dict[str, np.ndarray], metadata: RowMetadata) -> None:
        self._rows.append(parts, metadata)
        self._metadata.append(metadata)

    def _state(self, caller: Mapping[str, Any]) -> dict[str, Any]:
        own = {"n_rows": len(self._metadata), "coder": self._coder.state()}
        return {"rows": own, "caller": dict(caller)}

    def _settle(self) -> None:
        if self._pending is not None:
            self.set_loss(len(self._metadata), math.nan)

    def _columns(self) -> dict[str, np.ndarray]:
        names = BASE_FIELDS + tuple(self._coder.fields) + self._scalars
        return columns_of(self._metadata, names)

    def _raise_widths(self, theta: np.ndarray, buffers: np.ndarray, run: int, step: int) -> None:
        if len(theta) != self._coder.width:
            raise ValueError(
                f"The row at step {step} of run {run} has {len(theta)} entries; it must have "
                f"{self._coder.width} as in the first row. Record values of constant size."
            )
        raise ValueError(
            f"module has {len(buffers)} buffer entries at step {step} of run {run}; it must have "
            f"{self._n_buffer_entries} as in the first row. Do not register buffers that change "
            "their size (register_buffer)."
        )


def make_coder(
    layout: ParameterLayout | int,
    dtype: str,
    sketch_dim: int | None,
    seed: int,
    *,
    chained: bool = True,
) -> RowCoder:
    """Return the coder of rows, and raise a ValueError if the settings exclude each other."""
    n_columns = layout if isinstance(layout, int) else layout.n_parameters
    if sketch_dim is not None:
        if dtype == "float16":
            raise ValueError(
                "dtype='float16' excludes sketch_dim: use 'float32' or 'float64'. A sketch is "
                "small anyway."
            )
        return SketchCoder(layout, dtype, sketch_dim, seed)
    if dtype == "float16":
        return DifferenceCoder(n_columns, chained=chained)
    return PlainCoder(n_columns, dtype)
