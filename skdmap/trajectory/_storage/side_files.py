"""The files of a store that are not rows: state, modules, endpoints and results."""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from skdmap.trajectory._storage.files import (
    checked_line,
    parse_line,
    read_bytes,
    remove_file,
    replace_file,
)
from skdmap.trajectory._storage.manifest import StoreFormat, plain
from skdmap.trajectory._storage.table import as_vector

Endpoints = Mapping[int, tuple[np.ndarray, np.ndarray]]


class SideFiles:
    """Reads and writes these files in the format of a store; each is whole, or an error."""

    def __init__(self, folder: Path, names: StoreFormat) -> None:
        self._folder, self._names = folder, names
        self.state_path = folder / names.state
        self.results_path = folder / names.results

    def module_path(self, run: int) -> Path:
        """Return the file of the module of a run."""
        return self._folder / self._names.module.format(run)

    def endpoints_path(self, run: int) -> Path:
        """Return the file of the first and last row of a run."""
        return self._folder / self._names.endpoints.format(run)

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the saved state."""
        self._save(self.state_path, state)

    def load_state(self) -> Any:
        """Return the state, or None."""
        return self._load(self.state_path)

    def save_module(self, run: int, state_dict: Mapping[str, Any]) -> None:
        """Save the last module of a run."""
        self._save(self.module_path(run), state_dict)

    def load_modules(self) -> dict[int, Any]:
        """Return the saved modules by run."""
        paths = self._names.numbered(self._folder, self._names.module)
        found = {run: self._load(path) for run, path in paths.items()}
        for run, path in paths.items():
            if not isinstance(found[run], dict):
                raise ValueError(f"{path} is damaged: it is not the state of a module.")
        return found

    def save_results(self, results: Mapping[str, Any]) -> None:
        """Save numbers, strings and arrays."""
        record = json.loads(json.dumps(results, default=plain))
        replace_file(self.results_path, [checked_line(record)])

    def load_results(self) -> dict[str, Any]:
        """Return the results; none where there is no file."""
        content = read_bytes(self.results_path)
        if content is None:
            return {}
        record = parse_line(content)
        if record is None and not self._names.has_checksums:
            try:
                record = json.loads(content)
            except (ValueError, RecursionError):
                record = None
        if not isinstance(record, dict):
            raise ValueError(f"{self.results_path} is damaged. The rows are not affected.")
        return record

    def save_endpoints(self, endpoints: Endpoints, n_rows: int) -> None:
        """Save the first and the last row of each run."""
        for run, pair in endpoints.items():
            path, rows = self.endpoints_path(run), np.stack(pair)
            if self._names.has_checksums:
                self._save(path, {"n_rows": n_rows, "rows": rows})
            else:
                file = io.BytesIO()
                np.save(file, rows, allow_pickle=False)
                replace_file(path, [file.getbuffer()])

    def load_endpoints(self, damaged: Callable[[str], None]) -> dict[int, np.ndarray]:
        """Return (first row, last row) by run; of a file and the state, the later ones."""
        found, saved_at = {}, {}
        for run, path in self._names.numbered(self._folder, self._names.endpoints).items():
            try:
                saved_at[run], found[run] = self._read_endpoints(path)
            except ValueError as error:
                damaged(f"{error} endpoints_ lacks run {run}, or has earlier rows of it.")
        try:
            state = self._load(self.state_path)
            own = {} if state is None else rows_state(state)
            for run, pair in own.get("coder", {}).get("endpoints", {}).items():
                if saved_at.get(run, -1) < self._age(self.state_path, own["n_rows"]):
                    found[int(run)] = np.stack([as_vector(theta) for theta in pair])
        except (ValueError, TypeError, AttributeError) as error:
            damaged(f"{error} endpoints_ lacks runs that were not finished.")
        return found

    def remove_endpoints(self, *, after: int) -> None:
        """Remove the first and last rows that were saved beside more rows than ``after``."""
        if not self._names.has_checksums:
            return
        for path in self._names.numbered(self._folder, self._names.endpoints).values():
            try:
                is_later = self._read_endpoints(path)[0] > after
            except ValueError:  # it is damaged, and readers are told
                continue
            if is_later:
                remove_file(path)

    def _read_endpoints(self, path: Path) -> tuple[float, np.ndarray]:
        try:
            if self._names.has_checksums:
                record = self._load(path)
                return int(record["n_rows"]), np.asarray(record["rows"])
            return self._age(path, 0), _read_npy(read_bytes(path) or b"")
        except (ValueError, EOFError, SyntaxError, LookupError, TypeError) as error:
            known = f"{error}" if str(path) in str(error) else f"{path} is damaged: {error}."
            raise ValueError(known) from error

    def _age(self, path: Path, n_rows: int) -> float:
        # Files of formats 1 and 2 do not tell how many rows there were.
        return n_rows if self._names.has_checksums else path.lstat().st_mtime

    def check(self, n_rows: float) -> Iterator[str]:
        """Yield what is wrong with files that have a checksum, beside ``n_rows`` rows."""
        modules = self._names.numbered(self._folder, self._names.module)
        endpoints = self._names.numbered(self._folder, self._names.endpoints)
        for path in (self.state_path, *modules.values()):
            try:
                record = self._load(path)
            except ValueError as error:
                yield str(error)
                continue
            if path == self.state_path and record is not None:
                n_needed = rows_state(record)["n_rows"]
                if n_needed > n_rows:
                    yield f"{path} needs {n_needed} rows, and only {n_rows} are good."
        for path in endpoints.values():
            try:
                self._read_endpoints(path)
            except ValueError as error:
                yield str(error)

    def remove_state(self) -> None:
        """Remove the state for good."""
        remove_file(self.state_path)

    def remove_all(self) -> None:
        """Remove all of these files."""
        modules = self._names.numbered(self._folder, self._names.module)
        endpoints = self._names.numbered(self._folder, self._names.endpoints)
        paths = self.state_path, self.results_path, *modules.values(), *endpoints.values()
        for path in paths:
            remove_file(path)

    def _save(self, path: Path, record: Any) -> None:
        if self._names.has_checksums:
            from skdmap.trajectory._storage.record import save_record

            save_record(path, record)
        else:
            from skdmap.trajectory._storage.earlier_formats import save_torch

            save_torch(path, record)

    def _load(self, path: Path) -> Any:
        if self._names.has_checksums:
            from skdmap.trajectory._storage.record import load_record

            return load_record(path)
        from skdmap.trajectory._storage.earlier_formats import load_torch

        return load_torch(path)


def rows_state(saved: Any) -> dict[str, Any]:
    """Return the part of a saved state that is not the caller's."""
    # Its key was another one in earlier versions.
    pairs = saved.items() if isinstance(saved, dict) else ()
    own = [part for key, part in pairs if key != "caller" and isinstance(part, dict)]
    n_rows = own[0].get("n_rows") if own else None
    if not isinstance(n_rows, int) or n_rows < 0:
        raise ValueError("The saved state is damaged: it does not tell the number of rows.")
    return own[0]


def _read_npy(content: bytes) -> np.ndarray:
    """Return the array of an .npy file, which is as long as its header says."""
    file = io.BytesIO(content)
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject or len(content) - file.tell() != dtype.itemsize * int(
        np.prod(shape, dtype=object)
    ):
        raise ValueError("its length is wrong")
    return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape)
