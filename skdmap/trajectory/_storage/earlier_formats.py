"""State files of formats 1 and 2: written by torch.save, read here without running anything.

torch.load would inflate compressed members, and enlarge a storage that a tensor does not fit into.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from skdmap.trajectory._storage.files import read_bytes, replace_file
from skdmap.trajectory._storage.record import damaged_file, decode_record, encode_record

_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool, "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}  # fmt: skip


def save_torch(path: Path, record: Any) -> None:
    """Write a record atomically as torch.save does."""
    file = io.BytesIO()
    # Through the encoding of today: it makes arrays tensors, and refuses what is neither.
    torch.save(decode_record(b"".join(map(bytes, encode_record(record)))), file)
    replace_file(path, [file.getbuffer()])


def load_torch(path: Path) -> Any:
    """Return a record; None if there is no file, ValueError if it is damaged."""
    content = read_bytes(path)
    if content is None:
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError("it is compressed")
            if sum(member.file_size for member in members) > len(content):
                raise ValueError("its members overlap")
            bad = archive.testzip()
            if bad is not None:
                raise ValueError(f"the checksum of {bad} is wrong")
            return _Unpickler(archive).load()
    except Exception as error:
        raise damaged_file(path, error) from error


class _Unpickler(pickle._Unpickler):
    """Reads tensors and plain values; Python's own code, because C's memo has no bound."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
        self._archive, self._root = archive, name.removesuffix("data.pkl")
        self._storages: dict[str, torch.Tensor] = {}
        super().__init__(io.BytesIO(archive.read(name)))

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few things that a state is made of."""
        if (module, name) in _NEEDED:
            return _NEEDED[module, name]
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise ValueError(f"it names {module}.{name}, which is not needed for a state")

    def persistent_load(self, saved: Any) -> torch.Tensor:
        """Return the storage of a tensor as a flat tensor."""
        _, dtype, key, _, n_entries = saved
        if key not in self._storages:
            content = bytearray(self._archive.read(f"{self._root}data/{key}"))
            self._storages[key] = (
                torch.frombuffer(content, dtype=dtype, count=n_entries)
                if n_entries
                else torch.empty(0, dtype=dtype)
            )
        return self._storages[key]


def _rebuilt(storage: Any, offset: int, shape: Any, strides: Any, *_: Any) -> torch.Tensor:
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if 0 in shape:
        return torch.empty(shape, dtype=storage.dtype)
    if min(shape, default=1) < 0 or min(strides, default=0) < 0 or not 0 <= last < len(storage):
        raise ValueError("a tensor lies outside of its storage")
    return storage.as_strided(shape, strides, offset)


_NEEDED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("__builtin__", "complex"): complex,
    ("_codecs", "encode"): lambda text, _: text.encode("latin1"),
}
