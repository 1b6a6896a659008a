"""Reading a store: columns and modules, without writing to it and without unpickling anything."""

import errno
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skdmap._parameters import ParameterLayout
from skdmap._warning import warn
from skdmap.exceptions import SkdmapWarning
from skdmap.trajectory._storage.half_precision import DifferenceRows
from skdmap.trajectory._storage.journal import ListedRows
from skdmap.trajectory._storage.manifest import (
    FORMAT_3,
    StoreFormat,
    is_chained,
    manifest_layout,
    read_manifest,
    store_format,
)
from skdmap.trajectory._storage.npy import map_rows
from skdmap.trajectory._storage.protocols import RowCoder
from skdmap.trajectory._storage.recovery import StoredRows, all_files, read_rows
from skdmap.trajectory._storage.side_files import SideFiles
from skdmap.trajectory._storage.table import (
    BASE_FIELDS,
    ChosenRows,
    SnapshotTable,
    bridge,
    columns_of,
    counted,
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
    checksums of the newest 64 MB of rows are checked. Bad rows are left out, with a warning: of
    half-precision rows, of which each needs those before it, and of rows that were not yet synced
    when a process ended, all from the first bad one on.

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
    NotADirectoryError
        If ``path`` is a file.
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
    if folder.is_file():
        raise NotADirectoryError(
            errno.ENOTDIR, "this is a file. Pass the folder given as store=", str(folder)
        )
    record = read_manifest(folder)
    if record is None:
        raise FileNotFoundError(
            errno.ENOENT,
            f"no trajectory there: {FORMAT_3.manifest} is missing. Pass the folder given as store=",
            str(folder),
        )
    names, sketch = store_format(folder), record["sketch"] or {"dim": None, "seed": 0}
    layout, n_buffers = manifest_layout(record), record["n_buffer_entries"]
    coder = make_coder(
        layout, record["dtype"], sketch["dim"], sketch["seed"], chained=is_chained(record)
    )
    scalars = tuple(record["scalars"])
    n_recent = None if verify else _n_recent(coder, n_buffers)
    stored = read_rows(folder, names, coder, n_buffers, scalars, n_recent=n_recent)
    files = SideFiles(folder, names)
    # One warning of missing rows is enough.
    n_known = math.inf if stored.complaint else stored.n_rows
    _warn_of_damage(folder, stored, files.check(n_known) if verify else ())
    columns = columns_of(stored.metadata, BASE_FIELDS + tuple(coder.fields) + scalars)
    counts = stored.counts
    if stored.later:
        counts = dict.fromkeys(counts, max(stored.later) + 1)
    rows = {
        name: _first_rows(folder, names, name, spec, counts[name])
        for name, spec in all_files(coder, n_buffers).items()
    }
    if stored.lost:
        bridge(columns, stored.numbers, stored.lost)
        rows = {name: ChosenRows(array, stored.numbers) for name, array in rows.items()}
        if n_buffers:
            rows["buffers"] = np.asarray(rows["buffers"])
    table = make_table(coder, rows, columns, n_buffers, scalars)
    if isinstance(table.snapshots, DifferenceRows):
        table.snapshots.watch(ListedRows(folder / names.journal, stored.journal))
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
        that are decoded on access for ``dtype="float16"``, and read on access where a bad one
        between them is left out.
    buffers_ : ndarray of shape (n_snapshots, n_buffer_entries)
        Buffers of the module.
    steps_, epochs_, run_ids_ : ndarray of int64, shape (n_snapshots,)
        Step, epoch and run of each row.
    losses_, learning_rates_, path_lengths_ : ndarray of float64, shape (n_snapshots,)
        nan where unknown; ``path_lengths_`` is nan in the first row.
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
        Whether training did not end: True too while it is being recorded, and after a kill.
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
        self._files = SideFiles(folder, store_format(folder))
        self.endpoints_ = None if table.sketch_error is None else self._files.load_endpoints(_warn)
        results = _results(self._files)
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
        template = self._template(self.parameter_layout_.shapes)
        self._check_names(template)
        return restored_module(template, self.parameter_layout_, theta, self.buffers_[i])

    def _check_names(self, template: "nn.Module") -> None:
        """Raise where a module lacks a parameter of the rows, or has it in another shape."""
        layout = self.parameter_layout_
        found = {name: tuple(p.shape) for name, p in template.named_parameters()}
        wanted = {} if layout is None else dict(zip(layout.names, layout.shapes, strict=True))
        if any(found.get(name) != tuple(shape) for name, shape in wanted.items()):
            names = found.keys() != wanted.keys()
            has, needs = (
                _listed(d if names else [f"{n} {d[n]}" for n in d]) for d in (found, wanted)
            )
            raise ValueError(
                f"module= has parameters {has}; the store has {needs}: another network. Pass the "
                "class, factory or instance that was recorded."
            )

    @property
    def modules_(self) -> "list[nn.Module]":
        """The module of each finished run, in eval mode."""
        found = []
        for state in self._files.load_modules().values():
            module = self._template([getattr(value, "shape", ()) for value in state.values()])
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

    def _template(self, shapes: Sequence[Sequence[int]]) -> "nn.Module":
        """Return the module given, or the default network whose parameters have these shapes."""
        from skdmap.trajectory._training.factories import build_module

        if self._module is not None:
            return build_module(self._module, None, n_features=0, n_outputs=0)
        if self.manifest_["settings"].get("module") != "make_mlp":
            raise ValueError(
                f"module=None: {str(self.path)!r} holds the numbers of a module, not its code. "
                "Pass a class, factory or instance: open_trajectory(path, module=MyModule)."
            )
        settings = self.manifest_["settings"]
        hidden = (settings.get("module_params") or {}).get("hidden", 32)
        n_layers = 1 + (len(hidden) if isinstance(hidden, list) else 1)
        if settings.get("parameters") is not None and len(shapes) < 2 * n_layers:
            # Those of the first layers alone look like a smaller network.
            raise ValueError(
                f"The rows of {str(self.path)!r} leave out some parameters "
                f"(parameters={settings['parameters']!r}), so that no module can be made of one. "
                "Record with parameters=None."
            )
        widths = [shapes[0][1] if shapes and len(shapes[0]) == 2 else 0]
        widths += [shape[0] for shape in shapes if len(shape) == 2]
        wanted = [shape for pair in pairwise(widths) for shape in (pair[::-1], pair[1:])]
        if len(widths) < 2 or [*map(tuple, shapes)] != wanted:
            raise ValueError(f"{str(self.path)!r} is damaged: its layout is not that of make_mlp.")
        params = {"hidden": tuple(widths[1:-1])}
        return build_module(None, params, n_features=widths[0], n_outputs=widths[-1])


def _first_rows(
    folder: Path, names: StoreFormat, name: str, spec: tuple[int, np.dtype], n_rows: int
) -> Any:
    width, dtype = spec
    if n_rows == 0:
        return np.empty((0, width), dtype)
    if folder.suffix == ".zarr":
        from skdmap.trajectory._storage.zarr_arrays import zarr_rows

        return zarr_rows(folder / name, n_rows)
    return map_rows(str(folder / names.rows.format(name)), n_rows, width, dtype.str)


def _n_recent(coder: RowCoder, n_buffers: int) -> int:
    n_bytes = sum(width * dtype.itemsize for width, dtype in all_files(coder, n_buffers).values())
    return math.ceil(_RECENT / n_bytes)


def _warn_of_damage(folder: Path, stored: StoredRows, others: Iterable[str]) -> None:
    if stored.later:
        lost = ", ".join(map(str, list(stored.lost)[:10])) + (
            ", ..." if len(stored.lost) > 10 else ""
        )
        which = f"row{'s' if len(stored.lost) > 1 else ''} {lost}" if stored.lost else "no row"
        warn(
            f"{folder}: {stored.complaint}. Left out: {which}; the other "
            f"{counted(len(stored.numbers), 'row')} are good.",
            SkdmapWarning,
        )
    elif stored.complaint:
        kept = (
            (
                "The row before it is"
                if stored.n_rows == 1
                else f"The {stored.n_rows} rows before it are"
            )
            if stored.n_rows
            else "No row is known to be"
        )
        warn(
            f"{folder}: {stored.complaint}. {kept} good; what follows is left out, and is still on "
            "the disk.",
            SkdmapWarning,
        )
    for remark in stored.remarks:
        warn(f"{folder}: {remark}. No row is lost by it.", SkdmapWarning)
    for remark in others:
        warn(remark, SkdmapWarning)


def _listed(names: Iterable[str]) -> str:
    first = list(names)
    return ", ".join(first[:4]) + (", ..." if len(first) > 4 else "")


def _results(files: SideFiles) -> dict[str, Any]:
    try:
        return files.load_results()
    except ValueError as error:
        warn(f"{error} history_ is None, and interrupted_ is True.", SkdmapWarning)
        return {}


def _warn(message: str) -> None:
    warn(message, SkdmapWarning)
