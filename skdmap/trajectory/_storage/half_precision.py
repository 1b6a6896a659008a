"""Half precision that keeps distances: float32 key rows, and float16 differences from row to row.

A difference is taken from the row before *as it is decoded*, so that rounding errors do not add up:
each row is off by 2e-4 of its own step. Differences from the key row itself (format 1) are off by
2e-4 of the distance to it, which hides short steps.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from skdmap.trajectory._storage.journal import ListedRows
from skdmap.trajectory._storage.protocols import RowCoder
from skdmap.trajectory._storage.table import as_vector

# Reading one row takes the differences since its key row: at most this many.
_ROWS_PER_KEY = 64
# The largest entry of a difference is scaled to [2^13, 2^14]: far from float16's largest number,
# 65504, and entries down to 2^-28 of it keep all eleven bits.
_EXPONENT = 14
_MOST_EXPONENT = 1000


class DifferenceRows:
    """Rows of float32 that are decoded on access, cheapest in ascending order."""

    # Not an array, so that nothing takes the differences on disk for parameters.

    dtype = np.dtype("float32")
    ndim = 2

    def __init__(
        self,
        keys: Any,  # (n_keys, n_columns)
        differences: Any,  # float16 (n_rows, n_columns), times a power of two
        key: np.ndarray,  # (n_rows,): which key row; the first row of each number is that row
        exponent: np.ndarray,  # (n_rows,): the power of two
        *,
        chained: bool = True,  # False: differences are from the key row itself
    ) -> None:
        self._keys, self._differences, self._key, self._exponent = keys, differences, key, exponent
        self._chained = chained
        self._listed: ListedRows | None = None
        # Row numbers by key row, and where those of each key row begin.
        self._order = np.argsort(key, kind="stable")
        self._begin = np.searchsorted(key[self._order], np.arange(keys.shape[0]))
        self._rank = np.empty(len(key), dtype=np.int64)
        self._rank[self._order] = np.arange(len(key))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self._key), int(self._keys.shape[1])

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._key)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return rows, or columns of rows, as numpy does for an array."""
        rows, columns = index if isinstance(index, tuple) else (index, slice(None))
        # Of a stretch of columns no more is read than that.
        is_stretch = isinstance(columns, slice)
        part, columns = (columns, slice(None)) if is_stretch else (slice(None), columns)
        width = len(range(*part.indices(self.shape[1])))
        chosen = np.arange(len(self))[rows]
        numbers = np.atleast_1d(chosen).reshape(-1)
        decoded = np.empty((numbers.size, width), dtype=np.float32)
        # By key row: how far its differences are added up, and in which row of ``decoded``.
        reached: dict[int, tuple[int, int]] = {}
        for position, row in enumerate(numbers.tolist()):
            key, end = int(self._key[row]), int(self._rank[row])
            start, source = reached.get(key, (end + 1, 0))
            if self._chained and start <= end:
                decoded[position] = decoded[source]
            else:
                decoded[position] = self._keys[key][part]
                # The first is zero in a key row.
                start = int(self._begin[key]) if self._chained else end - 1
            for number in self._order[start + 1 : end + 1].tolist():
                decoded[position] += self._difference(number, part)
            reached[key] = end, position
        if self._listed is not None and numbers.size:
            firsts = self._order[self._begin[self._key[numbers]]]
            self._listed.check(int(firsts.min()), int(numbers.max()))
        return decoded.reshape(*np.shape(chosen), width)[..., columns]

    def watch(self, listed: ListedRows) -> None:
        """Raise, from now on, when rows are read that were dropped meanwhile."""
        # Others written in their places would be added to the wrong rows.
        self._listed = listed

    @property
    def is_chained(self) -> bool:
        """Whether differences are from the row before, not from the key row."""
        return self._chained

    def _difference(self, row: int, part: slice) -> np.ndarray:
        # Beyond that bound there is no float32; a damaged store may hold any number.
        exponent = max(-_MOST_EXPONENT, min(int(self._exponent[row]), _MOST_EXPONENT))
        return scaled(self._differences[row][part], exponent)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Decode all rows."""
        if copy is False:
            raise ValueError("copy=False is not possible: half-precision rows are decoded.")
        decoded = self[:]
        return decoded if dtype is None else decoded.astype(dtype, copy=False)


def scaled(coded: np.ndarray, exponent: int) -> np.ndarray:
    """Return a coded difference in float32, the same when written and when read."""
    # A power of two: exact, unless the entry is below the smallest float32.
    return np.ldexp(coded.astype(np.float32), -exponent)


class DifferenceCoder(RowCoder):
    """Every 64th row of a run in float32; of each other row the difference from the row before."""

    # chained=False: the difference from the key row, as in stores of format 1.

    fields = ("key", "exponent")
    is_chained = True

    def __init__(self, n_columns: int, *, chained: bool = True) -> None:
        self.width, self._chained = n_columns, chained
        self.files = {
            "differences": (n_columns, np.dtype("float16")),
            "key_rows": (n_columns, np.dtype("float32")),
        }
        self._n_keys = 0
        # By run: number of its key row, rows since then, the row before as it is decoded.
        self._of_run: dict[int, tuple[int, int, np.ndarray]] = {}

    def encode(self, theta: np.ndarray, run: int) -> tuple[dict[str, np.ndarray], tuple[Any, ...]]:
        """Return the difference from the row before, and the row itself where it is a key row."""
        theta = np.array(theta, dtype=np.float32)
        number, since, before = self._of_run.get(run, (0, _ROWS_PER_KEY, theta))
        if since >= _ROWS_PER_KEY:
            self._of_run[run] = (self._n_keys, 1, theta)
            self._n_keys += 1
            zeros = np.zeros(len(theta), dtype=np.float16)
            return {"differences": zeros, "key_rows": theta}, (self._n_keys - 1, 0)
        difference = theta - before
        largest = float(np.abs(difference).max(initial=0.0))
        exponent = _EXPONENT - math.frexp(largest)[1] if largest > 0 else 0
        coded = np.ldexp(difference, exponent).astype(np.float16)
        after = before + scaled(coded, exponent) if self._chained else before
        self._of_run[run] = (number, since + 1, after)
        return {"differences": coded}, (number, exponent)

    def positions(self, columns: Mapping[str, np.ndarray], n_rows: int) -> dict[str, np.ndarray]:
        """Return the positions; only key rows have one in "key_rows"."""
        keys = np.full(n_rows, -1)
        numbers, first = np.unique(columns["key"], return_index=True)
        keys[first] = numbers
        return {"differences": np.arange(n_rows), "key_rows": keys}

    def decode(self, files: Mapping[str, Any], columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return the rows, to be decoded on access."""
        parts = files["key_rows"], files["differences"]
        rows = DifferenceRows(*parts, columns["key"], columns["exponent"], chained=self._chained)
        return {"snapshots": rows}

    def state(self) -> dict[str, Any]:
        """Return the last row of each run, as it is decoded."""
        return {"n_keys": self._n_keys, "of_run": dict(self._of_run)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self._n_keys = int(state["n_keys"])
        self._of_run = {
            int(run): (int(number), int(since), as_vector(before).copy())
            for run, (number, since, before) in state["of_run"].items()
        }

    def forget(self, columns: Mapping[str, np.ndarray]) -> None:
        """Start new key rows after those that are left."""
        self._n_keys = int(columns["key"].max(initial=-1)) + 1
        self._of_run = {}
