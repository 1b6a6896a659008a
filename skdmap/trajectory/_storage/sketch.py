"""A seeded sparse Johnson-Lindenstrauss sketch: a short vector that nearly keeps distances."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from skdmap._argument_checks import is_integer
from skdmap._parameters import ParameterLayout
from skdmap.trajectory._storage.protocols import RowCoder, RowFiles
from skdmap.trajectory._storage.table import as_vector

# Entries at a time, so that the intermediate arrays stay in the cache of one core.
_CHUNK = 2**18
# One nonzero in each of as many blocks of rows.
_N_BLOCKS = 4
# A block is chosen by 16 bits of the hash: one for the sign, 15 for the row.
_MOST = _N_BLOCKS * 2**15


def sketch_key(seed: int, name: str) -> int:
    """Return the key of one parameter in [0, 2^64), the same in every process."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def sketch_part(values: np.ndarray, *, key: int, sketch_dim: int, first: int = 0) -> np.ndarray:
    """Return the linear sketch (float64) of entries ``first``, ... of one parameter."""
    # Linear: sketches of parts, parameters, devices and ranks add up to the sketch of the whole.
    # Sparse Johnson-Lindenstrauss transform (Kane & Nelson 2014, doi:10.1145/2559902): column i
    # has one nonzero, 1/2 or -1/2, in each of four blocks of sketch_dim / 4 rows. Sign and row
    # come from one splitmix64 of key + i (Steele et al. 2014, doi:10.1145/2660193.2660195), so
    # that there is no table. Squared distances keep their mean, and have a relative standard
    # deviation of about sqrt(2 / sketch_dim).
    n_block_rows = sketch_dim // _N_BLOCKS
    # Twice as many bins as rows: those of the negative sign come second.
    bins = np.zeros((_N_BLOCKS, 2 * n_block_rows))
    for start in range(0, len(values), _CHUNK):
        weights = values[start : start + _CHUNK].astype(np.float64)
        hashed = _splitmix64(key, first + start, len(weights))
        for block in range(_N_BLOCKS):
            bits = (hashed >> np.uint64(16 * block)) & np.uint64(0xFFFF)
            bits *= np.uint64(2 * n_block_rows)
            bits >>= np.uint64(16)
            bins[block] += np.bincount(
                bits.view(np.int64), weights=weights, minlength=2 * n_block_rows
            )
    halves = bins.reshape(_N_BLOCKS, 2, n_block_rows)
    return ((halves[:, 0] - halves[:, 1]) / math.sqrt(_N_BLOCKS)).reshape(-1)


def sketch_vector(
    theta: np.ndarray, layout: ParameterLayout | int, *, sketch_dim: int, seed: int
) -> np.ndarray:
    """Return the sketch (float64) of a whole row; seed and layout must agree between rows."""
    if isinstance(layout, int):
        return sketch_part(theta, key=sketch_key(seed, ""), sketch_dim=sketch_dim)
    total = np.zeros(sketch_dim)
    for name, part in zip(layout.names, layout.slices, strict=True):
        total += sketch_part(theta[part], key=sketch_key(seed, name), sketch_dim=sketch_dim)
    return total


