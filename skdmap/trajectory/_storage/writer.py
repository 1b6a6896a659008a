"""What keeps rows: one object to which sampler and recorder append, in memory or on disk.

Who calls what, and when::

    writer = open_writer(layout, n_buffer_entries, store=..., ...)    all errors of store= come here
    state = writer.load_state()            resume=True only: cuts the rows that came after the state
    writer.append(theta, buffers, run=..., step=..., loss=...)        once for each recorded step
    row = writer.append(..., loss=None)    the loss of the row is not known yet ...
    writer.set_loss(row, 0.3)              ... now it is; the next append, or close, makes it nan
    if writer.state_is_due: writer.save_state({...})                  every 10 s, with store= only
    writer.save_state({...})               at the end of each run (in memory it does nothing)
    writer.save_module(run, module.state_dict())                      the same
    writer.save_results(history={...}, interrupted=False)             at the end
    writer.close()                         always, in a finally
    table = writer.table()                 at any time, also after close

A theta may be an array or a tensor on any device; it is copied, so that the caller may change it
afterwards. A row is kept once its loss is known: in a store it is then on disk, and stays there
whatever becomes of the process.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from skdmap._parameters import ParameterLayout
from skdmap.trajectory._storage.half_precision import DifferenceCoder
from skdmap.trajectory._storage.memory import MemoryRows
from skdmap.trajectory._storage.sketch import SketchCoder
from skdmap.trajectory._storage.table import (
    BASE_FIELDS,
    PlainCoder,
    SnapshotTable,
    as_vector,
    columns_of,
    make_table,
)


def open_writer(
    layout: ParameterLayout | int,
    n_buffer_entries: int = 0,
    *,
    dtype: str = "float32",
    sketch_dim: int | None = None,
    store: Any = None,
    resume: bool = False,
    manifest: Mapping[str, Any] | None = None,
    seed: int = 0,
    n_expected: int = 256,
) -> "SnapshotWriter":
    """Return what keeps the rows of a trajectory.

    Parameters
    ----------
    layout : ParameterLayout or int
        Of a row; a number of columns where the rows are no parameters.
    n_buffer_entries : int, default=0
        Width of the buffers beside a row.
    dtype : {"float32", "float64", "float16"}, default="float32"
        "float16" keeps float32 key rows, and half-precision differences from row to row.
    sketch_dim : int or None, default=None
        Keep sketches of that many columns, a multiple of 4, instead of the rows.
    store : path-like or None, default=None
        A folder to keep the rows in, made where there is none; a name that ends in ".zarr" makes
        a zarr group. None keeps them in memory.
    resume : bool, default=False
        Take up the rows that the folder holds. They must have been made alike.
    manifest : mapping or None, default=None
        Settings that a resumed recording must share: names, numbers, strings, lists and dicts of
        them. Other values than the stored ones are an error that names the key.
    seed : int, default=0
        Of the sketch.
    n_expected : int, default=256
        Rows to set memory aside for.

    Returns
    -------
    SnapshotWriter
        Open; close it.

    Raises
    ------
    ValueError
        If a setting is out of range, or the folder holds another trajectory or a damaged one.
    FileExistsError
        If the folder holds rows and ``resume`` is False.
    OSError
        If the folder cannot be written, or another process writes to it.
    """
    coder = make_coder(layout, dtype, sketch_dim, seed)
    files = dict(coder.files)
    if n_buffer_entries:
        files["buffers"] = (n_buffer_entries, np.dtype("float64"))
    if store is None:
        if resume:
            raise ValueError("resume=True needs store=, the folder to go on with.")
        return SnapshotWriter(coder, MemoryRows(files, n_expected), n_buffer_entries)
    from skdmap.trajectory._storage.manifest import make_manifest
    from skdmap.trajectory._storage.store import load_endpoints, open_store

    record = make_manifest(
        layout,
        n_buffer_entries,
        dtype=dtype,
        sketch=None if sketch_dim is None else {"dim": int(sketch_dim), "seed": int(seed)},
        settings=manifest or {},
    )
    fields = BASE_FIELDS + coder.fields
    rows = open_store(store, files, record, places=coder.places, fields=fields, resume=resume)
    if isinstance(coder, SketchCoder):
        coder.restore_first({run: pair[0] for run, pair in load_endpoints(rows.folder).items()})
    return SnapshotWriter(coder, rows, n_buffer_entries)


class SnapshotWriter:
    """Takes rows in the order in which they come; made by :func:`open_writer`.

    Parameters
    ----------
    coder : PlainCoder, SketchCoder or DifferenceCoder
        What becomes of a row.
    rows : MemoryRows or Store
        Where it goes.
    n_buffer_entries : int
        Width of the buffers.
    """

    def __init__(self, coder: Any, rows: Any, n_buffer_entries: int) -> None:
        self._coder, self._rows, self._n_buffer_entries = coder, rows, n_buffer_entries
        self._names = BASE_FIELDS + tuple(coder.fields)
        self._cells: list[tuple[Any, ...]] = list(getattr(rows, "cells", []))
        self._pending: tuple[dict[str, np.ndarray], tuple[Any, ...]] | None = None

    @property
    def n_rows(self) -> int:
        """Rows kept; one that waits for its loss is not counted."""
        return len(self._cells)

    @property
    def state_is_due(self) -> bool:
        """Whether ten seconds have gone by since a state was saved; never in memory."""
        return bool(getattr(self._rows, "state_is_due", False))

    def append(
        self,
        theta: Any,
        buffers: Any = (),
        *,
        step: int,
        run: int = 0,
        epoch: int = 0,
        loss: float | None = None,
        learning_rate: float = math.nan,
        path_length: float = math.nan,
    ) -> int:
        """Keep a row.

        Parameters
        ----------
        theta : ndarray or Tensor of shape (n_columns,)
            The row. Whether it is finite is for the caller to know.
        buffers : ndarray or Tensor of shape (n_buffer_entries,)
            Beside it.
        step, run, epoch : int
            When it was.
        loss : float or None, default=None
            None: known later, see :meth:`set_loss`.
        learning_rate : float, default=nan
            Of the step that led here.
        path_length : float, default=nan
            Sum of the lengths of all steps since the row before, recorded or not.

        Returns
        -------
        int
            Number of the row.

        Raises
        ------
        ValueError
            If the row or the buffers have another width than before.
        OSError
            If the disk is full; rows before this one are kept.
        """
        self._settle()
        theta, beside = as_vector(theta), as_vector(buffers)
        if len(theta) != self._coder.width or len(beside) != self._n_buffer_entries:
            self._refuse_widths(theta, beside, run, step)
        parts, extra = self._coder.encode(theta, int(run))
        if self._n_buffer_entries:
            parts["buffers"] = np.asarray(beside, dtype=np.float64)
        common = (int(run), int(step), int(epoch))
        rates = (float(learning_rate), float(path_length))
        if loss is None:
            # The caller may change its memory before the loss is known.
            copies = {name: part.copy() for name, part in parts.items()}
            self._pending = (copies, (*common, math.nan, *rates, *extra))
            return len(self._cells)
        self._commit(parts, (*common, float(loss), *rates, *extra))
        return len(self._cells) - 1

    def set_loss(self, row: int, loss: float) -> None:
        """Give a row its loss, or another one than it had.

        Parameters
        ----------
        row : int
            What :meth:`append` returned.
        loss : float
            Loss at the row.
        """
        if row == len(self._cells) and self._pending is not None:
            parts, cell = self._pending
            self._pending = None
            self._commit(parts, (*cell[:3], float(loss), *cell[4:]))
            return
        cell = self._cells[row]
        if cell[3] == float(loss):
            return
        self._cells[row] = (*cell[:3], float(loss), *cell[4:])
        self._rows.amend(row, float(loss))

    def truncate(self, n_rows: int) -> None:
        """Drop all rows but the first ``n_rows``; tables made before must not be used any more."""
        self._pending = None
        if n_rows >= len(self._cells):
            return
        del self._cells[n_rows:]
        columns = self._columns()
        places = self._places(columns)
        self._rows.truncate(n_rows, {n: int(p.max(initial=-1)) + 1 for n, p in places.items()})
        if hasattr(self._rows, "read_cells"):  # a loss that was changed later is the old one again
            self._cells = self._rows.read_cells(self._names)
        self._coder.forget(columns)

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Save what is needed to go on from the rows kept so far; in memory nothing happens.

        Parameters
        ----------
        state : mapping
            Tensors, arrays, numbers, strings, None, and lists, tuples and dicts of them.

        Raises
        ------
        ValueError
            If it holds something that could not be read back.
        """
        self._settle()
        if hasattr(self._rows, "save_state"):
            own = {"n_rows": len(self._cells), "coder": self._coder.state()}
            self._rows.save_state({"keeper": own, "caller": dict(state)})

    def load_state(self) -> dict[str, Any] | None:
        """Return the state saved last, and drop the rows that came after it.

        Returns
        -------
        dict or None
            None where no state was saved; then all rows are dropped, because nothing tells how to
            go on after them.
        """
        saved = self._rows.load_state() if hasattr(self._rows, "load_state") else None
        if saved is None:
            self.truncate(0)
            return None
        self.truncate(saved["keeper"]["n_rows"])
        self._coder.restore(saved["keeper"]["coder"])
        return saved["caller"]

    def save_module(self, run: int, state_dict: Mapping[str, Any]) -> None:
        """Save the last parameters and buffers of a run; in memory nothing happens."""
        if hasattr(self._rows, "save_module"):
            self._rows.save_module(run, state_dict)

    def load_modules(self) -> dict[int, dict[str, Any]]:
        """Return what :meth:`save_module` saved, by run."""
        return self._rows.load_modules() if hasattr(self._rows, "load_modules") else {}

    def save_results(self, **results: Any) -> None:
        """Save numbers, strings and arrays for ``open_trajectory``; in memory nothing happens."""
        if hasattr(self._rows, "save_results"):
            self._rows.save_results(results)

    def close(self) -> None:
        """Keep the row that waits for its loss, with nan, and close the files."""
        if not getattr(self._rows, "is_open", True):
            return
        try:
            self._settle()
            if hasattr(self._rows, "save_endpoints"):
                self._rows.save_endpoints(self._coder.state().get("endpoints", {}))
        finally:
            if hasattr(self._rows, "close"):
                self._rows.close()

    def table(self) -> SnapshotTable:
        """Return the rows kept so far.

        Returns
        -------
        SnapshotTable
            Rows that are appended later do not change it.
        """
        columns = self._columns()
        files = self._rows.arrays()
        return make_table(self._coder, files, columns, self._n_buffer_entries)

    def _commit(self, parts: dict[str, np.ndarray], cell: tuple[Any, ...]) -> None:
        self._rows.append(parts, cell)
        self._cells.append(cell)

    def _settle(self) -> None:
        if self._pending is not None:
            self.set_loss(len(self._cells), math.nan)

    def _columns(self) -> dict[str, np.ndarray]:
        return columns_of(self._cells, self._names)

    def _places(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        places = self._coder.places(columns, len(self._cells))
        if self._n_buffer_entries:
            places["buffers"] = np.arange(len(self._cells))
        return places

    def _refuse_widths(self, theta: np.ndarray, beside: np.ndarray, run: int, step: int) -> None:
        if len(theta) != self._coder.width:
            raise ValueError(
                f"The row at step {step} of run {run} has {len(theta)} entries, must have "
                f"{self._coder.width} as at the start. Record what keeps its size."
            )
        raise ValueError(
            f"module has {len(beside)} buffer entries at step {step} of run {run}, must have "
            f"{self._n_buffer_entries} as at the start. Give buffers that change their size no "
            "place among the buffers (register_buffer)."
        )


def make_coder(
    layout: ParameterLayout | int,
    dtype: str,
    sketch_dim: int | None,
    seed: int,
    *,
    chained: bool = True,
) -> PlainCoder | SketchCoder | DifferenceCoder:
    """Return what makes parts of files of a row, and back.

    Raises
    ------
    ValueError
        If the settings do not go together.
    """
    n_columns = layout if isinstance(layout, int) else layout.n_parameters
    if sketch_dim is not None:
        if dtype == "float16":
            raise ValueError(
                "dtype='float16' cannot go with sketch_dim, must be 'float32' or 'float64': half "
                "precision is for rows. A sketch is small anyway."
            )
        return SketchCoder(layout, dtype, sketch_dim, seed)
    if dtype == "float16":
        return DifferenceCoder(n_columns, chained=chained)
    return PlainCoder(n_columns, dtype)
