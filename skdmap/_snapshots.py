"""Snapshots from whatever holds them: an array, a recorder, a sampler, a store, or a list."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skdmap._sklearn_compat import InvalidParameterError

_WHAT_TO_PASS = (
    "Pass an array of shape (n_snapshots, n_parameters), a TrajectoryRecorder, a fitted "
    "TrajectorySampler, what open_trajectory returns, or a list of these."
)


@dataclass(frozen=True)
class Snapshots:
    """Rows of one or more recordings, one below the other, read in blocks of columns."""

    parts: tuple[Any, ...]  # each (n_rows, n_columns), sliced as numpy slices
    run_ids: np.ndarray | None  # (n_rows,); None for a plain array
    steps: np.ndarray | None  # (n_rows,), training steps
    losses: np.ndarray | None  # (n_rows,)
    sketch_dim: int | None  # columns of the sketch, where the rows are known to be one

    @property
    def shape(self) -> tuple[int, int]:
        """The number of rows of all parts, and of columns."""
        return sum(len(part) for part in self.parts), int(self.parts[0].shape[1])

    def columns(self, first: int, last: int) -> np.ndarray:
        """Return columns ``first`` to ``last`` (n_rows, last - first) in float64."""
        blocks = [np.asarray(part[:, first:last], dtype=np.float64) for part in self.parts]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def matrix(self) -> Any:
        """Return all rows as one array; a single part as it is."""
        return self.parts[0] if len(self.parts) == 1 else np.concatenate(self.parts)


def snapshots_of(source: Any, name: str = "snapshots") -> Snapshots:
    """Return the rows, runs and steps of ``source``; an error says what to pass instead."""
    if holds_snapshots(source):
        return _of_recording(source, name)
    items = list(source) if isinstance(source, Sequence) and not isinstance(source, str) else []
    if any(holds_snapshots(item) or np.ndim(item) == 2 for item in items if _may_be_rows(item)):
        return _stacked([_one_of_a_list(item, i, name) for i, item in enumerate(items)], name)
    for item in items[:1] or [source]:
        _refuse(item, name, "a list of " if items else "")
    return _of_array(source, name)


def matrix_of(source: Any, name: str = "X") -> Any:
    """Return the rows of a recording or of a list of them as one matrix; anything else as it is.
    Paths, state dicts and modules are refused with what to pass.
    """
    if hasattr(source, "shape"):  # an array of any kind; a sparse one may be a mapping, too
        return source
    items = source if isinstance(source, list | tuple) and len(source) else [source]
    if any(holds_snapshots(item) for item in items):
        return snapshots_of(source, name).matrix()
    _refuse(items[0], name, "a list of " if items is source else "")
    return source


def holds_snapshots(source: Any) -> bool:
    """Whether ``source`` is a recorder, a sampler or a stored trajectory, recorded or not."""
    # The class is asked too: reading an attribute of a recorder may raise before there are rows.
    kind = type(source)
    return (
        hasattr(source, "snapshots_")
        or hasattr(kind, "snapshots_")
        or "snapshots_" in getattr(kind, "__annotations__", {})
    )


def _may_be_rows(item: Any) -> bool:
    return holds_snapshots(item) or hasattr(item, "ndim")


def _of_recording(source: Any, name: str) -> Snapshots:
    found = getattr(source, "snapshots_", None)
    if found is None or len(found) == 0:
        raise InvalidParameterError(
            f"{name}={type(source).__name__} holds no snapshots yet. Fit the sampler, or train "
            "with the recorder, and pass it then."
        )
    run_ids = np.asarray(source.run_ids_)
    is_sketch = getattr(source, "sketch_error_", None) is not None
    return Snapshots(
        parts=(_checked(found, name),),
        run_ids=run_ids,
        steps=np.asarray(source.steps_),
        losses=getattr(source, "losses_", None),
        sketch_dim=int(found.shape[1]) if is_sketch else None,
    )


def _one_of_a_list(item: Any, position: int, name: str) -> Snapshots:
    name = f"{name}[{position}]"
    if holds_snapshots(item):
        return _of_recording(item, name)
    _refuse(item, name, "")
    return _of_array(item, name)


def _of_array(rows: Any, name: str) -> Snapshots:
    try:
        array = np.asarray(rows)
    except ValueError:  # rows of different lengths
        raise InvalidParameterError(
            f"{name} cannot be read as an array of numbers. {_WHAT_TO_PASS}"
        ) from None
    return Snapshots((_checked(array, name),), None, None, None, None)


def _stacked(found: list[Snapshots], name: str) -> Snapshots:
    """Return several recordings as one; each keeps its runs, numbered from those before."""
    widths = [one.shape[1] for one in found]
    if len(set(widths)) > 1:
        raise InvalidParameterError(
            f"{name} has recordings of {', '.join(map(str, widths))} columns; they must be equal. "
            "Pass recordings of the same parameters, each as rows or each as sketches of one width."
        )
    if len({one.sketch_dim for one in found}) > 1:
        raise InvalidParameterError(
            f"{name} has both sketches and full rows; their columns do not correspond. Pass one "
            "kind."
        )
    run_ids, n_runs = [], 0
    for one in found:
        given = np.zeros(one.shape[0], dtype=np.intp) if one.run_ids is None else one.run_ids
        labels, first = np.unique(given, return_index=True)
        # Runs are numbered in the order in which they begin.
        rank = np.argsort(np.argsort(first))
        run_ids.append(n_runs + rank[np.searchsorted(labels, given)])
        n_runs += len(labels)
    columns = {}
    for column in ("steps", "losses"):
        values = [getattr(one, column) for one in found]
        columns[column] = None if any(v is None for v in values) else np.concatenate(values)
    parts = tuple(part for one in found for part in one.parts)
    return Snapshots(parts, np.concatenate(run_ids), sketch_dim=found[0].sketch_dim, **columns)


def _checked(rows: Any, name: str) -> Any:
    shape = np.shape(rows)
    if len(shape) != 2 or 0 in shape or rows.dtype.kind not in "fiub":
        kind = "" if rows.dtype.kind in "fiub" else f" and dtype {rows.dtype}"
        raise InvalidParameterError(
            f"{name} has shape {shape}{kind}; it must be numbers of shape (n_snapshots, "
            f"n_parameters). {_WHAT_TO_PASS}"
        )
    return rows


def _refuse(item: Any, name: str, many: str) -> None:
    """Raise for paths, state dicts and modules."""
    if isinstance(item, (str, os.PathLike)):
        found = f"{many}paths" if many else "a path"
        remedy = (
            "Open the folder of a recording with skdmap.open_trajectory(path). Of checkpoint "
            "files, load each and pass the parameters as rows of one array."
        )
    elif isinstance(item, Mapping):
        found = f"{many}mappings" if many else "a mapping"
        remedy = (
            "Of state dicts, flatten each in the same order and pass the rows: "
            "numpy.stack([numpy.concatenate([value.ravel() for value in state.values()]) for "
            "state in states])."
        )
    elif hasattr(item, "state_dict"):
        found = f"{many}modules" if many else "a module"
        remedy = "Record its training with skdmap.TrajectoryRecorder(module) and pass the recorder."
    else:
        return
    raise InvalidParameterError(f"{name} is {found}. {remedy}")