class SketchCoder(RowCoder):
    """Sketches in place of rows, and exact lengths next to them."""

    fields = ("sketch_error", "step_length", "start_distance")

    def __init__(
        self, layout: ParameterLayout | int, dtype: str, sketch_dim: int, seed: int
    ) -> None:
        if (
            not is_integer(sketch_dim)
            or sketch_dim % _N_BLOCKS
            or not _N_BLOCKS <= sketch_dim <= _MOST
        ):
            raise ValueError(
                f"sketch_dim={sketch_dim!r} must be a multiple of {_N_BLOCKS} in "
                f"[{_N_BLOCKS}, {_MOST}]. 4096 keeps squared distances to 2.2 %; None keeps the "
                "rows themselves."
            )
        self._layout: ParameterLayout | int = layout
        self._dim: int = int(sketch_dim)
        self._seed: int = int(seed)
        self.width = layout if isinstance(layout, int) else layout.n_parameters
        self.files: RowFiles = {"snapshots": (self._dim, np.dtype(dtype))}
        self._first: dict[int, np.ndarray] = {}
        self._last: dict[int, np.ndarray] = {}
        self._last_sketch: dict[int, np.ndarray] = {}
        self._lacks_first: set[int] = set()  # runs whose first row is there, but not in full

    def encode(self, theta: np.ndarray, run: int) -> tuple[dict[str, np.ndarray], tuple[Any, ...]]:
        """Return the sketch of a row, its error, and the exact lengths."""
        sketch = sketch_vector(theta, self._layout, sketch_dim=self._dim, seed=self._seed)
        sketch = sketch.astype(self.files["snapshots"][1])
        error, length = math.nan, math.nan
        if run in self._last:
            exact = _squared_distance(theta, self._last[run])
            step = sketch.astype(np.float64) - self._last_sketch[run]
            error = float(step @ step) / exact - 1 if exact > 0 else 0.0
            length = math.sqrt(exact)
            self._last[run][:] = theta
        else:
            self._last[run] = np.array(theta)
        if run not in self._first and run not in self._lacks_first:
            self._first[run] = np.array(theta)
        self._last_sketch[run] = sketch
        distance = math.nan
        if run in self._first:
            distance = math.sqrt(_squared_distance(theta, self._first[run]))
        return {"snapshots": sketch}, (error, length, distance)

    def decode(self, files: Mapping[str, Any], columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return the sketches, the exact lengths, and the full first and last rows."""
        return {
            "snapshots": files["snapshots"],
            "sketch_error": columns["sketch_error"],
            "step_lengths": columns["step_length"],
            "start_distances": columns["start_distance"],
            "endpoints": self._endpoints(),
        }

    def state(self) -> dict[str, Any]:
        """Return the rows from which the next lengths are measured."""
        ends = self._endpoints()
        return {
            "endpoints": ends,
            "sketches": dict(self._last_sketch),
            # Where rows were dropped, the last row is not known in full.
            "first": {run: theta for run, theta in self._first.items() if run not in ends},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        ends = {int(run): pair for run, pair in state["endpoints"].items()}
        first = {run: pair[0] for run, pair in ends.items()} | dict(state.get("first", {}))
        self._first = {int(run): as_vector(theta).copy() for run, theta in first.items()}
        self._last = {run: as_vector(pair[1]).copy() for run, pair in ends.items()}
        self._last_sketch = {int(r): as_vector(s).copy() for r, s in state["sketches"].items()}

    def restore_first(self, first: Mapping[int, np.ndarray]) -> None:
        """Take the first row of each run, where no state was saved."""
        self._first = {run: np.array(theta) for run, theta in first.items()}
        self._lacks_first -= first.keys()

    def restore_last(self, theta: np.ndarray, run: int) -> None:
        """Take the last row of a run in full: the next length is measured from it."""
        sketch = sketch_vector(theta, self._layout, sketch_dim=self._dim, seed=self._seed)
        self._last[run] = np.array(theta)
        self._last_sketch[run] = sketch.astype(self.files["snapshots"][1])

    def forget(self, columns: Mapping[str, np.ndarray]) -> None:
        """Forget the last rows: the next row of each run has no length."""
        left = set(columns["run"].tolist())
        self._first = {run: theta for run, theta in self._first.items() if run in left}
        self._lacks_first = left - self._first.keys()
        self._last, self._last_sketch = {}, {}

    def _endpoints(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        return {
            run: (self._first[run], self._last[run]) for run in self._last if run in self._first
        }


def _splitmix64(key: int, first: int, n: int) -> np.ndarray:
    """Return the hash of key + first, ..., key + first + n - 1, modulo 2^64."""
    z = np.arange(n, dtype=np.uint64)
    # numpy warns when a scalar wraps around, not when an array does.
    z += np.uint64((key + first) % 2**64)
    z *= np.uint64(0x9E3779B97F4A7C15)
    shifted = z >> np.uint64(30)
    z ^= shifted
    z *= np.uint64(0xBF58476D1CE4E5B9)
    np.right_shift(z, np.uint64(27), out=shifted)
    z ^= shifted
    z *= np.uint64(0x94D049BB133111EB)
    np.right_shift(z, np.uint64(31), out=shifted)
    z ^= shifted
    return z


def _squared_distance(a: np.ndarray, b: np.ndarray) -> float:
    total = 0.0
    for start in range(0, len(a), _CHUNK):
        part = slice(start, start + _CHUNK)
        difference = a[part].astype(np.float64) - b[part]
        total += float(difference @ difference)
    return total
