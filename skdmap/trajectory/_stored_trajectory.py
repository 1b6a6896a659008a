"""Reading a store: columns and modules, without writing to it and without unpickling anything."""

import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skdmap._parameters import ParameterLayout
from skdmap._warning import warn
from skdmap.exceptions import SkdmapWarning
from skdmap.trajectory._storage.coder import RowCoder
from skdmap.trajectory._storage.journal import read_journal
from skdmap.trajectory._storage.manifest import CHAINED_FORMAT, manifest_layout, read_manifest
from skdmap.trajectory._storage.npy import file_rows, map_rows
from skdmap.trajectory._storage.recovery import GoodRows, find_good_rows
from skdmap.trajectory._storage.store import JOURNAL, RESULTS, STATE, load_endpoints, load_modules
from skdmap.trajectory._storage.table import (
    BASE_FIELDS,
    SnapshotTable,
    as_vector,
    columns_of,
    make_table,
)
from skdmap.trajectory._storage.writer import make_coder

if TYPE_CHECKING:
    from torch import nn

# How much is read to check the newest rows: what a power cut can have damaged is younger.
_RECENT = 64 * 2**20


def open_trajectory(path: Any, verify: bool = False, *, module: Any = None) -> "StoredTrajectory":
    """Open a trajectory that was recorded with ``store=``, finished or still being recorded.

    Nothing is written and nothing is unpickled. All lines of the journal, all sizes, and the
    checksums of the newest 64 MB of rows are checked. The rows from the first bad one on are left
    out, with a warning.

    Parameters
    ----------
    path : path-like
        The folder given as ``store``.
    verify : bool, default=False
        Check the checksums of all rows, which reads all of them once.
    module : None, torch.nn.Module, class or factory, default=None
        The module that ``module_at``, ``module_`` and ``modules_`` put the stored values into; a
        class or factory is called without arguments. A store holds numbers, not code: only the
        network that ``TrajectorySampler(module=None)`` builds can be restored without it.

    Returns
    -------
    StoredTrajectory
        Has the attributes of a fitted TrajectorySampler.

    Raises
    ------
    FileNotFoundError
        If the folder holds no trajectory.
    ValueError
        If its manifest is damaged.

    Warns
    -----
    SkdmapWarning
        If rows are left out.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from skdmap import TrajectoryRecorder, open_trajectory
    >>> module = torch.nn.Linear(2, 1, bias=False)
    >>> optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    >>> folder = tempfile.mkdtemp()
    >>> with TrajectoryRecorder(module, store=folder):
    ...     for _ in range(3):
    ...         optimizer.zero_grad()
    ...         module.weight.square().sum().backward()
    ...         optimizer.step()
    >>> open_trajectory(folder, verify=True).snapshots_.shape
    (4, 2)
    """
    folder = Path(os.path.abspath(os.fspath(path)))
    record = read_manifest(folder)
    if record is None:
        raise FileNotFoundError(
            errno.ENOENT,
            "no trajectory there: manifest.json is missing. Pass the folder given as store=",
            str(folder),
        )
    sketch = record["sketch"] or {"dim": None, "seed": 0}
    layout = manifest_layout(record)
    chained = record["format"] >= CHAINED_FORMAT
    coder = make_coder(layout, record["dtype"], sketch["dim"], sketch["seed"], chained=chained)
    names = BASE_FIELDS + tuple(coder.fields)
    content = read_journal(folder / JOURNAL, names)
    n_buffers = record["n_buffer_entries"]
    files = list(coder.files) + (["buffers"] if n_buffers else [])
    arrays = {name: _rows(folder, name) for name in files}
    n_recent = None if verify else _n_recent(coder, n_buffers)
    good = find_good_rows(coder, content, arrays, n_buffers, n_recent=n_recent)
    _warn_left_out(folder, good)
    columns = columns_of(content.metadata[: good.n_rows], names)
    kept = {name: _first_rows(folder, name, count) for name, count in good.counts.items()}
    table = make_table(coder, kept, columns, n_buffers)
    return StoredTrajectory(folder, record, layout, table, module)


