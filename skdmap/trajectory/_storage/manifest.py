"""What a store holds and how it was made: one JSON file, written once."""

import json
import os
import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import skdmap
from skdmap._parameters import ParameterLayout

MANIFEST = "manifest.json"
# 2: half-precision differences are from the row before, in 1 from the key row. Other rows are the
# same in both, and keep the number that earlier versions read.
_FORMAT, CHAINED_FORMAT = 1, 2


def make_manifest(
    layout: ParameterLayout | int,
    n_buffer_entries: int,
    *,
    dtype: str,
    sketch: Mapping[str, int] | None,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the manifest of a new store, as it comes back from JSON."""
    if isinstance(layout, int):
        rows: dict[str, Any] = {"n_columns": layout, "names": None, "shapes": None}
    else:
        shapes = [list(shape) for shape in layout.shapes]
        rows = {
            "n_columns": layout.n_parameters,
            "names": list(layout.names),
            "shapes": shapes,
        }
    record = {
        "format": CHAINED_FORMAT if dtype == "float16" else _FORMAT,
        "layout": rows,
        "n_buffer_entries": int(n_buffer_entries),
        "dtype": str(dtype),
        "sketch": None if sketch is None else dict(sketch),
        "versions": _versions(),
        "settings": dict(settings),
    }
    try:
        return json.loads(json.dumps(record, default=_plain))
    except TypeError as error:
        raise ValueError(
            f"manifest={dict(settings)!r} cannot be written as JSON: {error}. Use numbers, "
            "strings, and lists and dicts of them."
        ) from error


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a folder, or None if it has none."""
    path = folder / MANIFEST
    try:
        record = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_public_names)
        found = record["format"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged: {error}. The rows may still be good: numpy.load reads the .npy "
            "files next to it."
        ) from error
    if found not in (_FORMAT, CHAINED_FORMAT):
        raise ValueError(
            f"{path} has format {found}, must be {_FORMAT} or {CHAINED_FORMAT}. Read it with the "
            "version of skdmap that wrote it."
        )
    return record


def public_name(value: Any) -> Any:
    """Return a dotted name of skdmap without its private modules; any other value as it is."""
    is_ours = isinstance(value, str) and value.startswith("skdmap.")
    return re.sub(r"\._\w+(?=\.)", "", value) if is_ours else value


def _public_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {
        key: [*map(public_name, value)] if isinstance(value, list) else public_name(value)
        for key, value in pairs
    }


def check_manifest(folder: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise a ValueError that names the differences, if there are any."""
    found = list(_differences(stored, wanted, ""))
    if found:
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        raise ValueError(
            f"store={str(folder)!r} holds a trajectory with other settings: "
            f"{'; '.join(found[:3])}{more}. Use the same settings, data and versions to resume "
            "it, or another folder for a new one."
        )


def manifest_layout(record: Mapping[str, Any]) -> ParameterLayout | int:
    """Return the layout of the rows, or their width where they are not parameters."""
    rows = record["layout"]
    if rows["names"] is None:
        return int(rows["n_columns"])
    slices, start = [], 0
    for shape in rows["shapes"]:
        size = 1
        for length in shape:
            size *= length
        slices.append(slice(start, start + size))
        start += size
    shapes = tuple(tuple(shape) for shape in rows["shapes"])
    return ParameterLayout(tuple(rows["names"]), shapes, tuple(slices))


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(record, file, indent=1, default=_plain)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy's scalars and arrays, tensors
        return value.tolist()
    raise TypeError(f"{value!r} is not a JSON value")


def _versions() -> dict[str, str]:
    found = {"skdmap": skdmap.__version__, "python": platform.python_version()}
    for name in ("numpy", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # installed without metadata
            found[name] = "unknown"
    return found


def _differences(stored: Any, wanted: Any, where: str) -> Any:
    if isinstance(stored, dict) and isinstance(wanted, dict):
        for key in {**stored, **wanted}:
            path = f"{where}.{key}" if where else key
            if key not in stored or key not in wanted:
                sides = (stored.get(key, "missing"), wanted.get(key, "missing"))
                yield f"{path} is {sides[0]!r} in the store and {sides[1]!r} here"
            else:
                yield from _differences(stored[key], wanted[key], path)
    elif stored != wanted and not (stored != stored and wanted != wanted):  # nan equals nan here
        yield f"{where} is {_short(stored)} in the store and {_short(wanted)} here"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def setting(value: Any) -> Any:
    """Return a setting as JSON values that are the same in every process."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [setting(part) for part in value]
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return f"array of shape {tuple(value.shape)}"
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return {"kind": type(value).__name__, **{k: setting(v) for k, v in vars(value).items()}}
