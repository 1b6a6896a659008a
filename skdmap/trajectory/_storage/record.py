"""A file of tensors and plain values with one checksum, read back without unpickling anything.

Layout: a line with the checksum of all that follows; the length of the JSON; the JSON, in which
tensors stand by their offset; the bytes of the tensors.
"""

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skdmap.trajectory._storage.files import read_bytes, replace_file

_MAGIC = b"skdmap record "
_HEAD = len(_MAGIC) + 8 + 1  # the checksum in hexadecimal digits, and a newline
_ALIGN = 64
_PLAIN = (type(None), bool, int, float, str)


def save_record(path: Path, record: Any) -> None:
    """Write a record atomically; ValueError if it holds what cannot be read back."""
    replace_file(path, encode_record(record))


def load_record(path: Path) -> Any:
    """Return a record, arrays as tensors; None if there is no file, ValueError if damaged."""
    content = read_bytes(path)
    if content is None:
        return None
    try:
        return decode_record(content)
    except Exception as error:
        raise damaged_file(path, error) from error


def damaged_file(path: Path, error: Exception) -> ValueError:
    """Return the error that names a damaged file."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ValueError(
        f"{path} is damaged: {reason}. The rows are not affected, but a run that needs the file "
        "cannot be resumed: restore it from a copy."
    )


def encode_record(record: Any) -> list[Any]:
    """Return the bytes of a record, in parts."""
    tensors: list[np.ndarray] = []
    tree = json.dumps(_encode(record, "", tensors, [0])).encode()
    tree += b" " * (-(_HEAD + 8 + len(tree)) % _ALIGN)
    parts: list[Any] = [len(tree).to_bytes(8, "little"), tree]
    for tensor in tensors:
        parts += [tensor, bytes(-tensor.nbytes % _ALIGN)]
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return [_MAGIC + b"%08x\n" % checksum, *parts]


def decode_record(content: bytes) -> Any:
    """Return the record of these bytes."""
    body = memoryview(content)[_HEAD:]
    if content[:_HEAD] != _MAGIC + b"%08x\n" % zlib.crc32(body):
        raise ValueError("its checksum is wrong")
    end = 8 + int.from_bytes(body[:8], "little")
    return _decode(json.loads(bytes(body[8:end])), body[end:], [0])


def _encode(value: Any, where: str, tensors: list[np.ndarray], end: list[int]) -> Any:
    """Return a value as JSON; its tensors are appended to ``tensors``, which end at ``end[0]``."""
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) in _PLAIN:
        return value
    if isinstance(value, (np.ndarray, torch.Tensor)):
        try:
            tensor = torch.as_tensor(value).detach().cpu().contiguous()
            flat = tensor.reshape(-1).view(torch.uint8).numpy()
        except (TypeError, RuntimeError) as error:
            raise _odd(value, where) from error
        start, end[0] = end[0], end[0] + flat.nbytes + -flat.nbytes % _ALIGN
        tensors.append(flat)
        return {"tensor": str(tensor.dtype), "shape": list(tensor.shape), "start": start}
    if type(value) is list:
        return [_encode(v, f"{where}[{i}]", tensors, end) for i, v in enumerate(value)]
    if type(value) in (tuple, torch.Size):
        return {"tuple": [_encode(v, f"{where}[{i}]", tensors, end) for i, v in enumerate(value)]}
    if isinstance(value, Mapping):
        pairs = [
            [_encode(key, where, tensors, end), _encode(entry, f"{where}[{key!r}]", tensors, end)]
            for key, entry in value.items()
        ]
        return {"dict": pairs}
    if type(value) is complex:
        return {"complex": [value.real, value.imag]}
    if type(value) is bytes:
        return {"bytes": value.hex()}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value)}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    raise _odd(value, where)


def _odd(value: Any, where: str) -> ValueError:
    kind = f"{value.dtype} array" if isinstance(value, np.ndarray) else type(value).__name__
    return ValueError(
        f"The training state cannot be saved without pickling objects: {where} is a {kind}. store= "
        "needs an optimizer, scheduler and module whose state_dict holds tensors, numbers and "
        "strings."
    )


def _decode(tree: Any, data: memoryview, end: list[int]) -> Any:
    """Return the value of JSON; its tensors are read from ``data`` one after the other."""
    if not isinstance(tree, dict):
        return [_decode(entry, data, end) for entry in tree] if isinstance(tree, list) else tree
    kind, content = next(iter(tree.items()))
    if kind == "tensor":
        return _decode_tensor(content, tree["shape"], tree["start"], data, end)
    if kind == "tuple":
        return tuple(_decode(entry, data, end) for entry in content)
    if kind == "dict":
        return {_decode(key, data, end): _decode(entry, data, end) for key, entry in content}
    if kind == "complex":
        return complex(*content)
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "device":
        return torch.device(content)
    if kind == "dtype":
        return _dtype(content)
    raise ValueError(f"it holds a value of kind {kind!r}")


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name.removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"it holds the type {name!r}")
    return dtype


def _decode_tensor(
    name: str, shape: list[int], start: int, data: memoryview, end: list[int]
) -> torch.Tensor:
    dtype, n_entries = _dtype(name), math.prod(shape)
    n_bytes = n_entries * dtype.itemsize
    # One after the other, so that no more is allocated than the file holds.
    if min(shape, default=0) < 0 or start != end[0] or start + n_bytes > len(data):
        raise ValueError("a tensor lies outside of it")
    end[0] += n_bytes + -n_bytes % _ALIGN
    if n_entries == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data[start : start + n_bytes]), dtype=dtype).reshape(shape)
