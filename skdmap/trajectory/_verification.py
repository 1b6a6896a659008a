"""Which rows of a store are whole: all parts there, and their bytes as they were written."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["bad_rows", "whole_rows"]


def whole_rows(arrays: Mapping[str, int], places: Mapping[str, np.ndarray], n_rows: int) -> int:
    """Return how many rows from the first on have all their parts within the files.

    Parameters
    ----------
    arrays : mapping of str to int
        Rows in each file.
    places : mapping of str to ndarray
        Where the part of each row stands.
    n_rows : int
        Rows in the journal.

    Returns
    -------
    int
        At most ``n_rows``.
    """
    for name, place in places.items():
        missing = np.flatnonzero(place >= arrays[name])
        n_rows = min([n_rows, *missing[:1].tolist()])
    return n_rows


def bad_rows(
    arrays: Mapping[str, Any],
    places: Mapping[str, np.ndarray],
    checksums: Sequence[int],
    *,
    first: int = 0,
) -> list[int]:
    """Return the rows from ``first`` on whose bytes do not have the checksum of their line."""
    found = []
    for row in range(first, len(checksums)):
        checksum = 0
        for name in arrays:
            if places[name][row] >= 0:
                part = np.ascontiguousarray(arrays[name][places[name][row]])
                checksum = zlib.crc32(part.data, checksum)
        if checksum != checksums[row]:
            found.append(row)
    return found