class StoredTrajectory:
    """A trajectory on disk, with the attributes of a fitted sampler.

    Made by :func:`open_trajectory`.

    Parameters
    ----------
    folder : Path
        The store.
    manifest : mapping
        As stored.
    layout : ParameterLayout or int
        Layout of a full row.
    table : SnapshotTable
        The rows.
    module : object
        As given to ``open_trajectory``.

    Attributes
    ----------
    snapshots_ : array of shape (n_snapshots, n_columns)
        A read-only memory map, which pickles as its path; a zarr array for a ``.zarr`` store; rows
        that are decoded on access for ``dtype="float16"``.
    buffers_ : ndarray of shape (n_snapshots, n_buffer_entries)
        Buffers of the module.
    steps_, epochs_, run_ids_ : ndarray of int64, shape (n_snapshots,)
        Step, epoch and run of each row.
    losses_, learning_rates_, path_lengths_ : ndarray of float64, shape (n_snapshots,)
        nan where unknown.
    sketch_error_, step_lengths_, start_distances_ : ndarray of shape (n_snapshots,) or None
        As those of :class:`TrajectorySampler`; None without a sketch.
    endpoints_ : mapping of int to ndarray of shape (2, n_parameters), or None
        The full first and last row of each run, for a sketch. They are saved when recording ends,
        and with the last state of a run that was killed.
    parameter_layout_ : ParameterLayout or None
        None where the rows are not parameters.
    history_ : dict of ndarray or None
        As the sampler's; None where training did not end.
    interrupted_ : bool
        Whether training did not end.
    manifest_ : mapping
        Layout, settings and versions.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Mapping[str, Any],
        layout: ParameterLayout | int,
        table: SnapshotTable,
        module: Any,
    ) -> None:
        self.path, self.manifest_, self._module = folder, manifest, module
        self.parameter_layout_ = None if isinstance(layout, int) else layout
        self.snapshots_, self.buffers_ = table.snapshots, table.buffers
        self.steps_, self.epochs_, self.run_ids_ = table.steps, table.epochs, table.run_ids
        self.losses_, self.learning_rates_ = table.losses, table.learning_rates
        self.path_lengths_, self.sketch_error_ = table.path_lengths, table.sketch_error
        self.step_lengths_, self.start_distances_ = table.step_lengths, table.start_distances
        self.endpoints_ = None if table.sketch_error is None else _endpoints(folder)
        results = _results(folder)
        history = results.get("history")
        self.history_ = history and {name: np.array(column) for name, column in history.items()}
        self.interrupted_ = bool(results.get("interrupted", True))

    def __repr__(self) -> str:
        shape = self.snapshots_.shape
        return f"StoredTrajectory({str(self.path)!r}, {shape[0]} rows of {shape[1]} columns)"

    def module_at(self, i: int) -> "nn.Module":
        """Return a module with the parameters and buffers of row ``i``.

        Parameters
        ----------
        i : int
            Row of ``snapshots_``; negative ones count from the end.

        Returns
        -------
        torch.nn.Module
            In eval mode.

        Raises
        ------
        ValueError
            If the rows are not parameters, or sketches of them, or the module is unknown.
        """
        from skdmap.trajectory._training.module_state import restored_module

        if self.parameter_layout_ is None or self.sketch_error_ is not None:
            what = "sketches" if self.sketch_error_ is not None else "not parameters"
            raise ValueError(
                f"The rows of {str(self.path)!r} are {what}, so that no module can be made of one. "
                "Record parameters, without sketch_dim; for a sketch, endpoints_ holds the full "
                "first and last rows."
            )
        theta = np.array(self.snapshots_[i])
        return restored_module(self._template(), self.parameter_layout_, theta, self.buffers_[i])

    @property
    def modules_(self) -> "list[nn.Module]":
        """The module of each finished run, in eval mode."""
        found = []
        for state in load_modules(self.path).values():
            module = self._template()
            module.load_state_dict(state)
            found.append(module.eval())
        return found

    @property
    def module_(self) -> "nn.Module":
        """The module of the last finished run, in eval mode."""
        modules = self.modules_
        if not modules:
            raise AttributeError(
                f"{str(self.path)!r} holds no module: no run was finished. Use module_at(-1)."
            )
        return modules[-1]

    def _template(self) -> "nn.Module":
        from skdmap.trajectory._training.factories import build_module

        if self._module is not None:
            return build_module(self._module, None, n_features=0, n_outputs=0)
        if self.manifest_["settings"].get("module") != "make_mlp":
            raise ValueError(
                f"module=None: {str(self.path)!r} holds the numbers of a module, not its code. "
                "Pass a class, factory or instance: open_trajectory(path, module=MyModule)."
            )
        shapes = self.manifest_["layout"]["shapes"]
        widths = [shape[0] for shape in shapes if len(shape) == 2]
        params = {"hidden": tuple(widths[:-1])}
        return build_module(None, params, n_features=shapes[0][1], n_outputs=widths[-1])


def _rows(folder: Path, name: str) -> Any:
    if folder.suffix == ".zarr":
        from skdmap.trajectory._storage.zarr_arrays import open_group

        return open_group(folder, "r")[name]
    path = folder / f"{name}.npy"
    return file_rows(path)


def _first_rows(folder: Path, name: str, n_rows: int) -> Any:
    if folder.suffix != ".zarr":
        return map_rows(str(folder / f"{name}.npy"), n_rows)
    rows = _rows(folder, name)
    return rows if rows.shape[0] == n_rows else rows[:n_rows]


def _n_recent(coder: RowCoder, n_buffers: int) -> int:
    n_bytes = 8 * n_buffers + sum(w * np.dtype(d).itemsize for w, d in coder.files.values())
    return math.ceil(_RECENT / n_bytes)


def _warn_left_out(folder: Path, good: GoodRows) -> None:
    if good.complaint:
        warn(
            f"{folder}: {good.complaint}. The {good.n_rows} rows before it are good; the rows "
            "after them are left out, but are still on the disk.",
            SkdmapWarning,
        )


def _results(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def _endpoints(folder: Path) -> dict[int, np.ndarray]:
    from skdmap.trajectory._storage.state_file import load_file, rows_state

    found = load_endpoints(folder)
    state = load_file(folder / STATE)
    saved = {} if state is None else rows_state(state)["coder"].get("endpoints", {})
    for run, pair in saved.items():
        file = folder / f"endpoints_{int(run):05d}.npy"
        # The file is written when recording ends; the state may be newer.
        if not file.exists() or file.stat().st_mtime < (folder / STATE).stat().st_mtime:
            found[int(run)] = np.stack([as_vector(theta) for theta in pair])
    return found
