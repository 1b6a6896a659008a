"""The memory that wide samples take: sizes of the blocks in which they are read and compared."""

from collections.abc import Iterator

# Bytes of one block of columns of all samples; a pass holds two or three of them.
BLOCK_BYTES = 2**26
# Entries of blocks of pairs that are computed again, of distances to pivots, of hashed rows, of a
# part of a block of columns, and of the columns that pivots are chosen by.
PAIR_ENTRIES = 2**20
PIVOT_ENTRIES = 2**22
HASH_ENTRIES = 2**21
PART_ENTRIES = 2**24
SAMPLE_ENTRIES = 2**23


def columns_within_limit(
    n_columns: int, bytes_each: int, *, copies: int = 1, chunk: int = 1
) -> Iterator[slice]:
    """Slices of columns, ``bytes_each`` of memory, so that all copies of one take BLOCK_BYTES.
    Slices are whole chunks where a source is stored in chunks: part of one costs as much to read.
    """
    width = max(256, BLOCK_BYTES // max(1, copies * bytes_each))
    width = max(chunk, width // chunk * chunk)
    for start in range(0, n_columns, width):
        yield slice(start, min(start + width, n_columns))


def rows_within(n_entries: int, n_columns: int) -> int:
    """How many rows of so many columns have at most ``n_entries``; at least one."""
    return max(1, n_entries // max(1, n_columns))
