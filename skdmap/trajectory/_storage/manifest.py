"""What a store holds and how it was made: the file that marks a folder as a store."""

import json
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import skdmap
from skdmap._parameters import ParameterLayout
from skdmap._warning import warn
from skdmap.exceptions import SkdmapWarning
from skdmap.trajectory._storage.files import parse_line, read_bytes

# In format 1, half-precision differences are from the key row; since 2, from the row before.
_CHAINED_FORMAT = 2
_DTYPES = ("float16", "float32", "float64")
# Far more than any file has, and far from overflow.
_MOST_COLUMNS = 2**48


@dataclass(frozen=True)
class StoreFormat:
    """The names of the files of a format; nothing else in a folder belongs to the store."""

    manifest: str
    journal: str
    state: str
    results: str
    rows: str
    module: str
    endpoints: str
    has_checksums: bool  # in every file, not in rows and journal only

    def numbered(self, folder: Path, form: str) -> dict[int, Path]:
        """Return the files of one kind (``module`` or ``endpoints``) by run."""
        before, after = form.split("{")[0], form.split("}")[1]
        found = {}
        for path in sorted(folder.glob(f"{before}*{after}")):
            digits = path.name[len(before) : len(path.name) - len(after)]
            if digits.isascii() and digits.isdigit() and path.name == form.format(int(digits)):
                found[int(digits)] = path
        return found


FORMAT_3 = StoreFormat(
    "skdmap-store.json",
    "skdmap-journal.jsonl",
    "skdmap-state.bin",
    "skdmap-results.json",
    "skdmap-{}.npy",
    "skdmap-module-{:05d}.bin",
    "skdmap-endpoints-{:05d}.bin",
    has_checksums=True,
)
FORMATS_1_AND_2 = StoreFormat(
    "manifest.json",
    "journal.jsonl",
    "state.pt",
    "results.json",
    "{}.npy",
    "module_{:05d}.pt",
    "endpoints_{:05d}.npy",
    has_checksums=False,
)


