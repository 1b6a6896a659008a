"""Half precision that keeps distances: float32 key rows, and float16 differences from them."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from skdmap.trajectory._kept_table import as_vector

__all__ = ["DifferenceCoder", "DifferenceRows"]

# Differences from a key row grow with the time since it, and with them their rounding.
_ROWS_PER_KEY = 64
# The largest entry of a difference is scaled to [2^13, 2^14]: far from float16's largest number,
# 65504, and entries down to 2^-28 of it keep all eleven bits.
_EXPONENT = 14


class DifferenceRows:
    """Rows of float32 that are decoded when they are asked for.

    Not an array: the differences on disk are no parameters, and nothing should take them for some.
    ``numpy.asarray(rows)`` decodes all of them; ``rows[i]``, slices and index arrays some.

    Parameters
    ----------
    keys : ndarray of float32, shape (n_keys, n_columns)
        Key rows.
    differences : ndarray of float16, shape (n_rows, n_columns)
        From the key row, times a power of two.
    key : ndarray of int64, shape (n_rows,)
        Which key row.
    exponent : ndarray of int64, shape (n_rows,)
        The power of two.

    Examples
    --------
    >>> rows = DifferenceRows(np.ones((1, 2), np.float32), np.eye(2, dtype=np.float16),
    ...                       np.zeros(2, int), np.array([0, 1]))
    >>> rows.shape, rows[1]
    ((2, 2), array([1. , 1.5], dtype=float32))
    """

    def __init__(self, keys: Any, differences: Any, key: np.ndarray, exponent: np.ndarray) -> None:
        self._keys, self._differences, self._key, self._exponent = keys, differences, key, exponent

    dtype = np.dtype("float32")
    ndim = 2

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
        wanted = np.arange(len(self))[rows]
        parts = np.atleast_1d(wanted)
        decoded = np.empty((parts.size, self.shape[1]), dtype=np.float32)
        for place, row in enumerate(parts.reshape(-1)):
            difference = self._differences[row].astype(np.float32)
            # A power of two: exact, unless the entry is below the smallest float32.
            decoded[place] = np.ldexp(difference, -int(self._exponent[row]))
            decoded[place] += self._keys[self._key[row]]
        return decoded.reshape(*np.shape(wanted), self.shape[1])[..., columns]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Decode all rows."""
        if copy is False:
            raise ValueError("copy=False: rows in half precision are decoded, which is a copy.")
        decoded = self[:]
        return decoded if dtype is None else decoded.astype(dtype, copy=False)


class DifferenceCoder:
    """Every 64th row of a run whole, and of each row the difference from the last such.

    Parameters
    ----------
    n_columns : int
        Width of a row.
    """

    fields = ("key", "exponent")

    def __init__(self, n_columns: int) -> None:
        self.width = n_columns
        self.files: dict[str, tuple[int, np.dtype]] = {
            "differences": (n_columns, np.dtype("float16")),
            "key_rows": (n_columns, np.dtype("float32")),
        }
        self._n_keys = 0
        # By run: number of its key row, rows since then, the key row.
        self._of_run: dict[int, tuple[int, int, np.ndarray]] = {}

    def encode(self, theta: np.ndarray, run: int) -> tuple[dict[str, np.ndarray], tuple[Any, ...]]:
        """Return the difference from the key row, and the row itself where it becomes one."""
        theta = np.array(theta, dtype=np.float32)
        number, since, key = self._of_run.get(run, (0, _ROWS_PER_KEY, theta))
        if since >= _ROWS_PER_KEY:
            self._of_run[run] = (self._n_keys, 1, theta)
            self._n_keys += 1
            zeros = np.zeros(len(theta), dtype=np.float16)
            return {"differences": zeros, "key_rows": theta}, (self._n_keys - 1, 0)
        self._of_run[run] = (number, since + 1, key)
        difference = theta - key
        largest = float(np.abs(difference).max(initial=0.0))
        exponent = _EXPONENT - math.frexp(largest)[1] if largest > 0 else 0
        coded = np.ldexp(difference, exponent).astype(np.float16)
        return {"differences": coded}, (number, exponent)

    def places(self, columns: Mapping[str, np.ndarray], n_rows: int) -> dict[str, np.ndarray]:
        """Return where the parts of each row stand; only a key row has one in "key_rows"."""
        keys = np.full(n_rows, -1)
        numbers, first = np.unique(columns["key"], return_index=True)
        keys[first] = numbers
        return {"differences": np.arange(n_rows), "key_rows": keys}

    def decode(self, files: Mapping[str, Any], columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return the rows, not decoded yet."""
        parts = files["key_rows"], files["differences"]
        return {"snapshots": DifferenceRows(*parts, columns["key"], columns["exponent"])}

    def state(self) -> dict[str, Any]:
        """Return the key row of each run."""
        return {"n_keys": self._n_keys, "of_run": dict(self._of_run)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what :meth:`state` returned."""
        self._n_keys = int(state["n_keys"])
        self._of_run = {
            int(run): (int(number), int(since), as_vector(key).copy())
            for run, (number, since, key) in state["of_run"].items()
        }

    def forget(self, columns: Mapping[str, np.ndarray]) -> None:
        """Begin with new key rows after those that are left."""
        self._n_keys = int(columns["key"].max(initial=-1)) + 1
        self._of_run = {}
