"""Files of tensors and plain values, written atomically: states of runs, and their modules."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

_PLAIN = (type(None), bool, int, float, complex, str, bytes)


def save_file(path: Path, record: Mapping[str, Any], *, check: bool) -> None:
    """Write a record atomically; ``check`` reads it back before it replaces the file."""
    import torch

    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(plain_values(record), file)
            file.flush()
            os.fsync(file.fileno())
        if check:
            torch.load(temporary, weights_only=True, mmap=True, map_location="cpu")
    except (OSError, MemoryError):
        temporary.unlink(missing_ok=True)
        raise
    except Exception as error:
        failed_write = _os_error_behind(error)
        if failed_write is not None:
            temporary.unlink(missing_ok=True)
            raise failed_write from error
        temporary.unlink(missing_ok=True)
        odd = sorted(set(_odd(record, "")))
        raise ValueError(
            f"The training state cannot be saved without pickling objects: "
            f"{'; '.join(odd[:5]) or str(error).splitlines()[0]}. store= needs an optimizer, "
            "scheduler and module whose state_dict holds tensors, numbers and strings."
        ) from error
    temporary.replace(path)
    sync_folder(path.parent)


def load_file(path: Path) -> Any:
    """Return what was saved, arrays as tensors; None where there is no file."""
    import torch

    if not path.exists():
        return None
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} is damaged: {reason}. open_trajectory still reads the rows, but the run "
            "cannot be resumed. Restore the file from a copy, or train again in another folder."
        ) from error


def rows_state(saved: Mapping[str, Any]) -> Any:
    """Return the part of a saved state that is not the caller's."""
    # Its key was another one in earlier versions.
    return next(part for key, part in saved.items() if key != "caller")


def plain_values(value: Any) -> Any:
    """Return the value with arrays as tensors and numpy scalars as numbers."""
    # torch.load(weights_only=True) refuses numpy's types.
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach()
        # Saving a view would save its whole storage.
        is_part = value.untyped_storage().nbytes() > value.numel() * value.element_size()
        return value.clone() if is_part else value
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value)) if value.dtype != object else value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {plain_values(key): plain_values(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [plain_values(entry) for entry in value]
    if type(value) is tuple:
        return tuple(plain_values(entry) for entry in value)
    return value


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _os_error_behind(error: BaseException) -> OSError | None:
    """Return the OSError that caused an error of torch, if one did."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _odd(value: Any, where: str) -> Iterator[str]:
    import torch

    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _odd(entry, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for i, entry in enumerate(value):
            yield from _odd(entry, f"{where}[{i}]")
    elif not isinstance(value, (*_PLAIN, torch.Tensor, np.ndarray, np.generic)):
        yield f"{where.lstrip()} is a {type(value).__name__}"