def make_manifest(
    layout: ParameterLayout | int,
    n_buffer_entries: int,
    *,
    dtype: str,
    sketch: Mapping[str, int] | None,
    scalars: Sequence[str],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the manifest of a new store, as it comes back from JSON."""
    if isinstance(layout, int):
        rows: dict[str, Any] = {"n_columns": layout, "names": None, "shapes": None}
    else:
        shapes = [list(shape) for shape in layout.shapes]
        rows = {"n_columns": layout.n_parameters, "names": list(layout.names), "shapes": shapes}
    record = {
        "skdmap": "trajectory",
        "format": 3,
        "layout": rows,
        "n_buffer_entries": int(n_buffer_entries),
        "dtype": str(dtype),
        "sketch": None if sketch is None else dict(sketch),
        "scalars": list(scalars),
        "versions": _versions(),
        "settings": dict(settings),
    }
    try:
        return json.loads(json.dumps(record, default=plain))
    except TypeError as error:
        raise ValueError(
            f"manifest={dict(settings)!r} cannot be written as JSON: {error}. Use numbers, "
            "strings, and lists and dicts of them."
        ) from error


def store_format(folder: Path) -> StoreFormat:
    """Return the format of the store in a folder; the newest for a new one."""
    is_earlier = not _is_there(folder / FORMAT_3.manifest) and read_manifest(folder) is not None
    return FORMATS_1_AND_2 if is_earlier else FORMAT_3


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a folder, or None if it is not a store."""
    path = folder / FORMAT_3.manifest
    content = read_bytes(path)
    if content is not None:
        record = parse_line(content)
        if record is None:
            raise _damaged(path, "its checksum is wrong")
        _check_fields(path, record, (3,))
        return record
    path = folder / FORMATS_1_AND_2.manifest
    content = read_bytes(path) if path.is_file() else None
    if content is None:
        return None
    try:
        record = json.loads(content, object_pairs_hook=_public_names)
    except (ValueError, RecursionError) as error:
        if not _is_there(folder / FORMATS_1_AND_2.journal):
            return None  # somebody else's file
        raise _damaged(path, str(error)) from error
    if not isinstance(record, dict) or "format" not in record:
        return None
    _check_fields(path, record, (1, 2))
    return {"scalars": [], **record}


def public_name(value: Any) -> Any:
    """Return a dotted name of skdmap without its private modules; any other value as it is."""
    is_ours = isinstance(value, str) and value.startswith("skdmap.")
    return re.sub(r"\._\w+(?=\.)", "", value) if is_ours else value


def _public_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {
        key: [*map(public_name, value)] if isinstance(value, list) else public_name(value)
        for key, value in pairs
    }


def _is_there(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _damaged(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"{path} is damaged: {reason}. The rows may still be good: numpy.load reads the .npy files "
        "next to it."
    )


def _check_fields(path: Path, record: Mapping[str, Any], formats: tuple[int, ...]) -> None:
    """Raise a ValueError if a manifest is of another format, or has a field out of range."""
    found = record.get("format")
    if isinstance(found, int) and found > 3:
        raise ValueError(
            f"{path} has format {found}; it must be at most 3. Read it with the version of skdmap "
            "that wrote it, or a later one."
        )
    rows, sketch = record.get("layout"), record.get("sketch")
    checks = {
        "format": found in formats,
        "layout": isinstance(rows, dict) and _is_layout(rows),
        "n_buffer_entries": _is_count(record.get("n_buffer_entries")),
        "dtype": record.get("dtype") in _DTYPES,
        "sketch": sketch is None
        or (
            isinstance(sketch, dict)
            and _is_count(sketch.get("dim"))
            and isinstance(sketch.get("seed"), int)
        ),
        "scalars": _are_names(record.get("scalars", [])),
        "versions": isinstance(record.get("versions"), dict),
        "settings": isinstance(record.get("settings"), dict),
    }
    wrong = [name for name, is_right in checks.items() if not is_right]
    if wrong:
        raise _damaged(path, f"{wrong[0]} is missing or out of range")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < _MOST_COLUMNS


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_layout(rows: Mapping[str, Any]) -> bool:
    names, shapes = rows.get("names"), rows.get("shapes")
    if not _is_count(rows.get("n_columns")):
        return False
    if names is None:
        return True
    return (
        _are_names(names)
        and isinstance(shapes, list)
        and len(shapes) == len(names)
        and all(isinstance(shape, list) and all(map(_is_count, shape)) for shape in shapes)
        and sum(_size(shape) for shape in shapes) == rows["n_columns"]
    )


def is_chained(record: Mapping[str, Any]) -> bool:
    """Return whether half-precision differences are from the row before."""
    return bool(record["format"] >= _CHAINED_FORMAT)


def check_manifest(folder: Path, stored: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise a ValueError that names the differences, if there are any; warn of patch versions."""
    known = _comparable(stored), _comparable(expected)
    patched = [name for name in known[1]["versions"] if _is_patch(name, *known)]
    for name in patched:
        known[1]["versions"][name] = known[0]["versions"][name]
    if _is_extended(*known):
        known[1]["settings"]["record_every"] = known[0]["settings"]["record_every"]
    if (stored["format"], stored["versions"].get("skdmap")) != (
        expected["format"],
        expected["versions"]["skdmap"],
    ):
        # Another version of skdmap may know a setting more or less.
        both = {*stored["settings"]} & {*expected["settings"]} | {"recorder"}
        for record in known:
            record["settings"] = {k: v for k, v in record["settings"].items() if k in both}
    found = list(_differences(*known, ""))
    if found:
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        raise ValueError(
            f"store={str(folder)!r} holds a trajectory with other settings: "
            f"{'; '.join(found[:3])}{more}. Use the same settings, data and versions to resume "
            "it, or another folder for a new one."
        )
    if patched:
        pairs = [
            f"{name} {stored['versions'][name]} (here {expected['versions'][name]})"
            for name in patched
        ]
        warn(
            f"store={str(folder)!r} was written with {', '.join(pairs)}: the rows to come may "
            "differ in their last bits from those of an undisturbed run. Install these versions "
            "for equal bits.",
            SkdmapWarning,
        )


def _is_patch(name: str, stored: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Return whether two versions of a package differ, but not in their first two numbers."""
    pair = str(stored["versions"].get(name)), expected["versions"][name]
    minor = [re.match(r"\d+\.\d+(?=\.|\+|$)", one) for one in pair]
    return pair[0] != pair[1] and all(minor) and minor[0][0] == minor[1][0]  # type: ignore[index]


def _is_extended(stored: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Return whether a recorder's sequence of steps continues the stored one."""
    steps = [record["settings"].get("record_every") for record in (stored, expected)]
    # The recorder looks for steps that have gone by; a sampler knows its last step from the start.
    is_recorder = all(record["settings"].get("recorder") for record in (stored, expected))
    lists = is_recorder and all(isinstance(one, list) for one in steps)
    return lists and steps[1][: len(steps[0])] == steps[0]


def _comparable(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must agree: another format or version of skdmap need not."""
    kept = {name: part for name, part in record.items() if name not in ("skdmap", "format")}
    versions = {name: v for name, v in record["versions"].items() if name != "skdmap"}
    return kept | {"versions": versions, "settings": dict(record["settings"])}


def manifest_layout(record: Mapping[str, Any]) -> ParameterLayout | int:
    """Return the layout of the rows, or their width where they are not parameters."""
    rows = record["layout"]
    if rows["names"] is None:
        return int(rows["n_columns"])
    slices, start = [], 0
    for shape in rows["shapes"]:
        slices.append(slice(start, start + _size(shape)))
        start += _size(shape)
    shapes = tuple(tuple(shape) for shape in rows["shapes"])
    return ParameterLayout(tuple(rows["names"]), shapes, tuple(slices))


def _size(shape: Sequence[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def plain(value: Any) -> Any:
    """Return a numpy scalar, an array or a tensor as JSON values."""
    if hasattr(value, "tolist"):
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


def _differences(stored: Any, expected: Any, where: str) -> Iterator[str]:
    if isinstance(stored, dict) and isinstance(expected, dict):
        for key in {**stored, **expected}:
            path = f"{where}.{key}" if where else key
            if key not in stored or key not in expected:
                sides = (stored.get(key, "missing"), expected.get(key, "missing"))
                yield f"{path} is {sides[0]!r} in the store and {sides[1]!r} here"
            else:
                yield from _differences(stored[key], expected[key], path)
    elif stored != expected and not (stored != stored and expected != expected):  # nan is nan
        yield f"{where} is {_short(stored)} in the store and {_short(expected)} here"


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
